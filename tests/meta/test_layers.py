"""The arrows of the packages point down only, and each outside library has its few places."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.imports import PACKAGES, imported, imports_by_file, is_within

# Files, sockets, clocks and processes: what the pure package leaves to its users.
IMPURE = (
    "aiofiles",
    "aiohttp",
    "asyncio",
    "multiprocessing",
    "os",
    "pathlib",
    "shutil",
    "socket",
    "subprocess",
    "tempfile",
    "threading",
    "time",
)

# What the server shares with the client: reading trees and metadata, telling of it.
SHARED = ("syncclient.files", "syncclient.metadata", "syncclient.output", "syncclient.tree")


def importers(package: str, module: str) -> set[str]:
    """The files of a package that import a module or something of it."""
    return {
        file
        for file, names in imports_by_file(package).items()
        if any(is_within(name, module) for name in names)
    }


def test_imports_are_found_wherever_they_stand() -> None:
    source = "import a.b\nfrom c import d\ndef f():\n    from e.f import g\n    from . import h\n"
    assert list(imported(source)) == ["a.b", "c.d", "e.f.g", "..h"]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_looked_at(package: str) -> None:
    assert importers(package, "__future__")


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("manifests", "syncclient"), ("manifests", "server"), ("syncclient", "server")],
)
def test_arrows_point_down(package: str, forbidden: str) -> None:
    assert importers(package, forbidden) == set()


@pytest.mark.parametrize("module", IMPURE)
def test_the_format_is_pure(module: str) -> None:
    # Threads must not share the contexts of zstd, so each has its own.
    allowed = {"zstd.py"} if module == "threading" else set()
    assert {Path(file).name for file in importers("manifests", module)} == allowed


def test_the_server_imports_of_the_client_only_what_reads_files() -> None:
    others = {
        (file, name)
        for file, names in imports_by_file("server").items()
        for name in names
        if is_within(name, "syncclient") and not any(is_within(name, module) for module in SHARED)
    }
    assert others == set()


def test_rich_is_imported_where_people_are_spoken_to() -> None:
    found = {file for package in PACKAGES for file in importers(package, "rich")}
    assert found <= {
        "syncclient/display.py",
        "syncclient/output.py",
        "server/progress.py",
    }


def test_the_client_speaks_http_in_its_sources_alone() -> None:
    found = importers("syncclient", "aiohttp")
    assert {file for file in found if not file.startswith("syncclient/sources/")} == set()


def test_imports_name_their_module_in_full() -> None:
    relative = {
        (file, name)
        for file, names in imports_by_file(*PACKAGES).items()
        for name in names
        if name.startswith(".")
    }
    assert relative == set()
