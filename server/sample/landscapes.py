"""Places: mountains, sea, city, forest, meadow, desert, winter and space."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from server.sample.canvas import COLOURS, WHITE, Canvas, Colour, Point, around, mix
from server.sample.props import (
    SNOW,
    WINDOW,
    paint_balloon,
    paint_cactus,
    paint_house,
    paint_lighthouse,
    paint_pine,
    paint_planet,
    paint_rocket,
    paint_round_tree,
    paint_sailboat,
    paint_snowman,
)
from server.sample.skies import (
    Light,
    chance,
    corner_lamp,
    high_lamp,
    paint_sky,
    paint_weather,
    pick_light,
)

_PINE: Colour = (44, 104, 82)
_GRASS: Colour = (122, 178, 92)


def paint_landscape(canvas: Canvas, rng: Random) -> set[str]:
    """Paint a whole picture of some place."""
    painters: list[Callable[[Canvas, Random], set[str]]] = [
        _mountains,
        _sea,
        _sea,
        _city,
        _forest,
        _meadow,
        _meadow,
        _desert,
        _winter,
        _space,
    ]
    painter = rng.choice(painters)
    return painter(canvas, rng) | {"scenery", "no_humans"}


def _ridge(
    canvas: Canvas, rng: Random, base: float, height: float, roughness: float
) -> list[Point]:
    """A skyline from left to right around row ``base``, as a sum of a few waves."""
    waves = [
        (rng.uniform(0.6, 1.4) * 2**octave, rng.uniform(0, 6.28), roughness**octave)
        for octave in range(5)
    ]
    points = []
    for step in range(49):
        turn = step / 48 * math.pi * 2
        level = sum(share * math.sin(turn * pace + phase) for pace, phase, share in waves)
        points.append((canvas.width * step / 48, base - height * level))
    return points


def _ground(canvas: Canvas, skyline: list[Point], fill: Colour) -> None:
    """Fill everything below a skyline."""
    floor: list[Point] = [(canvas.width, canvas.height), (0, canvas.height)]
    canvas.shape(skyline + floor, fill)


def _mountains(canvas: Canvas, rng: Random) -> set[str]:
    light = pick_light(rng)
    tags = paint_sky(canvas, rng, light, canvas.height * 0.5, lamp=high_lamp(canvas, rng))
    rock = rng.choice(((96, 108, 140), (112, 98, 128), (84, 116, 124)))
    for layer in range(3):
        base = canvas.height * (0.5 + 0.13 * layer)
        distance = 0.75 - 0.28 * layer
        _peaks(canvas, rng, base, light.on(rock, distance), light.on(SNOW, distance * 0.6))
    hill = _ridge(canvas, rng, canvas.height * 0.9, canvas.height * 0.025, 0.5)
    _ground(canvas, hill, light.on(_PINE))
    for x, y in hill[:: rng.choice((2, 3))]:
        paint_pine(
            canvas, (x + rng.uniform(-8, 8), y + 8), rng.uniform(26, 54), light.on(_PINE, 0.12)
        )
    return tags | {"mountain", "tree", "pine_tree", "nature"}


def _peaks(canvas: Canvas, rng: Random, base: float, rock: Colour, snow: Colour) -> None:
    x = -rng.uniform(0, 60)
    while x < canvas.width:
        half, height = (
            rng.uniform(0.14, 0.26) * canvas.width,
            rng.uniform(0.14, 0.26) * canvas.height,
        )
        top = (x + half, base - height)
        canvas.shape([top, (x + 2 * half, canvas.height), (x, canvas.height)], rock)
        shade = mix(rock, (20, 20, 50), 0.16)
        canvas.shape([top, (x + 2 * half, canvas.height), (x + half * 1.05, canvas.height)], shade)
        rim, fall = half * 0.24, (canvas.height - top[1]) * 0.24
        cap: list[Point] = [
            top,
            (top[0] + rim, top[1] + fall),
            (top[0] + rim * 0.4, top[1] + fall * 0.72),
        ]
        cap += [(top[0], top[1] + fall * 1.1), (top[0] - rim * 0.45, top[1] + fall * 0.7)]
        canvas.shape([*cap, (top[0] - rim, top[1] + fall)], snow)
        x += half * rng.uniform(0.8, 1.5)


def _sea(canvas: Canvas, rng: Random) -> set[str]:
    light = pick_light(rng)
    horizon = canvas.height * rng.uniform(0.5, 0.62)
    tags = paint_sky(canvas, rng, light, horizon) | {"ocean", "water", "horizon"}
    water = light.on(rng.choice(((36, 126, 168), (44, 150, 164), (58, 108, 176))))
    canvas.wash(
        mix(water, light.bottom, 0.5), mix(water, (10, 20, 60), 0.25), horizon, canvas.height
    )
    for _ in range(70):
        y = horizon + (canvas.height - horizon) * rng.random() ** 1.4
        depth = (y - horizon) / (canvas.height - horizon)
        x, reach = rng.uniform(0, canvas.width), 4 + 26 * depth
        canvas.stroke(
            [(x - reach, y), (x + reach, y)],
            mix(water, light.bottom, rng.uniform(0.35, 0.6)),
            0.8 + depth,
        )
    tags |= rng.choice((paint_sailboat, paint_sailboat, paint_lighthouse, _palm_beach))(
        canvas, rng, light, horizon
    )
    return tags


def _palm_beach(canvas: Canvas, rng: Random, light: Light, horizon: float) -> set[str]:
    del horizon
    sand = light.on((240, 214, 160))
    shore = _ridge(canvas, rng, canvas.height * 0.86, canvas.height * 0.015, 0.5)
    _ground(canvas, [(x, y - 5) for x, y in shore], mix(sand, WHITE, 0.55))
    _ground(canvas, shore, sand)
    foot = (canvas.width * rng.uniform(0.2, 0.8), canvas.height * 0.92)
    lean, height = rng.choice((-1, 1)) * canvas.width * 0.08, canvas.height * 0.5
    trunk = [
        (foot[0] + lean * (step / 8) ** 1.6, foot[1] - height * step / 8) for step in range(9)
    ]
    canvas.stroke(trunk, light.on((132, 98, 70)), 8)
    for angle in (-170, -135, -95, -50, -12, 22, 160):
        tip = around(trunk[-1], height * 0.22, angle)
        canvas.petal(tip, height * 0.24, height * 0.045, angle, light.on((64, 142, 88)))
    return {"beach", "sand", "tree", "palm_tree"}


def _city(canvas: Canvas, rng: Random) -> set[str]:
    light = pick_light(rng, rng.choice(("night", "night", "sunset", "day")))
    tags = paint_sky(canvas, rng, light, canvas.height * 0.62, lamp=high_lamp(canvas, rng))
    for layer in range(3):
        wall = light.on((96, 102, 138), 0.6 - 0.28 * layer)
        x = -rng.uniform(0, 30)
        while x < canvas.width:
            wide, top = (
                rng.uniform(34, 76),
                canvas.height * (rng.uniform(0.42, 0.7) + 0.09 * layer),
            )
            canvas.box(
                (x, top), (x + wide, canvas.height), mix(wall, (10, 10, 30), rng.uniform(0, 0.15))
            )
            if layer > 0:
                _windows(canvas, rng, light, (x, top), wide)
            x += wide + rng.choice((0, 0, 4, 14))
    lights = {"city_lights"} if light.name == "night" else set()
    return tags | lights | {"city", "cityscape", "building", "skyscraper"}


def _windows(canvas: Canvas, rng: Random, light: Light, corner: Point, wide: float) -> None:
    lit = 0.12 if light.name == "day" else 0.5
    glass = light.on((176, 200, 220), 0.1)
    for row in range(int((canvas.height - corner[1]) // 15)):
        for column in range(int(wide // 12) - 1):
            x, y = corner[0] + 8 + column * 12, corner[1] + 8 + row * 15
            canvas.box((x, y), (x + 6, y + 8), WINDOW if chance(rng, lit) else glass)


def _forest(canvas: Canvas, rng: Random) -> set[str]:
    light = pick_light(rng)
    tags = paint_sky(canvas, rng, light, canvas.height * 0.58, lamp=high_lamp(canvas, rng))
    autumn = chance(rng, 0.35)
    leaves = ("red", "orange", "yellow") if autumn else ("green", "green", "aqua")
    for layer in range(4):
        base = canvas.height * (0.62 + 0.11 * layer)
        floor = light.on((198, 148, 84) if autumn else _GRASS, 0.55 - 0.18 * layer)
        _ground(canvas, _ridge(canvas, rng, base, canvas.height * 0.015, 0.4), floor)
        for _ in range(11 - 2 * layer):
            foot = (rng.uniform(0, canvas.width), base + rng.uniform(2, 16))
            height = canvas.height * (0.16 + 0.075 * layer) * rng.uniform(0.8, 1.2)
            if autumn or layer % 2:
                leaf = mix(COLOURS[rng.choice(leaves)], (40, 90, 60), 0 if autumn else 0.25)
                paint_round_tree(canvas, foot, height, leaf, light)
            else:
                paint_pine(canvas, foot, height * 1.2, light.on(_PINE, 0.4 - 0.12 * layer))
    extra = {"autumn", "autumn_leaves"} if autumn else {"pine_tree"}
    return tags | extra | {"forest", "tree", "nature"}


def _meadow(canvas: Canvas, rng: Random) -> set[str]:
    light = pick_light(rng)
    tags = paint_sky(canvas, rng, light, canvas.height * 0.66)
    middle = _hills(canvas, rng, light)
    tags |= {"hill", "grass", "nature"} | paint_house(
        canvas, rng, light, middle[rng.randint(12, 36)]
    )
    return tags | _flowers(canvas, rng, light) | paint_balloon(canvas, rng, light)


def paint_stage(canvas: Canvas, rng: Random) -> set[str]:
    """Paint green hills with an empty middle, for somebody to stand in."""
    light = pick_light(rng)
    tags = paint_sky(canvas, rng, light, canvas.height * 0.66, lamp=corner_lamp(canvas, rng))
    _hills(canvas, rng, light)
    return tags | {"hill", "grass", "nature"} | _flowers(canvas, rng, light)


def _hills(canvas: Canvas, rng: Random, light: Light) -> list[Point]:
    """Three rows of hills; returns the skyline of the middle one."""
    skylines = []
    for layer in range(3):
        base = canvas.height * (0.6 + 0.13 * layer)
        skylines.append(_ridge(canvas, rng, base, canvas.height * 0.04, 0.35))
        green = mix(_GRASS, (60, 140, 110), 0.2 * layer)
        _ground(canvas, skylines[-1], light.on(green, 0.4 - 0.2 * layer))
    return skylines[1]


def _flowers(canvas: Canvas, rng: Random, light: Light) -> set[str]:
    if chance(rng, 0.4):
        return set()
    name = rng.choice(("red", "white", "yellow", "purple", "pink"))
    for _ in range(rng.randint(40, 80)):
        nearness = rng.random()
        place = (rng.uniform(0, canvas.width), canvas.height * (0.86 + 0.14 * nearness))
        canvas.disc(place, 1.5 + 3 * nearness, light.on(COLOURS[name]))
    return {"flower", "flower_field", f"{name}_flower"}


def _desert(canvas: Canvas, rng: Random) -> set[str]:
    light = pick_light(rng)
    tags = paint_sky(canvas, rng, light, canvas.height * 0.66)
    for layer in range(3):
        dune = _ridge(
            canvas, rng, canvas.height * (0.6 + 0.14 * layer), canvas.height * 0.035, 0.3
        )
        _ground(
            canvas,
            dune,
            light.on(mix((236, 184, 112), (206, 124, 80), 0.3 * layer), 0.35 - 0.17 * layer),
        )
    for _ in range(rng.randint(2, 4)):
        foot = (canvas.width * rng.uniform(0.08, 0.92), canvas.height * rng.uniform(0.8, 0.93))
        paint_cactus(canvas, foot, canvas.height * rng.uniform(0.16, 0.3), light.on((70, 138, 92)))
    return tags | {"desert", "sand", "cactus", "plant"}


def _winter(canvas: Canvas, rng: Random) -> set[str]:
    light = pick_light(rng)
    tags = paint_sky(canvas, rng, light, canvas.height * 0.66) | {"winter", "snow"}
    for layer in range(3):
        base = canvas.height * (0.6 + 0.13 * layer)
        hill = _ridge(canvas, rng, base, canvas.height * 0.03, 0.3)
        _ground(canvas, hill, mix(light.on(SNOW, 0.5 - 0.2 * layer), light.top, 0.12))
        for _ in range(5 - layer):
            x, y = hill[rng.randint(2, 46)]
            paint_pine(
                canvas,
                (x, y + 10),
                canvas.height * (0.14 + 0.07 * layer),
                light.on(_PINE),
                snowy=True,
            )
    tags |= {"tree", "pine_tree"}
    if chance(rng, 0.45):
        tags |= paint_snowman(canvas, rng, light)
    return tags | (paint_weather(canvas, rng, "snow") if chance(rng, 0.6) else set())


def _space(canvas: Canvas, rng: Random) -> set[str]:
    deep, haze = rng.choice(
        (((10, 10, 34), (60, 30, 92)), ((6, 16, 38), (20, 70, 100)), ((20, 8, 30), (110, 40, 80)))
    )
    canvas.wash(deep, mix(deep, haze, 0.7))
    for _ in range(4):
        spot = (rng.uniform(0, canvas.width), rng.uniform(0, canvas.height))
        canvas.glow(spot, canvas.width * rng.uniform(0.2, 0.4), haze, 0.55)
    for _ in range(rng.randint(110, 190)):
        spot = (rng.uniform(0, canvas.width), rng.uniform(0, canvas.height))
        canvas.disc(spot, rng.choice((0.6, 0.8, 1.2, 1.8)), mix(haze, WHITE, rng.uniform(0.4, 1)))
    tags = {"space", "starry_background", "planet"}
    for _ in range(rng.randint(1, 3)):
        tags |= paint_planet(canvas, rng, deep)
    return tags | (paint_rocket(canvas, rng) if chance(rng, 0.5) else set())
