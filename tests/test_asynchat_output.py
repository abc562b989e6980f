"""async_chat's output: pushes, producers, what leaves together, and closing."""

from __future__ import annotations

import array
import contextlib
import socket
from typing import Any

import pytest
from support import PATIENCE, Site, close_now, fill, receive_exactly


@pytest.fixture
def site(fast: Any) -> Any:
    with Site(fast) as site:
        yield site


def chat(site: Site, sock: Any = None, **attributes: Any) -> tuple[Any, Any]:
    """A chat that answers no line by itself, and its peer."""
    attributes = {"collect_incoming_data": lambda self, data: None, **attributes}
    kind = type("Chat", (site.fast.asynchat.async_chat,), attributes)
    near, far = site.pair() if sock is None else sock
    channel = kind(near, site.map)
    channel.set_terminator(b"\n")
    return channel, far


@pytest.fixture
def sends(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What each send() of a channel's socket was given, from now on; peers are no channels."""
    given: list[bytes] = []
    plain = socket.socket.send

    def send(self: Any, data: Any, *args: Any) -> Any:
        if self.gettimeout() == 0:
            given.append(bytes(data))
        return plain(self, data, *args)

    monkeypatch.setattr(socket.socket, "send", send)
    return given


def receive_while_turning(site: Site, peer: socket.socket, size: int) -> bytes:
    """Read `size` bytes from `peer` while the loop turns, so that no buffer is full for ever."""
    got = bytearray()
    peer.setblocking(False)

    def receive() -> bool:
        with contextlib.suppress(BlockingIOError):
            got.extend(peer.recv(1 << 20))
        return len(got) >= size

    site.run_until(receive)
    return bytes(got)


# -- push -----------------------------------------------------------------------------------


def test_a_push_is_sent_at_once(site: Site) -> None:
    channel, peer = chat(site)
    channel.push(b"now")
    assert peer.recv(10) == b"now"  # without a loop
    assert not channel.writable()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_whatever_is_bytes_can_be_pushed(site: Site, kind: Any) -> None:
    channel, peer = chat(site)
    channel.push(kind(b"data"))
    assert peer.recv(10) == b"data"


@pytest.mark.parametrize("data", ["text", 5, None, [b"x"]])
def test_nothing_else_can_be_pushed(site: Site, data: Any) -> None:
    channel, _peer = chat(site)
    with pytest.raises(TypeError, match="byte-ish"):
        channel.push(data)


def test_a_memoryview_of_wide_items(site: Site) -> None:
    channel, peer = chat(site, ac_out_buffer_size=100)
    data = array.array("Q", range(1000))
    channel.push(memoryview(data))
    assert receive_while_turning(site, peer, 8000) == data.tobytes()


def test_a_bytearray_is_its_owners_after_push(site: Site) -> None:
    channel, peer = chat(site)
    filled = fill(channel.socket)
    data = bytearray(b"original")
    channel.push(data)
    assert channel.writable()  # it waits
    data[:] = b"changed and longer"  # BufferError if somebody still held it
    receive_exactly(peer, filled)
    site.run_until(lambda: not channel.writable())
    assert peer.recv(100) == b"original"


def test_what_is_larger_than_the_buffer_goes_out_in_pieces(site: Site, sends: list[bytes]) -> None:
    channel, peer = chat(site, ac_out_buffer_size=4)
    channel.push(b"0123456789")
    site.run_until(lambda: not channel.writable())
    assert sends == [b"0123", b"4567", b"89"]
    assert receive_exactly(peer, 10) == b"0123456789"


def test_large_pushes_arrive_whole(site: Site) -> None:
    channel, peer = chat(site)
    data = bytes(range(256)) * 8192  # 2 MiB, more than any socket buffer here
    channel.push(data)
    channel.push(b"behind")
    assert receive_while_turning(site, peer, len(data) + 6) == data + b"behind"


def test_before_the_connection_stands_pushes_wait(site: Site) -> None:
    listener = site.keep(socket.create_server(("127.0.0.1", 0)))
    channel = site.fast.asynchat.async_chat(None, site.map)
    channel.create_socket()
    channel.push(b"early")
    assert list(channel.producer_fifo) == [b"early"]
    channel.handle_connect = lambda: None
    channel.connect(listener.getsockname())
    peer = site.keep(listener.accept()[0])
    peer.settimeout(PATIENCE)
    site.run_until(lambda: not channel.writable())
    assert peer.recv(10) == b"early"


# -- producers ------------------------------------------------------------------------------


class Counter:
    """A producer of a few pieces."""

    def __init__(self, *pieces: Any) -> None:
        self.pieces = list(pieces)

    def more(self) -> Any:
        return self.pieces.pop(0) if self.pieces else b""


def test_producers_and_pushes_keep_their_order(site: Site) -> None:
    channel, peer = chat(site)
    channel.push(b"a")
    channel.push_with_producer(Counter(b"b", b"c"))
    channel.push_with_producer(b"d")
    channel.push_with_producer(site.fast.asynchat.simple_producer(b"efghij", 4))
    channel.push(b"k")
    site.run_until(lambda: not channel.writable())
    assert receive_exactly(peer, 11) == b"abcdefghijk"


def test_an_empty_producer_is_left_out(site: Site) -> None:
    channel, peer = chat(site)
    channel.push_with_producer(Counter())
    channel.push_with_producer(b"")
    channel.push(b"x")
    site.run_until(lambda: not channel.writable())
    assert peer.recv(10) == b"x"


def test_simple_producer_cuts(fast: Any) -> None:
    producer = fast.asynchat.simple_producer(b"x" * 1000)
    assert [len(producer.more()) for _ in range(3)] == [512, 488, 0]


def test_a_producer_of_text_is_encoded(site: Site) -> None:
    channel, peer = chat(site, use_encoding=1, encoding="utf-8")
    channel.push_with_producer(Counter("\xe9"))
    site.run_until(lambda: not channel.writable())
    assert peer.recv(10) == "\xe9".encode()


def test_none_in_the_queue_closes(site: Site) -> None:
    channel, peer = chat(site)
    channel.push_with_producer(Counter(b"bye"))
    channel.push_with_producer(None)
    site.run_until(lambda: not site.map)
    assert receive_exactly(peer, 10) == b"bye"


def test_close_when_done_sends_everything_first(site: Site) -> None:
    channel, peer = chat(site, ac_out_buffer_size=1000)
    channel.push(b"x" * 5000)
    channel.push_with_producer(Counter(b"y" * 10, b"z"))
    channel.close_when_done()
    site.run_until(lambda: not site.map)
    assert receive_exactly(peer, 10_000) == b"x" * 5000 + b"y" * 10 + b"z"


def test_close_when_done_with_nothing_to_do_closes_in_the_loop(site: Site) -> None:
    channel, peer = chat(site)
    channel.close_when_done()
    assert site.map  # not at once
    site.run_until(lambda: not site.map)
    assert peer.recv(1) == b""


def test_discard_buffers_forgets_what_waits(site: Site) -> None:
    channel, _peer = chat(site)
    fill(channel.socket)
    channel.push(b"never")
    channel.ac_in_buffer = b"x"
    channel.discard_buffers()
    assert not channel.writable()
    assert channel.ac_in_buffer == b""


# -- what leaves together ---------------------------------------------------------------------


def answering(site: Site, **attributes: Any) -> tuple[Any, Any]:
    """A chat that answers each line in two pushes."""

    def found(self: Any) -> None:
        self.count = getattr(self, "count", 0) + 1
        self.push(b"%d:" % self.count)
        self.push(b"ok\n")

    return chat(site, **{"found_terminator": found, **attributes})


def test_answers_to_pipelined_lines_leave_in_one_send(site: Site, sends: list[bytes]) -> None:
    channel, peer = answering(site)
    peer.send(b"line\n" * 8)
    expected = b"".join(b"%d:ok\n" % number for number in range(1, 9))
    site.run_until(lambda: getattr(channel, "count", 0) == 8 and not channel.writable())
    assert receive_exactly(peer, len(expected)) == expected
    # Everything before the last line's second push: that one is on its own.
    assert sends == [expected[:-3], b"ok\n"]


@pytest.mark.parametrize("method", ["send", "initiate_send"])
@pytest.mark.parametrize("where", ["class", "instance"])
def test_an_override_sees_every_piece(site: Site, method: str, where: str) -> None:
    seen: list[bytes] = []
    base = site.fast.asynchat.async_chat

    def send(self: Any, data: bytes) -> Any:
        seen.append(data)
        return base.send(self, data)

    def initiate_send(self: Any) -> None:
        seen.extend(list(self.producer_fifo))
        base.initiate_send(self)

    override = {"send": send, "initiate_send": initiate_send}[method]
    channel, peer = answering(site, **({method: override} if where == "class" else {}))
    if where == "instance":
        setattr(channel, method, lambda *args: override(channel, *args))
    peer.send(b"line\n" * 3)
    site.run_until(lambda: getattr(channel, "count", 0) == 3 and not channel.writable())
    assert seen == [b"1:", b"ok\n", b"2:", b"ok\n", b"3:", b"ok\n"]
    assert receive_exactly(peer, 15) == b"1:ok\n2:ok\n3:ok\n"


def test_a_push_before_the_socket_is_replaced_leaves_on_the_old_one(site: Site) -> None:
    """As STARTTLS does: the last plain answer, then the other socket."""
    second, peer_of_second = site.pair()

    def found(self: Any) -> None:
        self.push(b"answer\n")
        self.lines = getattr(self, "lines", 0) + 1
        if self.lines == 2:
            self.push(b"go ahead\n")
            self.del_channel()
            first.append(self.socket)
            self.set_socket(second)
            self.push(b"secret\n")

    first: list[Any] = []
    _channel, peer = chat(site, found_terminator=found)
    peer.send(b"EHLO\nSTARTTLS\n")
    site.run_until(lambda: first)
    assert peer.recv(100) == b"answer\nanswer\ngo ahead\n"
    assert peer_of_second.recv(100) == b"secret\n"


def test_a_push_of_a_body_leaves_before_the_socket_is_replaced(site: Site) -> None:
    """The same where the last piece is counted, behind lines that wait to be answered."""
    second, _peer_of_second = site.pair()
    first: list[Any] = []

    def found(self: Any) -> None:
        self.push(b"answer\n")
        self.lines = getattr(self, "lines", 0) + 1
        if self.lines == 1:
            self.set_terminator(4)
        else:
            self.del_channel()
            first.append(self.socket)
            self.set_socket(second)

    _channel, peer = chat(site, found_terminator=found)
    peer.send(b"size 4\nbod\n")
    site.run_until(lambda: first)
    assert peer.recv(100) == b"answer\n" * 2


@pytest.mark.parametrize("size", [10, 50_000])
def test_close_after_a_push_in_a_pipelined_handler_loses_nothing(site: Site, size: int) -> None:
    def found(self: Any) -> None:
        for letter in (b"a", b"b", b"c"):
            self.push(letter * size)
        self.close()

    channel, peer = chat(site, found_terminator=found)
    channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    peer.send(b"one\ntwo\n")
    site.run_until(lambda: not site.map)
    peer.shutdown(socket.SHUT_WR)
    got = receive_exactly(peer, 3 * size)
    assert got == b"a" * size + b"b" * size + b"c" * size


@pytest.mark.parametrize("last", ["close", "send"])
def test_the_last_of_some_lines_does_not_overtake_the_answers_to_the_others(
    site: Site, last: str
) -> None:
    def found(self: Any) -> None:
        self.count = getattr(self, "count", 0) + 1
        if self.count < 3:
            self.push(b"%d\n" % self.count)
        elif last == "close":
            self.close()
        else:
            self.send(b"3\n")

    channel, peer = chat(site, found_terminator=found)
    peer.send(b"one\ntwo\nthree\n")
    site.run_until(lambda: getattr(channel, "count", 0) == 3 and not channel.producer_fifo)
    assert peer.recv(100) == (b"1\n2\n" if last == "close" else b"1\n2\n3\n")


def test_a_failing_handler_does_not_hold_back_what_was_pushed(site: Site) -> None:
    def found(self: Any) -> None:
        self.push(b"said\n")
        raise ValueError

    channel, peer = chat(site, found_terminator=found)
    errors: list[str] = []
    channel.handle_error = lambda: errors.append("seen")
    peer.send(b"one\ntwo\n")
    site.run_until(lambda: errors)
    assert peer.recv(100) == b"said\n"


def test_a_nested_loop_in_a_pipelined_handler_sends_what_was_pushed(site: Site) -> None:
    got: list[bytes] = []

    def found(self: Any) -> None:
        if not got:
            got.append(b"")
            self.push(b"question\n")
            site.turn(2)
            got[0] = peer.recv(100)

    _channel, peer = chat(site, found_terminator=found)
    peer.settimeout(PATIENCE)
    peer.send(b"one\ntwo\n")
    site.run_until(lambda: got)
    assert got == [b"question\n"]


def test_datagrams_stay_apart(site: Site) -> None:
    near = site.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    far = site.keep(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    for sock in (near, far):
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(PATIENCE)
    near.connect(far.getsockname())
    far.connect(near.getsockname())
    channel, _peer = answering(site, sock=(near, far))
    far.send(b"one\ntwo\nthree\n")
    site.run_until(lambda: getattr(channel, "count", 0) == 3 and not channel.writable())
    assert [far.recv(100) for _ in range(6)] == [b"1:", b"ok\n", b"2:", b"ok\n", b"3:", b"ok\n"]


def test_a_peer_that_left_closes_on_push(site: Site) -> None:
    channel, peer = chat(site)
    close_now(peer)
    channel.push(b"into the void")
    assert not site.map


def test_an_error_of_send_goes_to_handle_error(site: Site) -> None:
    channel, _peer = chat(site)
    errors: list[str] = []

    def send(data: bytes) -> int:
        raise OSError(5, "input and output")

    channel.send = send
    channel.handle_error = lambda: errors.append("seen")
    channel.push(b"x")
    assert errors == ["seen"]


def test_a_direct_send_stays_behind_held_pushes(site: Site) -> None:
    def found(self: Any) -> None:
        self.push(b"pushed\n")
        self.send(b"sent\n")

    _channel, peer = chat(site, found_terminator=found)
    peer.send(b"line\n" * 3)
    expected = b"pushed\nsent\n" * 3
    assert receive_while_turning(site, peer, len(expected)) == expected
