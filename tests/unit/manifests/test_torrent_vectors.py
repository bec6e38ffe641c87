"""libtorrent's 108 test torrents: each is refused, and for a reason that is written down here.

None has our layout, so none is accepted; what is held is *why*.  Of the 42 that everybody must
refuse, 39 are refused for what is wrong with them; the other 3 have keys out of order, which is
wrong as well, and is looked at first.
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
TWICE = (".path", "an earlier file has the same")
UNORDERED = ("", "does not come after")
NO_LAYER = ("['piece layers']", "missing, and its file is larger than a piece")
NO_LAYERS = ("['piece layers']", "missing, expected a dictionary")
WRONG_LAYER = ("['piece layers']", "do not give the root")
NO_SUCH_KEY = ("info['file tree']", "a file of ours has no such key")
PIECE_LENGTH = ("info['piece length']", "a power of two from 16 KiB to 32 MiB")

# Where and why each is refused that is not of v1 only.  Those that libtorrent refuses too:
MALFORMED = {
    "bad_name": UNORDERED,
    "duplicate_files2": TWICE,
    "invalid_file_size": UNORDERED,
    "invalid_info": ("info", "got a string, expected a dictionary"),
    "invalid_name": ("info.name", "got an integer, expected a string"),
    "invalid_piece_len": ("info['piece length']", "got a string, expected an integer"),
    "invalid_path_list": ("info.files[0].path", "expected names, at least one"),
    "invalid_pieces": ("info.pieces", "got an integer, expected a string"),
    "invalid_symlink": ("info.files[1].path", "expected names, at least one"),
    "many_pieces": ("info.length", "expected 0 to"),
    "missing_path_list": ("info.files[0].path", "missing, expected a list"),
    "negative_size": ("info.length", "expected 0 to"),
    "no_files": ("info.files", "no file in it"),
    "unaligned_pieces": ("info.pieces", "24 bytes, expected 20 for each of 1 pieces"),
    "zero": ("info", "no file with a byte in it"),
    "zero2": ("info", "no file with a byte in it"),
    "missing_piece_len": ("info['piece length']", "missing"),
    "negative_file_size": UNORDERED,
    "negative_piece_len": PIECE_LENGTH,
    "no_name": ("info.name", "missing"),
    "string": ("", "expected a dictionary, got a string"),
    "v2_bad_file_alignment": ("info.files[3]", "does not begin with a piece"),
    "v2_deep_recursion": ("", "nested more than 64 deep"),
    "v2_empty_filename": ("info['file tree']", "a folder with the properties of a file"),
    "v2_invalid_file": ("info['file tree'].test64K.length", "expected a dictionary"),
    "v2_invalid_pad_file": ("info['file tree'].test1MB.attr", "no such key"),
    "v2_invalid_piece_layer": NO_LAYER,
    "v2_invalid_piece_layer_root": WRONG_LAYER,
    "v2_invalid_piece_layer_size": WRONG_LAYER,
    "v2_invalid_root_hash": WRONG_LAYER,
    "v2_large_file": ("info['file tree'].test1MB.length", "expected 0 to"),
    "v2_large_offset": ("info['file tree']['1'].length", "expected 0 to"),
    "v2_mismatching_metadata": ("info.files", "not the files that the file tree has"),
    "v2_missing_file_root_invalid_symlink": ("['pieces root']", "missing"),
    "v2_no_power2_piece": PIECE_LENGTH,
    "v2_non_multiple_piece_layer": ("['piece layers']", "513 bytes are no row of hashes"),
    "v2_overlong_integer": ("", "not a canonical integer"),
    "v2_piece_layer_invalid_file_hash": NO_LAYER,
    "v2_piece_size": PIECE_LENGTH,
    "v2_unknown_piece_layer_entry": ("['piece layers']", "no file has this root"),
    "v2_unordered_files": UNORDERED,
    "v2_zero_root": ("['pieces root']", "not a root hash"),
    "v2_zero_root_small": ("['pieces root']", "not a root hash"),
}

# Those that libtorrent loads.  Ours asks for canonical bencoding, for every piece layer, for one
# spelling of everything, and for paths BUCKET, ID.EXT below a variant.
FOREIGN = {
    **dict.fromkeys((f"empty-files-{number}" for number in range(1, 6)), NOT_OURS),
    "duplicate_files": TWICE,
    "empty_path_multi": TWICE,
    "large_piece_size": PIECE_LENGTH,
    "pad_file": UNORDERED,
    "pad_file_no_path": UNORDERED,
    "unordered": UNORDERED,
    "v2": NOT_OURS,
    "v2_empty_file": NOT_OURS,
    "v2_hybrid": NO_SUCH_KEY,
    "v2_hybrid-missing-tailpad": NO_SUCH_KEY,
    "v2_incomplete_piece_layer": NO_LAYER,
    "v2_invalid_filename": ("info.name", "expected UTF-8"),
    "v2_invalid_filename2": NO_LAYERS,
    "v2_multipiece_file": NOT_OURS,
    "v2_multiple_files": NOT_OURS,
    "v2_no_piece_layers": NO_LAYERS,
    "v2_only": NOT_OURS,
    "v2_symlinks": NO_SUCH_KEY,
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


def test_the_table_speaks_of_all_that_must_be_refused() -> None:
    must = {name.removesuffix(".torrent") for name in _expected_errors()}
    assert MALFORMED.keys() - must == {"v2_invalid_root_hash"}
    assert must <= MALFORMED.keys()


def _expected_errors() -> dict[str, str]:
    errors: dict[str, str] = json.loads((VECTORS / "expected_errors.json").read_text())
    return errors
