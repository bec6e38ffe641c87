"""What the URLs of packs and files stand for: bytes, and what is said of them."""

from __future__ import annotations

import mimetypes
from typing import Final, NamedTuple

from manifests.paths import parse_entry_name
from server.hosting.catalog import ServedLayer
from server.hosting.joined import JoinedFiles
from server.hosting.packs import Pack
from server.hosting.ranges import Representation

IMMUTABLE: Final = "public, max-age=31536000, immutable"
BINARY: Final = "application/octet-stream"
# Of a layer, a variant or a file in a URL.
NAME: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,199}"


class FoundFiles(NamedTuple):
    """Files to send from, and how they are shown."""

    shown: Representation
    files: JoinedFiles


def found_pack(layer: ServedLayer, pack: Pack) -> FoundFiles | None:
    """A whole bucket: its pack on the disk, or else its files; None if it has no entry."""
    if not len(pack.ids):
        return None
    shown = Representation(
        size_bytes=pack.files.size_bytes,
        etag=pack.etag,
        modified=layer.ref.date,
        content_type=BINARY,
        cache_control=IMMUTABLE,
    )
    return FoundFiles(shown, pack.on_disk or pack.files)


def found_file(layer: ServedLayer, pack: Pack, name: str) -> FoundFiles | None:
    """One entry of a bucket, by its name; its entity tag is its BLAKE3."""
    named = parse_entry_name(name)
    row = pack.row_of(*named) if named else None
    if row is None:
        return None
    files = pack.files.only(row)
    shown = Representation(
        size_bytes=files.size_bytes,
        etag=pack.digest_of(row).hex,
        modified=layer.ref.date,
        content_type=mimetypes.guess_type(name)[0] or BINARY,
        cache_control=IMMUTABLE,
    )
    return FoundFiles(shown, files)
