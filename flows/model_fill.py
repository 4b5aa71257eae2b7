"""A profile for a model: what follows from the model's files is filled in; the rest stays as it is.

Filled in: where the checkpoint lies and its identity, how it writes tools, dtype (and instructions, where this CPU lacks those of the
profile), tokens of a pass, rows at once, memory for keys and values, and lengths that are above its context. What fits is found by the
sums of `cairn forecast`, at the longest conversations that the params allow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.forecast.checkpoint import of_source
from flows.forecast.playing import Playing
from flows.forecast.shape import Shape
from flows.forecast.stages import CONTEXT, GIB, LIBRARIES, sliced, training_of
from flows.forecast.text import LOWER
from flows.short_identities import completed
from tasks.contract.params import BadInput
from tasks.engine import methods, sources
from tasks.engine import project as project_file
from tasks.engine.artifact import Store
from tasks.engine.check_players import has_instructions
from tasks.engine.dotted import overlay
from tasks.engine.settings import Settings

Change = tuple[str, Any]
"""A dotted param and its value."""
FILLED = 0.85
"""Share of the memory that a stage may fill by its sums: allocators leave gaps; ours."""
PASSES = (65536, 32768, 16384, 8192, 4096, 2048, 1024, 512)
"""Tokens of a pass that are tried, most first."""
ROWS = (256, 128, 64, 32, 16, 8)
"""Conversations at once that are tried, most first."""


@dataclass(frozen=True)
class _Room:
    """Settings with what is filled in so far, the model's shape, and bytes that a stage of a room may fill."""

    settings: Settings
    shape: Shape

    @property
    def gpu(self) -> bool:
        return self.settings.shared.device != "cpu"

    def bytes(self, room: str) -> float:
        """Of one process of a room: what libraries leave of the memory, in equal shares where processes run side by side."""
        memory = self.settings.shared.memory * GIB * FILLED
        return memory - CONTEXT if self.gpu else memory / 2 - LIBRARIES[room]


def filled(settings: Settings, model: str, store: Store) -> list[Change]:
    """The changes of a profile for a model. BadInput for a profile that builds its own checkpoint, a model that is none, and one
    that is too large for the profile's memory, with its parts and what to lower."""
    stage = settings.road.entering("base")[0]
    place = settings.params(stage).PLACE
    where = f"{stage}.{settings.method(stage)}"
    if not place:
        raise BadInput(f"--model {model}: profile {settings.shared.profile} makes its own checkpoint ({where}). Choose another.")
    if not settings.shared.memory:
        raise BadInput(f"--model {model}: {settings.source} does not say `memory`, the GiB that the model has to fit into.")
    text, path = _found(settings, model, store)
    checkpoint = of_source(path)
    changes: list[Change] = [(f"{where}.{place}", text), (f"{where}.identity", sources.identity_of(path, store))]
    changes += _lengths(settings, checkpoint.shape)
    changes += _widths(settings, checkpoint.shape)
    room = _Room(with_changes(settings, changes), checkpoint.shape)
    for fit in (_passes, _rows):
        changes += fit(room)
        room = _Room(with_changes(settings, changes), checkpoint.shape)
    return list(dict(changes).items())  # two steps may share a section, which is told once


def check_files(settings: Settings, model: str, store: Store) -> None:
    """BadInput for a model from whose files no run could begin: weights or a tokenizer that are not there, or cannot be read."""
    stage = settings.road.entering("base")[0]
    method = methods.load(settings.room(stage), settings.method(stage))
    if hasattr(method, "check_files"):
        try:
            method.check_files(_found(settings, model, store)[1])
        except BadInput as error:
            raise BadInput(f"--model {model}: {error}") from None


def chat_format(settings: Settings, model: str, store: Store) -> list[Change]:
    """How the model writes tools, tried on some conversations: `auto` when its own template does, else `hermes` when its tokenizer
    can; no change when neither holds, which a run refuses with its reason."""
    stage = settings.road.entering("base")[0]
    params: Any = settings.params(stage)
    if not hasattr(params, "chat_format"):
        return []
    from flows.chat_check import check_folder
    from tasks.chat.proof import FIRST_LOOK

    _, path = _found(settings, model, store)
    for named in ("auto", "hermes"):
        with suppress(BadInput):
            check_folder(str(path), named, params.thinking, FIRST_LOOK)
            return [(f"{stage}.{settings.method(stage)}.chat_format", named)]
    return []


def _found(settings: Settings, model: str, store: Store) -> tuple[str, Path]:
    """A model as the params are to name it, and where it lies."""
    text = str(Path(model).expanduser().resolve()) if sources.is_path(model) else completed(model, settings.project, store)
    source = sources.Source(settings.road.entering("base")[0], "--model", text, "")
    return text, sources.resolve(source, settings.project, store)


def written_into(text: str, changes: Sequence[Change]) -> str:
    """A profile's text with the changes in it, comments kept."""
    yaml = project_file.round_trip()
    tree = yaml.load(text)
    for key, value in changes:
        *way, last = key.split(".")
        node = tree
        for name in way:
            node = node.setdefault(name, {})
        node[last] = value
    return project_file.written(yaml, tree)


def with_changes(settings: Settings, changes: Sequence[Change]) -> Settings:
    """The settings with the changes in them."""
    tree: Any = settings.tree
    for key, value in changes:
        tree = overlay(tree, key, value)
    return Settings(settings.project, tree, settings.source)


def _parts(settings: Settings) -> Iterator[tuple[str, str, Any]]:
    """(step, dotted section, its params) of the steps that train or play."""
    for step in settings.road.names:
        yield from ((step, where, params) for where, _, params in settings.parts(step) if settings.room(step) in LIBRARIES)


def _lengths(settings: Settings, shape: Shape) -> Iterator[Change]:
    """Lengths that the model has no positions for."""
    for _, where, params in _parts(settings):
        for name in ("max_length", "max_episode_tokens"):
            if shape.context and getattr(params, name, 0) > shape.context:
                yield f"{where}.{name}", shape.context


def _widths(settings: Settings, shape: Shape) -> Iterator[Change]:
    """bfloat16 on a GPU for a checkpoint that is stored as coarsely, float32 for one that is not; on a CPU as the profile has it, and
    float32 where this one has no instructions for bfloat16."""
    if settings.shared.device == "cpu" and has_instructions(settings.shared.instructions):
        return
    if settings.shared.device == "cpu":
        yield "instructions", "avx2"
    coarse = settings.shared.device != "cpu" and shape.stored == 2
    for _, where, params in _parts(settings):
        if hasattr(params, "dtype"):
            yield f"{where}.dtype", "bfloat16" if coarse else "float32"


def _passes(room: _Room) -> list[Change]:
    """The most tokens of a pass that fit; where several processes share passes, no more than the profile says: each has some."""
    changes: list[Change] = []
    for step, where, params in _parts(room.settings):
        if not hasattr(params, "pass_tokens"):
            continue
        training = training_of(params, room.shape, room.gpu)
        least = PASSES[-1] if room.settings.room(step) == "rl" else min(params.max_length, params.batch_tokens * params.accumulate)

        def needs(tokens: int, training: Any = training, params: Any = params) -> Mapping[str, float]:
            return sliced(training.peak(tokens, tokens // 2, True), training, params)

        most = params.pass_tokens if params.distributed.processes > 1 else PASSES[0]
        sizes = [size for size in PASSES if min(least, PASSES[-1]) <= size <= most] or [most]
        found = _largest(room, step, sizes, needs)
        changes.append((f"{where}.pass_tokens", found))
    return changes


def _rows(room: _Room) -> list[Change]:
    """The most rows that fit, and on the own engine what is left for keys and values. Where a server holds them, it is asked for as
    many as the profile says."""
    changes: list[Change] = []
    for step, where, params in _parts(room.settings):
        engine = room.settings.engine(step)
        if not hasattr(params, "rows") or "base_url" in (engine or {"params": {}})["params"]:
            continue
        training = training_of(params, room.shape, room.gpu) if hasattr(params, "pass_tokens") else None
        number = 2 if getattr(params, "dtype", "") == "bfloat16" and room.shape.stored == 2 else 4

        def needs(rows: int, training: Any = training, number: int = number, params: Any = params) -> Mapping[str, float]:
            playing = Playing(room.shape, rows, params.max_episode_tokens, 0, params.max_episode_tokens, number)
            resting = {"weights": training.weights(), "optimizer": training.states()} if training else {}
            resting = sliced(resting, training, params) if training else resting
            return {**resting, **playing.peak(weights=training is None)}

        most = [rows for rows in ROWS if rows <= params.rows] or [params.rows]
        rows = _largest(room, step, most, needs)
        changes.append((f"{where}.rows", rows))
        if engine and "memory" in engine["params"]:
            parts = needs(rows)
            left = room.bytes(room.settings.room(step)) - sum(size for name, size in parts.items() if name != "keys and values")
            changes.append((f"{step}.engine.{engine['method']}.memory", round(left / GIB, 1)))
    return changes


def _largest(room: _Room, step: str, sizes: Sequence[int], needs: Callable[[int], Mapping[str, float]]) -> int:
    """The first size that fits. BadInput, with the parts of the last, when none does."""
    limit = room.bytes(room.settings.room(step))
    if found := next((size for size in sizes if sum(needs(size).values()) <= limit), None):
        return found
    parts = sorted(needs(sizes[-1]).items(), key=lambda part: -part[1])
    listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts)
    raise BadInput(
        f"the model, of {room.shape.parameters / 1e9:.2f} billion parameters, is too large for {room.settings.source}: {step} needs "
        f"{sum(size for _, size in parts) / GIB:.1f} GiB of the {limit / GIB:.1f} that it may fill (memory: "
        f"{room.settings.shared.memory:g}; GiB by part: {listed}). Lower: {parts[0][0]}: {LOWER[parts[0][0]]}."
    )
