"""`python -m fastcore doctor`: each rule on a small program, what --fix keeps, and bad input.

What it finds in well-known packages is compared by `make doctor-check`, which downloads them.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("libcst", reason="an extra, and without wheels for some systems")
pytest.importorskip("rich", reason="an extra")

COPY = """
class dispatcher:
    pass
socket_map = {}
def poll(): pass
def loop(): pass
"""


def doctor(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in that folder."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "fastcore", "doctor", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=100,
    )


def found_in(folder: Path, **files: str) -> list[tuple[str, int, str, str]]:
    """Write modules, and return the findings: file, line, rule, verdict."""
    from fastcore._doctor.command import examine
    from fastcore._doctor.files import walk
    from fastcore._doctor.unit import Unit

    write(folder, **files)
    found = examine(Unit(walk(folder)))
    return [(each.path.name, each.line, each.rule, each.verdict) for each in found]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder.joinpath(*name.split("__in__")[::-1]).with_suffix(".py")
        path.parent.mkdir(exist_ok=True, parents=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"), encoding="utf-8")


def rules(folder: Path, text: str) -> list[tuple[int, str]]:
    """The lines and rules of one program, without those of its imports."""
    found = found_in(folder, program=text)
    return [(line, rule) for _, line, rule, _ in found if rule not in ("import", "smtpd")]


# -- what is imported -----------------------------------------------------------------------------


def test_what_imports_the_old_modules_runs(tmp_path: Path) -> None:
    program = """
        import asyncore
        from asynchat import async_chat
    """
    assert found_in(tmp_path, program=program) == [
        ("program.py", 1, "import", "runs as it is"),
        ("program.py", 2, "import", "runs as it is"),
    ]


def test_what_imports_fastcore_has_no_findings(tmp_path: Path) -> None:
    program = "from fastcore import asyncore\nfrom fastcore.asynchat import async_chat\n"
    assert found_in(tmp_path, program=program) == []


def test_smtpd_wants_a_package(tmp_path: Path) -> None:
    assert found_in(tmp_path, program="import smtpd") == [
        ("program.py", 1, "smtpd", "wants a setting")
    ]


def test_a_copy_is_known_by_what_is_in_it(tmp_path: Path) -> None:
    found = found_in(
        tmp_path,
        __init____in__package="",
        anything__in__package=COPY,
        server__in__package="from . import anything as a\na.loop()\na.anything.loop()",
        other__in__package="from package.anything import dispatcher\nimport package.server",
        # The word alone makes no copy.
        innocent__in__package="class dispatcher: pass  # asyncore\n",
    )
    assert found == [
        ("anything.py", 1, "copy", "gains nothing"),
        ("other.py", 1, "copy-import", "gains nothing"),
        ("server.py", 1, "copy-import", "gains nothing"),
    ]
    server = "from . import anything as asyncore\nasyncore.loop()\n"
    found = found_in(tmp_path, server__in__package=server)
    assert {verdict for *_, verdict in found} == {"wants a setting"}
    assert "--replace package.anything=asyncore" in doctor(tmp_path, "package").stdout


def test_a_copy_for_want_of_the_original_runs(tmp_path: Path) -> None:
    server = """
        try:
            import asyncore
        except ImportError:
            from package import copied as asyncore
        asyncore.loop()
    """
    found = found_in(
        tmp_path, __init____in__package="", copied__in__package=COPY, server__in__package=server
    )
    assert {verdict for *_, verdict in found} == {"runs as it is"}
    assert len(found) == 3


def test_a_program_that_mixes_two_asyncores_breaks(tmp_path: Path) -> None:
    found = found_in(tmp_path, one="import asyncore", two="from fastcore import asyncore")
    assert found == [("one.py", 1, "two-asyncores", "breaks")]
    found = found_in(tmp_path, main="import fastcore\nfastcore.install()")
    assert found == [("one.py", 1, "import", "runs as it is")]


def test_a_choice_is_no_mixture(tmp_path: Path) -> None:
    program = """
        try:
            from fastcore import asyncore
        except ImportError:
            import asyncore
    """
    assert found_in(tmp_path, program=program) == [("program.py", 4, "import", "runs as it is")]


def test_the_other_project_of_this_name(tmp_path: Path) -> None:
    program = "from fastcore.basics import *\nimport fastcore.loop\nfrom fastcore.tls import tls\n"
    assert found_in(tmp_path, program=program) == [("program.py", 1, "fast-ai", "breaks")]


def test_names_in_strings(tmp_path: Path) -> None:
    program = """
        import importlib
        from unittest import mock
        importlib.import_module("asyncore")
        mock.patch("asynchat.async_chat")
        print("asyncore")
    """
    assert rules(tmp_path, program) == [(3, "by-name"), (4, "by-name")]


# -- loops ----------------------------------------------------------------------------------------


def test_loops_of_the_program(tmp_path: Path) -> None:
    program = """
        import asyncore, select
        def serve():
            while True:
                asyncore.poll(1)
        if asyncore.poll2 and callable(asyncore.poll):
            turn = asyncore.poll
        asyncore.loop(timeout=1, count=1)
        asyncore.loop(5)
        def own(poller, channels):
            for number, event in poller.poll():
                channels[number].handle_read_event()
        class Wrapper(asyncore.dispatcher):
            def handle_read_event(self):
                asyncore.dispatcher.handle_read_event(self)
                super().handle_read_event()
        deliver = asyncore.readwrite
    """
    assert rules(tmp_path, program) == [
        (4, "poll"),
        (6, "poll"),
        (7, "turns"),
        (11, "own-loop"),
        (16, "own-loop"),
    ]


# -- what is gone, and what text does -------------------------------------------------------------


def test_wrap_socket_is_gone(tmp_path: Path) -> None:
    program = """
        import asyncore, ssl
        from ssl import wrap_socket
        ssl.wrap_socket(sock, keyfile="k", certfile="c", server_side=True)
        wrap_socket(sock)
        context.wrap_socket(sock)
    """
    assert rules(tmp_path, program) == [(3, "wrap-socket"), (4, "wrap-socket")]
    shown = doctor(tmp_path, ".").stdout
    assert (
        "context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); "
        'context.load_cert_chain("c", "k"); context.wrap_socket(sock, server_side=True)'
    ) in shown
    assert "ssl.PROTOCOL_TLS_CLIENT); context.wrap_socket(sock, server_hostname=...)" in shown


def test_text_where_bytes_belong(tmp_path: Path) -> None:
    program = r"""
        import asynchat, asyncore
        END = "\r\n"
        class Chat(asynchat.async_chat):
            DONE = "."
            def __init__(self):
                self.set_terminator("\n")
                self.set_terminator(END)
                self.set_terminator(self.DONE)
                self.set_terminator(b"\n")
                self.set_terminator(12)
                self.held = []
            def collect_incoming_data(self, data):
                self.held.append(data)
            def found_terminator(self):
                line = "".join(self.held)
                line = b"".join(self.held)
                names = ", ".join(self.names)
                self.push("hello")
                self.push(f"{line}")
                self.push("%s\n" % line)
                self.push("a" + str(line))
                self.push("{}".format(line).encode())
                self.push(b"%d" % 1)
        class Plain(asyncore.dispatcher_with_send):
            def handle_read(self):
                self.send("text")
                self.push("not this module's")
    """
    lines = dict.fromkeys((6, 7, 8), "str-terminator")
    lines |= {15: "str-input"} | dict.fromkeys((18, 19, 20, 21, 26), "str-output")
    assert rules(tmp_path, program) == sorted(lines.items())


def test_text_that_is_meant(tmp_path: Path) -> None:
    program = r"""
        import asynchat, smtpd
        class Encoded(asynchat.async_chat):
            use_encoding = 1
            def found_terminator(self):
                self.set_terminator("\n")
        class Own(asynchat.async_chat):
            def push(self, text):
                asynchat.async_chat.push(self, text.encode())
        class Lower(Own):
            def found_terminator(self):
                self.push("text")
        class Channel(smtpd.SMTPChannel):
            def smtp_NOOP(self, arg):
                self.push("250 Ok")
        class NoChannel:
            def greet(self):
                self.push("text"), self.set_terminator("\n")
    """
    assert rules(tmp_path, program) == []


# -- handlers that wait ---------------------------------------------------------------------------


def test_handlers_that_wait(tmp_path: Path) -> None:
    program = """
        import asyncore, smtplib, socket, subprocess, time, threading
        from urllib.request import urlopen
        class Channel(asyncore.dispatcher):
            def __init__(self):
                time.sleep(1)
            def handle_read(self):
                time.sleep(0)
                time.sleep(1)
                self.help_out()
                threading.Thread(target=self.work)
                ",".join(["a"])
                later(lambda: time.sleep(1))
                def inner():
                    time.sleep(1)
            def handle_close(self):
                self.thread.join()
                self.thread.join(timeout=1)
            def help_out(self):
                subprocess.run(["ls"])
                urlopen("http://localhost")
                subprocess.Popen(["ls"]).communicate()
                server = smtplib.SMTP()
                server.sendmail("a", "b", "c")
            def work(self):
                socket.create_connection(("localhost", 1))
            def writable(self):
                return input() == "y"
        class Other:
            def handle_read(self):
                time.sleep(1)
    """
    assert rules(tmp_path, program) == [
        (line, "blocking") for line in (8, 16, 17, 19, 20, 21, 23, 27)
    ]
    shown = doctor(tmp_path, ".").stdout
    assert "subprocess.run() in help_out(), which handle_read() calls" in shown


def test_channels_are_known_across_files(tmp_path: Path) -> None:
    found = found_in(
        tmp_path,
        __init____in__package="from .base import Base",
        base__in__package="import asyncore\nclass Base(asyncore.dispatcher): pass\n",
        middle__in__package="from package import Base as B\nclass Middle(B): pass\n",
        end__in__package="""
            import time
            from . import middle
            class End(middle.Middle):
                def handle_read(self):
                    time.sleep(1)
        """,
    )
    assert ("end.py", 5, "blocking", "gains nothing") in found


# -- children -------------------------------------------------------------------------------------


def test_children(tmp_path: Path) -> None:
    program = """
        import asyncore, multiprocessing, subprocess, sys
        subprocess.run([sys.executable, "-I", "-c", "x"])
        subprocess.run([sys.executable, "-um", "-S"])
        subprocess.run([sys.executable, "-c", "-S"])
        subprocess.run([sys.executable, "x.py", "-E"])
        subprocess.run(["other", "-E"])
        multiprocessing.set_start_method("spawn")
        multiprocessing.get_context("fork")
    """
    found = [each for each in found_in(tmp_path, program=program) if each[2] == "child"]
    assert found == [
        ("program.py", 2, "child", "wants a setting"),
        ("program.py", 7, "child", "runs as it is"),
    ]
    program = f"{program.rstrip()}\n        import fastcore; fastcore.install()\n"
    found = [each for each in found_in(tmp_path, program=program) if each[2] == "child"]
    assert {verdict for *_, verdict in found} == {"wants a setting"}


# -- what cannot be read --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "line", "said"),
    [
        (b"import asyncore\nprint 'old'\n", 2, "for Python 2"),
        (b"import asyncore\n\xff\n", 2, "decode"),
        (b"# coding: klingon\nimport asyncore\n", 0, "klingon"),
        (b"import asyncore\0\n", 0, "null"),
        (b"import asyncore\nx = " + b"(" * 5000 + b")" * 5000, 2, "nested"),
        (b"import asyncore\nx = " + b"+".join([b"1"] * 30000), 0, ""),
        (b"import asyncore\n" + b"x = 1\n" * 400000, 0, "larger than"),
    ],
    ids=["old", "bytes", "encoding", "null", "deep", "long", "large"],
)
def test_what_cannot_be_read_is_a_finding(
    tmp_path: Path, data: bytes, line: int, said: str
) -> None:
    (tmp_path / "bad.py").write_bytes(data)
    (tmp_path / "good.py").write_text("import asyncore\n")
    done = doctor(tmp_path, ".")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (finding,) = [each for each in done.stdout.splitlines() if "not read" in each][:1]
    assert said in finding
    if sys.implementation.name == "cpython" and line:
        assert finding.startswith(f"bad.py:{line}: not read")
    assert "good.py:1: runs as it is" in done.stdout


def test_a_large_file_of_others_is_none_of_our_business(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_bytes(b"x = 1\n" * 400000)
    (tmp_path / "broken.py").write_text("print 'old'\n")
    done = doctor(tmp_path, ".")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "2 files: nothing that uses asyncore, asynchat or smtpd\n"


@pytest.mark.skipif(sys.platform == "win32", reason="what folders hold on POSIX systems")
def test_what_lies_in_folders(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "gone.py").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "a.py").write_text("import asyncore\n")
    (tmp_path / "script").write_text("#!/usr/bin/env python3\nimport asyncore\n")
    (tmp_path / "shell").write_text("#!/bin/sh\nimport asyncore\n")
    done = doctor(tmp_path, ".")
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "1 file: 1 runs as it is"
    assert done.stdout.startswith("script:2: ")


# -- the command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "what is to be read?"),
        (["a.py", "--installed"], "what is to be read?"),
        (["a.py"], "no such file or folder: a.py"),
        (["-m", "nothing.at.all"], "no module named nothing.at.all"),
        (["-m", "json..x"], "no module named json..x"),
        (["-m", "json.decoder.x"], "no module named json.decoder.x"),
        (["--fix", "-m", "json"], "--fix changes the files of a PATH"),
    ],
)
def test_wrong_usage(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = doctor(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


def test_json_has_all_of_it(tmp_path: Path) -> None:
    write(tmp_path, program="import smtpd\n")
    done = doctor(tmp_path, "--json", "program.py")
    found = json.loads(done.stdout)
    assert (done.returncode, found["status"], found["files"]) == (1, 1, 1)
    assert found["verdicts"] == {"wants a setting": 1}
    (finding,) = found["findings"]
    assert Path(finding["path"]).name == "program.py"
    assert (finding["line"], finding["column"], finding["rule"]) == (1, 1, "smtpd")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX systems")
def test_a_reader_that_has_seen_enough(tmp_path: Path) -> None:
    write(tmp_path, program="import asyncore\n" * 2000)
    command = [sys.executable, "-m", "fastcore", "doctor", "."]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(100) == 1


def test_the_help_says_what_the_exit_status_means(tmp_path: Path) -> None:
    assert "exit status: 0 nothing to do; 1 " in doctor(tmp_path, "--help").stdout


def test_a_missing_library_is_named(tmp_path: Path) -> None:
    (tmp_path / "libcst.py").write_text("raise ModuleNotFoundError('no', name='libcst')\n")
    done = doctor(tmp_path, ".")
    assert done.returncode == 2
    assert "needs libcst: python -m pip install 'fastcore-loop[doctor]'" in done.stderr


def test_a_module_is_found_and_not_run(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("raise SystemExit('run')\n")
    (tmp_path / "package" / "base.py").write_text(
        "import asyncore\nclass Base(asyncore.dispatcher): pass\n"
    )
    (tmp_path / "package" / "server.py").write_text(
        "import time\nfrom .base import Base\nclass S(Base):\n"
        "    def handle_read(self):\n        time.sleep(1)\n"
    )
    found = json.loads(doctor(tmp_path, "--json", "-m", "package.server").stdout)["findings"]
    mine = [each for each in found if each["line"]]  # not those of the environment
    assert [(Path(each["path"]).name, each["rule"]) for each in mine] == [("server.py", "blocking")]
    assert "base.py:1: " in doctor(tmp_path, "-m", "package").stdout


def test_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packages = tmp_path / "packages"
    for name in ("fastcore", "pyasyncore"):
        folder = packages / f"{name}-9.9.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
        (folder / "RECORD").write_text("asyncore/__init__.py,,\n")
    (packages / "nameless-1.0.dist-info").mkdir()
    write(packages, __init____in__asyncore=COPY)
    (tmp_path / "module.py").write_text("import asyncore\n")
    monkeypatch.setenv("PYTHONPATH", str(packages), prepend=os.pathsep)
    done = doctor(tmp_path, "-m", "module")
    assert "breaks: fastcore 9.9, of fast.ai, is installed" in done.stdout
    assert "wants a setting: pyasyncore 9.9 brings modules of the old names" in done.stdout


@pytest.mark.slow
def test_what_is_installed(tmp_path: Path) -> None:
    folder = tmp_path / "legacy-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: legacy\nVersion: 1.0\n")
    (folder / "RECORD").write_text("legacy.py,,\nnot_there.py,,\n")
    (tmp_path / "legacy.py").write_text("import asyncore\nasyncore.poll()\n")
    done = doctor(tmp_path, "--installed")
    assert done.stderr == ""
    assert "legacy.py:2: gains nothing: asyncore.poll()" in done.stdout


def test_a_table_in_a_terminal(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    write(tmp_path, program="import asyncore\nasyncore.poll()  # [red]\n")
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "fastcore", "doctor", "."]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    done = subprocess.run(command, cwd=tmp_path, stdout=follower, env=environment, timeout=100)
    os.close(follower)
    shown = os.read(leader, 100_000).decode()
    os.close(leader)
    assert done.returncode == 0
    assert "verdict" in shown and "\x1b[36mgains nothing" in shown


# -- --fix ----------------------------------------------------------------------------------------


BEFORE = '''\
#!/usr/bin/env python3
"""A text that names asyncore."""
import asyncore, socket, asynchat  # all three
import asyncore as loops
from asyncore import dispatcher, \\
    loop
from asynchat import *
if True: import asynchat; print(2)
import os; import asyncore; import sys
try:
    import asyncore
except ImportError:
    from . import asyncore
try:
    from fastcore import asyncore
except ImportError:
    import asyncore
if sys.version_info < (3, 12):
    import asyncore


def function():
\t# a comment
\timport asynchat   # another
\treturn   (asynchat)
'''
AFTER = '''\
#!/usr/bin/env python3
"""A text that names asyncore."""
import socket
from fastcore import asyncore, asynchat  # all three
from fastcore import asyncore as loops
from fastcore.asyncore import dispatcher, \\
    loop
from fastcore.asynchat import *
if True: from fastcore import asynchat; print(2)
import os; from fastcore import asyncore; import sys
try:
    from fastcore import asyncore
except ImportError:
    from . import asyncore
try:
    from fastcore import asyncore
except ImportError:
    import asyncore
if sys.version_info < (3, 12):
    import asyncore


def function():
\t# a comment
\tfrom fastcore import asynchat   # another
\treturn   (asynchat)
'''


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["posix", "windows"])
@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "latin-1"])
def test_fix_changes_imports_and_nothing_else(tmp_path: Path, newline: str, coding: str) -> None:
    mark = "# -*- coding: latin-1 -*-\n# é\n" if coding == "latin-1" else "# é\n#\n"

    def encoded(text: str) -> bytes:
        return (mark + text).replace("\n", newline).encode(coding)

    path = tmp_path / "program.py"
    path.write_bytes(encoded(BEFORE))
    path.chmod(0o755)
    mode = path.stat().st_mode
    done = doctor(tmp_path, "--fix", "program.py")
    assert path.read_bytes() == encoded(AFTER)
    assert path.stat().st_mode == mode
    assert "program.py:5: import asyncore, asynchat -> from fastcore import" in done.stdout
    assert "import of asyncore left: it depends on `sys.version_info < (3, 12)`" in done.stdout
    again = doctor(tmp_path, "--fix", "program.py")
    assert path.read_bytes() == encoded(AFTER)
    assert " 0 changed, 1 left" in again.stdout
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_fixed_runs(tmp_path: Path) -> None:
    program = "import asyncore, sys\nfrom asynchat import async_chat\nprint(asyncore.__name__)\n"
    (tmp_path / "program.py").write_text(program)
    found = json.loads(doctor(tmp_path, "--json", "--fix", "program.py").stdout)
    assert [each["done"] for each in found["changes"]] == [True, True]
    assert found["findings"] == []
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "fastcore.asyncore\n"


def test_a_copy_beside_a_script_is_left(tmp_path: Path) -> None:
    (tmp_path / "asyncore.py").write_text(COPY)
    (tmp_path / "program.py").write_text("import asyncore\nasyncore.loop()\n")
    doctor(tmp_path, "--fix", ".")
    assert (tmp_path / "program.py").read_text() == "import asyncore\nasyncore.loop()\n"
    assert (tmp_path / "asyncore.py").read_text() == COPY


@pytest.mark.skipif(
    sys.platform == "win32" or getattr(os, "geteuid", lambda: 0)() == 0,
    reason="folders that refuse writing, to others than root",
)
def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import asyncore\n")
    tmp_path.chmod(0o555)
    try:
        done = doctor(tmp_path, "--fix", "program.py")
    finally:
        tmp_path.chmod(0o755)
    assert "program.py:1: not changed: " in done.stdout


# -- what was recorded of packages ----------------------------------------------------------------


RECORDED = sorted((Path(__file__).parent / "doctor").glob("*.json"))


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_is_recorded_has_the_form_of_findings(path: Path) -> None:
    from fastcore._doctor.findings import RULES, VERDICTS

    recorded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert recorded.keys() == {"package", "version", "from", "findings"}
    for each in recorded["findings"]:
        assert each.keys() == {"file", "line", "rule", "verdict"}
        assert each["verdict"] in VERDICTS
        assert RULES[each["rule"]] in (None, each["verdict"]) or each["rule"] == "copy"
