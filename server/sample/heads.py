"""Heads of creatures: ears, faces, scarfs and hats."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from server.sample.canvas import COLOURS, INK, WHITE, Canvas, Colour, Point, around, mix, shaded
from server.sample.cast import EYES_CLOSED, Creature
from server.sample.skies import chance

_BLUSH: Colour = (248, 150, 150)


def paint_head(
    canvas: Canvas, rng: Random, creature: Creature, head: Point, size: float
) -> set[str]:
    """Paint the head of a creature around ``head``, ``size`` from its middle to its rim."""
    coat = COLOURS[creature.fur]
    _EARS.get(creature.species, _no_ears)(canvas, head, size, coat)
    _paint_skull(canvas, creature, head, size, coat)
    _paint_eyes(canvas, creature, head, size)
    return _paint_mouth(canvas, rng, creature, head, size)


def _no_ears(canvas: Canvas, head: Point, size: float, coat: Colour) -> None:
    del canvas, head, size, coat


def _pointed_ears(canvas: Canvas, head: Point, size: float, coat: Colour) -> None:
    x, y = head
    for side in (-1, 1):
        root = [
            (x + side * size * 0.98, y - size * 0.2),
            (x + side * size * 0.12, y - size * 0.85),
        ]
        canvas.shape([*root, (x + side * size * 0.84, y - size * 1.36)], coat)
        inner = [
            (x + side * size * 0.82, y - size * 0.45),
            (x + side * size * 0.36, y - size * 0.8),
        ]
        canvas.shape([*inner, (x + side * size * 0.76, y - size * 1.16)], COLOURS["pink"])


def _round_ears(canvas: Canvas, head: Point, size: float, coat: Colour) -> None:
    for side in (-1, 1):
        ear = (head[0] + side * size * 0.72, head[1] - size * 0.72)
        canvas.disc(ear, size * 0.38, coat)
        canvas.disc(ear, size * 0.22, mix(coat, COLOURS["pink"], 0.65))


def _large_ears(canvas: Canvas, head: Point, size: float, coat: Colour) -> None:
    for side in (-1, 1):
        ear = (head[0] + side * size * 0.92, head[1] - size * 0.74)
        canvas.disc(ear, size * 0.56, coat)
        canvas.disc(ear, size * 0.36, COLOURS["pink"])


def _long_ears(canvas: Canvas, head: Point, size: float, coat: Colour) -> None:
    for side in (-1, 1):
        ear = (head[0] + side * size * 0.46, head[1] - size * 1.35)
        canvas.petal(ear, size * 0.24, size * 0.78, side * 10, coat)
        canvas.petal(ear, size * 0.12, size * 0.58, side * 10, COLOURS["pink"])


def _floppy_ears(canvas: Canvas, head: Point, size: float, coat: Colour) -> None:
    for side in (-1, 1):
        ear = (head[0] + side * size * 1.0, head[1] + size * 0.02)
        canvas.petal(ear, size * 0.26, size * 0.62, side * -16, mix(coat, INK, 0.3))


def _bulging_eyes(canvas: Canvas, head: Point, size: float, coat: Colour) -> None:
    for side in (-1, 1):
        canvas.disc((head[0] + side * size * 0.52, head[1] - size * 0.62), size * 0.38, coat)


def _antenna(canvas: Canvas, head: Point, size: float, coat: Colour) -> None:
    x, y = head
    canvas.stroke([(x, y - size * 0.7), (x, y - size * 1.3)], shaded(coat), size * 0.1)
    canvas.disc((x, y - size * 1.36), size * 0.17, COLOURS["red"])


_EARS: dict[str, Callable[[Canvas, Point, float, Colour], None]] = {
    "cat": _pointed_ears,
    "fox": _pointed_ears,
    "bear": _round_ears,
    "mouse": _large_ears,
    "rabbit": _long_ears,
    "dog": _floppy_ears,
    "frog": _bulging_eyes,
    "robot": _antenna,
}


def _paint_skull(
    canvas: Canvas, creature: Creature, head: Point, size: float, coat: Colour
) -> None:
    x, y = head
    if creature.species == "robot":
        canvas.box(
            (x - size, y - size * 0.76), (x + size, y + size * 0.8), coat, radius=size * 0.24
        )
        canvas.box(
            (x - size * 0.82, y - size * 0.5),
            (x + size * 0.82, y + size * 0.6),
            mix(coat, INK, 0.75),
            radius=size * 0.18,
        )
        return
    canvas.blob(head, size * 1.06, size * 0.92, coat)
    if creature.species == "fox":
        for side in (-1, 1):
            canvas.petal(
                (x + side * size * 0.5, y + size * 0.36),
                size * 0.5,
                size * 0.38,
                side * -25,
                mix(coat, WHITE, 0.85),
            )
    elif creature.species in {"bear", "dog"}:
        canvas.blob((x, y + size * 0.34), size * 0.42, size * 0.34, mix(coat, WHITE, 0.6))


def _eye_height(species: str) -> float:
    return -0.62 if species == "frog" else -0.04


def _paint_eyes(canvas: Canvas, creature: Creature, head: Point, size: float) -> None:
    apart = 0.52 if creature.species == "frog" else 0.44
    dark = creature.fur == "black" or creature.species == "robot"
    for side in (-1, 1):
        eye = (head[0] + side * size * apart, head[1] + size * _eye_height(creature.species))
        if creature.eyes == EYES_CLOSED:
            lid = COLOURS["aqua"] if creature.species == "robot" else WHITE if dark else INK
            canvas.arc(eye, size * 0.2, size * 0.16, span=(10, 170), line=lid, width=size * 0.08)
            continue
        canvas.blob(eye, size * 0.25, size * 0.29, WHITE if dark else INK)
        canvas.blob(eye, size * 0.2, size * 0.24, COLOURS[creature.eyes])
        canvas.blob(eye, size * 0.1, size * 0.17, INK)
        canvas.disc((eye[0] - size * 0.07, eye[1] - size * 0.1), size * 0.065, WHITE)


def _paint_mouth(
    canvas: Canvas, rng: Random, creature: Creature, head: Point, size: float
) -> set[str]:
    x, y = head
    line = WHITE if creature.fur == "black" or creature.species == "robot" else INK
    tags = set()
    if creature.species in {"cat", "rabbit", "fox", "dog", "bear", "mouse"}:
        canvas.shape(
            [
                (x - size * 0.1, y + size * 0.2),
                (x + size * 0.1, y + size * 0.2),
                (x, y + size * 0.31),
            ],
            mix(COLOURS["pink"], INK, 0.25),
        )
    if chance(rng, 0.3):
        canvas.slice(
            (x, y + size * 0.36), size * 0.2, size * 0.26, span=(0, 180), fill=(170, 60, 70)
        )
        tags |= {"open_mouth", "smile"}
    else:
        for side in (-1, 1):
            centre = (x + side * size * 0.14, y + size * 0.36)
            canvas.arc(
                centre, size * 0.14, size * 0.12, span=(0, 180), line=line, width=size * 0.06
            )
        tags.add("smile")
    if creature.species in {"cat", "mouse"}:
        for side in (-1, 1):
            for tilt in (-8, 6, 20):
                root = around(head, size * 0.62, 90 - side * 66 + side * tilt * 0.4)
                tip = around(root, size * 0.62, 90 - side * (90 - tilt))
                canvas.stroke([root, tip], line, size * 0.03)
        tags.add("whiskers")
    if chance(rng, 0.3) and creature.species not in {"robot", "frog"}:
        for side in (-1, 1):
            canvas.blob((x + side * size * 0.7, y + size * 0.3), size * 0.16, size * 0.1, _BLUSH)
        tags.add("blush")
    return tags


def paint_scarf(canvas: Canvas, head: Point, size: float, cloth: Colour) -> None:
    """A scarf below a head, with one loose end."""
    x, y = head
    canvas.box(
        (x - size * 0.78, y + size * 0.72),
        (x + size * 0.78, y + size * 1.06),
        cloth,
        radius=size * 0.17,
    )
    canvas.box(
        (x + size * 0.22, y + size * 0.9),
        (x + size * 0.56, y + size * 1.72),
        mix(cloth, INK, 0.12),
        radius=size * 0.08,
    )


def paint_hat(canvas: Canvas, rng: Random, head: Point, size: float) -> set[str]:
    """A party hat or a witch's hat."""
    x, y = head
    top = y - size * 0.72
    if chance(rng, 0.5):
        first, second = rng.sample(("red", "yellow", "blue", "purple", "aqua"), 2)
        canvas.shape(
            [(x - size * 0.42, top), (x + size * 0.42, top), (x, top - size)], COLOURS[first]
        )
        canvas.disc((x, top - size), size * 0.15, COLOURS[second])
        return {"hat", "party_hat"}
    cloth = COLOURS["purple"]
    canvas.shape(
        [(x - size * 0.5, top), (x + size * 0.5, top), (x + size * 0.18, top - size * 1.15)], cloth
    )
    canvas.blob((x, top), size * 0.92, size * 0.17, mix(cloth, INK, 0.2))
    canvas.star((x, top - size * 0.4), size * 0.18, COLOURS["yellow"])
    return {"hat", "witch_hat"}
