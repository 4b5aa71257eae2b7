"""The room's training, top-down: rows become proven tokens, hooks say what trains and how, phase follows phase, a model comes out."""

from __future__ import annotations

import csv
import gc
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import folders, starting
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed
from tasks.sft import Inputs
from tasks.sft.core import token_rows
from tasks.sft.core.data import TOO_LONG, UNFIT, Data, load_data
from tasks.sft.core.hooks import Hooks, Phase, Training
from tasks.sft.core.params import Loop
from tasks.sft.core.scoring import prepare_scoring
from tasks.sft.core.trainer import Place, fit
from tasks.training import distributed, fitting, packs

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tasks.sft.core.hooks import Teacher


def run(inputs: Inputs, loop: Loop, hooks: Hooks, ctx: Context) -> dict[str, Any]:
    """Fine-tune base/model on the kept rows; leaves model/ (an adapter or a whole checkpoint: `loop.adapter`), curves.csv, dropped.csv
    (rows left out, with reasons), and adapter/ where one was merged into model/.

    Returns counts and losses (nats a token). Raises StageFailed when hardly a row is left to train on (`check_used`). Resumes from
    ctx.scratch.
    """
    import torch
    from transformers import set_seed

    torch.set_num_threads(ctx.threads)
    distributed.join(ctx.device)
    set_seed(ctx.seed_for("sft") % 2**32)
    start = starting.begin(inputs.base / "model", loop.adapter, ctx.artifacts, ctx.device)
    model, tokenizer = start.model, start.tokenizer
    longest = min(loop.max_length, folders.context_of(model))
    data = load(inputs, tokenizer, longest, hooks, ctx)
    check_used(data, loop, longest, inputs.rows)
    training = Training(loop, data.train, tokenizer.pad_token_id, ctx)
    model = start.wear(hooks.prepare(model, training)).train()
    if loop.checkpointing:
        fitting.checkpoint(model, "sft")
    if loop.packing != "none":
        packs.prepare_model(model, max(len(row.ids) for row in (*data.train, *data.validation)), "sft")
    teacher = hooks.teacher(model, training)
    prepare_scoring(model)
    phases = check_phases(hooks.phases(training))
    ctx.progress(0, sum(len(phase.steps) for phase in phases), starting.trained_text(model))
    whole = model
    if distributed.size() > 1:
        check_shared(hooks, phases)
        fitting.narrow(model, loop.dtype)
        whole = distributed.whole_of(model, "cpu")
        distributed.shard(model)
    history, shares = train(model, tokenizer, phases, training, data, hooks, teacher)
    if distributed.size() > 1:
        model = distributed.gather(model, whole)
        if model is None:
            return {}
    trained = starting.trained(model)
    fitting.widen(model)
    start.keep(hooks.finish(model), ctx.out / "model", ctx.out / "adapter")
    curve = _write_curves(ctx.out / "curves.csv", history)
    _write(ctx.out / "dropped.csv", [("traj_id", "reason"), *data.dropped])
    return {
        "rows": len(data.train),
        "validation_rows": len(data.validation),
        "dropped_rows": len(data.dropped),
        "dropped_by": data.dropped_by(),
        "dropped_first": [f"{name}: {reason}" for name, reason in data.dropped[:5]],
        "proven_turns": data.proven_turns,
        "tokens": sum(len(row.ids) for row in data.train),
        "trained_tokens": sum(row.trained for row in data.train),
        "steps": sum(len(phase.steps) for phase in phases),
        "trained_share": shares,
        **trained,
        "final_loss": next((loss for _, loss, _ in reversed(curve) if loss != ""), None),
        "final_validation_loss": next((loss for _, _, loss in reversed(curve) if loss != ""), None),
    }


def load(inputs: Inputs, tokenizer: PreTrainedTokenizerBase, longest: int, hooks: Hooks, ctx: Context) -> Data:
    """The rows of the input, by the file that it left: marked conversations, or rows of tokens. BadInput for a control of rows of
    tokens, of which no filter has left any out."""
    if not (inputs.rows / token_rows.FILE).is_file():
        drawn = ctx.rng("unfiltered") if inputs.unfiltered else None
        return load_data(inputs.rows / "dataset.parquet", inputs.worlds, tokenizer, ctx.prompt, longest, hooks.row_weight, drawn)
    if inputs.unfiltered:
        raise BadInput(
            "loop.control: rows of tokens went through no filter, so there are no unfiltered ones to compare with. Set false."
        )
    return token_rows.load_token_rows(inputs.rows, tokenizer, longest, hooks.row_weight)


def check_shared(hooks: Hooks, phases: Sequence[Phase]) -> None:
    """StageFailed for a method whose steps several processes cannot share."""
    own = [name for name in ("step", "gradients") if getattr(type(hooks), name) is not getattr(Hooks, name)]
    own += ["phases"] if len(phases) > 1 else []
    if own:
        raise StageFailed(
            f"sft: the method has {' and '.join(own)} of its own, for which it needs whole weights in one process. Set "
            "loop.distributed: {kind: none, processes: 1}."
        )


def train(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    phases: Sequence[Phase],
    training: Training,
    data: Data,
    hooks: Hooks,
    teacher: Teacher | None,
) -> tuple[list[dict[str, Any]], list[float]]:
    """Train `model` in place through all phases; returns the log, steps counted through, and each phase's share of weights that train.

    Where there are several, the weights between them lie in ctx.scratch: a killed run goes on in the phase in which it was.
    """
    kept = _Between(training.ctx.scratch, len(phases) > 1)
    kept.put(0, model, [])
    history: list[dict[str, Any]] = []
    shares: list[float] = []
    before, total = 0, sum(len(phase.steps) for phase in phases)
    for number, phase in enumerate(phases):
        hooks.begin(number, model, kept.weights)
        fitting.narrow(model, (phase.loop or training.loop).dtype)
        shares.append(round(_trained_share(model), 6))
        log = kept.log(number + 1, model)
        if log is None:
            place = Place(training.ctx.scratch / f"phase-{number}", before, total)
            validation = data.validation[: (phase.loop or training.loop).validation_rows]
            log = fit(model, tokenizer, phase, training, validation, hooks, teacher, place)
            kept.put(number + 1, model, log)
            gc.collect()  # a Trainer is a ring of references; its optimiser must not lie beside the next one's
        history += [{**entry, "step": before + entry["step"]} for entry in log]
        before += len(phase.steps)
    return history, shares


class _Between:
    """The weights before the first phase (0) and after each (1, 2, ...), on disk, with the log of the phase that ended there."""

    def __init__(self, scratch: Path, several: bool) -> None:
        self.scratch, self.several = scratch, several

    def _file(self, number: int) -> Path:
        return self.scratch / f"weights-{number}.safetensors"

    def weights(self, number: int) -> dict[str, Tensor]:
        """Parameters by name."""
        from safetensors.torch import load_file

        found: dict[str, Tensor] = load_file(str(self._file(number)))
        return found

    def put(self, number: int, model: PreTrainedModel, log: Sequence[Mapping[str, Any]]) -> None:
        """Keep the weights as they are now, once."""
        if not self.several or self._file(number).exists():
            return
        from safetensors.torch import save_file

        self.scratch.mkdir(parents=True, exist_ok=True)
        part = self._file(number).with_suffix(".part")
        weights = {name: value.detach().contiguous() for name, value in model.named_parameters()}
        save_file(weights, str(part), {"log": json.dumps(list(log))})
        os.replace(part, self._file(number))

    def log(self, number: int, model: PreTrainedModel) -> list[dict[str, Any]] | None:
        """The log of a phase that ended in an earlier run, its weights put into the model; None while it has to be trained."""
        if not self.several or not self._file(number).exists():
            return None
        from safetensors import safe_open

        model.load_state_dict(self.weights(number), strict=False)
        with safe_open(str(self._file(number)), "pt") as file:
            found: list[dict[str, Any]] = json.loads(file.metadata()["log"])
        return found


def _trained_share(model: PreTrainedModel) -> float:
    sizes = [(value.numel(), value.requires_grad) for value in model.parameters()]
    return sum(size for size, trains in sizes if trains) / sum(size for size, _ in sizes)


def check_phases(phases: Sequence[Phase]) -> Sequence[Phase]:
    """The phases themselves; StageFailed when one of them trains on nothing."""
    if not phases:
        raise StageFailed("sft: the method's `phases` are none, so nothing would train.")
    for number, phase in enumerate(phases):
        if not phase.steps or not all(batch for step in phase.steps for batch in (step or [[]])):
            raise StageFailed(f"sft: phase {number} {phase.name!r} has no step, or a batch without a row: it would train nothing.")
    return phases


def check_used(data: Data, loop: Loop, longest: int, kept: Path) -> None:
    """Stop (StageFailed) when hardly anything of what the filter kept would train, or nothing would tell how well.

    longest: tokens of a row at most, the smaller of max_length and the model's positions. kept: the folder that the rows are from.
    """
    counts = f"{kept / 'waterfall.csv'} says what the filter dropped, and why."
    if (kept / token_rows.FILE).is_file():
        counts = "`generate.expert_rows.parts` says how many rows of which split there are."
    said = f"max_length = {loop.max_length}" if longest == loop.max_length else f"the model's {longest} positions"
    for split, used in (("train", data.train), ("validation", data.validation)):
        rows, tokens = data.offered[split]
        trained = sum(row.trained for row in used)
        if rows and min(len(used) / rows, trained / max(1, tokens)) < loop.min_trained:
            raise StageFailed(
                f"sft: {len(used)} of {rows} kept rows of the {split} split, with {trained} of {tokens} trained tokens, fit {said}; "
                f"at least min_trained = {loop.min_trained:g} of both must. Left out: {_counts_text(data.dropped_by())}. "
                + _remedy(data)
            )
    if not data.train:
        raise StageFailed(f"sft: no row of the train split is kept and fits {said}: nothing to train on. {counts}")
    if not any(row.weight > 0 for row in data.train):
        raise StageFailed("sft: every row of the train split weighs 0 (the method's row_weight), so nothing would train.")
    if loop.validation_rows and not data.validation:
        raise StageFailed(
            f"sft: no row of the validation split is kept and fits {said}, so nothing would tell how well it learns. {counts} "
            "validation_rows: 0 trains without."
        )


def _remedy(data: Data) -> str:
    """What helps against the reason for which most rows were left out."""
    counts = data.dropped_by()
    worst = max(counts, key=lambda reason: counts[reason], default=TOO_LONG)
    if worst == TOO_LONG:
        return f"The longest row has {data.longest} tokens. Raise max_length, or shorten the prompt (prompt.tools, prompt.policy)."
    if worst.startswith(UNFIT):
        return "A checkpoint whose chat format holds such turns would train on them: `cairn chat check` says what a format holds."
    return "The step before leaves such rows: have it make other ones, or lower min_trained to train on what is left."


def _counts_text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"


def _write_curves(path: Path, history: Sequence[dict[str, Any]]) -> list[tuple[int, Any, Any]]:
    """curves.csv: step, loss (mean since the last point), validation_loss; an empty cell where one was not measured."""
    points: dict[int, dict[str, float]] = {}
    for entry in history:
        for name in ("loss", "validation_loss"):
            if name in entry:
                points.setdefault(int(entry["step"]), {})[name] = round(float(entry[name]), 6)
    curve = [(step, point.get("loss", ""), point.get("validation_loss", "")) for step, point in sorted(points.items())]
    _write(path, [("step", "loss", "validation_loss"), *curve])
    return curve


def _write(path: Path, lines: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(lines)
