"""What a command says: results and JSON lines to stdout, everything for human eyes to stderr.

With ``--json`` stdout has one object a line, the last one the summary; nothing else is printed
there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from manifests.errors import ConfigError, ExitCode, SyncError
from manifests.version import VERSION

if TYPE_CHECKING:
    from rich.console import Console


class CommandParser(argparse.ArgumentParser):
    """A command line whose errors are said as all others are, to people and to scripts."""

    def error(self, message: str) -> NoReturn:
        """ConfigError instead of a page of usage."""
        hint = f"`{self.prog} --help` has all there is."
        if "--select" in message:
            hint = "A query that begins with - is joined by =: --select='-comic'."
        elif "QUERY" in message or "unrecognized arguments: -" in message:
            hint = "What begins with - and is no flag, such as a query, follows --."
        raise ConfigError(f"{self.prog}: {message}", hint=hint)


class VersionAction(argparse.Action):
    """Print the version."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """End the program."""
        print(f"{parser.prog} {VERSION}")  # noqa: T201 (what was asked for)
        parser.exit()


class Output:
    """Where one run of a verb reports to; ``summary`` fields are kept until :meth:`close`."""

    def __init__(self, verb: str, *, json: bool = False, verbosity: int = 0) -> None:
        self.verb = verb
        self.json = json
        self.verbosity = verbosity
        self._summary: dict[str, Any] = {}
        self._is_lost = False

    @cached_property
    def console(self) -> Console:
        """Stderr as a terminal.  Of one console alone, what is printed goes above moving lines."""
        from rich.console import Console  # noqa: PLC0415 (0.1 s that --json runs need not spend)

        return Console(stderr=True)

    def event(self, name: str, **fields: Any) -> None:  # noqa: ANN401 (JSON values)
        """One JSON line, if JSON is wanted."""
        if not self.json:
            return
        import orjson  # noqa: PLC0415 (0.01 s that only runs with --json need)

        values = {"event": name, **fields}
        try:
            line = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY).decode()
        except TypeError:
            # The name of a file may be no text; this one escapes it.
            line = json.dumps(values)
        self._put(line)

    def result(self, text: str) -> None:
        """A result for people, on stdout; scripts read the summary instead."""
        if not self.json:
            self._put(text)

    def say(self, text: str) -> None:
        """A notice for people, on stderr; silent with ``-q``."""
        if self.verbosity >= 0:
            self._print(text)

    def detail(self, text: str) -> None:
        """A notice that only ``-v`` shows."""
        if self.verbosity > 0:
            self._print(text)

    def warn(self, text: str) -> None:
        """Something the user must know, also with ``-q``; in JSON an event ``warning``."""
        self.event("warning", message=text)
        self._print(text, style="yellow")

    def error(self, error: SyncError) -> None:
        """Why the run ended; in JSON an event ``error``."""
        self.event("error", message=error.message, hint=error.hint, kind=type(error).__name__)
        self._print(f"error: {error.message}", style="bold red")
        if error.hint:
            self._print(f"       {error.hint}")

    def table(self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """A table for people, on stderr; numbers are recognised and set to the right."""
        if self.verbosity < 0:
            return
        from rich.markup import escape  # noqa: PLC0415 (0.1 s that --json runs need not spend)
        from rich.table import Table  # noqa: PLC0415

        table = Table(title=title, title_justify="left")
        shown = [list(row) for row in rows]
        for place, name in enumerate(columns):
            numeric = all(row[place][:1].isdigit() for row in shown if row[place])
            table.add_column(name, justify="right" if numeric and shown else "left")
        for row in shown:
            table.add_row(*map(escape, row))
        self.console.print(table)

    def summary(self, **fields: Any) -> None:  # noqa: ANN401 (JSON values)
        """Fields of the last JSON line; a later call overrides an earlier one."""
        self._summary.update(fields)

    def close(self, exit_code: ExitCode) -> ExitCode:
        """Print the summary line; the exit code, which tells of results that were lost."""
        self.event("summary", verb=self.verb, exit_code=int(exit_code), **self._summary)
        lost = self._is_lost and exit_code is ExitCode.COMPLETE
        return ExitCode.STORAGE if lost else exit_code

    def _put(self, line: str) -> None:
        """Print a line to stdout at once.

        A disk that is full does not end the run, and a reader that went away (``| head``) is no
        error at all.
        """
        try:
            sys.stdout.write(line.encode(errors="backslashreplace").decode() + "\n")
            sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if not isinstance(error, BrokenPipeError):
                self._is_lost = True
                self._print(f"error: no more results are written: {error.strerror}", "bold red")

    def _print(self, text: str, style: str = "") -> None:
        if style and sys.stderr.isatty():
            self.console.print(text, style=style, markup=False, highlight=False)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()


def leave(code: int) -> NoReturn:
    """End the process, in which all is closed: to take an interpreter apart takes 0.05 s more."""
    for stream in (sys.stdout, sys.stderr):
        # What could not be printed was told of when it was tried.
        with suppress(OSError):
            if stream is not None:
                stream.flush()
    os._exit(code)
