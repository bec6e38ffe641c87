"""What is common to all of docs/reference/format.md, read without a line of the project's code.

The readers that were written from that page alone begin here.
"""

from __future__ import annotations

import struct
from typing import Any

import blake3
import msgpack
import zstandard

MIB = 2**20


def digest(data: bytes) -> bytes:
    """BLAKE3 in hash mode."""
    return bytes(blake3.blake3(data).digest())


# ----------------------------------------------------------------------------- "Canonical msgpack"


def canonical(value: Any) -> bytes:  # noqa: ANN401 (a document)
    """The one encoding, byte by byte; no floats, no extension types."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return _integer(value)
    if isinstance(value, bytes):
        return _head(len(value), 0, 0, b"\xc4\xc5\xc6") + value
    if isinstance(value, str):
        raw = value.encode()
        return _head(len(raw), 0xA0, 32, b"\xd9\xda\xdb") + raw
    if isinstance(value, list):
        return _head(len(value), 0x90, 16, b"\0\xdc\xdd") + b"".join(map(canonical, value))
    keys = sorted(value, key=str.encode)
    pairs = [canonical(key) + canonical(value[key]) for key in keys]
    return _head(len(value), 0x80, 16, b"\0\xde\xdf") + b"".join(pairs)


def _head(length: int, fix: int, below: int, codes: bytes) -> bytes:
    """A length in its shortest form: with the type in one byte, or after the code of its width."""
    if length < below:
        return bytes([fix | length])
    for code, form, most in zip(codes, (">BB", ">BH", ">BI"), (0xFF, 0xFFFF, 2**32), strict=True):
        if code and length <= most:
            return struct.pack(form, code, length)
    raise AssertionError(length)


def _integer(value: int) -> bytes:
    """No key of this version holds a negative one."""
    forms = (
        (0x7F, "", "B"),
        (2**8 - 1, "cc", "B"),
        (2**16 - 1, "cd", "H"),
        (2**32 - 1, "ce", "I"),
    )
    for most, code, form in forms:
        if 0 <= value <= most:
            return bytes.fromhex(code) + struct.pack(f">{form}", value)
    return b"\xcf" + struct.pack(">Q", value)


def document(data: bytes) -> dict[str, Any]:
    """A canonical map of this version; AssertionError for any other bytes."""
    value = msgpack.unpackb(data)
    assert canonical(value) == data
    assert isinstance(value, dict)
    assert value["format"] == 1
    return value


# -------------------------------------------------------------------------------- "Conventions"


def decompress(data: bytes, limit: int) -> bytes:
    """Exactly one frame that states its size."""
    parameters = zstandard.get_frame_parameters(data)
    assert parameters.content_size <= limit
    assert parameters.dict_id == 0
    reader = zstandard.ZstdDecompressor().decompressobj()
    raw = reader.decompress(data)
    assert reader.eof
    assert reader.unused_data == b""
    assert len(raw) == parameters.content_size
    return raw
