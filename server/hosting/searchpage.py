"""The page on which people search: a form without scripts, and the posts that match."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import Final, Self
from urllib.parse import urlencode

from msgspec import Struct
from multidict import MultiDict, MultiMapping

from manifests.errors import SyncError
from manifests.model import Descriptor
from manifests.query.errors import QueryError
from manifests.units import format_count, format_duration
from server.hosting.catalog import Catalog
from server.hosting.pages import render_page
from server.hosting.parameters import SearchParameters
from server.searching.question import Found

# Posts of one page; thumbnails are fetched as they come into view.
PAGE_IDS: Final = 60
# Mean size of a variant that is small enough for sixty of its files on a page.
_MAX_THUMBNAIL_BYTES: Final = 256 * 2**10
# Styles as on the other pages; also pictures of this host, and a form that leads back to it.
PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
_STYLE: Final = """
form { display: flex; flex-wrap: wrap; gap: .6rem; margin: 1.5rem 0; }
input, select, button { font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .75rem; }
input { flex: 1 1 20rem; } button { color: var(--card); background: var(--accent); }
a { color: var(--accent); } mark { color: var(--card); background: var(--accent); }
.posts { display: grid; gap: .75rem; margin: 1rem 0; padding: 0; list-style: none;
  grid-template-columns: repeat(auto-fill, minmax(8rem, 1fr)); }
.posts a { display: block; text-align: center; }
.posts img { display: block; width: 100%; height: 8rem; object-fit: contain; }
"""
_FORM: Final = """<form action="search" method="get">
<input name="q" value="{q}" placeholder="1girl solo -comic" aria-label="Query" autofocus>
<select name="release" aria-label="Release">{releases}</select>
<select name="variant" aria-label="Variant">{variants}</select>
<button>Search</button>
</form>
"""


class PageParameters(Struct, frozen=True, kw_only=True):
    """What the form asks; ``q`` is None before anything was asked, the others may be empty."""

    q: str | None
    release: str
    variant: str
    after: str

    @classmethod
    def read(cls, query: MultiMapping[str]) -> Self:
        """Read them; a page takes no offence at others."""
        return cls(
            q=query.get("q"),
            release=query.get("release", ""),
            variant=query.get("variant", ""),
            after=query.get("after", ""),
        )

    def search(self) -> SearchParameters:
        """The search of one page; ParameterError as for scripts."""
        fields = MultiDict({"q": self.q or "", "release": self.release, "limit": str(PAGE_IDS)})
        if self.after:
            fields["after"] = self.after
        return SearchParameters.read(fields)

    def next_page(self, release: str, variant: str, last: int) -> str:
        """The URL of the posts after one."""
        fields = {"q": self.q or "", "release": release, "variant": variant, "after": last}
        return "search?" + urlencode(fields)


def search_page(
    catalog: Catalog,
    asked: PageParameters,
    release: Descriptor | None,
    found: Found | None,
    error: SyncError | None,
) -> str:
    """HTML of the form, and of the posts that were found, or of what is wrong."""
    releases = [item for item in reversed(catalog.releases) if item.tag_index is not None]
    dataset = catalog.releases[-1].dataset if catalog.releases else "bucketsync"
    variants = release.variants if release else ()
    variant = asked.variant if asked.variant in variants else (variants or ("",))[-1]
    body = _FORM.format(
        q=escape(asked.q or ""),
        releases=_options(
            [item.release for item in releases], release.release if release else None
        ),
        variants=_options(variants, variant),
    )
    if error is not None:
        body += _problem(asked.q or "", error)
    elif release is not None and found is not None:
        body += _results(asked, release, variant, found)
    return render_page(f"Search {dataset}", body, _STYLE)


def _options(names: Iterable[str], chosen: str | None) -> str:
    return "".join(
        f"<option{' selected' if name == chosen else ''}>{escape(name)}</option>" for name in names
    )


def _problem(query: str, error: SyncError) -> str:
    body = ""
    if isinstance(error, QueryError):
        at = min(error.position, len(query))
        marked = escape(query[at:]) or "&nbsp;"
        shown = f"{escape(query[:at])}<mark>{marked}</mark>"
        body = f'<div class="card"><pre>{shown}</pre></div>\n'
    return f"{body}<p>{escape(error.message)}</p>\n<p class='soft'>{escape(error.hint)}</p>\n"


def _results(asked: PageParameters, release: Descriptor, variant: str, found: Found) -> str:
    count = f"{format_count(found.count)} post{'' if found.count == 1 else 's'}"
    head = f"<p>{count} in {format_duration(found.seconds)}.</p>\n"
    ids = found.ids.tolist()
    thumbnail = thumbnail_variant(release)
    posts = "\n".join(_post(release.release, variant, thumbnail, post_id) for post_id in ids)
    rest = ""
    if not found.is_last:
        url = escape(asked.next_page(release.release, variant, ids[-1]))
        rest = f'<p><a href="{url}">More</a></p>\n'
    return f'{head}<ul class="posts">\n{posts}\n</ul>\n{rest}'


def _post(release: str, variant: str, thumbnail: str | None, post_id: int) -> str:
    """A post by its id; names of releases and variants need no escape in a URL."""
    picture = ""
    if thumbnail is not None:
        source = f"entries/{release}/{thumbnail}/{post_id}"
        picture = f'<img src="{source}" alt="" loading="lazy">'
    return f'<li><a href="entries/{release}/{variant}/{post_id}">{picture}{post_id}</a></li>'


def thumbnail_variant(release: Descriptor) -> str | None:
    """The variant of the smallest files, if they are small enough for a page of them."""
    means = {
        name: total.file_bytes / total.files
        for name, total in sorted(release.totals.items())
        if total.files
    }
    smallest = min(means, key=lambda name: means[name], default=None)
    return smallest if smallest and means[smallest] <= _MAX_THUMBNAIL_BYTES else None
