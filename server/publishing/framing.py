"""Writing framed objects into a repository."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Self

import blake3

from manifests.digest import Digest
from manifests.framed import FramedWriter
from manifests.framedref import FramedRef
from server.repository import OBJECT_MODE, Repository

_BUFFER_BYTES = 2**20


class FramedObject:
    """A framed object being written, as a temporary file until it is finished.

    Use as a context manager and add frames to ``writer``; OSError if the disk refuses.
    """

    def __init__(self, repository: Repository, kind: str) -> None:
        self._repository = repository
        self._kind = kind
        self._path = repository.new_temporary()
        self._hasher = blake3.blake3()

    def __enter__(self) -> Self:
        """Begin the temporary file."""
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OBJECT_MODE)
        self._file = os.fdopen(fd, "wb", _BUFFER_BYTES)
        self.writer = FramedWriter(self._kind, self._write)
        return self

    def __exit__(self, *_: object) -> None:
        """Take the temporary file away, unless it was finished."""
        self._file.close()
        with suppress(FileNotFoundError):
            self._path.unlink()

    def _write(self, data: bytes) -> None:
        self._hasher.update(data)
        self._file.write(data)

    def finish(self, about: Mapping[str, Any]) -> FramedRef:
        """Write the header and give the object its name; nothing refers to it yet."""
        size, header_digest, header_bytes = self.writer.finish(about)
        self._file.close()
        digest = Digest(self._hasher.digest())
        self._repository.adopt_object(self._path, digest)
        return FramedRef(
            digest=digest,
            size_bytes=size,
            header_digest=header_digest,
            header_bytes=header_bytes,
        )
