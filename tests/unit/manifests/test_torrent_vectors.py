"""libtorrent's 108 test torrents: each is refused, and for a reason that is written down here.

None has our layout, so none is accepted; what is held is *why*.  Of the 42 that everybody must
refuse, 25 are refused for what is wrong with them, two of these only without the line feed at the
end.  10 are of v1 only, and one look at that is enough.  5 are not canonical bencoding, which is
looked at first, and 2 have another layout, which is held before their lists are compared.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manifests.errors import ManifestError
from manifests.torrents.reader import read_torrent

VECTORS = Path(__file__).parents[4] / "shared" / "vectors" / "libtorrent"

pytestmark = pytest.mark.skipif(
    not VECTORS.exists(), reason=f"torrents: put libtorrent's test_torrents at {VECTORS}"
)

V1_ONLY = ("info['meta version']", "a torrent of v1 only")
NOT_OURS = ("info['file tree']", "of another layout")
UNORDERED = ("", "does not come after")
TRAILING = ("", "1 bytes too many")
NO_LAYER = ("['piece layers']", "missing, and its file is larger than a piece")
NO_LAYERS = ("['piece layers']", "missing, expected a dictionary")
WRONG_LAYER = ("['piece layers']", "do not give the root")
NO_SUCH_KEY = ("info['file tree']", "a file of ours has no such key")
PIECE_LENGTH = ("info['piece length']", "a power of two from 16 KiB to 32 MiB")

# Where and why each is refused that is not of v1 only.  Those that libtorrent refuses too:
MALFORMED = {
    "bad_name": UNORDERED,
    "duplicate_files2": TRAILING,
    "invalid_file_size": UNORDERED,
    "invalid_info": ("info", "got a string, expected a dictionary"),
    "invalid_name": ("info.name", "got an integer, expected a string"),
    "invalid_piece_len": ("info['piece length']", "got a string, expected an integer"),
    "missing_piece_len": ("info['piece length']", "missing"),
    "negative_file_size": UNORDERED,
    "negative_piece_len": PIECE_LENGTH,
    "no_name": ("info.name", "missing"),
    "string": ("", "expected a dictionary, got a string"),
    # Its v1 and v2 lists differ, which is looked for where the layout is ours.
    "v2_bad_file_alignment": NOT_OURS,
    "v2_deep_recursion": ("", "nested more than 64 deep"),
    "v2_empty_filename": ("", "2 bytes too many"),
    "v2_invalid_file": ("info['file tree'].test64K.length", "expected a dictionary"),
    "v2_invalid_pad_file": ("info['file tree'].test1MB.attr", "no such key"),
    "v2_invalid_piece_layer": NO_LAYER,
    "v2_invalid_piece_layer_root": TRAILING,
    "v2_invalid_piece_layer_size": WRONG_LAYER,
    "v2_invalid_root_hash": WRONG_LAYER,
    "v2_large_file": ("info['file tree'].test1MB.length", "expected 0 to"),
    "v2_large_offset": ("info['file tree']['1'].length", "expected 0 to"),
    "v2_mismatching_metadata": NOT_OURS,
    "v2_missing_file_root_invalid_symlink": ("['pieces root']", "missing"),
    "v2_no_power2_piece": PIECE_LENGTH,
    "v2_non_multiple_piece_layer": ("['piece layers']", "513 bytes are no row of hashes"),
    "v2_overlong_integer": ("", "not a canonical integer"),
    "v2_piece_layer_invalid_file_hash": NO_LAYER,
    "v2_piece_size": PIECE_LENGTH,
    "v2_unknown_piece_layer_entry": TRAILING,
    "v2_unordered_files": UNORDERED,
    "v2_zero_root": ("['pieces root']", "not a root hash"),
    "v2_zero_root_small": ("['pieces root']", "not a root hash"),
}

# Those that libtorrent loads.  Ours asks for canonical bencoding, for every piece layer, for one
# spelling of everything, and for paths BUCKET, ID.EXT below a variant.
FOREIGN = {
    **dict.fromkeys((f"empty-files-{number}" for number in range(1, 6)), NOT_OURS),
    "large_piece_size": TRAILING,
    "pad_file": UNORDERED,
    "pad_file_no_path": UNORDERED,
    "unordered": UNORDERED,
    "v2": NOT_OURS,
    "v2_empty_file": NOT_OURS,
    "v2_hybrid": NO_SUCH_KEY,
    "v2_hybrid-missing-tailpad": NO_SUCH_KEY,
    "v2_incomplete_piece_layer": NO_LAYER,
    "v2_invalid_filename": ("info.name", "expected UTF-8"),
    "v2_invalid_filename2": TRAILING,
    "v2_multipiece_file": NOT_OURS,
    "v2_multiple_files": NOT_OURS,
    "v2_no_piece_layers": NO_LAYERS,
    "v2_only": NOT_OURS,
    "v2_symlinks": NO_SUCH_KEY,
}

# A line feed at the end hides these; without it they are refused for what was put into them.
BEHIND_A_LINE_FEED = {
    "large_piece_size": PIECE_LENGTH,
    "v2_invalid_filename2": NO_LAYERS,
    "v2_invalid_piece_layer_root": WRONG_LAYER,
    "v2_unknown_piece_layer_entry": ("['piece layers']", "no file has this root"),
}


def names() -> list[str]:
    return sorted(path.stem for path in VECTORS.glob("*.torrent"))


def refusal(data: bytes) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        read_torrent(data)
    return caught.value


def test_every_vector_is_there() -> None:
    assert len(names()) == 108
    assert {*MALFORMED, *FOREIGN} <= set(names())


@pytest.mark.parametrize("name", names())
def test_each_is_refused_for_its_reason(name: str) -> None:
    where, reason = {**MALFORMED, **FOREIGN}.get(name, V1_ONLY)
    error = refusal((VECTORS / f"{name}.torrent").read_bytes())
    assert error.where.startswith("torrent")
    assert where in error.where
    assert reason in error.problem


@pytest.mark.parametrize("name", BEHIND_A_LINE_FEED)
def test_without_the_line_feed_it_is_refused_for_its_reason(name: str) -> None:
    where, reason = BEHIND_A_LINE_FEED[name]
    data = (VECTORS / f"{name}.torrent").read_bytes()
    error = refusal(data.removesuffix(b"\n"))
    assert where in error.where
    assert reason in error.problem


def test_the_table_speaks_of_all_that_must_be_refused() -> None:
    must = {name.removesuffix(".torrent") for name in _expected_errors()}
    v1_only = must - MALFORMED.keys()
    assert MALFORMED.keys() - must == {"v2_invalid_root_hash"}
    assert v1_only == {
        "invalid_path_list",
        "invalid_pieces",
        "invalid_symlink",
        "many_pieces",
        "missing_path_list",
        "negative_size",
        "no_files",
        "unaligned_pieces",
        "zero",
        "zero2",
    }


def _expected_errors() -> dict[str, str]:
    errors: dict[str, str] = json.loads((VECTORS / "expected_errors.json").read_text())
    return errors
