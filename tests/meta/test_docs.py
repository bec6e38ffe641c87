"""The documents agree with each other and with the code."""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from msgspec.structs import fields

from docs import generate_reference
from docs.generate_reference import verbs_of
from manifests.errors import ExitCode
from server.cli import build_parser as publisher_parser
from server.signing import PASSPHRASE_VARIABLE
from syncclient.cli import build_parser as client_parser
from syncclient.config import (
    CONFIG_NAME,
    Transport,
    TreeConfig,
    private_folder,
    save_tree_config,
)
from syncclient.selection import Selection
from tests.support.documents import (
    ROOT,
    anchors,
    blocks,
    commands,
    documents,
    first_column,
    links,
    section,
)
from tests.support.imports import PACKAGES, imports_by_file

REFERENCE = ROOT / "docs/reference"
_OUTSIDE = re.compile(r"[a-z][a-z0-9+.-]*:")
_MENTION = re.compile(r"\b(?:docs/[\w./-]+\.(?:md|py|svg)|adr/\d{4})\b")
_MENTIONING = ("*.py", "*.md", "Makefile", "*.toml")
_OWN_VERBS = {"bucketsync": client_parser, "bucketsync-server": publisher_parser}


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    broken = []
    for link in links(path):
        if _OUTSIDE.match(link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_every_document_can_be_reached_from_the_index() -> None:
    seen, waiting = set[Path](), [ROOT / "docs/index.md"]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        inside = [link.partition("#")[0] for link in links(path) if not _OUTSIDE.match(link)]
        waiting += [(path.parent / name).resolve() for name in inside if name.endswith(".md")]
    assert [path for path in ROOT.glob("docs/**/*.md") if path not in seen] == []


def test_what_the_code_says_of_the_documents_is_there() -> None:
    places = [ROOT / name for name in (*PACKAGES, "tests", "docs")]
    files = [file for place in places for kind in _MENTIONING for file in place.rglob(kind)]
    files += [file for kind in _MENTIONING for file in ROOT.glob(kind)]
    missing = {
        (str(file.relative_to(ROOT)), found)
        for file in files
        for found in _MENTION.findall(file.read_text(encoding="utf-8"))
        if not list(ROOT.glob(f"{found}*")) and not list(ROOT.glob(f"docs/{found}*"))
    }
    assert missing == set()


def test_the_command_line_reference_is_what_the_programs_say() -> None:
    command = [sys.executable, "docs/generate_reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_stale_reference_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    stale = tmp_path / "cli.md"
    stale.write_text(generate_reference.reference().replace("--release", "--edition", 1))
    monkeypatch.setattr(generate_reference, "PATH", stale)
    monkeypatch.setattr(sys, "argv", ["generate_reference.py", "--check"])
    assert generate_reference.main() == 1
    assert "--edition" in stale.read_text()


@pytest.mark.parametrize("program", _OWN_VERBS)
def test_every_verb_is_shown_at_work(program: str) -> None:
    pages = [*ROOT.glob("docs/tutorial/*.md"), *ROOT.glob("docs/how-to/*.md")]
    shown = {
        found
        for page in pages
        for block in blocks(page)
        if block.info.startswith("console")
        for command in commands(block)
        for found in re.findall(rf"\b{program} ([a-z-]+)", command.text)
    }
    assert set(verbs_of(_OWN_VERBS[program]())) - shown == set()


def test_every_exit_code_is_explained() -> None:
    text = (REFERENCE / "exit-codes.md").read_text()
    codes = first_column(text.partition("## By verb")[0])
    assert codes == [str(int(code)) for code in ExitCode]


def test_every_transport_setting_is_explained() -> None:
    rows = [row.split("|") for row in section(REFERENCE / "settings.md", "Transport").splitlines()]
    documented = {
        row[1].strip(" `"): (row[2].strip(" `"), row[3].strip(" `"))
        for row in rows
        if len(row) > 5
    }
    flags = {
        action.dest: action.option_strings[-1]
        for action in _actions(verbs_of(client_parser())["upgrade"])
    }
    for setting in fields(Transport):
        expected = (f"BUCKETSYNC_{setting.name.upper()}", flags[setting.name])
        assert documented.get(setting.name) == expected, setting.name


def test_every_transport_default_is_explained() -> None:
    rows = section(REFERENCE / "settings.md", "Transport").splitlines()
    for setting in fields(Transport):
        (row,) = [row for row in rows if row.startswith(f"| `{setting.name}` |")]
        default = getattr(Transport(), setting.name)
        assert row.split("|")[4].strip() == _shown(default)


def _shown(default: object) -> str:
    if default == ():
        return "none"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, int) and default >= 10**6:
        return f"{default // 10**6}M"
    return default if isinstance(default, str) else f"{default:g}"


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings]


def test_every_key_of_a_tree_is_explained(tmp_path: Path) -> None:
    config = TreeConfig(
        dataset="d", urls=(), root_fingerprint="", release="r", selection=Selection()
    )
    private_folder(tmp_path).mkdir()
    asyncio.run(save_tree_config(tmp_path, config))
    written = tomllib.loads((private_folder(tmp_path) / CONFIG_NAME).read_text())
    text = section(REFERENCE / "settings.md", "The tree: `.bucketsync/config.toml`")
    assert set(written) <= set(first_column(text))


def test_every_variable_is_explained() -> None:
    text = (REFERENCE / "settings.md").read_text()
    named = {
        found
        for package in ("syncclient", "server")
        for file in ROOT.glob(f"{package}/**/*.py")
        for found in re.findall(r'"(BUCKETSYNC_[A-Z_]+|SOURCE_DATE_EPOCH)"', file.read_text())
    }
    assert PASSPHRASE_VARIABLE in named
    assert {name for name in named if f"`{name}`" not in text} == set()


def test_every_module_is_on_the_map() -> None:
    page = ROOT / "docs/explanation/how-a-run-works.md"
    text = page.read_text().partition("## Where each thing lives")[2]
    for package in PACKAGES:
        _, _, rest = text.partition(f"### {package}: ")
        shown = set(re.findall(r"`([a-z_]+/?)`", rest.partition("\n### ")[0]))
        there = {_place(file) for file in imports_by_file(package)} - {"__init__"}
        assert shown == there, package


def _place(file: str) -> str:
    """``syncclient/sources/http.py`` is shown as its folder, ``syncclient/plan.py`` as itself."""
    parts = Path(file).parts[1:]
    return f"{parts[0]}/" if len(parts) > 1 else Path(parts[0]).stem
