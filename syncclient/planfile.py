"""A plan as a file: one JSON object a line, to be read, reviewed and applied.

The first line names tree, release, descriptor and selection; each further one is a bucket (or the
assets) with the names to add, to change, to put aside because they are the user's, and to remove.
Applying surveys the tree again and does what both agree on: a step whose file was changed since
then, by whomever, is *stale*; one whose work is done already is not.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from msgspec import Struct, field
from msgspec.structs import replace

from manifests.columns import distinct
from manifests.errors import ConfigError, StoreError
from manifests.paths import METADATA_FOLDER, SafePath
from syncclient.look import Look
from syncclient.places import Places
from syncclient.selection import Selection
from syncclient.settling import Work
from syncclient.survey import Survey

_FORMAT = 1
_STEPS = ("add", "change", "aside", "remove")
# A line is one bucket; this bounds what reading a file can take.
_MAX_LINE_BYTES = 64 * 2**20


class PlanFile(Struct, kw_only=True):
    """What a plan file says.

    ``steps`` maps a folder (``original/0999``, "" for assets) and a kind of step to names.
    """

    tree: Path
    dataset: str
    release: str
    descriptor: str
    selection: Selection
    delete: bool
    steps: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """All steps."""
        return sum(len(names) for names in self.steps.values())


Names = Mapping[str, Collection[str]]


def _folder(work: Work, places: Places) -> str:
    return f"{work.variant}/{places.layout.bucket_name(work.bucket)}"


def steps_of(work: Work) -> dict[str, list[str]]:
    """The names of each kind of step in one bucket."""
    names = work.fetch.names()
    replaced = [stat is not None for stat in work.replaces]
    foreign = work.foreign.tolist()
    rows = list(zip(names, replaced, foreign, strict=True))
    return {
        "add": [name for name, old, theirs in rows if not old and not theirs],
        "change": [name for name, old, _ in rows if old],
        "aside": [name for name, _, theirs in rows if theirs],
        "remove": [name for name, _ in work.remove.files()],
    }


def asset_steps(look: Look) -> dict[str, list[str]]:
    """The paths of each kind of step on assets."""
    assets = look.assets
    return {
        "add": [asset.path.text for asset in assets.added],
        "change": [asset.path.text for asset, _ in assets.changed],
        "aside": [asset.path.text for asset in assets.foreign],
        "remove": [path.text for path, _ in assets.remove],
    }


def row_steps(look: Look) -> dict[str, list[str]]:
    """The names of each kind of step on the release's files of metadata."""
    rows = look.rows
    return {
        "add": [file.path.parts[-1] for file in rows.added],
        "change": [file.path.parts[-1] for file, _ in rows.changed],
        "aside": [file.path.parts[-1] for file in rows.foreign],
        "remove": [],
    }


def _rows_folder(look: Look) -> str:
    return f"{METADATA_FOLDER}/{look.view.descriptor.release}"


def write_plan(
    path: Path, look: Look, chosen: Selection, descriptor: str, *, delete: bool
) -> None:
    """Write what a survey found; StoreError if the file cannot be written.

    ``chosen`` is the tree's selection, before its query was answered.
    """
    head = {
        "format": _FORMAT,
        "tree": str(look.places.tree.absolute()),
        "dataset": look.view.descriptor.dataset,
        "release": look.view.descriptor.release,
        "descriptor": descriptor,
        "selection": {
            "variants": chosen.variants,
            "buckets": chosen.buckets,
            "ids": None if chosen.ids is None else chosen.ids.tolist(),
            "query": chosen.query,
            "seed": chosen.seed,
            "metadata": chosen.metadata,
        },
        "delete": delete,
    }
    try:
        with path.open("wb") as file:
            file.write(orjson.dumps(head) + b"\n")
            folders = [("", asset_steps(look)), (_rows_folder(look), row_steps(look))]
            folders += [(_folder(work, look.places), steps_of(work)) for work in look.survey.works]
            for folder, steps in folders:
                if not delete:
                    steps["remove"] = []
                present = {kind: names for kind, names in steps.items() if names}
                if present:
                    file.write(orjson.dumps({"folder": folder, **present}) + b"\n")
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise StoreError(message) from error


def read_plan(path: Path) -> PlanFile:
    """Read a plan file; ConfigError names the line that is wrong."""
    number = 1
    try:
        with path.open("rb") as file:
            plan = _read_head(path, orjson.loads(file.readline(_MAX_LINE_BYTES)))
            while line := file.readline(_MAX_LINE_BYTES):
                number += 1
                _read_line(plan, orjson.loads(line))
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        message = f"{path}:{number}: not a line of a plan ({error!r})"
        raise ConfigError(
            message, hint="Make it again with `bucketsync plan --out FILE`."
        ) from error
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise ConfigError(message) from error
    return plan


def _read_head(path: Path, head: dict[str, Any]) -> PlanFile:
    if head["format"] != _FORMAT:
        message = f"{path}: format {head['format']}, expected {_FORMAT}"
        raise ConfigError(message)
    chosen = head["selection"]
    variants, buckets, ids = chosen["variants"], chosen["buckets"], chosen["ids"]
    return PlanFile(
        tree=Path(str(head["tree"])),
        dataset=str(head["dataset"]),
        release=str(head["release"]),
        descriptor=str(head["descriptor"]),
        selection=Selection(
            variants=None if variants is None else tuple(map(str, variants)),
            buckets=None if buckets is None else (int(buckets[0]), int(buckets[1])),
            ids=None if ids is None else distinct(np.array(ids, np.uint32)),
            query=str(chosen["query"]),
            seed=str(chosen["seed"]),
            metadata=bool(chosen["metadata"]),
        ),
        delete=bool(head["delete"]),
    )


def _read_line(plan: PlanFile, line: dict[str, Any]) -> None:
    for kind in _STEPS:
        if kind in line:
            plan.steps[(str(line["folder"]), kind)] = frozenset(map(str, line[kind]))


def restrict(look: Look, plan: PlanFile) -> int:
    """Leave only what the plan says in a fresh survey; the number of steps that are stale.

    Files that are to be fetched but are not in the plan are counted in the report as left.
    """
    survey, stale = look.survey, 0
    left = dict(plan.steps)
    works = []
    for work in survey.works:
        folder, now = _folder(work, look.places), steps_of(work)
        planned = {kind: left.pop((folder, kind), frozenset()) for kind in _STEPS}
        agreed = {kind: planned[kind] & set(now[kind]) for kind in _STEPS}
        stale += _contested(planned, agreed, now)
        stale += _still_there(planned["remove"] - agreed["remove"], now, folder, look.places)
        works.append(_cut(work, agreed))
        look.report.files_left += len(work.fetch) - len(works[-1].fetch)
    stale += _restrict_assets(look, {kind: left.pop(("", kind), frozenset()) for kind in _STEPS})
    rows = _rows_folder(look)
    stale += _restrict_rows(look, {kind: left.pop((rows, kind), frozenset()) for kind in _STEPS})
    # Folders where nothing is to do any more: additions and changes there are done.
    for (folder, kind), names in left.items():
        stale += _still_there(names, {}, folder, look.places) if kind == "remove" else 0
    survey.works = [work for work in works if len(work.fetch) or len(work.remove)]
    _recount(survey)
    return stale


def _contested(planned: Names, agreed: Names, now: Names) -> int:
    """Planned steps whose file now calls for another one."""
    wanted = {name for names in now.values() for name in names}
    return sum(len((set(planned[k]) - set(agreed[k])) & wanted) for k in _STEPS)


def _still_there(names: Collection[str], now: Names, folder: str, places: Places) -> int:
    """Files that were to be removed, are not ours any more, and have not gone either."""
    variant, _, bucket = folder.partition("/")
    root = Path(places.root(variant), *places.variant_parts(variant), bucket)
    counted = {name for found in now.values() for name in found}
    return sum(os.path.lexists(root / name) for name in set(names) - counted)


def _cut(work: Work, agreed: dict[str, frozenset[str]]) -> Work:
    wanted = agreed["add"] | agreed["change"] | agreed["aside"]
    keep = np.array([name in wanted for name in work.fetch.names()], np.bool_)
    return replace(
        work,
        fetch=work.fetch.take(keep),
        replaces=tuple(stat for stat, kept in zip(work.replaces, keep, strict=True) if kept),
        foreign=work.foreign[keep],
        remove=work.remove.take(
            np.array([name in agreed["remove"] for name, _ in work.remove.files()], np.bool_)
        ),
        after=work.after if keep.all() else None,
    )


def _restrict_assets(look: Look, planned: dict[str, frozenset[str]]) -> int:
    """Cut the assets to the plan; the number of stale steps."""
    assets, now = look.assets, asset_steps(look)
    agreed = {kind: planned[kind] & set(now[kind]) for kind in _STEPS}
    before = len(assets.fetch)
    assets.added = [asset for asset in assets.added if asset.path.text in planned["add"]]
    assets.changed = [pair for pair in assets.changed if pair[0].path.text in planned["change"]]
    assets.foreign = [asset for asset in assets.foreign if asset.path.text in planned["aside"]]
    assets.remove = [pair for pair in assets.remove if pair[0].text in planned["remove"]]
    look.report.files_left += before - len(assets.fetch)
    contested = {name for names in now.values() for name in names}
    gone = planned["remove"] - agreed["remove"] - contested
    places = (look.places.asset(SafePath(text)) for text in gone)
    names = (text.rpartition("/")[2] for text in gone)
    return _contested(planned, agreed, now) + sum(
        os.path.lexists(Path(root, *folder, name))
        for (root, folder), name in zip(places, names, strict=True)
    )


def _restrict_rows(look: Look, planned: dict[str, frozenset[str]]) -> int:
    """Cut the files of metadata to the plan; the number of stale steps."""
    rows, now = look.rows, row_steps(look)
    agreed = {kind: planned[kind] & set(now[kind]) for kind in _STEPS}
    before = len(rows.make)
    rows.added = [file for file in rows.added if file.path.parts[-1] in planned["add"]]
    rows.changed = [pair for pair in rows.changed if pair[0].path.parts[-1] in planned["change"]]
    rows.foreign = [file for file in rows.foreign if file.path.parts[-1] in planned["aside"]]
    look.report.files_left += before - len(rows.make)
    return _contested(planned, agreed, now)


def _recount(survey: Survey) -> None:
    survey.fetch_bytes = sum(work.fetch.file_bytes for work in survey.works)
    survey.removable = sum(len(work.remove) for work in survey.works)
