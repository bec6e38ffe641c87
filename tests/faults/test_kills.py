"""``kill -9`` of each verb that changes a tree, at random instants, then the same command.

Half of the kills end the main process alone, whose workers must then end by themselves; the others
end all of them at once.  tests/e2e/test_kill_client.py has the few of every day.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.client import Process, bucketsync, contents, started
from tests.support.faultreport import Record
from tests.support.publisher import Publisher as Maker
from tests.support.rawhost import RawHost, raw_host, repository_content, slow
from tests.support.releases import Publisher
from tests.support.survival import (
    JOBS,
    Job,
    fetched_again,
    places,
    publish_two,
    wait_until_gone,
)

pytestmark = pytest.mark.long

KILLS = 24
# A bucket takes a quarter of a second: some finish before a kill, some do not.
PACE_BYTES_S = 1_000_000
# The longest that a process goes on after its host has sent what it is killed for.
LATE_S = 0.05


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    return publish_two(tmp_path_factory.mktemp("publisher"))


@pytest.fixture
def host(publisher: Publisher) -> Iterator[RawHost]:
    with raw_host(repository_content(publisher.repo)) as running:
        yield running


def die(process: Process, host: RawHost, sent_bytes: int, late_s: float, *, alone: bool) -> bool:
    """Kill when the host has sent so much, and a moment later; whether it had not ended before."""
    while host.sent_bytes < sent_bytes:
        with suppress(subprocess.TimeoutExpired):
            process.wait_for(0.02)
            return False
    with suppress(subprocess.TimeoutExpired):
        process.wait_for(late_s)
        return False
    workers = process.children()
    if alone:
        process.send(signal.SIGKILL)
    else:
        process.kill_all()
    process.wait()
    wait_until_gone(workers)
    return True


def kill_once(
    job: Job, host: RawHost, publisher: Publisher, chance: random.Random, *, step_bytes: int
) -> bool:
    """Run, kill, and look; whether it was killed at all."""
    finished, before = job.finished(), len(host.log)
    with started(*job.words) as process:
        sent_bytes = host.sent_bytes + chance.randrange(step_bytes)
        late_s, alone = chance.uniform(0, LATE_S), chance.random() < 0.5
        killed = die(process, host, sent_bytes, late_s, alone=alone)
    assert fetched_again(host.log[before:], finished, places(publisher)) == []
    return killed


@pytest.mark.parametrize("jobs", ["1", "2"], ids=["one process", "worker processes"])
@pytest.mark.parametrize("verb", JOBS)
def test_a_verb_that_is_killed_again_and_again_ends_like_one_that_was_not(  # noqa: PLR0913
    publisher: Publisher, host: RawHost, tmp_path: Path, record: Record, verb: str, jobs: str
) -> None:
    chance = random.Random(f"{verb} {jobs}")  # noqa: S311 (instants of kills)
    job = JOBS[verb](publisher, host.url, tmp_path)
    source = {path: contents(path) for path in tmp_path.iterdir() if path != job.folder}
    words = (*job.words, "--jobs", jobs)
    job = Job(words=words, folder=job.folder, before=job.before, after=job.after, mine=job.mine)
    wanted = sum(len(data) for path, data in job.after.items() if job.before.get(path) != data)
    host.script = slow(PACE_BYTES_S)
    kills = wrong = lost = 0
    for _ in range(KILLS // 2):
        kills += kill_once(job, host, publisher, chance, step_bytes=wanted // KILLS + 1)
        wrong, lost = wrong + len(job.wrong()), lost + len(job.lost())
    finished, before = job.finished(), len(host.log)
    done = bucketsync(*job.words)
    record(
        f"kill -9: {verb}", tried=kills, survived=kills * (done.code == 0), lost=lost, wrong=wrong
    )
    assert (done.code, wrong, lost) == (0, 0, 0), done.text
    assert kills
    assert fetched_again(host.log[before:], finished, places(publisher)) == []
    job.check_complete()
    assert source == {path: contents(path) for path in source}
    assert bucketsync("verify", job.folder).code == 0


# --------------------------------------------------------------------------- the publisher

PUBLISHER_KILLS = 12
# Before this, no process has come to its first file.
START_S = 0.3


def care_for(maker: Maker, verb: str) -> tuple[str, ...]:
    """The words of a verb of the publisher on a repository with one release."""
    if verb == "publish":
        return tuple(maker.arguments("y1", "--date", "2021-06-01", "--jobs", "2"))
    role = ("timestamp",) if verb == "rotate-key" else ()
    return (verb, str(maker.repo), *role)


@pytest.mark.parametrize("verb", ["publish", "refresh", "rotate-key"])
def test_a_publisher_that_is_killed_serves_what_it_served(
    tmp_path: Path, record: Record, verb: str
) -> None:
    """All of its processes at once, or the main one alone."""
    chance = random.Random(verb)  # noqa: S311 (instants of kills)
    maker = Maker(tmp_path)
    maker.fill(range(1, 120), size_bytes=20_000)
    maker.publish("y0", "--date", "2020-06-01")
    old, files = maker.releases(), maker.release_files("y0")
    maker.fill(range(120, 400), size_bytes=20_000)
    words, kills, longest_s = care_for(maker, verb), 0, 3.0
    for _ in range(PUBLISHER_KILLS):
        process = maker.run_verb(*words)
        try:
            process.communicate(timeout=chance.uniform(START_S, longest_s))
        except subprocess.TimeoutExpired:
            kills += 1
            if chance.random() < 0.5:
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()
            process.communicate()
        live = maker.releases()
        assert live["y0"] == old["y0"]
        assert maker.release_files("y0") == files
        if "y1" in live:
            assert maker.release_files("y1") == maker.tree_files()
            break
    process = maker.run_verb(*words)
    process.communicate()
    live = maker.releases()
    done = process.returncode == 0 or (verb == "publish" and "y1" in live)
    record(f"kill -9: {verb}", tried=kills, survived=kills * done)
    assert done
    assert maker.release_files("y0") == files
    if verb == "publish":
        assert maker.release_files("y1") == maker.tree_files()
