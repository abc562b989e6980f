"""What channels log goes to the module `logging`, by one call for the whole program.

    logs.use_logging()

Knows dispatchers only.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from typing import Any

from . import asyncore

__all__ = ["LEVELS", "use_logging"]

# The level of each type of log_info(); of any other type it is that of "info".
LEVELS: dict[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}

_PRINTED = asyncore.dispatcher.log, asyncore.dispatcher.log_info


def use_logging(
    logger: logging.Logger | str = "fastcore.asyncore", levels: Mapping[str, int] = LEVELS
) -> Callable[[], None]:
    """Send to `logger` what `log()` and `log_info()` of all channels print; return the way back.

    The level is that of the message's type in `levels`, and of "info" for what log() is given.  The
    channel is the record's attribute `channel`, and while an exception is being handled an error
    has its traceback.  `ignore_log_types` counts as ever, and so does a class that overrides these
    methods; none has to.  Called again, the last call counts.  What is returned has them printed
    again.
    """
    target = logging.getLogger(logger) if isinstance(logger, str) else logger
    default = levels.get("info", logging.INFO)

    def log(self: Any, message: Any) -> None:
        """Log a hit, to a logger."""
        target.log(default, "%s", message, extra={"channel": self}, stacklevel=2)

    def log_info(self: Any, message: Any, type: str = "info") -> None:
        """Log a message, to a logger, unless its type is in `ignore_log_types`."""
        if type in self.ignore_log_types:
            return
        level = levels.get(type, default)
        error = (level >= logging.ERROR and sys.exc_info()[0] is not None) or None
        extra = {"channel": self}
        target.log(level, "%s", message, exc_info=error, extra=extra, stacklevel=2)

    _set(log, log_info)
    return _print


def _print() -> None:
    """Have all channels print what they log, as they did at first."""
    _set(*_PRINTED)


def _set(log: Any, log_info: Any) -> None:
    asyncore.dispatcher.log = log  # type: ignore[method-assign]
    asyncore.dispatcher.log_info = log_info  # type: ignore[method-assign]
