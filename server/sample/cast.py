"""Who appears in the pictures: chance creatures, and a cast that recurs under its own names."""

from __future__ import annotations

from random import Random

from msgspec import Struct

from server.sample.skies import chance

_FURS = {
    "cat": ("black", "white", "grey", "orange", "brown"),
    "rabbit": ("white", "grey", "brown", "pink"),
    "bear": ("brown", "white", "black", "pink"),
    "fox": ("orange", "grey", "white"),
    "dog": ("brown", "white", "black", "grey"),
    "mouse": ("grey", "white", "brown"),
    "frog": ("green", "aqua"),
    "robot": ("grey", "aqua", "red", "yellow"),
    "ghost": ("white",),
}
_EYES = ("green", "blue", "yellow", "orange", "aqua", "purple")
EYES_CLOSED = "closed"


class Creature(Struct, frozen=True, kw_only=True):
    """What one animal looks like; ``name`` is set for the recurring characters alone."""

    species: str
    fur: str
    eyes: str
    scarf: str | None = None
    name: str | None = None

    @property
    def tags(self) -> set[str]:
        """What a viewer can see of it."""
        tags = {self.species, f"{self.fur}_{self.species}"}
        tags |= {"closed_eyes"} if self.eyes == EYES_CLOSED else {f"{self.eyes}_eyes"}
        if self.species not in {"robot", "ghost"}:
            tags |= {"animal", "animal_focus"}
        if self.scarf is not None:
            tags |= {"scarf", f"{self.scarf}_scarf"}
        if self.name is not None:
            tags |= {self.name, SERIES}
        return tags


# The recurring cast: a character tag always means this very look.
SERIES = "tin_and_whiskers"
CAST = (
    Creature(species="cat", fur="white", eyes="blue", scarf="red", name="mochi_(cat)"),
    Creature(species="cat", fur="black", eyes="yellow", scarf="purple", name="sumi_(cat)"),
    Creature(species="cat", fur="orange", eyes="green", scarf="blue", name="kinako_(cat)"),
    Creature(species="robot", fur="aqua", eyes="yellow", scarf="orange", name="bolt_(robot)"),
    Creature(species="fox", fur="orange", eyes="aqua", scarf="green", name="maple_(fox)"),
)


def pick_creature(rng: Random) -> Creature:
    """A random creature, sometimes one of the cast, most often a cat."""
    if chance(rng, 0.25):
        return rng.choice(CAST)
    species = rng.choice(("cat", "cat", "cat", *_FURS))
    return Creature(
        species=species,
        fur=rng.choice(_FURS[species]),
        eyes=EYES_CLOSED if chance(rng, 0.2) else rng.choice(_EYES),
        scarf=rng.choice(("red", "blue", "green", "yellow")) if chance(rng, 0.25) else None,
    )
