"""Compares what the doctor says of well-known packages with what was recorded; `make doctor-check`.

    python check.py [--record] [PACKAGE ...]

Each record names the package, its version and where it is from: "index" is the package index; a
repository's address is cloned.  What was recorded has been read line by line against the sources.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastcore._doctor.command import examine
from fastcore._doctor.files import walk
from fastcore._doctor.unit import Unit

HERE = Path(__file__).parent


def bring(record: dict[str, Any], folder: Path) -> None:
    """Put the package's sources into that folder."""
    name, version, origin = record["package"], record["version"], record["from"]
    if origin != "index":
        for command in (["init", "-q"], ["fetch", "-q", "--depth=1", origin, version]):
            subprocess.run(["git", *command], cwd=folder, check=True)
        subprocess.run(["git", "checkout", "-q", "FETCH_HEAD"], cwd=folder, check=True)
        return
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"{name}=={version}"]
    subprocess.run(command, cwd=folder, check=True)
    (archive,) = folder.iterdir()
    if archive.suffix == ".whl":
        archive = archive.rename(archive.with_suffix(".zip"))
    subprocess.run([sys.executable, "-c", UNPACK, archive], cwd=folder, check=True)


UNPACK = "import shutil, sys; shutil.unpack_archive(sys.argv[1], '.')"


def findings(folder: Path) -> list[dict[str, object]]:
    """What the doctor says of it, in the form of the records."""
    return [
        {
            "file": each.path.relative_to(folder).as_posix(),
            "line": each.line,
            "rule": each.rule,
            "verdict": each.verdict,
        }
        for each in examine(Unit(walk(folder)))
    ]


def compare(path: Path, record_it: bool) -> bool:
    """Whether one package has the findings that are recorded; says what is otherwise."""
    record = json.loads(path.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        bring(record, folder)
        found = findings(folder)
    if record_it:
        lines = ",\n".join(f"    {json.dumps(each)}" for each in found)
        head = "".join(f'  "{key}": {json.dumps(record[key])},\n' for key in list(record)[:3])
        path.write_text(f'{{\n{head}  "findings": [\n{lines}\n  ]\n}}\n', encoding="utf-8")
        return True
    missing = [each for each in record["findings"] if each not in found]
    new = [each for each in found if each not in record["findings"]]
    print(f"{record['package']} {record['version']}: {len(found)} findings", flush=True)
    for title, several in (("no longer found", missing), ("not recorded", new)):
        for each in several:
            print(f"  {title}: {json.dumps(each)}")
    return not (missing or new)


if __name__ == "__main__":
    asked = [each for each in sys.argv[1:] if not each.startswith("-")]
    paths = [HERE / f"{name}.json" for name in asked] or sorted(HERE.glob("*.json"))
    wrong = [path.stem for path in paths if not compare(path, "--record" in sys.argv)]
    sys.exit(f"not as recorded: {', '.join(wrong)}" if wrong else 0)
