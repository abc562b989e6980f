"""The table of workloads: what the load does, to which servers, how often and how long.

A plan is a workload with the keys of the servers it is for.  It must not know how a server is
started or measured.  The plans are in the order of measuring: where time runs out, it is the
last ones that are left out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from .result import CPU, MEMORY, P50, RATE, Workload
from .tools import workloads as tool_workloads

SPARE_DESCRIPTORS = 64  # what a server or the load needs beside its connections
GIB, MIB, KIB = 1 << 30, 1 << 20, 1 << 10
# Programs that measure themselves, instead of serving a load.
IN_PROCESS = ("timers", "wakeups")

SIZES = (64, KIB, 10 * KIB, 100 * KIB)
COUNTS = (1, 10, 100, 1000, 10000)
IDLE = (1000, 9000, 19000)  # none idle is one of the echoes above
FEW_IDLE = 30  # more than a loop may ask on every turn, fewer than pay for asking seldom
ANSWERED_IDLE = (0, 200, 2000)
ROUNDS = 5
SECONDS = 0.2
WARMUP = 0.1

# Which servers take part, as patterns of their keys.  Those that do not speak
# the protocol are left out of any.
EVERY = ("*",)
MAIN = (
    "limit",
    "floor-direct",
    "fastcore-c-direct",
    "fastcore-c-tutorial",
    "fastcore-python-direct",
    "pyasyncore-direct",
    "uvloop-protocol",
    "rloop-protocol",
)
FEW = (
    *MAIN,
    "floor-tutorial",
    "fastcore-*-tutorial",
    "pyasyncore-tutorial",
    "asyncio-protocol",
    "gevent",
)
BESIDE_IDLE = (
    "limit",
    "floor-*",
    "fastcore-*-direct",
    "fastcore-*-tutorial",
    "pyasyncore-tutorial",
    "asyncio-protocol",
    "uvloop-protocol",
    "rloop-protocol",
)
BESIDE_MOST = (
    "limit",
    "floor-*",
    "fastcore-*-direct",
    "fastcore-*-tutorial",
    "uvloop-protocol",
    "rloop-protocol",
)
OPENING = (
    "limit",
    "fastcore-*-direct",
    "pyasyncore-direct",
    "*-protocol",
    "gevent",
    "socketserver-*",
)
BROADCAST = ("limit", "*-tutorial", "*-protocol", "gevent")
TRANSFER = ("limit", "*-chat", "*-protocol", "gevent")
MEMORY_OF = (*(p for p in BESIDE_IDLE if p != "floor-*"), "gevent")  # the floor counts CPU time
LOOPS = ("fastcore-*-direct", "*-protocol")
# Programs whose channels are made to want something by others than themselves.
ANSWERING = ("fastcore-*-tutorial", "fastcore-*-tutorial-strict", "pyasyncore-tutorial")
RELAYING = ("limit", *ANSWERING, "*-protocol")
COMPUTING = (
    "limit",
    "fastcore-*-direct",
    "fastcore-c-tutorial",
    "fastcore-*-chat",
    "asyncio-protocol",
    "uvloop-protocol",
)
QUICK = (
    "limit",
    "fastcore-*-direct",
    "fastcore-c-tutorial",
    "pyasyncore-direct",
    "*-chat",
    "uvloop-protocol",
)
PENDING_TIMERS = 100_000

# Key and label of a workload, by its group and, where a group has several, its protocol.
NAMES = {
    "echo": ("echo-{short}-{busy}", "echo {long}, {busy:,} busy"),
    "idle": ("idle-{busy}+{idle}", "echo {long}, {busy:,} busy + {idle:,} idle"),
    "few": ("few-{busy}", "echo {long}, {shape}"),
    "answered": ("answered-{busy}+{idle}", "echo {long} by threads, {shape}"),
    "relay": ("relay-{busy}+{idle}", "relay of {long}, {shape}"),
    "mixed": ("mixed-{busy}+{idle}", "echo {long}, {busy:,} busy + {idle:,} idle"),
    "line": ("line-{in_flight}", "lines, {in_flight} in flight, {busy:,} busy"),
    "churn": ("churn-{busy}", "connect, echo {long}, close; {busy:,} at a time"),
    "accept": ("accept-{requests}", "accept {requests:,} at once"),
    "broadcast": ("broadcast-{busy}", "broadcast of {long} to {busy:,}"),
    "download": ("download-{short}", "download of {long}"),
    "upload": ("upload-{short}", "upload of {long}"),
    "memory": ("memory-{idle}", "memory of {idle:,} idle"),
    "timers": ("timers-{requests}", "{requests:,} timers, set and cancelled"),
    "pending": ("timers-pending-{pending_timers}", "echo {long}, {pending_timers:,} timers wait"),
    "wakeups": ("wakeups-{requests}", "{requests:,} wake-ups from another thread"),
}


@dataclass(frozen=True)
class Plan:
    """A workload, patterns of the keys of its servers, and how long it takes them.

    `seconds` and `warmup` are of each round on each server.
    """

    workload: Workload
    servers: tuple[str, ...]
    rounds: int = ROUNDS
    seconds: float = SECONDS
    warmup: float = WARMUP

    def wants(self, server: str) -> bool:
        """Whether the server of that key takes part; one of another fastcore does as ours does."""
        key = server.partition("@")[0]
        return any(fnmatchcase(key, pattern) for pattern in self.servers)

    @property
    def connections(self) -> int:
        """How many are open at a time."""
        w = self.workload
        if w.protocol in IN_PROCESS:
            return 0
        return w.idle + max(w.busy, w.requests or 0)

    @property
    def estimate(self) -> float:
        """Seconds that one round on one server should take, starting and connecting included."""
        return 0.3 + self.warmup + self.seconds + self.connections / 5000


def show_size(size: int) -> str:
    """A size in bytes as people write it: 64 B, 10 KiB, 1 GiB."""
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {name}"
    return f"{size} B"


def named(workload: Workload) -> Workload:
    """The workload with the key and the label that follow from its numbers."""
    name = workload.group if workload.group in NAMES else workload.protocol
    if workload.pending_timers:
        name = "pending"
    elif workload.group == "computing" and workload.idle:
        name = "idle"
    long = show_size(workload.size)
    number, unit = long.split()
    short = number + unit.lower()[: unit != "B"]
    shape = f"{workload.busy:,} busy" + f" + {workload.idle:,} idle" * (workload.idle > 0)
    numbers = {**asdict(workload), "long": long, "short": short, "shape": shape}
    key, label = (template.format(**numbers) for template in NAMES[name])
    if workload.busy_thread:
        key, label = f"computing-{key}", f"{label}, beside a thread"
    return replace(workload, key=key, label=label)


def plan(group: str, protocol: str, servers: tuple[str, ...], **more: Any) -> Plan:
    """A plan; `more` are fields of the workload and of the plan alike."""
    timing = {name: more.pop(name) for name in ("seconds", "warmup") if name in more}
    return Plan(named(Workload("", "", group, protocol, **more)), servers, **timing)


def echo(size: int, busy: int, servers: tuple[str, ...]) -> Plan:
    """Long enough for every connection to have its turn more than once."""
    turn = busy * (15e-6 + size * 0.6e-9)
    timing = {"seconds": max(SECONDS, 1.5 * turn), "warmup": max(WARMUP, turn)}
    return plan("echo", "echo", servers, size=size, busy=busy, **timing)


def beside_idle(idle: int) -> Plan:
    """Ten work beside many that do not."""
    return plan("idle", "echo", BESIDE_IDLE, busy=10, idle=idle)


def few(busy: int) -> Plan:
    """A small server that has nearly nothing to do: most servers are that most of the time."""
    return plan("few", "echo", FEW, busy=busy, idle=FEW_IDLE)


def answered(idle: int) -> Plan:
    """Threads answer: it is about the time until the loop writes what they have left."""
    return plan("answered", "answered", ANSWERING, idle=idle, figure=P50)


def relay(busy: int, idle: int = 0) -> Plan:
    """Two channels for each client, of which each one makes the other want to write."""
    figure = P50 if idle else CPU
    return plan("relay", "relay", RELAYING, busy=busy, idle=idle, figure=figure)


def lines(in_flight: int) -> Plan:
    """The line protocol: a hundred clients, each with so many lines on the way."""
    return plan("line", "line", EVERY, size=64, busy=100, in_flight=in_flight, unit="line")


def churn(slots: int) -> Plan:
    """A connection for each request."""
    return plan("churn", "churn", OPENING, size=64, busy=slots, unit="connection")


def accept(count: int) -> Plan:
    """All connect at once."""
    shape = {"requests": count, "unit": "connection", "figure": RATE}
    return plan("accept", "accept", OPENING, warmup=0.0, **shape)


def broadcast(peers: int) -> Plan:
    """Each message goes to every peer; a delivery counts as one."""
    return plan("broadcast", "broadcast", BROADCAST, size=64, busy=peers, unit="delivery")


def transfer(protocol: str, size: int) -> Plan:
    """One large body; a MiB counts as one."""
    timing = {"seconds": 2.0 * size / GIB, "warmup": 0.0}
    return plan("transfer", protocol, TRANSFER, size=size, unit="MiB", **timing)


def memory(idle: int) -> Plan:
    """Resident memory, by the idle connection."""
    shape = {"idle": idle, "unit": "connection", "figure": MEMORY}
    return plan("memory", "echo", MEMORY_OF, seconds=0.05, warmup=0.0, **shape)


def in_process(name: str, count: int) -> Plan:
    """A program that measures its own loop, by so many timers or wake-ups."""
    timing = {"seconds": count * (6e-6 if name == "timers" else 60e-6), "warmup": 0.0}
    return plan(
        name,
        name,
        LOOPS,
        requests=count,
        unit={"timers": "timer", "wakeups": "wake-up"}[name],
        **timing,
    )


def pending_timers(count: int) -> Plan:
    """An echo while so many timers wait, none of which comes to its end."""
    return plan("timers", "echo", LOOPS, busy=100, pending_timers=count)


def matrix() -> list[Plan]:
    """Every size with every number of connections; 1 KiB for all servers, the others for some.

    Ten thousand take long to open, and pyasyncore longest: there fewer take part.
    """
    few, most = COUNTS[:-1], COUNTS[-1]
    others = [size for size in SIZES if size != KIB]
    quicker = tuple(key for key in MAIN if not key.startswith(("pyasyncore", "floor", "rloop")))
    return [
        *(echo(KIB, busy, EVERY) for busy in few),
        echo(KIB, most, (*MAIN, "asyncio-protocol", "gevent")),
        *(echo(size, busy, MAIN) for size in others for busy in few),
        *(echo(size, most, quicker) for size in others),
    ]


def full_plans() -> list[Plan]:
    """What a full run measures."""
    return [
        *matrix(),
        few(1),
        few(10),
        *(beside_idle(idle) for idle in IDLE[:-1]),
        replace(beside_idle(IDLE[-1]), servers=tuple(p for p in BESIDE_MOST if p != "floor-*")),
        plan("mixed", "echo", BESIDE_MOST, busy=1000, idle=9000),
        *(answered(idle) for idle in ANSWERED_IDLE),
        relay(1),
        relay(10),
        relay(1, idle=1000),
        lines(1),
        lines(16),
        churn(10),
        accept(10000),
        broadcast(5000),
        memory(4000),
        *computing(),
        transfer("download", GIB),
        transfer("upload", GIB),
        in_process("timers", 1_000_000),
        in_process("wakeups", 20_000),
        pending_timers(PENDING_TIMERS),
        *by_tools(),
    ]


def by_tools() -> list[Plan]:
    """Load by programs that users know, against the servers of examples/."""
    return [Plan(w, ("*-chat",), seconds=0.3, warmup=0.0) for w in tool_workloads()]


def computing() -> list[Plan]:
    """The same once more with a thread that computes beside the loop.

    For the main contenders, and smaller: a loop that gets its turn once in 5 ms takes long to
    open thousands of connections.
    """
    plans = [
        *(echo(KIB, busy, (*COMPUTING, "pyasyncore-direct")) for busy in (1, 10, 100)),
        echo(KIB, 1000, COMPUTING),
        replace(beside_idle(1000), servers=COMPUTING),
        *(replace(lines(count), servers=(*COMPUTING, "pyasyncore-chat")) for count in (1, 16)),
        replace(churn(10), servers=COMPUTING),
        replace(accept(1000), servers=COMPUTING),
        replace(broadcast(500), servers=(*COMPUTING, "fastcore-python-tutorial")),
        *(replace(transfer(way, GIB // 4), servers=COMPUTING) for way in ("download", "upload")),
    ]
    return [beside_thread(p) for p in plans]


def beside_thread(p: Plan) -> Plan:
    """The plan with a computing thread in the server."""
    return replace(p, workload=named(replace(p.workload, group="computing", busy_thread=True)))


QUICK_NOTES = (
    "A quick run: a selection of servers and workloads, three rounds, smaller numbers, and nothing"
    " counted by strace or callgrind.",
)
FULL_NOTES = (
    "With 10,000 connections 1 KiB is measured for some servers only, and the other sizes without"
    " rloop, the floor and pyasyncore, which takes too long to open so many. Beside 1,000 busy"
    " and 9,000 idle, and beside 19,000 idle, it is left out for the same reason.",
    "Beside a computing thread the main contenders are measured, with at most 1,000 connections:"
    " a loop that gets its turn every 5 ms takes long to open more.",
)


def quick_plans() -> list[Plan]:
    """What fits into two minutes: one or two workloads of each group, fewer servers."""
    quick = [
        *(echo(KIB, busy, MAIN) for busy in (1, 100, 1000)),
        beside_idle(1000),
        lines(1),
        lines(16),
        churn(10),
        accept(1000),
        broadcast(500),
        transfer("download", GIB // 4),
        memory(1000),
        in_process("timers", 100_000),
        in_process("wakeups", 5_000),
        beside_thread(echo(KIB, 100, QUICK)),
    ]
    return [replace(p, servers=QUICK, rounds=3, seconds=min(p.seconds, 0.15)) for p in quick]


def fit(plans: list[Plan], limit: int) -> tuple[list[Plan], list[str]]:
    """Scale plans down to a limit of open files, and say so."""
    room = limit - SPARE_DESCRIPTORS
    fitted: dict[str, Plan] = {}
    notes = []
    for p in plans:
        w = p.workload
        if w.group == "tools":
            fitted[w.key] = p
            continue
        busy = max(min(w.busy, room), 1)
        requests = min(w.requests, room) if w.requests and w.protocol == "accept" else w.requests
        idle = max(min(w.idle, room - busy), 0)
        small = replace(w, busy=busy, idle=idle, requests=requests)
        if small != w:
            small = named(small)
            notes.append(
                f"The limit of {limit} open files (ulimit -n) is too low for"
                f" {w.label}: scaled down to {small.label}."
            )
        fitted.setdefault(small.key, replace(p, workload=small))
    return list(fitted.values()), notes
