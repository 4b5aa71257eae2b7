"""The GPU proof's road: base, SFT, one specialist a world, merge; pass^1 of each on the same problems, and the minutes until then."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infra.gpu_stages import Proof, sorted_worlds
from infra.gpu_watch import gpu_memory
from tasks.engine.settings import Settings


def road(proof: Proof, data: Mapping[str, Path], minutes: float) -> None:
    """Base, SFT, specialists, merge, each followed by its evaluation. minutes: what the data took; evaluating is not counted."""
    settings = proof.settings("road")
    worlds = data["worlds"]
    stages = ("base", "sft", "rl", "merge", "evaluate")
    proof.note("road", {"params": {stage: settings.values(stage) for stage in stages}})

    def stage(stage: str, inputs: Mapping[str, Any], name: str) -> Path:
        nonlocal minutes
        with gpu_memory(proof.device) as memory:
            done = proof.run(settings, stage, inputs, f"road {name}")
        minutes += done.seconds / 60
        proof.add("road", name, "minutes", done.seconds / 60)
        if memory and stage != "merge":  # merging is numpy's
            proof.add("road", name, "peak GPU memory, GiB", memory["peak"], before=memory["before"])
        if stage == "base":
            proof.note("road", {"parameters": done.figures["parameters"]})
        judge(proof, settings, worlds, name, done.folder / "model", minutes)
        return done.folder

    base = stage("base", {"worlds": worlds}, "base")
    sft = stage("sft", {"worlds": worlds, "base": base, "rows": data["rows"]}, "sft")
    experts = {}
    for world in sorted_worlds(worlds):
        experts[f"rl_{world}"] = stage("rl", {"worlds": worlds, "sft": sft, "world": world}, f"rl_{world}") / "model"
    stage("merge", {"base": sft / "model", "experts": experts}, "merged")


def judge(proof: Proof, settings: Settings, worlds: Path, name: str, model: Path, minutes: float) -> None:
    """pass^1 of one model in every world, on the same problems and noise for all; minutes: of the road until here."""
    inputs = {"worlds": worlds, "models": {name: model}, "candidate": name, "candidate_id": name}
    done = proof.run(settings, "evaluate", inputs, f"evaluate {name}")
    for world, block in sorted(done.figures["evaluate"][name].items()):
        found = block["pass_1"]
        bounds = {key: float(f"{found[key]:.4g}") for key in ("low", "high")}
        counts = {key: found[key] for key in ("n", "trials") if key in found}
        proof.add("road", name, "pass^1", found["mean"], world=world, **bounds, **counts, minutes=round(minutes, 2))
