"""Programs in the style of those that live on asyncore, on every engine and poller.

Each is small and whole: what is tested is that such a program runs as it is written.
"""

from __future__ import annotations

import os
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

from support import PATIENCE, Site, needs_polled_pipes

CERTIFICATE = str(Path(__file__).with_name("localhost.pem"))


class Pipe:
    """As much of a socket as reactors give their waker: no recv, no send, no setblocking."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def fileno(self) -> int:
        return self.fd

    def close(self) -> None:
        os.close(self.fd)

    def getsockopt(self, level: int, option: int, size: int | None = None) -> int:
        return 0


def make_waker(fast: Any, map: dict[int, Any]) -> Any:
    """A reactor's waker: a dispatcher around a pipe, told from other threads."""

    class Waker(fast.asyncore.dispatcher):
        def __init__(self) -> None:
            fast.asyncore.dispatcher.__init__(self, map=map)
            self.reader, self.writer = os.pipe()
            self.set_socket(Pipe(self.reader))
            self.told = False

        def writable(self) -> bool:
            return False

        def handle_read(self) -> None:
            os.read(self.reader, 4096)
            self.told = False

        def tell(self) -> None:
            if not self.told:
                self.told = True
                os.write(self.writer, b"x")

        def close(self) -> None:
            super().close()
            os.close(self.writer)

    return Waker()


@needs_polled_pipes
def test_a_reactor_thread_with_a_pipe_waker_serves_what_other_threads_push(fast: Any) -> None:
    with Site(fast) as site:
        waker = make_waker(fast, site.map)
        ours, peer = site.tcp_pair()
        ended = threading.Event()
        started = threading.Event()
        tasks: list[Any] = []

        class Connection(fast.asyncore.dispatcher):
            wants_to_write = False

            def __init__(self) -> None:
                self.waiting: list[bytes] = []  # __init__ of the base runs later, in the reactor

            def push(self, data: bytes) -> None:
                self.waiting.append(data)
                self.wants_to_write = True
                waker.tell()

            def writable(self) -> bool:
                return self.wants_to_write

            def handle_write(self) -> None:
                while self.waiting:
                    self.send(self.waiting.pop(0))
                self.wants_to_write = False

            def handle_close(self) -> None:
                self.close()

        def react() -> None:
            while not ended.is_set():
                fast.asyncore.loop(timeout=PATIENCE, use_poll=True, map=site.map, count=1)
                while tasks:
                    tasks.pop(0)()

        def start() -> None:
            fast.asyncore.dispatcher.__init__(connection, ours, site.map)
            started.set()

        thread = threading.Thread(target=react)
        thread.start()
        connection = Connection()
        tasks.append(start)
        waker.tell()
        try:
            assert started.wait(PATIENCE)
            for number in range(20):
                connection.push(b"%02d" % number)
                assert peer.recv(2) == b"%02d" % number
        finally:
            ended.set()
            waker.tell()
            thread.join(PATIENCE)
        assert not thread.is_alive()
        connection.close()
        waker.close()


def test_a_loop_of_many_short_turns_takes_a_float_for_its_count(fast: Any) -> None:
    with Site(fast) as site:
        ours, peer = site.pair()
        channel = site.channel(ours)
        peer.sendall(b"x")
        fast.asyncore.loop(timeout=0.001, use_poll=True, map=site.map, count=0.05 // 0.001)
        assert channel.received == b"x"


def make_agent(fast: Any) -> type[Any]:
    """A UDP transport that is registered by hand: add_channel() and del_channel() are its own."""

    class Agent(fast.asyncore.dispatcher):
        def __init__(self) -> None:
            fast.asyncore.dispatcher.__init__(self)
            self.answers: list[tuple[bytes, Any]] = []
            self.seen: list[bytes] = []
            sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
            self.set_socket(sock)

        def __hash__(self) -> int:
            return hash(self.socket)

        def add_channel(self, map: Any = None) -> None:
            if map is not None:
                map[self._fileno] = self
                self.connected = True

        def del_channel(self, map: Any = None) -> None:
            if map is not None and self._fileno in map:
                del map[self._fileno]
                self.connected = False

        def writable(self) -> Any:
            return self.answers

        def handle_connect(self) -> None:
            pass

        def handle_read(self) -> None:
            data, address = self.socket.recvfrom(65536)
            self.seen.append(data)
            self.answers.append((data.upper(), address))

        def handle_write(self) -> None:
            self.socket.sendto(*self.answers.pop(0))

        def handle_error(self) -> None:
            raise

    return Agent


def test_a_udp_agent_with_its_own_registration_answers(fast: Any) -> None:
    with Site(fast) as site:
        agent = make_agent(fast)()
        assert not site.map
        assert not fast.asyncore.socket_map
        agent.add_channel(site.map)
        client = site.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        client.settimeout(PATIENCE)
        client.connect(agent.socket.getsockname())
        for question in (b"a", b"", b"c"):
            client.send(question)
            want = len(agent.seen) + 1
            site.run_until(
                lambda want=want: len(agent.seen) == want and not agent.answers, use_poll=True
            )
            assert client.recv(10) == question.upper()
        agent.del_channel(site.map)
        assert not site.map
        agent.close()


def test_a_bare_raise_in_handle_error_leaves_the_loop_with_the_first_exception(fast: Any) -> None:
    with Site(fast) as site:
        agent = make_agent(fast)()
        agent.add_channel(site.map)
        agent.answers.append((b"x", None))
        try:
            site.turn()
        except TypeError:
            pass
        else:
            raise AssertionError("the TypeError of sendto() was lost")
        finally:
            agent.del_channel(site.map)
            agent.close()


def test_starttls_by_a_blocking_handshake_right_after_the_push(fast: Any) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    replies: list[bytes] = []

    class Mail(fast.asynchat.async_chat):
        def __init__(self, sock: Any, map: Any) -> None:
            fast.asynchat.async_chat.__init__(self, sock, map)
            self.set_terminator(b"\r\n")

        def collect_incoming_data(self, data: bytes) -> None:
            self._collect_incoming_data(data)

        def found_terminator(self) -> None:
            line = self._get_data()
            self.push(b"220 " + line + b"\r\n")
            if line == b"STARTTLS":
                self.socket.settimeout(PATIENCE)
                self.socket = context.wrap_socket(self.socket, server_side=True)
                self.socket.setblocking(False)

        def recv(self, size: int) -> Any:
            try:
                return super().recv(size)
            except ssl.SSLWantReadError:
                raise BlockingIOError from None

    with Site(fast) as site:
        ours, peer = site.tcp_pair()
        Mail(ours, site.map)

        def client() -> None:
            peer.sendall(b"NOOP\r\nSTARTTLS\r\n")
            file = peer.makefile("rb", 0)
            replies.extend((file.readline(), file.readline()))
            file.close()
            unverified = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            unverified.check_hostname = False
            unverified.verify_mode = ssl.CERT_NONE
            with unverified.wrap_socket(peer) as secure:
                secure.sendall(b"QUIT\r\n")
                replies.append(secure.recv(100))

        thread = threading.Thread(target=client)
        thread.start()
        site.run_until(lambda: not site.map)
        thread.join(PATIENCE)
    assert replies == [b"220 NOOP\r\n", b"220 STARTTLS\r\n", b"220 QUIT\r\n"]


def test_objects_that_are_no_dispatchers_are_served(fast: Any) -> None:
    with Site(fast) as site:
        ours, peer = site.pair()
        told: list[Any] = []

        class Reader:
            """Not even `accepting`: it is asked for only where something is to be written."""

            def readable(self) -> int:
                return 1

            def writable(self) -> None:
                return None

            def handle_read_event(self) -> None:
                told.append(ours.recv(10))
                raise ValueError("bad")

            def handle_error(self) -> None:
                told.append("error")

        site.map[ours.fileno()] = Reader()
        peer.sendall(b"one")
        site.run_until(lambda: told)
        site.map[ours.fileno()] = Reader()  # another object for the same descriptor
        peer.sendall(b"two")
        site.run_until(lambda: len(told) > 2)
        assert told == [b"one", "error", b"two", "error"]
        site.map.clear()


def test_a_dispatcher_whose_base_is_never_initialised_is_served_and_closes(fast: Any) -> None:
    with Site(fast) as site:
        ours, peer = site.pair()
        told: list[bytes] = []

        class Bare(fast.asyncore.dispatcher):
            def __init__(self) -> None:
                self.socket = ours
                self._fileno = ours.fileno()
                self.connected = True
                site.map[self._fileno] = self

            def writable(self) -> bool:
                return False

            def handle_read(self) -> None:
                told.append(self.recv(10))

            def handle_close(self) -> None:
                site.map.clear()
                self.close()

        bare = Bare()
        peer.sendall(b"x")
        site.run_until(lambda: told)
        peer.close()
        site.run_until(lambda: not site.map)
        assert told == [b"x", b""]
        assert bare.socket.fileno() == -1
