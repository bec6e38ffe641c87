"""Both lines of libtorrent, 2.0 and 2.1: the other one than the environment's does the same.

``make test LIBTORRENT=other`` runs everything with it; here is what differs between the two.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import libtorrent

from tests.support.needs import other_libtorrent

ROOT = Path(__file__).parents[2]
# Torrents to the byte; fetching, and seeding beside newer files; a peer whose bytes are wrong, on
# which 2.1.1 crashes.
PARTS = (
    "tests/property/test_torrents_property.py::test_info_dictionaries_are_those_of_libtorrent",
    "tests/e2e/test_peers.py::test_a_selection_brings_what_is_selected_and_no_more",
    "tests/e2e/test_peers.py::test_a_peer_with_wrong_bytes_does_no_harm",
    "tests/e2e/test_peers.py::test_what_a_later_release_replaced_is_neither_offered_nor_touched",
)


def test_the_other_line_does_the_same() -> None:
    version, folder = other_libtorrent()
    if libtorrent.__version__.startswith(version):
        # The whole run has the other line.
        return
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    asks = [sys.executable, "-c", "import libtorrent; print(libtorrent.__version__)"]
    found = subprocess.check_output(asks, env=environment, text=True)
    assert found.startswith(version)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *PARTS]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
