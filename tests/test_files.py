"""file_dispatcher and file_wrapper: pipes, terminals, plain files and /dev/null."""

from __future__ import annotations

import errno
import gc
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support import PATIENCE, Site, elapsed

pytestmark = pytest.mark.skipif(os.name != "posix", reason="file_dispatcher is for POSIX systems")


@pytest.fixture
def site(fast: Any) -> Iterator[Site]:
    with Site(fast) as site:
        yield site


def _reader(site: Site, fd: Any, **attributes: Any) -> Any:
    """A file_dispatcher in the map that collects what it reads, and closes at the end."""

    def handle_read(self: Any) -> None:
        self.data += self.recv(4096)

    defaults = {
        "data": b"",
        "handle_read": handle_read,
        "writable": lambda self: False,
        "handle_expt": lambda self: None,
        "handle_close": lambda self: self.close(),
    }
    kind = type("Reader", (site.asyncore.file_dispatcher,), {**defaults, **attributes})
    return kind(fd, site.map)


def _writer(site: Site, fd: Any, data: bytes, **attributes: Any) -> Any:
    """A file_dispatcher in the map that writes `data` and then closes."""

    def handle_write(self: Any) -> None:
        self.left = self.left[self.send(self.left) :]
        if not self.left:
            self.close()

    defaults = {"left": data, "handle_write": handle_write, "readable": lambda self: False}
    kind = type("Writer", (site.asyncore.file_dispatcher,), {**defaults, **attributes})
    return kind(fd, site.map)


def test_a_pipe_is_read_to_its_end(site: Site) -> None:
    read_end, write_end = site.pipe()
    reader = _reader(site, read_end)
    writer = os.fdopen(os.dup(write_end), "wb")
    os.close(write_end)
    with writer:
        site.turn()
        assert reader.data == b""
        writer.write(b"x" * 50_000)
    site.run_until(lambda: not site.map)
    assert reader.data == b"x" * 50_000


def test_an_idle_pipe_is_waited_for(site: Site) -> None:
    read_end, write_end = site.pipe()
    reader = _reader(site, read_end)
    assert elapsed(lambda: site.turn(timeout=0.03)) >= 0.029
    site.loop.call_later(0.01, os.write, write_end, b"x")
    site.run_until(lambda: reader.data)
    assert reader.data == b"x"


def test_a_pipe_is_written_as_it_empties(site: Site) -> None:
    read_end, write_end = site.pipe()
    data = os.urandom(300_000)
    writer = _writer(site, write_end, data)
    os.close(write_end)
    reader = _reader(site, read_end)
    site.run_until(lambda: not site.map)
    assert reader.data == data
    assert writer.left == b""


@pytest.mark.parametrize("use_poll", [False, True])
def test_a_pipe_whose_reader_is_gone_closes_its_writer(site: Site, use_poll: bool) -> None:
    read_end, write_end = site.pipe()
    closed: list[int] = []

    def handle_close(self: Any) -> None:
        closed.append(1)
        self.close()

    _writer(site, write_end, b"x", handle_close=handle_close)
    os.close(read_end)
    site.run_until(lambda: not site.map, use_poll=use_poll)
    assert closed == [1]


def test_a_terminal_is_read_and_written(site: Site) -> None:
    ours, peer = os.openpty()
    site.keep(ours), site.keep(peer)
    import tty  # of POSIX systems only

    tty.setraw(peer)
    _writer(site, ours, b"typed")
    reader = _reader(site, peer)
    site.run_until(lambda: reader.data == b"typed")
    os.set_blocking(ours, True)
    os.write(ours, b"more")
    site.run_until(lambda: reader.data == b"typedmore")


def test_a_plain_file_is_always_ready(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "plain"
    data = os.urandom(40_000)
    path.write_bytes(data)
    with path.open("rb") as file:
        reader = _reader(site, file)
        assert reader.socket.fileno() != file.fileno()
    site.run_until(lambda: not site.map)
    assert reader.data == data


def test_a_plain_file_is_written(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "plain"
    with path.open("wb") as file:
        _writer(site, file.fileno(), b"written")
    site.run_until(lambda: not site.map)
    assert path.read_bytes() == b"written"


def test_a_plain_file_does_not_starve_a_socket(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(b"x" * 100)
    ours, peer = site.pair()
    channel = site.channel(ours)
    with path.open("rb") as file:
        _reader(site, file, handle_read=lambda self: None)
    peer.send(b"x")
    site.turn(count=3, timeout=5)
    assert channel.received == b"x"


def test_a_plain_file_that_wants_nothing_does_not_spin(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(b"x" * 100)
    with path.open("rb") as file:
        reader = _reader(site, file)
    reader.readable = lambda: False
    site.turn()
    assert elapsed(lambda: site.turn(timeout=0.03)) >= 0.029
    assert reader.data == b""


@pytest.mark.parametrize("writing", [False, True])
def test_dev_null_is_always_ready(site: Site, writing: bool) -> None:
    with open(os.devnull, "r+b", buffering=0) as file:
        channel = _writer(site, file, b"gone") if writing else _reader(site, file)
    assert elapsed(lambda: site.asyncore.loop(timeout=30, map=site.map)) < PATIENCE
    assert site.map == {}
    assert not getattr(channel, "left", b"")


def test_a_number_may_change_between_file_and_socket(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "plain"
    path.write_bytes(b"plain")
    ours, peer = site.pair()
    with path.open("rb") as file:
        reader = _reader(site, file)
        number = reader.socket.fileno()
        site.run_until(lambda: reader.data == b"plain")
        for _ in range(2):
            reader.close()
            os.dup2(ours.fileno(), number)
            channel = site.channel(site.keep(socket.socket(fileno=number)))
            peer.send(b"x")
            site.turn(timeout=5)
            assert channel.events == [("read", b"x")]
            assert elapsed(lambda: site.turn(timeout=0.03)) >= 0.029
            channel.close()
            file.seek(0)
            reader = again = _reader(site, file)
            assert again.socket.fileno() == number
            site.run_until(lambda again=again: again.data == b"plain")


# -- file_wrapper --------------------------------------------------------------------------------


def test_a_wrapper_duplicates_and_closes_its_own(site: Site) -> None:
    read_end, write_end = site.pipe()
    wrapper = site.asyncore.file_wrapper(write_end)
    assert wrapper.fileno() not in (read_end, write_end)
    assert wrapper.send(b"one") == 3
    assert wrapper.write(b"two") == 3
    wrapper.close()
    wrapper.close()
    assert wrapper.fileno() == -1
    wrapper = site.asyncore.file_wrapper(read_end)
    assert wrapper.recv(3) == b"one"
    assert wrapper.read(100) == b"two"
    wrapper.close()
    os.fstat(read_end), os.fstat(write_end)


def test_a_wrapper_knows_one_socket_option(site: Site) -> None:
    read_end, _ = site.pipe()
    wrapper = site.asyncore.file_wrapper(read_end)
    assert wrapper.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    for arguments in ((socket.SOL_SOCKET, socket.SO_TYPE), (1, socket.SO_ERROR, 4)):
        with pytest.raises(NotImplementedError):
            wrapper.getsockopt(*arguments)
    wrapper.close()


def test_a_forgotten_wrapper_warns_and_closes(site: Site) -> None:
    read_end, _ = site.pipe()
    wrapper = site.asyncore.file_wrapper(read_end)
    number = wrapper.fileno()
    with pytest.warns(ResourceWarning, match="unclosed file"):
        del wrapper
        gc.collect()
    with pytest.raises(OSError) as caught:
        os.fstat(number)
    assert caught.value.errno == errno.EBADF


def test_a_wrapper_closed_by_others_raises_once(site: Site) -> None:
    read_end, _ = site.pipe()
    wrapper = site.asyncore.file_wrapper(read_end)
    os.close(wrapper.fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        wrapper.close()
    wrapper.close()


def test_a_file_dispatcher_is_connected_and_does_not_block(site: Site) -> None:
    read_end, _ = site.pipe()
    reader = _reader(site, read_end)
    assert reader.connected is True
    assert os.get_blocking(reader.socket.fileno()) is False
    assert site.map == {reader.socket.fileno(): reader}
    with pytest.raises(BlockingIOError):
        reader.recv(10)
    reader.close()
    assert site.map == {}
