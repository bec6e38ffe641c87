"""``bucketsync-server audit TREE``: metadata against files, without publishing."""

from __future__ import annotations

import argparse
import time
from functools import partial
from pathlib import Path

from manifests.errors import ConfigError, ExitCode, ManifestError
from manifests.paths import METADATA_FOLDER, Layout
from manifests.units import counted
from server.audit.announce import show_findings, tell_no_metadata
from server.audit.auditing import AuditReport, audit_files
from server.audit.findings import Severity, StrayLog
from server.audit.inspection import FileTable, inspect_bucket, merge_files
from server.audit.report import write_page
from server.publishing.crew import Crew, available_cpus
from server.publishing.reading import read_posts
from server.walk import find_variants, walk_variant
from syncclient.metadata import find_metadata
from syncclient.output import Output


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """The verb ``audit``."""
    parser = verbs.add_parser(
        "audit",
        help="compare metadata with files, without publishing",
        description=(
            "Look into every file of TREE and compare it with the metadata. Nothing is changed. "
            "Exit code 0, or 4 with --strict if an error was found."
        ),
    )
    parser.add_argument("tree", type=Path, metavar="TREE", help="the folder with the variants")
    parser.add_argument(
        "--metadata",
        nargs="+",
        action="extend",
        type=Path,
        default=[],
        metavar="PATH",
        help="files or folders of posts (JSON lines, packed or not); default: TREE/metadata if it "
        "exists, else only the files themselves are judged",
    )
    parser.add_argument(
        "--report", type=Path, metavar="FILE.html", help="write one self-contained page as well"
    )
    parser.add_argument(
        "--strict", action="store_true", help="exit with 4 if there is any error (not for notices)"
    )
    parser.add_argument(
        "--variant",
        action="append",
        default=[],
        metavar="NAME",
        help="look at this variant only (repeatable; default: every folder with buckets)",
    )
    parser.add_argument(
        "--buckets", type=int, default=1000, metavar="N", help="buckets a variant (default 1000)"
    )
    parser.add_argument(
        "--digits", type=int, default=4, metavar="N", help="digits of a bucket's name (default 4)"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=available_cpus(),
        metavar="N",
        help="processes to work in (default: one a processor)",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Audit a tree, show what was found, and judge it if asked to."""
    started = time.monotonic()
    report = _audit(args, out)
    show_findings(report, out)
    if args.report is not None:
        write_page(report, tree=args.tree, path=args.report)
        out.say(f"report: {args.report}")
    errors = report.count(Severity.ERROR)
    out.summary(
        files=dict(report.files),
        posts=report.posts,
        findings=report.counts,
        errors=errors,
        notices=report.count(Severity.NOTICE),
        report=None if args.report is None else str(args.report),
        seconds=round(time.monotonic() - started, 3),
    )
    return ExitCode.DAMAGED if args.strict and errors else ExitCode.COMPLETE


def _audit(args: argparse.Namespace, out: Output) -> AuditReport:
    """Read the metadata, look into the files of every variant, and compare."""
    if args.jobs < 1:
        raise ConfigError(f"--jobs {args.jobs}: expected at least 1")
    layout = _layout(args.buckets, args.digits)
    variants = find_variants(args.tree, layout, args.variant)
    beside = args.tree / METADATA_FOLDER
    sources = find_metadata(args.metadata or ([beside] if beside.is_dir() else []))
    strays, files = StrayLog(), dict[str, FileTable]()
    with Crew(args.jobs) as crew:
        posts = read_posts(sources, crew) if sources else None
        if posts is None:
            tell_no_metadata(args.tree, variants, out)
        else:
            out.say(f"metadata: {counted(len(posts), 'post')} in {counted(len(sources), 'file')}")
        for variant in variants:
            files[variant] = _inspect_variant(args.tree, variant, layout, crew, strays)
            out.say(f"{variant}: {counted(len(files[variant]), 'file')}")
    return audit_files(files, posts, strays, layout)


def _layout(buckets: int, digits: int) -> Layout:
    try:
        return Layout(buckets=buckets, digits=digits)
    except ManifestError as error:
        raise ConfigError(f"--{error.where}: {error.problem}") from error


def _inspect_variant(
    tree: Path, variant: str, layout: Layout, crew: Crew, strays: StrayLog
) -> FileTable:
    """Look into every file of a variant; a bucket is a task."""
    walk = walk_variant(tree, variant, layout)
    strays.add(variant, walk.strays)
    tables = []
    inspect = partial(inspect_bucket, tree, variant, layout=layout)
    for bucket in crew.run(inspect, walk.buckets):
        strays.add(variant, bucket.strays)
        tables.append(bucket.files)
    return merge_files(tables)
