"""People: a head and shoulders with hair, eyes, clothes and a few things to wear."""

from __future__ import annotations

from random import Random

from server.sample.canvas import COLOURS, INK, WHITE, Canvas, Colour, Point, around, mix
from server.sample.skies import chance

_SKINS: tuple[tuple[Colour, set[str]], ...] = (
    ((255, 224, 200), set()),
    ((246, 202, 168), set()),
    ((214, 158, 118), {"tan"}),
    ((142, 94, 66), {"dark_skin"}),
    ((98, 64, 50), {"dark_skin"}),
)
_HAIR: dict[str, Colour] = {
    "black": (52, 46, 62),
    "brown": (122, 78, 54),
    "blonde": (246, 208, 112),
    "red": (192, 76, 56),
    "grey": (164, 166, 178),
    "pink": (244, 150, 182),
    "blue": (92, 142, 214),
    "purple": (142, 106, 190),
    "green": (100, 168, 128),
}
_EYES = ("blue", "green", "brown", "purple", "red", "aqua")
# Hair closer than this to the skin (sum over red, green, blue) would not be seen as hair.
_VISIBLE = 90
_STYLES = ("short_hair", "bob_cut", "long_hair", "twintails", "hair_bun")


def paint_portrait(canvas: Canvas, rng: Random, chin: Point, size: float) -> set[str]:
    """Paint one person; ``chin`` is where the head ends and ``size`` the height of the head."""
    skin, tags = rng.choice(_SKINS)
    hair_name = rng.choice(
        [name for name, tone in _HAIR.items() if _contrast(tone, skin) > _VISIBLE]
    )
    style = rng.choice(_STYLES)
    hair, head = _HAIR[hair_name], (chin[0], chin[1] - size * 0.48)
    tags = {*tags, "portrait", "person", style, f"{hair_name}_hair"}
    _paint_back_hair(canvas, head, size, hair, style)
    tags |= _paint_shoulders(canvas, rng, chin, size, skin)
    canvas.blob(head, size * 0.42, size * 0.5, skin)
    for side in (-1, 1):
        canvas.blob(
            (head[0] + side * size * 0.42, head[1] + size * 0.06), size * 0.07, size * 0.1, skin
        )
    tags |= _paint_face(canvas, rng, head, size, skin)
    _paint_front_hair(canvas, head, size, hair, style)
    return tags | _paint_wear(canvas, rng, head, size)


def _contrast(first: Colour, second: Colour) -> int:
    return sum(abs(a - b) for a, b in zip(first, second, strict=True))


def _paint_back_hair(canvas: Canvas, head: Point, size: float, hair: Colour, style: str) -> None:
    x, y = head
    shade = mix(hair, INK, 0.18)
    if style == "long_hair":
        canvas.box(
            (x - size * 0.55, y - size * 0.2),
            (x + size * 0.55, y + size * 1.05),
            shade,
            radius=size * 0.2,
        )
    elif style == "bob_cut":
        canvas.box(
            (x - size * 0.57, y - size * 0.3),
            (x + size * 0.57, y + size * 0.42),
            shade,
            radius=size * 0.16,
        )
    elif style == "twintails":
        for side in (-1, 1):
            canvas.petal(
                (x + side * size * 0.72, y + size * 0.32),
                size * 0.2,
                size * 0.62,
                side * -14,
                shade,
            )
    elif style == "hair_bun":
        canvas.disc((x, y - size * 0.68), size * 0.22, shade)
    canvas.blob((x, y - size * 0.08), size * 0.53, size * 0.56, shade)


def _paint_shoulders(
    canvas: Canvas, rng: Random, chin: Point, size: float, skin: Colour
) -> set[str]:
    x, y = chin
    name = rng.choice(
        ("red", "orange", "yellow", "green", "aqua", "blue", "purple", "white", "black")
    )
    cloth = COLOURS[name]
    canvas.box(
        (x - size * 0.14, y - size * 0.14), (x + size * 0.14, y + size * 0.3), mix(skin, INK, 0.1)
    )
    canvas.blob((x, y + size * 0.78), size * 0.78, size * 0.62, cloth)
    canvas.box((x - size * 0.78, y + size * 0.76), (x + size * 0.78, y + size * 3), cloth)
    canvas.slice((x, y + size * 0.14), size * 0.26, size * 0.24, span=(0, 180), fill=skin)
    if name == "white" or not chance(rng, 0.3):
        return {"shirt", f"{name}_shirt"}
    for stripe in range(6):
        row = y + size * (0.46 + 0.2 * stripe)
        half = size * (0.62 if stripe == 0 else 0.75)
        canvas.box((x - half, row), (x + half, row + size * 0.07), WHITE)
    return {"shirt", f"{name}_shirt", "striped_clothes"}


def _paint_face(canvas: Canvas, rng: Random, head: Point, size: float, skin: Colour) -> set[str]:
    x, y = head
    eyes = "closed" if chance(rng, 0.15) else rng.choice(_EYES)
    for side in (-1, 1):
        eye = (x + side * size * 0.19, y + size * 0.08)
        if eyes == "closed":
            canvas.arc(eye, size * 0.08, size * 0.06, span=(10, 170), line=INK, width=size * 0.03)
        else:
            canvas.blob(eye, size * 0.095, size * 0.115, WHITE)
            canvas.blob(eye, size * 0.075, size * 0.1, COLOURS[eyes])
            canvas.blob(eye, size * 0.038, size * 0.065, INK)
            canvas.disc((eye[0] - size * 0.025, eye[1] - size * 0.04), size * 0.024, WHITE)
            canvas.arc(eye, size * 0.1, size * 0.12, span=(195, 345), line=INK, width=size * 0.028)
        canvas.arc(
            (eye[0], eye[1] - size * 0.09),
            size * 0.1,
            size * 0.08,
            span=(215, 325),
            line=INK,
            width=size * 0.02,
        )
    canvas.arc(
        (x, y + size * 0.2),
        size * 0.04,
        size * 0.03,
        span=(20, 160),
        line=mix(skin, INK, 0.4),
        width=size * 0.02,
    )
    tags = {"closed_eyes"} if eyes == "closed" else {f"{eyes}_eyes"}
    if chance(rng, 0.4):
        for side in (-1, 1):
            canvas.blob(
                (x + side * size * 0.27, y + size * 0.22),
                size * 0.07,
                size * 0.045,
                mix(skin, (236, 90, 100), 0.45),
            )
        tags.add("blush")
    return tags | _paint_mouth(canvas, rng, (x, y + size * 0.29), size)


def _paint_mouth(canvas: Canvas, rng: Random, mouth: Point, size: float) -> set[str]:
    kind = rng.choice(("smile", "smile", "open_mouth", "frown"))
    if kind == "open_mouth":
        canvas.slice(mouth, size * 0.12, size * 0.13, span=(0, 180), fill=(160, 52, 62))
        return {"open_mouth", "smile"}
    span = (20, 160) if kind == "smile" else (200, 340)
    middle = (mouth[0], mouth[1] + (0 if kind == "smile" else size * 0.07))
    canvas.arc(middle, size * 0.1, size * 0.07, span=span, line=(150, 56, 62), width=size * 0.026)
    return {kind}


def _paint_front_hair(canvas: Canvas, head: Point, size: float, hair: Colour, style: str) -> None:
    x, y = head
    canvas.slice((x, y - size * 0.1), size * 0.5, size * 0.5, span=(180, 360), fill=hair)
    for lock in range(5):
        left = x - size * 0.5 + lock * size * 0.2
        tip = (left + size * 0.1, y - size * (0.02 if lock in {0, 4} else -0.04) + size * 0.02)
        canvas.shape([(left, y - size * 0.12), (left + size * 0.2, y - size * 0.12), tip], hair)
    canvas.arc(
        (x, y - size * 0.2),
        size * 0.34,
        size * 0.28,
        span=(205, 250),
        line=mix(hair, WHITE, 0.4),
        width=size * 0.045,
    )
    if style in {"long_hair", "bob_cut"}:
        for side in (-1, 1):
            canvas.petal(
                (x + side * size * 0.45, y + size * 0.12),
                size * 0.08,
                size * 0.32,
                side * -4,
                hair,
            )
    elif style == "twintails":
        for side in (-1, 1):
            canvas.disc((x + side * size * 0.54, y - size * 0.16), size * 0.09, COLOURS["red"])


def _paint_wear(canvas: Canvas, rng: Random, head: Point, size: float) -> set[str]:
    x, y = head
    kind = rng.choice(("", "", "glasses", "hat", "flower", "headphones"))
    if kind == "glasses":
        for side in (-1, 1):
            canvas.ring(
                (x + side * size * 0.19, y + size * 0.09),
                size * 0.15,
                size * 0.15,
                INK,
                size * 0.026,
            )
        canvas.stroke(
            [(x - size * 0.05, y + size * 0.06), (x + size * 0.05, y + size * 0.06)],
            INK,
            size * 0.026,
        )
        return {"glasses"}
    if kind == "hat":
        name = rng.choice(("red", "green", "blue", "brown"))
        canvas.slice(
            (x, y - size * 0.3), size * 0.42, size * 0.4, span=(180, 360), fill=COLOURS[name]
        )
        canvas.blob((x, y - size * 0.3), size * 0.66, size * 0.1, mix(COLOURS[name], INK, 0.15))
        return {"hat", f"{name}_hat"}
    if kind == "flower":
        name = rng.choice(("red", "white", "yellow", "pink"))
        paint_blossom(canvas, (x + size * 0.36, y - size * 0.34), size * 0.16, COLOURS[name])
        return {"flower", "hair_flower", f"{name}_flower"}
    if kind == "headphones":
        canvas.arc(
            (x, y - size * 0.02),
            size * 0.55,
            size * 0.58,
            span=(190, 350),
            line=INK,
            width=size * 0.06,
        )
        for side in (-1, 1):
            canvas.blob(
                (x + side * size * 0.53, y + size * 0.06), size * 0.1, size * 0.17, COLOURS["red"]
            )
        return {"headphones"}
    return set()


def paint_blossom(canvas: Canvas, centre: Point, radius: float, fill: Colour) -> None:
    """A flower of six petals seen from the front."""
    for petal in range(6):
        canvas.petal(
            around(centre, radius * 0.55, petal * 60),
            radius * 0.5,
            radius * 0.34,
            petal * 60,
            fill,
        )
    canvas.disc(
        centre, radius * 0.3, COLOURS["yellow"] if fill != COLOURS["yellow"] else COLOURS["orange"]
    )
