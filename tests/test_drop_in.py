"""What programs see of the modules is what they ever saw: attributes, names, sockets that block."""

from __future__ import annotations

import contextlib
import copy
import enum
import os
import pickle
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from support import PATIENCE, Site, fill, receive_exactly


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


def chat_class(site: Site, **attributes: Any) -> Any:
    """A chat that keeps its lines, and answers each of them."""

    def found_terminator(self: Any) -> None:
        self.lines.append(self._get_data())
        self.push(b"<" + self.lines[-1] + b">")

    def __init__(self: Any, sock: Any = None, map: Any = None) -> None:
        site.fast.asynchat.async_chat.__init__(self, sock, site.map if map is None else map)
        self.set_terminator(b"\n")
        self.lines = []

    base = site.fast.asynchat.async_chat
    return type(
        "Chat",
        (base,),
        {
            "__init__": __init__,
            "collect_incoming_data": base._collect_incoming_data,
            "found_terminator": found_terminator,
            **attributes,
        },
    )


# -- nothing is looked up that was not -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dispatcher", "dispatcher_with_send", "async_chat"])
def test_no_attribute_is_looked_up_that_is_missing(site: Site, kind: str) -> None:
    missing: list[str] = []

    def __getattr__(self: Any, name: str) -> Any:
        missing.append(name)
        raise AttributeError(name)

    def handle_read(self: Any) -> None:
        self.send(self.recv(100))

    module = site.fast.asynchat if kind == "async_chat" else site.asyncore
    base = getattr(module, kind)
    attributes: dict[str, Any] = {"__getattr__": __getattr__, "writable": lambda self: False}
    if kind != "async_chat":
        attributes["handle_read"] = handle_read
    cls = chat_class(site, __getattr__=__getattr__) if kind == "async_chat" else None
    ours, peer = site.pair()
    channel = (cls or type("Channel", (base,), attributes))(ours, site.map)
    peer.send(b"one\ntwo\n")
    site.turn(3)
    assert receive_exactly(peer, 8 if kind != "async_chat" else 10)
    with site.fast.Loop(map=site.map):
        pass
    peer.close()
    site.run_until(lambda: not site.map)
    channel.close()
    assert missing == []


def test_what_is_no_dispatcher_is_asked_what_the_old_loop_asked(site: Site) -> None:
    asked: set[str] = set()
    answers: dict[str, Any] = {
        "accepting": False,
        "readable": lambda: True,
        "writable": lambda: False,
        "handle_read_event": lambda: ours.recv(10),
    }

    class Thing:
        def __getattribute__(self, name: str) -> Any:
            asked.add(name)
            return answers[name]

    ours, peer = site.pair()
    site.map[ours.fileno()] = Thing()
    peer.send(b"x")
    site.turn(3)
    site.turn(2, timeout=0.15)  # the look for closed sockets
    with site.fast.Loop(map=site.map):
        pass
    site.map.clear()
    assert asked == set(answers) - {"accepting"} or asked == set(answers)


def test_a_property_that_raises_is_left_alone(site: Site) -> None:
    def failing(self: Any) -> Any:
        raise RuntimeError("not connected yet")

    names = ("handle_read_event", "handle_expt_event", "handle_close", "handle_error")
    thing = type(
        "Thing",
        (),
        {
            "socket": property(failing),
            "accepting": False,
            "readable": lambda self: True,
            "writable": lambda self: False,
            **dict.fromkeys(names, failing),
        },
    )
    ours, _ = site.pair()
    site.map[ours.fileno()] = thing()
    site.turn(2, timeout=0.15)
    site.map.clear()


def test_a_map_is_asked_for_nothing_but_the_entry(site: Site) -> None:
    class Registrar:
        def __init__(self) -> None:
            self.entries: dict[Any, Any] = {}

        def __setitem__(self, key: Any, channel: Any) -> None:
            self.entries[key] = channel

        def __contains__(self, key: Any) -> bool:
            return key in self.entries

        def __delitem__(self, key: Any) -> None:
            del self.entries[key]

    ours, _ = site.pair()
    registrar = Registrar()
    channel = site.asyncore.dispatcher(ours, registrar)
    assert registrar.entries == {ours.fileno(): channel}
    channel.close()
    assert registrar.entries == {}


def test_functions_are_borrowed_by_other_classes(site: Site) -> None:
    asyncore, asynchat = site.asyncore, site.fast.asynchat

    class Borrower:
        recv = asynchat.async_chat.recv
        send = asynchat.async_chat.send
        push = asynchat.async_chat.push
        initiate_send = asynchat.async_chat.initiate_send
        handle_read = asynchat.async_chat.handle_read
        handle_read_event = asyncore.dispatcher.handle_read_event
        handle_write_event = asyncore.dispatcher.handle_write_event
        get_terminator = asynchat.async_chat.get_terminator
        close = asyncore.dispatcher.close
        del_channel = asyncore.dispatcher.del_channel
        ac_in_buffer_size = ac_out_buffer_size = 4096
        accepting = False
        connected = True
        use_encoding = 0
        terminator = b"\n"
        _fileno = None

        def __init__(self, sock: Any) -> None:
            self.socket = sock
            self.ac_in_buffer = b""
            self._map: Any = {}
            self.producer_fifo: Any = []  # a list is enough
            self.lines: list[bytes] = []

        def handle_write(self) -> None:
            self.initiate_send()

        def collect_incoming_data(self, data: bytes) -> None:
            self.lines.append(data)

        def found_terminator(self) -> None:
            self.push(b"+")

    ours, peer = site.pair()
    borrower = Borrower(ours)
    peer.send(b"one\ntwo\n")
    borrower.handle_read_event()
    borrower.handle_write_event()
    assert borrower.lines == [b"one", b"two"]
    assert receive_exactly(peer, 2) == b"++"
    borrower.close()
    assert ours.fileno() == -1
    assert "_fastcore_home" not in vars(borrower)

    ours, peer = site.pair()
    loan = site.asyncore.dispatcher(ours, site.map)
    assert asynchat.async_chat.send(loan, b"hello") == 5
    assert receive_exactly(peer, 5) == b"hello"


def test_methods_are_called_with_a_mock(site: Site) -> None:
    with_send = site.asyncore.dispatcher_with_send
    spec = mock.create_autospec(with_send, instance=True)
    spec.debug, spec.out_buffer = False, b"a"
    with_send.send(spec, b"b")
    assert spec.out_buffer == b"ab"
    assert spec.mock_calls == [mock.call.initiate_send()]
    spec.socket = mock.Mock()
    spec.accepting = True
    site.asyncore.dispatcher.accept(spec)
    site.asyncore.dispatcher.handle_read_event(spec)
    assert spec.handle_accept.call_count == 1
    # What a mocked send() returns is an index, as it ever was.
    channel = with_send(None, site.map)
    channel.out_buffer = b"abc"
    channel.socket = mock.MagicMock()
    channel.initiate_send()
    assert channel.out_buffer == b"bc"


# -- plain attributes ------------------------------------------------------------------------------


@pytest.mark.parametrize("mixed_in", [False, True])
def test_out_buffer_is_set_in_a_class(site: Site, mixed_in: bool) -> None:
    class Buffers:
        out_buffer = b""

    def __init__(self: Any, sock: Any) -> None:
        site.asyncore.dispatcher.__init__(self, sock, site.map)

    def handle_read(self: Any) -> None:
        self.out_buffer += self.recv(100)

    attributes: dict[str, Any] = {"__init__": __init__, "handle_read": handle_read}
    base = site.asyncore.dispatcher_with_send
    if mixed_in:
        kind: Any = type("Echo", (Buffers, base), attributes)
    else:
        kind = type("Echo", (base,), {"out_buffer": b"", **attributes})
    ours, peer = site.pair()
    channel = kind(ours)
    peer.send(b"hello")
    site.turn(3)
    assert receive_exactly(peer, 5) == b"hello"
    assert vars(channel)["out_buffer"] == b""


def test_out_buffer_is_an_attribute(site: Site) -> None:
    ours, _ = site.pair()
    channel = site.asyncore.dispatcher_with_send(ours, site.map)
    assert vars(channel)["out_buffer"] == b""
    fill(ours)
    channel.send(b"x" * 1000)
    assert vars(channel)["out_buffer"] == channel.out_buffer == b"x" * 1000
    del channel.out_buffer
    with pytest.raises(AttributeError):
        channel.out_buffer  # noqa: B018


def test_much_in_out_buffer_is_read_set_copied_and_pickled(site: Site) -> None:
    ours, _ = site.pair()
    channel = site.asyncore.dispatcher_with_send(ours, site.map)
    fill(ours)
    for _ in range(3):
        channel.send(b"x" * 200_000)
    assert channel.out_buffer == b"x" * 600_000
    assert channel.writable()
    twin = copy.copy(SimpleNamespace(**vars(channel)))
    assert pickle.loads(pickle.dumps(twin._fastcore_backlog)) == b"x" * 600_000
    other = channel.__class__.__new__(channel.__class__)
    vars(other).update(vars(channel))
    other.out_buffer += b"y"
    assert other.out_buffer[-2:] == b"xy"
    assert channel.out_buffer[-2:] == b"xx"
    channel.out_buffer = channel.out_buffer[:10]
    channel.send(b"z")
    assert vars(channel)["out_buffer"] == b"x" * 10 + b"z"


def test_channels_are_copied_and_pickled(site: Site) -> None:
    def __getstate__(self: Any) -> Any:
        return {name: value for name, value in vars(self).items() if name not in ("socket", "_map")}

    kind = chat_class(site, __getstate__=__getstate__)
    globals()["Chat"], kind.__module__ = kind, __name__  # where pickle looks for it
    try:
        ours, peer = site.pair()
        chat = kind(ours)
        peer.send(b"one\ntwo\npart")
        site.turn(2)
        for twin in pickle.loads(pickle.dumps(chat)), copy.deepcopy(chat), copy.copy(chat):
            assert (twin.lines, twin.incoming) == ([b"one", b"two"], [b"part"])
            twin.ac_in_buffer = b"changed"
        assert chat.ac_in_buffer == b""
        assert vars(pickle.loads(pickle.dumps(kind(None))))["_fileno"] is None
    finally:
        del globals()["Chat"]


def test_the_loop_is_the_only_thing_added_to_a_channel(site: Site) -> None:
    ours, _ = site.pair()
    channel = chat_class(site)(ours)
    assert set(vars(channel)) == {
        "_map", "_fileno", "socket", "connected", "addr", "lines", "terminator",
        "ac_in_buffer", "incoming", "producer_fifo", "_fastcore_home",
    }  # fmt: skip
    assert site.asyncore.dispatcher.__bases__ == (object,)
    assert {"recv", "send"} <= set(vars(site.asyncore.dispatcher))


def test_another_dispatcher_beside_a_chat_has_its_close_and_send(site: Site) -> None:
    called: list[str] = []

    class Logged(site.asyncore.dispatcher):  # type: ignore[misc, name-defined]
        def send(self, data: bytes) -> Any:
            called.append("send")
            return super().send(data)

        def close(self) -> None:
            called.append("close")
            super().close()

    ours, peer = site.pair()
    chat = type("Both", (chat_class(site), Logged), {})(ours)
    peer.send(b"line\n")
    site.turn(2)
    chat.close()
    assert called == ["send", "close"]


class Size(enum.IntEnum):
    """Lengths as programs name them."""

    HEADER = 4


@pytest.mark.parametrize("terminator", [Size.HEADER, True])
def test_terminators_that_are_integers_of_a_kind(site: Site, terminator: Any) -> None:
    pieces: list[bytes] = []

    def found_terminator(self: Any) -> None:
        pieces.append(self._get_data())
        self.set_terminator(terminator)

    ours, peer = site.pair()
    chat = chat_class(site, found_terminator=found_terminator)(ours)
    chat.set_terminator(terminator)
    peer.send(b"abcdefgh")
    site.turn(2)
    assert pieces == [b"abcd", b"efgh"] if terminator == 4 else [b"a", b"b"]


def test_a_received_bytearray_is_passed_on_as_bytes(site: Site) -> None:
    ours, peer = site.pair()
    chat = chat_class(site, recv=lambda self, size: bytearray(ours.recv(size)))(ours)
    peer.send(b"line\n")
    site.turn(2)
    assert chat.lines == [b"line"]
    assert type(chat.ac_in_buffer) is bytes


# The names of Python 3.11's modules, imported ones included.
ASYNCORE = set(
    "EAGAIN EALREADY EBADF ECONNABORTED ECONNRESET EINPROGRESS EINVAL EISCONN ENOTCONN EPIPE"
    " ESHUTDOWN EWOULDBLOCK ExitNow close_all compact_traceback dispatcher dispatcher_with_send"
    " errorcode loop os poll poll2 poll3 read readwrite select socket socket_map sys time warnings"
    " write".split()
)
if os.name == "posix":
    ASYNCORE |= {"file_dispatcher", "file_wrapper"}
ASYNCHAT = {"async_chat", "asyncore", "deque", "find_prefix_at_end", "simple_producer"}


@pytest.mark.parametrize(("module", "expected"), [("asyncore", ASYNCORE), ("asynchat", ASYNCHAT)])
def test_a_star_brings_what_it_brought(site: Site, module: str, expected: set[str]) -> None:
    if sys.version_info < (3, 12):
        original = pytest.importorskip(module)
        if "fastcore" not in original.__name__:
            names_there = {name for name in vars(original) if name[0] != "_"}
            assert names_there - {"warn"} == expected  # 3.10 has it for its own deprecation
    names: dict[str, Any] = {}
    exec(f"from {getattr(site.fast, module).__name__} import *", names)
    assert names.keys() - {"__builtins__"} == expected


# -- sockets that block, and odd sends -------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dispatcher", "async_chat"])
@pytest.mark.parametrize("blocks", ["left", "made", "by descriptor"])
def test_send_takes_all_where_the_socket_blocks(site: Site, kind: str, blocks: str) -> None:
    if blocks == "by descriptor" and os.name == "nt":
        pytest.skip("Windows has no mode of a descriptor")
    size = 3_000_000
    ours, peer = site.tcp_pair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
    module = site.fast.asynchat if kind == "async_chat" else site.asyncore
    channel = getattr(module, kind)(None if blocks == "left" else ours, site.map)
    if blocks == "left":
        channel.set_socket(ours)
    if blocks == "by descriptor":
        os.set_blocking(ours.fileno(), True)
    else:
        channel.socket.setblocking(True)
    reader = threading.Thread(target=receive_exactly, args=(peer, size))
    reader.start()
    sent = channel.send(b"q" * size)
    reader.join(PATIENCE)
    assert sent == size


def test_a_push_to_a_socket_that_blocks_is_sent_before_it_returns(site: Site) -> None:
    size = 3_000_000
    ours, peer = site.tcp_pair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)
    chat = chat_class(site, ac_out_buffer_size=size)(ours)
    chat.socket.setblocking(True)
    reader = threading.Thread(target=receive_exactly, args=(peer, size))
    reader.start()
    chat.push(b"q" * size)
    assert not chat.producer_fifo
    reader.join(PATIENCE)
    assert not reader.is_alive()


def test_a_timeout_of_the_program_is_kept(site: Site) -> None:
    ours, _ = site.pair()
    channel = site.asyncore.dispatcher(ours, site.map)
    fill(ours)
    channel.socket.settimeout(0.05)
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        channel.send(b"x")
    with pytest.raises(TimeoutError):
        channel.recv(1)
    assert time.monotonic() - began >= 0.1


class Odd:
    """A socket whose send() answers by `script`: what it returns, raises, or (None) sends."""

    def __init__(self, sock: socket.socket, *script: Callable[[Any], Any]) -> None:
        self.sock = sock
        self.script = list(script)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.sock, name)

    def send(self, data: Any) -> Any:
        return self.script.pop(0)(data) if self.script else self.sock.send(data)


def nothing(data: Any) -> None:
    """What some wrappers return for "nothing now"."""


def interrupted(data: Any) -> Any:
    raise RuntimeError("from within send()")


@pytest.mark.parametrize("answer", [nothing, interrupted])
def test_nothing_pushed_is_lost_whatever_send_does(
    site: Site, answer: Callable[[Any], Any]
) -> None:
    ours, peer = site.pair()
    chat = chat_class(site)(Odd(ours, answer))
    with contextlib.suppress(RuntimeError):
        chat.push(b"hello")
    assert list(chat.producer_fifo) == [b"hello"]
    site.turn(2)
    assert receive_exactly(peer, 5) == b"hello"


def test_a_push_before_there_is_a_socket_is_kept(site: Site) -> None:
    chat = chat_class(site)(None)
    del chat.socket
    chat.connected = True
    with pytest.raises(AttributeError):
        chat.push(b"kept")
    assert list(chat.producer_fifo) == [b"kept"]
