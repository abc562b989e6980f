"""What asyncore did in Python 3.11 and still does: names, texts, errors, the order of calls."""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from support import Site, close_now, elapsed

NAMES = """
    EAGAIN EALREADY EBADF ECONNABORTED ECONNRESET EINPROGRESS EINVAL EISCONN ENOTCONN EPIPE
    ESHUTDOWN EWOULDBLOCK ExitNow _DISCONNECTED _exception _reraised_exceptions _strerror close_all
    compact_traceback dispatcher dispatcher_with_send errorcode file_dispatcher file_wrapper loop
    os poll poll2 poll3 read readwrite select socket socket_map sys time warnings write
""".split()

CHANNEL_NAMES = """
    accept accepting add_channel addr bind close closing connect connected connecting create_socket
    debug del_channel handle_accept handle_accepted handle_close handle_connect
    handle_connect_event handle_error handle_expt handle_expt_event handle_read handle_read_event
    handle_write handle_write_event ignore_log_types listen log log_info readable recv send
    set_reuse_addr set_socket writable
""".split()

EVENTS = ["handle_read", "handle_write", "handle_expt", "handle_connect", "handle_close"]
TEXTS = {
    "handle_read": "unhandled read event",
    "handle_write": "unhandled write event",
    "handle_expt": "unhandled incoming priority event",
    "handle_connect": "unhandled connect event",
    "handle_close": "unhandled close event",
}


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


# -- names, texts, errors ----------------------------------------------------------------


def test_the_module_has_every_name(fast: Any) -> None:
    missing = {name for name in NAMES if not hasattr(fast.asyncore, name)}
    assert missing == (set() if os.name == "posix" else {"file_dispatcher", "file_wrapper"})
    assert fast.asyncore.poll3 is fast.asyncore.poll2
    assert fast.asyncore._reraised_exceptions == (
        fast.asyncore.ExitNow,
        KeyboardInterrupt,
        SystemExit,
    )


def test_the_dispatcher_has_every_name(fast: Any) -> None:
    assert [name for name in CHANNEL_NAMES if not hasattr(fast.asyncore.dispatcher, name)] == []


@pytest.mark.parametrize("handler", EVENTS)
def test_unhandled_events_are_logged_as_warnings(
    fast: Any, capsys: pytest.CaptureFixture[str], handler: str
) -> None:
    channel = fast.asyncore.dispatcher()
    getattr(channel, handler)()
    assert capsys.readouterr().out == ""
    channel.ignore_log_types = ()
    getattr(channel, handler)()
    assert capsys.readouterr() == (f"warning: {TEXTS[handler]}\n", "")


def test_an_unhandled_connection_is_closed_and_logged(
    fast: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    channel = fast.asyncore.dispatcher()
    channel.ignore_log_types = ()
    conn = mock.Mock()
    channel.handle_accepted(conn, None)
    conn.close.assert_called_once_with()
    assert capsys.readouterr().out == "warning: unhandled accepted event\n"


def test_log_goes_to_stderr_and_log_info_to_stdout(
    fast: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    channel = fast.asyncore.dispatcher()
    channel.log("one")
    channel.log_info("two")
    channel.log_info("three", "error")
    assert capsys.readouterr() == ("info: two\nerror: three\n", "log: one\n")


def test_an_unhandled_exception_is_logged_and_closes(
    site: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    class Channel(site.asyncore.dispatcher):  # type: ignore[misc, name-defined]
        def handle_read(self) -> None:
            raise ZeroDivisionError("by nought")

        def __repr__(self) -> str:
            return "<me>"

    ours, peer = site.pair()
    Channel(ours, site.map)
    peer.send(b"x")
    site.turn()
    assert not site.map
    assert re.fullmatch(
        r"error: uncaptured python exception, closing channel <me> "
        r"\(<class 'ZeroDivisionError'>:by nought (\[.+\|.+\|\d+\] )*\[.+\|handle_read\|\d+\]\)\n",
        capsys.readouterr().out,
    )


def test_a_broken_repr_does_not_hide_the_exception(
    fast: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    class Channel(fast.asyncore.dispatcher):  # type: ignore[misc, name-defined]
        def __repr__(self) -> str:
            raise LookupError

    channel = Channel()
    try:
        raise KeyError("k")
    except KeyError:
        channel.handle_error()
    assert f"<__repr__(self) failed for object at {id(channel):0x}>" in capsys.readouterr().out


def test_repr_tells_state_and_address(site: Site) -> None:
    channel = site.asyncore.dispatcher(None, site.map)
    name = f"{type(channel).__module__}.dispatcher"
    assert repr(channel) == f"<{name} at {id(channel):#x}>"
    channel.accepting = True
    channel.addr = ("127.0.0.1", 80)
    assert repr(channel) == f"<{name} listening 127.0.0.1:80 at {id(channel):#x}>"
    channel.accepting = False
    channel.connected = True
    channel.addr = "/path"
    assert repr(channel) == f"<{name} connected '/path' at {id(channel):#x}>"


def test_compact_traceback_needs_an_exception(fast: Any) -> None:
    with pytest.raises(AssertionError, match="traceback does not exist"):
        fast.asyncore.compact_traceback()


def test_compact_traceback_tells_where(fast: Any) -> None:
    try:
        raise ValueError("v")
    except ValueError as error:
        (file, function, line), kind, value, path = fast.asyncore.compact_traceback()
        assert value is error
    assert (file, function, kind) == (__file__, "test_compact_traceback_tells_where", ValueError)
    assert path == f"[{file}|{function}|{line}]"


def test_a_channel_forwards_no_attributes_to_its_socket(site: Site) -> None:
    ours, _ = site.pair()
    with pytest.raises(AttributeError):
        site.channel(ours).getsockname  # noqa: B018


def test_connect_raises_what_the_kernel_says(site: Site) -> None:
    channel = site.channel()
    channel.socket = mock.Mock()
    channel.socket.connect_ex.return_value = errno.EACCES
    with pytest.raises(OSError, match="EACCES") as caught:
        channel.connect(("127.0.0.1", 1))
    assert caught.value.errno == errno.EACCES
    channel.socket = None


def test_a_broken_socket_leaves_the_map_and_raises(site: Site) -> None:
    sock = mock.Mock()
    sock.fileno.return_value = 12345
    sock.getpeername.side_effect = OSError(errno.EPERM, "no")
    with pytest.raises(PermissionError):
        site.asyncore.dispatcher(sock, site.map)
    assert not site.map


def test_an_unconnected_socket_is_taken(site: Site) -> None:
    channel = site.channel(site.keep(socket.socket()))
    assert channel.connected is False
    assert site.map == {channel.socket.fileno(): channel}


# -- one channel -------------------------------------------------------------------------


def test_a_channel_wants_to_write_by_default(site: Site) -> None:
    seen = []

    class Channel(site.asyncore.dispatcher):  # type: ignore[misc, name-defined]
        def handle_write(self) -> None:
            seen.append("write")

    ours, _ = site.pair()
    channel = Channel(ours, site.map)
    assert channel.readable() is True
    assert channel.writable() is True
    site.turn(count=3)
    assert len(seen) >= 3


def test_the_predicates_are_asked_first_reading_then_writing(site: Site) -> None:
    asked = []
    ours, _ = site.pair()
    site.channel(
        ours,
        readable=lambda self: asked.append("readable"),
        writable=lambda self: asked.append("writable"),
    )
    site.turn(count=2)
    assert asked == ["readable", "writable"] * 2


def test_one_channel_reads_then_writes_then_hears_of_urgent_data(site: Site) -> None:
    ours, peer = site.tcp_pair()
    peer.send(b"!", socket.MSG_OOB)
    peer.send(b"data")
    select.select([ours], [], [ours], 10)
    channel = site.channel(ours, writable=lambda self: True)
    site.turn()
    assert channel.names[:3] == ["read", "write", "expt"]


def test_a_connection_is_announced_before_its_data(site: Site) -> None:
    server = site.server()
    channel = site.channel(writable=lambda self: True)
    channel.create_socket()
    channel.connect(server.getsockname())
    conn = site.keep(server.accept()[0])
    conn.send(b"hello")
    select.select([channel.socket], [], [], 10)
    site.run_until(lambda: channel.received == b"hello")
    assert channel.names[:2] == ["connect", "read"]
    assert channel.names.count("connect") == 1
    assert (channel.connected, channel.connecting) == (True, False)


def test_recv_raises_where_nothing_has_come(site: Site) -> None:
    ours, _ = site.pair()
    with pytest.raises(BlockingIOError):
        site.channel(ours).recv(10)


def test_recv_of_the_end_has_closed_already(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.channel(ours)
    peer.close()
    assert channel.recv(10) == b""
    assert channel.events == ["close"]


def test_send_returns_0_where_there_is_no_room(site: Site) -> None:
    ours, _ = site.pair()
    channel = site.channel(ours)
    while channel.send(b"x" * 100000):
        pass
    assert channel.send(bytearray(b"x")) == 0
    assert channel.events == []


def test_send_to_a_lost_peer_closes_and_returns_0(site: Site) -> None:
    ours, peer = site.pair()
    channel = site.channel(ours)
    close_now(peer)
    assert channel.send(b"x") == 0
    assert channel.events == ["close"]


# -- the loop ----------------------------------------------------------------------------


def test_an_empty_map_returns_at_once(fast: Any) -> None:
    assert elapsed(lambda: fast.asyncore.loop(timeout=30, map={})) < 5
    assert elapsed(lambda: fast.asyncore.loop(timeout=30)) < 5


def test_the_loop_ends_when_the_map_is_empty(site: Site) -> None:
    ours, peer = site.pair()
    site.channel(ours)
    peer.close()
    assert elapsed(lambda: site.asyncore.loop(timeout=30, map=site.map)) < 5


@pytest.mark.parametrize(("count", "turns"), [(3, 3), (2.0, 2), (1.5, 2), (0, 0), (-1, 0)])
def test_count_may_be_a_float(site: Site, count: float, turns: int) -> None:
    ours, _ = site.pair()
    asked = []
    site.channel(ours, readable=lambda self: asked.append(1))
    site.turn(count=count)
    assert len(asked) == turns


@pytest.mark.parametrize("answer", [1, "yes", [0], object(), 2.5, SimpleNamespace()])
def test_a_true_answer_may_be_any_object(site: Site, answer: Any) -> None:
    ours, peer = site.pair()
    peer.send(b"x")
    channel = site.channel(ours, readable=lambda self: answer, writable=lambda self: answer)
    site.turn()
    assert set(channel.names) == {"read", "write"}


@pytest.mark.parametrize("answer", [0, "", [], None, {}, 0.0])
def test_a_false_answer_may_be_any_object(site: Site, answer: Any) -> None:
    ours, peer = site.pair()
    peer.send(b"x")
    channel = site.channel(ours, readable=lambda self: answer, writable=lambda self: answer)
    site.turn(count=3)
    assert channel.names == []


def test_every_thread_may_drive_a_map_of_its_own(fast: Any) -> None:
    results: list[bytes] = []

    def serve() -> None:
        with Site(fast) as site:
            ours, peer = site.pair()
            channel = site.channel(ours)
            for _ in range(20):
                peer.send(b"x")
                site.turn(timeout=5.0)
            results.append(channel.received)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [b"x" * 20] * 4


def test_use_poll_is_ignored_where_the_system_has_none(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(site.asyncore.select, "poll", raising=False)
    ours, peer = site.pair()
    peer.send(b"x")
    channel = site.channel(ours)
    site.turn(use_poll=True)
    assert channel.received == b"x"


def test_the_constants_are_those_of_errno(fast: Any) -> None:
    closed = {errno.ENOTSOCK} if os.name == "nt" else set()  # beside EBADF
    assert fast.asyncore._DISCONNECTED == closed | {
        errno.ECONNRESET,
        errno.ENOTCONN,
        errno.ESHUTDOWN,
        errno.ECONNABORTED,
        errno.EPIPE,
        errno.EBADF,
    }
    assert fast.asyncore._strerror(errno.EPIPE) == os.strerror(errno.EPIPE)
    assert "refused" in fast.asyncore._strerror(errno.ECONNREFUSED)


@pytest.mark.parametrize("key", [1.5, "1", object()])
def test_a_key_that_is_no_number_is_a_type_error(fast: Any, key: Any) -> None:
    channels: dict[Any, Any] = {key: fast.asyncore.dispatcher(map={})}
    with pytest.raises(TypeError):
        fast.asyncore.loop(timeout=0, map=channels, count=1)
    channels.clear()
