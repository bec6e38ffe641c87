"""Tables as JSON lines, cut into numbered shards as BigQuery exports them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import orjson

Row: TypeAlias = dict[str, object]

# Real shards have 400,000 rows; small ones here show that there are several.
_SHARD_ROWS = 500


def write_shards(folder: Path, table: str, rows: Sequence[Row]) -> None:
    """Write ``TABLE000000000000.json`` and so on into ``folder``, leaving out values of None."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(max(1, -(-len(rows) // _SHARD_ROWS))):
        part = rows[shard * _SHARD_ROWS : (shard + 1) * _SHARD_ROWS]
        lines = b"".join(orjson.dumps(_present(row)) + b"\n" for row in part)
        (folder / f"{table}{shard:012d}.json").write_bytes(lines)


def timestamp(unix_s: int, micros: int = 0) -> str:
    """``2019-03-04 05:06:07.89 UTC``: a fraction of up to six digits, none if it is zero."""
    whole = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(unix_s))
    fraction = f".{micros:06d}".rstrip("0").rstrip(".")
    return f"{whole}{fraction} UTC"


def optional(number: int | None) -> str | None:
    """An integer as these exports write it, in quotes; None stays None."""
    return None if number is None else str(number)


def _present(row: Row) -> Row:
    return {name: value for name, value in row.items() if value is not None}
