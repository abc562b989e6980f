"""Certificates for the tests of TLS, in files: by trustme, or by the openssl command.

What trustme needs has no wheels for some of the Pythons that are tested.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

try:
    import trustme
except ImportError:
    trustme = None  # type: ignore[assignment]

_FOLDER = Path(tempfile.mkdtemp(prefix="fastcore-tests-"))
atexit.register(shutil.rmtree, _FOLDER, ignore_errors=True)

# The authority's certificate; those of the server and of the client, each with its key.
CA, SERVER, CLIENT = (_FOLDER / f"{name}.pem" for name in ("ca", "server", "client"))


def _by_trustme() -> None:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(CA)
    for path, name in ((SERVER, "localhost"), (CLIENT, "client@localhost")):
        ca.issue_cert(name).private_key_and_cert_chain_pem.write_to_path(path)


def _by_openssl() -> None:
    key = _FOLDER / "ca.key"
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _openssl(key, CA, "/CN=tests of fastcore", "basicConstraints=critical,CA:TRUE", *usage)
    for path, name in ((SERVER, "DNS:localhost"), (CLIENT, "email:client@localhost")):
        own = path.with_suffix(".key")
        signed_by = ["-CA", str(CA), "-CAkey", str(key)]
        _openssl(own, path, f"/CN={name}", f"subjectAltName={name}", *signed_by)
        path.write_text(own.read_text() + path.read_text())


def _openssl(key: Path, certificate: Path, subject: str, extension: str, *others: str) -> None:
    line = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2".split()
    named = ["-keyout", str(key), "-out", str(certificate), "-subj", subject]
    # Without the settings of the system, which may make an authority of everybody.
    line += [*named, "-addext", extension, "-config", str(_settings()), *others]
    subprocess.run(line, check=True, capture_output=True, stdin=subprocess.DEVNULL)


def _settings() -> Path:
    path = _FOLDER / "openssl.cnf"
    path.write_text("[req]\ndistinguished_name = name\n[name]\n")
    return path


if trustme is not None:
    _by_trustme()
elif shutil.which("openssl"):
    _by_openssl()
else:
    pytest.skip("there is neither trustme nor openssl here", allow_module_level=True)
