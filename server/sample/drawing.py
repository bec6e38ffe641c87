"""What a post of the sample shows: one picture, or the few of an animation, and its tags.

A drawing is a function of a text (the seed) alone, so that any process can draw any post and an
edited file of a later year shows the picture that the first one showed.
"""

from __future__ import annotations

from random import Random

from msgspec import Struct
from msgspec.structs import replace
from PIL import Image, ImageOps

from server.sample.canvas import COLOURS, WHITE, Canvas, Colour, mix
from server.sample.cast import EYES_CLOSED, Creature, pick_creature
from server.sample.creatures import paint_creature
from server.sample.landscapes import paint_landscape, paint_stage
from server.sample.patterns import paint_pattern
from server.sample.portraits import paint_blossom, paint_portrait
from server.sample.skies import chance
from server.sample.still_life import paint_still_life

# Small enough that a thousand are drawn in seconds, large enough to be looked at.
_SHAPES = ((440, 330), (486, 324), (330, 440), (380, 380), (528, 297), (345, 460))
_ANIMATED_SIZE = (240, 240)
_COMIC_SIZE = (300, 1050)
_PANELS = 4

# Who signs with which colour: an artist tag always means this mark in the lower right corner.
ARTISTS: dict[str, str] = {
    "coral_pencil": "red",
    "quiet_harbor": "blue",
    "fern_and_ink": "green",
    "marigold_press": "yellow",
    "violet_hour": "purple",
}

# A tag that begins with one of these says nothing about a picture without colours.
_COLOUR_WORDS = {*COLOURS, "blonde"}


class Drawing(Struct, frozen=True, kw_only=True):
    """One or more frames of equal size and the names of what they show."""

    frames: tuple[Image.Image, ...]
    tags: frozenset[str]


def draw(seed: str, *, animated: bool = False, border: str | None = None) -> Drawing:
    """Draw the picture that belongs to ``seed``, with a border of a named colour if asked for.

    ``animated`` gives a small creature that blinks, in two frames.
    """
    if animated:
        (awake, tags), (blinking, _) = (_with_eyes(seed, eyes) for eyes in ("open", "closed"))
        frames, tags = [awake, blinking], tags | {"animated", "animated_gif"}
    else:
        picture, tags = _still(seed)
        frames = [picture]
    if border is not None:
        frames = [ImageOps.expand(ImageOps.crop(one, 12), 12, COLOURS[border]) for one in frames]
        tags = tags | {"border", f"{border}_border"}
    return Drawing(frames=tuple(frames), tags=frozenset(tags))


def _with_eyes(seed: str, eyes: str) -> tuple[Image.Image, set[str]]:
    rng, canvas = Random(seed), Canvas(*_ANIMATED_SIZE)  # noqa: S311 (pictures, not secrets)
    tags = _creatures(canvas, rng, eyes) | _sign(canvas, rng)
    return canvas.finish(), tags


def _still(seed: str) -> tuple[Image.Image, set[str]]:
    rng = Random(seed)  # noqa: S311 (pictures, not secrets)
    kinds = (
        paint_landscape,
        _creatures,
        _portrait,
        paint_still_life,
        paint_pattern,
        _comic,
    )
    kind = rng.choices(kinds, weights=(32, 32, 15, 8, 9, 4))[0]
    canvas = Canvas(*(_COMIC_SIZE if kind is _comic else _pick_size(rng)))
    tags = kind(canvas, rng) | _sign(canvas, rng)
    picture = canvas.finish()
    if chance(rng, 0.04):
        picture = ImageOps.grayscale(picture).convert("RGB")
        tags = {tag for tag in tags if tag.split("_")[0] not in _COLOUR_WORDS}
        tags |= {"monochrome", "greyscale"}
    return picture, tags


def _pick_size(rng: Random) -> tuple[int, int]:
    width, height = rng.choice(_SHAPES)
    scale = rng.uniform(0.85, 1.2)
    return round(width * scale), round(height * scale)


def _creatures(canvas: Canvas, rng: Random, eyes: str = "any") -> set[str]:
    """One to three creatures; ``eyes`` (open, closed, any) decides over these and nothing else."""
    group = [pick_creature(rng) for _ in range(rng.choices((1, 2, 3), weights=(7, 2, 1))[0])]
    if chance(rng, 0.45):
        tags, foot = paint_stage(canvas, rng), canvas.height * 0.95
    else:
        tags, foot = _backdrop(canvas, rng, {one.fur for one in group}), canvas.height * 0.92
    size = min(canvas.height * 0.74, canvas.width * (1.05, 0.68, 0.5)[len(group) - 1])
    for place, creature in enumerate(group):
        x = canvas.width * (place + 0.5) / len(group)
        tags |= paint_creature(canvas, rng, _looking(creature, eyes), (x, foot), size)
    return tags | {("solo", "duo", "trio")[len(group) - 1]}


def _looking(creature: Creature, eyes: str) -> Creature:
    if eyes == "closed":
        return replace(creature, eyes=EYES_CLOSED)
    if eyes == "open" and creature.eyes == EYES_CLOSED:
        return replace(creature, eyes="green")
    return creature


def _portrait(canvas: Canvas, rng: Random) -> set[str]:
    tags = _backdrop(canvas, rng, set())
    size = min(canvas.height * 0.52, canvas.width * 0.56)
    chin = (canvas.width / 2, canvas.height * 0.68)
    return tags | paint_portrait(canvas, rng, chin, size) | {"solo"}


def _comic(canvas: Canvas, rng: Random) -> set[str]:
    """Four panels, one above the other, about the same creature."""
    hero, tags = pick_creature(rng), {"comic", "4koma", "multiple_views"}
    gap = 14
    high = (canvas.height - gap) // _PANELS - gap
    for panel in range(_PANELS):
        inner = Canvas(canvas.width - 2 * gap, high)
        if panel == _PANELS - 1:
            tags |= paint_landscape(inner, rng) - {"no_humans"}
        else:
            tags |= _backdrop(inner, rng, {hero.fur})
            foot = (inner.width * rng.uniform(0.3, 0.7), inner.height * 0.94)
            tags |= paint_creature(inner, rng, hero, foot, inner.height * 0.82)
        canvas.inset(inner, (gap, gap + panel * (high + gap)))
    return tags


def _backdrop(canvas: Canvas, rng: Random, avoid: set[str]) -> set[str]:
    """A plain or patterned background in a colour that is none of ``avoid``."""
    name = rng.choice([name for name in COLOURS if name not in avoid | {"black", "brown", "grey"}])
    light, full = mix(COLOURS[name], WHITE, 0.45), COLOURS[name]
    canvas.wash(light, mix(full, WHITE, 0.12))
    tags = {"simple_background", f"{name}_background"}
    kind = rng.choice(("gradient", "gradient", "polka_dot", "striped", "star", "floral"))
    if kind == "striped":
        step = canvas.width / rng.choice((8, 10, 12))
        for stripe in range(-int(canvas.height / step / 2) - 1, 13):
            left = stripe * step * 2
            lean = canvas.height
            canvas.shape(
                [(left, 0), (left + step, 0), (left + step + lean, lean), (left + lean, lean)],
                light,
            )
    elif kind != "gradient":
        _scatter(canvas, kind, mix(light, WHITE, 0.45))
    return tags | {f"{kind}_background"}


def _scatter(canvas: Canvas, kind: str, fill: Colour) -> None:
    """Rows of small marks over the whole canvas."""
    step = canvas.width / 7
    for row in range(int(canvas.height / step) + 2):
        for column in range(9):
            place = (column * step + (step / 2 if row % 2 else 0), row * step)
            if kind == "polka_dot":
                canvas.disc(place, step * 0.17, fill)
            elif kind == "star":
                canvas.star(place, step * 0.25, fill)
            else:
                paint_blossom(canvas, place, step * 0.24, fill)


def _sign(canvas: Canvas, rng: Random) -> set[str]:
    """The artist's mark, two overlapping dots, for most pictures."""
    if chance(rng, 0.15):
        return set()
    artist = rng.choice(list(ARTISTS))
    x, y = canvas.width - 18, canvas.height - 15
    canvas.disc((x, y), 7, WHITE)
    canvas.disc((x - 4, y), 4.5, COLOURS[ARTISTS[artist]])
    canvas.disc((x + 4, y), 4.5, mix(COLOURS[ARTISTS[artist]], WHITE, 0.35))
    return {artist, "signature"}
