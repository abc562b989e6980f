"""A running asyncio loop serves a map; coroutines wait for channels, and handlers begin tasks."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from typing import Any

import pytest
from aio_stage import (
    WITH_DESCRIPTOR,
    Stage,
    rest,
    stage as stage,  # the fixture
    until,
)
from support import PATIENCE, needs_fork, receive_exactly

# -- what is served ------------------------------------------------------------------------------


def test_timers_callbacks_and_events_are_served(stage: Stage) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)
    seen: list[str] = []

    async def main() -> None:
        with stage.attach() as attachment:
            stage.loop.call_later(0.02, seen.append, "timer")
            stage.loop.call_soon(seen.append, "soon")
            peer.send(b"x")
            await until(lambda: channel.received == b"x" and len(seen) == 2)
            channel.close()
            await attachment.wait()

    stage.run(main())
    assert seen == ["soon", "timer"]


def test_a_large_push_from_a_coroutine_arrives(stage: Stage) -> None:
    size = 10 << 20
    ours, peer = stage.tcp_pair()
    chat = stage.fast.asynchat.async_chat(ours, stage.map)
    received: list[bytes] = []
    reading = threading.Thread(target=lambda: received.append(receive_exactly(peer, size)))
    reading.start()

    async def main() -> None:
        with stage.attach() as attachment:
            await rest(attachment)
            chat.push(b"x" * size)
            chat.close_when_done()
            await attachment.wait()

    stage.run(main())
    reading.join(PATIENCE)
    assert len(received[0]) == size


def test_another_threads_callbacks_are_served(stage: Stage) -> None:
    seen: list[int] = []

    async def main() -> None:
        with stage.attach() as attachment:
            for call in (stage.loop.call_soon_threadsafe, stage.loop.call_soon):
                await rest(attachment)
                thread = threading.Thread(
                    target=call, args=(lambda: seen.append(threading.get_ident()),)
                )
                thread.start()
                await until(lambda: seen)
                thread.join()
                assert seen.pop() == threading.get_ident()

    stage.run(main())


def test_what_a_coroutine_asks_for_at_rest_is_served(stage: Stage) -> None:
    seen: list[str] = []

    async def main() -> None:
        with stage.attach() as attachment:
            for ask in (
                lambda: stage.loop.call_soon(seen.append, "x"),
                lambda: stage.loop.call_later(0.01, seen.append, "x"),
                lambda: stage.loop.call_at(stage.loop.time(), seen.append, "x"),
            ):
                await rest(attachment)
                ask()
                await until(lambda: seen)
                seen.clear()
            await rest(attachment)
            ours, peer = stage.pair()
            channel = stage.channel(ours)
            peer.send(b"new")
            await until(lambda: channel.received == b"new")

    stage.run(main())


def test_a_timer_that_is_set_before_the_first_one_comes_in_time(stage: Stage) -> None:
    seen: list[str] = []

    async def main() -> None:
        with stage.attach() as attachment:
            late = stage.loop.call_later(1000, seen.append, "late")
            await until(lambda: attachment._timer is not None)
            stage.loop.call_later(0.01, seen.append, "early")
            await until(lambda: seen)
            late.cancel()
            beat = stage.loop.call_every(0.005, seen.append, "beat")
            await until(lambda: len(seen) > 3)
            beat.cancel()

    stage.run(main())
    assert seen[0] == "early"
    assert "late" not in seen


def test_two_maps_are_served_by_one_host(stage: Stage) -> None:
    async def main() -> None:
        others: dict[int, Any] = {}
        with stage.attach(), stage.aio.attach(others) as second:
            ours, peer = stage.pair()
            left, right = stage.pair()
            channel, other = stage.channel(ours), stage.recorder()(left, others)
            peer.send(b"1")
            right.send(b"2")
            await until(lambda: channel.received == b"1" and other.received == b"2")
            other.close()
            await second.wait()

    stage.run(main())


@pytest.mark.parametrize("channels", [0, 3, 40])
def test_at_rest_no_turn_is_taken(stage: Stage, channels: int) -> None:
    pairs = [stage.pair() for _ in range(channels)]
    made = [stage.channel(ours) for ours, _ in pairs]

    async def main() -> None:
        with stage.attach() as attachment:
            for _ in range(20):
                for _, peer in pairs:
                    peer.send(b"x")
                await asyncio.sleep(0.001)
            await until(lambda: all(len(channel.received) == 20 for channel in made))
            far = stage.loop.call_later(1000, print)
            far.cancel()
            await asyncio.sleep(0.4)
            before = stage.loop.stats()["turns"]
            await asyncio.sleep(0.5)
            assert stage.loop.stats()["turns"] == before
            assert attachment.attached

    stage.run(main())


def test_a_busy_map_costs_no_host_timer_for_each_event(stage: Stage) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)

    async def main() -> None:
        host = asyncio.get_running_loop()
        with stage.attach() as attachment:
            stage.loop.call_later(1000, print)
            armed = 0
            arm = attachment._arm

            def counted(due: float, looks: bool) -> None:
                nonlocal armed
                armed += 1
                arm(due, looks)

            attachment._arm = counted
            start = time.monotonic()
            for count in range(1, 201):
                peer.send(b"x")
                await until(lambda count=count: len(channel.received) == count)
            assert armed <= 3 + 3 * (time.monotonic() - start) / 0.1
            assert host.is_running()

    stage.run(main())


# -- who may attach ------------------------------------------------------------------------------


def test_a_poller_without_a_descriptor_is_refused(fast: Any) -> None:
    if fast.poller in WITH_DESCRIPTOR:
        pytest.skip(f"{fast.poller} has a descriptor")

    async def main() -> None:
        with fast.Loop() as loop:
            with pytest.raises(ValueError, match=f"{fast.poller}.*descriptor.*FASTCORE_POLLER"):
                fast.aio.attach(loop.map)
            loop.call_soon(loop.stop)
            loop.run()  # as if nothing had been asked

    asyncio.run(main())


def test_within_a_handler_of_another_drive_attach_is_an_error(stage: Stage) -> None:
    errors: list[BaseException] = []

    async def main() -> None:
        try:
            stage.attach()
        except RuntimeError as error:
            errors.append(error)

    stage.loop.call_soon(stage.run, main())
    stage.loop.run()
    assert "handler" in str(errors[0])


def test_a_handler_may_attach_again(stage: Stage) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)
    attachments: list[Any] = []

    def handle_read() -> None:
        channel.recv(1)
        attachments[-1].close()
        attachments.append(stage.attach())

    channel.handle_read = handle_read

    async def main() -> None:
        attachments.append(stage.attach())
        for count in range(1, 4):
            await until(lambda: attachments[-1]._timer is not None)
            peer.send(b"x")
            await until(lambda count=count: len(attachments) > count)
        stage.loop.call_later(0.01, channel.close)
        await attachments[-1].wait()
        attachments[-1].close()

    stage.run(main())


def test_without_a_running_loop_attach_is_an_error(fast: Any) -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        fast.aio.attach({})


def test_without_a_map_it_is_that_of_asyncore(stage: Stage) -> None:
    async def main() -> None:
        with stage.aio.attach() as attachment:
            ours, peer = stage.pair()
            channel = stage.recorder()(ours)
            peer.send(b"x")
            await until(lambda: channel.received)
            channel.close()
            await attachment.wait()

    stage.run(main())


def test_a_map_is_attached_once_and_may_be_again(stage: Stage) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)

    async def main() -> None:
        first = stage.attach()
        with pytest.raises(RuntimeError, match="attached already"):
            stage.attach()
        with pytest.raises(ValueError, match="has a loop already"):
            stage.fast.Loop(map=stage.map)
        first.close()
        first.close()
        assert not first.attached
        peer.send(b"x")
        await asyncio.sleep(0.02)
        assert not channel.received
        with stage.attach() as second:
            await until(lambda: channel.received == b"x")
            channel.close()
            await second.wait()
        await second.wait()
        assert "closed" in repr(second)

    stage.run(main())


def test_after_an_attachment_the_map_is_served_as_ever(stage: Stage) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)
    seen: list[str] = []

    async def main() -> None:
        with stage.attach():
            stage.loop.call_later(0.05, seen.append, "later")
            await asyncio.sleep(0)

    stage.run(main())
    peer.send(b"x")
    stage.run_until(lambda: channel.received and seen)


def test_an_attachment_whose_host_is_closed_is_replaced(stage: Stage) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)
    kept: list[Any] = []

    async def forgets() -> None:
        kept.append(stage.attach())
        await asyncio.sleep(0)

    async def main() -> None:
        with stage.attach():
            peer.send(b"x")
            await until(lambda: channel.received == b"x")

    stage.run(forgets())
    stage.loop.call_later(1000, print).cancel()  # nobody is there to be told
    stage.run(forgets())
    stage.run(main())
    assert not kept[0].attached and not kept[1].attached


def test_a_forgotten_attachment_is_garbage_when_its_host_is_closed(stage: Stage) -> None:
    import weakref

    kept: list[Any] = []

    async def main() -> None:
        others: dict[int, Any] = {}
        ours, _peer = stage.pair()
        channel = stage.recorder()(ours, others)
        kept.append(weakref.ref(stage.aio.attach(others)))
        await asyncio.sleep(0.01)
        channel.close()

    stage.run(main())
    gc.collect()
    assert kept[0]() is None


def test_closing_the_loop_closes_the_attachment(stage: Stage) -> None:
    async def main() -> None:
        attachment = stage.attach()
        loop = stage.loop
        errors: list[BaseException] = []

        def close() -> None:
            try:
                loop.close()
            except RuntimeError as error:
                errors.append(error)

        loop.call_soon(close)  # in a turn, it is running
        await until(lambda: errors)
        assert attachment.attached
        loop.close()
        assert not attachment.attached
        await attachment.wait()

    stage.run(main())


def test_close_from_another_thread_and_from_a_handler(stage: Stage) -> None:
    async def main() -> None:
        ours, peer = stage.pair()
        channel = stage.channel(ours)
        attachment = stage.attach()
        waiting = asyncio.ensure_future(attachment.wait())
        await asyncio.sleep(0)
        thread = threading.Thread(target=attachment.close)
        thread.start()
        await waiting
        thread.join()
        attachment = stage.attach()
        channel.handle_read = attachment.close
        peer.send(b"x")
        await attachment.wait()
        assert not attachment.attached

    stage.run(main())


# -- what passes through -------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["callback", "handler"])
def test_exit_now_detaches_and_is_raised_in_the_host(stage: Stage, where: str) -> None:
    leave = stage.asyncore.ExitNow("enough")
    ours, peer = stage.pair()
    channel = stage.channel(ours)

    def leaves() -> None:
        raise leave

    async def main() -> None:
        attachment = stage.attach()
        if where == "callback":
            stage.loop.call_later(0.01, leaves)
        else:
            channel.handle_read = leaves
            peer.send(b"x")
        with pytest.raises(stage.asyncore.ExitNow):
            await attachment.wait()
        assert not attachment.attached
        channel.handle_read = lambda: channel.recv(10)
        again = stage.attach()
        stage.loop.call_later(0.01, channel.close)
        await again.wait()
        again.close()

    stage.run(main())
    assert stage.failures == [leave]
    stage.failures.clear()


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_detaches_and_leaves_the_host(stage: Stage, kind: Any) -> None:
    def leaves() -> None:
        raise kind

    host = stage.new_host()
    attachments: list[Any] = []
    seen: list[str] = []

    def begin() -> None:
        attachments.append(stage.attach())
        stage.loop.call_later(0.01, leaves)
        stage.loop.call_later(0.02, seen.append, "kept")

    host.call_soon(begin)
    host.call_later(PATIENCE, host.stop)
    with pytest.raises(kind):
        host.run_forever()
    host.close()
    assert not attachments[0].attached
    stage.loop.run()
    assert seen == ["kept"]
    stage.failures = []


def test_what_handlers_raise_goes_where_run_sends_it(stage: Stage) -> None:
    contexts: list[dict[str, Any]] = []
    ours, peer = stage.pair()
    channel = stage.channel(ours)
    channel.handle_read = lambda: 1 / 0

    async def main() -> None:
        with stage.attach() as attachment:
            stage.loop.exception_handler = contexts.append
            stage.loop.call_soon(lambda: 1 / 0)
            peer.send(b"x")
            await attachment.wait()

    stage.run(main())
    assert channel.names == ["error"]
    assert isinstance(contexts[0]["exception"], ZeroDivisionError)


# -- what changes behind its back ----------------------------------------------------------------


@pytest.mark.parametrize("others", [0, 40])
def test_an_answer_that_changed_by_hand_is_seen_after_a_call(stage: Stage, others: int) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)
    channel.out = b""
    channel.writable = lambda: bool(channel.out)

    def handle_write() -> None:
        channel.out = channel.out[channel.send(channel.out) :]

    channel.handle_write = handle_write
    for _ in range(others):
        stage.channel(stage.pair()[0])

    async def main() -> None:
        host = asyncio.get_running_loop()
        with stage.attach() as attachment:
            for _ in range(12):  # until the policy trusts everybody
                await rest(attachment)
                channel.out = b"answer"
                attachment()
                await until(lambda: not channel.out)
                assert receive_exactly(peer, 6) == b"answer"
            await rest(attachment)
            channel.out = b"answer"
            await host.run_in_executor(None, attachment)
            await until(lambda: not channel.out)
            await host.shutdown_default_executor()

    stage.run(main())


@pytest.mark.parametrize("others", [0, 40])
def test_an_answer_that_a_handler_changed_is_seen(stage: Stage, others: int) -> None:
    """The other half of a relay: nobody's method has changed it."""
    ours, peer = stage.pair()
    left, right = stage.pair()
    reading, writing = stage.channel(ours), stage.channel(left)
    writing.out = b""
    writing.writable = lambda: bool(writing.out)

    def handle_read() -> None:
        writing.out += reading.recv(100)

    def handle_write() -> None:
        writing.out = writing.out[writing.send(writing.out) :]

    reading.handle_read, writing.handle_write = handle_read, handle_write
    for _ in range(others):
        stage.channel(stage.pair()[0])

    async def main() -> None:
        host = asyncio.get_running_loop()
        right.setblocking(False)
        with stage.attach():
            start = time.monotonic()
            for _ in range(40):
                peer.send(b"x")
                assert await host.sock_recv(right, 10) == b"x"
            assert time.monotonic() - start < 2  # no quiet look for each of them

    stage.run(main())


def test_a_channel_put_into_the_map_by_hand(stage: Stage) -> None:
    async def main() -> None:
        ours, peer = stage.pair()
        channel = stage.channel(ours)
        number = channel._fileno
        with stage.attach() as attachment:
            await rest(attachment)
            del stage.map[number]
            attachment()
            peer.send(b"x")
            await asyncio.sleep(0.02)
            assert not channel.received
            stage.map[number] = channel
            attachment()
            await until(lambda: channel.received == b"x")
            del stage.map[number]
            attachment()
            await attachment.wait()
            stage.map[number] = channel

    stage.run(main())


def test_a_socket_that_a_handler_closes_behind_its_back(stage: Stage) -> None:
    ours, _peer = stage.pair()
    channel = stage.channel(ours)
    other, other_peer = stage.pair()
    closing = stage.channel(other)
    closing.handle_read = lambda: (closing.recv(10), ours.close())

    async def main() -> None:
        with stage.attach() as attachment:
            await rest(attachment)
            other_peer.send(b"x")
            await stage.aio.closed(channel)
            closing.close()
            await attachment.wait()

    stage.run(main())
    assert channel.names == ["close"]


def test_a_socket_that_a_coroutine_closes_behind_its_back(stage: Stage) -> None:
    channels = [stage.channel(stage.pair()[0]) for _ in range(3)]
    stage.turn(1, 1.6)  # idle for so long that the loop by itself looks no more

    async def main() -> None:
        with stage.attach() as attachment:
            await rest(attachment)
            for channel in channels:
                channel.socket.close()
                attachment()
                await stage.aio.closed(channel)
            await attachment.wait()

    stage.run(main())
    assert [channel.names for channel in channels] == [["close"]] * 3


def test_what_a_coroutine_asks_of_a_channel_at_rest(stage: Stage) -> None:
    ours, peer = stage.pair()
    chat = stage.fast.asynchat.async_chat(ours, stage.map)
    left, right = stage.pair()
    sender = stage.asyncore.dispatcher_with_send(left, stage.map)
    peer.settimeout(0)
    right.settimeout(0)

    async def main() -> None:
        host = asyncio.get_running_loop()
        with stage.attach() as attachment:
            await rest(attachment)
            sender.send(b"x" * (1 << 21))
            received = 0
            while received < 1 << 21:
                received += len(await host.sock_recv(right, 1 << 20))
            await rest(attachment)
            chat.push_with_producer(stage.fast.asynchat.simple_producer(b"y" * (1 << 20), 65536))
            await rest(attachment)
            chat.close_when_done()
            received = 0
            while data := await host.sock_recv(peer, 1 << 20):
                received += len(data)
            assert received == 1 << 20
            await stage.aio.closed(chat)
            sender.close()
            await attachment.wait()

    stage.run(main())


def test_a_kernel_set_that_is_made_anew_is_waited_for(stage: Stage) -> None:
    """Its number is usually the old one."""
    ours, peer = stage.pair()
    channel = stage.channel(ours)
    other, other_peer = stage.pair()
    stays = stage.channel(other)

    async def main() -> None:
        with stage.attach() as attachment:
            await rest(attachment)
            sets = attachment._sets
            twin = stage.keep(ours.dup())
            peer.send(b"x")
            stage.map.pop(channel._fileno)
            os.close(ours.detach())  # its twin goes on firing
            await until(lambda: attachment._sets > sets)
            for count in range(1, 4):
                await rest(attachment)
                other_peer.send(b"x")
                await until(lambda count=count: len(stays.received) == count)
            stage.loop.call_later(0.01, stays.close)
            await stage.aio.closed(stays)
            assert twin.recv(1) == b"x"

    stage.run(main())


# -- other drivers -------------------------------------------------------------------------------


def test_a_loop_nested_in_a_coroutine_keeps_the_timers(stage: Stage) -> None:
    seen: list[str] = []
    ours, _peer = stage.pair()
    stage.channel(ours)

    async def main() -> None:
        with stage.attach() as attachment:
            await rest(attachment)
            stage.loop.call_soon(stage.loop.call_later, 0.03, seen.append, "set within")
            stage.loop.call_later(0.05, seen.append, "before")
            stage.turn(3, 0.001)
            await until(lambda: len(seen) == 2)

    stage.run(main())
    assert seen == ["set within", "before"]


def test_a_loop_nested_in_a_handler_keeps_the_timers(stage: Stage) -> None:
    seen: list[str] = []
    ours, peer = stage.pair()
    channel = stage.channel(ours)

    def handle_read() -> None:
        channel.recv(10)
        stage.loop.call_later(0.01, seen.append, "within")
        stage.turn(2, 0.001)

    channel.handle_read = handle_read

    async def main() -> None:
        with stage.attach() as attachment:
            await rest(attachment)
            stage.loop.call_later(0.05, seen.append, "before")
            peer.send(b"x")
            await until(lambda: len(seen) == 2)

    stage.run(main())
    assert seen == ["within", "before"]


def test_another_thread_may_drive_the_map_meanwhile(stage: Stage) -> None:
    seen: list[str] = []
    ours, peer = stage.pair()
    channel = stage.channel(ours)

    async def main() -> None:
        with stage.attach() as attachment:
            await rest(attachment)
            thread = threading.Thread(target=stage.turn, args=(1e9, 30))
            thread.start()
            await until(lambda: stage.loop.running)
            peer.send(b"x")
            await until(lambda: channel.received)
            before = stage.loop.stats()["turns"]
            await asyncio.sleep(0.3)
            assert stage.loop.stats()["turns"] - before < 20
            stage.loop.call_later(0.2, seen.append, "timer")
            stage.loop.stop()
            thread.join(PATIENCE)
            await until(lambda: seen)
            peer.send(b"y")
            await until(lambda: channel.received == b"xy")

    stage.run(main())


def test_threads_that_ask_for_much_are_all_served(stage: Stage) -> None:
    seen: list[int] = []

    def ask() -> None:
        for number in range(200):
            (stage.loop.call_soon if number % 2 else stage.loop.call_soon_threadsafe)(
                seen.append, 1
            )
            stage.loop.call_later(0, seen.append, 1)

    async def main() -> None:
        with stage.attach():
            threads = [threading.Thread(target=ask) for _ in range(3)]
            for one in threads:
                one.start()
            await until(lambda: len(seen) == 1200)
            for one in threads:
                one.join()

    stage.run(main())


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no SIGUSR1 here")
def test_signals_reach_both_loops(stage: Stage) -> None:
    seen: list[str] = []

    async def main() -> None:
        host = asyncio.get_running_loop()
        with stage.attach() as attachment:
            stage.loop.add_signal_handler(signal.SIGUSR1, seen.append, "ours")
            host.add_signal_handler(signal.SIGUSR2, seen.append, "the host's")
            for number in (signal.SIGUSR1, signal.SIGUSR2):
                await rest(attachment)
                seen.clear()
                threading.Timer(0.02, os.kill, [os.getpid(), number]).start()
                await until(lambda: seen)
            host.remove_signal_handler(signal.SIGUSR2)
            stage.loop.remove_signal_handler(signal.SIGUSR1)

    stage.run(main())
    assert seen == ["the host's"]


@needs_fork
def test_a_child_of_fork_may_serve_the_map_by_itself(stage: Stage) -> None:
    """And its parent goes on as if nothing had happened."""
    ours, peer = stage.pair()
    channel = stage.channel(ours)

    async def main() -> None:
        with stage.attach() as attachment:
            await rest(attachment)
            child = os.fork()
            if not child:
                try:
                    signal.alarm(20)
                    stage.loop.call_later(0.01, channel.close)
                    stage.asyncore.loop(map=stage.map)
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            stage.loop.call_later(0.01, peer.send, b"x")
            await until(lambda: channel.received)
            channel.close()
            await attachment.wait()

    stage.run(main())


@needs_fork
def test_a_child_of_fork_may_attach_it_to_a_host_of_its_own(stage: Stage) -> None:
    ours, peer = stage.pair()
    channel = stage.channel(ours)

    async def in_child() -> None:
        with stage.attach() as attachment:
            stage.loop.call_later(0.01, peer.send, b"child")
            await until(lambda: channel.received == b"child")
            stage.loop.call_later(0.01, channel.close)
            await attachment.wait()

    async def main() -> None:
        with stage.attach():
            child = os.fork()
            if not child:
                try:
                    signal.alarm(20)
                    asyncio._set_running_loop(None)
                    stage.run(in_child())
                    os._exit(0)
                finally:
                    os._exit(1)
            assert os.waitpid(child, 0)[1] == 0
            stage.loop.call_later(0.01, peer.send, b"x")
            await until(lambda: channel.received == b"x")

    stage.run(main())


@needs_fork
def test_a_child_of_fork_may_go_on_with_the_host(stage: Stage) -> None:
    """As a program does that becomes a daemon: its parent takes no more turns."""
    ours, peer = stage.pair()
    channel = stage.channel(ours)

    async def main() -> None:
        host = asyncio.get_running_loop()
        with stage.attach() as attachment:
            await rest(attachment)
            child = os.fork()
            if child:
                assert os.waitpid(child, 0)[1] == 0
                channel.close()
                return
            try:
                signal.alarm(20)
                asyncio._set_running_loop(host)  # newer Pythons forget it in a child
                for count in range(1, 4):
                    await asyncio.sleep(0.15)
                    peer.send(b"x")
                    await until(lambda count=count: len(channel.received) == count)
                stage.loop.call_later(0.01, channel.close)
                await attachment.wait()
                os._exit(0)
            finally:
                os._exit(1)

    stage.run(main())
