"""Moorline: publish a build once to a shared mount, make it live by one symlink."""

from __future__ import annotations

__version__ = "0.1.0"
