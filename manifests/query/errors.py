"""Why a query was refused, and where in its text."""

from __future__ import annotations

from manifests.errors import ConfigError


class QueryError(ConfigError):
    """A query that is not one, or that asks for what cannot be.

    ``position`` is the index, from 0, of the character where ``got`` stands instead of
    ``expected``.
    """

    def __init__(self, position: int, expected: str, got: str, hint: str = "") -> None:
        super().__init__(f"query, position {position}: expected {expected}, got {got}", hint=hint)
        self.position = position
        self.expected = expected
        self.got = got

    def __reduce__(self) -> tuple[type[QueryError], tuple[int, str, str, str]]:
        """Travels between processes with its place."""
        return type(self), (self.position, self.expected, self.got, self.hint)
