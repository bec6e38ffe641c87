"""A publisher at work: a tree of small files, a repository, and publish as its user runs it.

Files hold random bytes under extensions that stand for nothing, so the audit has no opinion of
them.  What was published is read back through the client's own trust, from the pinned root on.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from manifests.columns import Entries
from manifests.digest import Digest
from manifests.errors import TransferError
from manifests.model import Descriptor
from manifests.notices import Notices
from manifests.paths import Layout
from server.cli import main
from server.commands.init import init_repository
from server.publishing.lineage import LayerFile, bucket_entries
from server.repository import Repository
from server.signing import Settings
from syncclient.signed import fetch_target
from syncclient.trust import TrustStore, refresh
from tests.support.client import Within

LAYOUT = Layout(buckets=8, digits=3)
ROOT = Path(__file__).parents[2]
# The age given to files that are written, so that a look at them is never racy.
_AGE_NS = 3600 * 10**9
_COMMAND = "from server.cli import script; script()"


@dataclass(frozen=True)
class Run:
    """One run of publish: exit code, the summary line, other JSON lines, what people read."""

    code: int
    summary: dict[str, Any]
    events: list[dict[str, Any]]
    stderr: str


@dataclass
class Publisher:
    """A folder with a tree and a repository in it."""

    root: Path
    seed: int = 0
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)  # noqa: S311
        self.tree.mkdir(parents=True)
        settings = Settings(dataset="pictures", layout=LAYOUT)
        init_repository(self.repo, settings=settings, now=datetime.now(UTC))

    @property
    def tree(self) -> Path:
        return self.root / "tree"

    @property
    def repo(self) -> Path:
        return self.root / "repo"

    # ----------------------------------------------------------------------- the tree

    def place(self, post_id: int, extension: str = "dat", variant: str = "original") -> Path:
        """Where an entry lies in the tree."""
        return self.tree / LAYOUT.entry_path(variant, post_id, extension).text

    def write(self, path: Path, data: bytes) -> bytes:
        """Put a new file there, as careful programs do: another inode, renamed over the old."""
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(".new")
        new.write_bytes(data)
        self._grow_old(new)
        new.replace(path)
        return data

    def overwrite(self, path: Path, data: bytes) -> None:
        """Write into the file that is there, as careless programs do."""
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()

    def _grow_old(self, path: Path) -> None:
        then = path.stat().st_mtime_ns - _AGE_NS
        os.utime(path, ns=(then, then))

    def fill(self, ids: range, variant: str = "original", size_bytes: int = 300) -> None:
        """Write files of about a size for some ids."""
        for post_id in ids:
            size = self._random.randrange(size_bytes // 2, size_bytes * 2)
            self.write(self.place(post_id, "dat", variant), self._random.randbytes(size))

    def tree_files(self) -> dict[str, bytes]:
        """Every file of the tree by its path."""
        return files_below(self.tree)

    # ----------------------------------------------------------------------- publishing

    def arguments(self, release: str, *flags: str) -> list[str]:
        """The command line of a publish."""
        tree = ["--tree", os.fspath(self.tree)]
        return ["publish", os.fspath(self.repo), "--release", release, *tree, "--json", *flags]

    def publish(self, release: str, *flags: str, expect: int = 0) -> Run:
        """Publish in this process."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(self.arguments(release, *flags))
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        run = Run(code=code, summary=lines[-1], events=lines[:-1], stderr=err.getvalue())
        assert code == expect, run
        return run

    def start(self, release: str, *flags: str, within: Within = list) -> subprocess.Popen[bytes]:
        """Publish in a process of its own, from which worker processes may come."""
        return self.run_verb(*self.arguments(release, *flags), within=within)

    @staticmethod
    def run_verb(*words: str, within: Within = list) -> subprocess.Popen[bytes]:
        """Any verb of ``bucketsync-server`` in a process of its own, and a group of its own."""
        return subprocess.Popen(
            within([sys.executable, "-W", "error", "-c", _COMMAND, *words]),
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    # ----------------------------------------------------------------------- what was published

    def releases(self) -> dict[str, Descriptor]:
        """The releases that a client which pinned the first root accepts now."""
        trust = TrustStore(self.root / "trust")
        trust.pin((self.repo / "tuf/metadata/1.root.json").read_bytes())
        signed = refresh(trust, self._fetch)
        return {
            target.name: Descriptor.decode(fetch_target(target, self._fetch, target.size_bytes))
            for target in signed.releases
        }

    def notices(self) -> Notices:
        """What is signed about entries that are unavailable."""
        trust = TrustStore(self.root / "trust")
        trust.pin((self.repo / "tuf/metadata/1.root.json").read_bytes())
        target = refresh(trust, self._fetch).notices
        if target is None:
            return Notices()
        return Notices.decode(fetch_target(target, self._fetch, target.size_bytes))

    def _fetch(self, path: str, max_bytes: int) -> bytes:
        """A host that answers from the disk; a missing document is an answer too."""
        try:
            with (self.repo / path).open("rb") as file:
                return file.read(max_bytes + 1)
        except FileNotFoundError as error:
            raise TransferError(path, status=404) from error

    def entries(self, descriptor: Descriptor) -> dict[str, tuple[str, Digest]]:
        """Layer and digest of every entry of a release, by path."""
        found = {}
        for variant in descriptor.variants:
            layers = [layer for layer in descriptor.layers if variant in layer.manifests]
            for bucket in range(LAYOUT.buckets):
                part = self.bucket(descriptor, variant, bucket)
                for row in range(len(part)):
                    path, digest = _entry(part, row, variant)
                    found[path] = (layers[part.layers[row]].name, digest)
        return found

    def bucket(self, descriptor: Descriptor, variant: str, bucket: int) -> Entries:
        """The entries of one bucket of a release."""
        repository = Repository(root=self.repo)
        refs = [layer.manifests.get(variant) for layer in descriptor.layers]
        lineage = tuple(
            LayerFile(path=os.fspath(repository.object_path(ref.digest)), ref=ref)
            for ref in refs
            if ref is not None
        )
        return bucket_entries(lineage, bucket, LAYOUT.buckets)

    def release_files(self, release: str) -> dict[str, bytes]:
        """The bytes of every entry and asset of a release, each checked against its digest."""
        descriptor = self.releases()[release]
        files = {}
        for path, (layer, digest) in self.entries(descriptor).items():
            files[path] = (self.repo / "files" / layer / path).read_bytes()
            assert Digest.of(files[path]) == digest, path
        for asset in descriptor.assets:
            data = Repository(root=self.repo).object_path(asset.digest).read_bytes()
            assert Digest.of(data) == asset.digest
            files[asset.path.text] = data
        return files

    def published_bytes(self) -> dict[str, bytes]:
        """Everything that clients fetch, but for the signatures, which differ from run to run."""
        return {
            f"{folder}/{path}": data
            for folder in ("objects", "files", "packs")
            for path, data in files_below(self.repo / folder).items()
        }


def _entry(part: Entries, row: int, variant: str) -> tuple[str, Digest]:
    path = LAYOUT.entry_path(variant, int(part.ids[row]), part.extension(row))
    return path.text, Digest(part.digests[row].tobytes())


def files_below(folder: Path) -> dict[str, bytes]:
    """Every file below a folder by its relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
