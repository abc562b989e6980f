"""Each block of Python in README.md and in the documents runs.

A page is a program: its blocks run one after another in one process, where what a block defines is
known to the next.  What they find there is in BEGINNING.  Where a block serves for ever, it is
ended.  Comments that no reader sees, in lines before a block, say more of it:

    <!-- not run: why -->                        it is compiled
    <!-- needs: gevent -->                       it is compiled where that module is not installed
    <!-- a client sends "a\n" and hears "b\n" -->   a conversation with what was bound last
    <!-- a client over TLS sends "a\n" and hears "b\n" -->
    <!-- a new program -->                       it knows nothing of the blocks before
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2]
PEM = SOURCE / "tests" / "localhost.pem"
PAGES = [
    page
    for page in (SOURCE / "README.md", *sorted((SOURCE / "docs").rglob("*.md")))
    if "```python" in page.read_text(encoding="utf-8")
]
SECONDS = 30  # for a page

BLOCK = re.compile(
    r"(?P<marks>(?:^<!-- .*? -->\n+)*)^(?P<indent> *)```python[^\n]*\n(?P<text>.*?)^ *```$",
    flags=re.MULTILINE | re.DOTALL,
)
CLIENT = re.compile(r'a client (over TLS )?sends (".*") and hears (".*")')

# What each page begins with.  Addresses of the documents become free ones of this machine; what
# listens is told of to the client, and what would go on for ever ends when that is done.
BEGINNING = r"""
import os, socket, ssl, sys, threading, time
from fastcore import asyncore as _asyncore
import fastcore as _fastcore

_ports, _listening = {}, [0]
_bind, _connect = socket.socket.bind, socket.socket.connect

def _here(address):
    return isinstance(address, tuple) and len(address) >= 2

def _bind_here(self, address):
    if not _here(address):
        return _bind(self, address)
    _bind(self, ("::1" if self.family == socket.AF_INET6 else "127.0.0.1", 0))
    if self.type == socket.SOCK_STREAM:
        _ports[address[1]] = _listening[0] = self.getsockname()[1]

def _connect_here(self, address):
    if _here(address):
        address = ("127.0.0.1", _ports.get(address[1], address[1]))
    return _connect(self, address)

def _connect_ex_here(self, address):
    try:
        _connect_here(self, address)
    except OSError as error:
        return error.errno
    return 0

socket.socket.bind, socket.socket.connect = _bind_here, _connect_here
socket.socket.connect_ex = _connect_ex_here

def _talk(over_tls, sent, expected):
    with socket.create_connection(("127.0.0.1", _listening[0]), timeout=10) as client:
        if over_tls:
            context = ssl.create_default_context(cafile="certificate.pem")
            client = context.wrap_socket(client, server_hostname="localhost")
        with client:
            client.settimeout(10)
            client.sendall(sent)
            heard = b""
            while len(heard) < len(expected) and (data := client.recv(65536)):
                heard += data
    assert heard[:len(expected)] == expected, heard

def _end():
    _asyncore.close_all(ignore_all=True)
    _fastcore.get_loop().stop()

def _beside(conversation, is_over, faults):
    try:
        if conversation:
            while not _listening[0]:
                time.sleep(0.005)
            _talk(*conversation)
    except BaseException as error:
        faults.append(error)
    while not is_over.wait(0.2):
        _fastcore.get_loop().call_soon_threadsafe(_end)

def _run(text, place, names, conversation=None):
    is_over, faults = threading.Event(), []
    _listening[0] = 0
    thread = threading.Thread(target=_beside, args=(conversation, is_over, faults), daemon=True)
    thread.start()
    try:
        exec(compile(text, place, "exec"), names)
    finally:
        is_over.set()
        thread.join()
        _asyncore.close_all(ignore_all=True)
    if faults:
        raise faults[0]
"""


def blocks(page: Path) -> list[tuple[int, list[str], str]]:
    """Where each block of a page begins, its marks, and its text."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in BLOCK.finditer(text):
        line = text.count("\n", 0, match.start("text"))
        marks = re.findall(r"<!-- (.*?) -->", match["marks"])
        lines = [each.removeprefix(match["indent"]) for each in match["text"].splitlines()]
        found.append((line, marks, "\n".join(lines) + "\n"))
    return found


def is_runnable(marks: list[str]) -> bool:
    """Whether it is to be run, and can be here."""
    for mark in marks:
        if mark.startswith("not run: "):
            return False
        if mark.startswith("needs: "):
            probe = [sys.executable, "-c", f"import {mark.removeprefix('needs: ')}"]
            if subprocess.run(probe, capture_output=True).returncode:
                return False
    return True


def program(page: Path) -> str:
    """The page as a program."""
    written = [BEGINNING]
    place = str(page.relative_to(SOURCE))
    for line, marks, text in blocks(page):
        text = "\n" * line + text  # a traceback names the line of the page
        compile(text, place, "exec")
        if not is_runnable(marks):
            continue
        if len(written) == 1 or "a new program" in marks:
            written.append('_names = {"__name__": "__main__"}')
        talk = next(filter(None, map(CLIENT.fullmatch, marks)), None)
        said = ""
        if talk is not None:
            said = f", ({bool(talk[1])}, b{talk[2]}, b{talk[3]})"
        written.append(f"_run({text!r}, {place!r}, _names{said})")
    return "\n".join(written) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(SOURCE).as_posix())
def test_the_blocks_of_a_page_run(page: Path, tmp_path: Path) -> None:
    text = program(page)
    for name in ("certificate.pem", "key.pem"):
        (tmp_path / name).write_bytes(PEM.read_bytes())
    (tmp_path / "page.py").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", "-W", "error", "page.py"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if "FASTCORE" not in name},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "uncaptured python exception" not in done.stdout, done.stdout


def test_every_block_is_found() -> None:
    for page in PAGES:
        assert len(blocks(page)) == page.read_text(encoding="utf-8").count("```python"), page


def test_every_mark_is_known() -> None:
    known = re.compile(rf"not run: .+|needs: [\w.]+|a new program|{CLIENT.pattern}")
    marks = [mark for page in PAGES for _, marks, _ in blocks(page) for mark in marks]
    assert [mark for mark in marks if not known.fullmatch(mark)] == []
