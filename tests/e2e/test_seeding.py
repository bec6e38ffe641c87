"""How much ``seed`` offers, and when: ratio, hours, memory; what private torrents leave alone."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import libtorrent as lt
import pytest
from msgspec.structs import replace

from manifests.errors import ConfigError
from manifests.torrents.announce import Announcement, Neighbours, State
from syncclient.torrents.members import SwarmSettings
from syncclient.torrents.schedule import parse_hours
from syncclient.torrents.seeding import Limits
from syncclient.torrents.swarm import flags_of
from tests.support.client import bucketsync, contents, started
from tests.support.host import Host, running_host
from tests.support.peers import LOOPBACK, seeding
from tests.support.publisher import Publisher

ALONE = ("--source", "torrent", *LOOPBACK)
VARIANTS = ("original", "small", "tiny")


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    made = Publisher(tmp_path_factory.mktemp("publisher"))
    for variant in VARIANTS:
        made.fill(range(1, 41), variant, size_bytes=20_000)
    made.publish("y1", "--date", "2020-01-01")
    return made


@pytest.fixture
def host(publisher: Publisher) -> Iterator[Host]:
    with running_host(publisher.repo, "--announce-interval", "1") as running:
        yield running


@pytest.fixture
def tree(host: Host, tmp_path: Path) -> Path:
    bucketsync("clone", host.url, tmp_path / "seeder", "--source", "http")
    return tmp_path / "seeder"


def clock(hours: float) -> str:
    """The time of the day in some hours."""
    return f"{datetime.now().astimezone() + timedelta(hours=hours):%H:%M}"


def test_it_ends_when_it_has_sent_as_much_as_was_asked(
    host: Host, tree: Path, tmp_path: Path
) -> None:
    with started("clone", host.url, tmp_path / "tree", *ALONE) as leecher:
        run = bucketsync("seed", tree, *LOOPBACK, "--ratio", "0.5")
        held = sum(map(len, contents(tree).values()))
        assert run.code == 0
        assert run["bytes_sent"] >= 0.5 * held
        leecher.send(signal.SIGKILL)


def test_outside_its_hours_nothing_is_offered_and_no_tracker_told(
    host: Host, tree: Path, tmp_path: Path
) -> None:
    words = ("clone", host.url, tmp_path / "tree", *ALONE, "--timeout", "1")
    with seeding(tree, "--hours", f"{clock(2)}-{clock(3)}") as peer:
        peer.wait_for("status")
        direct = bucketsync(*words, "--peer", peer.address)
        told = [event["copies"] for event in peer.named("status")]
    assert (direct.code, contents(tmp_path / "tree")) == (3, {})
    assert set(told) == {-1}
    with seeding(tree, "--hours", f"{clock(-1)}-{clock(2)}"):
        assert bucketsync(*words).code == 0


def test_torrents_beyond_the_memory_make_way_for_those_that_somebody_waits_for(
    host: Host, publisher: Publisher, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (layer,) = publisher.releases()["y1"].layers
    hashes = [ref.info_hashes.announced[0] for refs in layer.torrents.values() for ref in refs]
    monkeypatch.setattr("syncclient.commands.seed.Limits", partial(Limits, turn_s=0.3))
    offered: list[bytes] = []

    def ask(states: Mapping[bytes, State]) -> Neighbours:
        body = Announcement(port=9, numwant=0, hashes=list(states), states=list(states.values()))
        with urlopen(f"{host.url}/announce/batch", body.encode()) as answer:  # noqa: S310
            return Neighbours.decode(answer.read(), len(states))

    def want_each() -> None:
        """Wait for one after the other."""
        for one in hashes:
            while not ask({one: State.LEECHING}).seeds[0]:
                time.sleep(0.05)
            seeds = ask(dict.fromkeys(hashes, State.RESTING)).seeds
            offered.extend(h for h, count in zip(hashes, seeds, strict=True) if count)
            ask({one: State.STOPPED})
        os.kill(os.getpid(), signal.SIGINT)

    wanting = Thread(target=want_each)
    wanting.start()
    # Room for a file, so for one torrent at a time.
    run = bucketsync("seed", tree, *LOOPBACK, "--memory", "600", "--look-every", "0.1")
    wanting.join()
    assert run["torrents"] == len(VARIANTS)
    assert offered == hashes


@pytest.mark.parametrize(
    ("span", "inside", "outside"),
    [
        ("08:00-18:30", (480, 1109), (479, 1110)),
        ("22:00-07:00", (1320, 1439, 0, 419), (420, 1319)),
    ],
)
def test_hours_hold_their_minutes(
    span: str, inside: tuple[int, ...], outside: tuple[int, ...]
) -> None:
    hours = parse_hours(span)
    assert all(map(hours.holds, inside))
    assert not any(map(hours.holds, outside))


@pytest.mark.parametrize("text", ["8:00-9:00", "08:00", "24:00-01:00", "08:00-08:00", "night"])
def test_hours_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        parse_hours(text)


def test_private_torrents_find_peers_by_trackers_alone() -> None:
    flag = lt.torrent_flags
    others = int(flag.disable_dht | flag.disable_lsd | flag.disable_pex)
    everything = SwarmSettings(dht=True, lsd=True)
    assert flags_of(0, everything, private=True) & others == others
    assert flags_of(0, everything, private=False) & others == 0
    defaults = SwarmSettings()
    assert flags_of(0, defaults, private=False) & others == int(
        flag.disable_dht | flag.disable_lsd
    )
    assert flags_of(0, replace(defaults, pex=False), private=False) & others == others
    assert flags_of(0, replace(everything, cautious=True), private=False) & others == others
