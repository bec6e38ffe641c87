"""Settings of a tree (``.bucketsync/config.toml``) and of a run, merged once.

The tree's own settings are not cache: they say what the tree is.  If they are lost, the client
refuses and points to ``adopt``.  A run's settings come from, weakest first: defaults, the
``[transport]`` table of the tree, ``BUCKETSYNC_*`` variables, flags.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import tomli_w
from msgspec import Struct, field
from msgspec.structs import fields, replace

from manifests.errors import ConfigError, ExitCode, ManifestError
from manifests.paths import PRIVATE_FOLDER, check_name, check_variant
from manifests.units import parse_rate
from syncclient.documents import write_durably
from syncclient.selection import Selection, parse_ids

if TYPE_CHECKING:
    from manifests.columns import U32

CONFIG_NAME = "config.toml"
IDS_NAME = "selection.ids"
_FORMAT = 1
# Files of a tree that may be deleted in one run unless told otherwise.
DELETE_SHARE = 0.10


class TreeConfig(Struct, frozen=True, kw_only=True):
    """What a tree is: dataset, where from, which release, what part of it, pinned root."""

    dataset: str
    urls: tuple[str, ...]
    root_fingerprint: str
    release: str
    selection: Selection
    variant_dirs: Mapping[str, str] = field(default_factory=dict)
    transport: Mapping[str, Any] = field(default_factory=dict)


def private_folder(tree: Path) -> Path:
    """The client's own folder inside a tree."""
    return tree / PRIVATE_FOLDER


def load_tree_config(tree: Path) -> TreeConfig:
    """Read a tree's settings; ConfigError (exit 10) where there are none, or none readable."""
    path = private_folder(tree) / CONFIG_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        message = f"{tree} is not a bucketsync tree: it has no {PRIVATE_FOLDER}/{CONFIG_NAME}"
        raise ConfigError(
            message,
            hint="Start one with `bucketsync clone URL DIR`; take over files that are already "
            "there with `bucketsync adopt URL DIR`.",
            exit_code=ExitCode.NOT_A_TREE,
        ) from None
    except UnicodeDecodeError as error:
        raise _unreadable(path, error) from error
    try:
        return _from_document(tomllib.loads(text), path)
    except (
        *(AttributeError, LookupError, TypeError, ValueError),
        *(OverflowError, OSError, ManifestError),
    ) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path}: cannot be read ({error})",
        hint="Mend the file, or move it away and run `bucketsync adopt URL DIR`: "
        "no file that is already right is fetched again.",
        exit_code=ExitCode.NOT_A_TREE,
    )


def _from_document(document: dict[str, Any], path: Path) -> TreeConfig:
    if document["format"] != _FORMAT:
        message = f"{path}: format {document['format']}, expected {_FORMAT}"
        raise ConfigError(message, hint="Upgrade bucketsync.", exit_code=ExitCode.NOT_A_TREE)
    chosen = document.get("selection", {})
    ids = _kept_ids(path.with_name(IDS_NAME)) if chosen.get("ids") else None
    buckets = chosen.get("buckets")
    variants = chosen.get("variants")
    return TreeConfig(
        dataset=check_name(document["dataset"], "dataset", "dataset"),
        urls=tuple(str(url) for url in document["urls"]),
        root_fingerprint=str(document["root_fingerprint"]),
        release=check_name(document["release"], "release", "release"),
        selection=Selection(
            variants=tuple(check_variant(v) for v in variants) if variants else None,
            buckets=(int(buckets[0]), int(buckets[1])) if buckets else None,
            ids=ids,
            query=str(chosen.get("query", "")),
            seed=str(chosen.get("seed", "")),
            metadata=bool(chosen.get("metadata")),
        ),
        variant_dirs={
            check_variant(k): str(v) for k, v in document.get("variant_dirs", {}).items()
        },
        transport=dict(document.get("transport", {})),
    )


def _kept_ids(path: Path) -> U32:
    try:
        return parse_ids(path.read_text(encoding="utf-8"), str(path))
    except ConfigError as error:
        raise _unreadable(path, error) from error


async def save_tree_config(tree: Path, config: TreeConfig) -> None:
    """Write the settings so that a crash leaves the old ones or the new ones."""
    chosen = config.selection
    selection: dict[str, Any] = {}
    if chosen.variants is not None:
        selection["variants"] = list(chosen.variants)
    if chosen.buckets is not None:
        selection["buckets"] = list(chosen.buckets)
    if chosen.ids is not None:
        selection["ids"] = True
        text = "\n".join(map(str, chosen.ids.tolist())) + "\n"
        await write_durably(private_folder(tree) / IDS_NAME, text.encode())
    if chosen.query:
        selection |= {"query": chosen.query, "seed": chosen.seed}
    if chosen.metadata:
        selection["metadata"] = True
    document = {
        "format": _FORMAT,
        "dataset": config.dataset,
        "urls": list(config.urls),
        "root_fingerprint": config.root_fingerprint,
        "release": config.release,
        "selection": selection,
        "variant_dirs": dict(config.variant_dirs),
        "transport": dict(config.transport),
    }
    await write_durably(private_folder(tree) / CONFIG_NAME, tomli_w.dumps(document).encode())


class Transport(Struct, frozen=True, kw_only=True):
    """How bytes travel in one run."""

    mirrors: tuple[str, ...] = ()
    locals: tuple[str, ...] = ()
    # Worker processes for bulk work; 0 lets the amount of work decide.
    jobs: int = 0
    connections: int = 4
    # Bytes a second over all connections; 0 for no limit.
    bwlimit: int = 0
    # Bytes a second that a host must bring at least, over timeout_s; 0 for no such rule.
    min_rate: int = 1000
    # Tries of one piece of work, the first included.
    retries: int = 5
    timeout_s: float = 30.0
    allow_redirect: tuple[str, ...] = ()
    # Where the files of the tree come from: auto, http or torrent.
    source: str = "auto"
    # Peers to ask beside those that trackers name, as HOST:PORT.
    peers: tuple[str, ...] = ()
    # Where peers reach us, as libtorrent's listen_interfaces; port 0 picks one.
    listen: str = "0.0.0.0:0,[::]:0"
    # Bytes a second to all peers; 0 for no limit.
    upload_limit: int = 0
    # Memory in which small files from peers wait for their names, in bytes; 0 for none.
    staging_memory: int = 500_000_000
    # Ways to find peers, and to reach them, beside trackers and TCP.
    dht: bool = False
    lsd: bool = False
    pex: bool = True
    utp: bool = False
    port_mapping: bool = False
    encryption: str = "prefer"


_LISTS = {"mirrors", "locals", "allow_redirect", "peers"}
_RATES = {"bwlimit", "min_rate", "staging_memory", "upload_limit"}
_SWITCHES = {"dht", "lsd", "pex", "utp", "port_mapping"}
_CHOICES = {
    "source": ("auto", "http", "torrent"),
    "encryption": ("prefer", "require", "off"),
}


def merge_transport(
    kept: Mapping[str, Any], environment: Mapping[str, str], flags: Mapping[str, Any]
) -> Transport:
    """Defaults < tree < environment < flags; a flag that is None or empty does not count."""
    if unknown := sorted(kept.keys() - {f.name for f in fields(Transport)}):
        raise ConfigError(f"the tree's config.toml: no transport setting {', '.join(unknown)}")
    merged = Transport()
    for origin, values in (
        ("the tree's config.toml", kept),
        ("the environment", _from_environment(environment)),
        ("the flags", flags),
    ):
        known = {f.name for f in fields(Transport)}
        given = {k: v for k, v in values.items() if k in known and v not in (None, (), [], "")}
        try:
            merged = replace(merged, **{k: _convert(k, v) for k, v in given.items()})
        except (TypeError, ValueError) as error:
            message = f"a transport setting in {origin} cannot be read: {error}"
            raise ConfigError(message) from error
    return merged


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    names = {f"BUCKETSYNC_{f.name.upper()}": f.name for f in fields(Transport)}
    found: dict[str, Any] = {}
    for variable, name in names.items():
        if variable in environment:
            text = environment[variable]
            found[name] = text.split() if name in _LISTS else text
    return found


def _convert(name: str, value: Any) -> Any:  # noqa: ANN401 (text, number or list)
    if name in _LISTS:
        return tuple(str(item) for item in value)
    if name in _RATES:
        return parse_rate(str(value))
    if name in _SWITCHES:
        return _switch(name, value)
    if name == "listen":
        return str(value)
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise ValueError(f"{name} is {value}, expected {' or '.join(_CHOICES[name])}")
        return value
    number = float(value) if name == "timeout_s" else int(value)
    if number < 0 or (number == 0 and name != "jobs"):
        raise ValueError(f"{name} is {value}, expected more")
    return number


def _switch(name: str, value: object) -> bool:
    known = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}
    text = str(value).lower()
    if text not in known:
        raise ValueError(f"{name} is {value}, expected true or false")
    return known[text]


def check_url(text: str) -> str:
    """A repository's base URL without a trailing slash; ConfigError unless http or https."""
    parts = urlsplit(text)
    if (
        parts.scheme not in {"http", "https"}
        or not parts.hostname
        or parts.query
        or parts.fragment
    ):
        message = f"{text!r} is not the address of a repository"
        raise ConfigError(message, hint="Write it like https://data.example.org/danbooru")
    return text.rstrip("/")
