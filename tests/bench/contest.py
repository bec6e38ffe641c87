"""Contests: the same work by several programs, run after run in turn, and what is claimed of it.

A contest runs its contestants A B C A B C, a warm-up first, each on a place of its own; ratios are
only ever made within one contest.  What is required of the ratios stands in the code of the jobs,
and ends up as verdicts in the report.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from syncclient.disk import sync_file_system
from tests.bench.disks import Disks
from tests.bench.measure import Measured, MeasureError, Meter

Run = Callable[[Path, Meter], Measured]
Runs = Mapping[str, "Result"]


def _nothing(_: Path) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One program at the work: ``prepare`` and ``check`` are not measured."""

    name: str
    run: Run
    prepare: Callable[[Path], None] = _nothing
    check: Callable[[Path], None] = _nothing


@dataclass(kw_only=True)
class Result:
    """What a contestant's runs cost; the warm-up gives the memory only."""

    warm_up: Measured
    runs: list[Measured] = field(default_factory=list)

    def figures(self, name: str) -> list[float]:
        """One figure of every run that counts: a field of Measured, or one of its facts."""
        return [
            float(getattr(run, name) if hasattr(run, name) else run.facts[name])
            for run in self.runs
        ]

    def median(self, name: str) -> float:
        """Its median."""
        return statistics.median(self.figures(name))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A figure beside what is required of it, with the spread over the rounds."""

    label: str
    figure: float
    low: float
    high: float
    unit: str
    required: float | None = None
    stretch: float | None = None
    # What the contestant would reach that does the least that must be done.
    bound: float | None = None
    at_most: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is kept; None if nothing is required."""
        if self.required is None:
            return None
        return self.figure <= self.required if self.at_most else self.figure >= self.required

    def as_json(self) -> dict[str, Any]:
        """All of it, for the report."""
        return {**asdict(self), "met": self.met}


class Claim(Protocol):
    """Something that is said of a contest's results."""

    def judge(self, runs: Runs) -> Iterator[Verdict]:
        """The verdict, or nothing if a contestant that it is about did not run."""


@dataclass(frozen=True, kw_only=True)
class Faster:
    """One contestant is so many times as fast as another one, and what would be its bound."""

    one: str
    other: str
    required: float | None = None
    stretch: float | None = None
    bound: str = ""

    def judge(self, runs: Runs) -> Iterator[Verdict]:
        """The ratio of the medians, and the spread of the ratios round by round."""
        if self.one not in runs or self.other not in runs:
            return
        one, other = runs[self.one], runs[self.other]
        pairs = zip(one.figures("wall_s"), other.figures("wall_s"), strict=False)
        ratios = [theirs / ours for ours, theirs in pairs]
        yield Verdict(
            label=f"{self.one}, times as fast as {self.other}",
            figure=other.median("wall_s") / one.median("wall_s"),
            low=min(ratios),
            high=max(ratios),
            unit="",
            required=self.required,
            stretch=self.stretch,
            bound=other.median("wall_s") / runs[self.bound].median("wall_s")
            if self.bound in runs
            else None,
        )


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A contestant does so much a second."""

    one: str
    amount: float
    unit: str
    required: float | None = None
    stretch: float | None = None
    bound: str = ""

    def judge(self, runs: Runs) -> Iterator[Verdict]:
        """The amount by the median, and by the slowest and the fastest run."""
        if self.one not in runs:
            return
        seconds = runs[self.one].figures("wall_s")
        yield Verdict(
            label=f"{self.one}, {self.unit}",
            figure=self.amount / statistics.median(seconds),
            low=self.amount / max(seconds),
            high=self.amount / min(seconds),
            unit=self.unit,
            required=self.required,
            stretch=self.stretch,
            bound=self.amount / runs[self.bound].median("wall_s") if self.bound in runs else None,
        )


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure of a contestant's runs, such as requests, is so large or so small."""

    one: str
    fact: str
    label: str
    unit: str = ""
    required: float | None = None
    stretch: float | None = None
    at_most: bool = True

    def judge(self, runs: Runs) -> Iterator[Verdict]:
        """Median and spread."""
        if self.one not in runs:
            return
        figures = runs[self.one].figures(self.fact)
        yield Verdict(
            label=self.label,
            figure=statistics.median(figures),
            low=min(figures),
            high=max(figures),
            unit=self.unit,
            required=self.required,
            stretch=self.stretch,
            at_most=self.at_most,
        )


@dataclass(frozen=True, kw_only=True)
class Memory:
    """All processes of a contestant's client, or of its server, together hold at most so much."""

    one: str
    required_bytes: float | None = None
    server: bool = False

    def judge(self, runs: Runs) -> Iterator[Verdict]:
        """The peak of the warm-up."""
        if self.one not in runs:
            return
        seen = runs[self.one].warm_up
        peak = (seen.server_peak_bytes if self.server else seen.peak_bytes) / 1e6
        yield Verdict(
            label=f"{self.one}, memory of {'the server' if self.server else 'all processes'}",
            figure=peak,
            low=peak,
            high=peak,
            unit="MB",
            required=None if self.required_bytes is None else self.required_bytes / 1e6,
            at_most=True,
        )


@dataclass(frozen=True, kw_only=True)
class Contest:
    """A job for several contestants, with the amounts that rates are made of.

    Each run has a new disk, or all share one (``fresh`` False), each in a folder that
    it keeps: for work that leaves everything as it is.
    """

    name: str
    title: str
    contestants: Sequence[Contestant]
    disks: Disks
    files: int
    size_bytes: int
    fresh: bool = True
    claims: Sequence[Claim] = ()
    # At most so many runs that count, for work that takes long to prepare.
    most_rounds: int | None = None

    @contextmanager
    def places(self) -> Iterator[Callable[[Contestant], Any]]:
        """How a contestant gets its place: a context manager of a folder, prepared."""
        if self.fresh:
            yield self._new_place
            return
        with self.disks.fresh() as disk:

            @contextmanager
            def kept(one: Contestant) -> Iterator[Path]:
                place = disk / str(self.contestants.index(one))
                if not place.exists():
                    place.mkdir()
                    _prepare(one, place)
                yield place

            yield kept

    @contextmanager
    def _new_place(self, one: Contestant) -> Iterator[Path]:
        with self.disks.fresh() as place:
            _prepare(one, place)
            yield place


def _prepare(one: Contestant, place: Path) -> None:
    """Prepare, and write it to the disk: who syncs in a run must not pay for that."""
    one.prepare(place)
    sync_file_system(place)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How often contestants run; one whose warm-up takes longer than ``slow_s`` only once.

    A run that takes longer than ``limit_s`` is ended, and has failed.
    """

    rounds: int
    slow_s: float
    limit_s: float
    say: Callable[[str], None]


def hold(contest: Contest, rules: Rules) -> tuple[dict[str, Result], dict[str, str]]:
    """Run a contest: results of each contestant, and why those failed that did."""
    results: dict[str, Result] = {}
    failures: dict[str, str] = {}
    with contest.places() as place_of:
        rounds = min(rules.rounds, contest.most_rounds or rules.rounds)
        for turn in range(rounds + 1):
            for one in contest.contestants:
                if one.name in failures or (turn and _is_slow(results[one.name], rules)):
                    continue
                try:
                    meter = Meter(warming=turn == 0, limit_s=rules.limit_s)
                    measured = _run(one, place_of, meter)
                except MeasureError as error:
                    failures[one.name] = str(error)
                    results.pop(one.name, None)
                    rules.say(f"  {one.name}: {error}")
                    continue
                _keep(results, one.name, measured, rules)
                note = " (warm-up)" if turn == 0 else ""
                rules.say(f"  {one.name}: {measured.wall_s:.2f} s{note}")
    return results, failures


def _run(one: Contestant, place_of: Callable[[Contestant], Any], meter: Meter) -> Measured:
    with place_of(one) as place:
        measured = one.run(place, meter)
        if meter.warming:
            one.check(place)
    return measured


def _is_slow(result: Result, rules: Rules) -> bool:
    return result.warm_up.wall_s > rules.slow_s


def _keep(results: dict[str, Result], name: str, measured: Measured, rules: Rules) -> None:
    result = results.setdefault(name, Result(warm_up=measured))
    if result.warm_up is not measured or _is_slow(result, rules) or not rules.rounds:
        result.runs.append(measured)
