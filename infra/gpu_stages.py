"""The rooms of the GPU proof, called one after the other in this process, and the record of what was measured."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from infra.bench import ROOT
from infra.gpu_watch import now
from tasks.contract.context import Context
from tasks.engine import methods
from tasks.engine.settings import Settings, load

Sizes = Mapping[str, Mapping[str, Any]]
"""A section (stage.method, stage.loop) -> params, laid over the profile's."""
_TOKENIZER = {"base.tiny_qwen3": {"layers": 2, "width": 32, "heads": 2, "steps": 1, "batch": 1}}
"""For throughput the base room is asked for its tokenizer alone."""
LORA = {"kind": "lora", "r": 16, "alpha": 32.0}
"""As in the profiles for GPUs. What sft leaves is merged: GRPO begins on a whole checkpoint with an adapter of its own."""
SIZES: Mapping[str, Sizes] = {
    "throughput": {
        **_TOKENIZER,
        "sft.loop": {"epochs": 1, "max_steps": 60, "batch_tokens": 16384, "learning_rate": 2e-4, "warmup": 10}
        | {"optimizer": "adamw", "dtype": "bfloat16", "checkpointing": True, "adapter": {**LORA, "save": "full"}}
        | {"log_every": 1, "save_every": 1_000_000, "validation_rows": 0},
        "rl.loop": {"steps": 8, "lr": 1e-6, "groups": 8, "group_size": 8, "rows": 64, "max_episode_tokens": 640}
        | {"dtype": "bfloat16", "pass_tokens": 10240, "checkpointing": True, "adapter": LORA}
        | {"screen_problems": 8, "screen_trials": 1, "pool": 8, "validation_problems": 8, "validate_every": 1_000_000, "max_lost": 1.0},
    },
    "road": {
        "base.tiny_qwen3": {"layers": 7, "width": 768, "heads": 12, "learning_rate": 1e-3},
        "sft.loop": {"epochs": 3, "batch_tokens": 4096, "learning_rate": 5e-4, "muon_rate": 1e-3, "dtype": "bfloat16"},
        "rl.loop": {"lr": 2e-5, "dtype": "bfloat16"},
        "evaluate.pass_k": {"gate_problems": 1},
    },
}
"""Over the quickstart profile; ours, and untuned. throughput: large batches, bfloat16, and a quarter of a GRPO step's tokens at once.
road: about 50 M parameters, rates lowered for the width; nothing is decided, so the gate plays one problem."""
TINY: Mapping[str, Sizes] = {
    "throughput": {
        **_TOKENIZER,
        "sft.loop": {"max_steps": 5, "batch_tokens": 512, "log_every": 1, "save_every": 1_000_000, "validation_rows": 0}
        | {"optimizer": "adamw", "adapter": {**LORA, "save": "full"}},
        "rl.loop": {"steps": 3, "groups": 2, "group_size": 2, "pass_tokens": 512, "screen_problems": 2, "screen_trials": 1, "pool": 2}
        | {"validation_problems": 2, "validate_every": 3, "max_lost": 1.0, "adapter": LORA},
    },
    "road": {
        "base.tiny_qwen3": {"steps": 4},
        "sft.loop": {"max_steps": 4, "optimizer": "muon"},
        "rl.loop": {"steps": 1, "groups": 2, "group_size": 2, "screen_problems": 2, "screen_trials": 1, "pool": 2}
        | {"validation_problems": 2},
        "evaluate.pass_k": {"problems": 4, "gate_problems": 1, "trials": 1},
    },
}
"""Over the smoke profile."""


class Spent(RuntimeError):
    """The budget of minutes is spent; what was measured until then stands."""


@dataclass(frozen=True)
class Done:
    """What a room's run left behind. seconds: its wall time, loading and saving included."""

    folder: Path
    figures: dict[str, Any]
    seconds: float


@dataclass
class Proof:
    """One run of the proof: where the rooms write, what was measured so far, and the file that says so.

    ends: the reading of `time.perf_counter` after which no further stage starts.
    """

    folder: Path
    device: str
    tiny: bool
    overrides: Sequence[tuple[str, Any]]
    report: Path
    ends: float
    record: dict[str, Any] = field(default_factory=dict)

    def settings(self, part: str = "") -> Settings:
        """The profile's params with a part's sizes, and the user's overrides on top."""
        sizes = (TINY if self.tiny else SIZES).get(part, {})
        flat = [(f"{method}.{name}", value) for method, params in sizes.items() for name, value in params.items()]
        return load(ROOT, "smoke" if self.tiny else "quickstart", [*flat, *self.overrides])

    def context(self, settings: Settings, name: str, worlds: Path | None, log: Callable[..., None]) -> Context:
        """The surroundings that `tasks.engine.running` would give a method, on this proof's device."""
        from tasks.players.acting import acting
        from tasks.players.checkpoint_agent import CheckpointAgent
        from tasks.players.local import own
        from tasks.players.roles import maker

        shared = settings.shared
        roles = {role: player.model_dump(mode="json") for role, player in shared.roles.items()}
        role, prompt = maker(roles, worlds, shared.seed), shared.prompt.model_dump()
        out, scratch = self.folder / name / "out", self.folder / name / "scratch"
        for folder in (out, scratch):
            folder.mkdir(parents=True)
        return Context(
            seed=shared.seed,
            out=out,
            scratch=scratch,
            device=self.device,
            threads=shared.threads,
            log=log,
            role=role,
            agent=acting(role, prompt, of_checkpoint=partial(CheckpointAgent, engine=own.opened)),
            prompt=prompt,
        )

    def run(
        self,
        settings: Settings,
        stage: str,
        inputs: Mapping[str, Any],
        name: str = "",
        log: Callable[..., None] = lambda *_: None,
        instead: Callable[..., dict[str, Any]] | None = None,
    ) -> Done:
        """Run a stage's method on `inputs`; `instead`: a function of the same kind in place of the method's `run`.

        Raises Spent when the budget is.
        """
        name = name or stage
        if time.perf_counter() > self.ends:
            raise Spent(f"the budget of minutes was spent before {name}")
        params = settings.params(stage)
        context = self.context(settings, name, inputs.get("worlds"), log)
        begin = now(self.device)
        if instead:
            figures = instead(methods.interface(stage).Inputs(**inputs), params, context)
        else:
            figures = methods.run(stage, settings.method(stage), inputs, params, settings.loop(stage), context)
        seconds = now(self.device) - begin
        shutil.rmtree(context.scratch)  # resume states of a 0.6 B model are gigabytes
        print(f"{name:<28}{seconds:10.1f} s", flush=True)
        return Done(context.out, figures, seconds)

    def add(self, part: str, stage: str, figure: str, value: float | None, **more: Any) -> None:
        """A row: printed, and written down at once, so that a killed run leaves what it measured."""
        kept = None if value is None else float(f"{value:.6g}")
        self.record["rows"].append({"part": part, "stage": stage, "figure": figure, "value": kept, **more})
        shown = "not measured" if value is None else f"{value:.4g}"
        notes = ", ".join(f"{name} {said}" for name, said in more.items() if said is not None)
        print(f"  {part:<12}{stage:<16}{figure:<34}{shown:>12}  {notes}", flush=True)
        self.write()

    def note(self, part: str, facts: Mapping[str, Any]) -> None:
        """Facts about a part that are no figures: sizes, params, dtypes."""
        self.record.setdefault(part, {}).update(facts)
        for name, said in facts.items():
            if name != "params":
                print(f"  {part:<12}{name}: {json.dumps(said)}", flush=True)
        self.write()

    def write(self) -> None:
        """The record as it is now."""
        self.report.parent.mkdir(parents=True, exist_ok=True)
        self.report.write_text(json.dumps(self.record, indent=1) + "\n")


def make_data(proof: Proof) -> tuple[dict[str, Path], float]:
    """Worlds and marked conversations by the scripted rooms: the folders by stage, and the minutes it took."""
    settings = proof.settings()
    worlds = proof.run(settings, "worlds", {})
    generate = proof.run(settings, "generate", {"worlds": worlds.folder})
    critique = proof.run(settings, "critique", {"worlds": worlds.folder, "generate": generate.folder})
    inputs = {"worlds": worlds.folder, "generate": generate.folder, "critique": critique.folder}
    kept = proof.run(settings, "filter", inputs)
    minutes = sum(done.seconds for done in (worlds, generate, critique, kept)) / 60
    proof.add("data", "data", "minutes", minutes, conversations=kept.figures["rows"], kept=kept.figures["kept"])
    return {"worlds": worlds.folder, "rows": kept.folder}, minutes


def sorted_worlds(folder: Path) -> list[str]:
    """Names of the frozen worlds."""
    return sorted(path.parent.name for path in folder.glob("*/world.json"))
