"""How many tokens this process has computed with models, for people who compare a run with its forecast. No result depends on it."""

from __future__ import annotations

from collections import Counter

TOKENS: Counter[str] = Counter()
"""Kind -> tokens so far. trained: passed forward and backward. scored: forward alone, by a training. read: of prompts, as engines
computed them (what was found computed is not among them). produced: by engines."""
