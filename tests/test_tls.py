"""TLS by the mix-in: handshakes, in mid-stream too, deadlines, ends, and errors that say why."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, Site, close_now, receive_exactly
from tls_certificates import CA
from tls_peers import Peer, client_context, run, server_context, tls_class

KINDS = ["dispatcher", "dispatcher_with_send", "async_chat"]
ORDERS = ["first", "last"]  # of the mix-in among the bases
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
BLOB = bytes(range(256)) * 8192  # 2 MiB


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


def secure(site: Site, sock: Any = None, kind: str = "async_chat", **attributes: Any) -> Any:
    """A channel that has TLS among its bases, in the map of the site."""
    return tls_class(site.fast, kind, "first", **attributes)(sock, site.map)


def server_and_peer(site: Site, kind: str = "async_chat", **options: Any) -> tuple[Any, Peer]:
    """A server that has begun TLS, and its peer."""
    ours, other = site.tcp_pair()
    server = secure(site, ours, kind)
    server.start_tls(options.pop("context", server_context()), server_side=True, **options)
    return server, Peer(other, client_context())


# -- the handshake, and data -----------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS)
def test_much_goes_both_ways(site: Site, kind: str, order: str) -> None:
    ours, other = site.tcp_pair()
    other.setblocking(False)
    kinds = tls_class(site.fast, kind, order)
    server, client = kinds(ours, site.map), kinds(other, site.map)
    server.start_tls(server_context(), server_side=True)
    client.start_tls(client_context(), server_hostname="localhost")
    server.give(BLOB)
    client.give(BLOB)
    site.run_until(lambda: len(server.received) == len(client.received) == len(BLOB))
    assert server.received == client.received == BLOB
    assert server.events == client.events == ["handshake"]
    assert set(site.map.values()) == {server, client}
    client.close()
    site.run_until(lambda: not site.map)
    assert server.events == ["handshake", "close"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_of_the_module_ssl(site: Site, kind: str, version: ssl.TLSVersion) -> None:
    server, peer = server_and_peer(site, kind, context=server_context(maximum_version=version))
    server.give(b"welcome")
    peer_says = [b"hello"]

    def done() -> bool:
        if peer.established and peer_says:
            peer.write(peer_says.pop())
        return peer.received == b"welcome" and bool(server.received == b"hello")

    run(site, done, peer)
    assert server.socket.version() == peer.tls.version() == version.name.replace("_", ".")
    assert server.socket.getpeername() == peer.sock.getsockname()


@pytest.mark.parametrize("when", ["before connect", "after connect", "in handle_connect"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_begins_at_any_time(site: Site, kind: str, when: str) -> None:
    listener = site.server()
    context = client_context()

    def begin(channel: Any) -> None:
        channel.start_tls(context, server_hostname="localhost")

    def handle_connect(channel: Any) -> None:
        channel.events.append("connect")
        if when == "in handle_connect":
            begin(channel)

    client = secure(site, kind=kind, handle_connect=handle_connect)
    client.create_socket()
    if when == "before connect":
        begin(client)
    client.connect(listener.getsockname())
    if when == "after connect":
        begin(client)
    peer = Peer(site.keep(listener.accept()[0]), server_context(), server_side=True)
    run(site, lambda: "handshake" in client.events and peer.established, peer)
    client.give(b"secret")
    peer.write(b"answer")
    run(site, lambda: peer.received and client.received, peer)
    assert (peer.received, client.received) == (b"secret", b"answer")
    assert client.events == ["connect", "handshake"]


def test_a_refused_connect_is_told_as_ever(site: Site) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    client = secure(site, kind="dispatcher")
    client.create_socket()
    client.start_tls(client_context(), server_hostname="localhost")
    client.connect(address)
    site.run_until(lambda: client.events)
    assert client.events == ["error"]
    assert isinstance(client.error, ConnectionRefusedError)


def test_it_may_begin_before_the_constructor_has_run(site: Site) -> None:
    """A channel of a library, whose constructor pushes a greeting."""

    class Library(site.fast.asynchat.async_chat):  # type: ignore[misc]
        def __init__(self, sock: Any, map: Any) -> None:
            super().__init__(sock, map)
            self.set_terminator(b"\n")
            self.push(b"220 welcome\n")

    class Ours(site.fast.tls.TLS, Library):  # type: ignore[misc]
        def __init__(self, sock: Any, map: Any) -> None:
            self.start_tls(server_context(), server_side=True)
            super().__init__(sock, map)

    ours, other = site.tcp_pair()
    Ours(ours, site.map)
    peer = Peer(other, client_context())
    run(site, lambda: peer.received, peer)
    assert peer.received == b"220 welcome\n"


def test_what_was_agreed_upon(site: Site) -> None:
    names: list[Any] = []
    context = server_context(sni_callback=lambda tls, name, context: names.append(name))
    context.set_alpn_protocols(["h2", "http/1.1"])
    server, _ = server_and_peer(site, context=context)
    wanted = client_context()
    wanted.set_alpn_protocols(["http/1.1"])
    peer = Peer(_.sock, wanted)
    run(site, lambda: server.events and peer.established, peer)
    assert server.socket.selected_alpn_protocol() == "http/1.1"
    assert names == ["localhost"]
    assert server.socket.cipher() == peer.tls.cipher()


@pytest.mark.parametrize("has_one", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_certificates_of_clients(site: Site, has_one: bool, version: ssl.TLSVersion) -> None:
    context = server_context(verify_mode=ssl.CERT_REQUIRED, maximum_version=version)
    context.load_verify_locations(CA)
    server, plain = server_and_peer(site, context=context)
    peer = Peer(plain.sock, client_context(certificate=has_one))
    if has_one:
        run(site, lambda: server.events, peer)
        assert server.events == ["handshake"]
        assert server.socket.getpeercert()["subjectAltName"] == (("email", "client@localhost"),)
        return
    with pytest.raises(ssl.SSLError):  # the peer is told
        run(site, lambda: False, peer)
    assert server.events == ["error"]
    assert "verify_mode of the context asks for one" in str(server.error)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_session_is_resumed(site: Site, version: ssl.TLSVersion) -> None:
    theirs, context = server_context(), client_context(maximum_version=version)
    session, resumed = None, []
    for _ in range(2):
        ours, other = site.tcp_pair()
        client = secure(site, ours)
        client.start_tls(context, server_hostname="localhost", session=session)
        peer = Peer(other, theirs, server_side=True)
        run(site, lambda: client.events and peer.established, peer)  # noqa: B023
        peer.write(b"x")  # behind the tickets
        run(site, lambda: client.received, peer)  # noqa: B023
        session = client.socket.session
        resumed.append(client.socket.session_reused)
        client.close()
    assert resumed == [False, True]


def test_many_at_once(site: Site) -> None:
    served, context = server_context(), client_context()
    pairs = []
    for _ in range(100):
        ours, other = site.pair()
        other.setblocking(False)
        server, client = secure(site, ours), secure(site, other, "dispatcher_with_send")
        server.start_tls(served, server_side=True)
        client.start_tls(context, server_hostname="localhost")
        server.give(b"a")
        client.give(b"b")
        pairs.append((server, client))
    site.run_until(lambda: all(server.received and client.received for server, client in pairs))
    assert {tuple(each.events) for pair in pairs for each in pair} == {("handshake",)}


# -- slowness --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_a_peer_sends_a_byte_at_a_time(site: Site, version: ssl.TLSVersion) -> None:
    server, peer = server_and_peer(site, "dispatcher")
    server.handle_expt = None
    peer.tls.context.maximum_version = version
    peer.at_once = 1
    run(site, lambda: server.events and peer.established, peer)
    peer.write(b"slow" * 50)
    run(site, lambda: len(server.received) == 200, peer)
    assert server.events == ["handshake"]


@pytest.mark.parametrize("size", [0, 1, 5, 100, 250, 450])
def test_a_peer_stops_in_the_handshake(site: Site, size: int) -> None:
    server, peer = server_and_peer(site, handshake_timeout=0.05)
    peer.step()
    site.turn()
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    hello = ssl.MemoryBIO()
    again = client_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        again.do_handshake()
    ours, other = site.tcp_pair()
    stopped = secure(site, ours)
    other.send(hello.read()[:size])
    stopped.start_tls(server_context(), server_side=True, handshake_timeout=0.05)
    before = site.loop.stats()["turns"]
    site.run_until(lambda: stopped.events and server.events)
    for channel in (stopped, server):
        assert channel.events == ["error"]
        assert isinstance(channel.error, TimeoutError)
        assert isinstance(channel.error, site.fast.tls.HandshakeTimeout)
        assert "0.05 seconds" in str(channel.error)
    assert site.loop.stats()["turns"] - before < 30  # nothing has spun
    assert not site.map


def test_a_silent_server_and_the_attribute(site: Site) -> None:
    ours, _other = site.tcp_pair()
    client = secure(site, ours, handshake_timeout=0.02)
    client.start_tls(client_context(), server_hostname="localhost")
    site.run_until(lambda: client.events)
    assert isinstance(client.error, TimeoutError)


def test_no_timer_stays(site: Site) -> None:
    server, peer = server_and_peer(site)
    run(site, lambda: server.events, peer)
    closed, _ = server_and_peer(site)
    site.turn()
    assert site.loop.next_deadline() is not None
    closed.close()
    server.close()
    assert site.loop.next_deadline() is None
    assert not site.loop._engine.has_pending()


def test_a_peer_that_reads_nothing_costs_nothing(site: Site) -> None:
    """What is encrypted waits for the kernel, and the channel goes on reading."""
    server, peer = server_and_peer(site, "dispatcher")
    server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    run(site, lambda: server.events and peer.established, peer)
    server.give(BLOB[:200_000])
    site.run_until(lambda: site.map[server._fileno] is not server)
    site.turn(count=20)
    before = site.loop.stats()["events"]
    site.turn(count=50)
    assert site.loop.stats()["events"] == before
    peer.write(b"I still send")
    peer.send()
    site.run_until(lambda: server.received)
    assert server.received == b"I still send"
    run(site, lambda: len(peer.received) == 200_000, peer)
    assert peer.received == BLOB[:200_000]
    site.run_until(lambda: site.map[server._fileno] is server)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_decrypted_is_read_to_its_end(site: Site, kind: str) -> None:
    server, peer = server_and_peer(site, kind)
    server.ac_in_buffer_size = 100
    if kind != "async_chat":
        server.handle_read = lambda: server.__dict__.update(
            received=server.received + server.recv(100)
        )
    run(site, lambda: server.events and peer.established, peer)
    peer.write(b"x" * 16000)
    peer.send()
    for _ in range(400):
        if len(server.received) == 16000:
            break
        site.turn(timeout=1.0)
    assert server.received == b"x" * 16000


def test_reading_is_resumed_with_data_that_lies_decrypted(site: Site) -> None:
    server, peer = server_and_peer(site, "dispatcher")
    reads = [True]

    def handle_read() -> None:
        server.received += server.recv(10)
        reads[:] = [False]

    server.handle_read = handle_read
    server.readable = lambda: reads[0]
    run(site, lambda: server.events and peer.established, peer)
    peer.write(b"0123456789abcdef")
    peer.send()
    site.run_until(lambda: server.received)
    site.turn(count=5)
    assert server.received == b"0123456789"
    reads[:] = [True]
    site.run_until(lambda: len(server.received) > 10)
    assert server.received == b"0123456789abcdef"


# -- in mid-stream ---------------------------------------------------------------------------------


def starttls_server(site: Site, sock: Any, **options: Any) -> Any:
    """Answers lines; STARTTLS begins TLS, with an answer in the clear before."""

    def found_terminator(self: Any) -> None:
        line, self.received = self.received, b""
        self.lines.append(line)
        self.push(b"ok " + line + b"\r\n")
        if line == b"STARTTLS":
            self.start_tls(server_context(), server_side=True, **options)

    server = secure(site, sock, found_terminator=found_terminator, lines=[])
    server.set_terminator(b"\r\n")
    return server


def test_starttls(site: Site) -> None:
    ours, other = site.tcp_pair()
    server = starttls_server(site, ours)
    other.sendall(b"EHLO\r\nSTARTTLS\r\n")
    site.run_until(lambda: len(server.lines) == 2)
    assert receive_exactly(other, 22) == b"ok EHLO\r\nok STARTTLS\r\n"
    peer = Peer(other, client_context())
    run(site, lambda: peer.established and server.events, peer)
    peer.write(b"MAIL\r\nQUIT\r\n")
    run(site, lambda: len(server.lines) == 4, peer)
    run(site, lambda: peer.received == b"ok MAIL\r\nok QUIT\r\n", peer)


@pytest.mark.parametrize("kind", ["dispatcher_with_send", "async_chat"])
def test_much_that_was_pushed_before_goes_in_the_clear(site: Site, kind: str) -> None:
    ours, other = site.tcp_pair()
    server = secure(site, ours, kind)
    server.give(BLOB)
    if kind == "async_chat":
        server.push_with_producer(site.fast.asynchat.simple_producer(b"produced"))
    else:
        server.give(b"produced")
    server.start_tls(server_context(), server_side=True)
    server.give(b"secret")
    parts: list[bytes] = []
    size = len(BLOB) + 8
    reader = threading.Thread(target=lambda: parts.append(receive_exactly(other, size)))
    reader.start()
    site.run_until(lambda: not reader.is_alive())
    assert parts == [BLOB + b"produced"]
    peer = Peer(other, client_context())
    run(site, lambda: peer.received, peer)
    assert peer.received == b"secret"
    assert server.events == ["handshake"]


@pytest.mark.parametrize("burst", [False, True])
def test_clear_text_behind_the_command_is_refused(site: Site, burst: bool) -> None:
    ours, other = site.tcp_pair()
    server = starttls_server(site, ours)
    other.sendall(b"STARTTLS\r\n" + b"MAIL FROM:<thief>\r\n" * (200 if burst else 1))
    site.run_until(lambda: server.events)
    assert server.lines == [b"STARTTLS"]
    assert server.events == ["error"]
    assert isinstance(server.error, site.fast.tls.ClearTextRefused)
    assert "in the clear behind the command" in str(server.error)
    assert not site.map


def test_clear_text_that_comes_later_is_no_tls(site: Site) -> None:
    ours, other = site.tcp_pair()
    server = starttls_server(site, ours)
    other.sendall(b"STARTTLS\r\n")
    site.run_until(lambda: server.lines)
    other.sendall(b"MAIL FROM:<thief>\r\n")
    site.run_until(lambda: server.events)
    assert server.lines == [b"STARTTLS"]
    assert "does not speak TLS here, it began with b'MAIL FROM" in str(server.error)


def test_the_beginning_of_tls_behind_the_command_is_kept(site: Site) -> None:
    ours, other = site.tcp_pair()
    server = starttls_server(site, ours, received="keep")
    peer = Peer(other, client_context())
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    other.sendall(b"STARTTLS\r\n" + peer.outgoing.read())
    site.run_until(lambda: server.lines)
    assert receive_exactly(other, 13) == b"ok STARTTLS\r\n"
    run(site, lambda: peer.established and server.events, peer)
    peer.write(b"MAIL\r\n")
    run(site, lambda: peer.received == b"ok MAIL\r\n", peer)
    assert server.lines == [b"STARTTLS", b"MAIL"]


def test_a_dispatcher_gives_what_it_has_read(site: Site) -> None:
    ours, other = site.tcp_pair()
    server = secure(site, ours, "dispatcher")
    peer = Peer(other, client_context())
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.do_handshake()
    other.sendall(b"PROXY\n" + peer.outgoing.read())
    site.run_until(lambda: server.received)
    server.start_tls(server_context(), server_side=True, received=server.received[6:])
    run(site, lambda: peer.established and server.events, peer)


# -- the end ---------------------------------------------------------------------------------------


def test_the_peer_is_told_that_this_is_all(site: Site) -> None:
    server, peer = server_and_peer(site)
    run(site, lambda: server.events and peer.established, peer)
    server.push(b"last words")
    server.close_when_done()
    run(site, lambda: peer.ended, peer)  # else: SSLEOFError
    assert peer.received == b"last words"


def test_the_end_that_the_peer_tells_is_no_error(site: Site) -> None:
    server, peer = server_and_peer(site, "dispatcher")
    run(site, lambda: server.events and peer.established, peer)
    peer.write(b"last words")
    with pytest.raises(ssl.SSLWantReadError):
        peer.tls.unwrap()
    run(site, lambda: not site.map, peer)
    assert server.events == ["handshake", "close"]
    assert server.received == b"last words"


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_an_end_without_a_word_is_an_error(site: Site, kind: str, reset: bool) -> None:
    server, peer = server_and_peer(site, kind)
    run(site, lambda: server.events and peer.established, peer)
    peer.write(b"truncated")
    peer.send()
    if reset:
        site.run_until(lambda: server.received)
    (close_now if reset else socket.socket.close)(peer.sock)
    site.run_until(lambda: not site.map)
    assert server.received == b"truncated"
    assert server.events == ["handshake", "error"]
    assert isinstance(server.error, ssl.SSLEOFError)
    assert "some may be missing" in str(server.error)


def test_it_is_none_where_that_is_wanted(site: Site) -> None:
    server, peer = server_and_peer(site, suppress_ragged_eofs=True)
    run(site, lambda: server.events and peer.established, peer)
    peer.write(b"truncated")
    peer.send()
    peer.sock.close()
    site.run_until(lambda: not site.map)
    assert (server.received, server.events) == (b"truncated", ["handshake", "close"])


def test_a_peer_leaves_in_the_middle_of_the_handshake(site: Site) -> None:
    server, peer = server_and_peer(site)
    peer.step()
    peer.sock.close()
    site.run_until(lambda: server.events)
    assert isinstance(server.error, ssl.SSLError)
    assert "in the middle of the handshake" in str(server.error)


def test_a_channel_is_used_again(site: Site) -> None:
    client = secure(site)
    for _ in range(2):
        listener = site.server()
        client.create_socket()
        client.start_tls(client_context(), server_hostname="localhost")
        client.connect(listener.getsockname())
        peer = Peer(site.keep(listener.accept()[0]), server_context(), server_side=True)
        run(site, lambda: "handshake" in client.events, peer)
        client.close()
        client.events.clear()
    assert not site.map


def test_close_all_closes_what_shakes_hands(site: Site) -> None:
    server, _ = server_and_peer(site)
    assert site.map[server._fileno] is not server
    site.asyncore.close_all(site.map)
    assert server.socket.closed
    assert server.socket.fileno() == -1


# -- errors that say what to do --------------------------------------------------------------------


def test_plain_http_on_a_port_of_tls(site: Site) -> None:
    server, peer = server_and_peer(site)
    peer.sock.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    site.run_until(lambda: server.events)
    assert server.events == ["error"]
    assert isinstance(server.error, ssl.SSLError)
    assert "the peer speaks plain HTTP" in str(server.error)


def test_a_server_that_speaks_no_tls(site: Site) -> None:
    ours, other = site.tcp_pair()
    client = secure(site, ours)
    client.start_tls(client_context(), server_hostname="localhost")
    other.send(b"220 mail.example.org ESMTP\r\n")
    site.run_until(lambda: client.events)
    assert "a command such as STARTTLS first" in str(client.error)


def client_error(site: Site, context: ssl.SSLContext, theirs: Any, **options: Any) -> Any:
    """What a client is told whose handshake fails."""
    ours, other = site.tcp_pair()
    client = secure(site, ours)
    client.start_tls(context, **{"server_hostname": "localhost", **options})
    peer = Peer(other, theirs, server_side=True)
    try:
        run(site, lambda: client.events, peer)
    except ssl.SSLError:
        peer.send()  # the alert
        site.run_until(lambda: client.events)
    assert client.events == ["error"]
    return client.error


def test_a_wrong_name(site: Site) -> None:
    error = client_error(
        site, client_context(), server_context(), server_hostname="mail.example.org"
    )
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert error.verify_code == 62
    assert "a certificate for 'mail.example.org'" in str(error)


def test_an_unknown_authority(site: Site) -> None:
    error = client_error(site, ssl.create_default_context(), server_context())
    assert "context.load_verify_locations()" in str(error)


def test_an_old_version(site: Site) -> None:
    new = client_context(minimum_version=ssl.TLSVersion.TLSv1_3)
    old = server_context(maximum_version=ssl.TLSVersion.TLSv1_2)
    assert "minimum_version and maximum_version" in str(client_error(site, new, old))


def test_mistakes_are_refused(site: Site) -> None:
    server, _ = server_and_peer(site)
    with pytest.raises(RuntimeError, match="has TLS already"):
        server.start_tls(server_context(), server_side=True)
    listener = secure(site)
    listener.create_socket()
    listener.listen(5)
    with pytest.raises(RuntimeError, match="what it accepts has"):
        listener.start_tls(server_context(), server_side=True)
    other = secure(site, site.pair()[0])
    with pytest.raises(ValueError, match="received is"):
        other.start_tls(server_context(), server_side=True, received="mix")
    with pytest.raises(ValueError, match="server_hostname"):
        other.start_tls(client_context())


def test_an_error_that_is_ignored_does_not_spin(site: Site) -> None:
    server, peer = server_and_peer(site)
    server.handle_error = lambda: server.events.append("ignored")
    peer.sock.send(b"no TLS at all")
    site.run_until(lambda: not site.map)
    assert server.events == ["ignored", "close"]


# -- beside other programs -------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
def test_blocking_sockets_of_the_module_ssl(site: Site, version: ssl.TLSVersion) -> None:
    ours, other = site.tcp_pair()
    server = secure(site, ours)
    server.collect_incoming_data = lambda data: server.push(data)
    server.start_tls(server_context(maximum_version=version), server_side=True)
    got: list[bytes] = []

    def talk() -> None:
        with client_context().wrap_socket(
            other, server_hostname="localhost", suppress_ragged_eofs=False
        ) as tls:
            tls.settimeout(PATIENCE)
            for size in (1, 100, 20_000, 100_000):
                tls.sendall(b"x" * size)
                got.append(receive_exactly(tls, size))

    client = threading.Thread(target=talk)
    client.start()
    site.run_until(lambda: not client.is_alive())
    assert [len(each) for each in got] == [1, 100, 20_000, 100_000]


needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl here")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")


@pytest.fixture
def files() -> Path:
    """A folder with the authority's certificate, and the server's with its key."""
    return CA.parent


def https_server(site: Site, context: ssl.SSLContext) -> Any:
    """Answers any request with the BLOB, and closes."""

    def found_terminator(self: Any) -> None:
        self.push(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BLOB))
        self.push(BLOB)
        self.close_when_done()

    def handle_accepted(_: Any, sock: Any, address: Any) -> None:
        channel = secure(site, sock, found_terminator=found_terminator)
        channel.set_terminator(b"\r\n\r\n")
        channel.start_tls(context, server_side=True)

    listener = site.channel(None, handle_accepted=handle_accepted)
    listener.create_socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(5)
    return listener.socket.getsockname()[1]


def run_beside(site: Site, command: list[str], words: bytes = b"") -> tuple[int, bytes, bytes]:
    """Run a command while the loop turns; return its status, output and errors."""
    ended: list[Any] = []

    def wait() -> None:
        ended.append(subprocess.run(command, input=words, capture_output=True, timeout=PATIENCE))

    thread = threading.Thread(target=wait)
    thread.start()
    site.run_until(lambda: not thread.is_alive())
    return ended[0].returncode, ended[0].stdout, ended[0].stderr


@needs_curl
@pytest.mark.parametrize("version", VERSIONS)
def test_curl(site: Site, files: Path, version: ssl.TLSVersion) -> None:
    port = https_server(site, server_context(maximum_version=version))
    address = ["--resolve", f"localhost:{port}:127.0.0.1", f"https://localhost:{port}/"]
    command = ["curl", "-sS", "--noproxy", "*", "--cacert", str(files / "ca.pem"), *address]
    status, output, errors = run_beside(site, command)
    assert (status, errors) == (0, b"")
    assert output == BLOB


@needs_openssl
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_client_of_openssl(site: Site, files: Path, version: str) -> None:
    port = https_server(site, server_context())
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", version, "-ign_eof"]
    command += ["-quiet", "-verify_return_error", "-CAfile", str(files / "ca.pem")]
    command += ["-servername", "localhost", "-verify_hostname", "localhost"]
    _status, output, _errors = run_beside(site, command, b"GET / HTTP/1.0\r\n\r\n")
    assert output.endswith(BLOB)


@needs_openssl
@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_a_server_of_openssl(site: Site, files: Path, version: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", version, "-rev"]
    command += ["-cert", str(files / "server.pem")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as server:
        assert server.stdout is not None
        try:
            while b"ACCEPT" not in server.stdout.readline():
                assert server.poll() is None
            client = secure(site)
            client.create_socket()
            client.start_tls(client_context(), server_hostname="localhost")
            client.connect(("127.0.0.1", port))
            client.push(b"drawer\n")
            site.run_until(lambda: client.received.endswith(b"\n"))
            client.close()
        finally:
            server.kill()
    assert client.received == b"reward\n"
