"""What each stage that computes with checkpoints needs: memory by part, tokens, hours. The params say how; formulas are elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flows.forecast import work
from flows.forecast.amounts import Amounts, Talk
from flows.forecast.playing import Playing
from flows.forecast.shape import BYTES, Shape
from flows.forecast.training import Adapter, Training
from tasks.contract.planned import Planned
from tasks.engine.forked import at_once
from tasks.engine.settings import Settings

GIB = 1 << 30
LIBRARIES = {"sft": 500 << 20, "rl": 500 << 20, "evaluate": 400 << 20}
"""Bytes of a process of each room before a checkpoint is there: Python, torch, transformers and, where a room trains, TRL and PEFT
(measured: resident set, after a step of a model of 20,000 parameters)."""
CONTEXT = 600 << 20
"""Bytes of a GPU that CUDA and its libraries take for themselves; a usual value, not measured here."""
PADDING = 1.15
"""Padded tokens to tokens, where rows of about one length are passed together; ours."""
TOGETHER = 64
"""Conversations of a training's screening or validation that play at once, at least: a shard of 32 problems, played twice."""


@dataclass(frozen=True)
class Stage:
    """processes: side by side. parts: bytes by part of one of them, where the model lies (a GPU, or the host). host: bytes of
    the host's memory of one. tokens: trained, read, produced, of all. hours: until all are done. how: where the numbers are from."""

    name: str
    processes: int
    parts: Mapping[str, float]
    host: float
    tokens: Mapping[str, float]
    hours: float
    how: str

    @property
    def memory(self) -> float:
        """Bytes of all processes where the model lies."""
        return self.processes * sum(self.parts.values())


@dataclass(frozen=True)
class Case:
    """What a stage's forecast is made from."""

    settings: Settings
    shape: Shape
    amounts: Amounts
    rates: work.Rates
    step: Planned
    loop: Any

    @property
    def gpu(self) -> bool:
        """Whether models lie on a GPU."""
        return self.settings.shared.device != "cpu"

    def talk(self, most: int) -> Talk:
        """The mean conversation over the step's worlds, of at most `most` tokens."""
        talks = list(self.amounts.talks(self.step.name).values())
        shared, whole, own = (sum(getattr(talk, name) for talk in talks) / len(talks) for name in ("shared", "whole", "own"))
        return Talk(shared, min(whole, most), own * min(1.0, most / whole))

    def stage(self, parts: Mapping[str, float], tokens: Mapping[str, float], hours: float, processes: int, how: str) -> Stage:
        """The forecast, with what libraries take."""
        libraries = float(LIBRARIES[self.step.room])
        own, loading = (CONTEXT, 4.0 * self.shape.parameters) if self.gpu else (libraries, 0.0)
        host = libraries + loading if self.gpu else libraries + sum(parts.values())
        return Stage(self.step.name, processes, {**parts, "libraries": own}, host, tokens, hours, how)


def training_of(loop: Any, shape: Shape, gpu: bool) -> Training:
    """How a room's loop trains."""
    about, adapter = loop.adapter, None
    if about.kind != "none":
        targets = () if about.targets == "all-linear" else tuple(about.targets)
        adapter = Adapter(about.r, about.dropout, targets, about.kind == "qlora", len(about.modules_to_save))
    return Training(shape, adapter, loop.dtype == "bfloat16", loop.checkpointing, loop.optimizer, 1 if gpu else 4)


def sft(case: Case) -> Stage:
    """Fine-tuning; with the control beside it, which trains on as many rows."""
    loop, shape, rows = case.loop, case.shape, case.amounts.rows(case.step.name)
    training = training_of(loop, shape, case.gpu)
    longest = min(loop.max_length, rows.longest if rows else loop.max_length)
    batch = loop.batch_tokens * loop.accumulate
    at_once_tokens = max(loop.pass_tokens or loop.batch_tokens, longest)
    share = rows.own / rows.tokens if rows else 1.0
    parts = training.peak(at_once_tokens, round(at_once_tokens * share), at_once_tokens < batch)
    slices = loop.distributed.processes  # FSDP2: https://arxiv.org/abs/1910.02054, stage 3
    parts = {name: size / slices if name in ("weights", "gradients", "optimizer") else size for name, size in parts.items()}
    if training.loading() > sum(parts.values()):
        parts = {"weights": training.loading()}
    tokens = _computed(rows.tokens, rows.shared, rows.count, loop) * loop.epochs if rows else 0.0
    tokens = min(tokens, loop.max_steps * batch or tokens)
    runs = 1 + loop.control
    mean = rows.tokens / rows.count if rows else 0.0
    flop = work.training(shape, tokens, mean, tokens * share, training.adapter is not None, loop.checkpointing)
    side_by_side = runs if not case.gpu else 1
    hours = work.hours(flop * runs / side_by_side / slices, case.rates.train)
    how = rows.how if rows else "rows unknown: a small run with scripts keeps none"
    return case.stage(parts, {"trained": tokens * runs}, hours, side_by_side, how)


def _computed(tokens: float, shared: float, count: float, loop: Any) -> float:
    """Of `count` rows of `tokens` tokens in all, those that are computed: system prompts (`shared` of them) once a pack, where packs
    share them."""
    if loop.packing != "shared_prompt":
        return tokens
    start, rest = shared / count, tokens - shared
    return rest + start * rest / max(1.0, loop.pass_tokens - start)


def rl(case: Case) -> Stage:
    """Reinforcement in every world: conversations, and an update on those of each step."""
    loop, shape, step = case.loop, case.shape, case.step
    training, talk = training_of(loop, shape, case.gpu), case.talk(loop.max_episode_tokens)
    played = _conversations(case)
    of_a_step = loop.groups * loop.group_size
    rows = min(loop.rows, max(of_a_step, TOGETHER))
    number = 4 if training.weights() >= 4 * shape.parameters else 2
    playing = Playing(shape, rows, round(talk.whole), round(talk.shared), loop.max_episode_tokens, number, _limit(case))
    tokens = of_a_step * talk.whole * PADDING
    passed = min(tokens, loop.pass_tokens or tokens)
    update = training.peak(round(passed), round(passed * talk.own / talk.whole), passed < tokens)
    resting = {name: update[name] for name in ("weights", "optimizer")}
    if getattr(step.params, "beta", 0) and training.adapter is None:
        for parts in (resting, update):
            parts["reference"] = 4.0 * shape.parameters
    held = {} if _served(case) else playing.peak(weights=False)
    parts = max(update, {**resting, **held}, key=lambda one: sum(one.values()))
    trained = len(step.worlds) * loop.steps * _computed(of_a_step * talk.whole, of_a_step * talk.shared, of_a_step, loop)
    spoken = _spoken(case, played, talk)
    flop = work.training(shape, trained, talk.whole, trained * talk.own / talk.whole, training.adapter is not None, loop.checkpointing)
    side_by_side = 1 if case.gpu else len(step.worlds)
    hours = work.hours(flop / side_by_side, case.rates.train) + _hours_spoken(case, spoken, talk) / side_by_side
    return case.stage(parts, {"trained": trained, **spoken}, hours, side_by_side, f"{played:,} conversations as scripts play them")


def evaluate(case: Case) -> Stage:
    """Every model of the road plays test problems, and two of them the gate's."""
    params, shape = case.step.params, case.shape
    talk, played = case.talk(params.max_episode_tokens), _conversations(case)
    rows = min(params.rows, params.problems * params.trials)
    most, number = params.max_episode_tokens, BYTES[params.dtype]
    playing = Playing(shape, rows, round(talk.whole), round(talk.shared), most, number, _limit(case))
    side_by_side = at_once(case.settings.shared.threads, case.settings.shared.device)
    spoken = _spoken(case, played, talk)
    hours = _hours_spoken(case, spoken, talk) / side_by_side
    return case.stage(
        {} if _served(case) else playing.peak(), spoken, hours, side_by_side, f"{played:,} conversations as scripts play them"
    )


ROOMS: Mapping[str, Callable[[Case], Stage]] = {"sft": sft, "rl": rl, "evaluate": evaluate}
"""Rooms that compute with checkpoints -> their forecast."""


def _served(case: Case) -> bool:
    """Whether a server beside this process holds what plays: its memory is its own matter."""
    return "base_url" in (case.settings.engine(case.step.name) or {"params": {}})["params"]


def _limit(case: Case) -> float:
    """Bytes that the step's engine may take for keys and values; 0 for no limit."""
    engine = case.settings.engine(case.step.name) or {"params": {}}
    return float(engine["params"].get("memory") or 0) * GIB


def _conversations(case: Case) -> int:
    """As the room's or the method's `conversations` says."""
    parts = case.settings.parts(case.step.name)
    return sum(module.conversations(params, case.step) for _, module, params in parts if hasattr(module, "conversations"))


def _spoken(case: Case, played: int, talk: Talk) -> dict[str, float]:
    """Tokens read, the shared prompt once a world, and produced."""
    read = played * max(0.0, talk.whole - talk.own - talk.shared) + (len(case.step.worlds) + len(case.step.unseen)) * talk.shared
    return {"read": read, "produced": played * talk.own}


def _hours_spoken(case: Case, spoken: Mapping[str, float], talk: Talk) -> float:
    read = work.forward(case.shape, spoken["read"], talk.whole, 0)
    produced = work.producing(case.shape, spoken["produced"], talk.whole)
    return work.hours(read, case.rates.read) + work.hours(produced, case.rates.produce)
