"""The room's training loop: TRL's SFTTrainer over batches planned by us, with a paper's hooks in the loss.

What differs from SFTTrainer as it comes: rows arrive as proven tokens, batches hold about as many tokens as asked for,
logits are computed for trained tokens alone (SFTTrainer's fused head scores every position on a CPU, with entropies), and a
resume state is complete or absent (the Trainer writes `checkpoint-N` in place).
"""

from __future__ import annotations

import csv
import os
import shutil
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import folders
from tasks.contract.context import Context
from tasks.contract.params import StageFailed
from tasks.sft import Inputs
from tasks.sft.core import optimizer
from tasks.sft.core.data import IGNORED, Data, Row, batches, collate, load_data
from tasks.sft.core.hooks import Hooks, Tokens, total_loss
from tasks.sft.core.params import Loop

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl import SFTConfig, SFTTrainer


def run(inputs: Inputs, params: Loop, hooks: Hooks, ctx: Context) -> dict[str, Any]:
    """Fine-tune base/model on the kept rows; leaves model/, curves.csv and dropped.csv (rows left out, with reasons).

    Returns counts and losses (nats a token). Raises StageFailed when hardly a row is left to train on (`check_used`). Resumes from
    ctx.scratch.
    """
    import torch
    from transformers import set_seed

    torch.set_num_threads(ctx.threads)
    set_seed(ctx.seed_for("sft") % 2**32)
    model, tokenizer = folders.load(inputs.base / "model", device=ctx.device)
    path = inputs.filter / "dataset.parquet"
    drawn = ctx.rng("unfiltered") if inputs.unfiltered else None
    longest = min(params.max_length, folders.context_of(model))
    data = load_data(path, inputs.worlds, tokenizer, ctx.prompt, longest, hooks.row_weight, drawn)
    check_used(data, params, longest)
    plan = [batch for n in range(params.epochs) for batch in batches(data.train, params.batch_tokens, ctx.rng("batches", n))]
    plan = plan[: params.max_steps or None]
    model = hooks.prepare(model).train()
    history = _fit(model, tokenizer, data, plan, params, ctx, hooks)
    folders.save(hooks.finish(model), tokenizer, ctx.out / "model")
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
        "steps": len(plan),
        "final_loss": next((loss for _, loss, _ in reversed(curve) if loss != ""), None),
        "final_validation_loss": next((loss for _, _, loss in reversed(curve) if loss != ""), None),
    }


def check_used(data: Data, params: Loop, longest: int) -> None:
    """Stop (StageFailed) when hardly anything of what the filter kept would train, or nothing would tell how well.

    longest: tokens of a row at most, the smaller of max_length and the model's positions.
    """
    said = f"max_length = {params.max_length}" if longest == params.max_length else f"the model's {longest} positions"
    for split, used in (("train", data.train), ("validation", data.validation)):
        rows, tokens = data.offered[split]
        trained = sum(row.trained for row in used)
        if rows and min(len(used) / rows, trained / max(1, tokens)) < params.min_trained:
            raise StageFailed(
                f"sft: {len(used)} of {rows} kept rows of the {split} split, with {trained} of {tokens} trained tokens, fit {said}; "
                f"at least min_trained = {params.min_trained:g} of both must. Left out: {_said(data.dropped_by())}. "
                f"The longest row has {data.longest} tokens. Raise max_length, or shorten the prompt (prompt.tools, prompt.policy)."
            )
    if not data.train:
        raise StageFailed(f"sft: no row of the train split is kept and fits {said}: nothing to train on. {WATERFALL}")
    if not any(row.weight > 0 for row in data.train):
        raise StageFailed("sft: every row of the train split weighs 0 (the method's row_weight), so nothing would train.")
    if params.validation_rows and not data.validation:
        raise StageFailed(
            f"sft: no row of the validation split is kept and fits {said}, so nothing would tell how well it learns. {WATERFALL} "
            "validation_rows: 0 trains without."
        )


def _said(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none"


WATERFALL = "data/filter/waterfall.csv says what the filter dropped, and why."


def _fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    data: Data,
    plan: Sequence[Sequence[int]],
    params: Loop,
    ctx: Context,
    hooks: Hooks,
) -> list[dict[str, Any]]:
    """Train `model` in place over the planned batches; returns the Trainer's log."""
    from datasets import Dataset
    from transformers import PrinterCallback

    staging, states = ctx.scratch / "staging", ctx.scratch / "states"
    shutil.rmtree(staging, ignore_errors=True)
    trainer = _trainer_class(hooks, params)(
        model=model,
        args=_config(params, ctx, staging),
        train_dataset=Dataset.from_dict({"rows": [list(batch) for batch in plan]}),
        data_collator=lambda items: collate([data.train[index] for index in items[0]["rows"]], tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[_callback(data.validation[: params.validation_rows], tokenizer.pad_token_id, len(plan), params, ctx)],
    )
    trainer.remove_callback(PrinterCallback)
    _score_trained_tokens(model)
    trainer.train(resume_from_checkpoint=_last_state(states))
    shutil.rmtree(staging, ignore_errors=True)
    return list(trainer.state.log_history)


def _config(params: Loop, ctx: Context, staging: Path) -> SFTConfig:
    """One item of the dataset is one planned batch, and the plan holds all epochs: hence one epoch of batches of one."""
    from trl import SFTConfig

    on_cpu = ctx.device == "cpu"
    return SFTConfig(
        output_dir=str(staging),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        learning_rate=params.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=params.warmup,
        max_grad_norm=params.max_norm,
        use_cpu=on_cpu,
        bf16=params.bf16 and not on_cpu,
        activation_checkpointing=not on_cpu,
        logging_steps=params.log_every,
        save_strategy="steps",
        save_steps=params.save_every,
        seed=ctx.seed_for("trainer") % 2**32,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        dataloader_pin_memory=not on_cpu,
        disable_tqdm=True,
        report_to="none",
    )


def _score_trained_tokens(model: PreTrainedModel) -> None:
    """Teach `model(input_ids=..., scored=...)`: the logits (n, v) of the scored positions alone; other calls stay as they
    are.

    It goes through `forward`, so that wrappers for several GPUs see the call. scored: (b, t), true where the *next* token
    counts.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    plain_forward = base.forward

    def forward(self: PreTrainedModel, *args: Any, scored: Tensor | None = None, **kwargs: Any) -> Any:
        if scored is None:
            return plain_forward(*args, **kwargs)
        hidden = self.base_model(*args, use_cache=False, **kwargs).last_hidden_state
        return self.get_output_embeddings()(hidden[scored])

    base.forward = types.MethodType(forward, base)


def tokens_of(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tokens:
    """The trained tokens of a collated batch, scored by the model."""
    import torch

    targets = inputs["labels"][:, 1:]
    scored = torch.nn.functional.pad(targets != IGNORED, (0, 1))
    logits = model(input_ids=inputs["input_ids"], scored=scored).float()
    wanted = targets[targets != IGNORED]
    rows = scored.nonzero()[:, 0]
    nll = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    return Tokens(logits, wanted, rows, inputs["row_weights"][rows], nll)


def _trainer_class(hooks: Hooks, params: Loop) -> type[SFTTrainer]:
    """SFTTrainer with the room's loss; a class of its own here because trl takes seconds to import."""
    from trl import SFTTrainer

    class Trainer(SFTTrainer):
        def compute_loss(
            self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Tensor:
            return total_loss(tokens_of(model, inputs), model, hooks)

        def create_optimizer(self, model: Any = None) -> Any:
            self.optimizer = optimizer.build(self.model, params)
            return self.optimizer

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """Resume states need no card (TRL writes one into each)."""

    return Trainer


def validation_loss(model: PreTrainedModel, rows: Sequence[Row], pad: int, tokens: int) -> float:
    """Mean negative log-likelihood (nats a trained token) over all rows, unweighted."""
    import torch

    total, count = 0.0, 0
    model.eval()
    with torch.no_grad():
        for batch in batches(rows, tokens, None):
            inputs = {name: value.to(model.device) for name, value in collate([rows[i] for i in batch], pad).items()}
            nll = tokens_of(model, inputs).nll
            total, count = total + float(nll.sum()), count + len(nll)
    model.train()
    return total / count


def _callback(validation: Sequence[Row], pad: int, steps: int, params: Loop, ctx: Context) -> TrainerCallback:
    """Validates, reports, and moves every finished resume state into place with one rename."""
    from transformers import TrainerCallback

    states = ctx.scratch / "states"

    class Room(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            step = state.global_step
            if validation and (step % params.validate_every == 0 or step == steps):
                loss = validation_loss(kwargs["model"], validation, pad, params.batch_tokens)
                state.log_history.append({"step": step, "validation_loss": loss})
                ctx.log("validation_loss", loss, step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                ctx.log("loss", logs["loss"], state.global_step)
                ctx.progress(state.global_step, steps, f"loss {logs['loss']:.3f}")

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            name = f"checkpoint-{state.global_step}"
            states.mkdir(parents=True, exist_ok=True)
            older = list(states.iterdir())
            os.replace(Path(args.output_dir) / name, states / name)
            for folder in older:
                shutil.rmtree(folder)

    return Room()


def _last_state(states: Path) -> str | None:
    """The newest complete resume state; a kill between a rename and the clearing may leave two."""
    found = sorted(states.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return str(found[-1]) if found else None


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
