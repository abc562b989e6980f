"""Wake-ups of a loop by another thread: one line of JSON.

    python wakeups.py --loop fastcore --count 100000

A thread calls call_soon_threadsafe(), and again once the callback has run: the loop waits each
time.  A request is one such wake-up, its latency the time from the call to the callback; the CPU
time is that of the loop's thread, and of the process with both threads.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import threading
import time
from typing import Any

from inprocess import LOOPS, Clocks, new_loop, report

PATIENCE = 10.0  # seconds until a wake-up counts as lost


def measure(name: str, count: int) -> None:
    """Let the thread wake the loop `count` times."""
    loop, run = new_loop(name)
    latencies: list[int] = []
    turns: queue.SimpleQueue[None] = queue.SimpleQueue()

    def arrived(start: int) -> None:
        latencies.append(time.perf_counter_ns() - start)
        turns.put(None)
        if len(latencies) == count:
            loop.stop()

    loop.call_later(3600, loop.stop)  # a loop that has nothing to wait for may end
    thread = threading.Thread(target=wake, args=(loop, arrived, turns, count))
    clocks = Clocks()
    thread.start()
    run()
    used = clocks.read()
    thread.join()
    loop.close()
    report(count, used, latencies=latencies)


def wake(loop: Any, arrived: Any, turns: queue.SimpleQueue[None], count: int) -> None:
    """The other thread."""
    for _ in range(count):
        loop.call_soon_threadsafe(arrived, time.perf_counter_ns())
        try:
            turns.get(timeout=PATIENCE)
        except queue.Empty:
            print("a wake-up was lost: the loop did not run its callback", file=sys.stderr)
            os._exit(1)


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description="Wake a loop from another thread.")
    parser.add_argument("--loop", choices=LOOPS, default="fastcore")
    parser.add_argument("--count", type=int, default=100_000)
    options = parser.parse_args()
    measure(options.loop, options.count)


if __name__ == "__main__":
    main()
