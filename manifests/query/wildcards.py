r"""``*`` in the names of tags and pools and in sources: any run of characters.

``\*`` is a star and ``\\`` a backslash; before anything else a backslash is itself, as in the tag
``\(^o^)/``.

Each text between two stars is looked for once, from where the one before it ended: the first place
is as good as any later one.  So a match takes time linear in the name, however many stars there
are; a plain ``.*`` for each would try all places of all of them.
"""

from __future__ import annotations

import re

_PARTS = re.compile(r"\\[*\\]|.", re.DOTALL)


def compile_wildcard(pattern: str) -> tuple[str, re.Pattern[bytes]]:
    """What every match begins with, and an expression for the UTF-8 of a whole name."""
    prefix, *others = literals(pattern)
    parts = [_escape(prefix)]
    if others:
        parts += (b"(?>.*?" + _escape(text) + b")" for text in others[:-1] if text)
        parts += [b".*", _escape(others[-1])]
    return prefix, re.compile(b"".join(parts), re.DOTALL)


def literals(pattern: str) -> list[str]:
    """The texts before, between and after the stars."""
    found = [""]
    for part in _PARTS.findall(pattern):
        if part == "*":
            found.append("")
        else:
            # The last character of two is the one that is meant.
            found[-1] += part[-1]
    return found


def _escape(text: str) -> bytes:
    return re.escape(text.encode("utf-8", "replace"))
