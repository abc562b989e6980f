"""Where the exceptions of handlers and predicates go, as in Python 3.11."""

from __future__ import annotations

import builtins
import errno
import select
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support import Site


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


@pytest.mark.parametrize("handler", ["handle_read", "handle_write", "handle_expt_event"])
@pytest.mark.parametrize("use_poll", [False, True])
def test_handle_error_runs_while_the_exception_is_active(
    site: Site, handler: str, use_poll: bool
) -> None:
    problem = LookupError("here")
    seen = []

    def fail(self: Any) -> None:
        raise problem

    def handle_error(self: Any) -> None:
        seen.append(sys.exc_info()[1])
        seen.append(site.asyncore.compact_traceback()[0][1])
        self.close()

    ours, peer = site.tcp_pair()
    peer.send(b"!", socket.MSG_OOB)
    peer.send(b"x")
    select.select([ours], [], [ours], 10)
    attributes: dict[str, Any] = {handler: fail, "handle_error": handle_error}
    attributes["writable"] = lambda self: handler == "handle_write"
    attributes.setdefault("readable", lambda self: handler == "handle_read" or None)
    if handler == "handle_expt_event":
        attributes["readable"] = lambda self: True
    site.channel(ours, **attributes)
    site.turn(count=3, use_poll=use_poll)
    assert seen == [problem, "fail"]
    assert sys.exc_info()[1] is None


@pytest.mark.parametrize("handler", ["handle_read", "handle_write"])
def test_a_bare_raise_in_handle_error_leaves_the_loop(site: Site, handler: str) -> None:
    problem = LookupError("here")

    def fail(self: Any) -> None:
        raise problem

    def handle_error(self: Any) -> None:
        raise

    ours, peer = site.pair()
    peer.send(b"x")
    site.channel(
        ours,
        **{handler: fail, "handle_error": handle_error},
        writable=lambda self: handler == "handle_write",
    )
    with pytest.raises(LookupError) as caught:
        site.turn(count=3)
    assert caught.value is problem


@pytest.mark.parametrize("name", ["ExitNow", "KeyboardInterrupt", "SystemExit"])
@pytest.mark.parametrize("handler", ["handle_read", "handle_write"])
def test_these_exceptions_leave_the_loop(site: Site, name: str, handler: str) -> None:
    kind = getattr(site.asyncore if name == "ExitNow" else builtins, name)

    def fail(self: Any) -> None:
        raise kind()

    ours, peer = site.pair()
    peer.send(b"x")
    writes = handler == "handle_write"
    channel = site.channel(
        ours, **{handler: fail}, writable=lambda self: writes, readable=lambda self: not writes
    )
    with pytest.raises(kind):
        site.turn(count=3)
    assert channel.events == []
    assert site.map, "the channel stays in the map"


def test_any_other_exception_goes_to_handle_error(site: Site) -> None:
    class Odd(BaseException):
        pass

    def fail(self: Any) -> None:
        raise Odd

    ours, peer = site.pair()
    peer.send(b"x")
    channel = site.channel(ours, handle_read=fail)
    site.turn()
    assert isinstance(channel.events[0][1], Odd)


def test_the_exception_of_a_predicate_leaves_the_loop(site: Site) -> None:
    def fail(self: Any) -> None:
        raise LookupError

    ours, _ = site.pair()
    channel = site.channel(ours, readable=fail)
    for _ in range(2):
        with pytest.raises(LookupError):
            site.turn()
    assert channel.events == []
    assert site.map


@pytest.mark.parametrize("predicate", ["readable", "writable"])
@pytest.mark.parametrize("contained", [True, False])
def test_a_predicate_may_raise_just_before_the_handler(
    site: Site, predicate: str, contained: bool
) -> None:
    """It is asked once more there; what it raises goes where its exceptions go."""
    answers: list[bool] = []

    def answer(self: Any) -> bool:
        answers.append(True)
        if len(answers) > 1:
            raise LookupError("asked again")
        return True

    ours, peer = site.pair()
    if predicate == "readable":
        peer.send(b"x")
    channel = site.channel(ours, **{predicate: answer})
    if contained:
        site.loop.run_once(0)
        ((kind, error),) = channel.events
        assert (kind, type(error)) == ("error", LookupError)
    else:
        with pytest.raises(LookupError, match="asked again"):
            site.turn()
        assert channel.events == []
        site.map.clear()


@pytest.mark.parametrize("use_poll", [False, True])
def test_use_poll_decides_what_a_disconnect_error_is(site: Site, use_poll: bool) -> None:
    def fail(self: Any) -> None:
        raise ConnectionResetError(errno.ECONNRESET, "gone")

    ours, peer = site.pair()
    peer.send(b"x")
    channel = site.channel(ours, handle_read=fail)
    site.turn(use_poll=use_poll)
    assert channel.names == (["close"] if use_poll and hasattr(select, "poll") else ["error"])
