"""OpenMoji as source trees, for tests on real data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from docs.examples import openmoji
from tests.support.needs import program

VERSIONS = tuple(openmoji.EDITIONS)


def openmoji_trees(versions: tuple[str, ...] = VERSIONS) -> list[Path]:
    """The trees of some versions, oldest first; tests and runs share them and never write there.

    The test is skipped where npm or the network is missing and the packages are not cached.
    """
    cache = openmoji.default_cache()
    if not all((cache / f"openmoji-{version}.tgz").is_file() for version in VERSIONS):
        program("npm")
    # Trees that another state of the script made are not these.
    script = hashlib.sha256(Path(openmoji.__file__).read_bytes()).hexdigest()
    try:
        return openmoji.lay_out(cache / f"trees-{script[:12]}", cache, versions)
    except openmoji.LayoutError as error:
        if error.exit_code != openmoji.NETWORK:
            raise
        pytest.skip(f"OpenMoji: {error}")
