"""Reads a plain file through the loop with `file_dispatcher`.

Plain files are always ready, so this gains nothing in speed; it lets one
program treat a file, a pipe and a terminal alike.  Unix only.
"""

import argparse
import sys

from fastcore import asyncore


class LineCounter(asyncore.file_dispatcher):
    """Counts lines and bytes to the end of a file."""

    def __init__(self, file):
        super().__init__(file)
        self.lines = self.bytes = 0

    def writable(self):
        return False

    def handle_read(self):
        data = self.recv(8192)
        self.bytes += len(data)
        self.lines += data.count(b"\n")

    def handle_close(self):
        self.close()


def main():
    """Count what is in a file, or in standard input."""
    parser = argparse.ArgumentParser(description="Count the lines of a file.")
    parser.add_argument("path", nargs="?", help="default: standard input")
    options = parser.parse_args()
    if options.path is None:
        counter = LineCounter(sys.stdin)
    else:
        try:
            # The dispatcher works on a duplicate, so ours can go at once.
            with open(options.path, "rb") as file:
                counter = LineCounter(file)
        except OSError as error:
            sys.exit(f"read_file.py: {error}")
    asyncore.loop()
    print(f"{counter.lines} lines, {counter.bytes} bytes")


if __name__ == "__main__":
    main()
