"""The faults that the project survives; ``make faults`` runs them all and prints a table.

A test that is too long for ``make test`` carries the mark ``long``.  Each notes what came of it
through ``record``, also when it then fails.
"""

from __future__ import annotations

import pytest

from tests.support.faultreport import Outcome, Record, note, outcomes, table


@pytest.fixture
def record() -> Record:
    """Note what came of a kind of fault, for the table of ``make faults``."""

    def add(  # noqa: PLR0913 (the columns of the table)
        kind: str,
        *,
        tried: int = 1,
        survived: int,
        lost: int = 0,
        wrong: int = 0,
        peak_bytes: int = 0,
    ) -> None:
        outcome = Outcome(
            kind=kind,
            tried=tried,
            survived=survived,
            lost=lost,
            wrong=wrong,
            peak_bytes=peak_bytes,
        )
        note(outcome)

    return add


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run whose table shows a loss has failed."""
    passed = session.exitstatus == pytest.ExitCode.OK
    if passed and not all(outcome.good for outcome in outcomes()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    found = outcomes()
    if found:
        terminalreporter.section("faults")
        for line in table(found):
            terminalreporter.line(line)
