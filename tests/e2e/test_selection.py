"""``--select`` and ``search`` on a host that logs what it is asked: a subset through its life."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.client import Run, bucketsync, contents, trashed
from tests.support.publisher import LAYOUT, Publisher
from tests.support.rawhost import RawHost, raw_host

POSTS = {"y1": range(1, 101), "y2": range(1, 131), "y3": range(1, 141)}
DATES = {"y1": "2021-01-01", "y2": "2022-01-01", "y3": "2023-01-01"}
EVERYTHING_MAY_GO = ("--delete", "--max-delete", "100%")


def post(number: int, release: str) -> dict[str, Any]:
    """A post: in y2 every tenth cat has become a dog, and the scores have been turned about."""
    tags = {"cat" if number % 3 == 0 else "dog", f"colour_{number % 7}"}
    if release != "y1" and number % 30 == 0:
        tags = {"dog", "mended"}
    return {
        "id": str(number),
        "tag_string": " ".join(sorted(tags)),
        "rating": "gsqe"[number % 4],
        "score": str(number if release == "y1" else 1000 - number),
        "created_at": f"20{18 + number % 3}-06-01 00:00:00 UTC",
    }


def ids(release: str, tag: str) -> list[int]:
    """The posts with a tag, the newest first, by a loop over the rows."""
    rows = (post(number, release) for number in POSTS[release])
    found = [int(row["id"]) for row in rows if tag in row["tag_string"].split()]
    return sorted(found, reverse=True)


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Three years with metadata; y3 is y2 and ten posts."""
    made = Publisher(tmp_path_factory.mktemp("selection"))
    first = 1
    for release, posts in POSTS.items():
        made.fill(range(first, posts.stop))
        first = posts.stop
        lines = (json.dumps(post(number, release)) + "\n" for number in posts)
        made.write(made.tree / "metadata/posts.json", "".join(lines).encode())
        made.publish(release, "--date", DATES[release])
    return made


@pytest.fixture
def host(publisher: Publisher) -> Iterator[RawHost]:
    with raw_host(publisher.repo) as running:
        yield running


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def files(publisher: Publisher, release: str, posts: Iterable[int]) -> dict[str, bytes]:
    """The publisher's files of some posts by path."""
    paths = [LAYOUT.entry_path("original", number, "dat").text for number in posts]
    published = publisher.release_files(release)
    return {path: published[path] for path in paths}


def clone(host: RawHost, tree: Path, query: str, *flags: str | Path) -> Run:
    run = bucketsync("clone", host.url, tree, "--select", query, *flags)
    assert run.code == 0, run.text
    return run


def objects(host: RawHost, since: int) -> list[str]:
    """The objects that were asked for after so many requests: indexes and manifests."""
    return [found.path for found in host.log[since:] if found.path.startswith("objects/")]


# --------------------------------------------------------------------------- searching


def test_a_server_a_tree_and_files_agree(
    publisher: Publisher, host: RawHost, tmp_path: Path
) -> None:
    tree, metadata = tmp_path / "tree", publisher.tree / "metadata"
    assert bucketsync("clone", host.url, tree).code == 0
    queries = ("cat", "-cat order:score limit:7", "~mended ~colour_3 rating:s", "age:<4y random:9")
    for query in queries:
        words = ("search", "--now", DATES["y3"])
        places = (("--url", host.url), ("--dir", tree), ("--metadata", metadata))
        found = [bucketsync(*words, *place, "--", query)["ids"] for place in places]
        assert found[0] == found[1] == found[2] != []


def test_the_summary_of_a_search(publisher: Publisher, host: RawHost) -> None:
    query = ("search", "cat limit:5", "--url", host.url, "--release", "y1")
    found, expected = bucketsync(*query), ids("y1", "cat")[:5]
    assert (found["ids"], found["count"], found["bytes"]) == (expected, 5, None)
    assert found["release"] == "y1"
    assert found["requests"] == len(host.log)
    # The one 404 says that the publisher's keys are still the same.
    answers = [exchange for exchange in host.log if exchange.status != 404]
    assert found["bytes_received"] == sum(answer.sent_bytes for answer in answers)
    counted = bucketsync(*query, "--count", "--bytes")
    assert "ids" not in counted.summary
    sizes = map(len, files(publisher, "y1", expected).values())
    assert (counted["count"], counted["bytes"]) == (5, sum(sizes))
    limited = bucketsync(*query, "--limit", "2", "--bytes")
    sizes = map(len, files(publisher, "y1", expected[:2]).values())
    assert (limited["ids"], limited["count"], limited["bytes"]) == (expected[:2], 2, sum(sizes))


def test_a_search_again_asks_for_nothing_of_the_index(host: RawHost) -> None:
    query = ("search", "cat rating:s score:>5", "--url", host.url)
    first, before = bucketsync(*query), len(host.log)
    assert objects(host, 0)
    assert bucketsync(*query)["ids"] == first["ids"]
    assert objects(host, before) == []


def test_ages_count_from_the_release(host: RawHost) -> None:
    query = ("search", "age:<1y", "--url", host.url, "--release")
    assert set(bucketsync(*query, "y1")["ids"]) == {n for n in POSTS["y1"] if n % 3 == 2}
    assert bucketsync(*query, "y3")["ids"] == []


@pytest.mark.parametrize(
    ("query", "position"),
    [("(cat", 4), ("cat fav:1", 4), ("cat order:artcomm", 4), ("order:id order:score", 9)],
)
def test_a_query_that_is_none_is_refused_before_any_request(
    host: RawHost, tmp_path: Path, query: str, position: int
) -> None:
    for words in (
        ("search", query, "--url", host.url),
        ("clone", host.url, tmp_path / "tree", "--select", query),
    ):
        run = bucketsync(*map(str, words))
        assert run.code == 2
        assert f"query, position {position}: expected" in run.error
    assert host.log == []
    assert not (tmp_path / "tree").exists()


def test_a_release_without_metadata_says_so(tmp_path: Path) -> None:
    bare = Publisher(tmp_path / "bare")
    bare.fill(range(1, 9))
    bare.publish("y1")
    with raw_host(bare.repo) as host:
        search = bucketsync("search", "cat", "--url", host.url)
        cloned = bucketsync("clone", host.url, tmp_path / "tree", "--select", "cat")
    for run in (search, cloned):
        assert run.code == 2
        assert "y1 was published without metadata" in run.error


# --------------------------------------------------------------------------- a subset's life


def test_what_matches_nothing_is_told(host: RawHost, tmp_path: Path) -> None:
    run = clone(host, tmp_path / "tree", "no_such_tag")
    assert "no post of y3 matches 'no_such_tag'" in run.text
    assert contents(tmp_path / "tree") == {}


def test_files_in_which_no_post_can_be_read_are_no_empty_answer(tmp_path: Path) -> None:
    pretty = tmp_path / "posts.json"
    pretty.write_text('[\n  {\n    "id": 1\n  }\n]\n')
    run = bucketsync("search", "cat", "--metadata", pretty)
    assert run.code == 1
    assert f"no post can be read: {pretty}" in run.text


def test_a_clone_has_what_matches_and_nothing_else(
    publisher: Publisher, host: RawHost, tmp_path: Path
) -> None:
    run = clone(host, tmp_path / "tree", "cat", "--release", "y1")
    wanted = files(publisher, "y1", ids("y1", "cat"))
    assert contents(tmp_path / "tree") == wanted
    assert (run["files_added"], run["bytes_written"]) == (33, sum(map(len, wanted.values())))
    shares = {(share["by"], share["value"]): share for share in run.named("share")}
    assert shares["variant", "original"]["files"] == shares["extension", "dat"]["files"] == 33
    by_rating = [share["files"] for (by, _), share in shares.items() if by == "rating"]
    assert (len(by_rating), sum(by_rating)) == (4, 33)


def test_the_same_release_again_asks_for_nothing(host: RawHost, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    clone(host, tree, "cat order:score limit:20 age:<9y", "--release", "y1")
    before = len(host.log)
    for again in (
        ("upgrade", tree, "--to", "y1"),
        ("status", tree, "--offline"),
        ("verify", tree),
    ):
        assert bucketsync(*map(str, again)).code == 0
    assert len(host.log) == before


def test_an_upgrade_keeps_the_subset(publisher: Publisher, host: RawHost, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    clone(host, tree, "cat", "--release", "y1")
    old, new = files(publisher, "y1", ids("y1", "cat")), files(publisher, "y2", ids("y2", "cat"))
    run = bucketsync("upgrade", tree, "--to", "y2")
    assert (run.code, run["files_added"], run["files_removed"]) == (0, 10 - 1, 0)
    assert {event["path"] for event in run.named("dropped")} == old.keys() - new.keys() != set()
    assert contents(tree) == old | new
    assert bucketsync("status", tree, "--offline").code == 0
    run = bucketsync("upgrade", tree, "--to", "y2", *EVERYTHING_MAY_GO)
    assert (run.code, run["files_removed"]) == (0, 3)
    assert contents(tree) == new
    assert set(trashed(tree).values()) == {old[path] for path in old.keys() - new.keys()}


def test_deleting_more_than_a_tenth_needs_a_word(host: RawHost, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    clone(host, tree, "cat or dog", "--release", "y1")
    run = bucketsync("upgrade", tree, "--to", "y1", "--select", "cat", "--delete")
    assert run.code == 25
    assert len(contents(tree)) == 100


def test_another_query_keeps_what_both_want(
    publisher: Publisher, host: RawHost, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    clone(host, tree, "cat", "--release", "y1")
    before = set(ids("y1", "cat"))
    wanted = set(ids("y1", "colour_1"))
    flags = ("--to", "y1", "--select", "colour_1")
    run = bucketsync("upgrade", tree, *flags, *EVERYTHING_MAY_GO)
    assert (run["files_kept"], run["files_added"]) == (len(before & wanted), len(wanted - before))
    assert contents(tree) == files(publisher, "y1", wanted)


def test_a_query_is_dropped(publisher: Publisher, host: RawHost, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    clone(host, tree, "cat", "--release", "y1")
    run = bucketsync("upgrade", tree, "--to", "y1", "--select", "")
    assert (run.code, run["files_kept"], run["files_added"]) == (0, 33, 67)
    assert contents(tree) == files(publisher, "y1", POSTS["y1"])


def test_a_query_is_narrowed_by_ids_and_buckets(
    publisher: Publisher, host: RawHost, tmp_path: Path
) -> None:
    listed = tmp_path / "ids.txt"
    listed.write_text("3 4 6 9 12")
    flags = ("--release", "y1", "--ids", listed, "--bucket", "1..4")
    clone(host, tmp_path / "tree", "cat limit:3", *flags)
    # The query is asked of the listed ids: 12, 9 and 6 are the first three.
    assert contents(tmp_path / "tree") == files(publisher, "y1", [12, 9])


def test_a_plan_with_a_query_is_applied(
    publisher: Publisher, host: RawHost, tmp_path: Path
) -> None:
    tree, plan = tmp_path / "tree", tmp_path / "plan.jsonl"
    clone(host, tree, "cat", "--release", "y1")
    flags = ("--to", "y2", "--select", "mended", *EVERYTHING_MAY_GO[:1])
    made = bucketsync("plan", tree, "--out", plan, *flags)
    wanted = set(ids("y2", "mended"))
    new = wanted - set(ids("y1", "cat"))
    assert (made.code, made["files_to_add"], made["files_to_remove"]) == (0, len(new), 30)
    assert contents(tree) == files(publisher, "y1", ids("y1", "cat"))
    run = bucketsync("apply", plan, tree, "--max-delete", "100%")
    assert (run.code, run["steps_stale"]) == (0, 0)
    assert contents(tree) == files(publisher, "y2", wanted)
    assert bucketsync("status", tree, "--offline").code == 0


def test_adopt_takes_what_matches(publisher: Publisher, host: RawHost, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for path, data in files(publisher, "y2", range(1, 61)).items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(data)
    wanted = ids("y2", "cat")
    run = bucketsync("adopt", host.url, tree, "--release", "y2", "--select", "cat")
    here = sum(number <= 60 for number in wanted)
    assert (run.code, run["files_adopted"]) == (0, here)
    assert run["files_added"] == len(wanted) - here
    # What else lies there is left alone.
    assert contents(tree) == files(publisher, "y2", {*wanted, *range(1, 61)})


# --------------------------------------------------------------------------- orders and chance


def tree_ids(tree: Path) -> set[int]:
    return {int(Path(path).stem) for path in contents(tree)}


def test_the_best_are_those_of_each_release(host: RawHost, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    clone(host, tree, "dog order:score limit:10", "--release", "y1")
    assert tree_ids(tree) == set(ids("y1", "dog")[:10])
    assert bucketsync("upgrade", tree, "--to", "y2", *EVERYTHING_MAY_GO).code == 0
    assert tree_ids(tree) == set(ids("y2", "dog")[-10:])


@pytest.mark.parametrize("count", [1, 20, 60, 99, 200])
def test_a_draw_loses_to_newcomers_only(host: RawHost, tmp_path: Path, count: int) -> None:
    tree = tmp_path / "tree"
    clone(host, tree, f"random:{count}", "--release", "y1")
    old = tree_ids(tree)
    assert len(old) == min(count, 100)
    for before, release in (("y1", "y2"), ("y2", "y3")):
        assert bucketsync("upgrade", tree, "--to", release, *EVERYTHING_MAY_GO).code == 0
        new = tree_ids(tree)
        assert len(new) == min(count, len(POSTS[release]))
        # Who had lost does not come back.
        assert (new - old).isdisjoint(POSTS[before])
        old = new


def test_two_trees_draw_differently_and_one_always_the_same(host: RawHost, tmp_path: Path) -> None:
    for name in ("one", "two"):
        clone(host, tmp_path / name, "random:30", "--release", "y1")
    assert tree_ids(tmp_path / "one") != tree_ids(tmp_path / "two")
    shutil.rmtree(tmp_path / "one/original")
    (tmp_path / "one/.bucketsync/selected").unlink()
    drawn = bucketsync("search", "order:id", "--dir", tmp_path / "one")["ids"]
    flags = ("--to", "y1", "--select", " random:30 ", "--yes")
    assert bucketsync("upgrade", tmp_path / "one", *flags).code == 0
    assert sorted(tree_ids(tmp_path / "one")) == drawn


def test_a_seed_decides_a_search(host: RawHost) -> None:
    def search(seed: str) -> Mapping[str, Any]:
        return bucketsync("search", "random:10", "--url", host.url, "--seed", seed).summary

    assert search("a")["ids"] == search("a")["ids"] != search("b")["ids"]
