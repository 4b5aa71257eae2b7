"""A forecast as a table, as a document for scripts, and what to lower when it does not fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from flows.forecast import Forecast
from flows.forecast.compare import ratios
from flows.forecast.stages import GIB, Stage

LOWER = {
    "weights": "a smaller checkpoint, or dtype: bfloat16 of the loops with an adapter (adapter.kind: lora)",
    "gradients": "adapter.kind: lora of the loops, so that few weights train",
    "optimizer": "adapter.kind: lora of the loops, or optimizer: adamw_8bit",
    "activations": "pass_tokens of the loops, or checkpointing: true",
    "logits": "pass_tokens of the loops",
    "keys and values": "rows (of rl's loop, of evaluate's method), or engine.own.memory",
    "passing": "rows (of rl's loop, of evaluate's method)",
    "whole copy": "a smaller checkpoint, or rl's loop.distributed.processes: 1, which holds no second one",
    "reference": "rl's adapter.kind: lora, whose base is the reference",
    "libraries": "threads, so that fewer processes run side by side",
}
"""Part of memory -> which params make it smaller."""

MOST_DIFFERENCES = 5
"""Params that are named where a stage last ran with others."""


def too_large(found: Forecast) -> str:
    """Which stage needs more than the memory that the params name, and what to lower, largest part first; "" when all fit."""
    card = _there(found)
    wrong = [stage for stage in found.stages if card and stage.memory > card * GIB]
    if not wrong:
        return ""
    stage = max(wrong, key=lambda one: one.memory)
    parts = sorted(stage.parts.items(), key=lambda part: -part[1])
    listed = ", ".join(f"{name} {stage.processes * size / GIB:.1f}" for name, size in parts)
    ways = "; ".join(f"{name}: {LOWER[name]}" for name, _ in parts[:2])
    return (
        f"{stage.name} needs {stage.memory / GIB:.1f} GiB and there are {card:.3g} (GiB by part: {listed}). "
        f"Of the largest parts, lower: {ways}."
    )


def _there(found: Forecast) -> float:
    """GiB that the params name; of a CPU without, this machine's. 0 when nobody knows."""
    shared = found.settings.shared
    if shared.memory or shared.device != "cpu":
        return shared.memory
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB


def as_document(found: Forecast) -> dict[str, Any]:
    """For scripts: memory in bytes, tokens, hours."""
    shape = found.checkpoint.shape
    return {
        "profile": found.settings.shared.profile,
        "checkpoint": {"where": found.checkpoint.where, "parameters": shape.parameters, "context": shape.context},
        "device": found.settings.shared.device,
        "stages": [
            {
                "stage": stage.name,
                "processes": stage.processes,
                "memory": round(stage.memory),
                "host_memory": round(stage.processes * stage.host),
                "parts": {name: round(size) for name, size in stage.parts.items()},
                "tokens": {name: round(count) for name, count in stage.tokens.items()},
                "hours": round(stage.hours, 4),
                "from": stage.how,
                "where": stage.where,
                **_measured(stage, found),
            }
            for stage in found.stages
        ],
        "hours": round(sum(stage.hours for stage in found.stages), 4),
        "counted": found.counted,
        "speed": found.speed,
        "too_large": too_large(found),
    }


def lines(found: Forecast) -> Iterator[str]:
    """A table for people, with what it rests on."""
    shape = found.checkpoint.shape
    yield f"{found.checkpoint.where}: {shape.parameters / 1e6:,.1f} M parameters, context {shape.context:,}"
    yield ""
    where = "GPU" if found.settings.shared.device != "cpu" else "memory"
    yield f"{'stage':<10} {where + ' GiB':>11} {'host GiB':>9} {'trained':>12} {'read':>12} {'produced':>12} {'hours':>8}"
    for stage in found.stages:
        tokens = " ".join(f"{stage.tokens.get(kind, 0):>12,.0f}" for kind in ("trained", "read", "produced"))
        yield f"{stage.name:<10} {stage.memory / GIB:>11.2f} {stage.processes * stage.host / GIB:>9.2f} {tokens} {stage.hours:>8.2f}"
        yield f"{'':<10} {_parts(stage)}"
        yield from _comparison(stage, found)
    yield ""
    yield f"about {sum(stage.hours for stage in found.stages):.2f} hours for these stages."
    yield f"Tokens: {'; '.join(dict.fromkeys(stage.how for stage in found.stages))}; counted {found.counted}."
    if found.compared and not found.taken:
        yield "Nothing to compare: none of these stages has run here."
    hint = "" if "default" not in found.speed else " `cairn forecast --calibrate` measures this machine."
    yield f"Speed: {found.speed}.{hint}"
    if wrong := too_large(found):
        yield f"It does not fit: {wrong}"


def _measured(stage: Stage, found: Forecast) -> dict[str, Any]:
    was = found.taken.get(stage.name)
    if was is None:
        return {}
    about = {"hours": round(was.seconds / 3600, 4), "memory": was.memory, "tokens": dict(was.tokens), "differs": list(was.differs)}
    return {"measured": {**about, "ratio": {name: round(value, 3) for name, value in ratios(stage, was).items()}}}


def _comparison(stage: Stage, found: Forecast) -> Iterator[str]:
    """What was measured, each with forecast / measured in brackets."""
    was = found.taken.get(stage.name)
    if was is None:
        if found.taken:
            yield f"{'':<10} has not run here"
        return
    shares = {name: f" ({value:.2f})" for name, value in ratios(stage, was).items()}
    parts = [f"{was.seconds / 3600:.2f} hours{shares['hours']}"]
    parts += [f"{was.memory / GIB:.2f} GiB a process{shares['memory']}"] if was.memory else []
    parts += [f"{kind} {count:,}{shares.get(kind, '')}" for kind, count in was.tokens.items()]
    yield f"{'':<10} measured (forecast / measured): {', '.join(parts)}"
    if was.differs:
        yield f"{'':<10} with other params then: {'; '.join(was.differs[:MOST_DIFFERENCES])}"


def _parts(stage: Stage) -> str:
    many = f"{stage.where}: " if stage.where else ""
    many += f"{stage.processes} processes, each " if stage.processes > 1 else ""
    return many + ", ".join(f"{name} {size / GIB:.2f}" for name, size in stage.parts.items() if size >= GIB / 200)
