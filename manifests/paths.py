r"""The only place that turns bytes of a release into names of files.

Two kinds of path exist.  The path of an *entry* is never read from a document: it is built from a
variant, an id and an extension, each checked here (``original/0999/1999.png``).  The path of an
*asset* is text from the descriptor and passes :func:`asset_path`, which accepts only what every
common file system stores under exactly that name.

Rules of a safe component: 1 to 255 bytes of NFC text, no control character, none of ``/\:*?"<>|``,
no trailing dot or space, not ``.`` or ``..``, not a Windows device name (``CON``, ``nul.txt``).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from msgspec import Struct

from manifests.errors import ManifestError

MAX_ID = 2**32 - 1
# A folder each.
MAX_BUCKETS = 100_000
MAX_PATH_BYTES = 1024
MAX_COMPONENT_BYTES = 255
MAX_DEPTH = 32
# The client's own folder; no release may write into it.
PRIVATE_FOLDER = ".bucketsync"
METADATA_FOLDER = "metadata"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_EXTENSION = re.compile(r"[A-Za-z0-9]{1,16}")
_ENTRY_NAME = re.compile(r"([1-9][0-9]{0,9})\.([A-Za-z0-9]{1,16})")
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f/\\:*?"<>|]')
# Unicode's Default_Ignorable_Code_Point: casefolded ext4 and HFS+ compare names without them.
_IGNORABLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e0fff]"
)
_DEVICE = re.compile(
    r"(?:con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])(?: *\..*)?", re.IGNORECASE
)


class SafePath(Struct, frozen=True, order=True):
    """A relative path that was checked; made by :func:`asset_path` or :class:`Layout` only."""

    text: str

    @property
    def parts(self) -> tuple[str, ...]:
        """Folder names and, last, the file name."""
        return tuple(self.text.split("/"))

    @property
    def folded(self) -> str:
        """What a file system compares that knows neither case nor ignorable characters."""
        return _fold(self.text)

    def __str__(self) -> str:
        """The path with forward slashes."""
        return self.text


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", _IGNORABLE.sub("", text.casefold()))


def component_problem(name: str) -> str:
    """Why ``name`` is no safe file or folder name; empty if it is one."""
    checks = (
        (name in {"", ".", ".."}, "is not a name"),
        (_FORBIDDEN.search(name) is not None, "has a character that some file systems refuse"),
        (name.endswith((".", " ")), "ends in a dot or a space"),
        (_DEVICE.fullmatch(name) is not None, "is a device name on Windows"),
        (unicodedata.normalize("NFC", name) != name, "is not in Unicode normal form C"),
        (not _encodable(name), "is not text"),
        (len(name.encode(errors="replace")) > MAX_COMPONENT_BYTES, "is longer than 255 bytes"),
    )
    return next((problem for failed, problem in checks if failed), "")


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def asset_path(text: str, where: str = "path") -> SafePath:
    """Check the path of an asset; ManifestError at ``where`` says which part is unsafe."""
    parts = text.split("/")
    for part in parts:
        if problem := component_problem(part):
            raise ManifestError(where, f"unsafe path {text[:200]!r}: {part[:80]!r} {problem}")
    if len(parts) > MAX_DEPTH or len(text.encode()) > MAX_PATH_BYTES:
        raise ManifestError(where, f"path too long or too deep: {text[:200]!r}")
    if _fold(parts[0]) == PRIVATE_FOLDER:
        raise ManifestError(where, f"{text[:200]!r} lies in the client's own folder")
    return SafePath(text)


def check_name(text: str, where: str, what: str) -> str:
    """A release, variant or dataset name: 1 to 64 of letters, digits, ``._-``, no device name."""
    if _NAME.fullmatch(text) is None or component_problem(text):
        raise ManifestError(
            where,
            f"{text[:80]!r} is not a {what} name",
            hint="Use letters, digits, dot, dash and underscore; begin with a letter or digit.",
        )
    return text


def check_variant(text: str, where: str = "variant") -> str:
    """A variant name: like any name, and not a folder that has another meaning."""
    if text.casefold() == METADATA_FOLDER:
        raise ManifestError(where, f"{text!r} is the folder of the metadata, not a variant")
    return check_name(text, where, "variant")


def check_extension(text: str, where: str = "extension") -> str:
    """1 to 16 ASCII letters and digits, without the dot."""
    if _EXTENSION.fullmatch(text) is None:
        raise ManifestError(where, f"{text[:80]!r} is not a file extension (letters and digits)")
    return text


def parse_entry_name(name: str) -> tuple[int, str] | None:
    """``1999.png`` as ``(1999, "png")``; None for a name that no entry can have."""
    match = _ENTRY_NAME.fullmatch(name)
    if match is None or int(match[1]) > MAX_ID:
        return None
    return int(match[1]), match[2]


def parse_entry_names(names: Sequence[str]) -> tuple[list[int], list[str]] | None:
    """The same for many names at once, in half the time; None if one of them is not an entry's."""
    parts = ".".join(names).split(".")
    texts, extensions = parts[::2], parts[1::2]
    if len(texts) != len(names) or len(extensions) != len(names):
        return None
    try:
        ids = list(map(int, texts))
    except ValueError:
        return None
    # Python takes 007, 1_0 and digits of other scripts for numbers, and dots may be elsewhere.
    as_we_write = list(map("%d.%s".__mod__, zip(ids, extensions, strict=True)))
    if as_we_write != list(names) or not 1 <= min(ids) <= max(ids) <= MAX_ID:
        return None
    return (ids, extensions) if all(map(_EXTENSION.fullmatch, set(extensions))) else None


class Layout(Struct, frozen=True, kw_only=True):
    """How ids spread over bucket folders: ``id mod buckets``, written with ``digits`` digits."""

    buckets: int = 1000
    digits: int = 4

    def __post_init__(self) -> None:
        if not 1 <= self.buckets <= MAX_BUCKETS:
            raise ManifestError("buckets", f"expected 1 to {MAX_BUCKETS}, got {self.buckets}")
        if not len(str(self.buckets - 1)) <= self.digits <= 9:  # noqa: PLR2004
            raise ManifestError(
                "digits", f"{self.digits} digits cannot name {self.buckets} buckets"
            )

    def bucket_of(self, post_id: int) -> int:
        """The bucket an id belongs to."""
        return post_id % self.buckets

    def bucket_name(self, bucket: int) -> str:
        """The folder of a bucket: ``0999``."""
        return f"{bucket:0{self.digits}d}"

    def parse_bucket(self, name: str) -> int | None:
        """The bucket that a folder name stands for, or None."""
        if len(name) != self.digits or not name.isascii() or not name.isdigit():
            return None
        number = int(name)
        return number if number < self.buckets else None

    def entry_path(self, variant: str, post_id: int, extension: str) -> SafePath:
        """``original/0999/1999.png``."""
        if not 1 <= post_id <= MAX_ID:
            raise ManifestError("id", f"expected 1 to {MAX_ID}, got {post_id}")
        check_variant(variant)
        check_extension(extension)
        return SafePath(
            f"{variant}/{self.bucket_name(post_id % self.buckets)}/{post_id}.{extension}"
        )

    def claims(self, parts: Sequence[str]) -> bool:
        """Whether a file here would stand where entries of a variant, ``parts[0]``, have theirs.

        That is at the variant's folder, at the folder of a bucket, or at an entry or below it.
        """
        if len(parts) < 3:  # noqa: PLR2004 (variant, bucket, file)
            return all(self.parse_bucket(name) is not None for name in parts[1:])
        return self.parse_entry("/".join(parts[:3])) is not None

    def parse_entry(self, path: str) -> tuple[str, int, str] | None:
        """``(variant, id, extension)`` if ``path`` is where an entry could lie, else None."""
        parts = path.split("/")
        if len(parts) != 3:  # noqa: PLR2004 (variant, bucket, file)
            return None
        named, bucket = parse_entry_name(parts[2]), self.parse_bucket(parts[1])
        if named is None or bucket is None or bucket != named[0] % self.buckets:
            return None
        return parts[0], named[0], named[1]
