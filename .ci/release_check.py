"""Everything that can be done before a release is tagged: `make release-check`.

Builds the source distributions (fastcore's, the benchmarks') from a copy of
the tracked files, the wheels from these, has them looked through (artefacts.py),
installs each of fastcore's in an empty environment and runs the README's first
program there, and the demo where the benchmarks are.  It works in a temporary
folder, publishes nothing and changes nothing.  After the first step, which
fetches what the builds and the demo require, it uses no package index.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import venv
from pathlib import Path

import artefacts
from build import ProjectBuilder

SECONDS = 240  # for one command
STARTED = time.monotonic()


def say(what: str) -> None:
    print(f"=== {time.monotonic() - STARTED:4.0f} s  {what}", flush=True)


def run(
    *command: str | Path, folder: Path | None = None, mode: str = "", quiet: bool = True
) -> str:
    """Run a command to its end; one that fails ends the check with what it said."""
    line = " ".join(map(str, command))
    # Switches of the caller must not reach the builds.
    others = {key: value for key, value in os.environ.items() if not key.startswith("FASTCORE_")}
    try:
        done = subprocess.run(
            list(command),
            cwd=folder,
            env=others | {"FASTCORE_BUILD": mode},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        sys.exit(f"FAILED (no end after {SECONDS} s): {line}")
    if done.returncode or not quiet:
        print(done.stdout.rstrip(), flush=True)
    if done.returncode:
        sys.exit(f"FAILED ({done.returncode}): {line}")
    return done.stdout


def python(*arguments: str | Path, mode: str = "") -> str:
    """Run a module of the release tools."""
    return run(sys.executable, "-I", "-m", *arguments, mode=mode)


def copy_tracked(source: Path, target: Path, tag: str) -> None:
    """Copy what is under version control: a file that somebody forgot to add is not there."""
    if run("git", "status", "--porcelain", folder=source).strip():
        if tag:
            sys.exit(f"FAILED: for {tag}, commit or remove what `git status` lists")
        say("note: there are uncommitted changes; tracked files are taken as they are now")
    for name in artefacts.tracked_files(source):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source / name, place)


def build(tree: Path, scratch: Path) -> dict[str, Path]:
    """Build the source distribution, and from it both kinds of wheel: {kind: path}.

    "bench-sdist" and "bench" are those of the benchmarks.
    """
    needed = ProjectBuilder(tree).build_system_requires
    needed |= ProjectBuilder(tree / "benchmarks").build_system_requires
    group = f"{tree / 'pyproject.toml'}:demo"
    python("pip", "download", "--quiet", "--dest", scratch / "needed", *needed, "--group", group)
    # Read by every pip from here on, also by those in isolated builds.
    os.environ.update(PIP_NO_INDEX="1", PIP_FIND_LINKS=str(scratch / "needed"))

    say("building the source distributions")
    built = {}
    for kind, folder in (("sdist", tree), ("bench-sdist", tree / "benchmarks")):
        python("build", "--sdist", "--outdir", scratch / kind, folder)
        (built[kind],) = (scratch / kind).iterdir()
    for kind, source, mode in (
        ("pure", "sdist", "skip"),
        ("platform", "sdist", "require"),
        ("bench", "bench-sdist", ""),
    ):
        say(f"building the {kind} wheel")
        where = scratch / kind
        python("pip", "wheel", "--no-deps", "--wheel-dir", where, built[source], mode=mode)
        (built[kind],) = (scratch / kind).iterdir()
    return built


def look_through(built: dict[str, Path], scratch: Path, tag: str) -> None:
    """Have the artefacts checked as those of a release would be, all in one folder."""
    together = scratch / "dist"
    together.mkdir()
    for path in built.values():
        shutil.copy2(path, together)
    option = ["--tag", tag] if tag else []
    run(sys.executable, "-I", artefacts.__file__, together, *option, quiet=False)


def install(distribution: Path, environment: Path) -> Path:
    """Install it alone in an environment that is empty, even of pip; return its Python."""
    venv.create(environment, symlinks=os.name != "nt")
    interpreter = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    python("pip", "--python", interpreter, "install", "--no-index", distribution)
    return interpreter


def check_installed(interpreter: Path, engine: str, version: str, folder: Path) -> None:
    """It is this version, runs on that engine, and its information can be had."""
    program = "import fastcore; print(fastcore.engine, fastcore.__version__)"
    said = run(interpreter, "-I", "-c", program, folder=folder).strip()
    if said != f"{engine} {version}":
        sys.exit(f"FAILED: expected {engine} {version}, installed is {said}")
    run(interpreter, "-I", "-m", "fastcore", "info", folder=folder, quiet=False)


def readme_program(readme: str) -> str:
    """The README's echo server, on a port that the kernel chooses and that it tells."""
    program: str
    (program,) = (
        block
        for block in re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
        if "EchoServer(" in block
    )
    tell = (
        "for channel in asyncore.socket_map.values():\n"
        "    print(*channel.socket.getsockname(), flush=True)\n"
    )
    for old, new in (("8007", "0"), ("asyncore.loop()\n", tell + "asyncore.loop()\n")):
        if program.count(old) != 1:
            sys.exit(f"FAILED: the README's program should hold {old!r} once")
        program = program.replace(old, new)
    return program


def check_echo(interpreter: Path, program: Path) -> None:
    """Run the server, and see that a client gets back what it sends."""
    server = subprocess.Popen([interpreter, "-I", program], stdout=subprocess.PIPE, text=True)
    watchdog = threading.Timer(30, server.kill)
    watchdog.start()
    sent = os.urandom(4096)
    answer = b""
    try:
        assert server.stdout is not None
        host, port = server.stdout.readline().split()
        with socket.create_connection((host, int(port)), timeout=10) as client:
            client.sendall(sent)
            while len(answer) < len(sent) and (data := client.recv(8192)):
                answer += data
    except (OSError, ValueError) as error:  # the latter: it ended without a word
        sys.exit(f"FAILED: the README's echo server: {error}")
    finally:
        watchdog.cancel()
        server.kill()
        server.communicate()
    if answer != sent:
        sys.exit("FAILED: the README's echo server sends back something else")


def check_benchmarks(wheel: Path, interpreter: Path, tree: Path, folder: Path) -> None:
    """Beside an installed fastcore they find their programs, and compile what they must."""
    group = f"{tree / 'pyproject.toml'}:demo"
    python("pip", "--python", interpreter, "install", "--group", group)
    python("pip", "--python", interpreter, "install", "--no-deps", wheel)
    for arguments in ("--list", "demo --quick --seconds 0.2"):
        run(str(interpreter), *f"-I -m fastcore bench {arguments}".split(), folder=folder)


def main() -> None:
    parser = argparse.ArgumentParser(description="Do all that can be done before a tag.")
    parser.add_argument("--tag", default="", help="the tag to come, such as v1.2.3")
    tag: str = parser.parse_args().tag
    # Also with tracebacks: nothing stays behind.
    with tempfile.TemporaryDirectory(prefix="release-check-") as name:
        scratch = Path(name)
        tree = scratch / "tree"
        say("copying the tracked files, rendering the change log, fetching what the build requires")
        copy_tracked(artefacts.SOURCE, tree, tag)
        python("towncrier", "build", "--draft", "--dir", tree)
        built = build(tree, scratch)
        say("looking through them")
        look_through(built, scratch, tag)
        version = artefacts.declared_version(tree)
        program = scratch / "readme_program.py"
        readme = (tree / "README.md").read_text(encoding="utf-8")
        program.write_text(readme_program(readme), encoding="utf-8")
        for kind in ("sdist", "pure", "platform"):
            say(f"installing {built[kind].name} in an empty environment")
            interpreter = install(built[kind], scratch / f"environment-{kind}")
            check_installed(interpreter, "python" if kind == "pure" else "c", version, scratch)
            check_echo(interpreter, program)
        say(f"installing {built['bench'].name} beside the last")
        check_benchmarks(built["bench"], interpreter, tree, scratch)
    say(f"release check passed: {version}" + (f" may be tagged {tag}" if tag else ""))


if __name__ == "__main__":
    main()
