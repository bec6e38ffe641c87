"""``refresh``: sign again what would expire, so that clients go on accepting the repository."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.errors import ExitCode
from server.signing import open_signing

if TYPE_CHECKING:
    from syncclient.output import Output


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb and its arguments."""
    parser = verbs.add_parser("refresh", help="renew the signatures of a repository")
    parser.add_argument("repo", type=Path, metavar="REPO")
    parser.add_argument(
        "--keys", type=Path, metavar="DIR", help="the private keys; default REPO-keys"
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help="root and targets too; else they are signed when a quarter of their time is left",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Renew, and warn of what is due but has no keys here."""
    signing = open_signing(args.repo, args.keys)
    renewal = signing.refresh(now=datetime.now(UTC), everything=args.all)
    roles = signing.roles()
    for role in renewal.waiting:
        out.warn(f"{role} expires on {roles[role].expires:%Y-%m-%d}; its keys are not here")
    rows = [
        (role, str(signed.version), f"{signed.expires:%Y-%m-%d}") for role, signed in roles.items()
    ]
    out.table("Signed metadata", ("role", "version", "expires"), rows)
    out.summary(signed=renewal.signed, waiting=renewal.waiting, **signing.summary())
    return ExitCode.COMPLETE
