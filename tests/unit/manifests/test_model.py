"""Descriptors: round trip, and every rule that a signed but wrong one breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from msgspec.structs import replace

from manifests import codec, columns, manifest, model, notices, paths
from manifests.digest import Digest
from manifests.errors import ExitCode, ManifestError
from manifests.framedref import FramedRef
from manifests.model import Asset, Descriptor, LayerRef, ManifestRef, TableRef, Totals
from manifests.paths import Layout, asset_path

Document = dict[str, Any]


def test_the_limits_are_those_of_the_document() -> None:
    """docs/reference/format.md: whoever changes a number changes the format."""
    assert (model.MAX_DESCRIPTOR_BYTES, notices.MAX_NOTICES_BYTES) == (32 * 2**20, 64 * 2**20)
    assert (model.MAX_HEADER_BYTES, model.MAX_REMOVED) == (512 * 2**20, 2**26)
    assert (manifest.FRAME_ENTRIES, manifest.FRAME_CHUNKS) == (128, 4096)
    assert (manifest.MAX_REASONS, manifest.MAX_REASON_CHARS) == (255, 1024)
    assert (columns.MAX_EXTENSIONS, columns.CHUNK_BYTES) == (255, 4 * 2**20)
    assert (codec._MAX_ITEMS, codec._MAX_LENGTH) == (1_250_000, 100_000)
    assert (model.MAX_TIME_S, model.MAX_FILE_BYTES) == (253_402_300_799, 2**40 - 1)
    assert (model.MAX_LAYERS, model.MAX_VARIANTS, model.MAX_ASSETS) == (1000, 64, 100_000)
    assert (paths.MAX_ID, paths.MAX_BUCKETS) == (2**32 - 1, 100_000)
    assert (paths.MAX_DEPTH, paths.MAX_PATH_BYTES, paths.MAX_COMPONENT_BYTES) == (32, 1024, 255)


def make_ref(name: str = "", entries: int = 10) -> ManifestRef:
    return ManifestRef(
        digest=Digest.of(f"{name} object".encode()),
        size_bytes=5000,
        header_digest=Digest.of(f"{name} header".encode()),
        header_bytes=300,
        entries=entries,
        file_bytes=12_345,
        removed=2,
    )


def make_asset(path: str) -> Asset:
    return Asset(path=asset_path(path), size_bytes=7, digest=Digest.of(path.encode()))


SKIES = Descriptor(
    dataset="skies",
    release="skies2021",
    base="skies2020",
    created=1_640_995_200,
    layout=Layout(buckets=1000, digits=4),
    layers=(
        LayerRef(name="skies2020", date=1_609_459_200, manifests={"original": make_ref("a")}),
        LayerRef(
            name="skies2021",
            date=1_640_995_200,
            manifests={"original": make_ref("b", 5), "512px": make_ref("c")},
        ),
    ),
    totals={
        "original": Totals(files=14, file_bytes=24_000),
        "512px": Totals(files=10, file_bytes=999),
    },
    assets=(make_asset("README.md"), make_asset("docs/a..b.txt")),
)


def document() -> Document:
    value: Document = msgpack.unpackb(SKIES.encode())
    return value


def refusal(value: Document) -> ManifestError:
    with pytest.raises(ManifestError) as caught:
        Descriptor.decode(codec.encode(value))
    return caught.value


def with_assets(*paths: str) -> Document:
    return document() | {
        "assets": [{"path": path, "size": 1, "digest": bytes(32)} for path in paths]
    }


def test_round_trip() -> None:
    assert Descriptor.decode(SKIES.encode()) == SKIES
    assert Descriptor.decode(SKIES.encode()).encode() == SKIES.encode()
    assert SKIES.variants == ("512px", "original")


def test_the_fields_on_the_wire() -> None:
    value = document()
    assert value["layers"][1]["manifests"]["original"] == {
        "digest": Digest.of(b"b object").raw,
        "size": 5000,
        "header_digest": Digest.of(b"b header").raw,
        "header_size": 300,
        "entries": 5,
        "bytes": 12_345,
        "removed": 2,
    }
    assert value["variants"]["512px"] == {"files": 10, "bytes": 999}
    assert value["assets"][0] == {
        "path": "README.md",
        "size": 7,
        "digest": Digest.of(b"README.md").raw,
    }
    assert [value[key] for key in ("base", "buckets", "digits")] == ["skies2020", 1000, 4]


@pytest.mark.parametrize("absent", [True, False])
def test_a_release_may_have_no_base(*, absent: bool) -> None:
    value = document() | {"base": None}
    if absent:
        del value["base"]
    assert Descriptor.decode(codec.encode(value)) == replace(SKIES, base=None)


def test_later_fields_are_ignored() -> None:
    value = document() | {"tags": {"digest": bytes(32)}}
    value["layers"][0]["patches"] = []
    assert Descriptor.decode(codec.encode(value)) == SKIES


def test_a_layer_may_have_64_variants_and_a_release_tables() -> None:
    value = document()
    value["layers"][0]["manifests"].update({f"v{number}": ref_of(value) for number in range(63)})
    value["metadata"] = [table("posts"), table("Tags")]
    read = Descriptor.decode(codec.encode(value))
    assert len(read.layers[0].manifests) == 64
    assert [found.name for found in read.tables] == ["posts", "Tags"]


Spoil = Callable[[Document], object]
REF = "descriptor.layers[1].manifests.512px"


def table(name: str) -> Document:
    ref = FramedRef(
        digest=Digest.of(b"rows"),
        size_bytes=100,
        header_digest=Digest.of(b"header"),
        header_bytes=50,
    )
    return TableRef(name=name, rows=1, raw_bytes=10, ref=ref).to_map()


def ref_of(value: Document) -> Document:
    ref: Document = value["layers"][1]["manifests"]["512px"]
    return ref


@pytest.mark.parametrize(
    ("spoil", "where", "problem"),
    [
        (lambda d: d.update(format=2), "descriptor.format", "expected 1"),
        (lambda d: d.pop("dataset"), "descriptor.dataset", "missing"),
        (lambda d: d.update(dataset="a/b"), "descriptor.dataset", "is not a dataset name"),
        (lambda d: d.update(release=".."), "descriptor.release", "is not a release name"),
        (lambda d: d.update(release="nul"), "descriptor.release", "is not a release name"),
        (lambda d: d.update(base="a b"), "descriptor.base", "is not a release name"),
        (lambda d: d.update(base=1), "descriptor.base", "expected text"),
        (lambda d: d.update(created=253_402_300_800), "descriptor.created", "expected 0 to"),
        (lambda d: d.update(buckets=0), "descriptor.buckets", "expected 1 to 100000"),
        (lambda d: d.update(buckets="1"), "descriptor.buckets", "expected an integer"),
        (lambda d: d.update(digits=2), "descriptor.digits", "cannot name 1000 buckets"),
        (lambda d: d.update(digits=-1), "descriptor.digits", "expected 0 to"),
        (lambda d: d.update(layers=[]), "descriptor.layers", "the last one must be 'skies2021'"),
        (lambda d: d.update(layers=[1]), "descriptor.layers[0]", "expected a map"),
        (lambda d: d["layers"].pop(), "descriptor.layers", "the last one must be 'skies2021'"),
        (lambda d: d["layers"].reverse(), "descriptor.layers", "the last one must be"),
        (
            lambda d: d.update(layers=d["layers"] * 500 + d["layers"][:1]),
            "descriptor.layers",
            "more than 1000 items",
        ),
        (
            lambda d: d.update(layers=[d["layers"][1]] * 2),
            "descriptor.layers",
            "two layers have the same name",
        ),
        (
            lambda d: d["layers"][0].update(name="Skies2021"),
            "descriptor.layers",
            "'Skies2021' and 'skies2021' differ only in case",
        ),
        (lambda d: d["layers"][0].update(name="a/b"), "descriptor.layers[0].name", "layer name"),
        (lambda d: d["layers"][0].update(date=-1), "descriptor.layers[0].date", "expected 0 to"),
        (
            lambda d: d["layers"][0].update(date=253_402_300_800),
            "descriptor.layers[0].date",
            "expected 0 to 253402300799",
        ),
        (
            lambda d: d["layers"][0]["manifests"].update({"..": ref_of(d)}),
            "descriptor.layers[0].manifests...",
            "'..' is not a variant name",
        ),
        (
            lambda d: d["layers"][0]["manifests"].update({"Metadata": ref_of(d)}),
            "descriptor.layers[0].manifests.Metadata",
            "folder of the metadata",
        ),
        (
            lambda d: d["layers"][0]["manifests"].update({"\x1b[2J": ref_of(d)}),
            "descriptor.layers[0].manifests['\\x1b[2J']",
            "is not a variant name",
        ),
        (
            lambda d: d["layers"][0]["manifests"].update(
                {f"v{number}": ref_of(d) for number in range(64)}
            ),
            "descriptor.layers[0].manifests",
            "more than 64 variants",
        ),
        (
            lambda d: d["layers"][0].update(torrents={"512px": {}}),
            "descriptor.layers[0].torrents.512px",
            "the layer has no such variant",
        ),
        (
            lambda d: d.update(metadata=[table("posts"), table("Posts")]),
            "descriptor.metadata",
            "tables are not ascending, each name once",
        ),
        (
            lambda d: d.update(metadata=[table("tags"), table("posts")]),
            "descriptor.metadata",
            "tables are not ascending, each name once",
        ),
        (
            lambda d: d["layers"][0]["manifests"].update(Original=ref_of(d)),
            "descriptor.layers[0].manifests",
            "'Original' and 'original' differ only in case",
        ),
        (
            lambda d: d["layers"][0].update(manifests={"Original": ref_of(d)}),
            "descriptor.variants",
            "'Original' and 'original' differ only in case",
        ),
        (
            lambda d: d["variants"].update({"512PX": d["variants"]["512px"]}),
            "descriptor.variants",
            "'512PX' and '512px' differ only in case",
        ),
        (
            lambda d: d["variants"].update({"1024px": d["variants"]["512px"]}),
            "descriptor.variants",
            "no layer holds ['1024px']",
        ),
        (
            lambda d: d["variants"]["original"].update(files=16),
            "descriptor.variants.original.files",
            "16 is more than the layers hold",
        ),
        (
            lambda d: d["variants"]["original"].update(files=2**32),
            "descriptor.variants.original.files",
            "expected 0 to 4294967295",
        ),
        (
            lambda d: d["variants"]["original"].pop("bytes"),
            "descriptor.variants.original.bytes",
            "missing",
        ),
        (lambda d: ref_of(d).update(digest=b"short"), f"{REF}.digest", "expected 32 bytes, got 5"),
        (lambda d: ref_of(d).update(header_digest=""), f"{REF}.header_digest", "expected bytes"),
        (
            lambda d: ref_of(d).update(header_size=5001),
            f"{REF}.header_size",
            "expected 0 to 5000, got 5001",
        ),
        (
            lambda d: ref_of(d).update(size=2**40, header_size=2**29 + 1),
            f"{REF}.header_size",
            "expected 0 to 536870912",
        ),
        (lambda d: ref_of(d).update(entries=2**32), f"{REF}.entries", "expected 0 to 4294967295"),
        (lambda d: ref_of(d).update(bytes=-1), f"{REF}.bytes", "expected 0 to"),
        (
            lambda d: ref_of(d).update(removed=2**26 + 1),
            f"{REF}.removed",
            "expected 0 to 67108864",
        ),
        (lambda d: ref_of(d).pop("size"), f"{REF}.size", "missing"),
        (
            lambda d: d["assets"][1].update(path="../x"),
            "descriptor.assets[1].path",
            "unsafe path '../x'",
        ),
        (
            lambda d: d["assets"][1].update(path="x" * 4097),
            "descriptor.assets[1].path",
            "longer than 4096 characters",
        ),
        (
            lambda d: d["assets"][1].update(size=2**40),
            "descriptor.assets[1].size",
            "expected 0 to",
        ),
        (lambda d: d["assets"][1].pop("digest"), "descriptor.assets[1].digest", "missing"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_place(
    spoil: Spoil, where: str, problem: str
) -> None:
    value = document()
    spoil(value)
    error = refusal(value)
    assert error.where == where
    assert problem in error.problem
    assert error.exit_code is ExitCode.REFUSED


def test_the_place_begins_with_the_name_that_the_caller_gives() -> None:
    value = document() | {"digits": 1}
    with pytest.raises(ManifestError, match=r"^skies\.msgpack\.digits: "):
        Descriptor.decode(codec.encode(value), "skies.msgpack")


def test_a_descriptor_has_a_limit_of_bytes() -> None:
    error = refusal(document() | {"z": bytes(model.MAX_DESCRIPTOR_BYTES)})
    assert error.where == "descriptor"
    assert "more than the limit of 33554432" in error.problem


def test_a_descriptor_has_a_limit_of_assets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MAX_ASSETS", 1)
    assert str(refusal(document())) == "descriptor.assets: more than 1 items"


@pytest.mark.parametrize(
    ("paths", "index", "problem"),
    [
        (("b", "a"), "[1].path", "'a' is not after 'b'"),
        (("a", "a"), "[1].path", "'a' is not after 'a'"),
        (("A/x", "a/x"), "[1].path", "'a/x' and 'A/x' name one file"),
        (("STRASSE", "stra\u00dfe"), "[1].path", "name one file"),
        (("a\u200db", "ab"), "[1].path", "is not after"),
        (("ab", "a\u200db"), "[1].path", "name one file"),
        (("a", "a/b"), "", "'a' is a file and a folder"),
        (("A", "a/b"), "", "'A' is a file and a folder"),
        (("a/b/c", "a/b/c/d/e"), "", "'a/b/c' is a file and a folder"),
        ((".bucketsync/state.db",), "[0].path", "client's own folder"),
        (("original",), "[0].path", "'original' is the place of an entry"),
        (("ORIGINAL",), "[0].path", "'ORIGINAL' is the place of an entry"),
        (("512px",), "[0].path", "is the place of an entry"),
        (("original/0001",), "[0].path", "is the place of an entry"),
        (("Original/0001/1.JPG",), "[0].path", "is the place of an entry"),
        (("original/0001/1.jpg",), "[0].path", "is the place of an entry"),
        (("original/0001/1.jpg/x",), "[0].path", "is the place of an entry"),
    ],
)
def test_assets_collide_with_nothing(paths: tuple[str, ...], index: str, problem: str) -> None:
    error = refusal(with_assets(*paths))
    assert error.where == f"descriptor.assets{index}"
    assert problem in error.problem


def test_assets_collide_with_variants_in_any_case() -> None:
    value = with_assets("thumbs/0001/1.jpg")
    value["layers"][1]["manifests"]["Thumbs"] = ref_of(value)
    value["variants"]["Thumbs"] = value["variants"]["512px"]
    assert "is the place of an entry" in refusal(value).problem


def test_assets_may_lie_beside_entries() -> None:
    paths = (
        "README.md",
        "a..b/c",
        "a.b/c",
        "original/0001/2.jpg",
        "original/0001/notes.txt",
        "original/1000",
        "original/list.txt",
        "thumbs/0001/1.jpg",
    )
    held = Descriptor.decode(codec.encode(with_assets(*paths))).assets
    assert tuple(asset.path.text for asset in held) == paths


def test_totals_may_be_all_that_the_layers_hold() -> None:
    value = document()
    value["variants"]["original"]["files"] = 15
    assert Descriptor.decode(codec.encode(value)).totals["original"].files == 15


def test_layers_may_hold_variants_that_the_release_lacks() -> None:
    value = document()
    del value["variants"]["512px"]
    assert Descriptor.decode(codec.encode(value)).variants == ("original",)
