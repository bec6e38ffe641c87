"""Whose a file is, and what must happen to it: the rules of "ours" one by one."""

from __future__ import annotations

import numpy as np
import pytest

from syncclient.files import UNSURE
from syncclient.plan import forget, merge_placed, record_after
from syncclient.records import EMPTY_RECORD, Record, joined
from syncclient.tree import FileStat
from tests.support.buckets import (
    S,
    There,
    forged,
    plan_of,
    to_record,
    to_view,
)

NEW, OLD, USERS = b"new!", b"old!", b"user"


def test_an_empty_folder_needs_everything() -> None:
    plan = plan_of(to_view({"1.jpg": NEW, "11.png": b"more"}), {}, EMPTY_RECORD)
    assert plan.add == {"1.jpg", "11.png"}
    assert plan.raw.fetch.tolist() == [0, 1]
    assert plan.raw.fetch_bytes == 8
    assert plan.raw.replaces == [None, None]


def test_a_file_that_is_known_is_not_read() -> None:
    there = {"1.jpg": There(data=NEW)}
    plan = plan_of(to_view({"1.jpg": NEW}), there, to_record(there))
    assert (plan.keep, plan.read) == ({"1.jpg"}, set())


@pytest.mark.parametrize("mtime_ns", [50 * S + 1, 49 * S, UNSURE])
def test_a_file_whose_time_differs_is_read(mtime_ns: int) -> None:
    there = {"1.jpg": There(data=NEW)}
    record = to_record({"1.jpg": There(data=NEW, mtime_ns=mtime_ns)})
    plan = plan_of(to_view({"1.jpg": NEW}), there, record)
    assert (plan.keep, plan.read) == ({"1.jpg"}, {"1.jpg"})


def test_a_size_that_no_layer_ever_had_tells_without_reading() -> None:
    plan = plan_of(to_view({"1.jpg": NEW}), {"1.jpg": There(data=b"longer")}, EMPTY_RECORD)
    assert (plan.foreign, plan.read) == ({"1.jpg"}, set())


def test_our_older_version_is_replaced() -> None:
    there = {"1.jpg": There(data=OLD, inode=7)}
    plan = plan_of(to_view({"1.jpg": NEW}, [{"1.jpg": OLD}]), there, EMPTY_RECORD)
    assert plan.change == {"1.jpg"}
    assert plan.raw.replaces == [FileStat(4, 50 * S, 7)]


def test_what_the_user_changed_is_the_users() -> None:
    there = {"1.jpg": There(data=USERS)}
    record = to_record({"1.jpg": There(data=OLD, mtime_ns=40 * S)})
    plan = plan_of(to_view({"1.jpg": NEW}, [{"1.jpg": OLD}]), there, record)
    assert plan.foreign == {"1.jpg"}
    assert plan.raw.replaces == [None]


def test_the_bytes_of_another_path_are_the_users() -> None:
    """Bytes of ours under a name that never had them: somebody put them there."""
    there = {"1.jpg": There(data=NEW), "11.jpg": There(data=NEW)}
    plan = plan_of(to_view({"1.jpg": NEW, "11.jpg": OLD}), there, EMPTY_RECORD)
    assert (plan.keep, plan.foreign) == ({"1.jpg"}, {"11.jpg"})


def test_damage_under_an_unchanged_time_is_ours_to_repair() -> None:
    there = {"1.jpg": There(data=USERS)}
    plan = plan_of(to_view({"1.jpg": NEW}), there, forged(to_record(there), "1.jpg"))
    assert (plan.change, plan.read) == ({"1.jpg"}, {"1.jpg"})
    assert plan.raw.replaces != [None]
    assert not plan.raw.digests.any()


def test_damage_that_was_mended_since_is_right() -> None:
    there = {"1.jpg": There(data=NEW)}
    plan = plan_of(to_view({"1.jpg": NEW}), there, forged(to_record(there), "1.jpg"))
    assert (plan.keep, plan.read) == ({"1.jpg"}, {"1.jpg"})


def test_what_a_release_dropped_is_removed_if_it_is_ours() -> None:
    there = {"1.jpg": There(data=OLD), "2.jpg": There(data=USERS), "3.jpg": There(data=OLD)}
    record = to_record({"3.jpg": There(data=OLD)})
    plan = plan_of(to_view({}, [{"1.jpg": OLD, "2.jpg": OLD}]), there, record)
    assert plan.remove == {"1.jpg", "3.jpg"}
    assert plan.extra == {"2.jpg"}


def test_a_changed_extension_leaves_the_old_path_to_the_rules_of_removal() -> None:
    there = {"1.jpg": There(data=OLD)}
    plan = plan_of(to_view({"1.png": NEW}, [{"1.jpg": OLD}]), there, EMPTY_RECORD)
    assert (plan.add, plan.remove) == ({"1.png"}, {"1.jpg"})


def test_what_nobody_has_is_unavailable_unless_it_is_here() -> None:
    view = to_view({"1.jpg": NEW, "11.jpg": NEW, "21.jpg": NEW}, absent={"1.jpg", "11.jpg"})
    plan = plan_of(view, {"11.jpg": There(data=NEW)}, EMPTY_RECORD)
    assert (plan.unavailable, plan.keep, plan.add) == ({"1.jpg"}, {"11.jpg"}, {"21.jpg"})


def test_an_older_version_stays_where_the_newer_one_is_unavailable() -> None:
    there = {"1.jpg": There(data=OLD)}
    plan = plan_of(to_view({"1.jpg": NEW}, [{"1.jpg": OLD}], {"1.jpg"}), there, EMPTY_RECORD)
    assert (plan.unavailable, plan.change, plan.remove) == ({"1.jpg"}, set(), set())


# --------------------------------------------------------------------------- records


def names_of(record: Record) -> dict[str, int]:
    return {
        f"{number}.{record.extensions[ext]}": int(mtime)
        for number, ext, mtime in zip(
            record.ids.tolist(), record.exts.tolist(), record.mtimes, strict=True
        )
    }


def test_every_file_of_ours_is_recorded_and_no_other() -> None:
    there = {"1.jpg": There(data=NEW), "2.jpg": There(data=USERS), "3.png": There(data=OLD)}
    plan = plan_of(to_view({"1.jpg": NEW, "2.jpg": NEW}, [{"3.png": OLD}]), there, EMPTY_RECORD)
    after = record_after(plan.raw, plan.raw.listing.mtimes, slice(0, 3))
    assert names_of(after) == {"1.jpg": 50 * S, "3.png": 50 * S}
    after = record_after(plan.raw, plan.raw.listing.mtimes, slice(1, 3))
    assert names_of(after) == {"3.png": 50 * S}


def test_placed_files_are_merged_and_removed_ones_forgotten() -> None:
    record = to_record({"1.jpg": There(data=OLD), "2.png": There(data=OLD)})
    placed = to_record(
        {"1.jpg": There(data=NEW, mtime_ns=60 * S), "3.webm": There(data=NEW, mtime_ns=70 * S)}
    )
    both, places = joined([placed, placed]), np.array([0, 0, 1, 1])
    merged, other = merge_placed([record, EMPTY_RECORD], both, places)
    assert names_of(merged) == {"1.jpg": 60 * S, "2.png": 50 * S, "3.webm": 70 * S}
    assert merged.digests[merged.ids == 1].tobytes() == placed.digests[0].tobytes()
    assert names_of(other) == {"1.jpg": 60 * S, "3.webm": 70 * S}
    assert names_of(forget(merged, {(2, "png"), (3, "png")})) == {
        "1.jpg": 60 * S,
        "3.webm": 70 * S,
    }
