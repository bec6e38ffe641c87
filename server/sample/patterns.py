"""Abstract pictures: ornaments and shapes in a few named colours."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from server.sample.canvas import COLOURS, INK, VIVID, WHITE, Canvas, Colour, Point, around, mix
from server.sample.skies import chance


def paint_pattern(canvas: Canvas, rng: Random) -> set[str]:
    """Paint an abstract picture in a few colours, each of them named in a tag."""
    painters: list[Callable[[Canvas, Random, list[Colour]], set[str]]] = [
        _mandala,
        _waves,
        _mosaic,
        _bubbles,
        _sunburst,
        _hearts,
    ]
    names = rng.sample(VIVID, 3)
    ground = (
        mix(COLOURS[names[0]], INK, 0.55)
        if chance(rng, 0.5)
        else mix(COLOURS[names[0]], WHITE, 0.75)
    )
    canvas.wash(ground, mix(ground, COLOURS[names[0]], 0.3))
    tags = rng.choice(painters)(canvas, rng, [COLOURS[name] for name in names])
    return tags | {"abstract", "no_humans"} | {f"{name}_theme" for name in names[:1]}


def _mandala(canvas: Canvas, rng: Random, colours: list[Colour]) -> set[str]:
    centre, reach = (canvas.width / 2, canvas.height / 2), min(canvas.width, canvas.height) * 0.47
    for ring in range(6, 0, -1):
        petals, radius = rng.choice((6, 8, 10, 12)), reach * ring / 6
        for petal in range(petals):
            angle = 360 * petal / petals + (180 / petals if ring % 2 else 0)
            canvas.petal(
                around(centre, radius * 0.72, angle),
                radius * 0.3,
                radius * 0.13,
                angle,
                colours[ring % 3],
            )
        canvas.disc(centre, radius * 0.46, mix(colours[(ring + 1) % 3], WHITE, 0.2))
    canvas.disc(centre, reach * 0.05, WHITE)
    return {"mandala", "symmetry"}


def _waves(canvas: Canvas, rng: Random, colours: list[Colour]) -> set[str]:
    radius = canvas.width / rng.choice((8, 10, 12))
    for row in range(int(canvas.height / radius * 2) + 3):
        for column in range(int(canvas.width / radius / 2) + 3):
            centre = (column * radius * 2 - (radius if row % 2 else 0), row * radius * 0.55)
            for ring, share in enumerate((1.0, 0.76, 0.52, 0.28)):
                canvas.disc(centre, radius * share, WHITE if ring % 2 else colours[(row // 2) % 3])
    return {"seigaiha", "pattern", "circle"}


def _mosaic(canvas: Canvas, rng: Random, colours: list[Colour]) -> set[str]:
    side = canvas.width / rng.choice((8, 10, 14))
    for row in range(int(canvas.height / side) + 1):
        for column in range(int(canvas.width / side) + 1):
            x, y = column * side, row * side
            tone = mix(rng.choice(colours), WHITE, rng.uniform(0, 0.6))
            corners: list[Point] = [(x, y), (x + side, y), (x + side, y + side), (x, y + side)]
            missing = rng.randrange(4)
            canvas.shape(corners, mix(tone, INK, 0.12))
            canvas.shape(
                [corner for index, corner in enumerate(corners) if index != missing], tone
            )
    return {"mosaic", "geometric", "triangle"}


def _bubbles(canvas: Canvas, rng: Random, colours: list[Colour]) -> set[str]:
    for _ in range(rng.randint(18, 40)):
        centre = (rng.uniform(0, canvas.width), rng.uniform(0, canvas.height))
        radius, tone = canvas.width * rng.uniform(0.015, 0.09), rng.choice(colours)
        canvas.disc(centre, radius, tone)
        canvas.disc(around(centre, radius * 0.16, 225), radius * 0.78, mix(tone, WHITE, 0.25))
        canvas.disc(around(centre, radius * 0.45, 225), radius * 0.16, WHITE)
    return {"bubble", "circle"}


def _sunburst(canvas: Canvas, rng: Random, colours: list[Colour]) -> set[str]:
    centre = (canvas.width * rng.uniform(0.35, 0.65), canvas.height * rng.uniform(0.4, 0.8))
    rays = rng.choice((12, 16, 20))
    for ray in range(rays):
        span = (360 * ray / rays, 360 * (ray + 0.5) / rays)
        canvas.slice(centre, canvas.width, canvas.width, span=span, fill=colours[1])
    canvas.disc(centre, canvas.height * 0.2, colours[0])
    canvas.star(centre, canvas.height * 0.16, WHITE)
    return {"sunburst", "star_(symbol)"}


def _hearts(canvas: Canvas, rng: Random, colours: list[Colour]) -> set[str]:
    step = canvas.width / rng.choice((6, 7, 9))
    for row in range(int(canvas.height / step) + 2):
        for column in range(int(canvas.width / step) + 2):
            x, y = column * step + (step / 2 if row % 2 else 0), row * step
            tone, size = mix(colours[(row + column) % 3], WHITE, 0.1), step * 0.2
            for side in (-1, 1):
                canvas.disc((x + side * size * 0.5, y - size * 0.3), size * 0.6, tone)
            canvas.shape(
                [
                    (x - size * 1.02, y - size * 0.02),
                    (x + size * 1.02, y - size * 0.02),
                    (x, y + size * 1.15),
                ],
                tone,
            )
    return {"heart", "pattern"}
