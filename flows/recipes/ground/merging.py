"""The merge room's methods, called as a stage would call them: on checkpoint folders, with a context."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tasks.contract.context import Context
from tasks.contract.params import validate
from tasks.merge import Inputs

if TYPE_CHECKING:
    import torch


FAR = 1e6
"""No expert is refused for having moved far: a recipe's experts do come from the base, and planted outliers are meant to be large."""


class Bench:
    """Merges checkpoints that share a base, one after another, and leaves nothing behind. folder: for what is being merged."""

    def __init__(self, base: Path, folder: Path, seed: int) -> None:
        self.base, self.seed = base, seed
        self._folder = folder
        self._names = (f"{number:05d}" for number in itertools.count())

    def merge(
        self, method: ModuleType, settings: Mapping[str, Any], experts: Mapping[str, Path]
    ) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """The merged weights by name, and the method's figures. method: a module of `tasks.merge`.

        Raises BadInput for settings that the method refuses.
        """
        from flows.recipes.ground.training import load_weights

        name = method.__name__.rpartition(".")[2]
        params = validate(method.Params, {"max_relative_delta": FAR, **settings}, f"merge.{name}")
        work = self._folder / next(self._names)
        out, scratch = work / "out", work / "scratch"
        for folder in (out, scratch):
            folder.mkdir(parents=True)
        figures = method.run(Inputs(self.base, experts), params, Context(seed=self.seed, out=out, scratch=scratch))
        weights = load_weights(out / "model")
        shutil.rmtree(work)
        return weights, figures
