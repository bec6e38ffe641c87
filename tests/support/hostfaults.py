"""The faults of hosts: what each does to an answer, and how a run must end that has no other host.

One list for the fast selection of ``make test`` and for ``make faults``.  A fault is a script of
:mod:`tests.support.rawhost`; it is laid on one kind of resource at a time (:class:`Kind`), all
others stay honest.
"""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from enum import Enum

from manifests.errors import ExitCode
from tests.support.rawhost import Answer, Honest, Request, Script, cut, flip, garble, refuse, slow

_BOUNDARY = re.compile(r'boundary="?([^";]+)"?', re.IGNORECASE)
_RANGE_HEAD = re.compile(rb"(Content-Range: bytes )(\d+)-(\d+)", re.IGNORECASE)
_ZEROS = bytes(64 * 1024)
_GIGABYTE = gzip.compress(bytes(2**20)) * 1024


class Kind(Enum):
    """What a fault is laid on."""

    TRUST = "signed metadata and descriptors"
    OBJECTS = "manifests"
    PACKS = "packs"
    LOOSE = "loose files"
    LARGE = "large files"


@dataclass(frozen=True, slots=True, kw_only=True)
class Laid:
    """What a script may need: the honest host, and another host's address to lead to."""

    honestly: Honest
    elsewhere: str


Codes = Mapping[Kind, frozenset[ExitCode]]

_COMPLETE = frozenset({ExitCode.COMPLETE})
_NETWORK = frozenset({ExitCode.NETWORK})
_REFUSED = frozenset({ExitCode.REFUSED})
_INCOMPLETE = frozenset({ExitCode.INCOMPLETE})


def _ends(code: frozenset[ExitCode] = _NETWORK, **by_kind: frozenset[ExitCode]) -> Codes:
    """The code of a run whose only host has the fault; ``trust=…`` for one kind."""
    return {kind: by_kind.get(kind.name.lower(), code) for kind in Kind}


# A host that gives nothing is given up.
_SILENT = _ends()
# Of a signed document wrong bytes are refused (6); a host with wrong manifests is none (5); a pack
# with wrong bytes is left for loose files; files that are wrong on the only host are left out (3).
_WRONG = _ends(_INCOMPLETE, trust=_REFUSED, objects=_NETWORK, packs=_COMPLETE)
# What is asked for by range is read as far as it was asked for, whatever follows.
_TOO_MUCH = _ends(objects=_COMPLETE, packs=_COMPLETE, large=_COMPLETE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault; how a run ends with this host alone, and what its message must say."""

    name: str
    script: Callable[[Laid], Script]
    says: str
    ends: Codes = field(default_factory=lambda: _SILENT)
    kinds: tuple[Kind, ...] = tuple(Kind)

    def __str__(self) -> str:
        """For the name of a test."""
        return self.name


# --------------------------------------------------------------------------- what is done


def _half(request: Request, answer: Answer) -> Answer:
    return cut(max(1, len(answer.body) // 2))(request, answer)


def _stall(_: Request, answer: Answer) -> Answer:
    return replace(answer, stall_after=len(answer.body) // 2)


def _silent(_: Request, answer: Answer) -> Answer:
    """Not even a status comes."""
    return replace(answer, head_pace_bytes_s=1e-9)


def _shorter(_: Request, answer: Answer) -> Answer:
    """The end is missing, and no length tells."""
    return replace(answer, body=answer.body[: len(answer.body) * 2 // 3])


def _twice(_: Request, answer: Answer) -> Answer:
    parts = _parts_of(answer)
    if parts is None:
        return replace(answer, body=answer.body * 2)
    return _of_parts(answer, [part for part in parts for _ in range(2)])


def _reordered(_: Request, answer: Answer) -> Answer:
    parts = _parts_of(answer)
    return answer if parts is None else _of_parts(answer, parts[::-1])


def _shifted(_: Request, answer: Answer) -> Answer:
    """The bytes of one place under the name of another."""

    def later(match: re.Match[bytes]) -> bytes:
        return b"%s%d-%d" % (match[1], int(match[2]) + 1, int(match[3]) + 1)

    headers = {
        name: _RANGE_HEAD.sub(later, f"{name}: {text}".encode()).decode().partition(": ")[2]
        for name, text in answer.headers.items()
    }
    return replace(answer, headers=headers, body=_RANGE_HEAD.sub(later, answer.body))


def _length(change: int) -> Script:
    """A Content-Length that is not the body's, and the connection is over."""

    def script(_: Request, answer: Answer) -> Answer:
        headers = {**answer.headers, "Content-Length": str(max(0, len(answer.body) + change))}
        return replace(answer, headers=headers, cut_after=len(answer.body))

    return script


def _endless(_: Request, answer: Answer) -> Answer:
    headers = "".join(f"{name}: {text}\r\n" for name, text in answer.headers.items())
    status = f"HTTP/1.1 {answer.status} Fine\r\n{headers}Transfer-Encoding: chunked\r\n\r\n"

    def raw() -> Iterator[bytes]:
        yield status.encode()
        yield b"%x\r\n%s\r\n" % (len(answer.body), answer.body) if answer.body else b""
        while True:
            yield b"%x\r\n%s\r\n" % (len(_ZEROS), _ZEROS)

    return Answer(status=answer.status, raw=raw())


def _flood(_: Request, answer: Answer) -> Answer:
    def raw() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        number = 0
        while True:
            number += 1
            yield b"X-Flood-%d: %s\r\n" % (number, b"x" * 4000)

    return Answer(status=answer.status, raw=raw())


def _one_line(_: Request, answer: Answer) -> Answer:
    def raw() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nX-Line: "
        while True:
            yield b"x" * 65536

    return Answer(status=answer.status, raw=raw())


def _no_http(_: Request, answer: Answer) -> Answer:
    return Answer(status=answer.status, raw=iter([b"SSH-2.0-OpenSSH_9.2p1\r\n"]))


def _hang_up(_: Request, answer: Answer) -> Answer:
    return Answer(status=answer.status, raw=iter([]))


def _bomb(_: Request, answer: Answer) -> Answer:
    """A gigabyte in a megabyte, though nobody asked for compressed bytes."""
    return replace(answer, headers={**answer.headers, "Content-Encoding": "gzip"}, body=_GIGABYTE)


def _busy_until_a_date(_: Request, __: Answer) -> Answer:
    return Answer(status=503, headers={"Retry-After": formatdate(time.time() + 1, usegmt=True)})


def _whole(laid: Laid) -> Script:
    def script(request: Request, answer: Answer) -> Answer:
        if request.spans is None:
            return answer
        return laid.honestly(Request(path=request.path, headers={}))

    return script


def _lead_elsewhere(laid: Laid) -> Script:
    return lambda request, _: Answer(
        status=302, headers={"Location": f"{laid.elsewhere}/{request.path}"}
    )


def _parts_of(answer: Answer) -> list[bytes] | None:
    """The parts of a multipart answer, each with its boundary; None of another one."""
    found = _BOUNDARY.search(answer.headers.get("Content-Type", ""))
    if found is None:
        return None
    mark = f"--{found[1]}".encode()
    return [mark + part for part in answer.body.split(mark)[1:-1]]


def _of_parts(answer: Answer, parts: list[bytes]) -> Answer:
    found = _BOUNDARY.search(answer.headers["Content-Type"])
    assert found is not None
    return replace(answer, body=b"".join(parts) + f"--{found[1]}--\r\n".encode())


def always(script: Script) -> Callable[[Laid], Script]:
    """A script that needs to know nothing."""
    return lambda _: script


def _redirect_to_itself(request: Request, _: Answer) -> Answer:
    return Answer(status=302, headers={"Location": f"/{request.path}"})


def _slow_headers(_: Request, answer: Answer) -> Answer:
    return replace(answer, head_pace_bytes_s=20)


_RANGED = (Kind.OBJECTS, Kind.PACKS, Kind.LARGE)
_NOTHING_CAME = r"gave no answer, or less than 1,000 bytes a second"
_NO_HTTP = r"no HTTP answer"
_TOO_LONG = r"more than the \d+ (bytes )?it may be"
_NOT_WHAT = r"wrong bytes|not have the BLAKE3|is refused"

CATALOGUE = (
    Fault(name="cut", script=always(_half), says=r"was cut"),
    Fault(name="hang-up", script=always(_hang_up), says=r"Server disconnected"),
    Fault(name="stall", script=always(_stall), says=_NOTHING_CAME),
    Fault(name="silence", script=always(_silent), says=_NOTHING_CAME),
    # Never so long without a byte that the timeout of the tests, two seconds, would end it.
    Fault(name="trickle", script=always(slow(5)), says=_NOTHING_CAME),
    Fault(name="slow-headers", script=always(_slow_headers), says=_NOTHING_CAME),
    Fault(name="flip", script=always(flip), ends=_WRONG, says=_NOT_WHAT),
    Fault(name="garbage", script=always(garble), ends=_WRONG, says=_NOT_WHAT),
    Fault(
        name="truncated",
        script=always(_shorter),
        ends=_ends(trust=_REFUSED),
        says=r"was cut after|bytes, expected|is refused",
    ),
    Fault(
        name="repeated",
        script=always(_twice),
        ends={**_TOO_MUCH, Kind.TRUST: _REFUSED},
        says=rf"{_TOO_LONG}|is refused",
    ),
    Fault(
        name="reordered",
        script=always(_reordered),
        ends=_ends(_COMPLETE),
        says="",
        kinds=(Kind.OBJECTS, Kind.PACKS),
    ),
    Fault(
        name="whole-for-a-range",
        script=_whole,
        ends=_ends(_COMPLETE),
        says="",
        kinds=_RANGED,
    ),
    Fault(
        name="wrong-range",
        script=always(_shifted),
        says=r"not asked for|not what was asked",
        kinds=_RANGED,
    ),
    Fault(
        name="length-short",
        script=always(_length(-7)),
        ends=_ends(trust=_REFUSED),
        says=rf"{_NO_HTTP}|was cut|expected|is refused",
    ),
    Fault(
        name="length-long", script=always(_length(+7)), ends=_TOO_MUCH, says=r"was cut|more than"
    ),
    Fault(
        name="endless", script=always(_endless), ends=_TOO_MUCH, says=r"more than the \d+ bytes"
    ),
    Fault(name="busy-429", script=always(refuse(429, Retry_After="1")), says=r"answers 429"),
    Fault(name="busy-503-date", script=always(_busy_until_a_date), says=r"answers 503"),
    Fault(name="broken-500", script=always(refuse(500)), says=r"answers 500"),
    Fault(name="forbidden-403", script=always(refuse(403)), says=r"answers 403"),
    Fault(
        name="missing-404",
        script=always(refuse(404)),
        ends=_ends(packs=_COMPLETE, loose=_INCOMPLETE, large=_INCOMPLETE),
        says=r"answers 404",
    ),
    Fault(
        name="elsewhere",
        script=_lead_elsewhere,
        ends=_ends(_REFUSED),
        says=r"redirects to \S+, which is another host.*--allow-redirect 127\.0\.0\.1",
    ),
    Fault(name="redirect-ring", script=always(_redirect_to_itself), says=r"more than 5 redirects"),
    Fault(name="gzip-bomb", script=always(_bomb), says=r"is sent compressed \(gzip\)"),
    Fault(name="header-flood", script=always(_flood), says=_NO_HTTP),
    Fault(name="header-endless", script=always(_one_line), says=_NO_HTTP),
    Fault(name="no-http", script=always(_no_http), says=_NO_HTTP),
)
