r"""Text to tree: the grammar of Danbooru's search box, by recursive descent.

    query       = and-or-list | nothing at all
    disjunction = conjunction ("or" SPACE conjunction)*
    conjunction = list ("and" SPACE list)*
    list        = factor+                          every one must match
    factor      = ["-" | "~"] (group | word)       one prefix at most, space allowed after it
    group       = "(" disjunction ")"
    word        = name:value | wildcard | tag      in the order in which they are tried

Tightest first: prefix, list, ``and``, ``or``.  A word runs to the next white space, so a
parenthesis that closes a group clings to the word before it; :func:`_kept` says which of them are
the word's own.  ``and`` and ``or`` are words of their own in either case.  A prefix before a colon
that names no metatag belongs to a tag (``re:zero``).

Nothing is read twice, so time is linear in the length; chains of ``or`` become one node, so the
tree is no deeper than the groups that were typed, of which :data:`MAX_DEPTH` may be open.
"""

from __future__ import annotations

import re

from manifests.query.ast import SPACE, All, And, Metatag, Node, Not, Opt, Or, Tag, Wildcard
from manifests.query.errors import QueryError
from manifests.query.metatags import METATAGS, canonical_name, canonical_value

# Characters.  A list of a hundred thousand names is in bounds; a file given by mistake is not.
MAX_LENGTH = 2**20
# Open groups.  Each costs a few frames of Python's stack, here and wherever the tree is walked.
MAX_DEPTH = 64

_SHOWN = 40
_SPACES = re.compile(f"[{SPACE}]*")
_WORD = re.compile(f"[^{SPACE}]+")
_PREFIXED = re.compile(r"([A-Za-z0-9_]+):")
_BARE = re.compile(rf"(?:\\[{SPACE}]|[^{SPACE}])*")
_ESCAPED_SPACE = re.compile(rf"\\([{SPACE}])")
# In quotes a backslash may only stand before the quote itself.
_QUOTED = {quote: re.compile(rf"(?:[^{quote}\\]|\\{quote})*") for quote in "\"'"}
# At the end of the query as well, to say of `a or` that a term is missing there.
_OPERATOR = {
    word: re.compile(rf"{word}(?:[{SPACE}]+|\Z)", re.IGNORECASE) for word in ("and", "or")
}
_RESERVED = re.compile(rf"(and|or)\)*(?![^{SPACE}])", re.IGNORECASE)
# Tags that end in a parenthesis of no pair.
_FACES = frozenset({":", ";", ">:"})
_TERM = "a term"


def parse(text: str) -> Node:
    """The tree of a query; ``All`` if it is blank.

    QueryError says where the text stops being a query, what was expected there, and a remedy.
    """
    if len(text) > MAX_LENGTH:
        got = f"{len(text):,} characters"
        hint = "Give a long list of ids as a file instead."
        raise QueryError(MAX_LENGTH, f"at most {MAX_LENGTH:,} characters", got, hint)
    return _Parser(text).query()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.open_groups = 0

    def query(self) -> Node:
        self._skip_space()
        if self._at_end():
            return All()
        node = self._disjunction()
        if not self._at_end():
            raise self._error(*self._why_no_term(f"{_TERM} or the end"))
        return node

    def _disjunction(self) -> Node:
        start = self.at
        parts = [self._conjunction()]
        while self._take(_OPERATOR["or"]):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else Or(tuple(parts), position=start)

    def _conjunction(self) -> Node:
        start = self.at
        parts = [self._list()]
        while self._take(_OPERATOR["and"]):
            parts.append(self._list())
        return parts[0] if len(parts) == 1 else And(tuple(parts), position=start)

    def _list(self) -> Node:
        start = self.at
        parts = [self._factor()]
        while self._factor_follows():
            parts.append(self._factor())
        if len(parts) == 1 and not isinstance(parts[0], Opt):
            return parts[0]
        return And(tuple(parts), position=start)

    def _factor_follows(self) -> bool:
        return not self._at_end() and self._next() != ")" and not self._operator_follows()

    def _operator_follows(self) -> bool:
        """Whether ``and`` or ``or`` comes next, wherever it may stand."""
        match = _RESERVED.match(self.text, self.at)
        return match is not None and _kept(match[0], self.open_groups) == len(match[1])

    def _factor(self) -> Node:
        start, prefix = self.at, self._next()
        if prefix not in {"-", "~"}:
            return self._operand()
        self.at += 1
        self._skip_space()
        child = self._operand()
        return Not(child, position=start) if prefix == "-" else Opt(child, position=start)

    def _operand(self) -> Node:
        node = self._group() if self._next() == "(" else self._term()
        self._skip_space()
        return node

    def _group(self) -> Node:
        start = self.at
        if self.open_groups == MAX_DEPTH:
            hint = "Leave out parentheses that group nothing."
            raise self._error(f"at most {MAX_DEPTH} groups within each other", hint)
        self.at += 1
        self.open_groups += 1
        self._skip_space()
        node = self._disjunction()
        if self._next() != ")":
            hint = f"Close the group that begins at position {start}, then a space."
            raise self._error(*self._why_no_term('")"', hint))
        self.at += 1
        self.open_groups -= 1
        return node

    def _term(self) -> Node:
        start = self.at
        prefix = _PREFIXED.match(self.text, start)
        if prefix is not None and prefix[1].lower() in METATAGS:
            self.at = prefix.end()
            return self._metatag(canonical_name(prefix[1].lower()), start)
        if self._next() in {"", ")", "-", "~"} or self._operator_follows():
            raise self._error(*self._why_no_term(_TERM))
        word = self._word()
        self.at += len(word)
        name = lower(word)
        return Wildcard(name, position=start) if "*" in name else Tag(name, position=start)

    def _metatag(self, name: str, start: int) -> Metatag:
        quote = self._next()
        quoted = quote in _QUOTED
        value = canonical_value(name, self._quoted(quote) if quoted else self._bare())
        return Metatag(name, value, quoted, position=start)

    def _quoted(self, quote: str) -> str:
        start = self.at
        match = _QUOTED[quote].match(self.text, start + 1)
        self.at = match.end() if match else start
        if self._next() == "\\":
            hint = f"In quotes a backslash may only stand before {quote}; leave out the quotes."
            raise self._error(f"a {quote} after the backslash", hint)
        if self._next() != quote:
            hint = f"Close the quote that opens at position {start}."
            raise self._error(quote, hint)
        self.at += 1
        return self.text[start + 1 : self.at - 1].replace("\\" + quote, quote)

    def _bare(self) -> str:
        match = _BARE.match(self.text, self.at)
        raw = match[0] if match else ""
        own = len(raw) - min(self.open_groups, _closing(raw))
        self.at += own
        return _ESCAPED_SPACE.sub(r"\1", raw[:own])

    def _word(self) -> str:
        """The tag or wildcard that begins here, without the parentheses that close groups."""
        match = _WORD.match(self.text, self.at)
        return match[0][: _kept(match[0], self.open_groups)] if match else ""

    def _take(self, pattern: re.Pattern[str]) -> bool:
        match = pattern.match(self.text, self.at)
        if match is not None:
            self.at = match.end()
        return match is not None

    def _skip_space(self) -> None:
        self._take(_SPACES)

    def _at_end(self) -> bool:
        return self.at >= len(self.text)

    def _next(self) -> str:
        return self.text[self.at : self.at + 1]

    def _error(self, expected: str, hint: str) -> QueryError:
        if self._at_end():
            return QueryError(len(self.text), expected, "the end of the query", hint)
        match = _WORD.match(self.text, self.at)
        word = match[0] if match else self._next()
        shown = word if len(word) <= _SHOWN else word[:_SHOWN] + "..."
        return QueryError(self.at, expected, repr(shown), hint)

    def _why_no_term(self, expected: str, hint: str = "") -> tuple[str, str]:
        """What to expect and advise where neither a term nor an end stands."""
        follower = self._next()
        if follower in {"-", "~"}:
            return expected, "One - or ~ at most may stand before a term; use parentheses: -(-a)."
        if self._operator_follows():
            return expected, "Put a term on both sides of it, and a space."
        if follower == ")" and not self.open_groups:
            return expected, "No group is open here; leave out the parenthesis."
        if follower == ")":
            return expected, "Put a term before the parenthesis."
        return expected, hint or "Put a term here, or leave out what stands before."


def lower(name: str) -> str:
    """The name in lower case, a character at a time: a last sigma is a sigma like any other."""
    return name.lower() if name.isascii() else "".join(map(str.lower, name))


def _closing(word: str) -> int:
    return len(word) - len(word.rstrip(")"))


def _kept(word: str, open_groups: int) -> int:
    """How many characters of a word are its own, the rest closing groups.

    Trailing parentheses are given back, a group each, until those of the word pair up: of
    ``foo_(bar))`` in a group the last closes it.  A few faces, such as ``:)``, count as paired.
    """
    closing = _closing(word)
    body = word[: len(word) - closing]
    own = 1 if body in _FACES else _unclosed(body)
    surplus = closing if own is None or own > closing else closing - own
    return len(word) - min(open_groups, surplus)


def _unclosed(body: str) -> int | None:
    """How many parentheses of a text wait for their pair; None if one closes what none opened."""
    depth = 0
    for character in body:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return None
    return depth
