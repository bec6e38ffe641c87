"""A small drawing surface over Pillow: smooth edges, soft light, named colours.

Pillow draws without anti-aliasing, so a canvas is twice as wide and high as the picture and is
averaged down at the end.  Lengths are pixels of the finished picture, angles are degrees
clockwise from three o'clock, and nothing here chooses anything: chance belongs to the scenes.
"""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

# Twice is enough for flat shapes; four times costs four times as much and looks the same.
_OVERSAMPLE = 2
_UNIT_CIRCLE = [
    (math.cos(step * math.pi / 12), math.sin(step * math.pi / 12)) for step in range(24)
]

_CONE = Image.radial_gradient("L")

WHITE: Colour = (255, 255, 255)
INK: Colour = (38, 34, 48)

# Colours as a person tagging a picture would name them, each far from its neighbours.
COLOURS: dict[str, Colour] = {
    "red": (214, 64, 69),
    "orange": (240, 140, 58),
    "yellow": (250, 204, 88),
    "green": (92, 166, 96),
    "aqua": (92, 200, 196),
    "blue": (74, 128, 208),
    "purple": (132, 92, 184),
    "pink": (244, 158, 180),
    "brown": (134, 88, 58),
    "grey": (146, 148, 158),
    "white": (248, 246, 240),
    "black": (46, 42, 54),
}

# Those that catch the eye.
VIVID = ("red", "orange", "yellow", "green", "aqua", "blue", "purple", "pink")


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """``first`` with ``share`` (0 to 1) of ``second`` in it."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def shaded(colour: Colour) -> Colour:
    """``colour`` as it looks on the side away from the light."""
    return mix(colour, INK, 0.16)


def _spot(strength: float) -> Image.Image:
    """A square mask, ``strength`` (0 to 1) in the middle and nothing from the rim on."""
    # Pillow's radial gradient counts from 0 in the middle to 181 where the rim touches the sides.
    fade = [max(0, 255 - round(depth * 1.42)) ** 2 * strength / 255 for depth in range(256)]
    return _CONE.point([round(level) for level in fade])


class Canvas:
    """A picture being drawn, ``width`` by ``height`` pixels once finished."""

    def __init__(self, width: int, height: int, ground: Colour = WHITE) -> None:
        self.width = width
        self.height = height
        self._image = Image.new("RGB", (width * _OVERSAMPLE, height * _OVERSAMPLE), ground)
        self._draw = ImageDraw.Draw(self._image)

    def finish(self) -> Image.Image:
        """The picture at its final size."""
        return self._image.reduce(_OVERSAMPLE)

    def inset(self, other: Canvas, corner: tuple[int, int]) -> None:
        """Lay another canvas over this one, its upper left corner at ``corner``."""
        self._image.paste(other._image, (corner[0] * _OVERSAMPLE, corner[1] * _OVERSAMPLE))

    def wash(
        self, top: Colour, bottom: Colour, start: float = 0, end: float | None = None
    ) -> None:
        """Fill the rows from ``start`` to ``end`` (default: all) with a vertical gradient."""
        first = round(start * _OVERSAMPLE)
        rows = round((self.height if end is None else end) * _OVERSAMPLE) - first
        if rows < 1:
            return
        column = Image.new("RGB", (1, 2), top)
        column.putpixel((0, 1), bottom)
        # The strip is stretched in height alone first: far fewer pixels pass the slow filter.
        strip = column.resize((1, rows), Image.Resampling.BILINEAR)
        wide = strip.resize((self._image.width, rows), Image.Resampling.NEAREST)
        self._image.paste(wide, (0, first))

    def glow(
        self, centre: Point, radius: float, colour: Colour, strength: float, flat: float = 1
    ) -> None:
        """Light or shadow: ``strength`` (0 to 1) in the middle, none from ``radius`` on.

        ``flat`` is the height of the spot as a share of its width.
        """
        rx, ry = radius * _OVERSAMPLE, radius * flat * _OVERSAMPLE
        x, y = centre[0] * _OVERSAMPLE, centre[1] * _OVERSAMPLE
        # Much of a wide glow lies outside; only the part that shows is computed.
        left, top = max(0, round(x - rx)), max(0, round(y - ry))
        right = min(self._image.width, round(x + rx))
        bottom = min(self._image.height, round(y + ry))
        if right <= left or bottom <= top:
            return
        spot = _spot(strength)
        across, down = spot.width / (2 * rx), spot.height / (2 * ry)
        shown = (
            max(0, (left - x + rx) * across),
            max(0, (top - y + ry) * down),
            min(spot.width, (right - x + rx) * across),
            min(spot.height, (bottom - y + ry) * down),
        )
        mask = spot.resize((right - left, bottom - top), Image.Resampling.BILINEAR, shown)
        self._image.paste(colour, (left, top), mask)

    def blob(self, centre: Point, rx: float, ry: float, fill: Colour) -> None:
        """A filled ellipse."""
        self._draw.ellipse(self._frame(centre, rx, ry), fill=fill)

    def disc(self, centre: Point, radius: float, fill: Colour) -> None:
        """A filled circle."""
        self.blob(centre, radius, radius, fill)

    def ring(self, centre: Point, rx: float, ry: float, line: Colour, width: float) -> None:
        """The outline of an ellipse."""
        self._draw.ellipse(self._frame(centre, rx, ry), outline=line, width=self._pen(width))

    def arc(  # noqa: PLR0913 (what an arc is made of)
        self,
        centre: Point,
        rx: float,
        ry: float,
        *,
        span: tuple[float, float],
        line: Colour,
        width: float,
    ) -> None:
        """Part of an ellipse's outline, from the first to the second angle of ``span``."""
        box = self._frame(centre, rx, ry)
        self._draw.arc(box, span[0], span[1], fill=line, width=self._pen(width))

    def slice(
        self, centre: Point, rx: float, ry: float, *, span: tuple[float, float], fill: Colour
    ) -> None:
        """A piece of pie."""
        self._draw.pieslice(self._frame(centre, rx, ry), span[0], span[1], fill=fill)

    def petal(self, centre: Point, rx: float, ry: float, angle: float, fill: Colour) -> None:
        """A filled ellipse turned by ``angle``."""
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        corners = [
            (centre[0] + rx * x * cos - ry * y * sin, centre[1] + rx * x * sin + ry * y * cos)
            for x, y in _UNIT_CIRCLE
        ]
        self.shape(corners, fill)

    def shape(self, corners: list[Point], fill: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon(self._scaled(corners), fill=fill)

    def stroke(self, points: list[Point], line: Colour, width: float) -> None:
        """A line through points, with round ends."""
        self._draw.line(self._scaled(points), fill=line, width=self._pen(width), joint="curve")
        for end in (points[0], points[-1]):
            self.disc(end, width / 2, line)

    def box(self, corner: Point, opposite: Point, fill: Colour, *, radius: float = 0) -> None:
        """A filled rectangle with corners rounded by ``radius``."""
        (left, top), (right, bottom) = self._scaled([corner, opposite])
        if right <= left or bottom <= top:
            return
        self._draw.rounded_rectangle(
            (left, top, right, bottom), radius=radius * _OVERSAMPLE, fill=fill
        )

    def star(self, centre: Point, radius: float, fill: Colour, *, points: int = 5) -> None:
        """A star with one point up."""
        corners = []
        for step in range(2 * points):
            reach = radius if step % 2 == 0 else radius * 0.45
            corners.append(around(centre, reach, 180 * step / points - 90))
        self.shape(corners, fill)

    def _frame(self, centre: Point, rx: float, ry: float) -> tuple[float, float, float, float]:
        (left, top), (right, bottom) = self._scaled(
            [(centre[0] - rx, centre[1] - ry), (centre[0] + rx, centre[1] + ry)]
        )
        return left, top, right, bottom

    @staticmethod
    def _scaled(points: list[Point]) -> list[Point]:
        return [(x * _OVERSAMPLE, y * _OVERSAMPLE) for x, y in points]

    @staticmethod
    def _pen(width: float) -> int:
        return max(1, round(width * _OVERSAMPLE))


def around(centre: Point, reach: float, angle: float) -> Point:
    """The point at distance ``reach`` from ``centre`` in the direction of ``angle``."""
    turn = math.radians(angle)
    return centre[0] + reach * math.cos(turn), centre[1] + reach * math.sin(turn)
