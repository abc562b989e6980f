"""Downloads several pages at once: one dispatcher each, one loop for all.

Speaks just enough HTTP for that: one GET per connection, which the server
closes at the end.  No TLS, no redirects.
"""

import argparse
import socket
import sys
import time
from urllib.parse import urlsplit

from fastcore import asyncore


class Download(asyncore.dispatcher):
    """One page; `status`, `body` and `error` tell how it went."""

    def __init__(self, url):
        super().__init__()
        self.url = url
        self.status = self.error = None
        self.body = b""
        self.chunks = []
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"not an http:// address: {url}")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.request = (
            f"GET {target} HTTP/1.0\r\nHost: {parts.netloc}\r\nConnection: close\r\n\r\n"
        ).encode("ascii")
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            self.connect((parts.hostname, parts.port or 80))
        except OSError as error:  # a name that does not resolve, say
            self.close()
            self.fail(error)

    def writable(self):
        return not self.connected or bool(self.request)

    def handle_write(self):
        self.request = self.request[self.send(self.request) :]

    def handle_read(self):
        self.chunks.append(self.recv(65536))

    def handle_close(self):
        self.close()
        head, _, self.body = b"".join(self.chunks).partition(b"\r\n\r\n")
        words = head.split(b"\r\n", 1)[0].split(None, 2)
        if len(words) >= 2 and words[0].startswith(b"HTTP/") and words[1].isdigit():
            self.status = int(words[1])
            print(f"{self.url}: {self.status}, {len(self.body)} bytes", flush=True)
        else:
            self.fail("the answer is not HTTP")

    def handle_error(self):
        # Called while the exception is being handled; here mostly a failed connect.
        self.close()
        self.fail(sys.exc_info()[1])

    def fail(self, reason):
        """Remember and report what went wrong."""
        self.error = reason
        print(f"{self.url}: {reason}", file=sys.stderr, flush=True)


def download_all(urls, timeout):
    """Download every address at the same time; return the Downloads."""
    downloads = [Download(url) for url in urls]
    deadline = time.monotonic() + timeout
    while asyncore.socket_map and time.monotonic() < deadline:
        asyncore.loop(timeout=0.2, count=1)
    for download in downloads:
        if download.status is None and download.error is None:
            download.close()
            download.fail(f"not finished within {timeout:g} s")
    return downloads


def main():
    """Download the addresses given; the exit status is 1 unless all went well."""
    parser = argparse.ArgumentParser(description="Download pages, all at once.")
    parser.add_argument("urls", nargs="+", metavar="URL", help="http:// addresses")
    parser.add_argument("--timeout", type=float, default=30.0, help="seconds for all together")
    options = parser.parse_args()
    try:
        downloads = download_all(options.urls, options.timeout)
    except ValueError as error:
        parser.error(str(error))
    finally:
        asyncore.close_all()
    return 0 if all(download.status == 200 for download in downloads) else 1


if __name__ == "__main__":
    sys.exit(main())
