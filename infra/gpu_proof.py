"""The GPU proof: SFT and GRPO of a 0.6 B Qwen3, and the quickstart's road with a 50 M model trained from nothing.

It calls the rooms' own functions, one after the other in this process, without Prefect, DVC and the store, on data that the
scripted roles make. `--device cuda --tiny` takes the same path in a minute: run that first on a new machine.

1. throughput: Qwen3-0.6B's published shape with random weights, stored in bfloat16; a step is what lies between two of the
   room's reports, the GPU waited for; medians over the steps after the warm-up. Random weights solve nothing, so plain GRPO
   would drop every group and never train: here every group trains, on outcome plus the share of tokens said. That is the
   cost of a full step and says nothing of learning.
2. road: base, SFT, one specialist a world, merge; pass^1 of each on the same test problems against the minutes until then.

Precision is the rooms' choice and is observed, not assumed: rows say in which dtypes the linear layers computed.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.bench import ROOT
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.engine import methods, start
from tasks.engine.settings import Settings, load, parse_override
from tasks.rl.grpo import Grpo
from tasks.rl.grpo import Params as GrpoParams

if TYPE_CHECKING:
    from tasks.contract.problem import Problem
    from tasks.rl.core.hooks import Played as Conversation
    from tasks.rl.core.pool import Group, Screened

QWEN3_06B = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
"""The shape in https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json (embeddings tied); its vocabulary has 151,936 entries."""
TINY_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
"""The same kind of shape: heads share keys, and together they are wider than the hidden size."""

Sizes = Mapping[str, Mapping[str, Any]]
"""A section (stage.method, stage.loop) -> params, laid over the profile's."""
_TOKENIZER = {"base.tiny_qwen3": {"layers": 2, "width": 32, "heads": 2, "steps": 1, "batch": 1}}
"""For throughput the base room is asked for its tokenizer alone."""
SIZES: Mapping[str, Sizes] = {
    "throughput": {
        **_TOKENIZER,
        "sft.loop": {"epochs": 1, "max_steps": 60, "batch_tokens": 16384, "learning_rate": 2e-4, "warmup": 10}
        | {"optimizer": "adamw", "log_every": 1, "save_every": 1_000_000, "validation_rows": 0},
        "rl.loop": {"steps": 8, "lr": 1e-6, "groups": 8, "group_size": 8, "slices": 4, "rows": 64, "max_episode_tokens": 640}
        | {"screen_problems": 8, "screen_trials": 1, "pool": 8, "validation_problems": 8, "validate_every": 1_000_000, "max_lost": 1.0},
    },
    "road": {
        "base.tiny_qwen3": {"layers": 7, "width": 768, "heads": 12, "learning_rate": 1e-3},
        "sft.loop": {"epochs": 3, "batch_tokens": 4096, "learning_rate": 5e-4, "muon_rate": 1e-3},
        "rl.loop": {"lr": 2e-5},
        "evaluate.pass_k": {"gate_problems": 1},
    },
}
"""Over the quickstart profile; ours, and untuned. throughput: large batches, and slices because GRPO keeps a slice's activations
in float32. road: about 50 M parameters, rates lowered for the width; nothing is decided, so the gate plays one problem."""
TINY: Mapping[str, Sizes] = {
    "throughput": {
        **_TOKENIZER,
        "sft.loop": {"max_steps": 5, "batch_tokens": 512, "log_every": 1, "save_every": 1_000_000, "validation_rows": 0},
        "rl.loop": {"steps": 3, "groups": 2, "group_size": 2, "slices": 2, "screen_problems": 2, "screen_trials": 1, "pool": 2}
        | {"validation_problems": 2, "validate_every": 3, "max_lost": 1.0},
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
WARM_UP = {"sft": 3, "rl": 1}
"""Steps that are not counted: kernels are chosen and memory is taken in them."""
GIB = 2**30


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
            agent=acting(role, prompt),
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


def now(device: str) -> float:
    """Seconds, with the GPU's queue empty."""
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def gpu_memory(device: str) -> Iterator[dict[str, float]]:
    """Yields a mapping that holds, at the end, what tensors took on the GPU before and at most (GiB); empty on a CPU."""
    found: dict[str, float] = {}
    if device == "cpu":
        yield found
        return
    import torch

    gc.collect()  # a Trainer is a ring of references: the model before this one must be gone
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    found["before"] = round(torch.cuda.memory_allocated() / GIB, 3)
    yield found
    found["peak"] = torch.cuda.max_memory_allocated() / GIB


class Watch:
    """A method's log that notes when each step was reported, and in which dtypes linear layers computed until the first was."""

    def __init__(self, device: str, name: str) -> None:
        """name: of the curve that has one point a step."""
        from torch.nn.modules.module import register_module_forward_hook

        self.ends: dict[int, float] = {}
        self.values: dict[int, float] = {}
        self.dtypes: dict[str, set[str]] = {}
        self._device, self._name = device, name
        self._listening = register_module_forward_hook(self._hear)

    def _hear(self, module: Any, _: Any, output: Any) -> None:
        import torch

        if isinstance(module, torch.nn.Linear):
            act = "rollout" if torch.is_inference_mode_enabled() else "training"
            weights, computed = (str(one).removeprefix("torch.") for one in (module.weight.dtype, output.dtype))
            self.dtypes.setdefault(act, set()).add(f"{computed} (weights {weights})")

    def __call__(self, name: str, value: float, step: int) -> None:
        """`Context.log`."""
        if name == self._name:
            self.ends[step], self.values[step] = now(self._device), value
            self.close()

    def close(self) -> None:
        """Stop listening to layers: it would cost time in the steps that count."""
        self._listening.remove()

    def said(self) -> dict[str, str]:
        """Act -> the dtypes of its linear layers' outputs and weights."""
        return {act: " and ".join(sorted(found)) for act, found in sorted(self.dtypes.items())}


# Data and the model.


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
    return {"worlds": worlds.folder, "filter": kept.folder}, minutes


def random_qwen3(shape: Mapping[str, int], tokenizer_of: Path, vocab: int, device: str, folder: Path) -> dict[str, Any]:
    """Save a Qwen3 of this shape with random bfloat16 weights into `folder`; returns its sizes.

    vocab: entries of the embedding; 0: as many as the tokenizer has. Raises BadInput for fewer than that.
    """
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    from tasks.checkpoints import folders, tiny
    from tasks.merge.core.headers import open_checkpoint

    tokenizer = folders.load_tokenizer(tokenizer_of)
    entries = vocab or len(tokenizer)
    if entries < len(tokenizer):
        raise BadInput(f"gpu_proof: --vocab {vocab} cannot hold the tokenizer's {len(tokenizer)} entries; give at least as many, or 0")
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    more = {"max_position_embeddings": tiny.CONTEXT, "tie_word_embeddings": True, "bos_token_id": None, **special}
    config = Qwen3Config(vocab_size=entries, **shape, **more)
    torch.manual_seed(0)
    with torch.device(device):  # on a GPU the weights are drawn there: seconds less
        model = Qwen3ForCausalLM(config)
    model = model.to(torch.bfloat16)
    model.generation_config = GenerationConfig(**special)
    folders.save(model, tokenizer, folder)
    parameters = sum(weight.numel() for weight in model.parameters())
    stored = sorted({spec.dtype for spec in open_checkpoint("random", folder).tensors.values()})
    return {
        **shape,
        "parameters": parameters,
        "parameters_without_embedding": parameters - entries * shape["hidden_size"],
        "vocabulary": entries,
        "vocabulary_is": "as asked" if vocab else "the tiny tokenizer's",
        "stored_in": stored,
    }


# Throughput.


def throughput(proof: Proof, data: Mapping[str, Path], vocab: int) -> None:
    """SFT of the random model, then GRPO of what SFT left; adds the rows of both."""
    settings = proof.settings("throughput")
    tokenizer = proof.run(settings, "base", {"worlds": data["worlds"]}, "tokenizer")
    shape = TINY_SHAPE if proof.tiny else QWEN3_06B
    base = proof.folder / "random"
    sizes = random_qwen3(shape, tokenizer.folder / "model", vocab, proof.device, base / "model")
    params = {stage: settings.values(stage) for stage in ("sft", "rl")}
    proof.note("throughput", {"model": sizes, "params": params})
    trained = measure_sft(proof, settings, {"worlds": data["worlds"], "base": base, "filter": data["filter"]})
    measure_grpo(proof, settings, {"worlds": data["worlds"], "sft": trained, "world": sorted_worlds(data["worlds"])[0]})


def sorted_worlds(folder: Path) -> list[str]:
    """Names of the frozen worlds."""
    return sorted(path.parent.name for path in folder.glob("*/world.json"))


def counted(stage: str, steps: Sequence[int]) -> list[int]:
    """The steps after the warm-up. Raises BadInput when none is left."""
    if len(steps) <= WARM_UP[stage]:
        raise BadInput(f"gpu_proof: {stage} took {len(steps)} steps, and {WARM_UP[stage]} are warm-up; give it more steps or rows")
    return sorted(steps)[WARM_UP[stage] :]


def measure_sft(proof: Proof, settings: Settings, inputs: Mapping[str, Path]) -> Path:
    """Run the sft room's method; adds its rows and returns the folder that it left."""
    watch = Watch(proof.device, "loss")
    with gpu_memory(proof.device) as memory:
        done = proof.run(settings, "sft", inputs, "throughput sft", watch)
    watch.close()
    sizes = planned_tokens(settings, inputs, proof)
    steps = counted("sft", list(watch.ends))
    seconds = {step: watch.ends[step] - watch.ends[step - 1] for step in steps}
    over = f"median of {len(steps)} steps after {WARM_UP['sft']}"
    proof.add("throughput", "sft", "steps/s", 1 / statistics.median(seconds.values()), over=over)
    for figure, column in (("tokens/s, without padding", 0), ("tokens/s, with padding", 1), ("trained tokens/s", 2)):
        rate = statistics.median(sizes[step - 1][column] / seconds[step] for step in steps)
        proof.add("throughput", "sft", figure, rate, over=over)
    proof.add("throughput", "sft", "peak GPU memory, GiB", memory.get("peak"), before=memory.get("before"))
    whole = f"{done.figures['steps']} steps, loading, proving masks and saving included"
    proof.add("throughput", "sft", "whole run, s", done.seconds, over=whole)
    proof.note("throughput", {"sft_computed_in": watch.said()})
    return done.folder


def planned_tokens(settings: Settings, inputs: Mapping[str, Path], proof: Proof) -> list[tuple[int, int, int]]:
    """For each step, as the room planned its batches: tokens without padding, with padding, and trained ones."""
    from tasks.checkpoints.folders import load_tokenizer
    from tasks.sft.core.data import IGNORED, batches, load_data
    from tasks.sft.core.hooks import Hooks

    params: Any = settings.loop("sft")
    context = Context(settings.shared.seed, proof.folder, proof.folder)
    tokenizer = load_tokenizer(inputs["base"] / "model")
    path, prompt = inputs["filter"] / "dataset.parquet", settings.shared.prompt.model_dump()
    rows = load_data(path, inputs["worlds"], tokenizer, prompt, params.max_length, Hooks().row_weight).train
    plan = [batch for n in range(params.epochs) for batch in batches(rows, params.batch_tokens, context.rng("batches", n))]
    sizes = []
    for batch in plan[: params.max_steps or None]:
        lengths = [len(rows[index].ids) for index in batch]
        trained = sum(label != IGNORED for index in batch for label in rows[index].labels)
        sizes.append((sum(lengths), max(lengths) * len(lengths), trained))
    return sizes


@dataclass
class Played:
    """One GRPO step as its hooks saw it: when play began and ended (seconds), and what was played."""

    begin: float
    end: float = 0.0
    conversations: int = 0
    turns: int = 0
    read: int = 0
    produced: int = 0


@dataclass(frozen=True, kw_only=True)
class EveryGroupTrains(Grpo):
    """GRPO in which no group is dropped, so that a model that solves nothing takes full steps; it notes what was played."""

    room: int
    device: str = "cpu"
    steps: list[Played] = field(default_factory=list)

    def next_problems(self, step: int, count: int, pool: Sequence[Screened], history: Sequence[Group], seed: int) -> list[Problem]:
        """GRPO's choice; play begins now."""
        self.steps.append(Played(now(self.device)))
        return super().next_problems(step, count, pool, history, seed)

    def reward_terms(self, played: Sequence[Conversation], model: Any) -> list[Mapping[str, float]]:
        """The share of its room (tokens) that the model talked through: something that differs within a group."""
        here = self.steps[-1]
        here.end = now(self.device)
        turns = [turn for one in played for turn in one.talk.turns]
        here.conversations, here.turns = len(played), len(turns)
        here.read = sum(len(turn["prompt_ids"]) for turn in turns)
        here.produced = sum(len(turn["ids"]) for turn in turns)
        return [{"said": sum(len(turn["ids"]) for turn in one.talk.turns) / self.room} for one in played]

    def keep(self, group: Group) -> bool:
        """Always."""
        return True


def measure_grpo(proof: Proof, settings: Settings, inputs: Mapping[str, Any]) -> None:
    """Run GRPO's loop in one world; adds its rows."""
    from tasks.rl.core import loop

    watch = Watch(proof.device, "rl/tokens")
    seen: list[Played] = []

    shared: Any = settings.loop("rl")

    def run(inputs: Any, params: GrpoParams, ctx: Context) -> dict[str, Any]:
        hooks = EveryGroupTrains(params=params, room=shared.max_episode_tokens, device=proof.device, steps=seen)
        return loop.run(inputs, shared, hooks, ctx)

    if not isinstance(settings.params("rl"), GrpoParams):
        raise BadInput(f"gpu_proof: rl.method = {settings.method('rl')!r}: this measures grpo")
    with gpu_memory(proof.device) as memory:
        done = proof.run(settings, "rl", inputs, "throughput rl", watch, run)
    watch.close()
    steps = counted("rl", list(watch.ends))
    over = f"median of {len(steps)} steps after {WARM_UP['rl']}"
    pairs = [(seen[step - 1], watch.ends[step], watch.values[step]) for step in steps]
    figures: dict[str, Callable[[Played, float, float], float]] = {
        "steps/s": lambda played, end, _: 1 / (end - played.begin),
        "conversations/s": lambda played, end, _: played.conversations / (end - played.begin),
        "share of a step that is play": lambda played, end, _: (played.end - played.begin) / (end - played.begin),
        "produced tokens/s of play": lambda played, *_: played.produced / (played.end - played.begin),
        "tokens/s of the update": lambda played, end, _: (played.read + played.produced) / (end - played.end),
        "trained tokens/s of the update": lambda played, end, trained: trained / (end - played.end),
        "tokens a conversation": lambda played, *_: (played.read + played.produced) / played.conversations,
        "turns a conversation": lambda played, *_: played.turns / played.conversations,
    }
    for figure, of in figures.items():
        proof.add("throughput", "grpo", figure, statistics.median(of(*pair) for pair in pairs), over=over)
    proof.add("throughput", "grpo", "peak GPU memory, GiB", memory.get("peak"), before=memory.get("before"))
    whole = f"{done.figures['steps']} steps in {inputs['world']}, loading, screening, validating and saving included"
    proof.add("throughput", "grpo", "whole run, s", done.seconds, over=whole)
    proof.note("throughput", {"grpo_computed_in": watch.said()})


# The road.


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
    sft = stage("sft", {"worlds": worlds, "base": base, "filter": data["filter"]}, "sft")
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


# The command.


def machine(device: str) -> dict[str, Any]:
    """What it ran on: no names of hosts or folders."""
    import torch
    import transformers
    import trl

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {"transformers": transformers.__version__, "trl": trl.__version__}
    if device == "cpu":
        return {"gpu": None, **versions}
    about = torch.cuda.get_device_properties(0)
    memory = round(about.total_memory / GIB, 1)
    return {"gpu": torch.cuda.get_device_name(0), "gpu_memory_gib": memory, "cuda": torch.version.cuda, **versions}


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.gpu_proof", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=["throughput", "road", "all"], default="all")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the same path in a minute: two layers, a few steps, the smoke profile")
    parser.add_argument("--minutes", type=float, default=60.0, help="no further stage starts after this many (default 60)")
    parser.add_argument("--vocab", type=int, default=0, help="entries of the 0.6 B model's embedding (default: the tokenizer's)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a param, as in `cairn run --set`")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "gpu_proof.json", help="JSON file, or a folder for it")
    return parser.parse_args(given)


def prove(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure the asked parts; returns the record, which is on the disk by then."""
    begin = time.perf_counter()
    report = options.out if options.out.suffix == ".json" else options.out / "gpu_proof.json"
    overrides = [parse_override(text) for text in options.set]
    proof = Proof(folder, options.device, options.tiny, overrides, report, begin + 60 * options.minutes)
    proof.record = {"machine": machine(options.device), "device": options.device, "tiny": options.tiny, "part": options.part}
    proof.record |= {"overrides": options.set, "left_out": "", "rows": []}
    for part in SIZES:
        proof.settings(part).check()  # a mistake ends the proof now, not after minutes
    try:
        data, minutes = make_data(proof)
        if options.part in ("throughput", "all"):
            throughput(proof, data, options.vocab)
        if options.part in ("road", "all"):
            road(proof, data, minutes)
    except Spent as spent:
        proof.record["left_out"] = str(spent)
        print(f"gpu_proof: {spent}; what was measured until then is written", file=sys.stderr)
    proof.record["minutes"] = round((time.perf_counter() - begin) / 60, 2)
    proof.write()
    return proof.record


def main(given: Sequence[str] | None = None) -> int:
    """Measure and publish; 2 for a machine without a GPU and for params that are refused."""
    asked = arguments(given)
    start.fix(ROOT)  # before torch loads: threads, offline, temporary files inside the project
    if asked.device == "cuda":
        # With several GPUs in sight the Trainer would spread itself over them; one is measured.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    import torch

    if asked.device == "cuda" and not torch.cuda.is_available():
        print(
            f"gpu_proof: no GPU here (torch {torch.__version__} sees no CUDA device); run it on a machine with one, "
            "or take the same path on a CPU with `--device cpu --tiny`.",
            file=sys.stderr,
        )
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="gpu_proof-") as folder:
            print(json.dumps(prove(asked, Path(folder))))
    except BadInput as mistake:
        print(mistake, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
