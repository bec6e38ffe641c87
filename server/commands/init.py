"""``init``: an empty repository, its signing keys, and the fingerprint that users pin."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from manifests.errors import ConfigError, ExitCode, ManifestError
from manifests.paths import Layout
from manifests.units import parse_duration
from server.signing import (
    EXPIRY_DAYS,
    PRIVATE_FOLDER_MODE,
    ROLES,
    Quorum,
    Settings,
    Signing,
    Write,
    key_folder,
    write_durably,
)

if TYPE_CHECKING:
    from syncclient.output import Output

_DAY_S = 86_400


def add_parser(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the verb and its arguments."""
    parser = verbs.add_parser("init", help="make an empty repository and its keys")
    parser.add_argument("repo", type=Path, metavar="REPO", help="a folder, new or empty")
    parser.add_argument("--dataset", required=True, metavar="NAME", help="the series of releases")
    parser.add_argument("--buckets", type=int, default=1000, metavar="N", help="default 1000")
    parser.add_argument("--digits", type=int, default=4, metavar="N", help="default 4")
    parser.add_argument(
        "--keys", type=Path, metavar="DIR", help="for the private keys; default REPO-keys"
    )
    for role, prefix in (("root", ""), ("targets", "targets-")):
        parser.add_argument(
            f"--{role}-keys", type=int, default=1, metavar="N", help=f"keys of {role}; default 1"
        )
        parser.add_argument(
            f"--{prefix}threshold",
            type=int,
            default=1,
            metavar="M",
            help=f"how many of the keys of {role} must sign; default 1",
        )
    parser.add_argument(
        "--expiry",
        action="append",
        default=[],
        metavar="ROLE=DURATION",
        help="when a signature expires, such as timestamp=2y; default root=5y, targets=5y, "
        "snapshot=400d, timestamp=400d",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace, out: Output) -> ExitCode:
    """Make the repository and say what its users and its owner must keep."""
    try:
        settings = Settings(
            dataset=args.dataset,
            layout=Layout(buckets=args.buckets, digits=args.digits),
            expiry_days=parse_expiry(args.expiry),
        )
    except ManifestError as error:
        raise ConfigError(error.message, hint=error.hint) from error
    quorums = {
        "root": Quorum(keys=args.root_keys, threshold=args.threshold),
        "targets": Quorum(keys=args.targets_keys, threshold=args.targets_threshold),
    }
    now = datetime.now(UTC)
    signing = init_repository(args.repo, args.keys, settings=settings, now=now, quorums=quorums)
    out.result(signing.fingerprint)
    out.say(f"{args.repo} is ready for the first release of {args.dataset}.")
    out.say("The line on stdout is its root fingerprint: publish it where users can find it.")
    out.say(f"The private keys are in {signing.keys.folder}: keep them secret, and keep a copy.")
    out.summary(dataset=args.dataset, keys=str(signing.keys.folder), **signing.summary())
    return ExitCode.COMPLETE


def parse_expiry(texts: Sequence[str]) -> dict[str, int]:
    """Days by role: the defaults, changed by texts such as ``timestamp=2y``."""
    days = dict(EXPIRY_DAYS)
    for text in texts:
        role, _, duration = text.partition("=")
        if role not in ROLES:
            raise ConfigError(
                f"--expiry {text}: expected ROLE=DURATION",
                hint=f"Roles are {', '.join(ROLES)}; as in timestamp=2y.",
            )
        days[role] = int(parse_duration(duration) // _DAY_S)
        if not days[role]:
            raise ConfigError(f"--expiry {text}: expected a day at least")
    return days


def init_repository(  # noqa: PLR0913 (what the publisher chooses, each by name)
    repo: Path,
    keys: Path | None = None,
    *,
    settings: Settings,
    now: datetime,
    quorums: Mapping[str, Quorum] | None = None,
    write: Write = write_durably,
) -> Signing:
    """Make an empty repository and its keys; both folders must be new or empty.

    A role has one key unless ``quorums`` says more.  The timestamp is written last: an init that
    was interrupted leaves no repository, and two folders to empty before it is tried again.
    """
    signing = Signing(repo, key_folder(repo, keys), settings, write)
    folder = signing.keys.folder
    if folder.is_relative_to(repo.resolve()):
        raise ConfigError(
            f"the keys in {folder} would be published with {repo}",
            hint="Name a folder outside the repository with --keys.",
        )
    _refuse_used_folder(repo)
    _refuse_used_folder(folder)
    for private in (folder, repo / ".publish"):
        private.mkdir(parents=True, exist_ok=True)
        private.chmod(PRIVATE_FOLDER_MODE)
    for name in ("metadata", "targets"):
        (repo / "tuf" / name).mkdir(parents=True)
    write(repo / ".publish" / "settings.json", settings.to_bytes())
    signing.create(quorums or {}, now=now)
    return signing


def _refuse_used_folder(folder: Path) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigError(f"{folder} is not a folder")
    names = sorted(path.name for path in folder.iterdir())
    if names:
        shown = ", ".join(names[:3]) + (", …" if len(names) > 3 else "")  # noqa: PLR2004
        raise ConfigError(
            f"{folder} is not empty: it holds {shown}",
            hint="Name a new folder, or empty this one if nobody needs it.",
        )
