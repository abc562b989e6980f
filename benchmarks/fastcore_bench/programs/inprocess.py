"""What the programs share that measure a loop from inside: the loops, the clocks, the output.

The line of JSON has the keys of the load generator's.  It must not know what is measured.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

LOOPS = ("fastcore", "asyncio", "uvloop", "rloop")


def new_loop(name: str) -> tuple[Any, Callable[[], None]]:
    """A loop and what runs it until its stop().

    For fastcore the environment's FASTCORE_ENGINE chooses the engine.
    """
    if name == "fastcore":
        import fastcore

        ours = fastcore.Loop()
        return ours, ours.run
    loop = importlib.import_module(name).new_event_loop()
    return loop, loop.run_forever


def resident_bytes() -> int | None:
    """The memory of this process, where the system tells it."""
    try:
        with open("/proc/self/status") as file:
            for line in file:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


@dataclass
class Clocks:
    """Time since it was made: of the wall, of this thread and of the process, in ns."""

    wall: int = field(default_factory=time.perf_counter_ns)
    thread: int = field(default_factory=time.thread_time_ns)
    process: int = field(default_factory=time.process_time_ns)

    def read(self) -> Clocks:
        """The three differences, at this moment."""
        now = Clocks()
        return Clocks(now.wall - self.wall, now.thread - self.thread, now.process - self.process)


def percentile(latencies: list[int], share: float) -> float | None:
    """The latency in us that `share` of the sorted list (in ns) stays below."""
    if not latencies:
        return None
    return round(latencies[min(int(share * len(latencies)), len(latencies) - 1)] / 1000, 1)


def report(
    count: int,
    used: Clocks,
    *,
    latencies: list[int] | None = None,
    errors: int = 0,
    memory: tuple[int | None, int | None] = (None, None),
) -> None:
    """Print the line of JSON: `count` requests took what `used` says; latencies in ns."""
    ordered = sorted(latencies or [])
    figures = {
        "requests": count,
        "seconds": round(used.wall / 1e9, 3),
        "requests_per_second": round(count / (used.wall / 1e9), 1),
        "cpu_us_per_request": round(used.thread / 1000 / count, 3),
        "process_cpu_us_per_request": round(used.process / 1000 / count, 3),
        "p50_us": percentile(ordered, 0.50),
        "p99_us": percentile(ordered, 0.99),
        "p999_us": percentile(ordered, 0.999),
        "errors": errors,
        "busy": 0,
        "idle": 0,
        "rss_before": memory[0],
        "rss_after": memory[1],
    }
    json.dump(figures, sys.stdout)
    print(flush=True)
