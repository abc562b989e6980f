"""Who drives an engine: nobody at all, several threads, nested loops."""

from __future__ import annotations

import gc
import signal
import socket
import threading
import time
import weakref
from typing import Any

import pytest


def quiet_channel(fast: Any) -> Any:
    class Quiet(fast.asyncore.dispatcher):  # type: ignore[misc, name-defined]
        data = b""

        def writable(self) -> bool:
            return False

        def handle_read(self) -> None:
            self.data += self.recv(100)

        def handle_close(self) -> None:
            self.close()

    return Quiet


def test_who_takes_turns_with_poll_keeps_no_closed_channel(fast: Any) -> None:
    map: dict[int, Any] = {}
    kind = quiet_channel(fast)
    stays, peer = socket.socketpair()
    listener = kind(stays, map)
    seen = []
    for _ in range(100):
        left, right = socket.socketpair()
        seen.append(weakref.ref(kind(left, map)))
        right.close()
        fast.asyncore.poll(0.1, map)
    gc.collect()
    alive = sum(one() is not None for one in seen)
    listener.close()
    peer.close()
    assert alive <= 3


def test_two_threads_may_drive_one_map(fast: Any) -> None:
    map: dict[int, Any] = {}
    kind = quiet_channel(fast)
    left, right = socket.socketpair()
    kind(left, map)
    arguments = {"map": map, "timeout": 30}
    threads = [threading.Thread(target=fast.asyncore.loop, kwargs=arguments) for _ in range(2)]
    for one in threads:
        one.start()
    time.sleep(0.1)
    late_left, late_right = socket.socketpair()
    late = kind(late_left, map)
    late_right.send(b"x")
    end = time.monotonic() + 5
    while not late.data and time.monotonic() < end:
        time.sleep(0.01)
    fast.loop.get_loop(map).stop()
    for one in threads:
        one.join(5)
    fast.asyncore.close_all(map)
    right.close()
    late_right.close()
    assert late.data == b"x"
    assert not any(one.is_alive() for one in threads)


def test_stop_is_not_lost_in_a_nested_loop(fast: Any) -> None:
    with fast.Loop() as loop:
        left, right = socket.socketpair()
        channel = quiet_channel(fast)(left, loop.map)

        def stop_and_flush() -> None:
            loop.stop()
            fast.asyncore.loop(timeout=0.01, count=1, map=loop.map)

        loop.call_soon(stop_and_flush)
        late = loop.call_later(5, loop.stop)
        loop.run()
        assert late.when() > loop.time()
        channel.close()
        right.close()


def test_run_lasts_while_a_signal_handler_is_there(fast: Any) -> None:
    number = getattr(signal, "SIGUSR1", None)
    if number is None:
        pytest.skip("there is no SIGUSR1 here")
    with fast.Loop() as loop:
        seen = []

        def arrived() -> None:
            seen.append(True)
            loop.remove_signal_handler(number)

        def begin() -> None:
            loop.add_signal_handler(number, arrived)
            threading.Timer(0.05, signal.raise_signal, [number]).start()

        loop.call_soon(begin)
        loop.run()
        assert seen


def test_a_loop_made_after_its_channels_is_theirs(fast: Any) -> None:
    map: dict[int, Any] = {}
    left, right = socket.socketpair()
    channel = quiet_channel(fast)(left, map)
    with fast.Loop(map=map) as loop:
        assert channel._fastcore_home.loop is loop
        channel.close()
    right.close()


def test_a_loop_is_initialised_once(fast: Any) -> None:
    with fast.Loop() as loop, pytest.raises(RuntimeError):
        loop.__init__()


def test_a_timer_cancelled_after_close_is_not_counted(fast: Any) -> None:
    loop = fast.Loop()
    handle = loop.call_later(10, print)
    loop.close()
    handle.cancel()
    assert loop.stats()["timers"] == 0
