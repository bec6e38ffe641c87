"""Searches on a host: right ids, pages of them, refusals, and the page for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urljoin

import pytest

from server.hosting.parameters import DEFAULT_IDS, MAX_IDS, MAX_QUERY_LENGTH
from tests.support.host import TIMEOUT_S, Answer, Host, running_host
from tests.support.searchable import POSTS, make_searchable, search_url
from tests.support.world import World, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_searchable(tmp_path_factory.mktemp("search"))


@pytest.fixture(scope="module")
def host(world: World) -> Iterator[Host]:
    with running_host(world.repo) as found:
        yield found


def told(found: Answer) -> dict[str, Any]:
    assert found.headers["content-type"] == "application/json"
    answer: dict[str, Any] = json.loads(found.body)
    return answer


def search(host: Host, q: str, **parameters: object) -> dict[str, Any]:
    found = host.get(search_url(q=q, **parameters))
    assert found.status == 200, found
    return told(found)


# --------------------------------------------------------------------------- answers


def test_the_ids_that_match_come_newest_first(host: Host) -> None:
    found = search(host, "even third -tag_0")
    expected = [n for n in range(POSTS, 0, -1) if n % 6 == 0 and n % 97]
    assert found["ids"] == expected
    assert found["count"] == len(expected)
    assert (found["release"], found["next"]) == ("y1", None)
    assert 0 < found["seconds"] < TIMEOUT_S


def test_orders_and_metatags_are_understood(host: Host) -> None:
    by_score = sorted(range(1, POSTS + 1), key=lambda n: -(n * 7919 % POSTS))
    assert search(host, "order:score limit:20")["ids"] == by_score[:20]
    assert search(host, "rating:s id:..9 order:id")["ids"] == [3, 6, 9]
    assert search(host, "no_such_tag")["ids"] == []


def test_ages_count_from_the_date_of_the_release(host: Host) -> None:
    assert search(host, "age:<1d")["count"] == 10


def test_days_begin_where_it_is_asked(host: Host) -> None:
    assert search(host, "date:2021-12-31")["count"] == 10
    assert search(host, "date:2022-01-01", tz="Pacific/Kiritimati")["count"] == 10


def test_a_count_comes_without_ids(host: Host) -> None:
    found = search(host, "even", count=1)
    assert set(found) == {"release", "count", "seconds"}
    assert found["count"] == POSTS // 2


def test_pages_follow_one_another(host: Host) -> None:
    whole = search(host, "all order:score", limit=POSTS)["ids"]
    path, pages = search_url(q="all order:score", limit=700), []
    while path:
        found = told(host.get(path))
        pages.append(found["ids"])
        assert found["count"] == POSTS
        path = found["next"] and urljoin(path, found["next"])
    assert [len(page) for page in pages] == [700, 700, 700, 700, 200]
    assert [n for page in pages for n in page] == whole


def test_a_page_that_ends_with_the_last_post_has_no_next(host: Host) -> None:
    assert search(host, "all", limit=POSTS)["next"] is None
    assert len(search(host, "all")["ids"]) == DEFAULT_IDS


def test_chance_is_drawn_from_the_seed(host: Host) -> None:
    first = search(host, "random:20 order:random", seed="a")["ids"]
    assert len(set(first)) == 20
    assert search(host, "random:20 order:random", seed="a")["ids"] == first
    assert search(host, "random:20 order:random", seed="b")["ids"] != first
    assert search(host, "random:20")["ids"] == search(host, "random:20")["ids"]


def test_an_answer_is_known_by_its_tag(host: Host) -> None:
    for named, kept in (
        (search_url(q="even", release="y1"), "max-age"),
        (search_url(q="even"), "no-cache"),
    ):
        found = host.get(named)
        assert kept in found.headers["cache-control"]
        again = host.get(named, {"If-None-Match": found.headers["etag"]})
        assert (again.status, again.body) == (304, b"")
        assert again.headers["etag"] == found.headers["etag"]
        other = host.get(
            search_url(q="odd", release="y1"), {"If-None-Match": found.headers["etag"]}
        )
        assert other.status == 200


def test_text_of_any_sort_is_a_query(host: Host) -> None:
    for text in ("初音ミク", "a\u0000b", "\U0001f600", "%", "source:*x*y*", "a*b*c*d*e*f*g*h*"):
        assert search(host, text)["count"] == 0
    assert host.get("/api/search?q=%ff%ed%a0%80").status == 200


# --------------------------------------------------------------------------- refusals


def test_a_query_that_is_none_is_explained(host: Host) -> None:
    found = host.get(search_url(q="even (third"))
    assert found.status == 400
    answer = told(found)
    assert (answer["error"], answer["position"]) == ("query", 11)
    assert answer["message"]
    assert answer["hint"]
    assert found.headers["cache-control"] == "no-cache"
    assert told(host.get(search_url(q="even fav:someone")))["error"] == "query"


@pytest.mark.parametrize(
    ("query", "status", "parameter"),
    [
        ("", 400, "q"),
        ("q=a&q=b", 400, "q"),
        ("q=a&page=2", 400, "page"),
        ("q=a&limit=0", 400, "limit"),
        ("q=a&limit=-1", 400, "limit"),
        ("q=a&limit=x", 400, "limit"),
        (f"q=a&limit={MAX_IDS + 1}", 422, "limit"),
        ("q=a&limit=" + "9" * 99, 400, "limit"),
        ("q=a&after=x", 400, "after"),
        ("q=even&after=3", 400, "after"),
        ("q=a&count=yes", 400, "count"),
        ("q=a&tz=Nowhere/City", 400, "tz"),
        ("q=a&tz=/etc/passwd", 400, "tz"),
        ("q=a&tz=" + "a" * 65, 414, "tz"),
        ("q=a&seed=" + "a" * 257, 414, "seed"),
        ("q=" + "a" * (MAX_QUERY_LENGTH + 1), 414, "q"),
    ],
)
def test_a_parameter_that_is_wrong_is_named(
    host: Host, query: str, status: int, parameter: str
) -> None:
    found = host.get(f"/api/search?{query}")
    assert found.status == status
    answer = told(found)
    assert (answer["error"], answer["parameter"]) == ("parameter", parameter)
    assert answer["message"]


def test_what_cannot_be_searched_is_not_found(host: Host) -> None:
    unknown = host.get(search_url(q="a", release="y9"))
    assert (unknown.status, told(unknown)["hint"]) == (404, "Releases: y0, y1.")
    plain = host.get(search_url(q="a", release="y0"))
    assert plain.status == 404
    assert told(plain)["message"] == (
        "y0 was published without metadata, so nothing can be searched"
    )


def test_a_repository_without_metadata_serves_everything_else(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    with running_host(world.repo) as host:
        assert told(host.get(search_url(q="a")))["message"] == "nothing is published yet"
        data = world.put("original", 5, 1000)
        world.publish("y1")
        assert host.get(world.url("y1", "original", 5)).body == data
        assert host.get(search_url(q="a")).status == 404
        assert host.get("/search").status == 404
        assert "api/search" not in host.get("/").body.decode()


def test_a_damaged_index_is_the_hosts_affair(world: World, tmp_path: Path) -> None:
    copy = tmp_path / "repo"
    copy.mkdir()
    (copy / "tuf").symlink_to(world.repo / "tuf")
    with running_host(copy, keep_lines=True) as host:
        found = host.get(search_url(q="even"))
        assert found.status == 500
        assert str(copy) not in found.body.decode()
        host.stop()
    assert any("this tag index cannot be read" in line for line in host.lines)


# --------------------------------------------------------------------------- people


class Links(HTMLParser):
    """The addresses of a page, and of its pictures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "a":
            self.links.append(found["href"] or "")
        if tag == "img":
            self.pictures.append(found["src"] or "")


def test_people_find_files(world: World, host: Host) -> None:
    page = host.get("/search?" + urlencode({"q": "id:..8", "variant": "original"}))
    assert page.status == 200
    assert "img-src 'self'" in page.headers["content-security-policy"]
    found = Links(page.body.decode())
    assert found.links == [f"entries/y1/original/{n}" for n in range(8, 0, -1)]
    assert found.pictures == [f"entries/y1/small/{n}" for n in range(8, 0, -1)]
    for layer, number in (("y0", 3), ("y1", 4)):
        sent = host.get(f"/entries/y1/original/{number}")
        assert sent.status == 302
        place = urljoin(f"/entries/y1/original/{number}", sent.headers["location"])
        assert place == world.url(layer, "original", number)
        assert host.get(place).body == world.files[layer, "original", number]


@pytest.mark.parametrize(
    "path",
    ["y1/original/6", "y1/original/99999", "y1/nothing/1", "y9/original/1", "y1/original/01"],
)
def test_what_a_release_does_not_have_is_not_found(host: Host, path: str) -> None:
    assert host.get(f"/entries/{path}").status == 404
    assert host.get("/entries/y0/original/6").status == 302


def test_people_go_through_pages(host: Host) -> None:
    path, seen = "/search?q=even", []
    while path:
        links = Links(host.get(path).body.decode()).links
        seen += [int(link.rpartition("/")[2]) for link in links if link.startswith("entries/")]
        rest = [link for link in links if link.startswith("search?")]
        path = urljoin(path, rest[0]) if rest else ""
    assert seen == list(range(POSTS, 0, -2))


def test_what_people_type_is_text(host: Host) -> None:
    hostile = '"><script>alert(1)</script>('
    for field in ("q", "release", "variant", "after"):
        page = host.get(f"/search?q=x&{field}={quote(hostile)}").body.decode()
        assert "<script" not in page
    wrong = host.get("/search?q=" + quote(hostile + " ("))
    assert wrong.status == 400
    assert "<mark>" in wrong.body.decode()
    assert host.get("/search").status == 200
    assert '<a href="search">' in host.get("/").body.decode()
