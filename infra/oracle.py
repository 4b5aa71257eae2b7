"""One setting of a merge method, said once in our words and run by both sides on the same small checkpoints.

mergekit runs as a program in an environment of its own (`infra.peer`), told to compute and to store in float32. It floors every count
where ours rounds the kept ones: for parity, each tensor is given the share that makes ours the floor too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from infra import checkpoints, peer
from tasks.contract.context import Context, seed_of
from tasks.contract.params import BadInput, validate
from tasks.engine import methods
from tasks.merge import Inputs
from tasks.merge.core.headers import Array, open_checkpoint, read, widen

MODEL = checkpoints.Model(width=64, inner=160, layers=3, vocab=100, tied=False)
"""Norms of 64 entries, of which 1 % is none; matrices of 4,096 and 10,240; tables of 6,400."""
OUTSIDE = r"embed_tokens|lm_head|^model\.norm"
"""Tensors of no layer."""

Tensors = Mapping[str, Array]
Outcome = Tensors | str
"""Merged tensors by name, float32; or why there are none."""


def _votes(number: int) -> checkpoints.Draw:
    """Experts 0 and 1 pull every second entry apart by the same amount, exactly, and move the others alike. -1: the base."""

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        rng = np.random.default_rng(seed_of(name))
        base, moved = rng.integers(-16, 17, shape) / 16, rng.integers(1, 32, shape) / 1024
        if number == 1:
            moved *= np.where(np.arange(base.size).reshape(shape) % 2, 1, -1)
        return (base + moved * (number >= 0)).astype(np.float32)

    return draw


def _sparse(number: int) -> checkpoints.Draw:
    """Each expert changed 30 % of the entries. -1: the base."""

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        base = np.random.default_rng(seed_of(name)).standard_normal(shape, dtype=np.float32)
        rng = np.random.default_rng(seed_of(name, number))
        moved = rng.standard_normal(shape, dtype=np.float32) * (rng.random(shape) < 0.3)
        return np.float32(checkpoints.SPREAD) * base + np.float32(checkpoints.STEP * (number >= 0)) * moved

    return draw


def _broken(number: int) -> checkpoints.Draw:
    """As `_sparse`, with one NaN in expert 0."""

    def draw(name: str, shape: tuple[int, ...]) -> Array:
        values = _sparse(number)(name, shape)
        if number == 0 and name == "model.norm.weight":
            values[3] = np.nan
        return values

    return draw


def _drawn(folder: Path, draw: Callable[[int], checkpoints.Draw]) -> None:
    for number, name in enumerate(("base", "expert_0", "expert_1", "expert_2"), -1):
        checkpoints.save(folder / name, MODEL, draw(number))


FAMILIES: Mapping[str, Callable[[Path], None]] = {
    "float32": lambda folder: checkpoints.family(folder, MODEL, 3),
    "bfloat16": lambda folder: checkpoints.family(folder, MODEL, 3, dtype="BF16"),
    "near": lambda folder: checkpoints.family(folder, MODEL, 1, step=0.00063),  # cosines around 0.9995
    "sparse": lambda folder: _drawn(folder, _sparse),
    "votes": lambda folder: _drawn(folder, _votes),
    "NaN": lambda folder: _drawn(folder, _broken),
}
"""Makers of folders with base, expert_0, expert_1, ..."""


def tensors(folder: Path) -> Tensors:
    """All tensors of a checkpoint as float32."""
    found = open_checkpoint(folder.name, folder).tensors
    return {name: widen(read(spec), spec.dtype).copy() for name, spec in found.items()}


@dataclass(frozen=True)
class Family:
    """A base and the experts' changes, by tensor."""

    base: Tensors
    changes: Sequence[Tensors]

    @classmethod
    def open(cls, folder: Path) -> Family:
        """Read it whole."""
        base = tensors(folder / "base")
        experts = [tensors(path) for path in sorted(folder.glob("expert_*"))]
        return cls(base, [{name: expert[name] - base[name] for name in base} for expert in experts])


Configure = Callable[["Case", Path], dict[str, Any]]


def task_vectors(case: Case, folder: Path) -> dict[str, Any]:
    """mergekit: experts with weights and shares, and the base that they are compared with."""
    each = {EACH[key]: value for key, value in case.params.items() if key in EACH}
    models = [
        {"model": str(folder / name), "parameters": {**({"weight": weight} if case.weigh else {}), **each}}
        for name, weight in zip(case.experts, case.weights, strict=True)
    ]
    given = {WHOLE[key]: RESCALE.get(value, value) if key == "rescale" else value for key, value in case.params.items() if key in WHOLE}
    return {"base_model": str(folder / "base"), "models": models, "parameters": {**given, **case.more}}


def average(case: Case, folder: Path) -> dict[str, Any]:
    """mergekit: experts with weights, no base."""
    return {key: value for key, value in task_vectors(case, folder).items() if key != "base_model"}


def arc(case: Case, folder: Path) -> dict[str, Any]:
    """mergekit: from the base (t 0) to the one expert (t 1)."""
    ends = [{"model": str(folder / name)} for name in ("base", *case.experts)]
    return {**task_vectors(case, folder), "models": ends}


def arc_of_changes(case: Case, folder: Path) -> dict[str, Any]:
    """mergekit: between two task vectors, t as the second one's share of the weights."""
    shares = zip(case.experts, (1 - case.params["t"], case.params["t"]), strict=True)
    models = [{"model": str(folder / name), "parameters": {"weight": share}} for name, share in shares]
    return {"base_model": str(folder / "base"), "models": models}


EACH = {"keep": "density", "trim_top": "gamma"}
WHOLE = {"alpha": "lambda", "normalize": "normalize", "rescale": "rescale", "t": "t"}
RESCALE = {"l1": True, "inverse": True, "none": False}
"""Our params as mergekit calls them: per model, for all, and the values of `rescale`."""


@dataclass(frozen=True)
class Case:
    """One setting of one method, in our words. weights: of the first so many experts, given to the method if `weigh`. theirs:
    mergekit's name of it, if it is another. more: parameters for mergekit alone. configure: makes its configuration. stored: it
    computes in the stored dtype. floored: our counts are floors, as its are."""

    method: str
    params: Mapping[str, Any]
    weights: tuple[float | list[float], ...] = (1.0, 1.0, 1.0)
    family: str = "float32"
    theirs: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)
    configure: Configure = task_vectors
    weigh: bool = True
    stored: bool = False
    floored: bool = True

    @property
    def experts(self) -> list[str]:
        """Names of the experts that take part."""
        return [f"expert_{number}" for number in range(len(self.weights))]

    @property
    def setting(self) -> str:
        """For the table."""
        said = [f"{key} {str(value).lower()}" for key, value in self.params.items() if key != "overrides"]
        said += ["weights " + " ".join(map(str, self.weights))] if any(weight != 1 for weight in self.weights) else []
        said += [f"{len(self.weights)} expert" + "s" * (len(self.weights) > 1)] if len(self.weights) != 3 else []
        said += [self.family] if self.family != "float32" else []
        return ", ".join(said) or "defaults"

    def configuration(self, folder: Path) -> dict[str, Any]:
        """mergekit's, for the family in `folder`."""
        dtype = {} if self.stored else {"dtype": "float32"}
        return {"merge_method": self.theirs or self.method, **self.configure(self, folder), **dtype}

    def ours(self) -> dict[str, Any]:
        """Our params: weights by name, and an exception for every tensor whose counts must be floors."""
        given = dict(self.params)
        if self.weigh:
            given["weights"] = dict(zip(self.experts, self.weights, strict=True))
        if self.floored and "keep" in given:
            given["overrides"] = floors(given["keep"], given.get("trim_top"))
        return given


def floors(keep: float, trim_top: float | None) -> list[dict[str, Any]]:
    """Per tensor an exception with shares that ours turns into mergekit's counts: floor(keep n), and floor(trim_top n)."""
    found = []
    for name, shape in MODEL.shapes().items():
        n = math.prod(shape)
        params = {"keep": kept_share(int(keep * n), n)}
        if trim_top is not None:
            params["trim_top"] = trimmed_share(int(trim_top * n), n)
        found.append({"match": f"^{re.escape(name)}$", "params": params})
    return found


def kept_share(count: int, n: int) -> float:
    """A share that ours rounds to `count` of n entries, and that no float's rounding moves to the next count: a quarter of an entry
    below it. The whole is 1.0, none is a share above 0 as the params want it."""
    return 1.0 if count == n else max(count - 0.25, 0.25) / n


def trimmed_share(count: int, n: int) -> float:
    """A share that ours floors to `count` of n entries: an eighth of an entry above it, so that with `kept_share` of the rest the sum
    stays below 1. count / n will not do: the float nearest to 15 / 5184 lies below it, and its floor is 14."""
    return (count + 0.125) / n if count else 0.0


def merge_here(case: Case, folder: Path, out: Path) -> Outcome:
    """Ours, of the family in `folder`; `out` is made."""
    module = methods.load("merge", case.method)
    (out / "scratch").mkdir(parents=True)
    try:
        params = validate(module.Params, case.ours(), case.method)
        inputs = Inputs(folder / "base", {name: folder / name for name in case.experts})
        module.run(inputs, params, Context(seed=0, out=out, scratch=out / "scratch"))
    except BadInput as error:
        return str(error)
    return tensors(out / "model")


def merge_both(cases: Sequence[Case], home: Path) -> list[tuple[Outcome, Outcome, Family]]:
    """(ours, mergekit's, the family) for each case, in folders below `home`."""
    folders = {name: home / name for name in sorted({case.family for case in cases})}
    for name, folder in folders.items():
        FAMILIES[name](folder)
    families = {name: Family.open(folder) for name, folder in folders.items()}
    (home / "theirs").mkdir()
    outs = [home / "theirs" / str(number) for number in range(len(cases))]
    jobs = [(case.configuration(folders[case.family]), out) for case, out in zip(cases, outs, strict=True)]
    said = peer.merges(jobs, ["--random-seed", "0"])
    theirs = [wrong or tensors(out) for wrong, out in zip(said, outs, strict=True)]
    ours = [merge_here(case, folders[case.family], home / "ours" / str(number)) for number, case in enumerate(cases)]
    return [(mine, its, families[case.family]) for case, mine, its in zip(cases, ours, theirs, strict=True)]
