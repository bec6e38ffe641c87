"""The figure of the documents: how many times as fast we are, drawn from the JSON of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import log2
from typing import Any

_WIDTH, _LABEL, _ROW, _TOP = 860, 430, 22, 46
_LEFT, _RIGHT = _LABEL + 10, _WIDTH - 70
_LEAST, _MOST = 0.25, 64.0
_TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)
_COLOURS = {True: "#2a7d4f", False: "#c0392b", None: "#7f8c8d"}


def draw(document: dict[str, Any]) -> str:
    """An SVG: a bar from 1 for each ratio, its spread, and a mark at what is required."""
    rows = list(_ratios(document))
    height = _TOP + _ROW * len(rows) + 10
    body = [
        *_axis(height),
        *(line for place, row in enumerate(rows) for line in _bar(place, *row)),
    ]
    style = "font-family:sans-serif;font-size:12px"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img" style="{style}">\n'
        "<title>How many times as fast bucketsync is</title>\n"
        f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>\n'
        f'<text x="{_LEFT}" y="16" fill="#333">times as fast; | is required; right of 1 we win'
        "</text>\n"
    )
    return head + "\n".join(body) + "\n</svg>\n"


def _ratios(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for contest in document["contests"]:
        for verdict in contest["verdicts"]:
            if "times as fast" in verdict["label"]:
                label = verdict["label"].replace(", times as fast as ", " / ")
                yield f"{contest['name']}: {label}", verdict


def _x(value: float) -> float:
    share = log2(min(max(value, _LEAST), _MOST) / _LEAST) / log2(_MOST / _LEAST)
    return round(_LEFT + share * (_RIGHT - _LEFT), 1)


def _axis(height: int) -> Iterator[str]:
    for tick in _TICKS:
        colour = "#333" if tick == 1 else "#ddd"
        x = _x(tick)
        yield f'<line x1="{x}" x2="{x}" y1="{_TOP - 10}" y2="{height - 8}" stroke="{colour}"/>'
        yield f'<text x="{x}" y="{_TOP - 14}" text-anchor="middle" fill="#555">{tick:g}</text>'


def _rectangle(x: float, y: int, width: float, colour: str) -> str:
    return f'<rect x="{x}" y="{y}" width="{width:.1f}" height="12" fill="{colour}"/>'


def _bar(place: int, label: str, verdict: dict[str, Any]) -> Sequence[str]:
    y, colour = _TOP + _ROW * place, _COLOURS[verdict["met"]]
    one, end, middle = _x(1), _x(verdict["figure"]), y + 8
    low, high = _x(verdict["low"]), _x(verdict["high"])
    lines = [
        f'<text x="{_LABEL}" y="{y + 12}" text-anchor="end" fill="#333">{escape(label)}</text>',
        _rectangle(min(one, end), y + 2, abs(end - one), colour),
        f'<line x1="{low}" x2="{high}" y1="{middle}" y2="{middle}" stroke="#000"/>',
        f'<text x="{_RIGHT + 8}" y="{y + 12}" fill="{colour}">{verdict["figure"]:.2f}</text>',
    ]
    if verdict["required"] is not None:
        x = _x(verdict["required"])
        lines.append(
            f'<line x1="{x}" x2="{x}" y1="{y}" y2="{y + 16}" stroke="#000" stroke-width="2"/>'
        )
    return lines
