"""Animals and other small characters, built from one body and head with different parts."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from server.sample.canvas import COLOURS, INK, WHITE, Canvas, Colour, Point, around, mix, shaded
from server.sample.cast import Creature
from server.sample.heads import paint_hat, paint_head, paint_scarf
from server.sample.skies import chance


def paint_creature(
    canvas: Canvas, rng: Random, creature: Creature, foot: Point, size: float
) -> set[str]:
    """Paint one creature sitting on ``foot``, about ``size`` pixels high."""
    coat = COLOURS[creature.fur]
    _paint_halo(canvas, creature, foot, size)
    _BODIES.get(creature.species, _furry_body)(canvas, creature, foot, size, coat)
    head = (foot[0], foot[1] - size * 0.66)
    tags = creature.tags | paint_head(canvas, rng, creature, head, size * 0.27)
    if creature.scarf is not None:
        paint_scarf(canvas, head, size * 0.27, COLOURS[creature.scarf])
    elif creature.species not in {"robot", "ghost"} and chance(rng, 0.2):
        tags |= paint_hat(canvas, rng, head, size * 0.27)
    return tags


def _paint_halo(canvas: Canvas, creature: Creature, foot: Point, size: float) -> None:
    """The shadow it sits in, and a light that keeps black fur apart from a dark background."""
    if creature.fur == "black":
        canvas.glow((foot[0], foot[1] - size * 0.5), size * 0.8, (255, 246, 230), 0.35)
    canvas.glow((foot[0], foot[1] + size * 0.01), size * 0.5, INK, 0.55, flat=0.16)


def _furry_body(
    canvas: Canvas, creature: Creature, foot: Point, size: float, coat: Colour
) -> None:
    x, y = foot
    if creature.species in {"cat", "fox"}:
        tail = [
            around((x + size * 0.2, y - size * 0.2), size * 0.22, angle)
            for angle in range(90, -100, -15)
        ]
        canvas.stroke(tail, shaded(coat), size * (0.13 if creature.species == "fox" else 0.075))
    canvas.blob((x, y - size * 0.24), size * 0.23, size * 0.27, coat)
    canvas.blob((x, y - size * 0.2), size * 0.13, size * 0.18, mix(coat, WHITE, 0.45))
    for side in (-1, 1):
        canvas.blob(
            (x + side * size * 0.13, y - size * 0.02),
            size * 0.1,
            size * 0.05,
            mix(coat, WHITE, 0.18),
        )


def _robot_body(
    canvas: Canvas, creature: Creature, foot: Point, size: float, coat: Colour
) -> None:
    del creature
    x, y = foot
    for side in (-1, 1):
        arm = [(x + side * size * 0.2, y - size * 0.36), (x + side * size * 0.32, y - size * 0.16)]
        canvas.stroke(arm, shaded(coat), size * 0.06)
        canvas.box(
            (x + side * size * 0.1 - size * 0.07, y - size * 0.1),
            (x + side * size * 0.1 + size * 0.07, y),
            shaded(coat),
            radius=size * 0.03,
        )
    canvas.box(
        (x - size * 0.2, y - size * 0.44),
        (x + size * 0.2, y - size * 0.06),
        coat,
        radius=size * 0.05,
    )
    canvas.box(
        (x - size * 0.11, y - size * 0.33),
        (x + size * 0.11, y - size * 0.16),
        mix(coat, INK, 0.7),
        radius=size * 0.02,
    )
    for index, name in enumerate(("red", "yellow", "green")):
        canvas.disc(
            (x + (index - 1) * size * 0.065, y - size * 0.245), size * 0.022, COLOURS[name]
        )


def _ghost_body(
    canvas: Canvas, creature: Creature, foot: Point, size: float, coat: Colour
) -> None:
    del creature
    x, y = foot
    hem: list[Point] = []
    for step in range(13):
        wave = 0.03 if step % 2 else -0.03
        hem.append((x + size * (0.26 - 0.52 * step / 12), y - size * (0.06 + wave)))
    canvas.glow((x, y - size * 0.5), size * 0.85, coat, 0.35)
    canvas.shape(
        [(x - size * 0.27, y - size * 0.66), (x + size * 0.27, y - size * 0.66), *hem], coat
    )


_BODIES: dict[str, Callable[[Canvas, Creature, Point, float, Colour], None]] = {
    "robot": _robot_body,
    "ghost": _ghost_body,
}
