"""Task arithmetic, the plainest formula, and a merge with it: for tests of what the engine does around any formula."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tasks.merge.core.engine import Formula, Look, Report, merge
from tasks.merge.core.headers import Array
from tasks.merge.core.params import MergeParams, check_labels, check_merge
from tasks.merge.core.plan import make_plan
from tasks.merge.core.tensors import Block, Tensor


def add_all(tensor: Tensor) -> Look:
    """sum_i w_i d_i."""

    def blend(block: Block) -> Array:
        total = np.zeros_like(block.base)
        for change, weight in zip(block.changes, tensor.weights, strict=True):
            total += np.float32(weight) * change
        return total

    return Look(blend)


def merged(
    base: Path,
    experts: Mapping[str, Path],
    out: Path,
    formula: Formula = add_all,
    threads: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
    **params: Any,
) -> Report:
    """Merge into the folder `out`; `params` are those that all methods share. The scratch folder stands beside it."""
    chosen = MergeParams(**{"max_relative_delta": 9.0, **params})
    check_merge(chosen)
    plan = make_plan(base, experts, chosen)
    check_labels("arithmetic", chosen, plan.labels, list(plan.specs))
    return merge(plan, formula, out, chosen, scratch=scratch_of(out), metadata={"k": "v"}, workers=threads, progress=progress)


def scratch_of(out: Path) -> Path:
    """The scratch folder of `merged`."""
    folder = out.with_name(f"{out.name}.scratch")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def digests(folder: Path) -> dict[str, str]:
    """File name -> sha256 of everything under a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
