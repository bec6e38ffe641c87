"""Still lifes: things on a table in front of a plain wall."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from server.sample.canvas import COLOURS, INK, VIVID, WHITE, Canvas, Point, around, mix
from server.sample.portraits import paint_blossom
from server.sample.skies import chance


def paint_still_life(canvas: Canvas, rng: Random) -> set[str]:
    """Paint one or a few things on a table in front of a plain wall."""
    wall_name, table = (
        rng.choice(("aqua", "yellow", "pink", "blue", "purple", "green")),
        canvas.height * 0.7,
    )
    wall = mix(COLOURS[wall_name], WHITE, 0.42)
    canvas.wash(mix(wall, WHITE, 0.2), wall)
    wood = mix(COLOURS["brown"], WHITE, rng.uniform(0.1, 0.35))
    canvas.wash(wood, mix(wood, INK, 0.25), table)
    foot = (canvas.width / 2, canvas.height * 0.86)
    size = min(canvas.height * 0.74, canvas.width * 0.62)
    canvas.glow(foot, size * 0.75, INK, 0.5, flat=0.16)
    painters: list[Callable[[Canvas, Random, Point, float], set[str]]] = [
        _vase,
        _cup,
        _cake,
        _fruit,
        _mushrooms,
    ]
    thing = rng.choice(painters)
    tags = {"still_life", "no_humans", "table", f"{wall_name}_background", "simple_background"}
    return tags | thing(canvas, rng, foot, size)


def _vase(canvas: Canvas, rng: Random, foot: Point, size: float) -> set[str]:
    (x, y), (glass, petals) = (
        foot,
        rng.sample(("red", "yellow", "blue", "purple", "pink", "white"), 2),
    )
    for angle in (-128, -108, -88, -70, -52):
        tip = around((x, y - size * 0.4), size * rng.uniform(0.46, 0.58), angle)
        canvas.stroke([(x, y - size * 0.4), tip], (74, 134, 84), size * 0.022)
        leaf = around((x, y - size * 0.4), size * 0.24, angle + 7)
        canvas.petal(leaf, size * 0.09, size * 0.035, angle + 30, (92, 156, 96))
        paint_blossom(canvas, tip, size * 0.12, COLOURS[petals])
    clay = COLOURS[glass]
    canvas.blob((x, y - size * 0.17), size * 0.2, size * 0.19, clay)
    canvas.box((x - size * 0.09, y - size * 0.46), (x + size * 0.09, y - size * 0.28), clay)
    canvas.box(
        (x - size * 0.13, y - size * 0.48),
        (x + size * 0.13, y - size * 0.43),
        mix(clay, WHITE, 0.25),
        radius=size * 0.02,
    )
    canvas.petal(
        (x - size * 0.09, y - size * 0.2), size * 0.03, size * 0.09, 12, mix(clay, WHITE, 0.45)
    )
    return {"flower", f"{petals}_flower", "vase", "plant"}


def _cup(canvas: Canvas, rng: Random, foot: Point, size: float) -> set[str]:
    (x, y), name = foot, rng.choice(("red", "yellow", "green", "blue", "white", "pink"))
    china = COLOURS[name]
    canvas.blob((x, y - size * 0.03), size * 0.5, size * 0.07, mix(china, WHITE, 0.45))
    canvas.ring(
        (x + size * 0.34, y - size * 0.28),
        size * 0.14,
        size * 0.13,
        mix(china, INK, 0.1),
        size * 0.05,
    )
    canvas.slice((x, y - size * 0.46), size * 0.36, size * 0.43, span=(0, 180), fill=china)
    canvas.blob((x, y - size * 0.46), size * 0.36, size * 0.08, mix(china, WHITE, 0.4))
    canvas.blob((x, y - size * 0.455), size * 0.31, size * 0.06, (112, 70, 48))
    for column in (-0.14, 0.0, 0.14):
        rows = range(10)
        steam = [
            (
                x + size * (column + 0.025 * (1 if row % 4 > 1 else -1)),
                y - size * (0.58 + 0.03 * row),
            )
            for row in rows
        ]
        canvas.stroke(steam, mix(WHITE, china, 0.12), size * 0.018)
    tags = {"cup", f"{name}_cup", "coffee", "steam"}
    if chance(rng, 0.5):
        canvas.disc((x - size * 0.72, y + size * 0.0), size * 0.12, (206, 150, 92))
        for angle in range(0, 360, 72):
            canvas.disc(
                around((x - size * 0.72, y), size * 0.06, angle), size * 0.018, (96, 58, 40)
            )
        tags |= {"food", "cookie"}
    return tags


def _cake(canvas: Canvas, rng: Random, foot: Point, size: float) -> set[str]:
    (x, y), name = foot, rng.choice(("pink", "yellow", "aqua", "brown", "purple"))
    cream, sponge = COLOURS[name], (238, 204, 150)
    canvas.blob((x, y), size * 0.56, size * 0.07, (236, 236, 242))
    canvas.box(
        (x - size * 0.42, y - size * 0.36), (x + size * 0.42, y), sponge, radius=size * 0.03
    )
    canvas.box(
        (x - size * 0.42, y - size * 0.2),
        (x + size * 0.42, y - size * 0.15),
        mix(cream, WHITE, 0.3),
    )
    canvas.box(
        (x - size * 0.42, y - size * 0.42),
        (x + size * 0.42, y - size * 0.3),
        cream,
        radius=size * 0.05,
    )
    for drop in range(8):
        canvas.disc(
            (x + size * (-0.37 + 0.105 * drop), y - size * (0.3 - 0.03 * (drop % 2))),
            size * 0.055,
            cream,
        )
    candles = rng.randint(1, 5)
    for candle in range(candles):
        column = x + size * 0.14 * (candle - (candles - 1) / 2)
        canvas.box(
            (column - size * 0.016, y - size * 0.6),
            (column + size * 0.016, y - size * 0.4),
            COLOURS[VIVID[candle]],
        )
        canvas.glow((column, y - size * 0.65), size * 0.13, (255, 220, 120), 0.8)
        canvas.blob((column, y - size * 0.645), size * 0.018, size * 0.035, COLOURS["orange"])
    return {"food", "cake", "birthday_cake", "candle", "fire"}


def _fruit(canvas: Canvas, rng: Random, foot: Point, size: float) -> set[str]:
    x, y = foot
    tags = {"food", "fruit"}
    for column in (-0.38, 0.36, 0.0):
        kind, skin = rng.choice(
            (
                ("apple", "red"),
                ("apple", "green"),
                ("orange_(fruit)", "orange"),
                ("lemon", "yellow"),
            )
        )
        centre = (x + column * size, y - size * (0.2 if column else 0.14))
        if kind == "lemon":
            canvas.petal(centre, size * 0.25, size * 0.17, -14, COLOURS[skin])
            canvas.disc(around(centre, size * 0.24, -14), size * 0.04, COLOURS[skin])
        else:
            canvas.blob(centre, size * 0.22, size * 0.205, COLOURS[skin])
        canvas.petal(
            (centre[0] - size * 0.08, centre[1] - size * 0.08),
            size * 0.06,
            size * 0.035,
            -40,
            mix(COLOURS[skin], WHITE, 0.5),
        )
        if kind != "lemon":
            stem = (centre[0], centre[1] - size * 0.18)
            canvas.stroke(
                [stem, (stem[0] + size * 0.03, stem[1] - size * 0.1)],
                COLOURS["brown"],
                size * 0.022,
            )
            canvas.petal(
                (stem[0] + size * 0.09, stem[1] - size * 0.06),
                size * 0.07,
                size * 0.03,
                -20,
                (88, 152, 84),
            )
        tags |= {kind} if kind != "apple" else {kind, f"{skin}_apple"}
    return tags


def _mushrooms(canvas: Canvas, rng: Random, foot: Point, size: float) -> set[str]:
    x, y = foot
    name = rng.choice(("red", "orange", "blue", "purple", "brown"))
    for column, scale in ((-0.34, 0.6), (0.36, 0.5), (0.0, 1.0)):
        middle, tall = x + column * size, size * 0.75 * scale
        canvas.box(
            (middle - tall * 0.13, y - tall * 0.6),
            (middle + tall * 0.13, y),
            (244, 232, 208),
            radius=tall * 0.1,
        )
        canvas.slice(
            (middle, y - tall * 0.55),
            tall * 0.46,
            tall * 0.48,
            span=(180, 360),
            fill=COLOURS[name],
        )
        canvas.blob(
            (middle, y - tall * 0.55), tall * 0.46, tall * 0.07, mix(COLOURS[name], INK, 0.25)
        )
        for angle, reach in ((-140, 0.3), (-92, 0.33), (-45, 0.3), (-115, 0.16), (-62, 0.17)):
            canvas.disc(
                around((middle, y - tall * 0.56), tall * reach, angle),
                tall * 0.05,
                (252, 246, 234),
            )
    return {"mushroom", f"{name}_mushroom"}
