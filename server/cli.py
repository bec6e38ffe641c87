"""``bucketsync-server``: the publisher's and host's command line.

Each verb is a module of :mod:`server.commands`; this one parses, runs it and turns errors into
exit codes.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from manifests.errors import ExitCode, StoreError, SyncError
from syncclient.output import CommandParser, Output, VersionAction, leave

# Read when numpy is imported, here and in every process that is started from here.  Nothing does
# linear algebra, and the threads for it wait for work by turning in circles.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

VERBS = ("init", "publish", "audit", "serve", "refresh", "rotate_key", "sample")


def build_parser(verbs: Sequence[str] = VERBS) -> argparse.ArgumentParser:
    """The whole command line, or that of some verbs only (which imports less)."""
    parser = CommandParser(
        prog="bucketsync-server",
        description="Publish and host very large tagged datasets.",
    )
    parser.add_argument(
        "--version", action=VersionAction, nargs=0, help="show the version and exit"
    )
    found = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in verbs:
        importlib.import_module(f"server.commands.{verb}").add_parser(found)
    for name, verb_parser in found.choices.items():
        verb_parser.set_defaults(verb=name)
        verb_parser.add_argument(
            "--json",
            action="store_true",
            help="one JSON object a line on stdout, the summary last",
        )
        verb_parser.add_argument(
            "-q", "--quiet", action="store_true", help="print only warnings and errors"
        )
        verb_parser.add_argument(
            "-v", "--verbose", action="store_true", help="print more of what is done"
        )
    return parser


def script() -> NoReturn:
    """What the command is."""
    leave(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code of ``docs/reference/exit-codes.md``."""
    words = sys.argv[1:] if argv is None else list(argv)
    out = Output(_verb_of(words), json="--json" in words)
    try:
        args = _parse(words)
        out = Output(args.verb, json=args.json, verbosity=args.verbose - args.quiet)
        code: ExitCode = args.run(args, out)
    except SyncError as error:
        out.error(error)
        code = error.exit_code
    except KeyboardInterrupt:
        out.warn("interrupted; nothing that was published before has changed")
        code = ExitCode.INTERRUPTED
    except OSError as error:
        out.error(StoreError(f"{error.filename or 'I/O'}: {error.strerror or error}"))
        code = ExitCode.STORAGE
    return int(out.close(code))


def _parse(argv: list[str]) -> argparse.Namespace:
    """Parse with the named verb's module alone, or with all where help or an error needs them."""
    wanted = _verb_of(argv).replace("-", "_")
    return build_parser((wanted,) if wanted in VERBS else VERBS).parse_args(argv)


def _verb_of(argv: list[str]) -> str:
    return next((word for word in argv if not word.startswith("-")), "")
