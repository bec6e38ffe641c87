"""Every error the project raises on purpose, by who must act, and the exit codes.

A message says what is wrong, where, what was expected, what was found, and what to do next.
Foreign exceptions (``OSError``, ``aiohttp.ClientError``, ``msgpack`` …) are translated where the
foreign library is called, so a caller of ours only ever meets :class:`SyncError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of both command lines; a contract that scripts rely on."""

    COMPLETE = 0
    OTHER = 1
    USAGE = 2
    INCOMPLETE = 3
    DAMAGED = 4
    NETWORK = 5
    REFUSED = 6
    STORAGE = 7
    LIMIT = 8
    NOT_A_TREE = 10
    LOCKED = 11
    DELETE_GUARD = 25
    INTERRUPTED = 130


class SyncError(Exception):
    """Root of every error of the project.

    ``hint`` is one sentence with what the user can do; it is printed on a line of its own.
    """

    exit_code: ExitCode = ExitCode.OTHER

    def __init__(self, message: str, *, hint: str = "", exit_code: ExitCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code


class ManifestError(SyncError):
    """Bytes that claim to be part of a release are not.

    ``where`` names the place inside the document, such as ``layers[2].variants.original.size``.
    """

    exit_code = ExitCode.REFUSED

    def __init__(self, where: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"{where}: {problem}", hint=hint)
        self.where = where
        self.problem = problem

    def __reduce__(self) -> tuple[type[ManifestError], tuple[str, str]]:
        """Travels between processes with its place."""
        return type(self), (self.where, self.problem)

    def within(self, outer: str) -> ManifestError:
        """The same error seen from the document that holds this one."""
        return ManifestError(f"{outer}.{self.where}", self.problem, hint=self.hint)


class TrustError(SyncError):
    """Signed metadata is missing, stale, rolled back or signed by the wrong key."""

    exit_code = ExitCode.REFUSED


class TransferError(SyncError):
    """A source did not deliver: connection, status, length or content.

    ``status`` is the HTTP status if there was one, ``retry_after_s`` what a busy host asked us to
    wait.
    """

    exit_code = ExitCode.NETWORK

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.retry_after_s = retry_after_s

    @property
    def missing(self) -> bool:
        """Whether the host says that it does not have the thing (404, 410)."""
        return self.status in {404, 410}


class StoreError(SyncError):
    """The local disk refused, or holds something that must not be touched."""

    exit_code = ExitCode.STORAGE


class ConfigError(SyncError):
    """The user asked for something that cannot be; nothing was changed."""

    exit_code = ExitCode.USAGE


@contextmanager
def first_of_group() -> Iterator[None]:
    """Around a task group: its first error in place of the group, if all of them are ours.

    ``except*`` would do, but Python 3.11.2, which Debian 12 has, wraps what is raised in it anew.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        ours, others = group.split(SyncError)
        if ours is None or others is not None:
            raise
        error: BaseException = ours
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
