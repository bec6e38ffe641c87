"""Any bytes have a content, the same from memory and from a file, and never an exception."""

from __future__ import annotations

import tempfile

from hypothesis import example, given
from hypothesis import strategies as st

from server.audit.content import Content, inspect_bytes, inspect_open
from tests.support import media

WHOLE = (
    media.encoded("JPEG", 16, 16),
    media.encoded("PNG", 16, 16),
    media.encoded("GIF", 16, 16),
    media.encoded("WEBP", 16, 16),
    media.encoded("BMP", 8, 8),
    media.avif(),
    media.ugoira(),
    media.film(),
    media.webm(),
    media.swf(),
    media.SVG,
    media.HTML,
)


def from_file(data: bytes) -> Content:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        return inspect_open(file.fileno(), len(data))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A real file with some of its bytes replaced, lost or doubled."""
    data = bytearray(draw(st.sampled_from(WHOLE)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, max(0, len(data) - 1)))
        end = start + draw(st.integers(0, 20))
        data[start:end] = draw(st.binary(max_size=20) | st.just(bytes(data[start:end] * 2)))
    return bytes(data)


@given(st.binary(max_size=200) | damaged())
@example(media.film()[:-1] + b"\xff")
def test_any_bytes_have_a_content(data: bytes) -> None:
    content = inspect_bytes(data)
    assert 0 <= content.width < 2**32
    assert 0 <= content.height < 2**32
    assert from_file(data) == content


@given(st.sampled_from(WHOLE), st.binary(max_size=100))
def test_a_known_beginning_and_any_end(whole: bytes, end: bytes) -> None:
    for length in (4, 12, len(whole) // 4):
        inspect_bytes(whole[:length] + end)
