"""Conversations that were served, kept as JSON lines: one an answer, in a file a day below `.cairn/served/`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "served"
"""Of the state root: where answers are kept."""


@dataclass(frozen=True)
class Kept:
    """folder: made at the first answer; None keeps nothing. hear: is given each answer too."""

    folder: Path | None
    hear: Callable[[Mapping[str, Any]], None] | None = None

    def write(self, line: Mapping[str, Any]) -> None:
        """Append an answer: {id, created, model, world, checkpoint (identity, "" of a folder), adapter, problem, messages (the reply
        last), tools, sampling, prompt_ids, ids, finish}; and shadow_of, the id of the answer beside which a shadow's was made. Of
        --with-tools also conversation (its id) and calls (what came of each: id, tool, made, ok, seconds, blocked_by: rule -> why)."""
        if self.hear:
            self.hear(line)
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        day = self.folder / f"{time.strftime('%Y-%m-%d', time.gmtime())}.jsonl"
        with open(day, "ab", buffering=0, opener=_for_its_owner) as file:
            file.write(f"{json.dumps(line, ensure_ascii=False)}\n".encode())  # at once: two agents may write at a time


def _for_its_owner(path: str, flags: int) -> int:
    """Customers' words are no other user's of the machine."""
    return os.open(path, flags, 0o600)
