"""docs/reference/summary.md against what the verbs really print."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from docs.generate_reference import verbs_of
from server.cli import build_parser as publisher_parser
from syncclient.cli import build_parser as client_parser
from tests.support.client import bucketsync
from tests.support.commands import argv, publisher
from tests.support.documents import ROOT
from tests.support.peers import seeding

PAGE = ROOT / "docs/reference/summary.md"
_PROGRAMS = ("bucketsync", "bucketsync-server")
_ALWAYS = {"event", "verb", "exit_code"}
_REPAIR = {"bytes_received", "requests"}


@dataclass
class Seen:
    """Fields of every summary by verb, and of every event by name."""

    summaries: dict[str, list[set[str]]] = field(default_factory=lambda: defaultdict(list))
    events: dict[str, set[frozenset[str]]] = field(default_factory=lambda: defaultdict(set))

    def take(self, lines: list[dict[str, Any]]) -> None:
        """Remember the lines of one run."""
        for line in lines[:-1]:
            self.events[line["event"]].add(frozenset(line.keys() - {"event"}))
        last = lines[-1]
        self.summaries[last["verb"]].append(set(last) - _ALWAYS)


@dataclass
class Job:
    """The whole job on a small drawn dataset, each run remembered by its program."""

    root: Path
    client_saw: Seen = field(default_factory=Seen)
    publisher_saw: Seen = field(default_factory=Seen)
    url: str = ""

    def get(self, verb: str, *words: str | Path, expect: int = 0) -> None:
        """A run of bucketsync."""
        done = bucketsync(verb, *words)
        assert done.code == expect, done.text
        self.client_saw.take(done.events)

    def give(self, *words: object, expect: int = 0) -> None:
        """A run of bucketsync-server."""
        self.publisher_saw.take(publisher(*words, expect=expect).lines)

    @contextmanager
    def serving(self, repo: Path) -> Iterator[None]:
        """Serve, and remember what that printed."""
        words = argv("bucketsync-server", "serve", repo, "--port", 0, "--json")
        server = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert server.stdout is not None
        first = server.stdout.readline()
        self.url = json.loads(first)["url"]
        try:
            yield
        finally:
            server.send_signal(signal.SIGINT)
            rest, _ = server.communicate()
        self.publisher_saw.take([json.loads(line) for line in (first + rest).splitlines()])

    def publish(self) -> Path:
        """Two years; and one with faults in it, to be audited only."""
        source, repo, spoilt = self.root / "source", self.root / "repo", self.root / "spoilt"
        small = ("--posts", 40, "--buckets", 10)
        self.give("sample", source, "--releases", 2, *small)
        self.give("sample", spoilt, "--releases", 1, "--blemishes", *small)
        self.give("init", repo, "--dataset", "tiny", "--buckets", 10)
        for year in ("2019", "2020"):
            tree, date = source / year, f"{year}-12-31"
            self.give("publish", repo, "--release", year, "--tree", tree, "--date", date)
        self.give("publish", repo, "--release", "2020", "--tree", source / "2020", expect=2)
        self.give("audit", spoilt / "2019", "--buckets", 10)
        self.give("refresh", repo)
        self.give("rotate-key", repo, "timestamp")
        return repo

    def keep(self) -> None:
        """Every verb of the client, with something to do."""
        tree, plan, mine = self.root / "tree", self.root / "plan.jsonl", self.root / "mine"
        self.get("clone", self.url, tree, "--release", "2019")
        self.get("releases", tree)
        self.get("plan", tree, "--out", plan, "--delete")
        self.get("apply", plan, tree)
        self.get("upgrade", tree, "--delete")
        self._spoil(tree)
        self.get("status", tree, expect=4)
        self.get("verify", tree, expect=4)
        self.get("verify", tree, "--repair")
        self.get("verify", tree, "--max-duration", "0", expect=8)
        self.get("trash", "list", tree)
        self.get("checkout", "2019", self.root / "past", "--tree", tree)
        self.get("clone", self.url, mine, "--variant", "original")
        (mine / ".bucketsync/config.toml").unlink()
        self.get("adopt", self.url, mine)
        self.get("upgrade", self.root, expect=10)
        self.select()
        self.share(tree)

    def select(self) -> None:
        """Queries, and what they select."""
        cats = self.root / "cats"
        self.get("search", "cat", "--url", self.url, "--state-dir", self.root / "cache")
        self.get("explain", "cat -dog")
        self.get("explain", "cat (dog", expect=2)
        self.get("clone", self.url, cats, "--release", "2019", "--select", "cat")
        self.get("upgrade", cats, "--select=-cat")
        self.get("lock", cats, "--out", self.root / "cats.lock")

    def share(self, tree: Path) -> None:
        """Seed until there has been a status."""
        with seeding(tree, "--look-every", "0.2") as seeder:
            seeder.wait_for("status")
            seeder.stop()
            self.client_saw.take(seeder.events)

    def _spoil(self, tree: Path) -> None:
        first, second = sorted((tree / "original").rglob("*.*"))[:2]
        first.write_bytes(b"mine")
        second.unlink()


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    done = Job(tmp_path_factory.mktemp("job"))
    repo = done.publish()
    with done.serving(repo):
        done.keep()
        _lose_a_file(repo)
        done.get("clone", done.url, done.root / "short", expect=3)
    return done


def _lose_a_file(repo: Path) -> None:
    """A host that lacks one file of the newest layer."""
    min((repo / "files/2020/original").rglob("*.*")).unlink()


def words(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def rows(text: str) -> list[list[str]]:
    """The cells of the tables in a text, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def chapter(title: str) -> str:
    _, _, rest = PAGE.read_text().partition(f"## {title}\n")
    return rest.partition("\n## ")[0]


def documented_summaries(program: str) -> dict[str, set[str]]:
    """Fields by verb: those of its section, and those that a line says it also has."""
    found: dict[str, set[str]] = {}
    for part in chapter(f"Summaries of {program}").split("\n### ")[1:]:
        heading, _, text = part.partition("\n")
        common, *more = re.split(r"\n(?=`\w+` also has:)", text)
        plain = common.partition("With `--repair`")[0]
        for verb in heading.split(", "):
            found[verb] = {name for row in rows(plain) for name in words(row[0])}
        for extra in more:
            found[words(extra)[0]] |= {name for row in rows(extra) for name in words(row[0])}
    return found


def documented_events(program: str) -> dict[str, frozenset[str]]:
    found = rows(chapter(f"Events of {program}"))
    documented = documented_summaries("bucketsync")["plan"]
    fields = {words(row[0])[0]: frozenset(words(row[1])) for row in found}
    return {
        name: frozenset(documented) if name == "plan" else held for name, held in fields.items()
    }


@pytest.mark.parametrize("program", _PROGRAMS)
def test_the_fields_of_every_summary_are_documented(job: Job, program: str) -> None:
    seen = (job.client_saw if program == "bucketsync" else job.publisher_saw).summaries
    seen = {verb.replace("_", "-"): held for verb, held in seen.items()}
    documented = documented_summaries(program)
    parser = client_parser() if program == "bucketsync" else publisher_parser()
    assert documented.keys() == set(verbs_of(parser)) == seen.keys()
    for verb, fields in documented.items():
        # A run that failed early prints fewer fields, never others.
        assert set[str]().union(*seen[verb]) - _REPAIR == fields - _REPAIR, verb


def test_a_repair_says_what_it_fetched(job: Job) -> None:
    assert any(held >= _REPAIR for held in job.client_saw.summaries["verify"])


@pytest.mark.parametrize("program", _PROGRAMS)
def test_the_fields_of_every_event_are_documented(job: Job, program: str) -> None:
    seen = (job.client_saw if program == "bucketsync" else job.publisher_saw).events
    documented = documented_events(program)
    assert {name: held for name, held in seen.items() if held != {documented.get(name)}} == {}
    # These need more time, or a host that misbehaves, than a test should.
    assert documented.keys() - seen.keys() <= {"progress", "warning"}
