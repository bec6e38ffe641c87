"""What a command says: JSON for scripts on stdout and nothing else there, words on stderr."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import ConfigError, ExitCode
from syncclient.output import Output
from tests.support.client import ROOT


def lines(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def say_all(out: Output) -> None:
    out.event("phase", files=np.int64(7))
    out.result("a result")
    out.say("a notice")
    out.detail("a detail")
    out.warn("a warning")
    out.error(ConfigError("a mistake", hint="What to do."))
    out.table("Releases", ["name", "files"], [["y1 [red]", "1,000"], ["y2", ""]])
    out.summary(files=1, bytes=2)
    out.summary(files=3)
    out.close(ExitCode.INCOMPLETE)


def test_json_is_alone_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    say_all(Output("clone", json=True))
    captured = capsys.readouterr()
    assert lines(captured.out) == [
        {"event": "phase", "files": 7},
        {"event": "warning", "message": "a warning"},
        {
            "event": "error",
            "message": "a mistake",
            "hint": "What to do.",
            "kind": "ConfigError",
        },
        {"event": "summary", "verb": "clone", "exit_code": 3, "files": 3, "bytes": 2},
    ]
    assert "a notice\n" in captured.err
    assert "y1 [red]" in captured.err


def test_people_read_results_on_stdout_and_the_rest_on_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    say_all(Output("clone"))
    captured = capsys.readouterr()
    assert captured.out == "a result\n"
    for text in ("a notice", "a warning", "error: a mistake", "What to do.", "Releases"):
        assert text in captured.err
    assert "a detail" not in captured.err


@pytest.mark.parametrize(
    ("verbosity", "heard"),
    [(-1, {"a warning", "error: a mistake"}), (1, {"a detail", "a notice", "a warning"})],
)
def test_quiet_leaves_warnings_and_verbose_adds_details(
    capsys: pytest.CaptureFixture[str], verbosity: int, heard: set[str]
) -> None:
    say_all(Output("clone", verbosity=verbosity))
    said = capsys.readouterr().err
    assert all(text in said for text in heard)
    assert ("a notice" in said) == (verbosity >= 0)
    assert ("Releases" in said) == (verbosity >= 0)


def test_names_that_are_no_text_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    Output("trash", json=True).event("file", path=name)
    Output("trash").result(name)
    first, second = capsys.readouterr().out.splitlines()
    assert json.loads(first)["path"] == name
    assert second == "caf\\udce9.jpg"


def test_a_reader_that_went_away_does_not_end_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    with io.TextIOWrapper(os.fdopen(write_end, "wb", 0), write_through=True) as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        out = Output("trash", json=True)
        out.event("file", path="a")
        out.close(ExitCode.COMPLETE)


def explain(stdout: int, *flags: str) -> subprocess.CompletedProcess[str]:
    """A run in a process of its own, with another stdout."""
    code = "from syncclient.cli import script; script()"
    return subprocess.run(
        [sys.executable, "-P", "-c", code, "explain", *flags, "1girl solo"],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_results_that_a_full_disk_does_not_take_are_no_success(flags: tuple[str, ...]) -> None:
    with Path("/dev/full").open("w") as full:
        found = explain(full.fileno(), *flags)
    assert found.returncode == ExitCode.STORAGE
    assert found.stderr == "error: no more results are written: No space left on device\n"


def test_a_reader_that_went_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    found = explain(writing, "--json")
    os.close(writing)
    assert (found.returncode, found.stderr) == (ExitCode.COMPLETE, "")
