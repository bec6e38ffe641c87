"""Publishing: from a tree to a signed release.

Rules:

* Nothing that a live release names is changed, and nothing names what is not yet on the disk: files,
  objects and descriptor are written and synced first, signed last.  Killed anywhere before that, the
  repository serves what it served; the same command then goes on where it was.
* The same tree, base and date give the same objects and descriptor, whoever does the work and in
  what order.
* Columns only: what is kept for a file until the end is a few dozen bytes.

The order of work: survey every bucket, check the room on the disk, read and link what is needed,
store assets, audit (:meth:`Publication.prepare`); then manifests, notices, packs, descriptor,
signature (:meth:`Publication.finish`).  Who holds the repository's lock may call them.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np

from manifests.digest import Digest
from manifests.errors import ConfigError, ManifestError
from manifests.model import Asset, Descriptor, LayerRef
from manifests.notices import TARGET_NAME, Notices
from manifests.paths import SafePath
from server.absences import current_notices
from server.assets import (
    AssetTask,
    StoredAsset,
    batches,
    decode_seen,
    encode_seen,
    limit_assets,
    store_assets,
    to_asset,
)
from server.audit import AuditReport, audit_files
from server.buckets import carry_out, survey
from server.capacity import require_room, usable_methods
from server.crew import Crew
from server.harvest import Harvest
from server.lineage import LayerFile, lineage_buckets
from server.links import Method, Target
from server.memory import Memory
from server.metadata import find_metadata
from server.posts import merge_posts, read_posts
from server.progress import Progress
from server.record import HARD, IN_PLACE, ServedRecord, write_served
from server.repository import DESCRIPTOR_SUFFIX, History, Repository, sync_file_system
from server.signing import Signing
from server.walk import find_variants, walk_assets, walk_variant
from server.work import BucketReport, BucketTask, Counts, Placement, Workload

# A survey that takes no longer than this needs no other processes, and fewer files than that neither.
_ALONE_S: Final = 0.3
_ALONE_FILES: Final = 500
