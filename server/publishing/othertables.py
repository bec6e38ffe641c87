"""Tables of metadata that nothing here understands, and that are shipped as they are.

Notes, artists, commentaries and whatever else lies in a folder of metadata: files of lines of
JSON under the name of a table.  They are not looked for in archives.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import orjson

from syncclient.metadata import Kind, kind_of, read_blocks

# notes.json, artist_commentaries000000000000.json and packed forms of them.
_NAME: Final = re.compile(r"([a-z](?:[a-z_]{0,40}[a-z])?)[-_]?\d*\.jsonl?(?:\.(?:gz|xz|zst))?")


def find_other_tables(paths: Iterable[Path]) -> list[tuple[str, Path]]:
    """Tables and their files in those of ``paths`` that are folders, sorted by path.

    A file that is named by itself holds posts, whatever its name.
    """
    found: dict[Path, str] = {}
    for folder in filter(Path.is_dir, paths):
        for parent, _, names in os.walk(folder):
            for name in names:
                matched = _NAME.fullmatch(name)
                if matched is not None and kind_of(name) is None:
                    found[Path(parent, name)] = matched[1]
    return [(found[path], path) for path in sorted(found) if path.is_file()]


def read_other_table(path: Path) -> Iterator[bytes]:
    """Blocks of whole lines; none of a file that does not begin with a line of JSON.

    What follows a place where the file cannot be read any further is left out.
    """
    begun = False
    # Of a file that is named by itself the kind is no matter of its name.
    for block in read_blocks([path], {Kind.POSTS}):
        if not begun and not _begins_with_json(block.data):
            return
        begun = True
        yield block.data


def _begins_with_json(block: bytes) -> bool:
    first = block.lstrip().partition(b"\n")[0]
    try:
        return isinstance(orjson.loads(first), dict)
    except orjson.JSONDecodeError:
        return False
