"""Rules for every test: what was skipped is listed at the end, and in CI nothing may be.

Tests marked ``long`` run with ``--long`` only; ``make faults`` gives it.

Hypothesis has no deadline (a busy machine is no bug), and in CI draws the same examples each time.
"""

from __future__ import annotations

import os
import signal
from collections import defaultdict

import pytest
from hypothesis import settings

IN_CI = bool(os.environ.get("CI"))

settings.register_profile("suite", deadline=None, derandomize=IN_CI, print_blob=True)
settings.load_profile("suite")

# A shell that starts the suite in the background has it ignore Ctrl-C, and so would the programs
# that tests start and interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the flag for what is too long for every day."""
    parser.addoption("--long", action="store_true", help="run the tests marked long as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the long tests unless they were asked for."""
    if config.getoption("long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    if long:
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


def _skipped(config: pytest.Config) -> dict[str, list[str]]:
    """The skipped tests by reason; empty in a worker of xdist, which has no terminal."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    found: dict[str, list[str]] = defaultdict(list)
    for report in reporter.getreports("skipped") if reporter else ():
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
        found[reason.removeprefix("Skipped: ")].append(report.nodeid)
    return found


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run of CI that left something out."""
    if IN_CI and session.exitstatus == pytest.ExitCode.OK and _skipped(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """List what was skipped and how to get it."""
    skipped = _skipped(config)
    if not skipped:
        return
    terminalreporter.section("skipped, and how to run it")
    for reason, tests in sorted(skipped.items()):
        terminalreporter.line(reason)
        for test in sorted(tests):
            terminalreporter.line(f"    {test}")
    if IN_CI:
        terminalreporter.line("In CI nothing may be skipped, so this run has failed.", red=True)
