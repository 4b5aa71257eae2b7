"""What each stage that computes with checkpoints needs: memory by part, tokens, hours. The params say how; formulas are elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flows.forecast import work
from flows.forecast.amounts import Amounts, Rows, Talk, mean
from flows.forecast.playing import Playing
from flows.forecast.shape import BYTES, Shape
from flows.forecast.speed import Lengths, Plays, Speeds, Trains, Way
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
SLICED = ("weights", "gradients", "optimizer", "reference")
"""Parts of memory of which several processes hold a slice each."""
TAIL = 0.5
"""Rounds of conversations that a batch of them lasts longer, as the last ones end one by one; ours."""


@dataclass(frozen=True)
class Stage:
    """processes: side by side. parts: bytes by part of one of them, where the model lies (a GPU, or the host). host: bytes of one in
    the host's memory. tokens: trained, read, produced, of all. hours: until all are done. how: where the numbers are from. where:
    on which GPUs it computes and at which server, in words."""

    name: str
    processes: int
    parts: Mapping[str, float]
    host: float
    tokens: Mapping[str, float]
    hours: float
    how: str
    where: str = ""

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
    speeds: Speeds
    step: Planned
    loop: Any

    @property
    def gpu(self) -> bool:
        """Whether models lie on a GPU."""
        return self.settings.shared.device != "cpu"

    @property
    def engine(self) -> Mapping[str, Any]:
        """The params of the step's engine."""
        found: Mapping[str, Any] = (self.settings.engine(self.step.name) or {"params": {}})["params"]
        return found

    @property
    def server(self) -> str:
        """The address of a server that holds what plays, whose memory is its own matter; empty where this process does."""
        return str(self.engine.get("base_url") or "")

    def talk(self, most: int) -> tuple[Talk, float, str]:
        """(the mean conversation, of at most `most` tokens, over worlds whose prompt is shorter; their share; in words,
        in which worlds there is none)."""
        found = self.amounts.talks(self.step.name)
        fit = [talk for talk in found.values() if talk.shared < most]
        lost = [f"{world} ({talk.shared:,.0f})" for world, talk in sorted(found.items()) if talk.shared >= most]
        note = f", but none in {', '.join(lost)}: the prompt alone has as many tokens, max_episode_tokens is {most:,}" if lost else ""
        talk = mean(fit or [*found.values()])
        share = min(1.0, most / talk.whole) if fit else 1.0
        return Talk(talk.shared, talk.whole * share, talk.own * share, talk.turns * share), len(fit) / len(found), note

    def way(self, what: Trains | Plays, talk: Talk, processes: int, threads: int, adapter: int, dtype: str) -> Way:
        """How it computes, for `speed.Speeds`."""
        turns, shared = max(1, round(talk.turns)), self.settings.shared
        read = max(1, round((talk.whole - talk.shared - talk.own) / turns))
        lengths = Lengths(round(talk.shared), turns, read, max(1, round(talk.own / turns)))
        return Way(what, self.shape, shared.device, threads, shared.instructions, processes, adapter, dtype, lengths)

    def stage(self, parts: Mapping[str, float], tokens: Mapping[str, float], hours: float, processes: int, how: str) -> Stage:
        """The forecast, with what libraries take."""
        libraries = float(LIBRARIES[self.step.room])
        slices = self.loop.distributed.processes if hasattr(self.loop, "distributed") else 1
        own = CONTEXT if self.gpu else libraries
        held = sum(parts.values()) if not self.gpu else (4 + self.shape.stored) * self.shape.parameters
        return Stage(
            self.step.name, processes, {**parts, "libraries": own}, slices * (libraries + held), tokens, hours, how, self._where(slices)
        )

    def _where(self, slices: int) -> str:
        served = f"conversations at the server {self.server}, whose memory is not counted here" if self.server else ""
        if not self.gpu:
            return served
        gpus = f"on {slices} GPUs, on the fullest" if slices > 1 else "on one GPU (the first)"
        return f"{gpus}; {served}" if served else gpus


def training_of(loop: Any, shape: Shape, gpu: bool, talk: Talk | None = None) -> Training:
    """How a room's loop trains. talk: its mean row; None: packs are counted as one row of the greatest length."""
    longest = getattr(loop, "max_length", 0) or loop.max_episode_tokens
    packed = None if loop.packing == "none" else (round(talk.shared), round(talk.whole)) if talk else (0, longest)
    about, adapter = loop.adapter, None
    if about.kind != "none":
        targets = () if about.targets == "all-linear" else tuple(about.targets)
        adapter = Adapter(about.r, about.dropout, targets, about.kind == "qlora", len(about.modules_to_save))
    return Training(shape, adapter, loop.dtype == "bfloat16", loop.checkpointing, loop.optimizer, 1 if gpu else 4, packed)


def sliced(parts: Mapping[str, float], training: Training, loop: Any) -> dict[str, float]:
    """The parts on the first of the processes that share a training (FSDP2: https://arxiv.org/abs/1910.02054, stage 3); in rl it holds
    the policy whole too, to play with and to keep."""
    slices = loop.distributed.processes
    found = {name: size / slices if name in SLICED else size for name, size in parts.items()}
    return {**found, "whole copy": training.weights()} if slices > 1 and hasattr(loop, "groups") else found


def _busy(loop: Any, passes: float) -> float:
    """How many processes have something to do. passes: that they share in one step."""
    return float(min(loop.distributed.processes, max(1.0, passes)))


def sft(case: Case) -> Stage:
    """Fine-tuning; with the control beside it, which trains on as many rows."""
    loop, shape, made = case.loop, case.shape, case.amounts.rows(case.step.name)
    most = min(loop.max_length, shape.context or loop.max_length)
    name = "max_length" if most == loop.max_length else "the model's context"
    rows = made.within(most, name) if made else None
    training = training_of(loop, shape, case.gpu, rows.mean if rows else None)
    passed = _passed(rows, loop)
    share = rows.sum("own") / rows.sum("whole") if rows else 1.0
    parts = training.peak(passed, round(passed * share), passed < loop.batch_tokens * loop.accumulate)
    parts = _or_loading(sliced(parts, training, loop), training, case.gpu)
    runs = 1 + loop.control
    side_by_side = runs if not case.gpu else 1
    if rows is None:
        how = f"{made.how}, {made.too_long(most, name)}" if made else "rows unknown: a small run with scripts keeps none"
        return case.stage(parts, {"trained": 0.0}, 0.0, side_by_side, how)
    tokens = _computed(rows, loop) * loop.epochs
    tokens = min(tokens, loop.max_steps * loop.batch_tokens * loop.accumulate or tokens)
    threads = max(1, case.settings.shared.threads // (2 if loop.control else 1))
    rate = case.speeds(_training_way(case, training, loop, rows.mean, side_by_side, threads))["train"]
    seen = work.seen(rows.mean.whole, rows.mean.shared, loop.packing)
    flop = work.training(shape, tokens, seen, rows.sum("own") * loop.epochs, training.adapter is not None, loop.checkpointing)
    hours = work.hours(flop * runs / side_by_side / _busy(loop, loop.batch_tokens / passed), rate)
    return case.stage(parts, {"trained": tokens * runs}, hours, side_by_side, rows.how)


def _training_way(case: Case, training: Training, loop: Any, talk: Talk, processes: int, threads: int) -> Way:
    passed = loop.pass_tokens or getattr(loop, "batch_tokens", 16 * round(talk.whole))
    what = Trains(passed, loop.packing, loop.checkpointing, loop.adapter.dropout if training.adapter else 0.0)
    return case.way(what, talk, processes, threads, training.adapter.r if training.adapter else 0, loop.dtype)


def _or_loading(parts: dict[str, float], training: Training, gpu: bool) -> dict[str, float]:
    """The parts, or what is held while the checkpoint is read, where that is more."""
    loading = training.loading(gpu)
    return {"weights": loading} if loading > sum(parts.values()) else parts


def _together(talk: Talk, loop: Any, tokens: int) -> float:
    """Rows like this one in a batch or a pass of sft of so many tokens, where packs have what all begin with once."""
    once = talk.shared if loop.packing == "shared_prompt" else 0.0
    return max(1.0, (tokens - once) // max(1.0, talk.whole - once))


def _passed(rows: Rows | None, loop: Any) -> int:
    """Tokens of the largest pass of sft: a batch, or as much of it as `pass_tokens` allows; a longer row alone."""
    if rows is None:
        return int(max(loop.pass_tokens or loop.batch_tokens, loop.max_length))
    most = min(loop.pass_tokens or loop.batch_tokens, loop.batch_tokens)
    return int(max(most, min(loop.max_length, rows.longest)))


def _computed(rows: Rows, loop: Any) -> float:
    """Tokens that an epoch of sft computes: where packs share them, system prompts once a pass. A batch is of one world then."""
    if loop.packing != "shared_prompt":
        return rows.sum("whole")
    most = min(loop.pass_tokens, loop.batch_tokens)
    return rows.times * sum(talk.whole - talk.shared + talk.shared / _together(talk, loop, most) for _, talk in rows.sample)


def rl(case: Case) -> Stage:
    """Reinforcement in every world: conversations, and an update on those of each step."""
    loop, shape, step = case.loop, case.shape, case.step
    talk, share, lost = case.talk(loop.max_episode_tokens)
    training = training_of(loop, shape, case.gpu, talk)
    (played, opened), of_a_step = _played(case, share), loop.groups * loop.group_size
    shared = talk.shared if loop.packing == "shared_prompt" else 0.0
    alike = min(of_a_step, max(1.0, (loop.pass_tokens - shared) // (talk.whole - shared)) if loop.pass_tokens else of_a_step)
    computed = of_a_step * (shared / alike + talk.whole - shared)
    passed = min(computed * (PADDING if loop.packing == "none" else 1), loop.pass_tokens or computed * PADDING)
    update = training.peak(round(passed), round(alike * talk.own), alike < of_a_step)
    resting = {name: update[name] for name in ("weights", "optimizer")}
    if getattr(step.params, "beta", 0) and training.adapter is None:
        for parts in (resting, update):
            parts["reference"] = 4.0 * shape.parameters
    number = 4 if training.weights() >= 4 * shape.parameters else 2
    rows = min(loop.rows, max(of_a_step, TOGETHER))
    playing = Playing(shape, rows, round(talk.whole), round(talk.shared), loop.max_episode_tokens, number, _limit(case))
    held = {} if case.server else playing.peak(weights=False)
    update, resting = sliced(update, training, loop), sliced(resting, training, loop)
    parts = _or_loading(max(update, {**resting, **held}, key=lambda one: sum(one.values())), training, case.gpu)
    side_by_side = 1 if case.gpu else len(step.worlds)
    threads = max(1, case.settings.shared.threads // len(step.worlds))
    steps = len(step.worlds) * loop.steps * share
    rate = case.speeds(_training_way(case, training, loop, talk, side_by_side, threads))["train"]
    seen = work.seen(talk.whole, talk.shared, loop.packing)
    adapter = training.adapter is not None
    flop = steps * work.training(shape, computed, seen, of_a_step * talk.own, adapter, loop.checkpointing)
    again = bool(getattr(step.params, "beta", 0)) + bool(loop.importance_cap)  # the reference's, and the trainer's own before it learns
    flop += again * steps * work.forward(shape, computed, seen, of_a_step * talk.own)
    spoken = _spoken(played, opened, talk)
    rank = training.adapter.r if training.adapter else 0
    hours = work.hours(flop / side_by_side / _busy(loop, of_a_step / alike), rate)
    hours += _hours_spoken(case, spoken, talk, min(loop.rows, of_a_step), of_a_step, side_by_side, threads, rank, loop.dtype)
    return case.stage(
        parts, {"trained": steps * computed, **spoken}, hours, side_by_side, f"{played:,} conversations as scripts play them{lost}"
    )


def evaluate(case: Case) -> Stage:
    """Every model of the road plays test problems, and two of them the gate's."""
    params, shape = case.step.params, case.shape
    talk, share, lost = case.talk(params.max_episode_tokens)
    played, opened = _played(case, share)
    rows = min(params.rows, params.problems * params.trials)
    most, number = params.max_episode_tokens, BYTES[params.dtype]
    playing = Playing(shape, rows, round(talk.whole), round(talk.shared), most, number, _limit(case))
    threads = case.settings.shared.threads
    side_by_side = at_once(threads, case.settings.shared.device)
    spoken = _spoken(played, opened, talk)
    rank = max((loop.adapter.r for loop in _loops(case) if loop.adapter.kind != "none"), default=0)
    hours = _hours_spoken(case, spoken, talk, rows, params.problems * params.trials, side_by_side, threads, rank, params.dtype)
    parts = {} if case.server else playing.peak()
    return case.stage(parts, spoken, hours, side_by_side, f"{played:,} conversations as scripts play them{lost}")


ROOMS: Mapping[str, Callable[[Case], Stage]] = {"sft": sft, "rl": rl, "evaluate": evaluate}
"""Rooms that compute with checkpoints -> their forecast."""


def _loops(case: Case) -> list[Any]:
    """Of the steps before this one that train."""
    names = [one.name for one in case.step.inputs if one.checkpoints]
    return [loop for name in names if hasattr(loop := case.settings.loop(name), "adapter")]


def _limit(case: Case) -> float:
    """Bytes that the step's engine may take for keys and values; 0 for no limit."""
    return float(case.engine.get("memory") or 0) * GIB


def _played(case: Case, share: float) -> tuple[int, int]:
    """(conversations that checkpoints play, engines that are opened for them), as `by_checkpoints` of the room or the method says.
    share: of the worlds, in which there are any."""
    parts = case.settings.parts(case.step.name)
    said = [module.by_checkpoints(params, case.step) for _, module, params in parts if hasattr(module, "by_checkpoints")]
    return round(share * sum(played for played, _ in said)), round(share * sum(opened for _, opened in said))


def _spoken(played: int, opened: int, talk: Talk) -> dict[str, float]:
    """Tokens read, the shared prompt once an engine, and produced."""
    read = played * max(0.0, talk.whole - talk.own - talk.shared) + opened * talk.shared
    return {"read": read, "produced": played * talk.own}


def _hours_spoken(
    case: Case, spoken: Mapping[str, float], talk: Talk, rows: int, count: int, processes: int, threads: int, rank: int, dtype: str
) -> float:
    """Of conversations in as many processes. count: of a batch of them, of which `rows` are under way at once."""
    active = max(1, round(count / (count / min(rows, count) + TAIL)))
    engine = (case.settings.engine(case.step.name) or {"method": "own"})["method"]
    what = Plays(rows, active, engine)
    rates = case.speeds(case.way(what, talk, processes, threads, rank, dtype))
    read = work.forward(case.shape, spoken["read"], 2 * talk.whole, 0)
    produced = work.producing(case.shape, spoken["produced"], talk.whole)
    return (work.hours(read, rates["read"]) + work.hours(produced, rates["produce"])) / processes
