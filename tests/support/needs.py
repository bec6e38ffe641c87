"""Programs and libraries that some tests need, and how a reader of the summary gets them.

``tests/bootstrap/debian-packages.txt`` is the one list of programs, ``npm-packages.txt`` that of
libraries for node, ``other-libtorrent.txt`` the line of libtorrent that the environment does not
have, and ``make test`` installs them where it may.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

_LIST = Path(__file__).parents[1] / "bootstrap" / "debian-packages.txt"
_NODE_LIST = _LIST.with_name("npm-packages.txt")
_LIBTORRENT_LIST = _LIST.with_name("other-libtorrent.txt")


def _packages() -> dict[str, str]:
    """The Debian package of each program."""
    lines = (line.split() for line in _LIST.read_text().splitlines())
    return {words[0]: words[1] for words in lines if words and not words[0].startswith("#")}


def find_program(name: str) -> str | None:
    """Where a program is, also in the folders of system programs, which users lack on PATH."""
    places = [os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"]
    return shutil.which(name, path=os.pathsep.join(places))


def path_of(name: str) -> str:
    """Where a program is; its name if it is nowhere, which whoever starts it is told."""
    return find_program(name) or name


def program(name: str) -> str:
    """The path of a program that the test declared with :func:`needs`."""
    path = find_program(name)
    if path is None:
        pytest.skip(_advice(name))
    return path


def needs(*names: str) -> pytest.MarkDecorator:
    """A mark that skips a test, and says how to change that, unless every program is there.

    KeyError for a program that the list lacks: ``make test`` would never install it.
    """
    advice = {name: _advice(name) for name in names}
    missing = [advice[name] for name in names if find_program(name) is None]
    return pytest.mark.skipif(bool(missing), reason="; ".join(missing))


def _advice(name: str) -> str:
    return f"{name}: apt-get install {_packages()[name]}"


def node_package(name: str) -> Path:
    """The folder of an npm package in the cache; the test is skipped where it is missing."""
    version, folder = _node_packages()[name]
    if not folder.is_dir():
        pytest.skip(f"{name}: npm install --ignore-scripts --prefix {folder} {name}@{version}")
    return folder / "node_modules" / name


def _cache() -> Path:
    return Path(os.environ.get("BUCKETSYNC_TEST_CACHE") or Path.home() / ".cache" / "bucketsync")


def other_libtorrent() -> tuple[str, Path]:
    """Version and folder of the other line of libtorrent; the test is skipped where it is missing.

    What finds the folder on PYTHONPATH uses it in place of the one in the environment.
    """
    _, version = _LIBTORRENT_LIST.read_text().split("\nlibtorrent==")
    version = version.split()[0]
    folder = _cache() / "libtorrent" / f"{version}-{sys.implementation.cache_tag}"
    if not folder.is_dir():
        pytest.skip(f"libtorrent {version}: sh tests/bootstrap/libtorrent.sh")
    return version, folder


def _node_packages() -> dict[str, tuple[str, Path]]:
    """Version and folder of each npm package, as ``tests/bootstrap/node.sh`` lays them out."""
    lines = (line.split() for line in _NODE_LIST.read_text().splitlines())
    return {
        words[0]: (words[1], _cache() / "npm" / f"{words[0]}-{words[1]}")
        for words in lines
        if words and not words[0].startswith("#")
    }


def library(name: str) -> Any:  # noqa: ANN401 (a module)
    """A library of the extra ``test``; the test is skipped, and says so, where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"{name}: pip install 'bucketsync[test]'")
