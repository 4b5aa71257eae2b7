"""Worlds over servers that fail when their tool is called, where other processes find them."""

from __future__ import annotations

from pathlib import Path

from tasks.worlds.adapters import from_mcp

HERE = Path(__file__).parent
Dies = from_mcp(HERE / "dies.yaml", name="dies", policy="R1. Be kind.")
Hangs = from_mcp(HERE / "hangs.yaml", name="hangs", policy="R1. Be kind.")
Babble = from_mcp(HERE / "babble.yaml", name="babble", policy="R1. Be kind.")
TOLD = HERE / "notes.jsonl"
Forgets = from_mcp(HERE / "forgets.yaml", name="forgets", policy="R1. Be kind.", problems_file=TOLD)
Unread = from_mcp(HERE / "unread.yaml", name="unread", policy="R1. Be kind.", problems_file=TOLD)
Notes = from_mcp(HERE / "notes.yaml", name="notes", policy="R1. Be kind.")
