"""A plan as a file: one JSON object a line, to be read, reviewed and applied.

The first line names release, descriptor and selection; each further one is a bucket (or the
assets) with the names to add, to change, to put aside because they are the user's, and to remove.
Applying surveys the tree again and does what both agree on: a step that the tree no longer calls
for is *stale*.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from manifests.errors import ConfigError, StoreError
from syncclient.places import Places
from syncclient.survey import Survey, Work
from syncclient.sync import Sync

_FORMAT = 1
_STEPS = ("add", "change", "aside", "remove")
# A line is one bucket; this bounds what reading a file can take.
_MAX_LINE_BYTES = 64 * 2**20


@dataclass(slots=True, kw_only=True)
class PlanFile:
    """What a plan file says.

    ``steps`` maps a folder (``original/0999``, "" for assets) and a kind of step to names.
    """

    dataset: str
    release: str
    descriptor: str
    delete: bool
    steps: dict[tuple[str, str], frozenset[str]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """All steps."""
        return sum(len(names) for names in self.steps.values())


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
        "remove": [name for name, _ in work.remove],
    }


def asset_steps(sync: Sync) -> dict[str, list[str]]:
    """The paths of each kind of step on assets."""
    assets = sync.assets
    return {
        "add": [asset.path.text for asset in assets.added],
        "change": [asset.path.text for asset, _ in assets.changed],
        "aside": [asset.path.text for asset in assets.foreign],
        "remove": [path.text for path, _ in assets.remove],
    }


def write_plan(path: Path, sync: Sync, descriptor: str, *, delete: bool) -> None:
    """Write what a survey found; StoreError if the file cannot be written."""
    head = {
        "format": _FORMAT,
        "dataset": sync.view.descriptor.dataset,
        "release": sync.view.descriptor.release,
        "descriptor": descriptor,
        "delete": delete,
    }
    try:
        with path.open("wb") as file:
            file.write(orjson.dumps(head) + b"\n")
            folders = [("", asset_steps(sync))]
            folders += [(_folder(work, sync.places), steps_of(work)) for work in sync.survey.works]
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
            head = orjson.loads(file.readline(_MAX_LINE_BYTES))
            if head["format"] != _FORMAT:
                message = f"{path}: format {head['format']}, expected {_FORMAT}"
                raise ConfigError(message)
            plan = PlanFile(
                dataset=str(head["dataset"]),
                release=str(head["release"]),
                descriptor=str(head["descriptor"]),
                delete=bool(head["delete"]),
            )
            while line := file.readline(_MAX_LINE_BYTES):
                number += 1
                _read_line(plan, orjson.loads(line))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        message = f"{path}:{number}: not a line of a plan ({error!r})"
        raise ConfigError(
            message, hint="Make it again with `bucketsync plan --out FILE`."
        ) from error
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise ConfigError(message) from error
    return plan


def _read_line(plan: PlanFile, line: dict[str, Any]) -> None:
    for kind in _STEPS:
        if kind in line:
            plan.steps[(str(line["folder"]), kind)] = frozenset(map(str, line[kind]))


def restrict(sync: Sync, plan: PlanFile) -> int:
    """Leave only what the plan says in a fresh survey; the number of steps that are stale.

    A step is stale if the tree no longer calls for it and it has not been done either: a file to
    add that is there by now with the right bytes is done.
    """
    survey, stale = sync.survey, 0
    left = dict(plan.steps)
    works = []
    for work in survey.works:
        folder = _folder(work, sync.places)
        planned = {kind: left.pop((folder, kind), frozenset()) for kind in _STEPS}
        now = steps_of(work)
        agreed = {kind: planned[kind] & set(now[kind]) for kind in _STEPS}
        contested = {name for names in now.values() for name in names}
        stale += sum(len((planned[k] - agreed[k]) & contested) for k in _STEPS)
        works.append(_cut(work, agreed))
    _restrict_assets(sync, {kind: left.pop(("", kind), frozenset()) for kind in _STEPS})
    # Folders where nothing is to do any more: additions and changes there are done. What was to be
    # removed is gone, or is the user's by now.
    survey.works = [work for work in works if len(work.fetch) or work.remove]
    _recount(survey)
    return stale


def _cut(work: Work, agreed: dict[str, frozenset[str]]) -> Work:
    wanted = agreed["add"] | agreed["change"] | agreed["aside"]
    keep = np.array([name in wanted for name in work.fetch.names()], np.bool_)
    return replace(
        work,
        fetch=work.fetch.take(keep),
        replaces=tuple(stat for stat, kept in zip(work.replaces, keep, strict=True) if kept),
        foreign=work.foreign[keep],
        remove=tuple(item for item in work.remove if item[0] in agreed["remove"]),
    )


def _restrict_assets(sync: Sync, planned: dict[str, frozenset[str]]) -> None:
    assets = sync.assets
    assets.added = [asset for asset in assets.added if asset.path.text in planned["add"]]
    assets.changed = [pair for pair in assets.changed if pair[0].path.text in planned["change"]]
    assets.foreign = [asset for asset in assets.foreign if asset.path.text in planned["aside"]]
    assets.remove = [pair for pair in assets.remove if pair[0].text in planned["remove"]]


def _recount(survey: Survey) -> None:
    survey.fetch_bytes = sum(work.fetch.file_bytes for work in survey.works)
    survey.removable = sum(len(work.remove) for work in survey.works)
