"""Whole runs of a merge method on small folders, and the sum that many methods reduce to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from tasks.contract.context import Context
from tasks.merge import Inputs
from tasks.merge.core.headers import Array
from tests.merge.folders import family
from tests.merge.formulas import f32


@dataclass(frozen=True)
class Outcome:
    """Figures, report rows and tensors of one run, and the sha256 of each file that it left."""

    figures: dict[str, Any]
    rows: list[dict[str, Any]]
    tensors: dict[str, Array]
    digests: dict[str, str]


def outcome(run: Callable[..., dict[str, Any]], inputs: Inputs, params: Any, folder: Path, threads: int = 1, seed: int = 0) -> Outcome:
    """Run a method into an empty folder."""
    out, scratch = folder / "out", folder / "scratch"
    out.mkdir(parents=True)
    scratch.mkdir()
    figures = run(inputs, params, Context(seed=seed, out=out, scratch=scratch, threads=threads))
    files = sorted(path for path in out.rglob("*") if path.is_file())
    return Outcome(
        figures,
        pq.read_table(out / "report.parquet").to_pylist(),
        load_file(out / "model" / "model.safetensors"),
        {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
    )


def on_1_2_and_4_threads(run: Callable[..., dict[str, Any]], params: Any, folder: Path) -> list[dict[str, str]]:
    """Digests of three runs on three experts, the last with the experts given in another order."""
    base, experts = family(folder, experts=3)
    orders = [(1, sorted(experts)), (2, sorted(experts)), (4, sorted(experts, reverse=True))]
    return [
        outcome(run, Inputs(base, {name: experts[name] for name in names}), params, folder / f"{threads}", threads).digests
        for threads, names in orders
    ]


def changes_of(base: Path, experts: dict[str, Path]) -> dict[str, tuple[Array, list[Array]]]:
    """Tensor name -> (the base's, each expert's change), in the order of the experts' names."""
    start = load_file(base / "model.safetensors")
    moved = [load_file(experts[name] / "model.safetensors") for name in sorted(experts)]
    return {name: (theta, [one[name] - theta for one in moved]) for name, theta in start.items()}


def arithmetic(changes: Sequence[Array], weights: Sequence[float], alpha: float) -> Array:
    """Task arithmetic: alpha sum_i w_i d_i, in float32, expert by expert."""
    total = np.zeros_like(changes[0])
    for change, weight in zip(changes, weights, strict=True):
        total += np.float32(weight) * change
    return np.float32(alpha) * total


def normals(seed: int, count: int, shape: tuple[int, ...] = (40, 30)) -> list[Array]:
    """Some random changes."""
    rng = np.random.default_rng(seed)
    return [f32(rng.normal(size=shape)) for _ in range(count)]
