"""The types of push.pyx; stubtest compares them with what is built."""

from collections.abc import Callable
from typing import Any

from .sockets import GONE as GONE

held_back: dict[int, Any]

def push_short(chat: Any, data: Any, test: Callable[[Any], bool], corked: Any) -> bool | None: ...
