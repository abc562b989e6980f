"""async_chat's input: terminators, buffers, limits.  Its output is in test_asynchat_output.py."""

from __future__ import annotations

from typing import Any

import pytest
from support import Site


@pytest.fixture
def site(fast: Any) -> Any:
    with Site(fast) as site:
        yield site


class Chatting:
    """Notes in `calls` what async_chat passes on, and what is left in ac_in_buffer then."""

    def __init__(self: Any, *args: Any) -> None:
        super().__init__(*args)
        self.calls: list[tuple[str, bytes]] = []
        self.left: list[bytes] = []

    def collect_incoming_data(self: Any, data: bytes) -> None:
        self.calls.append(("data", data))
        self.left.append(bytes(self.ac_in_buffer))

    def found_terminator(self: Any) -> None:
        self.calls.append(("end", b""))
        self.left.append(bytes(self.ac_in_buffer))
        if self.script:
            self.set_terminator(self.script.pop(0))

    @property
    def lines(self) -> list[bytes]:
        """What stood before each terminator, put together."""
        found, line = [], b""
        for kind, data in self.calls:
            line += data
            if kind == "end":
                found.append(line)
                line = b""
        return found

    script: Any = ()


def chat(site: Site, terminator: Any = b"\n", **attributes: Any) -> tuple[Any, Any]:
    """A chat that notes its calls, and its peer."""
    kind = type("Chat", (Chatting, site.fast.asynchat.async_chat), attributes)
    near, far = site.pair()
    channel = kind(near, site.map)
    channel.set_terminator(terminator)
    return channel, far


def ends(channel: Any) -> int:
    return sum(kind == "end" for kind, _data in channel.calls)


def text(channel: Any) -> bytes:
    return b"".join(data for _kind, data in channel.calls)


# -- terminators ----------------------------------------------------------------------------


@pytest.mark.parametrize("terminator", [b"\n", b"\r\n", b"--end--", b"\0"])
def test_lines(site: Site, terminator: bytes) -> None:
    channel, peer = chat(site, terminator)
    peer.send(b"one" + terminator + b"two" + terminator + terminator + b"three" + terminator)
    site.run_until(lambda: ends(channel) == 4)
    assert channel.lines == [b"one", b"two", b"", b"three"]
    assert ("data", b"") not in channel.calls  # nothing is not passed on


@pytest.mark.parametrize("terminator", [b"\n", b"\r\n", b"qqq", b"abab"])
def test_lines_that_come_in_pieces(site: Site, terminator: bytes) -> None:
    channel, peer = chat(site, terminator, ac_in_buffer_size=1)
    lines = [b"hello", b"qx", b"", b"aba", b"\r"]
    peer.send(b"".join(line + terminator for line in lines))
    site.run_until(lambda: ends(channel) == len(lines))
    assert channel.lines == lines


def test_a_beginning_of_the_terminator_is_held_back(site: Site) -> None:
    channel, peer = chat(site, b"\r\n")
    peer.send(b"line\r")
    site.run_until(lambda: channel.calls)
    assert channel.calls == [("data", b"line")]
    assert channel.ac_in_buffer == b"\r"
    peer.send(b"x\r\n")  # it was none after all
    site.run_until(lambda: ends(channel))
    assert channel.lines == [b"line\rx"]


@pytest.mark.parametrize("size", [1, 3, 65536])
def test_a_number_of_bytes(site: Site, size: int) -> None:
    channel, peer = chat(site, 5, ac_in_buffer_size=size, script=[2, 4])
    peer.send(b"abcdefghijk")
    site.run_until(lambda: ends(channel) == 3)
    assert channel.lines == [b"abcde", b"fg", b"hijk"]
    assert channel.get_terminator() == 0


def test_a_number_counts_down(site: Site) -> None:
    channel, peer = chat(site, 10)
    peer.send(b"1234")
    site.run_until(lambda: channel.calls)
    assert channel.get_terminator() == 6


@pytest.mark.parametrize("terminator", [None, b"", 0])
def test_without_terminator_all_is_data(site: Site, terminator: Any) -> None:
    channel, peer = chat(site, terminator)
    peer.send(b"a\nb\n")
    site.run_until(lambda: channel.calls)
    assert channel.calls == [("data", b"a\nb\n")]


def test_terminators_change_in_mid_buffer(site: Site) -> None:
    channel, peer = chat(site, b"\n", script=[4, b"\r\n", b"END", None])
    peer.send(b"head\n1\n34line\nline\r\nbodyENDrest\nEND")
    site.run_until(lambda: b"rest" in text(channel))
    assert channel.lines == [b"head", b"1\n34", b"line\nline", b"body"]
    assert channel.calls[-1] == ("data", b"rest\nEND")


def test_a_terminator_that_changes_while_data_is_passed_on(site: Site) -> None:
    """As in the standard library: the one that was found still counts."""

    def collect(data: bytes) -> None:
        channel.calls.append(("data", data))
        channel.set_terminator(3)

    channel, peer = chat(site, b"\n")
    channel.collect_incoming_data = collect
    peer.send(b"line\nabc")
    site.run_until(lambda: ends(channel) == 2)
    assert channel.lines == [b"line", b"abc"]


def test_get_terminator_is_asked_for_each_piece(site: Site) -> None:
    terminators = [b"\n", b";"]
    channel, peer = chat(site)
    channel.get_terminator = lambda: terminators[ends(channel) % 2]
    peer.send(b"a\nb;c\nd;")
    site.run_until(lambda: ends(channel) == 4)
    assert channel.lines == [b"a", b"b", b"c", b"d"]


def test_a_negative_number_is_refused(site: Site) -> None:
    channel, _peer = chat(site)
    with pytest.raises(ValueError, match="positive"):
        channel.set_terminator(-1)


def test_text_is_encoded_where_asked_for(site: Site) -> None:
    channel, peer = chat(site, "\xe9", use_encoding=1, encoding="latin-1")
    assert channel.get_terminator() == b"\xe9"
    peer.send(b"caf\xe9!")
    site.run_until(lambda: ends(channel))
    assert channel.lines == [b"caf"]


# -- ac_in_buffer and the overrides -----------------------------------------------------------


@pytest.mark.parametrize("looks", ["always", "never", "sometimes"])
def test_ac_in_buffer_is_exact_in_every_callback(site: Site, looks: str) -> None:
    """The piece that is passed on is still in it; a terminator that was found is not."""
    channel, peer = chat(site, b"\n", script=[b"\n", 3, b"\n", None])
    seen: list[tuple[str, bytes, bytes]] = []

    def note(kind: str, data: bytes) -> None:
        if looks == "always" or (looks == "sometimes" and len(seen) % 2):
            seen.append((kind, data, channel.ac_in_buffer))
        else:
            seen.append((kind, data, b"not asked"))

    def found() -> None:
        note("end", b"")
        channel.set_terminator(channel.script.pop(0))

    channel.collect_incoming_data = lambda data: note("data", data)
    channel.found_terminator = found
    peer.send(b"one\ntwo\n345six\nrest")
    site.run_until(lambda: seen and seen[-1][1] == b"rest")
    expected = [
        ("data", b"one", b"one\ntwo\n345six\nrest"),
        ("end", b"", b"two\n345six\nrest"),
        ("data", b"two", b"two\n345six\nrest"),
        ("end", b"", b"345six\nrest"),
        ("data", b"345", b"345six\nrest"),
        ("end", b"", b"six\nrest"),
        ("data", b"six", b"six\nrest"),
        ("end", b"", b"rest"),
        ("data", b"rest", b"rest"),
    ]
    assert [one[:2] for one in seen] == [one[:2] for one in expected]
    pairs = zip(seen, expected, strict=True)
    assert all(one == other for one, other in pairs if one[2] != b"not asked")
    assert channel.ac_in_buffer == b""


def test_ac_in_buffer_can_be_assigned_in_a_callback(site: Site) -> None:
    channel, peer = chat(site)

    def found() -> None:
        channel.calls.append(("end", b""))
        if ends(channel) == 1:
            channel.ac_in_buffer = b"other\n" + channel.ac_in_buffer.upper()

    channel.found_terminator = found
    peer.send(b"one\ntwo\n")
    site.run_until(lambda: ends(channel) == 3)
    assert channel.lines == [b"one", b"other", b"TWO"]


def test_discard_buffers_in_a_callback_forgets_the_rest(site: Site) -> None:
    channel, peer = chat(site)

    def found() -> None:
        channel.calls.append(("end", b""))
        channel.discard_buffers()

    channel.found_terminator = found
    channel.incoming.append(b"old")
    peer.send(b"one\ntwo\nthree\n")
    site.run_until(lambda: ends(channel))
    peer.send(b"four\n")
    site.run_until(lambda: ends(channel) == 2)
    assert channel.lines == [b"one", b"four"]
    assert channel.incoming == []


def test_a_burst_of_lines_is_not_copied_again_for_each(site: Site) -> None:
    """Counted: the bytes that are cut out of the buffer, and those looked through."""
    cut = scanned = 0

    class Counting(bytes):
        def __getitem__(self, key: Any) -> Any:
            nonlocal cut
            piece = super().__getitem__(key)
            cut += len(piece) if isinstance(key, slice) else 1
            return Counting(piece) if isinstance(key, slice) else piece

        def find(self, what: Any, start: int = 0, end: int = 1 << 60) -> int:  # type: ignore[override]
            nonlocal scanned
            index = super().find(what, start, end)
            scanned += (index if index >= 0 else len(self)) - start
            return index

    burst = Counting(b"".join(b"line %06d\n" % number for number in range(5_000)))
    channel, peer = chat(site, ac_in_buffer_size=len(burst))
    received = [burst]
    channel.recv = lambda size: received.pop()
    channel.collect_incoming_data = lambda data: channel.calls.append(("data", bytes(data)))
    channel.found_terminator = lambda: channel.calls.append(("end", b""))
    peer.send(b"x")
    site.run_until(lambda: ends(channel) == 5_000)
    assert channel.lines[-1] == b"line 004999"
    assert cut <= 2 * len(burst)
    assert scanned <= 3 * len(burst)


def test_recv_is_asked_for_ac_in_buffer_size(site: Site) -> None:
    sizes: list[int] = []

    def recv(self: Any, size: int) -> bytes:
        sizes.append(size)
        return bytes(site.asyncore.dispatcher.recv(self, size))

    channel, peer = chat(site, ac_in_buffer_size=7, recv=recv)
    peer.send(b"0123456789\n")
    site.run_until(lambda: ends(channel))
    assert set(sizes) == {7}
    assert channel.lines == [b"0123456789"]


def test_handle_read_can_be_overridden_on_the_instance(site: Site) -> None:
    channel, peer = chat(site)
    got: list[bytes] = []
    channel.handle_read = lambda: got.append(channel.recv(100))
    peer.send(b"raw\n")
    site.run_until(lambda: got)
    assert got == [b"raw\n"]
    assert channel.calls == []


def test_a_spurious_read_is_ignored(site: Site) -> None:
    channel, _peer = chat(site)
    channel.handle_read()
    assert channel.calls == []
    assert channel.connected


def test_an_error_of_recv_goes_to_handle_error(site: Site) -> None:
    channel, peer = chat(site)
    errors: list[str] = []

    def recv(size: int) -> bytes:
        raise OSError(5, "input and output")

    channel.recv = recv
    channel.handle_error = lambda: (errors.append("seen"), channel.close())
    peer.send(b"x")
    site.run_until(lambda: errors)
    assert errors == ["seen"]


def test_a_failing_callback_goes_to_handle_error(site: Site) -> None:
    channel, peer = chat(site)
    errors: list[str] = []
    channel.found_terminator = lambda: 1 / 0
    channel.handle_error = lambda: (errors.append("seen"), channel.close())
    peer.send(b"one\n")
    site.run_until(lambda: errors)
    assert channel.calls == [("data", b"one")]


def test_the_end_of_the_stream_closes(site: Site) -> None:
    channel, peer = chat(site)
    peer.send(b"one\npart")
    peer.close()
    site.run_until(lambda: not site.map)
    assert channel.lines == [b"one"]
    assert channel.calls[-1] == ("data", b"part")


def test_what_must_be_defined_says_so(site: Site) -> None:
    plain = site.fast.asynchat.async_chat(None, site.map)
    with pytest.raises(NotImplementedError):
        plain.collect_incoming_data(b"")
    with pytest.raises(NotImplementedError):
        plain.found_terminator()


def test_the_collecting_helpers(site: Site) -> None:
    channel, _peer = chat(site)
    channel._collect_incoming_data(b"one")
    channel._collect_incoming_data(b"two")
    assert channel._get_data() == b"onetwo"
    assert channel._get_data() == b""


@pytest.mark.parametrize(
    ("haystack", "size"), [(b"", 0), (b"abc", 0), (b"abc\r", 1), (b"\r\n\r", 3), (b"\r\n", 2)]
)
def test_find_prefix_at_end(fast: Any, haystack: bytes, size: int) -> None:
    assert fast.asynchat.find_prefix_at_end(haystack, b"\r\n\r\n") == size


# -- the limit of a line ----------------------------------------------------------------------


def test_without_limit_a_line_grows(site: Site) -> None:
    channel, peer = chat(site)
    assert channel.ac_max_line_size is None
    for _ in range(4):
        peer.send(b"x" * 10_000)
        site.run_until(lambda: not len(text(channel)) % 10_000)
    peer.send(b"\n")
    site.run_until(lambda: ends(channel))
    assert channel.lines == [b"x" * 40_000]


@pytest.mark.parametrize("size", [1, 65536])
def test_a_line_at_the_limit_is_passed_on(site: Site, size: int) -> None:
    channel, peer = chat(site, ac_max_line_size=5, ac_in_buffer_size=size)
    peer.send(b"12345\n12345\n")
    site.run_until(lambda: ends(channel) == 2)
    assert channel.lines == [b"12345"] * 2


@pytest.mark.parametrize("sent", [b"123456", b"123456\n", b"123456\nnext\n"])
@pytest.mark.parametrize("size", [1, 65536])
def test_a_line_over_the_limit_closes(
    site: Site, capsys: pytest.CaptureFixture[str], size: int, sent: bytes
) -> None:
    channel, peer = chat(site, ac_max_line_size=5, ac_in_buffer_size=size)
    peer.send(b"good\n" + sent)
    site.run_until(lambda: not site.map)
    assert channel.lines == [b"good"]
    assert len(text(channel)) <= len(b"good12345")  # nothing after the limit
    assert channel.ac_in_buffer == b""
    assert "5 bytes" in capsys.readouterr().out
    assert channel.socket.fileno() == -1


def test_the_limit_has_its_own_hook(site: Site) -> None:
    hooked: list[int] = []
    channel, peer = chat(
        site, ac_max_line_size=5, handle_line_too_long=lambda self: hooked.append(len(self.calls))
    )
    peer.send(b"123456789\nshort\n")
    site.run_until(lambda: ends(channel) == 2)
    assert hooked == [0]  # before the data is passed on
    assert channel.lines == [b"123456789", b"short"]


def test_the_limit_is_not_for_numbers_and_bulk(site: Site) -> None:
    channel, peer = chat(
        site, 20, ac_max_line_size=5, handle_line_too_long=pytest.fail, script=[None]
    )
    peer.send(b"x" * 40)
    site.run_until(lambda: len(text(channel)) == 40)
    assert ends(channel) == 1
