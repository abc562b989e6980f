"""The table of servers: what each is called, how it is started and what it needs.

One entry for each program on each framework.  It must not know how a server is measured or
with which workloads; it knows which protocols a program speaks.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from .children import PROGRAMS
from .machine import Installed
from .result import Server, Workload
from .tools import PROTOCOLS as TOOL_PROTOCOLS
from .workloads import IN_PROCESS

# The asyncore that a plain python imports here.
PEER = "stdlib asyncore" if sys.version_info < (3, 12) else "pyasyncore"
NO_C_ENGINE = "fastcore was installed without its C engine (python -m fastcore info)"
# Modules that come with a distribution of another name.
DISTRIBUTIONS = {"asyncore": "pyasyncore", "asynchat": "pyasynchat"}

# What a program of each kind of handler speaks.
HANDLERS = {
    "direct": ("recv/send", ("echo", "greet", *IN_PROCESS)),
    "tutorial": ("tutorial", ("echo", "greet", "broadcast", "answered", "relay")),
    "with-send": ("with_send", ("echo",)),
    "chat": ("async_chat", ("line", "download", "upload", *TOOL_PROTOCOLS)),
}
ALL = ("echo", "line", "greet", "broadcast", "download", "upload")
# Where channels are made to want something by others, who is asked when is what matters.
STRICT = ("answered", "relay")
NO_PYTHON_H = "no Python.h to compile it with (Debian: apt install python3-dev)"
# The load's protocols that are others of the server.
SPOKEN = {"accept": "greet", "churn": "echo"}
PLAIN = (sys.executable, "-W", "ignore")  # warnings are not what is measured
# As much at a time as suits it: a socket object gets new memory for each recv(), which is dear
# beyond 128 KiB; C reads by way of a buffer that it has.
AT_ONCE = ("--receive", "262144")


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
            loop = self.server.family.partition("-")[0]  # fastcore, asyncio, uvloop
            line = [*self.runner, str(PROGRAMS / f"{protocol}.py"), "--loop", loop]
            return [*line, "--count", str(workload.requests)]
        line = [*self.runner, *self.program, "--protocol", protocol]
        # These set TCP_NODELAY by themselves, the limit where it matters.
        if self.server.family not in ("limit", "asyncio", "uvloop", "rloop"):
            line.append("--no-delay")
        if protocol == "broadcast":
            line += ["--size", str(workload.size)]
        if workload.pending_timers:
            line += ["--pending-timers", str(workload.pending_timers)]
        # The limit is what the kernel costs: there is no Python in it to compute beside.
        return line + ["--busy-thread"] * (workload.busy_thread and self.key != "limit")


def known_servers(limit: Path, fastcores: Mapping[str, Installed]) -> list[Contender]:
    """All servers, first the limit: the C program that will be compiled to that file.

    `fastcores` are this Python's, named "", and others named "@" and a word.
    """
    linux = sys.platform.startswith("linux")
    why_no_limit = None if linux else "the C server uses epoll, which is Linux only"
    first = Contender(
        Server("limit", "limit: C epoll", "limit", why_no_limit),
        (str(limit),),
        protocols=(*ALL, "relay"),
    )
    others = [*floor_servers(limit.with_name("floor.so"))]
    others += [*fastcore_servers(fastcores), *asyncore_servers()]
    others += [*asyncio_servers(), *other_servers()]
    return [first, *(replace(c, server=replace(c.server, missing=why_missing(c))) for c in others)]


def floor_servers(extension: Path) -> Iterator[Contender]:
    """The program on the least that a loop can be: the C module that is compiled to that file."""
    missing = None
    if not sys.platform.startswith("linux"):
        missing = "the floor uses epoll, which is Linux only"
    elif not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing = NO_PYTHON_H
    for handler in ("direct", "tutorial"):
        yield Contender(
            Server(f"floor-{handler}", f"floor: C loop, {HANDLERS[handler][0]}", "floor", missing),
            PLAIN,
            (str(PROGRAMS / "floor_server.py"), str(extension), "--handler", handler, *AT_ONCE),
            ("echo",),
        )


def fastcore_servers(fastcores: Mapping[str, Installed]) -> Iterator[Contender]:
    """One program on each engine of each fastcore, by handler, and what else it is run in."""
    for engine in ("C", "Python"):
        for name, one in fastcores.items():
            yield from engine_servers(engine, name, one)


def engine_servers(engine: str, name: str, one: Installed) -> Iterator[Contender]:
    """The servers on one engine of one fastcore."""
    family = f"fastcore-{engine.lower()}"
    runner = (one.python, "-m", "fastcore", "run", "--engine", engine.lower())
    more = AT_ONCE if engine == "C" else ()
    channels = (str(PROGRAMS / "channels.py"), *more)
    missing = NO_C_ENGINE if engine == "C" and not one.has_c else None

    def server(kind: str, label: str) -> Server:
        # A family of its own: `name` is another program.
        label = f"fastcore {engine}{name}, {label}"
        return Server(f"{family}-{kind}{name}", label, family + name, missing)

    for handler, (label, protocols) in HANDLERS.items():
        yield Contender(
            server(handler, label), runner, (*channels, "--handler", handler), protocols
        )
    yield Contender(
        server("tutorial-strict", "tutorial, strict"),
        (*runner, "--interest", "strict"),
        (*channels, "--handler", "tutorial"),
        STRICT,
    )
    if engine == "C":
        for host in ("asyncio", "uvloop"):
            yield Contender(
                server(f"attached-{host}", f"attached to {host}"),
                runner,
                (str(PROGRAMS / "attached_server.py"), "--host", host, *more),
                ("echo",),
                needs=() if name else (host,),  # of another Python we do not know
            )


def asyncore_servers() -> Iterator[Contender]:
    """The same program on what people use today, which has neither timers nor wake-ups."""
    for handler, (label, protocols) in HANDLERS.items():
        yield Contender(
            Server(f"pyasyncore-{handler}", f"{PEER}, {label}", "pyasyncore"),
            PLAIN,
            (str(PROGRAMS / "channels.py"), "--handler", handler),
            tuple(p for p in protocols if p not in IN_PROCESS),
            needs=("asyncore", "asynchat"),
        )


def asyncio_servers() -> Iterator[Contender]:
    """One program on three loops, by flavour; streams on the two that are known for them."""
    for loop in ("asyncio", "uvloop", "rloop"):
        for flavour, label in (("protocol", "Protocol"), ("streams", "streams")):
            if (loop, flavour) == ("rloop", "streams"):
                continue
            yield Contender(
                Server(f"{loop}-{flavour}", f"{loop} {label}", loop),
                PLAIN,
                (str(PROGRAMS / "asyncio_servers.py"), "--flavour", flavour, "--loop", loop),
                (*ALL, "relay", *IN_PROCESS) if flavour == "protocol" else ALL,
                needs=(loop,),
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
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed (pip install {DISTRIBUTIONS.get(module, module)})"
    return contender.server.missing
