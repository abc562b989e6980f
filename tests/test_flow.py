"""Back-pressure: water marks, pauses of reading, and relays with bounded memory."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support import PATIENCE, Site, close_now, fill, receive_exactly

KINDS = ("dispatcher", "dispatcher_with_send", "async_chat")
KEEPING = KINDS[1:]  # what waits to be sent


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


def base_of(site: Site, kind: str) -> Any:
    return getattr(site.fast.asynchat if kind == "async_chat" else site.asyncore, kind)


def channel_class(site: Site, kind: str, after: bool = False, **own: Any) -> Any:
    """A class of that kind with water marks, which notes in `told` what its hooks are told."""

    def init(self: Any, sock: Any, map: Any) -> None:
        self.told: list[str] = []
        self.got = b""
        base.__init__(self, sock, map)
        if kind == "async_chat":
            self.set_terminator(None)

    def handle_read(self: Any) -> None:
        self.got += self.recv(65536)

    base, mixin = base_of(site, kind), site.fast.flow.FlowControl
    names = {
        "__init__": init,
        "handle_read": handle_read,
        "handle_close": lambda self: self.close(),
        "pause_writing": lambda self: self.told.append("pause"),
        "resume_writing": lambda self: self.told.append("resume"),
    }
    if kind == "dispatcher":
        names["writable"] = lambda self: False
    return type("Channel", (base, mixin) if after else (mixin, base), names | own)


def send(channel: Any, data: bytes) -> None:
    (channel.push if hasattr(channel, "push") else channel.send)(data)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", KEEPING)
def test_water_marks(site: Site, kind: str, after: bool) -> None:
    ours, peer = site.pair()
    channel = channel_class(site, kind, after, high_water=1000, low_water=300)(ours, site.map)
    fill(ours)
    send(channel, b"x" * 1000)
    assert channel.told == []
    send(channel, b"x")
    assert channel.told == ["pause"]
    send(channel, b"x" * 1000)
    assert channel.told == ["pause"]
    assert channel.get_write_buffer_size() == 2001
    size = 0
    while channel.get_write_buffer_size() or channel.told == ["pause"]:
        size += len(peer.recv(1 << 20))
        site.turn()
    assert channel.told == ["pause", "resume"]
    send(channel, b"x" * 1000)
    assert channel.told == ["pause", "resume"]


@pytest.mark.parametrize("kind", KEEPING)
def test_a_source_that_obeys_keeps_little(site: Site, kind: str) -> None:
    ours, peer = site.pair()
    most: list[int] = []
    piece = b"x" * 10_000
    total = 200 * len(piece)

    class Sink(channel_class(site, kind, high_water=50_000)):  # type: ignore[misc]
        left = total
        goes = True

        def pause_writing(self) -> None:
            self.goes = False

        def resume_writing(self) -> None:
            self.goes = True
            self.make()

        def make(self) -> None:
            while self.goes and self.left:
                self.left -= len(piece)
                send(self, piece)
                most.append(self.get_write_buffer_size())

    channel = Sink(ours, site.map)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(receive_exactly(peer, total)))
    reader.start()
    site.loop.call_soon(channel.make)
    site.run_until(lambda: not reader.is_alive())
    reader.join()
    assert len(received[0]) == total
    assert max(most) <= 60_000


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_reading_is_paused_and_resumed(site: Site, kind: str, after: bool) -> None:
    ours, peer = site.pair()
    channel = channel_class(site, kind, after)(ours, site.map)
    channel.pause_reading()
    peer.send(b"data")
    site.turn(3)
    assert channel.got == b"" and not channel.is_reading()
    channel.resume_reading()
    site.run_until(lambda: channel.got)
    assert channel.got == b"data"


def test_a_paused_channel_among_many_costs_no_turns(site: Site) -> None:
    kind = channel_class(site, "async_chat")
    for _ in range(20):
        kind(site.pair()[0], site.map)
    ours, peer = site.pair()
    channel = kind(ours, site.map)
    channel.pause_reading()
    peer.close()  # hangs up
    site.turn(3)
    before = site.loop.stats()["events"]
    site.turn(3, timeout=0.01)
    assert site.loop.stats()["events"] == before
    channel.resume_reading()
    site.run_until(lambda: len(site.map) == 20)


def test_answers_that_leave_together_end_a_pause(site: Site) -> None:
    """Pushes wait while there are more lines: what they leave is seen when they have left."""

    class Chat(channel_class(site, "async_chat", high_water=100)):  # type: ignore[misc]
        handle_read = base_of(site, "async_chat").handle_read

        def collect_incoming_data(self, data: bytes) -> None:
            pass

        def found_terminator(self) -> None:
            self.push(b"x" * 50)

    ours, peer = site.pair()
    channel = Chat(ours, site.map)
    channel.set_terminator(b"\n")
    peer.send(b"line\n" * 100)
    assert_received = threading.Thread(target=receive_exactly, args=(peer, 5000))
    assert_received.start()
    site.run_until(lambda: not assert_received.is_alive())
    assert channel.told in ([], ["pause", "resume"])


def test_a_program_with_a_buffer_of_its_own(site: Site) -> None:
    ours, _ = site.pair()
    names = {"get_write_buffer_size": lambda self: self.size, "high_water": 10, "size": 11}
    channel = channel_class(site, "dispatcher", **names)(ours, site.map)
    channel.check_write_buffer()
    assert channel.told == ["pause"]
    channel.size = 2
    channel.check_write_buffer()
    assert channel.told == ["pause", "resume"]


def test_discarded_buffers_end_a_pause(site: Site) -> None:
    ours, _ = site.pair()
    channel = channel_class(site, "async_chat", high_water=10)(ours, site.map)
    fill(ours)
    channel.push(b"x" * 100)
    channel.discard_buffers()
    assert channel.told == ["pause", "resume"]


def test_the_mixins_leave_answers_together(site: Site) -> None:
    chat, both = site.fast.asynchat.async_chat, []
    mixins = (site.fast.flow.FlowControl, site.fast.deadlines.Deadlines)
    for bases in ((*mixins, chat), (chat, *reversed(mixins)), (mixins[0], chat, mixins[1])):
        kind = type("Chat", bases, {})
        both.append(kind.send)
        assert kind.__mro__.index(chat) > max(map(kind.__mro__.index, mixins))
    assert set(both) == {site.asyncore.dispatcher.send}


# -- relays -------------------------------------------------------------------------------------


def plain_class(site: Site, kind: str) -> Any:
    """A class of that kind as programs have it: no mix-in, and quiet."""
    names = {"ignore_log_types": ("warning", "error"), "found_terminator": None}
    return type("Plain", (base_of(site, kind),), names)


def relayed(site: Site, kinds: tuple[str, str], **options: Any) -> Any:
    """A relay between two TCP connections: the peers, the channels, and the relay."""
    (a, left), (b, right) = site.tcp_pair(), site.tcp_pair()
    first = plain_class(site, kinds[0])(a, site.map)
    second = plain_class(site, kinds[1])(b, site.map)
    return left, right, first, second, site.fast.flow.relay(first, second, **options)


PAIRS = [("dispatcher", "async_chat"), ("async_chat", "dispatcher_with_send")]
PAIRS += [("dispatcher_with_send", "dispatcher")]


@pytest.mark.parametrize("kinds", PAIRS)
def test_a_relay_passes_on_both_ways_and_the_ends(site: Site, kinds: tuple[str, str]) -> None:
    left, right, _first, _second, _ = relayed(site, kinds)
    sent = bytes(range(256)) * 8192  # 2 MiB, more than sockets hold
    received: dict[str, bytes] = {}

    def talk(name: str, sock: socket.socket) -> None:
        writer = threading.Thread(target=lambda: (sock.sendall(sent), sock.shutdown(1)))
        writer.start()
        received[name] = receive_exactly(sock, 2 * len(sent))
        writer.join(PATIENCE)

    talks = [
        threading.Thread(target=talk, args=each) for each in (("left", left), ("right", right))
    ]
    for each in talks:
        each.start()
    site.run_until(lambda: not any(each.is_alive() for each in talks))
    assert received == {"left": sent, "right": sent}
    site.run_until(lambda: not site.map)


def received_to_the_end(site: Site, peer: socket.socket) -> bytes:
    """What a peer that blocks receives, at most 100 bytes, while the loop runs."""
    done: list[bytes] = []
    reader = threading.Thread(target=lambda: done.append(receive_exactly(peer, 100)))
    reader.start()
    site.run_until(lambda: done)
    reader.join(PATIENCE)
    return done[0]


@pytest.mark.parametrize("kinds", PAIRS)
def test_one_half_goes_on_when_the_other_has_ended(site: Site, kinds: tuple[str, str]) -> None:
    left, right, *_ = relayed(site, kinds)
    left.sendall(b"question")
    left.shutdown(socket.SHUT_WR)
    assert received_to_the_end(site, right) == b"question"
    right.sendall(b"answer")
    right.close()
    site.run_until(lambda: not site.map)
    assert receive_exactly(left, 100) == b"answer"


@pytest.mark.parametrize("kinds", PAIRS)
def test_a_reset_closes_both(site: Site, kinds: tuple[str, str]) -> None:
    left, right, *_ = relayed(site, kinds)
    close_now(left)
    site.run_until(lambda: not site.map)
    assert right.recv(1) == b""


@pytest.mark.parametrize("kinds", PAIRS)
def test_whoever_is_closed_takes_the_other_with_it(site: Site, kinds: tuple[str, str]) -> None:
    for number in (0, 1):
        left, right, *channels, relay = relayed(site, kinds)
        channels[number].close()
        assert not site.map and relay.closed
        assert (left.recv(1), right.recv(1)) == (b"", b"")
        assert "close" not in vars(channels[0])


@pytest.mark.parametrize("kinds", PAIRS)
def test_a_peer_that_does_not_read_stops_the_other(site: Site, kinds: tuple[str, str]) -> None:
    left, right, _first, second, _ = relayed(site, kinds, limit=10_000)
    left.setblocking(False)
    total, refused = 0, 0
    while refused < 5:  # until nothing is taken any more
        try:
            total += left.send(b"x" * 65536)
            refused = 0
        except BlockingIOError:
            refused += 1
        site.turn(5, timeout=0.01)
    assert kept_by(second) <= 10_000
    left.close()
    done: list[bytes] = []
    reader = threading.Thread(target=lambda: done.append(receive_exactly(right, 2 * total)))
    reader.start()
    # Reading on, the peer finds all of it; and the end.
    site.run_until(lambda: done)
    assert len(done[0]) == total


def kept_by(channel: Any) -> int:
    """The bytes that a channel keeps, or the relay for it."""
    if hasattr(channel, "producer_fifo"):
        return sum(map(len, channel.producer_fifo))
    if hasattr(channel, "out_buffer"):
        return len(channel.out_buffer)
    return len(channel.writable.__self__._waiting)


def test_what_was_not_handled_is_passed_on(site: Site) -> None:
    """A proxy: lines first, and in the handler of one of them a relay to where it says."""
    server = site.server()
    server.settimeout(PATIENCE)
    fast = site.fast

    class Client(fast.asynchat.async_chat):  # type: ignore[misc,name-defined]
        def collect_incoming_data(self, data: bytes) -> None:
            assert data == b"CONNECT"

        def found_terminator(self) -> None:
            other = plain_class(site, "async_chat")(None, site.map)
            other.create_socket()
            other.connect(server.getsockname())
            self.push(b"200\n")
            fast.flow.relay(self, other)

    ours, peer = site.tcp_pair()
    Client(ours, site.map).set_terminator(b"\n")
    peer.sendall(b"CONNECT\nearly")
    site.turn(3, timeout=0.01)
    accepted = site.keep(server.accept()[0])
    accepted.settimeout(PATIENCE)
    peer.sendall(b" and late")
    peer.shutdown(socket.SHUT_WR)
    assert received_to_the_end(site, accepted) == b"early and late"
    accepted.sendall(b"answer")
    accepted.close()
    site.run_until(lambda: not site.map)
    assert receive_exactly(peer, 100) == b"200\nanswer"


def test_a_connection_that_fails_closes_both(site: Site) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = unused.getsockname()
    ours, peer = site.tcp_pair()
    first = plain_class(site, "dispatcher")(ours, site.map)
    second = plain_class(site, "dispatcher")(None, site.map)
    second.create_socket()
    second.connect(address)
    site.fast.flow.relay(first, second)
    peer.send(b"to nobody")
    site.run_until(lambda: not site.map)
    with pytest.raises(ConnectionError):
        while peer.recv(1):
            pass
        raise ConnectionError


def test_what_cannot_be_joined(site: Site) -> None:
    channel = plain_class(site, "dispatcher")(site.pair()[0], site.map)
    closed = plain_class(site, "dispatcher")(None, site.map)
    for pair in ((channel, channel), (channel, closed), (closed, channel)):
        with pytest.raises(ValueError, match="two channels"):
            site.fast.flow.relay(*pair)
