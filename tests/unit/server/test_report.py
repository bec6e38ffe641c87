"""The page: whole in itself, safe whatever a tree holds, bounded, with pictures of the worst."""

from __future__ import annotations

import base64
import io
import re
import sys
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile

from server.audit import thumbnails
from server.audit.auditing import AuditReport
from server.audit.findings import Finding, FindingKind, Item, Severity
from server.audit.report import render_page, write_page
from server.audit.thumbnails import thumbnail
from tests.support import media

NOW = datetime(2022, 3, 4, 5, 6, tzinfo=UTC)
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Checks that every tag is closed, and keeps what a browser would load or run."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.parts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.parts)


def finding(
    kind: FindingKind,
    items: list[Item],
    *,
    severity: Severity = Severity.ERROR,
    variant: str = "original",
    count: int | None = None,
) -> Finding:
    return Finding(
        kind=kind,
        severity=severity,
        variant=variant,
        meaning="What it <means> & more.",
        ids=np.array([item.post_id for item in items if item.post_id], np.uint32),
        count=len(items) if count is None else count,
        listed=len(items),
        describe=items.__getitem__,
    )


def report(*findings: Finding, posts: int | None = 7) -> AuditReport:
    return AuditReport(
        findings=findings, files={"original": 12_345}, posts=posts, primary="original"
    )


def render(*findings: Finding, tree: Path = Path("/nowhere"), posts: int | None = 7) -> str:
    text = render_page(report(*findings, posts=posts), tree=tree, made=NOW)
    Page(text)
    return text


def cut_jpegs(tree: Path, count: int) -> list[Item]:
    data = media.encoded("JPEG", 300, 200)
    items = []
    for post_id in range(1, count + 1):
        path = tree / f"original/01/{post_id}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data[: len(data) // 2])
        items.append(Item(post_id=post_id, path=f"original/01/{post_id}.jpg", detail="cut"))
    return items


def test_a_page_needs_nothing_but_itself(tmp_path: Path) -> None:
    page = Page(render(finding(FindingKind.TRUNCATED, cut_jpegs(tmp_path, 3)), tree=tmp_path))
    assert all(source.startswith(("data:image/jpeg;base64,", "#")) for source in page.sources)
    assert sum(source.startswith("data:") for source in page.sources) == 3
    assert not page.tags & {"script", "link", "iframe", "object"}
    assert "default-src 'none'" in render()
    assert "url(" not in render()


def test_a_page_tells_what_was_found() -> None:
    items = [Item(post_id=31, path="original/01/31.jpg", detail="7 bytes, metadata says 8")]
    text = Page(render(finding(FindingKind.SIZE_METADATA, items))).text
    for part in ("1 error and 0 notices", "12,345", "Size against metadata", "2022-03-04 05:06"):
        assert part in text
    for part in ("31", "original/01/31.jpg", "7 bytes, metadata says 8"):
        assert part in text


def test_a_page_about_nothing() -> None:
    assert "Nothing was found." in Page(render()).text
    assert 'class="verdict good"' in render()
    assert "No metadata was given" in render(posts=None)


def test_every_kind_has_a_title() -> None:
    items = [Item(post_id=1, path="a", detail="b")]
    assert len(render(*(finding(kind, items) for kind in FindingKind))) > 1000


def test_whatever_the_tree_says_is_text(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
    items = [Item(post_id=1, path=f"original/{evil}", detail=evil)]
    bucket = tmp_path / "<b>evil"
    path = bucket / "original/01/1.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"<script>alert(2)</script>" * 9)
    items.append(Item(post_id=2, path="original/01/1.jpg", detail=evil))
    text = render(finding(FindingKind.TRUNCATED, items, variant=evil), tree=bucket)
    assert "<script" not in text
    assert not Page(text).tags & {"script", "img", "b>evil"}


def test_a_page_stays_small_however_much_was_found(tmp_path: Path) -> None:
    path = "&" * 5000
    many = [Item(post_id=4_000_000_000 + n, path=path, detail=path) for n in range(1000)]
    notice = Severity.NOTICE
    findings = [finding(kind, many, severity=notice) for kind in FindingKind for _ in range(12)]
    pictures = finding(FindingKind.TRUNCATED, cut_jpegs(tmp_path, 100))
    text = render(pictures, *findings, tree=tmp_path)
    assert len(text.encode()) < 5_000_000
    assert text.count('<img src="data:') == 12


def test_pictures_are_shared_by_the_findings(tmp_path: Path) -> None:
    items = cut_jpegs(tmp_path, 30)
    findings = [finding(FindingKind.TRUNCATED, items, variant=f"v{n}") for n in range(8)]
    notice = finding(FindingKind.TRUNCATED, items, severity=Severity.NOTICE)
    text = render(*findings, notice, tree=tmp_path)
    sections = text.split("<section")[1:]
    counts = [section.count("<img") for section in sections]
    assert sum(counts) == 60
    assert counts[-1] == 0
    assert min(counts[:-1]) >= 7


def test_what_is_left_out_is_counted() -> None:
    many = [Item(post_id=n, path=f"original/{n}", detail="x") for n in range(1, 20_001)]
    text = render(finding(FindingKind.FILE_WITHOUT_POST, many))
    assert "The first 100, one by one" in text
    assert "and 10,000 more: --json lists them" in text
    few = render(finding(FindingKind.FILE_WITHOUT_POST, many[:3]))
    assert "All, one by one" in few


def test_a_page_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "audit.html"
    write_page(report(), tree=tmp_path, path=path)
    assert path.read_text("utf-8").startswith("<!DOCTYPE html>")
    assert [file.name for file in tmp_path.iterdir()] == ["audit.html"]
    with pytest.raises(OSError, match="No such file"):
        write_page(report(), tree=tmp_path, path=tmp_path / "missing" / "audit.html")


# --------------------------------------------------------------------------- pictures


def drawn(path: Path) -> Image.Image:
    found = thumbnail(path)
    assert found is not None
    return Image.open(io.BytesIO(base64.b64decode(found.uri.partition(",")[2])))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_a_thumbnail_is_a_small_jpeg(tmp_path: Path, kind: str) -> None:
    (tmp_path / "1").write_bytes(media.encoded(kind, 900, 300))
    picture = drawn(tmp_path / "1")
    assert (picture.format, picture.width) == ("JPEG", 200)
    assert 60 <= picture.height <= 70


def test_what_is_left_of_a_cut_off_picture_is_shown(tmp_path: Path) -> None:
    whole = media.encoded("JPEG", 200, 200, quality=95)
    (tmp_path / "1").write_bytes(whole[: len(whole) * 6 // 10])
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    picture = drawn(tmp_path / "1").convert("L")
    assert picture.getpixel((100, 190)) == pytest.approx(128, abs=3)
    top = picture.crop((0, 0, 200, 40)).getextrema()
    assert top[1] - top[0] > 30  # type: ignore[operator]
    assert before == ImageFile.LOAD_TRUNCATED_IMAGES


def test_transparent_pictures_lie_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (50, 50), (0, 0, 0, 0)).save(tmp_path / "1.png")
    assert drawn(tmp_path / "1.png").getpixel((25, 25)) == (255, 255, 255)


def test_what_is_no_picture_shows_its_first_bytes(tmp_path: Path) -> None:
    items = [Item(post_id=1, path="1.jpg", detail="holds an HTML page")]
    (tmp_path / "1.jpg").write_bytes(media.HTML)
    text = render(finding(FindingKind.EXTENSION_CONTENT, items), tree=tmp_path)
    assert "3c 21 44 4f 43 54" in text
    assert "&lt;!DOCT" in text
    assert "<img" not in text


def test_a_picture_of_too_many_pixels_is_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "1").write_bytes(media.encoded("PNG", 100, 100))
    monkeypatch.setattr(thumbnails, "_MAX_PIXELS", 9_999)
    found = thumbnail(tmp_path / "1")
    assert found is not None
    assert (found.uri, found.first_bytes[:4]) == ("", b"\x89PNG")


def test_a_bomb_is_not_decoded(tmp_path: Path) -> None:
    bomb = media.encoded("PNG", 8, 8)
    (tmp_path / "1").write_bytes(bomb[:16] + b"\x00\x01\x00\x00" * 2 + bomb[24:])
    found = thumbnail(tmp_path / "1")
    assert found is not None
    assert found.uri == ""


def test_files_that_cannot_be_read_have_no_thumbnail(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert thumbnail(tmp_path / "missing") is None
    assert thumbnail(tmp_path / "link") is None
    items = [Item(post_id=1, path="missing", detail="gone")]
    assert "<figure" not in render(finding(FindingKind.TRUNCATED, items), tree=tmp_path)


def test_without_pillow_the_page_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = cut_jpegs(tmp_path, 1)
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    text = render(finding(FindingKind.TRUNCATED, items), tree=tmp_path)
    assert "Thumbnails need Pillow" in text
    assert "<img" not in text
    assert re.search(r"<pre>ff d8 ff", text)
