"""Sets good and bad servers before the load generator.

The figures are not judged: they depend on the machine.  What is: that it notices wrong
answers of every kind, in every protocol, counts exactly, and never waits for ever.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from bench_support import BENCHMARKS, KEYS, TIMEOUT, build, run_load

Answer = Callable[[bytes, int], "bytes | None"]
SHORT = ("--busy", "3", "--idle", "2", "--seconds", "0.1", "--warmup", "0.1", "--patience", "0.2")
COUNTED = ("--busy", "3", "--requests", "30", "--warmup", "0", "--patience", "0.2")


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> str:
    """load.c."""
    compiled = build("load.c", tmp_path_factory.mktemp("load"))
    if compiled is None:
        pytest.skip("load.c needs a C compiler and POSIX")
    return compiled


def serve_client(client: socket.socket, answer: Answer, greeting: bytes) -> None:
    """Answer each piece until `answer` gives None or the client has gone."""
    count = 0
    with client, contextlib.suppress(OSError):
        client.sendall(greeting)
        while data := client.recv(65536):
            reply = answer(data, count)
            count += 1
            if reply is None:
                return
            client.sendall(reply)


@contextlib.contextmanager
def server(answer: Answer, greeting: bytes = b"") -> Iterator[int]:
    """A threaded server with an answer of its own to each piece; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        threads = []

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    client = listener.accept()[0]
                    thread = threading.Thread(target=serve_client, args=(client, answer, greeting))
                    thread.start()
                    threads.append(thread)

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield listener.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):  # not every system shuts listeners down
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
            for thread in [accepting, *threads]:
                thread.join(TIMEOUT)


def same(data: bytes, count: int) -> bytes:
    """The answer of an echo."""
    return data


def silence(data: bytes, count: int) -> bytes:
    """No answer at all."""
    return b""


def flip(data: bytes, count: int) -> bytes:
    """Wrong in the last byte, though not in the answer to the first pieces."""
    return data if count < 5 else data[:-1] + bytes([data[-1] ^ 1])


# ---- echo --------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", ["1", "4"])
def test_load(generator: str, in_flight: str) -> None:
    more = ("--size", "50000", "--in-flight", in_flight, "--pid", str(os.getpid()))
    with server(same) as port:
        done = run_load(generator, port, *SHORT, *more)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("\n") == 1
    result = json.loads(done.stdout)
    assert set(result) == KEYS
    assert (result["errors"], result["busy"], result["idle"]) == (0, 3, 2)
    assert result["requests"] > 0
    assert 0 < result["p50_us"] <= result["p99_us"] <= result["p999_us"]
    assert result["seconds"] == pytest.approx(0.2, abs=5)
    known = os.path.exists("/proc/self/schedstat")
    for key in ("cpu_us_per_request", "process_cpu_us_per_request", "rss_before", "rss_after"):
        assert (result[key] is not None and result[key] >= 0) if known else result[key] is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (flip, "differs"),
        (lambda data, count: data + (b"x" if count > 4 else b""), "more than"),
        (lambda data, count: data if count < 5 else None, "closed a connection"),
        (lambda data, count: data if count < 1 else b"", "no answer"),
        (lambda data, count: data if count < 50 else b"", "no answer"),
        (lambda data, count: data if count < 5 else data[:-1], "no answer"),
    ],
    ids=["wrong bytes", "too many bytes", "closes", "never answers", "stops", "holds a byte back"],
)
def test_bad_echoes(generator: str, answer: Answer, reason: str) -> None:
    with server(answer) as port:
        done = run_load(generator, port, *SHORT)
    assert done.returncode == 0
    assert json.loads(done.stdout)["errors"] == 3
    assert reason in done.stderr


def test_a_late_echo_is_noticed(generator: str) -> None:
    """Each answer is that to the request before: of the right length, but stale."""
    before: dict[int, bytes] = {}

    def late(data: bytes, count: int) -> bytes:
        reply = before.get(threading.get_ident(), data)
        before[threading.get_ident()] = data
        return reply if count else data

    with server(late) as port:
        done = run_load(generator, port, *SHORT, "--idle", "0", "--size", "1")
    assert json.loads(done.stdout)["errors"] == 3
    assert "differs" in done.stderr


def test_an_idle_connection_must_stay_open(generator: str) -> None:
    """The server closes it as soon as the busy one works."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def idle_then_busy() -> None:
            with listener.accept()[0] as idle:
                idle.sendall(idle.recv(1))
                busy = listener.accept()[0]
                busy.sendall(busy.recv(1))
                first = busy.recv(65536)
            serve_client(busy, same, first)

        thread = threading.Thread(target=idle_then_busy)
        thread.start()
        port = listener.getsockname()[1]
        done = run_load(generator, port, *SHORT, "--busy", "1", "--idle", "1", "--window", "1")
        thread.join(TIMEOUT)
    assert json.loads(done.stdout)["errors"] == 1
    assert "idle connection" in done.stderr


def test_requests_are_counted_exactly(generator: str) -> None:
    sizes = []

    def note(data: bytes, count: int) -> bytes:
        sizes.append(len(data))
        return data

    with server(note) as port:
        done = run_load(generator, port, *COUNTED, "--size", "100", "--in-flight", "4")
    result = json.loads(done.stdout)
    assert (result["requests"], result["errors"], done.stderr) == (30, 0, "")
    assert sum(sizes) == 3 + 30 * 100  # the probes as well


def test_a_number_of_requests_ends_before_a_silent_server(generator: str) -> None:
    with server(lambda data, count: data if count < 4 else b"") as port:
        done = run_load(generator, port, *COUNTED)
    assert json.loads(done.stdout)["errors"] == 3
    assert "no answer" in done.stderr


def test_ends_before_a_silent_server(generator: str) -> None:
    begin = time.monotonic()
    with server(silence) as port:
        done = run_load(generator, port, *SHORT, "--connect-timeout", "0.5")
    assert time.monotonic() - begin < TIMEOUT / 2
    assert (done.returncode, done.stdout) == (1, "")
    assert "no answer: 0 of 5 connections" in done.stderr


def test_ends_before_a_server_that_never_accepts(generator: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=1) as listener:
        port = listener.getsockname()[1]
        done = run_load(generator, port, *SHORT, "--connect-timeout", "0.5")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no answer: 0 of 5 connections" in done.stderr


def test_says_when_nobody_listens(generator: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    done = run_load(generator, port, *SHORT)
    assert "refused" in done.stderr
    assert done.stdout == "" or json.loads(done.stdout)["requests"] == 0


# ---- the other protocols -----------------------------------------------------


def dropping_line_ends(data: bytes, count: int) -> bytes:
    return data.replace(b"\r\n", b"\n") if count else data


def swapping_lines(data: bytes, count: int) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join(reversed(lines)) if count else data


def numbers(answer: Callable[[int], bytes]) -> Answer:
    """Answer the N of a line "N" CRLF, but the probe as it should be."""

    def reply(data: bytes, count: int) -> bytes:
        return answer(int(data)) if count else b"\0"

    return reply


def pattern(size: int) -> bytes:
    """The beginning of what a download sends."""
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def at_end(answer: bytes) -> Answer:
    """Answer the last byte of an upload of 10 bytes, but the probe as it should be."""

    def reply(data: bytes, count: int) -> bytes:
        return (answer if data.endswith(b"\x09") else b"") if count else b"OK\r\n"

    return reply


@pytest.mark.parametrize(
    ("protocol", "answer", "greeting", "reason"),
    [
        ("line", flip, b"", "differs"),
        ("line", dropping_line_ends, b"", "differs"),
        ("line", swapping_lines, b"", "differs"),
        ("line", lambda data, count: data if count < 5 else None, b"", "closed"),
        ("line", lambda data, count: data if count < 5 else b"", b"", "no answer"),
        ("line", lambda data, count: data + data if count else data, b"", "more than"),
        ("churn", lambda data, count: data[::-1], b"", "differs"),
        ("churn", lambda data, count: None, b"", "closed"),
        ("churn", silence, b"", "no answer"),
        ("churn", lambda data, count: data + b"x", b"", "more than"),
        ("accept", silence, b"", "no answer"),
        ("accept", silence, b"-", "differs"),
        ("accept", silence, b"++", "more than"),
        ("broadcast", silence, b"+", "no answer"),
        ("broadcast", lambda data, count: data[::-1], b"+", "differs"),
        ("broadcast", lambda data, count: data + data, b"+", "more than"),
        ("broadcast", lambda data, count: None, b"+", "closed"),
        ("download", numbers(lambda n: pattern(n)[:-1]), b"", "no answer"),
        ("download", numbers(lambda n: pattern(n) + b"x"), b"", "more than"),
        ("download", numbers(lambda n: b"x" + pattern(n)[1:]), b"", "differs"),
        ("download", lambda data, count: None if count else b"\0", b"", "closed"),
        ("upload", lambda data, count: b"" if count else b"OK\r\n", b"", "no answer"),
        ("upload", at_end(b"OK\n\n"), b"", "is not OK"),
        ("upload", at_end(b"OK\r\nOK\r\n"), b"", "too much"),
    ],
)
def test_bad_answers(
    generator: str, protocol: str, answer: Answer, greeting: bytes, reason: str
) -> None:
    more = ["--protocol", protocol, "--busy", "1", "--idle", "0", "--size", "10"]
    if protocol == "line":
        more += ["--in-flight", "3"]
    with server(answer, greeting) as port:
        done = run_load(generator, port, *SHORT, *more)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["errors"] == 1
    assert reason in done.stderr


def test_upload_must_not_be_answered_early(generator: str) -> None:
    with server(lambda data, count: b"OK\r\n" if count < 2 else b"") as port:
        size = str(1 << 26)
        more = ("--protocol", "upload", "--size", size, "--busy", "1", "--idle", "0")
        done = run_load(generator, port, *SHORT, *more)
    assert json.loads(done.stdout)["errors"] == 1
    assert "before it had everything" in done.stderr


def test_a_peer_left_out_of_a_broadcast_is_noticed(generator: str) -> None:
    """Of three peers the first gets nothing."""
    peers: list[socket.socket] = []
    with contextlib.ExitStack() as stack, socket.create_server(("127.0.0.1", 0)) as listener:

        def room() -> None:
            for _ in range(3):
                peers.append(stack.enter_context(listener.accept()[0]))
                peers[-1].sendall(b"+")
            with contextlib.suppress(OSError):
                while data := peers[1].recv(65536):
                    peers[1].sendall(data)
                    peers[2].sendall(data)

        thread = threading.Thread(target=room)
        thread.start()
        more = ("--protocol", "broadcast", "--busy", "2", "--idle", "1", "--window", "1")
        done = run_load(generator, listener.getsockname()[1], *SHORT, *more)
        thread.join(TIMEOUT)
    result = json.loads(done.stdout)
    assert (result["requests"], result["errors"]) == (2, 1) or result["errors"] == 1
    assert "no answer" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--protocol", "smtp"], "unknown protocol smtp"),
        (["--protocol", "line", "--size", "1"], "--size must be 2 or more"),
        (["--protocol", "churn", "--in-flight", "2"], "--in-flight is for echo and line"),
        (["--size", "1000000000"], "must stay below 256 MiB"),
        (["--busy", "0"], "--busy needs a number from 1"),
        (["--requests"], "--requests needs a number"),
        (["--speed", "2"], "unknown option --speed"),
    ],
)
def test_wrong_arguments(generator: str, arguments: list[str], reason: str) -> None:
    done = run_load(generator, 1, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert reason in done.stderr


def test_usage_names_every_option(generator: str) -> None:
    done = subprocess.run([generator, "--help"], capture_output=True, text=True, timeout=TIMEOUT)
    source = (BENCHMARKS / "c" / "load_options.h").read_text()
    options = set(re.findall(r'strcmp\(a, "(--[a-z-]+)"\)', source)) - {"--help"}
    assert len(options) > 10
    assert options <= set(re.findall(r"--[a-z-]+", done.stdout))
