"""The table of servers: what each is called, how it is started and what it needs.

One entry for each program on each framework.  It must not know how a server is measured or
with which workloads; it knows which protocols a program speaks.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from .children import HERE
from .result import Server, Workload
from .tools import PROTOCOLS as TOOL_PROTOCOLS
from .workloads import IN_PROCESS

PROGRAMS = HERE / "programs"
# The asyncore that a plain python imports here.
PEER = "stdlib asyncore" if sys.version_info < (3, 12) else "pyasyncore"
INSTALL = "pip install 'fastcore-loop[bench]'"

# What a program of each kind of handler speaks.
HANDLERS = {
    "direct": ("recv/send", ("echo", "greet", *IN_PROCESS)),
    "tutorial": ("tutorial", ("echo", "greet", "broadcast")),
    "with-send": ("with_send", ("echo",)),
    "chat": ("async_chat", ("line", "download", "upload", *TOOL_PROTOCOLS)),
}
ALL = ("echo", "line", "greet", "broadcast", "download", "upload")
# The load's protocols that are others of the server.
SPOKEN = {"accept": "greet", "churn": "echo"}
PLAIN = (sys.executable, "-W", "ignore")  # warnings are not what is measured


@dataclass(frozen=True)
class Contender:
    """One server and how to start it: a runner, and the program's file and arguments.

    `needs` are modules to import.  `whole_process`: its work is not all done by its main thread,
    so the CPU time of all its threads counts.  `forks`: nor by its own process, so that its CPU
    time cannot be told.  `most`: connections beyond which it would take the machine down.
    """

    server: Server
    runner: tuple[str, ...]
    program: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ALL
    needs: tuple[str, ...] = ()
    whole_process: bool = False
    forks: bool = False
    most: int = 1_000_000

    @property
    def key(self) -> str:
        """The server's key."""
        return self.server.key

    def speaks(self, workload: Workload) -> bool:
        """Whether it can serve that workload at all."""
        return SPOKEN.get(workload.protocol, workload.protocol) in self.protocols

    def command(self, workload: Workload) -> list[str]:
        """The command line for one workload."""
        protocol = SPOKEN.get(workload.protocol, workload.protocol)
        if protocol in IN_PROCESS:
            loop = self.server.family.partition("-")[0]
            line = [*self.runner, str(PROGRAMS / f"{protocol}.py"), "--loop", loop]
            return [*line, "--count", str(workload.requests)]
        line = [*self.runner, *self.program, "--protocol", protocol]
        # asyncio and uvloop set TCP_NODELAY by themselves, and the limit where it matters.
        if self.server.family not in ("limit", "asyncio", "uvloop"):
            line.append("--no-delay")
        if protocol == "broadcast":
            line += ["--size", str(workload.size)]
        if workload.pending_timers:
            line += ["--pending-timers", str(workload.pending_timers)]
        # The limit is what the kernel costs: there is no Python in it to compute beside.
        return line + ["--busy-thread"] * (workload.busy_thread and self.key != "limit")


def known_servers(limit: Path | None, why_no_limit: str | None) -> list[Contender]:
    """All servers, the limit (the compiled C program, or why there is none) first."""
    first = Contender(Server("limit", "limit: C epoll", "limit", why_no_limit), (str(limit),))
    others = [*channel_servers(), *asyncio_servers(), *other_servers()]
    return [first, *(replace(c, server=replace(c.server, missing=why_missing(c))) for c in others)]


def channel_servers() -> Iterator[Contender]:
    """One program on three runners, by handler."""
    fastcore = (sys.executable, "-m", "fastcore", "run", "--engine")
    runners = (
        ("fastcore-c", "fastcore C", (*fastcore, "c"), ("fastcore._engine_c",)),
        ("fastcore-python", "fastcore Python", (*fastcore, "python"), ()),
        ("pyasyncore", PEER, PLAIN, ("asyncore", "asynchat")),
    )
    # As much at a time as suits it: a socket object gets new memory for each recv(), which is dear
    # beyond 128 KiB; the C engine reads by way of a buffer that it has.
    receive = {"fastcore-c": ("--receive", "262144")}
    for family, name, runner, needs in runners:
        for handler, (label, protocols) in HANDLERS.items():
            if family == "pyasyncore":  # it has neither timers nor wake-ups
                protocols = tuple(p for p in protocols if p not in IN_PROCESS)
            yield Contender(
                Server(f"{family}-{handler}", f"{name}, {label}", family),
                runner,
                (str(PROGRAMS / "channels.py"), "--handler", handler, *receive.get(family, ())),
                protocols,
                needs,
            )


def asyncio_servers() -> Iterator[Contender]:
    """One program on two loops, by flavour."""
    for family, more in (("asyncio", ()), ("uvloop", ("--uvloop",))):
        for flavour, label in (("protocol", "Protocol"), ("streams", "streams")):
            yield Contender(
                Server(f"{family}-{flavour}", f"{family} {label}", family),
                PLAIN,
                (str(PROGRAMS / "asyncio_servers.py"), "--flavour", flavour, *more),
                (*ALL, *IN_PROCESS) if flavour == "protocol" else ALL,
                needs=(family,),
            )


def other_servers() -> Iterator[Contender]:
    """The frameworks that have nothing to do with either."""
    for name, label in (("gevent", "gevent StreamServer"), ("pyftpdlib", "pyftpdlib ioloop")):
        program = (str(PROGRAMS / f"{name}_server.py"),)
        yield Contender(Server(name, label, name), PLAIN, program, needs=(name,))
    for flavour in ("threading", "forking"):
        yield Contender(
            Server(f"socketserver-{flavour}", f"socketserver {flavour}", "socketserver"),
            PLAIN,
            (str(PROGRAMS / "socketserver_server.py"), "--flavour", flavour),
            protocols=tuple(protocol for protocol in ALL if protocol != "broadcast"),
            whole_process=True,
            forks=flavour == "forking",
            most=100 if flavour == "forking" else 1000,
        )


def why_missing(contender: Contender) -> str | None:
    """Why it cannot run here, as far as that can be told without starting it."""
    if contender.forks and not hasattr(os, "fork"):
        return "this system has no fork()"
    for module in contender.needs:
        if not found(module):
            if module == "fastcore._engine_c":
                return "fastcore was installed without its C engine (python -m fastcore info)"
            return f"{module} is not installed ({INSTALL})"
    return None


def found(module: str) -> bool:
    """Whether a module could be imported; it is not."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:
        return False
