"""Mutations that keep a document one: a value of it becomes another, goes, or comes twice.

A fuzzer that flips bytes seldom gets past a parser of JSON; behind it are the checks that matter.
"""

from __future__ import annotations

import random
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgpack
import orjson
import tomli_w

_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 255, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, -(2**31)),
    *(0.5, float("inf"), "", "a", "..", "a/b", "\0", "é", "e\u0301", "CON", "9" * 30, "x" * 300),
    *([], [0], [None], [[]], ["a", "b"], {}, {"a": 1}, {"": {}}),
)
_BYTES = (b"", b"\0" * 4, b"\1\0\0\0", b"\xff" * 8, b"x" * 31, b"x" * 32)


@dataclass(frozen=True, slots=True)
class Form:
    """How a document is written: bytes to value and back; the first ``prefix`` bytes stay."""

    loads: Callable[[bytes], Any]
    dumps: Callable[[Any], bytes]
    prefix: int = 0

    def reshape(self, data: bytes, seed: int) -> bytes:
        """A neighbour of a document; the bytes themselves if they are none."""
        draw = random.Random(seed)  # noqa: S311 (a fuzzer's dice)
        try:
            value = self.loads(data[self.prefix :])
            for _ in range(draw.choice((1, 1, 2, 4))):
                value = _changed(value, draw)
            return data[: self.prefix] + self.dumps(value)
        except Exception:  # noqa: BLE001 (of any parser, about any bytes)
            return data


def _changed(value: Any, draw: random.Random) -> Any:  # noqa: ANN401
    """The same value with one of its nodes changed."""
    if isinstance(value, (dict, list)) and value and draw.random() < 0.8:
        key = draw.choice(list(value) if isinstance(value, dict) else range(len(value)))
        what = draw.random()
        if what < 0.1:
            value.pop(key)
        elif what < 0.2 and isinstance(value, list):
            value.insert(key, value[key])
        elif what < 0.25 and isinstance(value, dict):
            value[draw.choice(["a", "..", "format", "", "original"])] = value[key]
        else:
            value[key] = _changed(value[key], draw)
        return value
    if isinstance(value, int) and draw.random() < 0.5:
        return value + draw.choice((-1, 1, 2, 256))
    if isinstance(value, bytes) and draw.random() < 0.8:
        return _changed_bytes(value, draw)
    if isinstance(value, str) and draw.random() < 0.5:
        place = draw.randrange(len(value) + 1)
        return (
            value[:place] + draw.choice(("/", "..", "\0", " ", ".", "A", ":", "9")) + value[place:]
        )
    return draw.choice(_VALUES + _BYTES)


def _changed_bytes(value: bytes, draw: random.Random) -> bytes:
    if not value or draw.random() < 0.2:
        return draw.choice(_BYTES)
    place, what = draw.randrange(len(value)), draw.random()
    if what < 0.2:
        return value[:place]
    if what < 0.4:
        return value[:place] + value[place // 2 : place] + value[place:]
    return value[:place] + bytes([draw.randrange(256)]) + value[place + 1 :]


def _load_lines(data: bytes) -> Any:  # noqa: ANN401
    return [orjson.loads(line) for line in data.splitlines()]


def _dump_lines(value: Any) -> bytes:  # noqa: ANN401
    return b"".join(orjson.dumps(line) + b"\n" for line in value)


MSGPACK = Form(msgpack.unpackb, msgpack.packb)
JSON_LINES = Form(_load_lines, _dump_lines)
TOML = Form(lambda data: tomllib.loads(data.decode()), lambda value: tomli_w.dumps(value).encode())
