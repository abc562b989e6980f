"""What channels log, sent to the module logging."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from support import Site


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site
    fast.logs._print()


def test_levels_and_the_channel(site: Site, caplog: Any, capsys: Any) -> None:
    caplog.set_level(logging.DEBUG)
    site.fast.logs.use_logging()
    channel = site.asyncore.dispatcher(None, site.map)
    channel.log("a hit")
    for kind in ("debug", "info", "error", "of their own"):
        channel.log_info(f"message 100% {kind}", kind)
    channel.log_info("ignored", "warning")
    found = [(each.levelname, each.getMessage()) for each in caplog.records]
    assert found == [
        ("INFO", "a hit"),
        ("DEBUG", "message 100% debug"),
        ("INFO", "message 100% info"),
        ("ERROR", "message 100% error"),
        ("INFO", "message 100% of their own"),
    ]
    assert {each.channel for each in caplog.records} == {channel}
    assert {each.name for each in caplog.records} == {"fastcore.asyncore"}
    assert {each.funcName for each in caplog.records} == {"test_levels_and_the_channel"}
    active = sys.exc_info()  # of whoever runs the tests
    expected = [None, None, None, active if active[1] is not None else None, None]
    assert [each.exc_info for each in caplog.records] == expected
    assert capsys.readouterr() == ("", "")


def test_an_exception_in_a_handler_has_its_traceback(site: Site, caplog: Any, capsys: Any) -> None:
    site.fast.logs.use_logging()

    class Channel(site.asyncore.dispatcher):  # type: ignore[misc,name-defined]
        def handle_read(self) -> None:
            raise RuntimeError("of a handler")

        def writable(self) -> bool:
            return False

    ours, peer = site.pair()
    channel = Channel(ours, site.map)
    peer.send(b"x")
    site.run_until(lambda: not site.map)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR and record.channel is channel
    assert "uncaptured python exception" in record.getMessage()
    assert isinstance(record.exc_info[1], RuntimeError)
    assert "in handle_read" in caplog.text
    assert capsys.readouterr() == ("", "")


def test_another_logger_and_other_levels(site: Site, caplog: Any) -> None:
    caplog.set_level(1)
    site.fast.logs.use_logging(logging.getLogger("ours"), {"info": 5, "error": logging.CRITICAL})
    channel = site.asyncore.dispatcher(None, site.map)
    channel.log_info("a")
    channel.log_info("b", "error")
    assert [(each.name, each.levelno) for each in caplog.records] == [("ours", 5), ("ours", 50)]


def test_a_class_that_overrides_log_info_keeps_it(site: Site, caplog: Any, capsys: Any) -> None:
    class Channel(site.asyncore.dispatcher):  # type: ignore[misc,name-defined]
        def log_info(self, message: Any, type: str = "info") -> None:
            print("own", message)

    site.fast.logs.use_logging()
    Channel(None, site.map).log_info("message")
    assert capsys.readouterr().out == "own message\n"
    assert caplog.records == []


def test_the_way_back(site: Site, caplog: Any, capsys: Any) -> None:
    channel = site.asyncore.dispatcher(None, site.map)
    site.fast.logs.use_logging("first")
    back = site.fast.logs.use_logging("second")
    channel.log_info("a", "error")
    back()
    channel.log_info("b", "error")
    channel.log("c")
    assert [each.name for each in caplog.records] == ["second"]
    assert capsys.readouterr() == ("error: b\n", "log: c\n")
