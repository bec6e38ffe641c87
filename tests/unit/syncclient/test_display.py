"""Progress: rates over the last half minute, and no guess before there is something to go by."""

from __future__ import annotations

import json
import sys

import pytest
from rich.console import Console

from syncclient.display import Display, Meter, drawn
from syncclient.events import Notice, Phase, Progress
from syncclient.output import Output

MB = 10**6


def meter_after(seconds: int, bytes_s: int, files_s: int = 10) -> Meter:
    meter = Meter(Phase(name="transfer", total_files=10_000, total_bytes=1000 * MB), 0.0)
    for now_s in range(1, seconds + 1):
        meter.update(Progress(files=files_s * now_s, bytes=bytes_s * now_s), float(now_s))
    return meter


def test_rates_are_those_of_the_window() -> None:
    meter = meter_after(100, MB)
    files_s, bytes_s = meter.rates(100.0)
    assert files_s == pytest.approx(10, rel=0.05)
    assert bytes_s == pytest.approx(MB, rel=0.05)
    for now_s in range(101, 141):
        meter.update(Progress(files=1000, bytes=100 * MB + (now_s - 100) * 9 * MB), float(now_s))
    files_s, bytes_s = meter.rates(140.0)
    assert files_s == pytest.approx(0, abs=0.1)
    assert bytes_s == pytest.approx(9 * MB, rel=0.05)


def test_the_time_left_is_what_the_rate_says() -> None:
    assert meter_after(2, MB).left_s(2.0) is None
    assert meter_after(10, MB).left_s(10.0) == pytest.approx(990, rel=0.05)


def test_without_bytes_files_are_counted() -> None:
    meter = Meter(Phase(name="scan", total_files=1000), 0.0)
    assert meter.left_s(9.0) is None
    meter.update(Progress(files=100), 10.0)
    assert meter.left_s(10.0) == pytest.approx(90)
    assert meter.fraction() == pytest.approx(0.1)


def test_a_stall_gives_no_time_at_all() -> None:
    meter = Meter(Phase(name="transfer", total_files=10, total_bytes=100), 0.0)
    meter.update(Progress(), 20.0)
    assert meter.left_s(20.0) is None
    assert meter.fraction() == 0


def test_more_than_was_foreseen_is_still_all_of_it() -> None:
    meter = Meter(Phase(name="transfer", total_files=10, total_bytes=100), 0.0)
    meter.update(Progress(files=11, bytes=200), 1.0)
    assert meter.fraction() == 1


def test_the_line_has_counts_rates_and_the_time_left() -> None:
    line = meter_after(10, MB).line(10.0)
    assert "100 of 10,000 files" in line
    assert "10 MB of 1 GB" in line
    assert "1 MB/s" in line
    assert "10 files/s" in line
    assert "left" in line


def test_scripts_see_phases_progress_and_notices(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(Output("clone", json=True), terminal=False)
    display(Progress(files=1))
    display(Phase(name="transfer", total_files=10, total_bytes=100))
    display(Progress(files=3, bytes=30))
    display(Progress(files=4, bytes=40))
    display(Notice(text="good to know"))
    display(Notice(text="not good", warning=True))
    display.close()
    captured = capsys.readouterr()
    assert [json.loads(line) for line in captured.out.splitlines()] == [
        {"event": "phase", "phase": "transfer", "files": 10, "bytes": 100},
        {"event": "progress", "files": 3, "bytes": 30},
        {"event": "notice", "message": "good to know"},
        {"event": "warning", "message": "not good"},
    ]
    assert captured.err == "good to know\nnot good\n"


def test_verbose_keeps_the_last_line_of_each_phase(capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(Output("clone", verbosity=1), terminal=False)
    display(Phase(name="scan", total_files=10))
    display(Progress(files=10))
    display(Phase(name="transfer"))
    display.close()
    assert capsys.readouterr().err.startswith("Looking at the tree: 10 of 10 files")


def test_on_a_terminal_there_is_a_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    display = Display(Output("clone"), terminal=True)
    display(Phase(name="transfer", total_files=10, total_bytes=100))
    display(Progress(files=3, bytes=30))
    display.close()
    captured = capsys.readouterr()
    assert "Fetching" in captured.err
    assert "3 of 10 files" in captured.err
    assert captured.out == ""


@pytest.mark.parametrize("columns", [100, 40, 12])
def test_title_bar_and_counts_stand_on_lines_of_their_own(columns: int) -> None:
    """Else the terminal has other lines than those that are taken away when a phase ends."""
    console = Console(width=columns, force_terminal=True, color_system=None)
    with console.capture() as capture:
        console.print(drawn(meter_after(10, MB), 10.0))
    lines = capture.get().splitlines()
    assert lines[0].rstrip() == "Fetching"
    assert set(lines[1].strip()) <= set("━╸╺")
    assert lines[2].startswith("100 of")
    assert all(len(line) <= columns for line in lines)


def test_what_is_said_meanwhile_goes_above_the_bar(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    out = Output("clone")
    display = Display(out, terminal=True)
    display(Phase(name="scan", total_files=10))
    display(Progress(files=3))
    out.table("To fetch", ("by", "files"), [["png", "3"]])
    display.close()
    drawn_before, _, rest = capsys.readouterr().err.partition("To fetch")
    # The three lines of the bar are taken away, and drawn anew below the table.
    assert drawn_before.rpartition("files/s")[2].count("\x1b[1A") == 2
    assert "Looking at the tree" in rest.partition("┘")[2]
