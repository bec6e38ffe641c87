"""The page that people see when they open a host in a browser: self-contained, without scripts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from html import escape
from typing import Final

from manifests.model import Descriptor
from manifests.units import format_count, format_size
from server.hosting.catalog import Catalog

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1d2433; --soft: #5d6880; --line: #dfe4ee; --card: #fff;
  --back: #f4f6fb; --accent: #3557d6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7ebf5; --soft: #9aa6c0; --line: #2c3550;
  --card: #171d2e; --back: #0e1220; --accent: #8aa4ff; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 3rem 1.25rem; background: var(--back); color: var(--ink);
  font: 1rem/1.55 system-ui, sans-serif; }
main { max-width: 56rem; margin: 0 auto; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0; letter-spacing: -.02em; }
h2 { font-size: 1.05rem; margin: 2.25rem 0 .6rem; }
p { margin: .4rem 0; } .soft { color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .75rem;
  overflow-x: auto; }
pre { margin: 0; padding: 1rem 1.15rem; font: .9rem/1.6 ui-monospace, monospace; }
pre b { color: var(--accent); font-weight: 600; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .6rem 1.15rem; text-align: left; white-space: nowrap; vertical-align: top; }
th { font-size: .8rem; font-weight: 600; color: var(--soft);
  border-bottom: 1px solid var(--line); }
tr + tr td { border-top: 1px solid var(--line); }
.number { text-align: right; }
.newest { margin-left: .5rem; padding: .1rem .5rem; border-radius: 1rem; font-size: .75rem;
  color: var(--card); background: var(--accent); }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
"""
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
<p class="soft">A dataset in signed releases, served by bucketsync.</p>
{body}
</main>
</body>
</html>
"""
_COMMANDS: Final = """<h2>Get it</h2>
<div class="card"><pre><b>bucketsync clone</b> {url} {folder} \\
    --trust-root {fingerprint}
<b>bucketsync upgrade</b> {folder}   # later, to the newest release</pre></div>
"""
_SEARCH: Final = """<h2>Search it</h2>
<p><a href="search">Search the posts by their tags</a>, or ask <code>api/search?q=…</code> from a
script.</p>
"""
_TRUST: Final = """<h2>Trust</h2>
<p>Every file is checked against the publisher's signature. The fingerprint of its root is
<code>{fingerprint}</code>; compare it with one from another source.</p>"""


def front_page(catalog: Catalog, url: str) -> str:
    """HTML of the releases and of the command that fetches them from ``url``."""
    releases = catalog.releases
    title = releases[-1].dataset if releases else "bucketsync"
    if releases:
        body = _commands(title, catalog.fingerprint, url) + _releases(releases)
    else:
        body = "<p>Nothing has been published here yet.</p>"
    if any(release.tag_index is not None for release in releases):
        body += _SEARCH
    body += _TRUST.format(fingerprint=catalog.fingerprint)
    return render_page(title, body)


def render_page(title: str, body: str, style: str = "") -> str:
    """A page of this host from a title, HTML, and CSS besides that of all pages."""
    return _PAGE.format(title=escape(title), style=_STYLE + style, body=body)


def _commands(dataset: str, fingerprint: str, url: str) -> str:
    return _COMMANDS.format(url=escape(url), folder=escape(dataset), fingerprint=fingerprint)


def _releases(releases: list[Descriptor]) -> str:
    columns = "<th>Release</th><th>Date</th><th>Variant</th>" + "".join(
        f'<th class="number">{name}</th>' for name in ("Files", "Size", "Added by it")
    )
    newest = releases[-1].release
    rows = "\n".join(_rows(item, newest) for item in reversed(releases))
    table = f"<table>\n<tr>{columns}</tr>\n{rows}\n</table>"
    return f'<h2>Releases</h2>\n<div class="card">{table}</div>\n'


def _rows(release: Descriptor, newest: str) -> str:
    """A row for each variant of a release."""
    mark = '<span class="newest">newest</span>' if release.release == newest else ""
    if any(layer.torrents for layer in release.layers):
        mark += f' <a href="torrents/{escape(release.release)}/">torrents</a>'
    date = datetime.fromtimestamp(release.created, UTC).date().isoformat()
    own = release.layers[-1].manifests
    rows: list[str] = []
    for variant in release.variants:
        total = release.totals[variant]
        added = own[variant].entries if variant in own else 0
        first = not rows
        rows.append(
            _row(
                [
                    f"{escape(release.release)}{mark}" if first else "",
                    date if first else "",
                    variant,
                ],
                [format_count(total.files), format_size(total.file_bytes), format_count(added)],
            )
        )
    return "\n".join(rows)


def _row(texts: Iterable[str], numbers: Iterable[str]) -> str:
    cells = [f"<td>{text}</td>" for text in texts]
    cells += [f'<td class="number">{text}</td>' for text in numbers]
    return f"<tr>{''.join(cells)}</tr>"
