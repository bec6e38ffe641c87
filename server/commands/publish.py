"""``publish``: a signed release of what a tree holds now."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import numpy as np

from manifests.errors import ConfigError, ExitCode
from manifests.model import Descriptor
from manifests.notices import Notices
from manifests.torrents.terms import check_piece_bytes
from manifests.units import counted, format_count, format_duration, format_size, parse_size
from server.audit.announce import show_findings
from server.audit.findings import Severity
from server.publishing.crew import Crew, available_cpus
from server.publishing.links import Method
from server.publishing.order import NEWEST_BASE, NO_BASE, Order, TorrentWish
from server.publishing.publication import Draft, Publication, Published, signed_before_a_kill
from server.publishing.torrents import MadeTorrents
from server.publishing.work import Counts
from server.repository import Repository
from server.signing import open_signing
from syncclient.output import Output

_METHODS: Final = {
    "auto": (Method.REFLINK, Method.COPY),
    "hard": (Method.REFLINK, Method.HARD, Method.COPY),
    "copy": (Method.COPY,),
}
_IN_PLACE_WARNING: Final = (
    "--in-place keeps no copies: a file of the tree that is changed or removed from now on is "
    "lost to this release and to all that build upon it"
)
_HARD_WARNING: Final = (
    "never write to one in place (a program that renames a new file over the old one "
    "does no harm), or the published bytes are lost"
)
# Told of each finding with --json: 100,000 took half the time of a publish with nothing new.
_PLACES: Final = 1000
# 2**40 seconds, what a descriptor can say.
_MAX_DATE: Final = 2**40


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb and its arguments."""
    parser = verbs.add_parser(
        "publish",
        help="make a signed release of a tree",
        description="Hash what changed since the last look, audit it, and sign a release. Killed "
        "at any moment, the repository serves what it served; run the same command again.",
    )
    parser.add_argument("repo", type=Path, metavar="REPO", help="a folder that init made")
    parser.add_argument("--release", required=True, metavar="NAME", help="name of the new release")
    parser.add_argument(
        "--tree", required=True, type=Path, metavar="TREE", help="the folder with the variants"
    )
    parser.add_argument(
        "--base",
        default=NEWEST_BASE,
        metavar="RELEASE",
        help=f"the release to build upon, or {NO_BASE}; default: the newest",
    )
    _add_content_arguments(parser)
    _add_working_arguments(parser)
    parser.set_defaults(run=run)


def _add_content_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metadata",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="PATH",
        help="files or folders of metadata, to audit against and to ship; default: TREE/metadata, "
        "if it is there",
    )
    parser.add_argument(
        "--variant",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="the variants of the release; default: every folder with bucket folders",
    )
    parser.add_argument(
        "--asset",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="PATH",
        help="publish only these other files and folders of TREE; default: all of them",
    )
    parser.add_argument(
        "--strict", action="store_true", help="publish nothing (exit 4) if the audit has an error"
    )
    parser.add_argument(
        "--date",
        metavar="DATE",
        help="date of the release, as 2021-12-31 or ISO 8601 with a time; default: "
        "SOURCE_DATE_EPOCH, else now",
    )


def _add_working_arguments(parser: argparse.ArgumentParser) -> None:
    files = parser.add_mutually_exclusive_group()
    files.add_argument(
        "--link",
        choices=list(_METHODS),
        default="auto",
        help="how to make the files of the layer: auto reflinks or copies; hard makes hard links "
        "where it cannot reflink, for trees whose files are never written to in place",
    )
    files.add_argument(
        "--in-place", action="store_true", help="make no files: serve the tree as long as it stays"
    )
    parser.add_argument(
        "--materialize-packs",
        action="store_true",
        help="write packs as files too, for static hosts without our server",
    )
    _add_torrent_arguments(parser)
    workers = parser.add_mutually_exclusive_group()
    workers.add_argument(
        "--jobs", type=int, metavar="N", help="worker processes; default: one for each processor"
    )
    workers.add_argument(
        "--executor",
        metavar="URL",
        help="a Dask scheduler (tcp://…) whose workers see TREE and REPO",
    )
    parser.add_argument(
        "--keys", type=Path, metavar="DIR", help="the private keys; default REPO-keys"
    )


def _add_torrent_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("torrents of the new files")
    group.add_argument("--no-torrents", action="store_true", help="make none")
    group.add_argument(
        "--piece-size",
        metavar="SIZE",
        help="a power of two from 16KiB to 32MiB; default: by the mean size of the files",
    )
    group.add_argument(
        "--v2-only",
        action="store_true",
        help="without BitTorrent v1: half the metainfo, no padding, fewer clients",
    )
    group.add_argument(
        "--private", action="store_true", help="peers are to come from the trackers alone"
    )
    group.add_argument(
        "--tracker",
        action="append",
        default=[],
        metavar="URL",
        help="an announce URL, or several of one tier with commas between them (repeatable)",
    )
    group.add_argument(
        "--web-seed",
        action="append",
        default=[],
        metavar="URL",
        help="an address of this repository, for clients that fetch from web seeds (repeatable)",
    )


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Publish, unless the audit forbids it; the summary says what the release is made of."""
    started_at = time.monotonic()
    signing = open_signing(args.repo.absolute(), args.keys)
    order = _order(args)
    with Repository(root=signing.repo).locked(), _crew(args) as crew:
        signed = signed_before_a_kill(signing, order.release, out)
        if signed is not None:
            out.say(
                f"{order.release} was signed by a run that was killed just then; it is complete"
            )
            out.summary(release=signed.release, base=signed.base)
            return ExitCode.COMPLETE
        publication = Publication(signing, order, crew, out)
        if args.in_place:
            out.warn(_IN_PLACE_WARNING)
        draft = publication.prepare()
        show_findings(draft.audit, out, places=_PLACES)
        errors = draft.audit.count(Severity.ERROR)
        base = None if publication.base is None else publication.base.release
        out.summary(release=order.release, base=base, findings=draft.audit.counts)
        if args.strict and errors:
            out.warn(f"nothing was published: {counted(errors, 'error')}, and --strict is given")
            return ExitCode.DAMAGED
        published = publication.finish(draft)
    _tell(published, draft, time.monotonic() - started_at, out)
    return ExitCode.COMPLETE


def _order(args: argparse.Namespace) -> Order:
    return Order(
        release=args.release,
        tree=args.tree.absolute(),
        date=parse_date(args.date, os.environ),
        base=args.base,
        metadata=tuple(args.metadata),
        variants=tuple(args.variant),
        assets=tuple(args.asset),
        methods=() if args.in_place else _METHODS[args.link],
        materialize_packs=args.materialize_packs,
        torrents=_torrent_wish(args),
    )


def _torrent_wish(args: argparse.Namespace) -> TorrentWish | None:
    """What the flags ask for; ConfigError for a piece or an address that cannot be."""
    if args.no_torrents:
        return None
    size = None if args.piece_size is None else check_piece_bytes(parse_size(args.piece_size))
    tiers = tuple(tuple(filter(None, tier.split(","))) for tier in args.tracker)
    for url in (*(url for tier in tiers for url in tier), *args.web_seed):
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https", "udp"} or not parts.hostname:
            raise ConfigError(
                f"{url!r} is no address", hint="Write it like https://data.example.org/announce"
            )
    return TorrentWish(
        piece_bytes=size,
        hybrid=not args.v2_only,
        private=args.private,
        trackers=tuple(tier for tier in tiers if tier),
        web_seeds=tuple(args.web_seed),
    )


def parse_date(text: str | None, environ: Mapping[str, str]) -> int:
    """Unix seconds of a date or time (UTC unless it says otherwise), else of SOURCE_DATE_EPOCH.

    Else of now.  ConfigError for anything that is no date since 1970.
    """
    epoch = environ.get("SOURCE_DATE_EPOCH")
    try:
        if text is not None:
            moment = datetime.fromisoformat(text)
            aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
            seconds = int(aware.timestamp())
        else:
            seconds = int(epoch) if epoch is not None else int(time.time())
    except ValueError as error:
        given = f"SOURCE_DATE_EPOCH={epoch}" if text is None else f"--date {text}"
        raise ConfigError(
            f"{given} is no date", hint="Write 2021-12-31, or 2021-12-31T12:00:00Z."
        ) from error
    if not 0 <= seconds < _MAX_DATE:
        raise ConfigError(f"the date of a release must be after 1970, got {seconds} s")
    return seconds


def _crew(args: argparse.Namespace) -> Crew:
    if args.executor is not None:
        return Crew.at(args.executor)
    if args.jobs is not None and args.jobs < 1:
        raise ConfigError(f"--jobs {args.jobs}: expected at least 1")
    return Crew(args.jobs or available_cpus(), eager=args.jobs is not None)


def _tell(published: Published, draft: Draft, seconds: float, out: Output) -> None:
    """The table for people and the fields for scripts."""
    descriptor = published.descriptor
    counts = {name: draft.harvest.counts(name) for name in draft.harvest.variants}
    total = sum(counts.values(), Counts())
    out.table(
        f"{descriptor.release}, built upon {descriptor.base or 'nothing'}",
        ("variant", "files", "added", "changed", "removed", "bytes", "hashed", "reused"),
        [_row(name, count) for name, count in counts.items()],
    )
    _tell_tables(descriptor, out)
    _tell_torrents(published.torrents, out)
    if total.hard_links:
        out.warn(f"{counted(total.hard_links, 'hard link')} to the tree: {_HARD_WARNING}")
    _tell_absences(published.notices, out)
    out.say(
        f"{descriptor.release} is published: {counted(total.files, 'file')} and "
        f"{counted(len(descriptor.assets), 'asset')} in {format_duration(seconds)}."
    )
    out.result(published.digest.hex)
    out.summary(
        layers=[layer.name for layer in descriptor.layers],
        files_added=total.added,
        files_changed=total.changed,
        files_removed=total.removed,
        files_unchanged=total.unchanged,
        files_hashed=total.hashed,
        bytes_hashed=total.hashed_bytes,
        bytes_linked=total.linked_bytes,
        links={"reflink": total.reflinks, "hard": total.hard_links, "copy": total.copies},
        assets=len(descriptor.assets),
        assets_hashed=draft.assets_hashed,
        metadata={
            table.name: {
                "rows": table.rows,
                "bytes": table.raw_bytes,
                "bytes_stored": table.ref.size_bytes,
            }
            for table in descriptor.tables
        },
        torrents=sum(len(made.torrents) for made in published.torrents.values()),
        torrent_bytes=sum(made.metainfo_bytes for made in published.torrents.values()),
        unavailable=_absent_count(published.notices),
        seconds=round(seconds, 3),
        descriptor=published.digest.hex,
    )


def _tell_tables(descriptor: Descriptor, out: Output) -> None:
    if descriptor.tables:
        out.table(
            "metadata",
            ("table", "rows", "bytes", "stored"),
            [
                [
                    table.name,
                    format_count(table.rows),
                    format_size(table.raw_bytes),
                    format_size(table.ref.size_bytes),
                ]
                for table in descriptor.tables
            ],
        )


def _tell_torrents(torrents: Mapping[str, MadeTorrents], out: Output) -> None:
    if not torrents:
        return
    columns = ("variant", "torrents", "files", "piece", "padding", "transferred", "metainfo")
    rows = [
        [
            variant,
            format_count(len(made.torrents)),
            format_count(made.files),
            f"{made.torrents.piece_bytes // 2**10:,} KiB",
            format_size(made.padding.total_bytes if made.torrents.hybrid else 0),
            format_size(made.padding.block_bytes if made.torrents.hybrid else 0),
            format_size(made.metainfo_bytes),
        ]
        for variant, made in torrents.items()
    ]
    out.table("torrents", columns, rows)
    for variant, made in torrents.items():
        padding_bytes = made.padding.block_bytes
        if made.torrents.hybrid and padding_bytes > made.file_bytes:
            out.say(
                f"{variant}: with {format_size(padding_bytes)} that peers would send to fill "
                f"pieces, beside {format_size(made.file_bytes)} of files,\n"
                "these torrents want --v2-only"
            )


def _row(name: str, counts: Counts) -> list[str]:
    numbers = (counts.files, counts.added, counts.changed, counts.removed)
    reused = counts.files - counts.hashed
    return [
        name,
        *map(format_count, numbers),
        format_size(counts.file_bytes),
        *map(format_count, (counts.hashed, reused)),
    ]


def _absent_count(notices: Notices) -> int:
    return sum(len(absence.ids) for absence in notices.absences)


def _tell_absences(notices: Notices, out: Output) -> None:
    for absence in notices.absences:
        ids = ", ".join(map(str, np.sort(absence.ids)[:3].tolist()))
        out.warn(
            f"{absence.reason} in the tree: {counted(len(absence.ids), 'file')} that "
            f"{absence.layer} published in {absence.variant}, unavailable from now on to every"
            f" release that has them (ids {ids}{', …' if len(absence.ids) > 3 else ''})"  # noqa: PLR2004
        )
