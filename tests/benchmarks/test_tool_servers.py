"""The servers that redis-benchmark and wrk drive, spoken to in raw bytes over real sockets.

Each runs unmodified on every engine, and on the asyncore that a plain `python` finds: what one of
them answers all must answer.  Knows the protocols and nothing of fastcore's inside.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import socket
import sys
import threading
from collections.abc import Iterator

import pytest
from bench_support import PROGRAMS
from test_examples import ENGINES, TIMEOUT, connect, receive_all, serving

SIZES = (1, 2, 3, 7, 1000)  # bytes of the pieces that requests are cut into


@contextlib.contextmanager
def server_of(runner: str, name: str) -> Iterator[int]:
    """One server on an engine or on the peer; its port.  It must neither end nor complain."""
    line = [sys.executable, "-W", "error", "-m", "fastcore", "run", "--engine", runner]
    if runner == "peer":
        line = [sys.executable, "-W", "ignore"]
    options = [] if os.name == "nt" else ["--poll"]
    with serving("auto", [*line, str(PROGRAMS / name), *options]) as (process, port):
        yield port
        assert process.poll() is None
        process.kill()
        output, complaints = process.communicate(timeout=TIMEOUT)
        assert (output, complaints) == ("", "")


@pytest.fixture(params=[*ENGINES, "peer"], scope="module")
def runner(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def resp(runner: str) -> Iterator[int]:
    """The port of a RESP server."""
    with server_of(runner, "resp_server.py") as port:
        yield port


@pytest.fixture(scope="module")
def web(runner: str) -> Iterator[int]:
    """The port of an HTTP server."""
    with server_of(runner, "http_server.py") as port:
        yield port


def send_in_pieces(client: socket.socket, text: bytes, size: int) -> None:
    """Send `size` bytes at a time, each in a segment of its own."""
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for start in range(0, len(text), size):
        client.sendall(text[start : start + size])


def ask(port: int, text: bytes) -> bytes:
    """Send a text, and read until the server closes."""
    with connect(port) as client:
        client.sendall(text)
        return receive_all(client, 1 << 20)


# ---- RESP ------------------------------------------------------------------


def command(*words: bytes) -> bytes:
    """A command as redis clients send it."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


# Commands and their answers, in an order in which they mean something.
DIALOGUE = [
    (b"PING\r\n", b"+PONG\r\n"),
    (command(b"PING"), b"+PONG\r\n"),
    (command(b"ping", b"hello\r\n"), b"$7\r\nhello\r\n\r\n"),
    (b"  echo   word \r\n", b"$4\r\nword\r\n"),
    (b"\r\n", b""),
    (b"*0\r\n", b""),
    (command(b"ECHO", b""), b"$0\r\n\r\n"),
    (command(b"ECHO", bytes(range(256))), b"$256\r\n" + bytes(range(256)) + b"\r\n"),
    (command(b"GET", b"*1\r\n$4\r\n"), b"$-1\r\n"),
    (command(b"SET", b"*1\r\n$4\r\n", b"\r\n" * 300), b"+OK\r\n"),
    (command(b"GET", b"*1\r\n$4\r\n"), b"$600\r\n" + b"\r\n" * 300 + b"\r\n"),
    (command(b"SET", b"k", b"other"), b"+OK\r\n"),
    (b"get k\r\n", b"$5\r\nother\r\n"),
    (command(b"CONFIG", b"GET", b"save"), b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n"),
    (command(b"CONFIG", b"get", b"appendonly"), b"*2\r\n$10\r\nappendonly\r\n$2\r\nno\r\n"),
    (command(b"CONFIG", b"GET", b"else"), b"*0\r\n"),
    (command(b"CONFIG", b"SET", b"save"), b"-ERR only CONFIG GET is known here\r\n"),
    (command(b"GET"), b"-ERR wrong number of arguments for 'get' command\r\n"),
    (command(b"PING", b"1", b"2"), b"-ERR wrong number of arguments for 'ping' command\r\n"),
    (command(b"F\r\n\xff", b"x"), b"-ERR unknown command 'F\\r\\n\\xff'\r\n"),
]


def test_resp_one_at_a_time(resp: int) -> None:
    with connect(resp) as client:
        for request, answer in DIALOGUE:
            client.sendall(request)
            assert receive_all(client, len(answer)) == answer
        client.sendall(command(b"QUIT"))
        assert receive_all(client, 100) == b"+OK\r\n"


@pytest.mark.parametrize("size", SIZES)
def test_resp_pipelined(resp: int, size: int) -> None:
    """All at once, cut anywhere."""
    requests = b"".join(request for request, _ in DIALOGUE) + command(b"QUIT")
    answers = b"".join(answer for _, answer in DIALOGUE) + b"+OK\r\n"
    # Afresh for each size: the first GET finds nothing.
    key = b"key of %d" % size
    requests = requests.replace(b"$8\r\n*1\r\n$4\r\n", b"$%d\r\n%b" % (len(key), key))
    with connect(resp) as client:
        send_in_pieces(client, requests, size)
        assert receive_all(client, 1 << 20) == answers


def test_resp_quit_is_the_end(resp: int) -> None:
    assert ask(resp, b"PING\r\nquit\r\nPING\r\n" + command(b"PING")) == b"+PONG\r\n+OK\r\n"


def test_resp_many_in_flight(resp: int) -> None:
    """More than the buffers of sockets hold, from two clients that share the values."""
    count, value = 2000, os.urandom(1000)
    requests = b"".join(command(b"SET", b"%d" % n, b"%d," % n + value) for n in range(count))
    with connect(resp) as first, connect(resp) as second:
        sender = threading.Thread(target=first.sendall, args=(requests,))
        sender.start()
        assert receive_all(first, 5 * count) == b"+OK\r\n" * count
        sender.join(TIMEOUT)
        requests = b"".join(command(b"GET", b"%d" % n) for n in range(count))
        answers = [b"%d," % n + value for n in range(count)]
        expected = b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in answers)
        sender = threading.Thread(target=second.sendall, args=(requests,))
        sender.start()
        assert receive_all(second, len(expected)) == expected
        sender.join(TIMEOUT)


@pytest.mark.parametrize(
    ("garbage", "reason"),
    [
        (b"*x\r\n", b"invalid multibulk length"),
        (b"*-1\r\n", b"invalid multibulk length"),
        (b"*99999999999999999999\r\n", b"invalid multibulk length"),
        (b"*2\r\n$4\r\nECHO\r\n:1\r\n", b"expected '$', got ':'"),
        (b"*1\r\n\r\n", b"expected '$', got ''"),
        (b"*1\r\n$-1\r\n", b"invalid bulk length"),
        (b"*1\r\n$ 4\r\n", b"invalid bulk length"),
        (b"*1\r\n$4\r\nPINGPONG", b"expected the end of a line after a bulk string"),
        (b"x" * 65537, b"too big inline request"),
        (b"*1\r\n$" + b"1" * 65536, b"too big inline request"),
    ],
)
def test_resp_garbage(resp: int, garbage: bytes, reason: bytes) -> None:
    """What is no RESP is refused after what was; other clients notice nothing."""
    with connect(resp) as other:
        assert ask(resp, b"PING\r\n" + garbage) == (
            b"+PONG\r\n-ERR Protocol error: " + reason + b"\r\n"
        )
        other.sendall(b"PING\r\n")
        assert receive_all(other, 7) == b"+PONG\r\n"


def test_resp_clients_that_leave(resp: int) -> None:
    """In the middle of a line, of a string, and with answers they never read."""
    for text in (b"*3\r\n$3\r", b"*2\r\n$4\r\nECHO\r\n$100\r\nabc", command(b"PING") * 1000):
        with connect(resp) as client:
            client.sendall(text)
    with connect(resp) as client:
        client.sendall(b"PING\r\n")
        assert receive_all(client, 7) == b"+PONG\r\n"


# ---- HTTP ------------------------------------------------------------------

HELLO = b"Hello, world!\n"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /about HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
DATE = re.compile(rb"Date: \w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT\r\n")


def page(body: bytes, status: bytes = b"200 OK", extra: bytes = b"") -> bytes:
    """An answer, but for its date."""
    return (
        b"HTTP/1.1 %b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n%b\r\n%b"
    ) % (status, len(body), extra, body)


def problem(status: bytes, extra: bytes = b"") -> bytes:
    """An answer that says its status in words."""
    return page(status + b"\n", status, extra)


CLOSE = b"Connection: close\r\n"
ALLOW = b"Allow: GET, HEAD\r\n"
ABOUT = page(b"This server runs on asynchat.\n", extra=CLOSE)


def fetch(port: int, text: bytes) -> bytes:
    """Everything that is answered until the server closes, without the dates."""
    return DATE.sub(b"", ask(port, text))


def test_http_client_library(web: int) -> None:
    """A client that knows HTTP keeps one connection for everything."""
    connection = http.client.HTTPConnection("127.0.0.1", web, timeout=TIMEOUT)
    with contextlib.closing(connection):
        connection.connect()
        kept = connection.sock
        for method, path, status, body in [
            ("GET", "/", 200, HELLO),
            ("HEAD", "/", 200, b""),
            ("POST", "/", 405, b"405 Method Not Allowed\n"),
            ("GET", "/missing", 404, b"404 Not Found\n"),
            ("GET", "/about?x=1", 200, b"This server runs on asynchat.\n"),
        ]:
            connection.request(method, path, body=b"x" * 100_000 if method == "POST" else None)
            response = connection.getresponse()
            assert (response.status, response.read()) == (status, body)
            assert response.getheader("Date")
            length = len(HELLO) if method == "HEAD" else len(body)
            assert int(response.headers["Content-Length"]) == length
            assert connection.sock is kept


BODY = b"GET / HTTP/1.1\r\nHost: no request\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
REQUESTS = [
    (GET, page(HELLO)),
    (b"\r\n\r\n" + GET, page(HELLO)),
    (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", page(HELLO)[: -len(HELLO)]),
    (POST, problem(b"405 Method Not Allowed", ALLOW)),
    (
        b"GET /no HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n\r\n\r\n5",
        problem(b"404 Not Found"),
    ),
    (b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", page(HELLO)),
    (b"GET //a/ HTTP/1.1\r\nhost:\ta\r\nContent-Length: 0\r\n\r\n", problem(b"404 Not Found")),
    (b"GET /%61bout HTTP/1.1\r\nHost: a\r\n\r\n", ABOUT.replace(CLOSE, b"")),
    (
        b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        page(HELLO, extra=b"Connection: keep-alive\r\n"),
    ),
    (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", problem(b"405 Method Not Allowed", ALLOW)),
]


@pytest.mark.parametrize("size", SIZES)
def test_http_pipelined(web: int, size: int) -> None:
    """All at once, cut anywhere, answered in order; bodies are no requests."""
    with connect(web) as client:
        send_in_pieces(client, b"".join(request for request, _ in REQUESTS) + LAST, size)
        answers = DATE.sub(b"", receive_all(client, 1 << 20))
    assert answers == b"".join(answer for _, answer in REQUESTS) + ABOUT


def test_http_many_in_flight(web: int) -> None:
    count = 20_000
    with connect(web) as client:
        sender = threading.Thread(target=client.sendall, args=(GET * count + LAST,))
        sender.start()
        size = count * (len(page(HELLO)) + 37) + len(ABOUT) + 37
        received = receive_all(client, size)
        sender.join(TIMEOUT)
    assert len(received) == size
    assert DATE.sub(b"", received) == page(HELLO) * count + ABOUT


@pytest.mark.parametrize(
    "text",
    [
        b"\0\1\2\3",
        b"GET /",
        b"GET  / HTTP/1.1\r\nHost: a",
        b"GET / HTTP/1.1\r\nHost a",
        b"GET / HTTP/1.1\r\nHost : a",
        b"GET / HTTP/1.1\r\nHost: a\r\n folded: b",
        b"GET / HTTP/1.1\r\nHost: a\nX: b",
        b"GET / HTTP/1.1",
        b"GET http://[ HTTP/1.1\r\nHost: a",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1_0",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4",
        b"\x16\x03\x01\x02\0",
    ],
)
def test_http_bad_requests(web: int, text: bytes) -> None:
    """Refused after what came before it, and nothing behind it is answered."""
    refusal = problem(b"400 Bad Request", CLOSE)
    assert fetch(web, GET + text + b"\r\n\r\n" + GET) == page(HELLO) + refusal


@pytest.mark.parametrize(
    ("text", "status"),
    [
        (b"GET / HTTP/2.0\r\n\r\n", b"505 HTTP Version Not Supported"),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"501 Not Implemented",
        ),
        (b"GET / HTTP/1.1\r\nX: ".ljust(16_385, b"x"), b"431 Request Header Fields Too Large"),
    ],
)
def test_http_refusals(web: int, text: bytes, status: bytes) -> None:
    assert fetch(web, text) == problem(status, CLOSE)


def test_http_closes_when_asked(web: int) -> None:
    assert fetch(web, b"GET / HTTP/1.0\r\n\r\n" + GET) == page(HELLO, extra=CLOSE)
    assert fetch(web, LAST + GET) == ABOUT
    text = GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade , CLOSE\r\n\r\n")
    assert fetch(web, text) == page(HELLO, extra=CLOSE)


def test_http_expect(web: int) -> None:
    """A client that waits for leave to send its body gets it."""
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with connect(web) as client:
        client.sendall(head)
        go_on = b"HTTP/1.1 100 Continue\r\n\r\n"
        assert receive_all(client, len(go_on)) == go_on
        client.sendall(b"abc" + LAST)
        answers = DATE.sub(b"", receive_all(client, 1 << 20))
        assert answers == problem(b"405 Method Not Allowed", ALLOW) + ABOUT


def test_http_clients_that_leave(web: int) -> None:
    """In the middle of a head, of a body, and with answers they never read."""
    for text in (b"GET / HT", POST[:-1], GET * 1000):
        with connect(web) as client:
            client.sendall(text)
    assert fetch(web, LAST) == ABOUT
