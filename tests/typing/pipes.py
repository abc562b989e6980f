"""A typed file_dispatcher on a pipe, where the system has it.

For type checkers: the class is there under this very condition, as it was.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from fastcore import asyncore

if sys.platform != "win32":

    class Reader(asyncore.file_dispatcher):
        """Collects what is written into a pipe."""

        def __init__(self, fd: int, channels: dict[int, Any]) -> None:
            super().__init__(fd, channels)
            self.text = b""

        def writable(self) -> bool:
            return False

        def handle_read(self) -> None:
            self.text += self.recv(100)

        def handle_close(self) -> None:
            self.close()

    def main() -> None:
        channels: dict[int, Any] = {}
        reading, writing = os.pipe()
        reader = Reader(reading, channels)
        os.close(reading)
        writer = asyncore.file_wrapper(writing)
        os.close(writing)
        written: int = writer.send(b"through a pipe")
        writer.close()
        asyncore.loop(5, map=channels)
        assert len(reader.text) == written

    if __name__ == "__main__":
        main()
