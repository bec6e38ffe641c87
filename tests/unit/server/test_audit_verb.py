"""``bucketsync-server audit``: one run over a tree with some of everything wrong."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manifests.errors import ExitCode
from server.audit.announce import show_findings
from server.audit.auditing import AuditReport
from server.audit.findings import StrayLog
from server.cli import main
from server.walk import Stray, StrayKind
from syncclient.output import Output
from tests.support import media
from tests.support.commands import Finished, publisher

POSTS = 30


def post(post_id: int, **fields: object) -> str:
    size = len(media.encoded("JPEG"))
    told = {"id": str(post_id), "file_ext": "jpg", "file_size": str(size)}
    return json.dumps(told | {"image_width": "40", "image_height": "30"} | fields)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Thirty whole posts in two variants, and their metadata."""
    for variant in ("original", "512px"):
        for post_id in range(1, POSTS + 1):
            path = tmp_path / f"tree/{variant}/{post_id % 10:02d}/{post_id}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(media.encoded("JPEG"))
    lines = [post(post_id) for post_id in range(1, POSTS + 1)]
    metadata = tmp_path / "tree/metadata/2021/2021000000000000"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("\n".join(lines))
    return tmp_path / "tree"


def spoil(tree: Path) -> None:
    """One of each sort that a publisher's tree may have."""
    original = tree / "original"
    whole = media.encoded("JPEG")
    (original / "01/1.jpg").write_bytes(whole[:-20])
    (original / "02/2.jpg").write_bytes(media.encoded("PNG"))
    (original / "03/3.jpg").write_bytes(b"")
    (original / "04/4.jpg").unlink()
    (original / "05/5.jpg").rename(original / "06/5.jpg")
    (original / "07/7.JPG").write_bytes(whole)
    (original / "08/8.png").write_bytes(media.encoded("PNG"))
    (original / "09/99.jpg").write_bytes(whole)
    (original / "00/10.jpg").write_bytes(whole + b"longer")
    (original / "01/11.jpg").write_bytes(media.encoded("JPEG", 41, 30))
    with (tree / "metadata/2021/2021000000000000").open("a") as file:
        file.write("\nno row\n")


EXPECTED = {
    ("original", "truncated", 1),
    ("original", "extension-content", 2),
    ("original", "empty-file", 3),
    ("original", "post-without-file", 4),
    ("original", "post-without-file", 5),
    ("original", "wrong-bucket", 5),
    ("original", "case-twin", 7),
    ("original", "duplicate-id", 8),
    ("original", "file-without-post", 99),
    ("original", "dimensions-metadata", 11),
    ("original", "size-metadata", 10),
    ("", "unreadable-row", None),
}


def found(run: Finished) -> set[tuple[str, str, int | None]]:
    return {(e["variant"], e["kind"], e["id"]) for e in run.events("finding")}


LAYOUT = ("--buckets", 10, "--digits", 2)


def test_a_whole_tree(tree: Path) -> None:
    run = publisher("audit", tree, *LAYOUT, "--metadata", tree / "metadata", "--strict")
    assert run.events("finding") == run.events("findings") == []
    assert run.summary["files"] == {"original": POSTS, "512px": POSTS}
    assert (run.summary["posts"], run.summary["errors"], run.summary["notices"]) == (POSTS, 0, 0)


@pytest.mark.parametrize("jobs", [1, 2])
def test_every_sort_of_trouble_by_id(tree: Path, jobs: int) -> None:
    spoil(tree)
    run = publisher("audit", tree, *LAYOUT, "--metadata", tree / "metadata", "--jobs", jobs)
    assert found(run) >= EXPECTED
    totals = {(e["variant"], e["kind"]): e["count"] for e in run.events("findings")}
    assert set(totals) == {(variant, kind) for variant, kind, _ in found(run)}
    assert totals["original", "post-without-file"] == 2
    assert run.summary["findings"]["post-without-file"] == 2
    assert run.summary["errors"] == sum(
        e["count"] for e in run.events("findings") if e["severity"] == "error"
    )


def test_strict_refuses_errors(tree: Path) -> None:
    arguments = ("audit", tree, *LAYOUT, "--metadata", tree / "metadata")
    spoil(tree)
    assert publisher(*arguments, expect=0).summary["exit_code"] == ExitCode.COMPLETE
    run = publisher(*arguments, "--strict", expect=ExitCode.DAMAGED)
    assert run.summary["exit_code"] == ExitCode.DAMAGED


def test_strict_does_not_refuse_notices(tree: Path) -> None:
    (tree / "original/01/notes.txt").write_text("hello")
    run = publisher("audit", tree, *LAYOUT, "--metadata", tree / "metadata", "--strict")
    assert run.summary["findings"] == {"odd-name": 1}


def test_without_metadata_the_files_are_judged_by_themselves(tree: Path) -> None:
    spoil(tree)
    (tree / "metadata").rename(tree.parent / "elsewhere")
    run = publisher("audit", tree, *LAYOUT)
    about_metadata = {"post-without-file", "file-without-post", "size-metadata", "unreadable-row"}
    kinds = {kind for _, kind, _ in found(run)}
    assert kinds >= {"truncated", "empty-file", "extension-content", "case-twin"}
    assert not kinds & about_metadata
    assert run.summary["posts"] is None


def test_metadata_beside_the_variants_is_found(tree: Path) -> None:
    spoil(tree)
    named = publisher("audit", tree, *LAYOUT, "--metadata", tree / "metadata")
    assert found(publisher("audit", tree, *LAYOUT)) == found(named)


def test_one_variant_of_several(tree: Path) -> None:
    spoil(tree)
    (tree / "metadata").rename(tree.parent / "elsewhere")
    run = publisher("audit", tree, *LAYOUT, "--variant", "512px")
    assert run.summary["files"] == {"512px": POSTS}
    assert found(run) == set()


def test_the_page_and_what_people_read(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil(tree)
    page = tree.parent / "audit.html"
    words = (
        "audit",
        tree,
        *LAYOUT,
        "--metadata",
        tree / "metadata",
        "--report",
        page,
        "--jobs",
        1,
    )
    assert main([str(word) for word in words]) == ExitCode.COMPLETE
    shown = capsys.readouterr().err
    assert "extension-content" in shown
    assert str(page) in shown
    text = page.read_text("utf-8")
    assert "Extension against content" in text
    assert "data:image/jpeg" in text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--digits", 2), "digits"),
        (("--buckets", 0), "buckets"),
        ((*LAYOUT, "--jobs", 0), "--jobs"),
        ((*LAYOUT, "--variant", "none"), "expected the folder of a variant"),
        ((*LAYOUT, "--metadata", "/missing"), "no such file"),
        (("--buckets", 1000, "--digits", 4), "no folder has bucket folders"),
    ],
)
def test_what_cannot_be_is_a_usage_error(
    tree: Path, flags: tuple[object, ...], message: str
) -> None:
    run = publisher("audit", tree, *flags, expect=ExitCode.USAGE)
    assert message in run.events("error")[0]["message"]


def test_people_are_told_where_what_has_no_id_is(
    tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metadata = tree / "metadata/2021/2021000000000000"
    with metadata.open("a") as file:
        file.write("\nno row" * 5 + "\n[\n")
    command = ["audit", str(tree), *map(str, LAYOUT), "--jobs", "1"]
    assert main(command) == 0
    told = capsys.readouterr().err
    assert f"{metadata}:{POSTS + 1}: no JSON" in told
    assert "... and 3 more" in told
    assert main([*command, "-v"]) == 0
    list_begins = f"{metadata}:{POSTS + 6}: expected an object a line, got a list of them"
    assert list_begins in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["meta/posts.json", "2021000000000000.json", "metadata.json.tar.xz"]
)
def test_metadata_in_another_place_are_noticed(tree: Path, name: str) -> None:
    (tree / "metadata").rename(tree.with_name("elsewhere"))
    assert publisher("audit", tree, *LAYOUT).events("warning") == []
    (tree / name).parent.mkdir(exist_ok=True)
    (tree / name).write_text(post(1))
    (warning,) = publisher("audit", tree, *LAYOUT).events("warning")
    assert f"--metadata {tree / name} reads it" in warning["message"]


def test_places_beyond_a_bound_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    strays = StrayLog()
    paths = ("v/1/a", "v/1/b", "v/1/c")
    strays.add("v", [Stray(kind=StrayKind.ODD_NAME, path=path, reason="") for path in paths])
    report = AuditReport(findings=tuple(strays.findings()), files={}, posts=None, primary="v")
    show_findings(report, Output("publish", json=True), places=2)
    *named, last = map(json.loads, capsys.readouterr().out.splitlines())
    assert [event["path"] for event in named] == ["v/1/a", "v/1/b"]
    assert (last["event"], last["count"], last["truncated"]) == ("findings", 3, 1)
