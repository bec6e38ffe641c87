"""Our client behind the command line that the TUF project's conformance suite drives.

    tuf_adapter.py --metadata-dir DIR init TRUSTED_ROOT
    tuf_adapter.py --metadata-dir DIR --metadata-url URL refresh
    tuf_adapter.py --metadata-dir DIR --metadata-url URL --target-name NAME
                   --target-base-url URL --target-dir DIR download

Exit code 0 if everything verified, else 1 and the reason on stderr.  Pin, updater, limits and
errors are those of :mod:`syncclient.trust`; only the HTTP requests are made here, by urllib.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import urlopen

from manifests.errors import SyncError, TransferError, TrustError
from syncclient.signed import METADATA_PATH, TARGETS_PATH
from syncclient.trust import BASE_URL, TrustStore, open_updater, refresh

TIMEOUT_S = 30
# What a URL path may hold as it is; "%" because python-tuf has quoted the names of roles already.
URL_PATH_CHARACTERS = "/%:@!$&'()*+,;=~"


class Server:
    """Finds metadata and targets under the two addresses that the suite names."""

    def __init__(self, metadata_url: str, target_url: str) -> None:
        self._places = {METADATA_PATH: metadata_url, TARGETS_PATH: target_url}

    def fetch(self, path: str, max_bytes: int) -> bytes:
        """At most ``max_bytes`` and one more, for :data:`syncclient.trust.Fetch`."""
        place = next(place for place in self._places if path.startswith(f"{place}/"))
        name = quote(path.removeprefix(f"{place}/"), safe=URL_PATH_CHARACTERS)
        url = f"{self._places[place].rstrip('/')}/{name}"
        if not url.startswith(("http://", "https://")):
            raise TransferError(f"{url} is not an HTTP address")
        try:
            with urlopen(url, timeout=TIMEOUT_S) as answer:  # noqa: S310 (checked above)
                data: bytes = answer.read(max_bytes + 1)
        except HTTPError as error:
            error.close()
            raise TransferError(f"{url}: HTTP status {error.code}", status=error.code) from error
        except (URLError, OSError) as error:
            raise TransferError(f"{url}: {error}") from error
        return data


def init(trust: TrustStore, trusted_root: Path) -> None:
    """Pin a root and let python-tuf show it as ``root.json``."""
    trust.pin(trusted_root.read_bytes())
    with open_updater(trust, Server("", "").fetch):
        pass


def download(trust: TrustStore, server: Server, name: str, folder: Path) -> None:
    """Fetch one target into ``folder``, unless what lies there is the target already."""
    path = str(folder / quote(name, safe=""))
    with open_updater(trust, server.fetch) as updater:
        info = updater.get_targetinfo(name)
        if info is None:
            raise TrustError(f"there is no target {name!r}")
        if updater.find_cached_target(info, path) is None:
            updater.download_target(info, path, BASE_URL + TARGETS_PATH)


def build_parser() -> argparse.ArgumentParser:
    """The suite's command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url", default="")
    parser.add_argument("--target-name", default="")
    parser.add_argument("--target-base-url", default="")
    parser.add_argument("--target-dir", type=Path, default=Path())
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("trusted_root", type=Path)
    commands.add_parser("refresh")
    commands.add_parser("download")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 or 1."""
    args = build_parser().parse_args(argv)
    trust, server = TrustStore(args.metadata_dir), Server(args.metadata_url, args.target_base_url)
    try:
        if args.command == "init":
            init(trust, args.trusted_root)
        elif args.command == "refresh":
            refresh(trust, server.fetch)
        else:
            download(trust, server, args.target_name, args.target_dir)
    except SyncError as error:
        sys.stderr.write(f"{error.message}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
