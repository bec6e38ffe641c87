"""What counts as a plain request: little, and nothing that can be read in two ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.hosting.plain import (
    END,
    MAX_PLAIN_HEAD_BYTES,
    Head,
    may_become_plain,
    parse_head,
)

LINE = b"GET /packs/y1/original/0001 HTTP/1.1\r\n"
HOST = b"Host: example.org:8080\r\n"
PLAIN = LINE + HOST + b"User-Agent: bucketsync/1 (a; b)\r\nRange: bytes=0-5,7-9\r\n\r\n"

ODD = {
    "post": PLAIN.replace(b"GET", b"POST"),
    "small method": PLAIN.replace(b"GET", b"get"),
    "absolute": PLAIN.replace(b"/packs", b"http://x/packs"),
    "asterisk": PLAIN.replace(b"/packs/y1/original/0001", b"*"),
    "HTTP/1.0": PLAIN.replace(b"1.1", b"1.0"),
    "HTTP/2.0": PLAIN.replace(b"1.1", b"2.0"),
    "no version": PLAIN.replace(b" HTTP/1.1", b""),
    "two spaces": PLAIN.replace(b"GET ", b"GET  "),
    "space behind": PLAIN.replace(b"1.1\r", b"1.1 \r"),
    "tab": PLAIN.replace(b"GET ", b"GET\t"),
    "space in path": PLAIN.replace(b"y1", b"y 1"),
    "bytes in path": PLAIN.replace(b"y1", b"y\xff"),
    "line before": b"\r\n" + PLAIN,
    "no host": LINE + b"Accept: */*\r\n\r\n",
    "no headers": LINE + b"\r\n",
    "two hosts": LINE + HOST + HOST + b"\r\n",
    "two ranges": PLAIN.replace(HOST, HOST + b"range: bytes=1-2\r\n"),
    "folded": LINE + HOST + b" more\r\n\r\n",
    "folded range": LINE + HOST + b"Range: bytes=0-1,\r\n\t3-4\r\n\r\n",
    "space before colon": LINE + b"Host : x\r\n\r\n",
    "no colon": LINE + HOST + b"Accept\r\n\r\n",
    "no name": LINE + HOST + b": x\r\n\r\n",
    "no value": LINE + b"Host:\r\n\r\n",
    "tab behind colon": LINE + b"Host:\tx\r\n\r\n",
    "bare LF": PLAIN.replace(b"\r\nRange", b"\nRange"),
    "bare LF at the end": PLAIN[:-4] + b"\n\n",
    "bare CR": PLAIN.replace(b"(a; b)", b"a\rb"),
    "NUL": PLAIN.replace(b"(a; b)", b"a\0b"),
    "above ASCII": PLAIN.replace(b"(a; b)", b"\xc3\xa9"),
    "next line": PLAIN.replace(b"(a; b)", b"a\x85b"),
    "vertical tab": PLAIN.replace(b"(a; b)", b"a\x0bb"),
    "length": LINE + HOST + b"Content-Length: 0\r\n\r\n",
    "length with underscore": LINE + HOST + b"Content_Length: 5\r\n\r\n",
    "chunks": LINE + HOST + b"Transfer-Encoding: chunked\r\n\r\n",
    "expect": LINE + HOST + b"Expect: 100-continue\r\n\r\n",
    "upgrade": LINE + HOST + b"Upgrade: h2c\r\n\r\n",
    "close": LINE + HOST + b"Connection: close\r\n\r\n",
    "hop": LINE + HOST + b"Connection: keep-alive, range\r\n\r\n",
    "unknown": LINE + HOST + b"X-Anything: 1\r\n\r\n",
    "long": LINE + HOST + b"Referer: " + b"a" * MAX_PLAIN_HEAD_BYTES + b"\r\n\r\n",
    "more": PLAIN + b"G",
    "two": PLAIN + PLAIN,
    "less": PLAIN[:-1],
    "none": b"",
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_odd_is_not_plain(name: str) -> None:
    assert parse_head(ODD[name]) is None


def test_a_plain_request_is_taken_apart() -> None:
    headers = {
        "Host": "example.org:8080",
        "User-Agent": "bucketsync/1 (a; b)",
        "Range": "bytes=0-5,7-9",
    }
    assert parse_head(PLAIN) == Head("GET", "/packs/y1/original/0001", headers)


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        (b'if-none-match: W/"a", "b"', "If-None-Match", 'W/"a", "b"'),
        (b"IF-MODIFIED-SINCE:Sun, 06 Nov 1994 08:49:37 GMT", "If-Modified-Since",
         "Sun, 06 Nov 1994 08:49:37 GMT"),
        (b"RANGE: bytes=0-0   ", "Range", "bytes=0-0"),
        (b"Connection: Keep-Alive", "Connection", "Keep-Alive"),
        (b"X-Forwarded-For: ::1, 10.0.0.1", "X-Forwarded-For", "::1, 10.0.0.1"),
    ],
)  # fmt: skip
def test_headers_have_one_spelling(line: bytes, name: str, value: str) -> None:
    head = parse_head(b"HEAD / HTTP/1.1\r\n" + HOST + line + b"\r\n\r\n")
    assert head is not None
    assert (head.method, head.headers[name]) == ("HEAD", value)


def test_every_beginning_of_a_plain_head_may_become_one() -> None:
    for stop in range(len(PLAIN)):
        assert may_become_plain(PLAIN[:stop]), PLAIN[:stop]


@pytest.mark.parametrize("name", sorted(ODD.keys() - {"less", "none", "no host", "no headers"}))
def test_nothing_is_waited_for_in_vain(name: str) -> None:
    """What cannot be plain any more is soon left to aiohttp, and has an end in any case."""
    data = ODD[name]
    if END not in data:
        assert not may_become_plain(data + b"\r\n" + b"\n" * (name == "bare LF at the end"))


@pytest.mark.parametrize(
    "data",
    [b"\r", b"\x16\x03\x01", b"POST /", b"GET x", b"GET /x HTTP/2", b"GET /x HTTP/1.1\n",
     b"GET /\x00", LINE + b"A\x00", LINE + b" folded", LINE + b"a\rb", LINE + b"\r\r"],
)  # fmt: skip
def test_what_is_odd_is_seen_early(data: bytes) -> None:
    assert not may_become_plain(data)


def test_a_beginning_has_a_length() -> None:
    assert not may_become_plain(LINE + b"Referer: " + b"a" * MAX_PLAIN_HEAD_BYTES)


@given(st.binary(max_size=200), st.integers(0, len(PLAIN)), st.integers(0, len(PLAIN)))
def test_any_bytes_are_plain_or_not(data: bytes, first: int, last: int) -> None:
    changed = PLAIN[:first] + data + PLAIN[last:]
    head = parse_head(changed)
    may_become_plain(changed)
    if head is not None:
        assert changed.count(END) == 1
        assert changed.endswith(END)
        assert changed.count(b"\n") == changed.count(b"\r") == len(head.headers) + 2
