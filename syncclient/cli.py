"""``bucketsync``: the client's command line.

Each verb is a module of :mod:`syncclient.commands`; this one parses, runs it and turns errors into
exit codes.  Only the named verb's module is imported: start-up decides short runs.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from manifests.errors import ExitCode, StoreError, SyncError
from syncclient.output import CommandParser, Output, VersionAction, leave

VERBS = (
    "clone",
    "upgrade",
    "adopt",
    "plan",
    "apply",
    "status",
    "verify",
    "search",
    "explain",
    "releases",
    "checkout",
    "lock",
    "seed",
    "trash",
)

# New objects after which garbage is looked for.
_GARBAGE = 50_000


def build_parser(verbs: Sequence[str] = VERBS) -> argparse.ArgumentParser:
    """The whole command line, or that of some verbs only."""
    parser = CommandParser(
        prog="bucketsync",
        description="Fetch very large tagged datasets, keep them up to date, prove every byte.",
    )
    parser.add_argument(
        "--version", action=VersionAction, nargs=0, help="show the version and exit"
    )
    found = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for verb in verbs:
        importlib.import_module(f"syncclient.commands.{verb}").add_parser(found)
    return parser


def script() -> NoReturn:
    """What the command is."""
    leave(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code of ``docs/reference/exit-codes.md``."""
    # No process of ours imports from the working directory, where a release may have put it.
    os.environ["PYTHONSAFEPATH"] = "1"
    # numpy would start threads for linear algebra, which nobody here needs, and they spin.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # A tenth of a short run is spent on looking for garbage among what was just imported.
    gc.set_threshold(_GARBAGE)
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
        out.warn("interrupted; what was finished stays, run the same command again to go on")
        code = ExitCode.INTERRUPTED
    except OSError as error:
        out.error(StoreError(f"{error.filename or 'I/O'}: {error.strerror or error}"))
        code = ExitCode.STORAGE
    return int(out.close(code))


def _parse(argv: list[str]) -> argparse.Namespace:
    """Parse with the named verb's module alone, or with all where help or an error needs them."""
    wanted = _verb_of(argv)
    return build_parser((wanted,) if wanted in VERBS else VERBS).parse_args(argv)


def _verb_of(argv: list[str]) -> str:
    return next((word for word in argv if not word.startswith("-")), "")
