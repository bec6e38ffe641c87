"""``rotate-key``: replace a signing key; clients follow from the root they have pinned."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.errors import ExitCode
from server.signing import ROLES, open_signing

if TYPE_CHECKING:
    from syncclient.output import Output


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb and its arguments."""
    parser = verbs.add_parser("rotate-key", help="replace a signing key")
    parser.add_argument("repo", type=Path, metavar="REPO")
    parser.add_argument("role", choices=ROLES, metavar="ROLE", help=", ".join(ROLES))
    parser.add_argument(
        "--keys", type=Path, metavar="DIR", help="the private keys; default REPO-keys"
    )
    parser.add_argument(
        "--key",
        default="",
        metavar="KEYID",
        help="the first digits of the id of the key to replace; default the role's oldest",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Rotate, and say where the old private key is now."""
    signing = open_signing(args.repo, args.keys)
    rotation = signing.rotate_key(args.role, now=datetime.now(UTC), keyid=args.key)
    out.say(f"{args.role}: key {rotation.added[:8]} replaces {rotation.removed[:8]}.")
    out.say(f"The new private key is in {signing.keys.folder}; the old one, if it was there,")
    out.say("is in retired/ beside it now.  Clients follow by themselves.")
    out.summary(
        role=args.role, added=rotation.added, removed=rotation.removed, **signing.summary()
    )
    return ExitCode.COMPLETE
