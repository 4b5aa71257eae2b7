"""What a stage's process used of the machine: memory at its peak, tokens by kind, seconds. It is kept beside the figures, in no key."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tasks.contract.computed import TOKENS

FORKS: list[Mapping[str, Any]] = []
"""What the forks of this process used that have ended."""


def begin() -> None:
    """Count from here: a fork has its parent's counts."""
    TOKENS.clear()
    FORKS.clear()


def used(seconds: float) -> dict[str, Any]:
    """Of this process and its forks so far.

    peak: bytes of resident memory of the largest of them. gpu_peak: bytes that torch took of a GPU, at the most; left out where it took
    none. tokens: kind -> count, of all together.
    """
    torch: Any = sys.modules.get("torch")
    on_gpu = torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized()
    own = {"seconds": round(seconds, 3), "peak": peak(), "tokens": dict(TOKENS)}
    return together([own | ({"gpu_peak": torch.cuda.max_memory_reserved()} if on_gpu else {}), *FORKS]) | {"seconds": own["seconds"]}


def together(parts: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Of several processes: the longest time, the largest memory, all tokens."""
    parts = list(parts)
    kinds = sorted({kind for one in parts for kind in one["tokens"]})
    return {
        "seconds": max(one["seconds"] for one in parts),
        **{name: max(one.get(name, 0) for one in parts) for name in ("peak", "gpu_peak") if any(name in one for one in parts)},
        "tokens": {kind: sum(one["tokens"].get(kind, 0) for one in parts) for kind in kinds},
    }


def peak() -> int:
    """Bytes of resident memory of this process at its peak. Linux's own count: the one of getrusage also holds the parent's of before
    this program was started. 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)
