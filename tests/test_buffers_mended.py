"""What is mended in the buffers of dispatcher_with_send and async_chat."""

from __future__ import annotations

import array
import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support import PATIENCE, Site, elapsed, fill, receive_exactly


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


# -- dispatcher_with_send --------------------------------------------------------------------------


def test_sending_behind_a_large_buffer_is_not_quadratic(site: Site) -> None:
    ours, _ = site.pair()
    channel = site.asyncore.dispatcher_with_send(ours, site.map)
    fill(ours)
    channel.send(b"x" * 16_000_000)

    def send_many() -> None:
        for _ in range(3000):
            channel.send(b"y" * 10)

    # Copied once for each of them, these would be 48 GB.
    assert elapsed(send_many) < 3
    assert len(channel.out_buffer) > 15_000_000  # a network may make room meanwhile


def test_a_buffer_that_waits_arrives_in_order(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.asyncore.dispatcher_with_send(ours, site.map)
    channel.handle_read = lambda: None
    pieces = [os.urandom(99_991) for _ in range(40)]
    for piece in pieces:
        channel.send(piece)
    assert isinstance(channel.out_buffer, bytes)
    assert channel.out_buffer
    received: list[bytes] = []
    size = sum(map(len, pieces))
    reader = threading.Thread(target=lambda: received.append(receive_exactly(peer, size)))
    reader.start()
    site.run_until(lambda: not channel.out_buffer)
    reader.join()
    assert received == [b"".join(pieces)]
    assert not channel.writable()


def test_out_buffer_may_be_read_and_assigned(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.asyncore.dispatcher_with_send(ours, site.map)
    filled = fill(ours)
    channel.send(b"one")
    channel.send(bytearray(b"two"))
    assert channel.out_buffer == b"onetwo"
    channel.out_buffer = channel.out_buffer[3:] + b"three"
    channel.out_buffer += b"!"
    assert channel.out_buffer == b"twothree!"
    receive_exactly(peer, filled)
    site.run_until(lambda: not channel.out_buffer)
    assert peer.recv(100) == b"twothree!"


def test_a_sent_bytearray_belongs_to_its_owner_again(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.asyncore.dispatcher_with_send(ours, site.map)
    filled = fill(ours)
    for _ in range(2):
        data = bytearray(b"mine")
        channel.send(data)
        data.clear()
        data.extend(b"other")
    receive_exactly(peer, filled)
    site.run_until(lambda: not channel.out_buffer)
    assert peer.recv(100) == b"minemine"


# -- async_chat ------------------------------------------------------------------------------------


def _chat(site: Site, sock: Any, **attributes: Any) -> Any:
    kind = type("Chat", (site.fast.asynchat.async_chat,), attributes)
    chat = kind(sock, site.map)
    chat.set_terminator(b"\n")
    chat.ac_in_buffer_size = 1 << 23
    return chat


def test_a_burst_of_lines_is_not_quadratic(site: Site) -> None:
    ours, _ = site.pair()
    lines: list[bytes] = []
    chat = _chat(
        site,
        ours,
        collect_incoming_data=lambda self, data: lines.append(data),
        found_terminator=lambda self: None,
    )

    def seconds(count: int) -> float:
        chat.recv = lambda size: b"12345678901234567890123456789\n" * count
        return elapsed(chat.handle_read)

    short = min(seconds(5_000) for _ in range(3))
    long = min(seconds(80_000) for _ in range(2))
    assert len(lines) == 175_000
    assert long < short * 16 * 4, "quadratic would be 16 times as much again"


def test_the_input_buffer_is_exact_whenever_user_code_runs(site: Site) -> None:
    seen: list[bytes] = []
    ours, peer = site.pair()
    chat = _chat(
        site,
        ours,
        collect_incoming_data=lambda self, data: None,
        found_terminator=lambda self: seen.append(self.ac_in_buffer),
    )
    peer.send(b"one\ntwo\nthr")
    site.turn()
    assert seen == [b"two\nthr", b"thr"]
    assert chat.ac_in_buffer == b""


def test_a_line_without_end_is_unlimited_unless_asked(site: Site) -> None:
    size = 0

    def collect(self: Any, data: bytes) -> None:
        nonlocal size
        size += len(data)

    ours, peer = site.pair()
    chat = _chat(site, ours, collect_incoming_data=collect)
    for _ in range(20):
        peer.send(b"x" * 50_000)
        site.turn()
    assert size == 1_000_000
    assert site.map
    chat.ac_max_line_size = 100
    chat.log_info = lambda message, type: None
    peer.send(b"x" * 101)
    site.turn()
    assert not site.map


def test_the_hook_of_a_long_line_may_do_something_else(site: Site) -> None:
    lines: list[bytes] = []
    calls: list[int] = []
    ours, peer = site.pair()
    chat = _chat(
        site,
        ours,
        ac_max_line_size=10,
        collect_incoming_data=lambda self, data: lines.append(data),
        found_terminator=lambda self: None,
        handle_line_too_long=lambda self: calls.append(1),
    )
    peer.send(b"1234567890\n12345678901\n1\n")
    site.turn()
    assert calls == [1]
    assert b"1234567890" in lines
    assert site.map == {ours.fileno(): chat}


def _push(chat: Any, data: Any) -> None:
    chat.push(data)


def _send(channel: Any, data: Any) -> None:
    channel.send(data)


@pytest.mark.parametrize(
    ("module", "kind", "give"),
    [("asynchat", "async_chat", _push), ("asyncore", "dispatcher_with_send", _send)],
)
def test_a_view_of_wide_items_is_its_bytes(
    site: Site, module: str, kind: str, give: Callable[[Any, Any], None]
) -> None:
    ours, peer = site.pair()
    channel = getattr(getattr(site.fast, module), kind)(ours, site.map)
    channel.handle_read = lambda: None
    numbers = array.array("I", range(100_000))
    give(channel, memoryview(numbers))
    received: list[bytes] = []
    reader = threading.Thread(
        target=lambda: received.append(receive_exactly(peer, numbers.itemsize * len(numbers)))
    )
    reader.start()
    deadline = time.monotonic() + PATIENCE
    while reader.is_alive() and time.monotonic() < deadline:
        site.turn(timeout=0.01)
    reader.join(0)
    assert received == [numbers.tobytes()]


# -- what costs little ----------------------------------------------------------------------------


def sized_chat(site: Site, ours: Any, size: int) -> Any:
    """A chat whose sends take `size` bytes at most."""
    base = site.fast.asynchat.async_chat
    chat = type("Chat", (base,), {"ac_out_buffer_size": size})(ours, site.map)
    chat.set_terminator(b"\n")
    return chat


def elapsed_by(pushes: Callable[[], None]) -> float:
    began = time.process_time()
    pushes()
    return time.process_time() - began


@pytest.mark.parametrize("size", [512, 65536, 1 << 22])
def test_pushes_to_a_peer_that_does_not_read_are_not_quadratic(site: Site, size: int) -> None:
    ours, _ = site.pair()
    chat = sized_chat(site, ours, size)
    fill(ours)

    def pushes() -> None:
        for _ in range(200_000):
            chat.push(b"0123456789")

    assert elapsed_by(pushes) < 4  # it was 10 s where the buffer was large
    assert sum(map(len, chat.producer_fifo)) == 2_000_000
    assert all(type(piece) is bytes for piece in chat.producer_fifo)


def test_many_small_sends_to_a_peer_that_does_not_read_are_not_quadratic(site: Site) -> None:
    ours, _ = site.pair()
    channel = site.asyncore.dispatcher_with_send(ours, site.map)
    fill(ours)

    def sends() -> None:
        for _ in range(100_000):
            channel.send(b"x" * 100)

    assert elapsed_by(sends) < 5  # the standard library's copied 500 GB
    assert len(channel.out_buffer) == 10_000_000


@pytest.mark.parametrize("size", [1000, 1 << 30])
def test_one_large_push_is_not_copied_for_each_send(site: Site, size: int) -> None:
    whole = os.urandom(1 << 20) * 16
    ours, peer = site.pair()
    chat = sized_chat(site, ours, size)
    got = io.BytesIO()
    reader = threading.Thread(target=lambda: got.write(receive_exactly(peer, len(whole))))
    reader.start()
    chat.push_with_producer(whole)
    site.run_until(lambda: not chat.producer_fifo)
    reader.join(PATIENCE)
    assert got.getvalue() == whole
