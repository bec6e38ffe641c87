"""Hours of the day at which seeding is wanted."""

from __future__ import annotations

import re

from msgspec import Struct

from manifests.errors import ConfigError

_SPAN = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class Hours(Struct, frozen=True):
    """From one minute of the day to another, perhaps over midnight; local time."""

    start: int
    stop: int

    def holds(self, minute: int) -> bool:
        """Whether a minute of the day (0 to 1439) is within."""
        if self.start <= self.stop:
            return self.start <= minute < self.stop
        return minute >= self.start or minute < self.stop


def parse_hours(text: str) -> Hours:
    """``22:00-07:00``; ConfigError for anything else."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ConfigError(f"--hours {text}: expected a span of the day, such as 22:00-07:00")
    first_h, first_m, last_h, last_m = map(int, found.groups())
    hours = Hours(first_h * 60 + first_m, last_h * 60 + last_m)
    if hours.start == hours.stop:
        raise ConfigError(f"--hours {text}: the span ends when it begins")
    return hours
