"""Lay out OpenMoji as four yearly releases: a real dataset to publish, clone and upgrade.

    python docs/examples/openmoji.py DEST

makes ``DEST/13.1.0``, ``DEST/14.0.0``, ``DEST/15.1.0`` and ``DEST/16.0.0``, each a source tree:

    original/0001/1.svg                  the illustration in colour
    black/0001/1.svg                     its black outlines
    metadata/posts000000000000.json      what the illustration is tagged with, a line each
    metadata/tags000000000000.json       the tags, their kinds and counts
    LICENSE.txt, ATTRIBUTION.txt, …      assets

An illustration's id is its place in the order of first appearance: all of 13.1.0 in the order of
its ``data/openmoji.json``, then what 14.0.0 adds, and so on.  So the ids of a version depend on
the older ones, which are fetched as well.

The packages come from the npm registry (``npm pack``), are compared with the digests below and
kept in a cache.  Every file's mtime is the date of its release, so two runs give the same trees.
Emojis designed by OpenMoji, the open-source emoji and icon project.  License: CC BY-SA 4.0.

Python 3.11 and npm are enough; nothing of bucketsync is needed.
"""

from __future__ import annotations

import argparse
import base64
import calendar
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias

BUCKETS = 1000
# Every illustration is drawn on a square of 72 units.
SIDE = 72
# The folders of a package that become the two variants.
VARIANTS = {"color": "original", "black": "black"}
PICTURE = re.compile(r"(color|black)/svg/([0-9A-F-]+)\.svg")
CATALOG = "data/openmoji.json"
ASSETS = (
    "LICENSE.txt",
    "README.md",
    "changelog.txt",
    "data/color-palette.json",
    "font/README.md",
    "font/demo.html",
    "font/openmoji.css",
)
ATTRIBUTION = """\
All emojis designed by OpenMoji (https://openmoji.org/), the open-source emoji and icon project.
License: CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/).
Version {version}.  The files were renamed to numbers; their contents are unchanged.
"""
# Danbooru's kinds of tags; an illustration has no copyright or character of its own.
KINDS = {0: "general", 1: "artist", 3: "copyright", 4: "character", 5: "meta"}
GENERAL, ARTIST, META = 0, 1, 5

# What openmoji.json says of one illustration.
Entry: TypeAlias = dict[str, Any]
Row: TypeAlias = dict[str, str | bool]

# Exit codes, the same as those of bucketsync.
USAGE, NETWORK, REFUSED, STORAGE = 2, 5, 6, 7
NPM_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Edition:
    """One version: the day it came out (changelog.txt) and the SHA-512 of its package (npm)."""

    released: tuple[int, int, int]
    sha512: str

    @property
    def unix_s(self) -> int:
        """Noon of the day of release, UTC."""
        return calendar.timegm((*self.released, 12, 0, 0))


EDITIONS = {
    "13.1.0": Edition(
        (2021, 6, 29),
        "rOY6DKqnCPCU9D8lu/SK1cMVQjiBsiJRT4be+GV+WXPcd1os6AKWKtfGWhz0oIWhTrUB8WbLG72IkTt7l3h6Qw==",
    ),
    "14.0.0": Edition(
        (2022, 7, 5),
        "MGF9GbXfpULuRtUM1srEv2OP3sg/e8hAw0UCTiP+N3+CX38RCo8/kjyFYm0eO+OENnbbri9Vx4m5pU0Vbc7LGw==",
    ),
    "15.1.0": Edition(
        (2024, 12, 17),
        "stNFJkXeiH9dQfRNN3vrM8Ac0cSAR83Y1a3UqA8o8eVKTxynU2dUeTK0wWO8968YC7KGYaVbuCWBDp7n6plIrw==",
    ),
    "16.0.0": Edition(
        (2025, 8, 8),
        "ruaRCfXL23tYzZ8cWzVxNsMEEUnol68RRxP4UueYyegtMz9wg/0p5RIJRdPz/e2KbBWq7ydrYvnN0NN4lhxN1g==",
    ),
}


class LayoutError(Exception):
    """Why the trees cannot be made, in one sentence, and the exit code that stands for it."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One tree to make out of one package; travels to a worker process."""

    package: Path
    tree: Path
    version: str
    ids: Mapping[str, int]
    variants: tuple[str, ...]


def lay_out(
    dest: Path,
    cache: Path,
    versions: Sequence[str] = tuple(EDITIONS),
    variants: Sequence[str] = tuple(VARIANTS.values()),
) -> list[Path]:
    """Make ``dest/VERSION`` for each version and return these folders, oldest first.

    A tree appears under its name only when it is complete, and one that is there is left alone.
    LayoutError if npm or the network is missing, a package is not the one known here, or a tree
    is there without one of the variants.
    """
    wanted = [version for version in EDITIONS if version in versions]
    for version in wanted:
        _refuse_partial(dest / version, variants)
    missing = [version for version in wanted if not (dest / version).is_dir()]
    if missing:
        older = list(EDITIONS)[: list(EDITIONS).index(missing[-1]) + 1]
        packages = fetch(cache, older)
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
            ids = assign_ids(pool.map(read_catalog, packages.values()))
            jobs = [
                Job(
                    package=packages[version],
                    tree=dest / version,
                    version=version,
                    ids=ids,
                    variants=tuple(variants),
                )
                for version in missing
            ]
            list(pool.map(make_tree, jobs))
    return [dest / version for version in wanted]


def _refuse_partial(tree: Path, variants: Sequence[str]) -> None:
    absent = [variant for variant in variants if not (tree / variant).is_dir()]
    if tree.is_dir() and absent:
        raise LayoutError(f"{tree} exists without {' and '.join(absent)}: remove it.", USAGE)


def fetch(cache: Path, versions: Sequence[str]) -> dict[str, Path]:
    """The checked packages of some versions, from the cache or else from npm."""
    packages = {version: cache / f"openmoji-{version}.tgz" for version in versions}
    missing = [version for version, package in packages.items() if not package.is_file()]
    if missing:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            _npm_pack(missing, Path(folder))
            for version in missing:
                Path(folder, packages[version].name).replace(packages[version])
    for version, package in packages.items():
        digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
        if digest != EDITIONS[version].sha512:
            package.unlink()
            message = f"openmoji {version} from npm is not the package that this script knows"
            raise LayoutError(f"{message} (SHA-512 {digest}).", REFUSED)
    return packages


def _npm_pack(versions: Sequence[str], folder: Path) -> None:
    npm = shutil.which("npm")
    if npm is None:
        raise LayoutError("npm is not installed (on Debian: apt-get install npm).", NETWORK)
    command = [
        npm,
        "pack",
        "--loglevel=error",
        "--fetch-retries=1",
        "--fetch-retry-mintimeout=1000",
        f"--pack-destination={folder}",
    ]
    command += [f"openmoji@{version}" for version in versions]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=NPM_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LayoutError(f"npm gave no answer within {NPM_TIMEOUT_S} s.", NETWORK) from error
    if done.returncode:
        said = next((line for line in done.stderr.splitlines() if "error" in line.lower()), "")
        names = ", ".join(versions)
        message = f"npm could not fetch openmoji {names}: is there a network? {said}"
        raise LayoutError(message.strip(), NETWORK)


def read_catalog(package: Path) -> list[Entry]:
    """``data/openmoji.json`` of a package: an object for each illustration."""
    for name, data in _files(package):
        if name == CATALOG:
            catalog: list[Entry] = json.loads(data)
            return catalog
    raise LayoutError(f"{package} has no {CATALOG}.", REFUSED)


def _files(package: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(package, "r|gz") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                yield member.name.removeprefix("package/"), content.read()


def assign_ids(catalogs: Iterable[list[Entry]]) -> dict[str, int]:
    """Ids by hexcode, from 1 on in the order of first appearance; oldest catalog first."""
    ids: dict[str, int] = {}
    for catalog in catalogs:
        for entry in catalog:
            ids.setdefault(entry["hexcode"], len(ids) + 1)
    return ids


def make_tree(job: Job) -> None:
    """Write one version beside its final place and move it there when it is complete."""
    job.tree.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".openmoji-", dir=job.tree.parent) as folder:
        tree = Path(folder, "tree")
        for path, data in _contents(job):
            _write(tree / path, data, EDITIONS[job.version].unix_s)
        try:
            tree.rename(job.tree)
        except OSError:
            # Another run may have been quicker; its tree is the same.
            if not job.tree.is_dir():
                raise


def _write(path: Path, data: bytes, mtime_s: int) -> None:
    try:
        path.write_bytes(data)
    except FileNotFoundError:
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    os.utime(path, (mtime_s, mtime_s))


def _contents(job: Job) -> Iterator[tuple[str, bytes]]:
    """Every file of a tree: its path and bytes."""
    catalog: list[Entry] = []
    pictures: dict[str, bytes] = {}
    for name, data in _files(job.package):
        if picture := PICTURE.fullmatch(name):
            variant, hexcode = VARIANTS[picture[1]], picture[2]
            if variant == "original":
                pictures[hexcode] = data
            if variant in job.variants:
                post_id = job.ids[hexcode]
                yield f"{variant}/{post_id % BUCKETS:04d}/{post_id}.svg", data
        elif name in ASSETS:
            yield name, data
        elif name == CATALOG:
            catalog = json.loads(data)
    yield "ATTRIBUTION.txt", ATTRIBUTION.format(version=job.version).encode()
    catalog.sort(key=lambda entry: job.ids[entry["hexcode"]])
    yield "metadata/posts000000000000.json", _lines(post_rows(catalog, pictures, job.ids))
    yield "metadata/tags000000000000.json", _lines(tag_rows(catalog))


def _lines(rows: Iterable[Row]) -> bytes:
    return b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in rows)


def normalise(text: str) -> str:
    """A tag as Danbooru writes it: lower case, printable ASCII, underscores for spaces."""
    plain = unicodedata.normalize("NFKD", text.replace("\u2019", "'")).lower()
    ascii_only = "".join(character for character in plain if " " <= character <= "~")
    return re.sub(r"[\s_]+", "_", ascii_only.replace("*", "")).strip("_-~")


def tags_of(entry: Entry) -> list[str]:
    """All tags of an illustration, sorted: what it shows, its groups and its author."""
    fields = ("annotation", "tags", "openmoji_tags", "group", "subgroups", "openmoji_author")
    words = re.split(r"[:,]", ",".join(entry[field] for field in fields))
    return sorted({tag for tag in map(normalise, words) if tag})


def tag_kinds(catalog: Sequence[Entry]) -> dict[str, int]:
    """Kinds of the tags that are not general: authors, then groups."""
    kinds: dict[str, int] = {}
    for entry in catalog:
        kinds |= {normalise(entry[field]): META for field in ("group", "subgroups")}
    for entry in catalog:
        kinds[normalise(entry["openmoji_author"])] = ARTIST
    return kinds


def post_rows(
    catalog: Sequence[Entry], pictures: Mapping[str, bytes], ids: Mapping[str, int]
) -> Iterator[Row]:
    """The posts table in the manner of BigQuery: integers in quotes, absent values left out."""
    kinds = tag_kinds(catalog)
    parents = {base for entry in catalog if (base := base_of(entry)) is not None}
    for entry in catalog:
        hexcode, tags = entry["hexcode"], tags_of(entry)
        created = f"{entry['openmoji_date'].strip()} 00:00:00 UTC"
        picture, base = pictures[hexcode], base_of(entry)
        row: Row = {
            "id": str(ids[hexcode]),
            "created_at": created,
            "updated_at": created,
            "source": f"https://openmoji.org/library/emoji-{hexcode}/",
            "rating": "g",
            "md5": hashlib.md5(picture, usedforsecurity=False).hexdigest(),
            "file_ext": "svg",
            "file_size": str(len(picture)),
            "image_width": str(SIDE),
            "image_height": str(SIDE),
            "has_children": hexcode in parents,
            **dict.fromkeys(("score", "up_score", "down_score", "fav_count"), "0"),
            **dict.fromkeys(("is_pending", "is_flagged", "is_deleted", "is_banned"), False),
            "tag_count": str(len(tags)),
            "tag_string": " ".join(tags),
        }
        if base is not None:
            row["parent_id"] = str(ids[base])
        for number, kind in KINDS.items():
            named = [tag for tag in tags if kinds.get(tag, GENERAL) == number]
            row[f"tag_count_{kind}"] = str(len(named))
            row[f"tag_string_{kind}"] = " ".join(named)
        yield row


def base_of(entry: Entry) -> str | None:
    """The hexcode of the illustration that this one shows in another tone of skin."""
    base: str = entry["skintone_base_hexcode"]
    return base if base not in {"", entry["hexcode"]} else None


def tag_rows(catalog: Sequence[Entry]) -> Iterator[Row]:
    """The tags table, by name."""
    kinds = tag_kinds(catalog)
    counts = Counter(tag for entry in catalog for tag in tags_of(entry))
    for number, (name, count) in enumerate(sorted(counts.items()), start=1):
        category = str(kinds.get(name, GENERAL))
        yield {"id": str(number), "name": name, "category": category, "post_count": str(count)}


def compare(trees: Sequence[Path]) -> Iterator[str]:
    """A line for each tree: its illustrations, and what sets them apart from the one before."""
    before: dict[str, str] = {}
    for tree in trees:
        lines = (tree / "metadata" / "posts000000000000.json").read_text().splitlines()
        rows = map(json.loads, lines)
        now = {row["id"]: row["md5"] for row in rows}
        changed = sum(now[post] != before[post] for post in now.keys() & before.keys())
        added, removed = len(now.keys() - before.keys()), len(before.keys() - now.keys())
        yield (
            f"{tree}: {len(now):,} illustrations, "
            f"{added:,} new, {changed:,} changed, {removed:,} removed"
        )
        before = now


def default_cache() -> Path:
    """Where packages are kept: ``$BUCKETSYNC_TEST_CACHE/openmoji`` or a folder of the user's."""
    root = os.environ.get("BUCKETSYNC_TEST_CACHE") or Path.home() / ".cache" / "bucketsync"
    return Path(root, "openmoji")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dest", type=Path, metavar="DEST", help="folder for the trees")
    parser.add_argument("--cache", type=Path, default=default_cache(), metavar="DIR")
    parser.add_argument("--versions", nargs="+", choices=EDITIONS, default=list(EDITIONS))
    parser.add_argument(
        "--variant",
        dest="variants",
        action="append",
        choices=VARIANTS.values(),
        help="one variant only (default: both)",
    )
    args = parser.parse_args(argv)
    variants = args.variants or list(VARIANTS.values())
    try:
        trees = lay_out(args.dest, args.cache, args.versions, variants)
    except LayoutError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}", file=sys.stderr)
        return STORAGE
    for line in compare(trees):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
