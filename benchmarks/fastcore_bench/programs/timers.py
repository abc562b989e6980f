"""Timers of a loop: sets many, cancels all of them, and prints one line of JSON.

    python timers.py --loop fastcore --count 1000000

A request is one timer, set and cancelled; the memory is that before the first one and with all of
them set.  An error is a timer that fires after all.
"""

from __future__ import annotations

import argparse

from inprocess import LOOPS, Clocks, new_loop, report, resident_bytes


def delays(count: int) -> list[float]:
    """Delays from 600 to 690 s in no order: a heap that is filled in order has it too easy."""
    result, number = [], 1
    for _ in range(count):
        number = number * 48271 % 0x7FFFFFFF
        result.append(600 + number % 90_000 / 1000)
    return result


def measure(name: str, count: int) -> None:
    """Set all timers, cancel them in the same order, and let the loop clean up in one turn."""
    loop, run = new_loop(name)
    waits = delays(count)
    fired: list[int] = []
    before = resident_bytes()
    clocks = Clocks()
    handles = [loop.call_later(wait, fired.append, 1) for wait in waits]
    after = resident_bytes()
    for handle in handles:
        handle.cancel()
    loop.call_soon(loop.stop)
    run()
    used = clocks.read()
    loop.close()
    report(count, used, errors=len(fired), memory=(before, after))


def main() -> None:
    """Measure once."""
    parser = argparse.ArgumentParser(description="Set and cancel timers.")
    parser.add_argument("--loop", choices=LOOPS, default="fastcore")
    parser.add_argument("--count", type=int, default=1_000_000)
    options = parser.parse_args()
    measure(options.loop, options.count)


if __name__ == "__main__":
    main()
