"""Prompts of the generate room, one Jinja file each (`tasks.worlds.api.prompts`)."""

from __future__ import annotations

from pathlib import Path

from tasks.worlds.api.prompts import Prompts, block

__all__ = ["block", "render"]
render = Prompts(Path(__file__).parent)
