"""Where things of a tree lie: variants (perhaps on other disks), assets, private folders."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct, field

from manifests.paths import Layout, SafePath


class Places(Struct, frozen=True, kw_only=True):
    """Folders of one tree.  ``root`` of a variant also holds its staging and trash (same disk)."""

    tree: Path
    layout: Layout
    variant_dirs: Mapping[str, str] = field(default_factory=dict)

    def root(self, variant: str) -> Path:
        """The folder whose descriptors all steps to the variant's files start from."""
        return Path(self.variant_dirs[variant]) if variant in self.variant_dirs else self.tree

    def variant_parts(self, variant: str) -> tuple[str, ...]:
        """Folder names from the root to the variant."""
        return () if variant in self.variant_dirs else (variant,)

    def folder(self, variant: str, bucket: int) -> tuple[str, ...]:
        """Folder names from the root to a bucket."""
        return (*self.variant_parts(variant), self.layout.bucket_name(bucket))

    def asset(self, path: SafePath) -> tuple[Path, tuple[str, ...]]:
        """Root and folder names of an asset; one below a moved variant lies with the variant."""
        parts = path.parts
        if len(parts) > 1 and parts[0] in self.variant_dirs:
            return Path(self.variant_dirs[parts[0]]), parts[1:-1]
        return self.tree, parts[:-1]

    def roots(self) -> tuple[Path, ...]:
        """Every root, the tree first."""
        return tuple(dict.fromkeys([self.tree, *map(Path, self.variant_dirs.values())]))
