"""get_loop(): where the loops meet the module whose map is the default.

asyncore imports the loops, and they know nothing of it.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from . import asyncore, loop


def get_loop(map: MutableMapping[int, Any] | None = None) -> loop.Loop:
    """Return the loop behind `asyncore.loop(map=map)`, made where there is none.

    Without a map: the loop of `asyncore.socket_map`, as it is bound now.
    """
    return loop.get_loop(asyncore.socket_map if map is None else map)
