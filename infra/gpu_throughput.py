"""The GPU proof's throughput: SFT and GRPO with LoRA of a Qwen3 with Qwen3-0.6B's or Qwen3-4B's shape and random weights.

A step is what lies between two of the room's reports, the GPU waited for; medians over the steps after the warm-up. Random weights
solve nothing, so plain GRPO would drop every group and never train: here every group trains, on outcome plus the share of tokens said.
That is the cost of a full step and says nothing of learning.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.gpu_stages import Proof, sorted_worlds
from infra.gpu_watch import Watch, gpu_memory, now
from tasks.contract.context import Context
from tasks.contract.params import BadInput
from tasks.engine.settings import Settings
from tasks.rl.grpo import Grpo
from tasks.rl.grpo import Params as GrpoParams

if TYPE_CHECKING:
    from tasks.contract.problem import Problem
    from tasks.rl.core.hooks import Played as Conversation
    from tasks.rl.core.pool import Group, Screened


SHAPES = {
    "0.6b": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
    "4b": {
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
    },
}
"""Those in https://huggingface.co/Qwen/Qwen3-0.6B/blob/main/config.json and Qwen3-4B's (embeddings tied); their vocabulary has 151,936
entries."""
TINY_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
"""The same kind of shape: heads share keys, and together they are wider than the hidden size."""
WARM_UP = {"sft": 3, "rl": 1}
"""Steps that are not counted: kernels are chosen and memory is taken in them."""


def throughput(proof: Proof, data: Mapping[str, Path], vocab: int, size: str) -> None:
    """SFT of the random model, then GRPO of what SFT left; adds the rows of both. size: one of SHAPES."""
    settings = proof.settings("throughput")
    tokenizer = proof.run(settings, "base", {"worlds": data["worlds"]}, "tokenizer")
    shape = TINY_SHAPE if proof.tiny else SHAPES[size]
    base = proof.folder / "random"
    sizes = random_qwen3(shape, tokenizer.folder / "model", vocab, proof.device, base / "model")
    params = {stage: settings.values(stage) for stage in ("sft", "rl")}
    proof.note("throughput", {"model": sizes, "params": params})
    trained = measure_sft(proof, settings, {"worlds": data["worlds"], "base": base, "rows": data["rows"]})
    measure_grpo(proof, settings, {"worlds": data["worlds"], "sft": trained, "world": sorted_worlds(data["worlds"])[0]})


def random_qwen3(shape: Mapping[str, int], tokenizer_of: Path, vocab: int, device: str, folder: Path) -> dict[str, Any]:
    """Save a Qwen3 of this shape with random bfloat16 weights into `folder`; returns its sizes.

    vocab: entries of the embedding; 0: as many as the tokenizer has. Raises BadInput for fewer than that.
    """
    import torch
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    from tasks.checkpoints import folders, saving, tiny
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
    saving.save(model, tokenizer, folder)
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
    proof.note("throughput", {"sft_computed_in": watch.summary()})
    return done.folder


def planned_tokens(settings: Settings, inputs: Mapping[str, Path], proof: Proof) -> list[tuple[int, int, int]]:
    """For each step, as the room planned its batches: tokens without padding, with padding, and trained ones."""
    from tasks.checkpoints.folders import load_tokenizer
    from tasks.sft.core.data import IGNORED, load_data
    from tasks.sft.core.hooks import Hooks, Training

    params: Any = settings.loop("sft")
    tokenizer = load_tokenizer(inputs["base"] / "model")
    path, prompt = inputs["rows"] / "dataset.parquet", settings.shared.prompt.model_dump()
    rows = load_data(path, inputs["worlds"], tokenizer, prompt, params.max_length, Hooks().row_weight).train
    context = Context(settings.shared.seed, proof.folder, proof.folder)
    sizes = []
    for step in Training(params, rows, 0, context).steps():
        lengths = [[len(rows[index].ids) for index in batch] for batch in step]
        trained = sum(label != IGNORED for batch in step for index in batch for label in rows[index].labels)
        sizes.append((sum(map(sum, lengths)), sum(max(batch) * len(batch) for batch in lengths), trained))
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
    proof.note("throughput", {"grpo_computed_in": watch.summary()})
