"""Lines and frames out of a stream of bytes, however it is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from thrum.rpc import _framing as framing
from thrum.rpc._framing import Frame, FrameSplitter, LineSplitter, Overlong


def _cut(data: bytes, layout: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in layout), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(
    st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=8),
    st.binary(max_size=9).map(lambda b: b.replace(b"\n", b"")),
    st.lists(st.integers(min_value=0), max_size=8),
)
def test_lines_are_the_same_however_the_stream_is_cut(lines: list[bytes], rest: bytes, layout: list[int]) -> None:
    splitter = LineSplitter()
    stream = b"".join(line + b"\n" for line in lines) + rest
    found = [line for piece in _cut(stream, layout) for line in splitter.feed(piece)]
    assert found == lines
    assert splitter.pending == len(rest)
    assert splitter.rest() == rest
    assert not splitter.pending


@pytest.mark.parametrize("piece_bytes", [1, 3, 100])
def test_a_line_of_the_limit_passes_and_a_longer_one_does_not(piece_bytes: int) -> None:
    for size, passes in ((10, True), (11, False)):
        splitter = LineSplitter(10)
        stream = b"x" * size + b"\n"
        pieces = [stream[start : start + piece_bytes] for start in range(0, len(stream), piece_bytes)]
        if passes:
            assert [line for piece in pieces for line in splitter.feed(piece)] == [b"x" * size]
        else:
            with pytest.raises(Overlong):
                for piece in pieces:
                    splitter.feed(piece)


@given(
    st.lists(st.tuples(st.sampled_from([b"s", b"a"]), st.binary(max_size=20)), max_size=6),
    st.lists(st.integers(min_value=0), max_size=8),
)
def test_frames_are_the_same_however_the_stream_is_cut(frames: list[tuple[bytes, bytes]], layout: list[int]) -> None:
    splitter = FrameSplitter()
    stream = b"".join(framing.frame(kind, payload) for kind, payload in frames)
    found = [frame for piece in _cut(stream, layout) for frame in splitter.feed(piece)]
    assert found == [Frame(kind, payload) for kind, payload in frames]


def test_what_is_no_frame_to_the_daemon_is_refused() -> None:
    with pytest.raises(ValueError, match="not a frame"):
        FrameSplitter().feed(framing.frame(b"o", b"hi"))
    with pytest.raises(Overlong):
        FrameSplitter().feed(b"s\xff\xff\xff\xff")


def test_output_goes_in_frames_of_64_kib() -> None:
    frames = framing.output_frames(b"o", b"x" * 150_000)
    assert [len(frame) - 5 for frame in frames] == [65536, 65536, 150_000 - 2 * 65536]
    assert framing.output_frames(b"o", b"") == []
