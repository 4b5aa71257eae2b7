"""Prompts of the generate room, one Jinja file each (`tasks.worlds.prompts`)."""

from __future__ import annotations

from pathlib import Path

from tasks.worlds.prompts import Prompts, block

__all__ = ["block", "render"]
render = Prompts(Path(__file__).parent)
