"""Files of metadata: which posts, what the estimates say, what their content is named by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from manifests.columns import U32
from manifests.digest import Digest
from manifests.framedref import FramedRef
from manifests.metadata.rowfile import FRAME_TEXT_BYTES
from manifests.model import TableRef
from manifests.notices import Notices
from syncclient.hosts import Hosts
from syncclient.release import ReleaseView
from syncclient.rowfiles import RowFile, selected_post_ids, wanted_rows
from syncclient.selection import Selection
from syncclient.sources.host import HttpOptions
from tests.support.rawhost import raw_host
from tests.support.releases import Publisher, make_publisher, random_files


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Publisher:
    """Ids 1 to 40 of one variant, 31 to 50 of another, in ten buckets."""
    made = make_publisher(tmp_path_factory.mktemp("releases"))
    files = random_files(range(1, 41), size_bytes=10)
    made.publish("y1", files | random_files(range(31, 51), variant="512px", size_bytes=10))
    return made


def some(*numbers: int) -> U32:
    return np.array(numbers, np.uint32)


@pytest.mark.parametrize(
    ("wish", "expected"),
    [
        (Selection(), None),
        (Selection(variants=("512px",)), None),
        (Selection(ids=some(3, 17, 60)), [3, 17, 60]),
        (Selection(ids=some(3, 17, 60), buckets=(5, 9)), [17]),
        (Selection(ids=some()), []),
        (Selection(buckets=(9, 9)), [9, 19, 29, 39, 49]),
        (Selection(buckets=(9, 9), variants=("original",)), [9, 19, 29, 39]),
    ],
)
async def test_the_posts_of_a_selection(
    publisher: Publisher, tmp_path: Path, wish: Selection, expected: list[int] | None
) -> None:
    view = ReleaseView(publisher.descriptors[0], Notices(), wish, tmp_path)
    with raw_host(publisher.repo) as host:
        async with Hosts([host.url], HttpOptions(), 1) as hosts:
            await view.open(hosts)
    found = selected_post_ids(view)
    view.close()
    assert (None if found is None else found.tolist()) == expected


def table(name: str, rows: int = 1000, frames: int = 10) -> TableRef:
    """A table of 1,000 bytes a frame and a header of 500."""
    ref = FramedRef(
        digest=Digest.of(name.encode()),
        size_bytes=500 + 1000 * frames,
        header_digest=Digest.of(b""),
        header_bytes=500,
    )
    text_bytes = frames * FRAME_TEXT_BYTES - 1
    return TableRef(name=name, rows=rows, raw_bytes=text_bytes, ref=ref)


def files(publisher: Publisher, ids: U32 | None) -> list[RowFile]:
    descriptor = replace(publisher.descriptors[0], tables=(table("posts"), table("tags")))
    return wanted_rows(descriptor, ids)


def test_posts_are_cut_to_the_selection_and_other_tables_are_not(publisher: Publisher) -> None:
    posts, tags = files(publisher, some(1, 2, 3))
    assert posts.path.text == "metadata/y1/posts.json"
    assert posts.keys is not None
    assert tags.keys is None
    assert posts.fetch_bytes == 500 + 3 * 1000
    assert posts.text_bytes == posts.table.raw_bytes * 3 // 1000
    assert tags.fetch_bytes == 500 + 10 * 1000
    assert tags.text_bytes == tags.table.raw_bytes
    # More ids than there are rows ask for no more than all.
    everything, _ = files(publisher, np.arange(1, 5000, dtype=np.uint32))
    assert everything.fetch_bytes == everything.table.ref.size_bytes
    assert everything.text_bytes == everything.table.raw_bytes


def test_a_token_names_the_table_and_the_posts(publisher: Publisher) -> None:
    wishes = [None, some(), some(1), some(1, 2)]
    tokens = [[file.token for file in files(publisher, ids)] for ids in wishes]
    assert len({posts for posts, _ in tokens}) == len(wishes)
    assert len({tags for _, tags in tokens}) == 1
    assert files(publisher, some(1))[0].token == tokens[2][0]
