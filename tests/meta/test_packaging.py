"""What a user installs: the wheel, what it depends on, and the lock that the suite ran with."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.imports import PACKAGES, ROOT, imports_by_file

_PIN = re.compile(
    r"^([a-z0-9-]+)==(\S+) \\\n(?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+", re.MULTILINE
)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    table: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return table


@pytest.fixture(scope="module")
def lock() -> str:
    return (ROOT / "requirements.lock").read_text()


def declared(project: dict[str, Any], *extras: str) -> list[Requirement]:
    lines = list(project["dependencies"])
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    return [Requirement(line) for line in lines]


def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in held} == set(PACKAGES)
    assert {name for name in held if name.endswith(".py")} == set(imports_by_file(*PACKAGES))
    assert {f"{package}/py.typed" for package in PACKAGES} <= held


def test_every_library_that_the_packages_import_is_declared(project: dict[str, Any]) -> None:
    known = {canonicalize_name(need.name) for need in declared(project, "sample")}
    # _typeshed exists for type checkers alone.
    given = {*PACKAGES, *sys.stdlib_module_names, "_typeshed"}
    homes = packages_distributions()
    missing = {
        (file, library)
        for file, names in imports_by_file(*PACKAGES).items()
        for library in {name.partition(".")[0] for name in names} - given
        if known.isdisjoint(canonicalize_name(home) for home in homes.get(library, ()))
    }
    assert missing == set()


def test_the_lock_has_an_allowed_version_of_everything(project: dict[str, Any], lock: str) -> None:
    pins = {match[1]: match[2] for match in _PIN.finditer(lock)}
    for need in declared(project, *project["optional-dependencies"]):
        assert need.specifier.contains(pins[canonicalize_name(need.name)]), need


def test_the_lock_is_pins_with_hashes_and_names_no_place(lock: str) -> None:
    rest = _PIN.sub("", lock).splitlines()
    assert [line for line in rest if line.strip() and not line.lstrip().startswith("#")] == []
    assert "://" not in lock
    assert "--index" not in lock
