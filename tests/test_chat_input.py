"""What a chat has received: both implementations against the plainest one."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from conftest import ENGINES
from hypothesis import given, strategies as st

KINDS = [f"fastcore._{engine}.lines" for engine in ENGINES]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Any:
    return importlib.import_module(request.param).Received


def lines_of(received: Any, terminator: bytes) -> list[bytes]:
    """All whole lines, passed over one by one."""
    found = []
    for line in received.lines(terminator):
        found.append(bytes(line))
        received.pass_over()
    return found


@pytest.mark.parametrize("module", KINDS)
@given(
    pieces=st.lists(st.text("ab\r\n", max_size=12).map(str.encode), max_size=8),
    terminator=st.sampled_from([b"\n", b"\r\n", b"\r\n\r\n", b"aba"]),
)
def test_lines_are_those_that_split_finds(
    module: str, pieces: list[bytes], terminator: bytes
) -> None:
    received = importlib.import_module(module).Received(b"")
    found = []
    for piece in pieces:
        received.feed(piece)
        found += lines_of(received, terminator)
    *expected, rest = b"".join(pieces).split(terminator)
    assert found == expected
    assert received.rest() == rest
    assert (bool(received), received.size()) == (bool(rest), len(rest))


@pytest.mark.parametrize("data", [b"x", bytearray(b"x")])
def test_other_kinds_of_bytes_are_searched_too(kind: Any, data: Any) -> None:
    received = kind(b"")
    received.assign(data + b"--y--z")
    assert lines_of(received, b"--") == [b"x", b"y"]
    assert received.rest() == b"z"
    received.assign(b"x;y;")
    assert lines_of(received, bytearray(b";")) == [b"x", b"y"]


@pytest.mark.parametrize(
    ("data", "terminator", "line"),
    [
        (b"one\r\n", b"\r\n", b"one"),
        (b"\r\n", b"\r\n", b""),
        (b"one\r\ntwo\r\n", b"\r\n", None),
        (b"one\r\ntw", b"\r\n", None),
        (b"one\r", b"\r\n", None),
        (b"x", b"\r\n", None),
        (b"aaa", b"aa", None),  # the first end, not the last one
        (b"one", b"", None),
        (b"one", None, None),
        (b"one", 3, None),
        (bytearray(b"one\n"), b"\n", None),
    ],
)
def test_the_only_line(kind: Any, data: Any, terminator: Any, line: bytes | None) -> None:
    received = kind(b"")
    received.feed(data)
    assert received.only_line(terminator) == line
    if line is not None:
        assert received.rest() == data
        assert received.pass_over() is False
        assert received.rest() == b""


def test_a_piece_is_there_until_it_is_passed_over(kind: Any) -> None:
    received = kind(b"one\ntwo\nth")
    lines = iter(received.lines(b"\n"))
    assert next(lines) == b"one"
    assert received.rest() == b"one\ntwo\nth"
    assert received.pass_over() is True
    assert received.rest() == b"two\nth"
    assert list(lines) == [b"two"]  # to look has changed nothing
    assert lines_of(received, b"\n") == [b"two"]


def test_taking_more_than_there_is_takes_what_there_is(kind: Any) -> None:
    received = kind(b"abcdef")
    assert received.take(2) == b"ab"
    assert received.pass_over() is True
    assert received.take(9) == b"cdef"
    assert received.pass_over() is False
    assert not received
    assert received.take(1) == b""


def test_what_is_assigned_meanwhile_is_passed_over_as_far(kind: Any) -> None:
    received = kind(b"abc\n")
    assert next(iter(received.lines(b"\n"))) == b"abc"
    received.assign(b"123456")
    assert received.pass_over() is True
    assert received.rest() == b"56"  # as the standard library slices what it finds
    received.take(1)
    received.assign(b"")
    assert received.pass_over() is False
