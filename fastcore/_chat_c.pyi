"""The types of a chat's input in C: the Python one's; stubtest compares them with what is built."""

from typing import Any

from . import _chat_py
from ._sockets_c import GONE as GONE

# An alias, not an import: stubtest does not look into a class that is imported.
Received = _chat_py.Received

def push_short(chat: Any, data: Any) -> bool: ...
