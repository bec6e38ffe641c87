"""What stands in a landscape: trees, houses, boats, balloons, snowmen, planets, rockets."""

from __future__ import annotations

from random import Random

from server.sample.canvas import COLOURS, WHITE, Canvas, Colour, Point, around, mix
from server.sample.skies import Light, chance

TRUNK: Colour = (104, 72, 54)
SNOW: Colour = (238, 244, 250)
WINDOW: Colour = (255, 222, 138)


def paint_pine(
    canvas: Canvas, foot: Point, height: float, fill: Colour, *, snowy: bool = False
) -> None:
    """A conifer of three tiers, with snow on each if ``snowy``."""
    x, y = foot
    canvas.box(
        (x - height * 0.04, y - height * 0.2), (x + height * 0.04, y), mix(fill, TRUNK, 0.6)
    )
    for tier in range(3):
        top, reach = y - height + tier * height * 0.24, height * (0.17 + 0.07 * tier)
        low = top + height * 0.4
        canvas.shape(
            [(x, top), (x + reach, low), (x - reach, low)], mix(fill, WHITE, 0.05 * (2 - tier))
        )
        if snowy:
            canvas.shape(
                [
                    (x, top),
                    (x + reach * 0.45, top + height * 0.17),
                    (x - reach * 0.45, top + height * 0.17),
                ],
                SNOW,
            )


def paint_round_tree(
    canvas: Canvas, foot: Point, height: float, leaf: Colour, light: Light
) -> None:
    """A tree with a round crown of one colour."""
    x, y = foot
    canvas.box((x - height * 0.05, y - height * 0.5), (x + height * 0.05, y), light.on(TRUNK))
    for dx, dy, size in ((-0.17, -0.5, 0.2), (0.17, -0.52, 0.2), (0, -0.72, 0.26)):
        canvas.disc((x + dx * height, y + dy * height), size * height, light.on(leaf))
    canvas.disc(
        (x - 0.07 * height, y - 0.78 * height), 0.12 * height, mix(light.on(leaf), WHITE, 0.16)
    )


def paint_cactus(canvas: Canvas, foot: Point, height: float, fill: Colour) -> None:
    """A cactus with two arms."""
    x, y, pen = foot[0], foot[1], height * 0.17
    canvas.stroke([(x, y), (x, y - height)], fill, pen)
    for side, low in ((-1, 0.4), (1, 0.55)):
        elbow = x + side * height * 0.28
        canvas.stroke([(x, y - height * low), (elbow, y - height * low)], fill, pen * 0.8)
        canvas.stroke(
            [(elbow, y - height * low), (elbow, y - height * (low + 0.28))], fill, pen * 0.8
        )
    canvas.stroke(
        [(x - pen * 0.15, y - height * 0.05), (x - pen * 0.15, y - height)],
        mix(fill, WHITE, 0.25),
        pen * 0.14,
    )


def paint_sailboat(canvas: Canvas, rng: Random, light: Light, horizon: float) -> set[str]:
    """A boat with two sails somewhere on the water below ``horizon``."""
    size = canvas.width * rng.uniform(0.07, 0.14)
    x, y = (
        canvas.width * rng.uniform(0.25, 0.75),
        horizon + (canvas.height - horizon) * rng.uniform(0.15, 0.5),
    )
    name = rng.choice(("red", "orange", "yellow", "white", "blue", "purple"))
    sail = light.on(COLOURS[name])
    canvas.shape(
        [
            (x - size * 0.06, y - size * 1.7),
            (x - size * 0.06, y - size * 0.25),
            (x - size * 0.75, y - size * 0.25),
        ],
        mix(sail, WHITE, 0.3),
    )
    canvas.shape(
        [
            (x + size * 0.04, y - size * 1.9),
            (x + size * 0.04, y - size * 0.25),
            (x + size * 0.95, y - size * 0.25),
        ],
        sail,
    )
    canvas.stroke([(x, y - size * 2), (x, y)], light.on(TRUNK), 2.4)
    hull = light.on((92, 62, 58))
    canvas.shape(
        [
            (x - size, y - size * 0.15),
            (x + size * 1.1, y - size * 0.15),
            (x + size * 0.75, y + size * 0.28),
            (x - size * 0.7, y + size * 0.28),
        ],
        hull,
    )
    canvas.blob((x, y + size * 0.3), size, size * 0.07, mix(light.bottom, WHITE, 0.3))
    return {"watercraft", "sailboat", f"{name}_sail"}


def paint_lighthouse(canvas: Canvas, rng: Random, light: Light, horizon: float) -> set[str]:
    """A red and white lighthouse on a rock at the horizon, lit unless it is day."""
    x, size = canvas.width * rng.choice((0.22, 0.78)), canvas.height * 0.34
    rock = light.on((88, 84, 96))
    canvas.blob((x, horizon + size * 0.2), size * 0.62, size * 0.22, rock)
    for band in range(5):
        top, low = horizon - size + band * size * 0.22, horizon - size + (band + 1) * size * 0.22
        half = size * (0.085 + 0.014 * band)
        fill = light.on(COLOURS["red"] if band % 2 == 0 else COLOURS["white"])
        canvas.shape(
            [
                (x - half, top),
                (x + half, top),
                (x + half + size * 0.014, low),
                (x - half - size * 0.014, low),
            ],
            fill,
        )
    lamp = (x, horizon - size * 1.06)
    if light.name != "day":
        canvas.glow(lamp, size * 0.9, (255, 236, 170), 0.8)
    canvas.box((x - size * 0.06, horizon - size * 1.12), (x + size * 0.06, horizon - size), WINDOW)
    canvas.shape(
        [
            (x - size * 0.1, horizon - size * 1.12),
            (x + size * 0.1, horizon - size * 1.12),
            (x, horizon - size * 1.24),
        ],
        light.on((70, 50, 64)),
    )
    return {"lighthouse", "building", "rock"}


def paint_house(canvas: Canvas, rng: Random, light: Light, foot: Point) -> set[str]:
    """A house with a coloured roof, or now and then a tree in its place."""
    if chance(rng, 0.35):
        paint_round_tree(
            canvas, (foot[0], foot[1] + 14), canvas.height * 0.3, COLOURS["green"], light
        )
        return {"tree"}
    x, y, size = foot[0], foot[1] + 12, canvas.height * 0.13
    roof = rng.choice(("red", "blue", "brown"))
    canvas.box((x - size * 0.6, y - size * 0.7), (x + size * 0.6, y), light.on((246, 234, 212)))
    canvas.box(
        (x + size * 0.25, y - size * 1.25), (x + size * 0.42, y - size * 0.8), light.on(TRUNK)
    )
    canvas.shape(
        [
            (x - size * 0.78, y - size * 0.66),
            (x, y - size * 1.3),
            (x + size * 0.78, y - size * 0.66),
        ],
        light.on(COLOURS[roof]),
    )
    canvas.box((x - size * 0.14, y - size * 0.42), (x + size * 0.14, y), light.on(TRUNK))
    pane = light.on((170, 206, 226)) if light.name == "day" else WINDOW
    for side in (-0.38, 0.38):
        canvas.box(
            (x + (side - 0.11) * size, y - size * 0.5),
            (x + (side + 0.11) * size, y - size * 0.26),
            pane,
        )
    return {"house", "building", f"{roof}_roof"}


def paint_balloon(canvas: Canvas, rng: Random, light: Light) -> set[str]:
    """A hot air balloon high in the sky, sometimes, and never at night."""
    if light.name == "night" or chance(rng, 0.65):
        return set()
    x, y = canvas.width * rng.uniform(0.2, 0.8), canvas.height * rng.uniform(0.16, 0.3)
    size = canvas.height * rng.uniform(0.08, 0.12)
    first, second = rng.sample(("red", "orange", "yellow", "blue", "purple", "aqua"), 2)
    canvas.shape(
        [
            (x - size * 0.6, y + size * 0.7),
            (x + size * 0.6, y + size * 0.7),
            (x + size * 0.15, y + size * 1.4),
            (x - size * 0.15, y + size * 1.4),
        ],
        light.on(COLOURS[second]),
    )
    for stripe, share in enumerate((1, 0.66, 0.3)):
        canvas.blob((x, y), size * share, size, light.on(COLOURS[(first, second)[stripe % 2]]))
    canvas.box(
        (x - size * 0.16, y + size * 1.42),
        (x + size * 0.16, y + size * 1.65),
        light.on(TRUNK),
        radius=2,
    )
    return {"hot_air_balloon", "aircraft"}


def paint_snowman(canvas: Canvas, rng: Random, light: Light) -> set[str]:
    """A snowman with a red scarf in the foreground."""
    x, y = canvas.width * rng.uniform(0.3, 0.7), canvas.height * 0.9
    size = canvas.height * 0.11
    body, shade = light.on(WHITE), mix(light.on(SNOW), light.top, 0.2)
    canvas.blob((x, y + size * 0.72), size * 1.2, size * 0.2, shade)
    for lift, radius in ((0, 1.0), (1.25, 0.72), (2.15, 0.52)):
        canvas.disc((x, y - lift * size), radius * size, body)
    for side in (-1, 1):
        canvas.disc((x + side * size * 0.18, y - size * 2.25), size * 0.07, (40, 36, 44))
        canvas.stroke(
            [(x + side * size * 0.6, y - size * 1.4), (x + side * size * 1.3, y - size * 1.8)],
            light.on(TRUNK),
            3,
        )
    canvas.shape(
        [(x, y - size * 2.15), (x, y - size * 2.0), (x + size * 0.5, y - size * 2.02)],
        light.on(COLOURS["orange"]),
    )
    canvas.box(
        (x - size * 0.55, y - size * 1.78),
        (x + size * 0.55, y - size * 1.55),
        light.on(COLOURS["red"]),
        radius=4,
    )
    canvas.box(
        (x + size * 0.15, y - size * 1.6),
        (x + size * 0.4, y - size * 1.0),
        light.on(COLOURS["red"]),
        radius=3,
    )
    return {"snowman", "scarf", "red_scarf"}


def paint_planet(canvas: Canvas, rng: Random, shadow: Colour) -> set[str]:
    """A planet in one colour, its night side in ``shadow``, with or without a ring."""
    name = rng.choice(("red", "orange", "aqua", "blue", "purple", "pink"))
    x, y = canvas.width * rng.uniform(0.12, 0.88), canvas.height * rng.uniform(0.15, 0.85)
    size, fill = canvas.height * rng.uniform(0.07, 0.2), COLOURS[name]
    canvas.glow((x, y), size * 1.7, fill, 0.5)
    canvas.disc((x, y), size, mix(fill, shadow, 0.3))
    canvas.disc((x - size * 0.12, y - size * 0.12), size * 0.86, fill)
    for _ in range(3):
        spot = around(
            (x - size * 0.1, y - size * 0.1), size * rng.uniform(0.1, 0.55), rng.uniform(0, 360)
        )
        canvas.disc(spot, size * rng.uniform(0.07, 0.18), mix(fill, WHITE, 0.25))
    if chance(rng, 0.5):
        canvas.arc(
            (x, y),
            size * 1.7,
            size * 0.42,
            span=(-22, 202),
            line=mix(fill, WHITE, 0.55),
            width=size * 0.11,
        )
        return {f"{name}_planet", "planetary_ring"}
    return {f"{name}_planet"}


def paint_rocket(canvas: Canvas, rng: Random) -> set[str]:
    """A rocket flying upwards."""
    x, y = canvas.width * rng.uniform(0.3, 0.7), canvas.height * rng.uniform(0.4, 0.6)
    size = canvas.height * rng.uniform(0.12, 0.18)
    canvas.glow((x, y + size * 1.35), size, (255, 190, 90), 0.8)
    canvas.shape(
        [
            (x - size * 0.2, y + size * 0.85),
            (x + size * 0.2, y + size * 0.85),
            (x, y + size * 1.7),
        ],
        COLOURS["orange"],
    )
    for side in (-1, 1):
        canvas.shape(
            [
                (x + side * size * 0.25, y + size * 0.2),
                (x + side * size * 0.62, y + size),
                (x + side * size * 0.2, y + size * 0.8),
            ],
            COLOURS["red"],
        )
    canvas.blob((x, y), size * 0.36, size, (242, 244, 248))
    canvas.slice((x, y), size * 0.36, size, span=(235, 305), fill=COLOURS["red"])
    canvas.disc((x, y - size * 0.2), size * 0.19, COLOURS["grey"])
    canvas.disc((x, y - size * 0.2), size * 0.14, COLOURS["aqua"])
    return {"rocket", "spacecraft"}
