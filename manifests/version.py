"""The version of this program: here, since asking the package for its metadata takes 0.03 s."""

from __future__ import annotations

VERSION = "0.1.0"
