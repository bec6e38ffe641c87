"""The benchmark runs, judges, and writes its page; its far network is as far as it says."""

from __future__ import annotations

import json
import marshal
import subprocess
import time
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.__main__ import main
from tests.bench.jobs.far import far_line
from tests.bench.peers import BARE, bare
from tests.support.client import bucketsync
from tests.support.host import ask
from tests.support.needs import needs
from tests.support.rawhost import raw_host
from tests.support.releases import Publisher, make_publisher, random_files

_TINY = ("--files", "60", "--buckets", "5", "--tiny-files", "60", "--large-bytes", "1M")
_ROUNDS = 12


@needs("rsync", "nginx")
def test_a_benchmark_of_two_jobs_ends_with_verdicts_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results, page, picture = (tmp_path / name for name in ("r.json", "page.md", "p.svg"))
    words = [*_TINY, "--jobs", "subset", "noop", "--peers", "rsync", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", ["bench", *words, "--json", str(results), "--strict"])
    assert main() == 1
    document = json.loads(results.read_text())
    subset, noop = document["contests"]
    assert set(subset["contestants"]) == {"ours", "rsync -a", "rsync -aW --inplace"}
    assert subset["failures"] == noop["failures"] == {}
    assert subset["contestants"]["ours"]["warm_up"]["peak_bytes"] > 10e6
    (ratio,) = (v for v in subset["verdicts"] if v["label"] == "ours, times as fast as rsync -a")
    medians = [subset["contestants"][name]["median_s"] for name in ("rsync -a", "ours")]
    assert ratio["figure"] == medians[0] / medians[1]
    assert (ratio["required"], ratio["met"]) == (2.5, ratio["figure"] >= 2.5)
    assert "MISSED" in capsys.readouterr().out

    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
    report.write_page([document], page, picture)
    text = page.read_text()
    assert text.startswith(f"before\n{report.BEGIN}\n")
    assert text.endswith(f"{report.END}\nafter\n")
    assert "| subset | ours, times as fast as rsync -a |" in text
    assert "old\n" not in text
    assert picture.read_text().count("<rect") > 2


@needs("rsync", "nginx")
def test_the_bare_loop_does_the_work_and_bounds_what_is_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "r.json"
    words = [*_TINY, "--jobs", "full", "incremental", "--peers", "rsync"]
    monkeypatch.setattr(
        "sys.argv", ["bench", *words, "--dir", str(tmp_path), "--json", str(results)]
    )
    main()
    contests = {one["name"]: one for one in json.loads(results.read_text())["contests"]}
    assert not any(one["failures"] for one in contests.values())
    full = contests["full"]
    medians = [full["contestants"][name]["median_s"] for name in ("rsync -a", BARE)]
    assert full["verdicts"][0]["bound"] == medians[0] / medians[1]

    listed, other = tmp_path / "small" / "bare-y1.list", tmp_path / "other.list"
    packs = marshal.loads(listed.read_bytes())  # noqa: S302 (written by the benchmark)
    name, size_bytes, _, mtime_ns = packs[0][1][0]
    packs[0][1][0] = name, size_bytes, bytes(32), mtime_ns
    other.write_bytes(marshal.dumps(packs))
    tree = tmp_path / "small" / "y1"
    subprocess.run(bare("publish", listed, tmp_path / "copy", tree), check=True)
    subprocess.run(bare("verify", listed, tmp_path / "copy"), check=True)
    done = subprocess.run(bare("verify", other, tree), capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert f"{name} has other bytes" in done.stderr


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    made = make_publisher(tmp_path_factory.mktemp("far"))
    made.publish("y1", random_files(range(1, 41), size_bytes=5000))
    made.publish("y2", random_files(range(1, 61), size_bytes=5000))
    return made


def test_a_far_network_takes_at_least_its_time(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(200_000))
    with raw_host(tmp_path) as host:
        port = int(host.url.rpartition(":")[2].strip("/"))
        with far_line(port, tmp_path / "log", rtt_s=0.1, rate=1e6) as line:
            began_s = time.monotonic()
            assert ask(line.port, "/large").body == bytes(200_000)
            # To open, to ask, and the bytes one after another.
            assert time.monotonic() - began_s >= 0.1 + 0.1 + 0.2
            assert [event["what"] for event in line.events()] == ["round", "answer"]


def test_a_clone_needs_few_rounds_until_its_first_file(
    publisher: Publisher, tmp_path: Path
) -> None:
    with raw_host(publisher.repo) as host:
        port = int(host.url.rpartition(":")[2].strip("/"))
        with far_line(port, tmp_path / "log", rtt_s=0.2) as line:
            bucketsync("clone", f"http://127.0.0.1:{line.port}", tmp_path / "tree")
            events = line.events()
    pack = next(event for event in events if "/packs/" in event["line"])
    assert pack["round"] <= _ROUNDS
