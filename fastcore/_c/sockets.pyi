"""The types of sockets.pyx; stubtest compares them with what is built."""

from typing import Any

from _typeshed import ReadableBuffer

DISCONNECTED: frozenset[int]
GONE: Any  # returned in the place of a number

def receive(sock: Any, buffer_size: int) -> bytes: ...
def transmit(sock: Any, data: ReadableBuffer) -> int: ...
def transmit_plainly(sock: Any, data: ReadableBuffer) -> int | None: ...
