"""Notices: what a publisher says about releases that are already out.

A release never changes, but its bytes can be lost: a publisher who keeps no copies
(``--in-place``) and overwrites a file takes the old one from every release that holds it.  The
signed target ``notices.msgpack`` names such entries, so that a client counts them as *unavailable*
and not as a fault of the host, and never waits for them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import Struct

from manifests import codec
from manifests.codec import Fields
from manifests.errors import ManifestError
from manifests.paths import check_name, check_variant

if TYPE_CHECKING:
    from manifests.columns import U32

# No release can have this name: the client would take the target for a descriptor.
NOTICES_NAME = "notices"
TARGET_NAME = f"{NOTICES_NAME}.msgpack"
MAX_NOTICES_BYTES = 64 * 2**20
_MAX_ABSENCES = 100_000


class Absence(Struct, frozen=True, kw_only=True, eq=False):
    """Entries of one layer and variant whose bytes no host has any more; ``ids`` ascending."""

    layer: str
    variant: str
    ids: U32
    reason: str

    @property
    def order(self) -> tuple[str, str, str]:
        """What absences are sorted by, and what no two of them share."""
        return self.layer, self.variant, self.reason

    @classmethod
    def from_fields(cls, fields: Fields) -> Absence:
        """Read one absence."""
        import numpy as np  # noqa: PLC0415 (0.1 s; few repositories have absences)

        count = fields.uint("count", 2**32 - 1)
        ids = np.frombuffer(fields.blob("ids", 4 * count), "<u4").astype(np.uint32)
        if count and (int(ids[0]) == 0 or not bool(np.all(ids[1:] > ids[:-1]))):
            raise ManifestError(fields.place("ids"), "ids must be positive, unique and ascending")
        return cls(
            layer=check_name(fields.text("layer"), fields.place("layer"), "layer"),
            variant=check_variant(fields.text("variant"), fields.place("variant")),
            ids=ids,
            reason=fields.text("reason"),
        )


class Notices(Struct, frozen=True, kw_only=True, eq=False):
    """All absences, sorted by layer and variant, one for each pair and reason."""

    absences: tuple[Absence, ...] = ()

    def absent_ids(self, layer: str, variant: str) -> U32:
        """Ids of one layer and variant that are unavailable, ascending."""
        import numpy as np  # noqa: PLC0415 (see Absence.from_fields)

        from manifests.columns import distinct  # noqa: PLC0415

        held = [a.ids for a in self.absences if (a.layer, a.variant) == (layer, variant)]
        return distinct(np.concatenate(held)) if held else np.empty(0, np.uint32)

    def encode(self) -> bytes:
        """The canonical bytes of the target."""
        ordered = sorted(self.absences, key=lambda absence: absence.order)
        return codec.encode(
            {
                "format": codec.FORMAT,
                "absences": [
                    {
                        "layer": absence.layer,
                        "variant": absence.variant,
                        "reason": absence.reason,
                        "count": len(absence.ids),
                        "ids": absence.ids.astype("<u4").tobytes(),
                    }
                    for absence in ordered
                ],
            }
        )

    @classmethod
    def decode(cls, data: bytes, where: str = "notices") -> Notices:
        """Read and check the target."""
        fields = codec.decode(data, where, max_bytes=MAX_NOTICES_BYTES)
        listed = fields.maps("absences", _MAX_ABSENCES)
        absences = tuple(Absence.from_fields(item) for item in listed)
        for index, (before, absence) in enumerate(pairwise(absences), start=1):
            if absence.order <= before.order:
                place = f"{fields.place('absences')}[{index}]"
                raise ManifestError(place, "not after the one before (by layer, variant, reason)")
        return cls(absences=absences)
