"""Work handed to a crew: results in the order of the tasks, a window of them at a time."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from threading import Event

import pytest

from server.publishing.crew import Crew


def test_a_later_task_that_is_done_sooner_waits_its_turn() -> None:
    later_is_done = Event()

    def work(task: int) -> int:
        if task:
            later_is_done.set()
        else:
            assert later_is_done.wait(10)
        return task * 10

    with ThreadPoolExecutor(2) as pool, Crew(1, cluster=(pool, 2)) as crew:
        assert list(crew.run_in_order(work, range(4))) == [(n, n * 10) for n in range(4)]


def test_tasks_are_taken_as_results_are() -> None:
    taken = []

    def tasks() -> Iterator[int]:
        for task in count():
            taken.append(task)
            yield task

    with ThreadPoolExecutor(2) as pool, Crew(1, cluster=(pool, 2)) as crew:
        results = crew.run_in_order(str, tasks())
        assert list(islice(results, 20)) == [(n, str(n)) for n in range(20)]
        results.close()  # type: ignore[attr-defined]
    assert len(taken) <= 20 + 2 * 3


@pytest.mark.parametrize("here", [False, True])
def test_one_process_does_its_tasks_itself(*, here: bool) -> None:
    found = Crew(1).run_in_order(str, iter([3, 1]), here=here)
    assert list(found) == [(3, "3"), (1, "1")]


def test_the_error_of_a_task_is_raised_in_its_turn() -> None:
    def work(task: int) -> int:
        return 6 // task

    with ThreadPoolExecutor(2) as pool, Crew(1, cluster=(pool, 2)) as crew:
        results = crew.run_in_order(work, [2, 3, 0, 1])
        assert [next(results), next(results)] == [(2, 3), (3, 2)]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_processes_that_began_early_do_the_tasks_that_come() -> None:
    with Crew(2) as crew:
        crew.start()
        crew.start()
        assert sorted(crew.run(str, iter([3, 1]))) == ["1", "3"]


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
def test_a_batch_of_tasks_has_a_result_each(batch: int) -> None:
    with ThreadPoolExecutor(2) as pool, Crew(1, cluster=(pool, 2)) as crew:
        assert sorted(crew.run(str, range(7), batch=batch)) == [str(n) for n in range(7)]
        assert list(crew.run(str, [], batch=batch)) == []
