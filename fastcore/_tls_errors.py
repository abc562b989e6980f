"""What the errors of TLS mean, and what to do about them, in plain words.

Knows errors, the context that they came from, and the first bytes of the peer: nothing else.
"""

from __future__ import annotations

import errno
import ssl

__all__ = ["ClearTextRefused", "HandshakeTimeout", "NotYet", "explain"]


class ClearTextRefused(ssl.SSLError):
    """The peer sent something in the clear behind the command that begins TLS."""


class HandshakeTimeout(ssl.SSLError, TimeoutError):
    """The handshake was not done within its time."""


class NotYet(ssl.SSLWantReadError, BlockingIOError):
    """Nothing can be read or sent now, for whichever of its two bases somebody looks."""

    def __init__(self) -> None:
        super().__init__(errno.EAGAIN, "nothing can be read or sent now")


_HTTP = (b"GET ", b"POST", b"HEAD", b"PUT ", b"OPTI", b"DELE", b"PATC", b"HTTP", b"CONN")

_CERTIFICATE = {
    9: "the peer's certificate is not valid yet: look at the clocks",
    10: "the peer's certificate has expired: the peer needs a new one",
    18: "the peer's certificate is signed by itself: if it is to be trusted, load it with "
    "context.load_verify_locations()",
}
_NAME = (
    "the certificate is for other names: pass the right one as server_hostname, or give the peer "
    "a certificate for {name!r}"
)
_UNKNOWN_CA = (
    "nobody whom the context trusts has signed the certificate: load the authority's own with "
    "context.load_verify_locations()"
)
_OLD = (
    "one side speaks versions of TLS only that the other refuses: look at minimum_version and "
    "maximum_version of both"
)
_REFUSED_OURS = (
    "the peer refuses our certificate: it does not know who has signed it, or that is out of date"
)
_REASONS = {
    "HTTP_REQUEST": "the peer speaks plain HTTP: its address must begin with https://",
    "HTTPS_PROXY_REQUEST": "the peer takes this port for that of an HTTP proxy",
    "UNSUPPORTED_PROTOCOL": _OLD,
    "NO_PROTOCOLS_AVAILABLE": "minimum_version and maximum_version of the context leave no version",
    "VERSION_TOO_LOW": _OLD,
    "WRONG_SSL_VERSION": _OLD,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OLD,
    "NO_SHARED_CIPHER": "the sides have no cipher in common: the context may lack a certificate "
    "(load_cert_chain), or set_ciphers() leaves too few",
    "NO_SUITABLE_SIGNATURE_ALGORITHM": "the peer takes no certificate of the kind that we have",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the peer finds no cipher or version in common, or misses "
    "a certificate: look at its log",
    "TLSV1_ALERT_UNKNOWN_CA": _REFUSED_OURS,
    "SSLV3_ALERT_BAD_CERTIFICATE": _REFUSED_OURS,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _REFUSED_OURS,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _REFUSED_OURS,
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": "the peer has sent no certificate, and verify_mode of the "
    "context asks for one",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "the peer wants a certificate: load one with "
    "context.load_cert_chain()",
    "TLSV1_ALERT_NO_APPLICATION_PROTOCOL": "the peer speaks none of the protocols that were "
    "offered with set_alpn_protocols()",
    "TLSV1_UNRECOGNIZED_NAME": "the peer does not know the name given as server_hostname",
}


def explain(
    error: ssl.SSLError, first: bytes, name: str | None, established: bool, reset: bool
) -> None:
    """Add to the text of `error` what it means, and what to do.

    `first` is what came first from the peer, `name` the server_hostname; `reset`: the connection
    was reset.  The class and all other attributes of the error stay what they are.
    """
    hint = _hint(error, first, name, established, reset)
    if hint:
        error.strerror = f"{error.strerror or error}; {hint}"


def _hint(
    error: ssl.SSLError, first: bytes, name: str | None, established: bool, reset: bool
) -> str | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in (62, 64):
            return _NAME.format(name=name)
        return _CERTIFICATE.get(error.verify_code, _UNKNOWN_CA)
    if not established and first and first[0] not in (0x15, 0x16):
        if first[:4] in _HTTP:
            return _REASONS["HTTP_REQUEST"]
        return (
            f"the peer does not speak TLS here, it began with {first[:16]!r}: try another port, "
            "or a command such as STARTTLS first"
        )
    if isinstance(error, ssl.SSLEOFError):
        end = "was reset" if reset else "ended"
        if established:
            return f"the connection {end} before the peer said that it was all: some may be missing"
        return f"the connection {end} in the middle of the handshake: the peer's log may say why"
    return _REASONS.get(error.reason or "")
