"""Runs every program in examples/ as a person would, on every engine.

Each is a process of its own with warnings as errors, driven over loopback or
pipes, and judged by what it prints and answers.  These tests know nothing of
fastcore's inside: a missing engine fails them, it does not skip them.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import http.server
import importlib.util
import os
import re
import select
import shutil
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import fastcore

ENGINES = os.environ.get("FASTCORE_TEST_ENGINES", "c,python").split(",")
EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
CERTIFICATE = Path(__file__).with_name("localhost.pem")  # self-signed, with its key
TIMEOUT = 30


def environment(engine: str) -> dict[str, str]:
    """The child imports the very fastcore that this process imported."""
    package_parent = str(Path(fastcore.__file__).resolve().parent.parent)
    paths = [package_parent, *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "FASTCORE_ENGINE": engine, "PYTHONPATH": os.pathsep.join(paths)}


def command(name: str, *arguments: str) -> list[str]:
    """The command line of one example."""
    return [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments]


def run(engine: str, name: str, *arguments: str, **extra: object) -> tuple[int, str, str]:
    """Run an example to its end."""
    done = subprocess.run(
        command(name, *arguments),
        env={**environment(engine), **extra.pop("env", {})},  # type: ignore[dict-item]
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        **extra,  # type: ignore[call-overload]
    )
    return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def serving(engine: str, line: list[str]) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server and the port that its first line of output ends with."""
    process = subprocess.Popen(
        line,
        env=environment(engine),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    # A server that hangs before its first line must not hang the test.
    guard = threading.Timer(TIMEOUT, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        match = re.fullmatch(r"listening on \S+ port (\d+)\n", first)
        if match is None:
            pytest.fail(f"no port in {first!r}: {process.communicate()[1]}")
        yield process, int(match[1])
    finally:
        guard.cancel()
        process.kill()
        process.communicate()
        guard.join()


def connect(port: int) -> socket.socket:
    """A client whose every operation is bounded in time."""
    return socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)


def receive_all(client: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, fewer only if the connection ends."""
    parts = b""
    while len(parts) < size:
        data = client.recv(65536)
        if not data:
            break
        parts += data
    return parts


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    """Every example runs on every engine that this run is to test."""
    return str(request.param)


def test_echo_server(engine: str) -> None:
    line = [sys.executable, "-W", "error", "-m", "fastcore", "run", "--engine", engine]
    with serving(engine, [*line, str(EXAMPLES / "echo_server.py")]) as (process, port):
        clients = [connect(port) for _ in range(5)]
        for number, client in enumerate(clients):
            client.sendall(b"%d" % number * 1000)
        for number, client in enumerate(clients):
            assert receive_all(client, 1000) == b"%d" % number * 1000
        # One client sends far more than any buffer holds, from a thread of its own.
        text = bytes(range(256)) * 8192
        sender = threading.Thread(target=clients[0].sendall, args=(text,))
        sender.start()
        assert receive_all(clients[0], len(text)) == text
        sender.join(TIMEOUT)
        clients.pop().close()
        clients[1].sendall(b"still here")
        assert receive_all(clients[1], 10) == b"still here"
        for client in clients:
            client.close()
        assert process.poll() is None


def test_echo_server_says_what_is_wrong(engine: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = [sys.executable, "-m", "fastcore", "run", "--engine", engine]
        done = subprocess.run(
            [*line, str(EXAMPLES / "echo_server.py"), port],
            env=environment(engine),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
    assert done.returncode == 1
    # Windows calls it a want of permission.
    assert done.stderr.splitlines()[-1].startswith(("OSError: ", "PermissionError: "))


def test_echo_pair(engine: str) -> None:
    status, output, complaints = run(engine, "echo_pair.py", "--clients", "4", "--size", "300000")
    lines = output.splitlines()
    assert (status, complaints) == (0, "")
    assert sorted(lines[:-1]) == [
        f"client {number}: 300000 bytes came back intact" for number in (1, 2, 3, 4)
    ]
    assert lines[-1] == "nothing left to watch"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files and keeps its access log to itself."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def website(tmp_path: Path) -> Iterator[str]:
    """A local server with two files; its address."""
    (tmp_path / "small.txt").write_bytes(b"small")
    (tmp_path / "large.bin").write_bytes(os.urandom(1_500_000))
    handler = functools.partial(QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join(TIMEOUT)


def test_http_client(engine: str, website: str) -> None:
    small, large = f"{website}/small.txt", f"{website}/large.bin"
    status, output, complaints = run(engine, "http_client.py", small, large)
    assert (status, complaints) == (0, "")
    assert sorted(output.splitlines()) == [
        f"{large}: 200, 1500000 bytes",
        f"{small}: 200, 5 bytes",
    ]


def test_http_client_downloads_at_once(engine: str) -> None:
    """The first download is answered only after the second one has been."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = subprocess.Popen(
            command("http_client.py", f"{address}/first", f"{address}/second"),
            env=environment(engine),
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            listener.settimeout(TIMEOUT)
            waiting = {}
            for _ in range(2):
                peer = listener.accept()[0]
                peer.settimeout(TIMEOUT)
                waiting[peer.recv(4096).split()[1]] = peer
            for path in (b"/second", b"/first"):
                with waiting[path] as peer:
                    peer.sendall(b"HTTP/1.0 200 OK\r\n\r\n" + path)
                expected = f"{address}{path.decode()}: 200, {len(path)} bytes\n"
                assert process.stdout.readline() == expected
            assert process.wait(TIMEOUT) == 0
        finally:
            process.kill()
            process.communicate()


def test_http_client_reports_failures(engine: str, website: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    status, output, complaints = run(engine, "http_client.py", refused, f"{website}/missing")
    assert status == 1
    assert output.startswith(f"{website}/missing: 404, ")
    assert complaints.startswith(f"{refused}: ")
    assert "refused" in complaints
    assert run(engine, "http_client.py", "ftp://127.0.0.1/")[0] == 2


def test_driven_loop(engine: str) -> None:
    status, output, complaints = run(engine, "driven_loop.py", "--turns", "101")
    assert (status, complaints) == (0, "")
    lines = output.splitlines()
    assert lines[:2] == ["left: 50 turns", "right: 51 turns"]
    match = re.fullmatch(r"meanwhile: (\d+) primes, the largest \d+", lines[2])
    assert match is not None
    assert int(match[1]) > 1


@pytest.mark.skipif(os.name != "posix", reason="file_dispatcher exists on Unix only")
def test_read_file(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("a line of text\n" * 20_000 + "no newline here")
    assert run(engine, "read_file.py", str(path)) == (0, "20000 lines, 300015 bytes\n", "")
    assert run(engine, "read_file.py", os.devnull) == (0, "0 lines, 0 bytes\n", "")
    assert run(engine, "read_file.py", input="one\ntwo\n") == (0, "2 lines, 8 bytes\n", "")
    status, _, complaints = run(engine, "read_file.py", str(tmp_path / "none"))
    assert status == 1
    assert "No such file" in complaints


def need_tkinter() -> None:
    # Debian's PyPy has the module, and what it is made of in another package.
    missing = "this Python was built without tkinter"
    pytest.importorskip("tkinter", reason=missing, exc_type=ImportError)


@pytest.fixture
def display() -> Iterator[str]:
    """An X display: a virtual one of our own."""
    need_tkinter()
    server = shutil.which("Xvfb")
    if server is None:
        pytest.skip("Xvfb is not installed")
    read_end, write_end = os.pipe()
    arguments = [server, "-displayfd", str(write_end), "-screen", "0", "640x480x24"]
    process = subprocess.Popen(
        arguments, pass_fds=[write_end], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(write_end)
    try:
        with open(read_end) as numbers:  # ends, too, when Xvfb does
            number = numbers.readline().strip()
        if not number:
            pytest.fail(f"Xvfb ended with status {process.wait(TIMEOUT)}")
        yield f":{number}"
    finally:
        process.terminate()
        process.wait(TIMEOUT)


def test_gui_idle(engine: str, display: str) -> None:
    status, output, complaints = run(
        engine, "gui_idle.py", "--lines", "25", "--close", env={"DISPLAY": display}
    )
    assert (status, output, complaints) == (0, "the window shows 25 lines\n", "")


def test_line_server(engine: str) -> None:
    with serving(engine, command("line_server.py")) as (process, port):
        first, second = connect(port), connect(port)
        with first, second, first.makefile("rb") as reads, second.makefile("rb") as other:
            assert reads.readline() == other.readline() == b"hello, try help\n"
            # Several commands in one segment, one of them cut in the middle.
            first.sendall(b"help\r\nsum 1 2 39\n\nclients\nsu")
            assert reads.readline() == b"commands: clients help quit say shutdown sum\n"
            assert [reads.readline() for _ in range(2)] == [b"42\n", b"2\n"]
            first.sendall(b"m 4 4\nsum x\nnonsense\n")
            assert reads.readline() == b"8\n"
            assert reads.readline() == b"error: sum needs whole numbers\n"
            assert reads.readline() == b"error: no command nonsense\n"
            second.sendall("say gr\u00fc\u00df dich\n".encode())
            assert reads.readline() == other.readline() == "gr\u00fc\u00df dich\n".encode()
            second.sendall(b"quit\n")
            assert other.read() == b"bye\n"
            first.sendall(b"clients\nshutdown\n")
            assert reads.read() == b"1\nbye\n"
        output, complaints = process.communicate(timeout=TIMEOUT)
        assert (process.returncode, output, complaints) == (0, "", "")


def need_a_host() -> None:
    """What an asyncio loop can wait for, it can serve."""
    if not (hasattr(select, "epoll") or hasattr(select, "kqueue")):
        pytest.skip("no poller here has a descriptor to wait for")


def test_beside_asyncio(engine: str) -> None:
    need_a_host()
    with serving(engine, command("beside_asyncio.py")) as (process, port):
        assert process.stdout is not None
        second = re.fullmatch(r"website on \S+ port (\d+)\n", process.stdout.readline())
        assert second is not None

        def get(path: str) -> bytes:
            with connect(int(second[1])) as client:
                client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
                return receive_all(client, 1 << 20).partition(b"\r\n\r\n")[2]

        with connect(port) as one, connect(port) as other:
            one.sendall(b"hello\nhal")
            assert receive_all(one, 6) == receive_all(other, 6) == b"hello\n"
            assert get("/") == b"2 clients, 1 lines\n"
            assert get("/say?from+outside") == b"2 clients, 2 lines\n"
            assert receive_all(other, 13) == b"from outside\n"
            one.sendall(b"f\n")
            assert receive_all(other, 5) == b"half\n"
        assert process.poll() is None


def test_awaiting_handler(engine: str) -> None:
    need_a_host()
    with serving(engine, command("awaiting_handler.py", "--delay", "0.01")) as (process, port):
        with connect(port) as one, connect(port) as other:
            names = [b"Ada", b"Grace", b"Barbara"]
            one.sendall(b"\n".join(names) + b"\n")
            other.sendall(b"Edsger\n")
            answers = b"".join(b"%s has %d letters\n" % (name, len(name)) for name in names)
            assert receive_all(other, 21) == b"Edsger has 6 letters\n"
            assert receive_all(one, len(answers)) == answers
            one.sendall(b"\n")
            assert receive_all(one, 100) == b"error\n"
            other.sendall(b"Ada\n")
            assert receive_all(other, 18) == b"Ada has 3 letters\n"
        assert process.poll() is None


def need_smtpd() -> None:
    """In Python until 3.11; later it is a package for itself, which need not be there."""
    if importlib.util.find_spec("smtpd") is None:
        pytest.skip("there is no module smtpd")


def mail_server(name: str) -> list[str]:
    """The command line of a mail server."""
    line = command(name, str(CERTIFICATE))
    if name == "smtpd_starttls.py":
        need_smtpd()
        line[1:3] = ["-W", "ignore::DeprecationWarning"]  # it says that it is old
    return line


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("name", ["mail_sink.py", "smtpd_starttls.py"])
def test_mail_sink(engine: str, name: str, encrypted: bool) -> None:
    with serving(engine, mail_server(name)) as (process, port):
        with smtplib.SMTP("127.0.0.1", port, timeout=TIMEOUT) as client:
            if encrypted:
                client._host = "localhost"  # type: ignore[attr-defined] # as in the certificate
                client.starttls(context=ssl.create_default_context(cafile=CERTIFICATE))
                client.ehlo()
                assert not client.has_extn("starttls")
            for _ in range(2):
                client.sendmail("a@localhost", ["b@localhost", "c@localhost"], "x" * 100_000)
        process.terminate()
        output, complaints = process.communicate(timeout=TIMEOUT)
    sender = "<a@localhost>" if name == "mail_sink.py" else "a@localhost"
    expected = f"from {sender} to 2: 100000 bytes{', encrypted' if encrypted else ''}\n"
    assert output == expected * 2
    assert complaints == ""


needs_sigterm = pytest.mark.skipif(os.name == "nt", reason="there SIGTERM ends a process at once")


def end_well(process: subprocess.Popen[str], terminated: bool = False) -> str:
    """End a server by SIGTERM, unless that was sent; return what it has logged."""
    if not terminated:
        process.terminate()  # a second one might come when the first has done all
    output, complaints = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, output) == (0, "")
    return complaints


@needs_sigterm
def test_guarded_server(engine: str) -> None:
    with serving(engine, command("guarded_server.py", "--each", "3")) as (process, port):
        clients = [connect(port) for _ in range(3)]
        with clients[0] as first, clients[1] as second, clients[2] as third:
            for client in clients:
                assert receive_all(client, 20) == b"220 log in, please\r\n"
            with connect(port) as refused:
                assert receive_all(refused, 100) == b"421 too many connections\r\n"
            first.sendall(b"say hi\nlogin ann\nsay hi\n")
            answer = b"530 log in first\r\n230 hello ann\r\n250 ann: hi\r\n"
            assert receive_all(first, len(answer)) == answer
            # Third has not logged in, and says too much.
            third.sendall(b"x" * 999 + b"\n" + b"y" * 1000)
            assert b"".join(iter(lambda: third.recv(4096), b"")).endswith(b"421 log in first\r\n")
            # A long answer is under way when the server is told to end: it gets it whole.
            first.sendall(b"count 500000\nquit\n")
            numbers = first.makefile("rb")
            assert numbers.readline() == b"1\r\n"
            process.terminate()
            assert second.recv(100) in (b"250 ann: hi\r\n",)
            assert second.recv(100) == b""
            lines = numbers.readlines()
            assert lines[-2:] == [b"500000\r\n", b"221 goodbye\r\n"]
            assert len(lines) == 500_000
        assert "max_bytes_before_login reached" in end_well(process, terminated=True)


@needs_sigterm
def test_guarded_server_has_deadlines(engine: str) -> None:
    line = command("guarded_server.py", "--login", "0.2", "--idle", "0.5", "--write", "0.3")
    with serving(engine, line) as (process, port):
        with connect(port) as silent, connect(port) as idle, connect(port) as slow:
            for client in (idle, slow):
                client.sendall(b"login me\n")
            slow.sendall(b"count 100000000\n")  # and reads nothing of it
            text = b"".join(iter(lambda: silent.recv(4096), b""))
            assert text.endswith(b"421 login timeout\r\n")
            text = b"".join(iter(lambda: idle.recv(4096), b""))
            assert text.endswith(b"421 idle timeout\r\n")
            assert process.stderr is not None
            logged = ""
            while "write timeout" not in logged:
                line_of_log = process.stderr.readline()
                assert line_of_log, logged
                logged += line_of_log
        assert "login timeout" in logged and "idle timeout" in logged
        end_well(process)


def encrypted(port: int) -> ssl.SSLSocket:
    """A client of a server that has the certificate of these tests."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    context.set_alpn_protocols(["http/1.1"])
    return context.wrap_socket(connect(port), server_hostname="localhost")


def everything(client: socket.socket) -> bytes:
    """What a server sends until it closes."""
    return b"".join(iter(lambda: client.recv(65536), b""))


@needs_sigterm
def test_https_server(engine: str) -> None:
    numbers = "".join(f"{number}\n" for number in range(200_000)).encode()
    with serving(engine, command("https_server.py", str(CERTIFICATE))) as (process, port):
        context = ssl.create_default_context(cafile=CERTIFICATE)
        web = http.client.HTTPSConnection("localhost", port, timeout=TIMEOUT, context=context)
        for method, path, status, length in [
            ("GET", "/", 200, 55),
            ("GET", "/numbers.txt?all", 200, len(numbers)),
            ("HEAD", "/numbers.txt", 200, 0),
            ("GET", "/none", 404, 10),
            ("POST", "/", 405, 19),
            ("GET", "/" + "x" * 10_000, 431, 32),
        ]:
            web.request(method, path)
            answer = web.getresponse()
            assert (answer.status, len(answer.read())) == (status, length), (method, path)
        web.close()
        with encrypted(port) as client:
            assert client.selected_alpn_protocol() == "http/1.1"
            asked = b"GET /numbers.txt HTTP/1.1\r\nHost: localhost\r\n\r\n"
            client.sendall(asked * 3 + b"GET / HTTP/1.0\r\n\r\nGET / HTTP/1.1\r\n\r\n")
            answers = everything(client)
            assert answers.count(numbers) == 3
            assert answers.count(b"HTTP/1.1 200 OK") == 4
        with encrypted(port) as client:
            # A long answer is under way when the server is told to end: it gets it whole.
            client.sendall(asked)
            got = client.recv(100)
            process.terminate()
            got += everything(client)
            assert got.endswith(numbers[-100:]) and len(got) > len(numbers)
        assert "numbers" not in end_well(process, terminated=True)


@needs_sigterm
def test_https_server_refuses(engine: str) -> None:
    line = command("https_server.py", str(CERTIFICATE), "--each", "2", "--request", "0.3")
    with serving(engine, line) as (process, port):
        with encrypted(port) as silent, encrypted(port) as slow:
            with pytest.raises(OSError), connect(port) as refused:
                refused.sendall(b"x")
                assert refused.recv(1) == b"x"
            slow.sendall(b"GET / HTT")
            assert everything(slow) == everything(silent) == b""
        for wrong, status in [
            (b"GET / HTTP/1.1\r\n\r\n", b"400"),
            (b"hello\r\n\r\n", b"400"),
            (b"PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx", b"413"),
        ]:
            with encrypted(port) as client:
                client.sendall(wrong)
                assert everything(client).startswith(b"HTTP/1.1 " + status)
        with connect(port) as plain:
            plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
            everything(plain)
        logged = end_well(process)
    assert "HTTP" in logged and "request" in logged and "Traceback" not in logged


@needs_sigterm
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_https_server_with_curl(engine: str, tmp_path: Path) -> None:
    with serving(engine, command("https_server.py", str(CERTIFICATE))) as (process, port):
        site = f"https://localhost:{port}"
        options = ["--silent", "--show-error", "--cacert", str(CERTIFICATE), "--noproxy", "*"]
        done = subprocess.run(
            ["curl", *options, "--fail", f"{site}/", f"{site}/numbers.txt"],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        assert done.stdout.startswith("This server") and done.stdout.endswith("\n199999\n")
        end_well(process)


@needs_sigterm
def test_tcp_relay(engine: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT)
        line = command("tcp_relay.py", "127.0.0.1", str(server.getsockname()[1]))
        with serving(engine, line) as (process, port):
            with connect(port) as near, server.accept()[0] as far:
                far.settimeout(TIMEOUT)
                # Nobody reads: what the relay takes has an end.
                near.settimeout(1)
                taken = 0
                with pytest.raises(TimeoutError):
                    while taken < 200_000_000:
                        taken += near.send(b"x" * 65536)
                near.settimeout(TIMEOUT)
                assert resident(process.pid) < 100_000_000
                near.shutdown(socket.SHUT_WR)
                assert len(receive_all(far, taken + 1)) == taken
                far.sendall(b"answer")
                far.shutdown(socket.SHUT_WR)
                assert receive_all(near, 100) == b"answer"
            assert end_well(process) == ""


def resident(process: int) -> int:
    """How many bytes of memory a process has, where the system can say."""
    try:
        text = Path(f"/proc/{process}/statm").read_text(encoding="ascii")
    except OSError:
        return 0
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_help(path: Path) -> None:
    """Each explains itself, also on a machine without a display."""
    if path.name == "gui_idle.py":
        need_tkinter()
    if path.name == "read_file.py" and os.name != "posix":
        pytest.skip("file_dispatcher exists on Unix only")
    if path.name == "smtpd_starttls.py":
        need_smtpd()
    line = [sys.executable, "-m", "fastcore", "run", str(path), "--help"]
    done = subprocess.run(
        line, env=environment("auto"), capture_output=True, text=True, timeout=TIMEOUT
    )
    assert done.returncode == 0
    assert "usage: " in done.stdout
