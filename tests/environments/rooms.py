"""The rooms called as their tasks call them, on environments: worlds, base, generate, sft, rl, evaluate in one process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks import base, evaluate, generate, rl, sft
from tasks.base import closed_vocabulary
from tasks.contract.context import Context
from tasks.evaluate import episodes, row_scores
from tasks.generate import expert_rows
from tasks.players import roles
from tasks.rl import grpo
from tasks.rl.core import loop as reinforcing
from tasks.sft import sft as plain
from tasks.sft.core import loop
from tasks.worlds import environments
from tests.playing import playing

SIZES = {"layers": 2, "width": 64, "heads": 2}


class Rooms:
    """Steps in folders of their own below `folder`; each returns its figures and leaves what it leaves in folder/<name>."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder, self.seed = folder, seed

    def context(self, name: str) -> Context:
        out, scratch = self.folder / name, self.folder / f"{name}.scratch"
        for place in (out, scratch):
            place.mkdir(parents=True)
        return Context(seed=self.seed, out=out, scratch=scratch, **playing(roles.maker({}, self.folder / "worlds", self.seed)))

    def worlds(self, settings: Mapping[str, Any], name: str = "worlds") -> dict[str, Any]:
        params = environments.Params(environments=settings)
        environments.check(params)
        return environments.run(environments.Inputs(), params, self.context(name))

    def base(self, name: str = "base", **params: Any) -> dict[str, Any]:
        chosen = closed_vocabulary.Params(**{**SIZES, **params})
        closed_vocabulary.check(chosen)
        return closed_vocabulary.run(base.Inputs(self.folder / "worlds"), chosen, self.context(name))

    def rows(self, parts: Mapping[str, Any], name: str = "rows") -> dict[str, Any]:
        params = expert_rows.Params(parts=parts)
        expert_rows.check(params)
        return expert_rows.run(generate.Inputs(self.folder / "worlds"), params, self.context(name))

    def sft(self, start: str, rows: str, name: str, unfiltered: bool = False, **params: Any) -> dict[str, Any]:
        inputs, ctx = sft.Inputs(self.folder / "worlds", self.folder / start, self.folder / rows, unfiltered), self.context(name)
        return loop.run(inputs, sft.Loop(**params), plain.hooks(plain.Params(), ctx), ctx)

    def scores(self, models: list[str], rows: str = "rows", name: str = "scores", **params: Any) -> dict[str, Any]:
        found = {model: self.folder / model / "model" for model in models}
        inputs = evaluate.Inputs(self.folder / "worlds", found, models[-1], "candidate", reserve=self.folder / rows)
        return row_scores.run(inputs, row_scores.Params(**params), self.context(name))

    def rl(self, start: str, world: str, name: str, **params: Any) -> dict[str, Any]:
        inputs, ctx = rl.Inputs(self.folder / "worlds", self.folder / start, world), self.context(name)
        return reinforcing.run(inputs, rl.Loop(**params), grpo.hooks(grpo.Params(), ctx), ctx)

    def episodes(self, models: list[str], name: str = "episodes", **params: Any) -> dict[str, Any]:
        found = {model: self.folder / model / "model" for model in models}
        inputs = evaluate.Inputs(self.folder / "worlds", found, models[-1], "candidate")
        return episodes.run(inputs, episodes.Params(**params), self.context(name))
