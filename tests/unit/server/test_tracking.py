"""The tracker's memory and its queries: limits, expiry, and what is refused with which reason."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.tracking.queries import Announce, read_announce, read_scrape
from server.tracking.swarms import Event, RefusedError, Swarms, TrackerLimits

ONE, TWO, OTHER = (bytes([127, 0, 0, number]) for number in (1, 2, 3))
HASH = b"h" * 20
QUERY = "info_hash=" + "%00" * 20 + "&port=6881&left=0"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def swarms(clock: Clock, **limits: float) -> Swarms:
    rng = random.Random(1)  # noqa: S311
    return Swarms(TrackerLimits(**limits), clock, rng)  # type: ignore[arg-type]


def test_leechers_find_all_others_and_seeds_find_leechers(clock: Clock) -> None:
    tracker = swarms(clock)
    tracker.announce(HASH, ONE, 1, left=False)
    found = tracker.announce(HASH, TWO, 2, left=True)
    assert found.peers == ONE + b"\0\1"
    assert (found.complete, found.incomplete) == (1, 1)
    tracker.announce(HASH, OTHER, 3, left=False)
    assert tracker.announce(HASH, ONE, 1, left=False).peers == TWO + b"\0\2"
    assert tracker.peers == 3


def test_nobody_finds_himself_and_swarms_are_not_merged(clock: Clock) -> None:
    tracker = swarms(clock)
    assert tracker.announce(HASH, ONE, 1, left=True).peers == b""
    assert tracker.announce(b"x" * 20, TWO, 2, left=True).peers == b""
    assert len(tracker) == 2


def test_addresses_of_both_kinds_are_kept_apart(clock: Clock) -> None:
    tracker = swarms(clock)
    six = bytes(15) + b"\1"
    tracker.announce(HASH, six, 5, left=False)
    tracker.announce(HASH, ONE, 1, left=False)
    found = tracker.announce(HASH, TWO, 2, left=True)
    assert (found.peers, found.peers6) == (ONE + b"\0\1", six + b"\0\5")


def test_who_is_silent_is_forgotten_and_who_stops_at_once(clock: Clock) -> None:
    tracker = swarms(clock, interval_s=100)
    tracker.announce(HASH, ONE, 1, left=False)
    clock.now_s += 150
    tracker.announce(HASH, TWO, 2, left=True)
    tracker.announce(HASH, ONE, 1, left=False)
    clock.now_s += 200
    tracker.expire()
    assert tracker.peers == 2
    clock.now_s += 100
    tracker.expire()
    assert (tracker.peers, len(tracker)) == (0, 0)
    tracker.announce(HASH, ONE, 1, left=False)
    tracker.announce(HASH, ONE, 1, left=False, event=Event.STOPPED)
    assert tracker.peers == 0


def test_counts_follow_completion(clock: Clock) -> None:
    tracker = swarms(clock)
    tracker.announce(HASH, ONE, 1, left=True)
    tracker.announce(HASH, ONE, 1, left=False, event=Event.COMPLETED)
    found = tracker.look(HASH)
    assert (found.complete, found.incomplete, found.downloaded) == (1, 0, 1)


def test_answers_are_sampled(clock: Clock) -> None:
    tracker = swarms(clock, max_numwant=7)
    for port in range(1, 100):
        tracker.announce(HASH, ONE, port, left=True)
    assert len(tracker.announce(HASH, TWO, 1, left=True, numwant=1000).peers) == 7 * 6
    assert tracker.announce(HASH, TWO, 1, left=True, numwant=0).peers == b""


@pytest.mark.parametrize(
    "limit", ["swarm_peers", "swarm_address_peers", "total_peers", "address_peers"]
)
def test_there_is_an_end_to_everything(clock: Clock, limit: str) -> None:
    tracker = swarms(clock, **{limit: 5})
    for port in range(1, 6):
        tracker.announce(HASH, ONE, port, left=True)
    with pytest.raises(RefusedError):
        tracker.announce(HASH, ONE, 6, left=True)
    tracker.announce(HASH, ONE, 5, left=True)
    tracker.announce(HASH, ONE, 5, left=True, event=Event.STOPPED)
    tracker.announce(HASH, ONE, 6, left=True)
    assert tracker.peers == 5


def test_an_address_cannot_fill_a_swarm(clock: Clock) -> None:
    tracker = swarms(clock, swarm_address_peers=3)
    six = [bytes(15) + bytes([number]) for number in range(4)]
    for address in six[:3]:
        tracker.announce(HASH, address, 1, left=True)
    with pytest.raises(RefusedError):
        tracker.announce(HASH, six[3], 1, left=True)
    tracker.announce(b"x" * 20, six[3], 1, left=True)
    tracker.announce(HASH, ONE, 1, left=True)
    tracker.announce(HASH, six[0], 1, left=True, event=Event.STOPPED)
    tracker.announce(HASH, six[3], 1, left=True)


def test_an_address_pays_for_its_announces(clock: Clock) -> None:
    tracker = swarms(clock, burst=10, rate=1.0, addresses=2)
    tracker.charge(ONE, 10)
    with pytest.raises(RefusedError):
        tracker.charge(ONE, 1)
    clock.now_s += 3
    tracker.charge(ONE, 3)
    tracker.charge(TWO, 1)
    tracker.charge(OTHER, 1)
    assert len(tracker._tokens) == 2


def test_an_announce_is_read() -> None:
    assert read_announce(QUERY + "&event=completed&numwant=-1&ip=10.0.0.1&key=x") == Announce(
        info_hash=bytes(20), port=6881, left=False, event=Event.COMPLETED, numwant=None
    )
    assert read_announce(QUERY.replace("&left=0", "&event=empty&numwant=9")).left


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "info_hash"),
        (QUERY + "&info_hash=" + "a" * 20, "one info_hash"),
        (QUERY.replace("%00", "", 1), "20 bytes"),
        (QUERY.replace("6881", "0"), "port"),
        (QUERY.replace("6881", "65536"), "port"),
        (QUERY.replace("6881", "x"), "port is not a number"),
        (QUERY.replace("left=0", "left=-1"), "left is not a number"),
        (QUERY + "&event=ended", "event"),
    ],
)
def test_what_is_wrong_with_an_announce_is_said(query: str, reason: str) -> None:
    with pytest.raises(RefusedError, match=reason):
        read_announce(query)


def test_a_scrape_is_read() -> None:
    one = "info_hash=" + "a" * 20
    assert read_scrape(f"{one}&{one}&info_hash=" + "b" * 20) == [b"a" * 20, b"b" * 20]
    for query in ("", "info_hash=a", "&".join([one] * 201)):
        with pytest.raises(RefusedError):
            read_scrape(query)


@given(st.text(max_size=200))
def test_no_query_does_anything_else(query: str) -> None:
    for read in (read_announce, read_scrape):
        with suppress(RefusedError):
            read(query)
