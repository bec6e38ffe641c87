"""Skies and the light they give: the first thing painted in every outdoor picture.

Painters return the tags of what they painted and nothing else, here and in the other scene
modules; that is what makes a query on the sample return pictures that show what was asked for.
"""

from __future__ import annotations

from random import Random

from msgspec import Struct

from server.sample.canvas import WHITE, Canvas, Colour, Point, around, mix


class Light(Struct, frozen=True, kw_only=True):
    """A time of day: the colours of the sky and how it tints what stands below."""

    name: str
    top: Colour
    bottom: Colour
    tint: Colour
    tint_share: float
    tags: tuple[str, ...]

    def on(self, colour: Colour, distance: float = 0) -> Colour:
        """``colour`` in this light; ``distance`` (0 near to 1 at the horizon) adds haze."""
        near = mix(colour, self.tint, self.tint_share)
        return mix(near, self.bottom, distance * 0.75)


def _day(top: Colour, bottom: Colour) -> Light:
    tags = ("day", "blue_sky")
    return Light(name="day", top=top, bottom=bottom, tint=WHITE, tint_share=0.03, tags=tags)


def _sunset(top: Colour, bottom: Colour, sky_tag: str) -> Light:
    return Light(
        name="sunset",
        top=top,
        bottom=bottom,
        tint=(116, 48, 84),
        tint_share=0.32,
        tags=("sunset", sky_tag),
    )


def _night(top: Colour, bottom: Colour) -> Light:
    return Light(
        name="night",
        top=top,
        bottom=bottom,
        tint=(22, 28, 66),
        tint_share=0.58,
        tags=("night", "night_sky"),
    )


_LIGHTS = (
    _day((74, 148, 220), (204, 232, 244)),
    _day((92, 178, 226), (246, 240, 216)),
    _day((112, 160, 232), (226, 224, 248)),
    _sunset((72, 62, 130), (252, 170, 104), "orange_sky"),
    _sunset((98, 66, 140), (255, 176, 166), "pink_sky"),
    _sunset((206, 92, 78), (254, 214, 138), "orange_sky"),
    _night((12, 16, 48), (44, 62, 118)),
    _night((18, 14, 52), (92, 62, 128)),
    _night((8, 26, 54), (30, 96, 116)),
)


def chance(rng: Random, probability: float) -> bool:
    """True with a probability from 0 to 1."""
    return rng.random() < probability


def pick_light(rng: Random, name: str | None = None) -> Light:
    """A random light, of the time of day called ``name`` if one is asked for."""
    return rng.choice([light for light in _LIGHTS if name in {None, light.name}])


def paint_sky(
    canvas: Canvas, rng: Random, light: Light, horizon: float, *, lamp: Point | None = None
) -> set[str]:
    """Fill the canvas down to ``horizon`` (and below, as haze) with a sky.

    ``lamp`` is where sun or moon stand; left out, it is chosen, and the sun sets at the horizon.
    Whoever paints something tall afterwards names a place that stays in view.
    """
    canvas.wash(light.top, light.bottom, 0, horizon)
    canvas.wash(light.bottom, light.bottom, horizon, canvas.height)
    tags = {"outdoors", "sky", *light.tags}
    low, high = (0.82, 0.97) if light.name == "sunset" else (0.22, 0.5)
    spot = lamp or (canvas.width * rng.uniform(0.15, 0.85), horizon * rng.uniform(low, high))
    if light.name == "night":
        tags |= _paint_stars(canvas, rng, horizon)
        tags |= _paint_moon(canvas, rng, spot)
    elif light.name == "sunset" or chance(rng, 0.5):
        tags |= _paint_sun(canvas, rng, light, spot)
    if chance(rng, 0.25 if light.name == "night" else 0.65):
        tags |= _paint_clouds(canvas, rng, light, horizon, spot)
    if light.name != "night" and chance(rng, 0.2):
        tags |= _paint_birds(canvas, rng, light, horizon)
    return tags


def high_lamp(canvas: Canvas, rng: Random) -> Point:
    """A place for sun or moon above whatever stands on the ground."""
    return canvas.width * rng.uniform(0.15, 0.85), canvas.height * rng.uniform(0.1, 0.17)


def corner_lamp(canvas: Canvas, rng: Random) -> Point:
    """A place for sun or moon beside whatever stands in the middle."""
    return canvas.width * rng.choice((0.1, 0.9)), canvas.height * rng.uniform(0.1, 0.14)


def _paint_stars(canvas: Canvas, rng: Random, horizon: float) -> set[str]:
    for _ in range(rng.randint(50, 130)):
        place = (rng.uniform(0, canvas.width), rng.uniform(0, horizon))
        canvas.disc(
            place, rng.choice((0.6, 0.8, 1.1, 1.6)), mix((150, 160, 220), WHITE, rng.random())
        )
    if chance(rng, 0.15):
        start = (canvas.width * rng.uniform(0.1, 0.6), horizon * rng.uniform(0.1, 0.3))
        for step in range(12):
            trail = (start[0] + step * 5, start[1] + step * 2.6)
            canvas.disc(trail, 0.3 + step * 0.14, mix((150, 160, 220), WHITE, step / 11))
        return {"star_(sky)", "starry_sky", "shooting_star"}
    return {"star_(sky)", "starry_sky"}


def _paint_moon(canvas: Canvas, rng: Random, spot: Point) -> set[str]:
    radius = min(canvas.width, canvas.height) * rng.uniform(0.06, 0.11)
    ivory = (252, 244, 214)
    canvas.glow(spot, radius * 4, ivory, 0.4)
    if chance(rng, 0.45):
        outer = [around(spot, radius, angle) for angle in range(60, 301, 8)]
        hollow = around(spot, radius * 0.5, 0)
        inner = [around(hollow, radius * 0.866, angle) for angle in range(270, 89, -8)]
        canvas.shape(outer + inner, ivory)
        return {"moon", "crescent_moon"}
    canvas.disc(spot, radius, ivory)
    for angle in (20, 150, 260):
        crater = around(spot, radius * 0.5, angle + rng.uniform(-25, 25))
        canvas.disc(crater, radius * rng.uniform(0.1, 0.22), (232, 222, 190))
    return {"moon", "full_moon"}


def _paint_sun(canvas: Canvas, rng: Random, light: Light, spot: Point) -> set[str]:
    radius = min(canvas.width, canvas.height) * rng.uniform(0.06, 0.1)
    if light.name == "sunset":
        radius *= 1.5
    canvas.glow(spot, radius * 4.5, (255, 240, 190), 0.75)
    canvas.disc(spot, radius, (255, 246, 214))
    return {"sun"}


def _paint_clouds(
    canvas: Canvas, rng: Random, light: Light, horizon: float, lamp: Point
) -> set[str]:
    """Clouds that leave ``lamp``, the place of sun or moon, uncovered."""
    size = canvas.width * rng.uniform(0.03, 0.055)
    side = -1 if lamp[0] > canvas.width / 2 else 1
    for _ in range(rng.randint(2, 3)):
        reach = rng.uniform(5.5 * size, canvas.width * 0.75)
        x, y = lamp[0] + side * reach, horizon * rng.uniform(0.14, 0.7)
        puff = mix(light.on(WHITE), light.bottom, 0.15 + 0.4 * y / horizon)
        for _ in range(rng.randint(4, 6)):
            offset = rng.uniform(-2.2, 2.2)
            swell = size * (1.1 - abs(offset) * 0.3)
            canvas.disc((x + offset * size, y - swell * 0.4), swell, puff)
        low = (x - size * 3, y - size * 0.3)
        canvas.box(low, (x + size * 3, y + size * 0.5), puff, radius=size * 0.4)
    return {"cloud"}


def _paint_birds(canvas: Canvas, rng: Random, light: Light, horizon: float) -> set[str]:
    x, y = canvas.width * rng.uniform(0.2, 0.8), horizon * rng.uniform(0.2, 0.5)
    dark = light.on((60, 62, 84))
    for _ in range(rng.randint(3, 7)):
        place = (x + rng.uniform(-60, 60), y + rng.uniform(-34, 34))
        wing = rng.uniform(6, 11)
        for side, span in ((-1, (200, 350)), (1, (190, 340))):
            centre = (place[0] + side * wing * 0.9, place[1])
            canvas.arc(centre, wing, wing * 0.7, span=span, line=dark, width=1.6)
    return {"bird", "flock"}


def paint_weather(canvas: Canvas, rng: Random, kind: str) -> set[str]:
    """Let ``kind`` (``snow`` or ``rain``) fall in front of everything painted so far."""
    if kind == "snow":
        for _ in range(rng.randint(70, 150)):
            place = (rng.uniform(0, canvas.width), rng.uniform(0, canvas.height))
            canvas.disc(place, rng.uniform(1.0, 3.2), WHITE)
        return {"snowing"}
    for _ in range(rng.randint(60, 120)):
        x, y = rng.uniform(0, canvas.width), rng.uniform(-20, canvas.height)
        canvas.stroke([(x, y), (x - 5, y + rng.uniform(12, 24))], (190, 208, 232), 1.2)
    return {"rain"}
