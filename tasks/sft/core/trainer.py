"""One phase of a training: TRL's SFTTrainer over steps that were planned by us, with a method's hooks in them.

What differs from SFTTrainer as it comes: rows arrive as proven tokens, batches hold about as many tokens as asked for, logits are
computed for trained tokens alone (SFTTrainer's fused head scores every position on a CPU, with entropies), a step's batches are
accumulated by the step itself, so that its mean is one over all of their tokens, and a resume state is complete or absent (the Trainer
writes `checkpoint-N` in place), and a step without a finite loss and gradient is not taken.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import memory
from tasks.checkpoints.adapters import has_adapter
from tasks.contract.context import Context
from tasks.sft.core import divergence, optimizer
from tasks.sft.core.data import Row, batches, collate
from tasks.sft.core.hooks import Hooks, Phase, Step, Training
from tasks.sft.core.params import Loop
from tasks.sft.core.passes import parts
from tasks.training import distributed, fitting

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from tasks.sft.core.hooks import Teacher
    from tasks.sft.core.scoring import Batch

TRAINED = "trained.safetensors"
"""In a resume state of a PEFT model: all that trains, since the Trainer writes an adapter alone and a method may train more."""
SHARD = "shard.pt"
"""In a resume state of one of several processes: its slices, the schedule and its noise."""


@dataclass(frozen=True)
class Place:
    """Where a phase stands. folder: for its resume states. before: steps of the phases before it. total: steps of all phases."""

    folder: Path
    before: int
    total: int


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    phase: Phase,
    training: Training,
    validation: Sequence[Row],
    hooks: Hooks,
    teacher: Teacher | None,
    place: Place,
) -> list[dict[str, Any]]:
    """Train `model` in place over the phase's steps; returns the Trainer's log, its steps counted from the phase's first."""
    from datasets import Dataset
    from transformers import PrinterCallback

    staging, states = place.folder / "staging", place.folder / "states"
    loop, ctx = phase.loop or training.loop, training.ctx
    shutil.rmtree(staging, ignore_errors=True)

    def check(model: Any, loss: Any, step: int) -> None:
        """step: of this phase, from 0."""
        rows = [training.rows[index] for batch in phase.steps[step] for index in batch]
        name = f"step {place.before + step + 1} of {place.total}"
        divergence.check_gradient(model, loss, name, rows, training.pad, loop, states)

    trainer = _trainer_class(hooks, teacher, loop, ctx.device, check)(
        model=model,
        args=_config(loop, ctx, staging),
        train_dataset=Dataset.from_dict({"batches": [[list(batch) for batch in step] for step in phase.steps]}),
        data_collator=lambda items: {
            "batches": [collate([training.rows[index] for index in batch], training.pad) for batch in items[0]["batches"]]
        },
        processing_class=tokenizer,
        callbacks=[_callback(validation, training.pad, len(phase.steps), loop, ctx, hooks, place)],
    )
    trainer.remove_callback(PrinterCallback)
    with memory.advised("sft", fitting.advice(loop, f"up to {loop.batch_tokens} tokens (batch_tokens)")):
        trainer.train(resume_from_checkpoint=_last_state(states))
    shutil.rmtree(staging, ignore_errors=True)
    return list(trainer.state.log_history)


def _trainer_class(
    hooks: Hooks, teacher: Teacher | None, loop: Loop, device: str, check: Callable[[Any, Any, int], None]
) -> type[SFTTrainer]:
    """SFTTrainer with the room's step; a class of its own here because trl takes seconds to import.

    check: called with the model, the loss and the step's number when a step's gradients are there and before they are used.
    """
    from trl import SFTTrainer

    def autocast() -> AbstractContextManager[Any]:
        return fitting.autocast(device, loop.dtype)

    class Trainer(SFTTrainer):
        def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
            model.train()

            def backward(loss: Any) -> None:
                """The processes' gradients are averaged, and are to add up."""
                self.accelerator.backward(loss * distributed.size() if distributed.size() > 1 else loss)

            given = self._prepare_inputs(inputs)["batches"]
            step = Step(model, given, hooks, teacher, autocast, backward, lambda batch: distributed.share(parts(batch, loop), _idle))
            loss = distributed.total(hooks.step(step))
            hooks.gradients(model)
            check(model, loss, self.state.global_step)
            return loss

        def create_optimizer(self, model: Any = None) -> Any:
            self.optimizer = optimizer.build(self.model, loop)
            return self.optimizer

        def floating_point_ops(self, inputs: Any) -> int:
            """Not counted: an item here is a step of several batches."""
            return 0

        def create_model_card(self, *args: Any, **kwargs: Any) -> None:
            """Resume states need no card (TRL writes one into each)."""

        def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
            """Weights of a resume state; of several processes each writes its slices in `on_save`."""
            if distributed.size() == 1:
                super().save_model(output_dir, _internal_call)
            else:
                Path(output_dir or "").mkdir(parents=True, exist_ok=True)

        def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
            if distributed.size() > 1:
                return  # `on_train_begin` does it, when there is an optimiser too
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            if (kept := Path(resume_from_checkpoint) / TRAINED).is_file():
                from safetensors.torch import load_file

                self.model.load_state_dict(load_file(str(kept)), strict=False)

    return Trainer


def _config(loop: Loop, ctx: Context, staging: Path) -> SFTConfig:
    """One item of the dataset is one planned step, and the plan holds all epochs: hence one epoch of batches of one."""
    from trl import SFTConfig

    on_cpu = ctx.device == "cpu"
    return SFTConfig(
        output_dir=str(staging),
        num_train_epochs=1,
        per_device_train_batch_size=1,
        train_sampling_strategy="sequential",
        learning_rate=loop.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=loop.warmup,
        max_grad_norm=loop.max_norm,
        use_cpu=on_cpu,
        bf16=False,
        activation_checkpointing=False,
        logging_steps=loop.log_every,
        save_strategy="steps",
        save_steps=loop.save_every,
        save_only_model=distributed.size() > 1,
        seed=ctx.seed_for("trainer") % 2**32,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        max_length=None,
        dataloader_pin_memory=not on_cpu,
        disable_tqdm=True,
        report_to="none",
    )


def validation_loss(model: PreTrainedModel, rows: Sequence[Row], pad: int, loop: Loop, hooks: Hooks) -> float:
    """Mean over all rows of what the method validates: by default negative log-likelihood in nats a trained token, unweighted."""
    import torch

    total, count = 0.0, 0
    model.eval()
    with torch.no_grad():
        for batch in batches(rows, loop.batch_tokens, None, loop.packing):
            chosen = [rows[index] for index in batch]
            inputs = {name: value.to(model.device) for name, value in collate(chosen, pad).items()}
            with fitting.autocast(model.device.type, loop.dtype):
                found = [hooks.validation(model, part) for part in parts(inputs, loop)]
            some, number = sum(one for one, _ in found), sum(number for _, number in found)
            divergence.check_validation(some, chosen, loop)
            total, count = total + float(some), count + number
    model.train()
    return total / count


def _callback(validation: Sequence[Row], pad: int, steps: int, loop: Loop, ctx: Context, hooks: Hooks, place: Place) -> TrainerCallback:
    """Validates, reports, and moves every finished resume state into place with one rename."""
    from transformers import TrainerCallback

    states = place.folder / "states"

    class Room(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if distributed.size() > 1 and (found := _last_state(states)):
                _resume(Path(found) / SHARD, kwargs["model"], kwargs["optimizer"].optimizer, kwargs["lr_scheduler"])

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            step = state.global_step
            if validation and (step % loop.validate_every == 0 or step == steps):
                loss = validation_loss(kwargs["model"], validation, pad, loop, hooks)
                state.log_history.append({"step": step, "validation_loss": loss})
                ctx.log("validation_loss", loss, place.before + step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
            if logs and "loss" in logs:
                done = place.before + state.global_step
                ctx.log("loss", logs["loss"], done)
                ctx.progress(done, place.total, f"loss {logs['loss']:.3f}")

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            name = f"checkpoint-{state.global_step}"
            divergence.check_weights(model := kwargs["model"], place.before + state.global_step, states, loop)
            if distributed.size() > 1:
                _keep_slices(Path(args.output_dir) / name / SHARD, model, kwargs["optimizer"].optimizer, kwargs["lr_scheduler"])
            elif has_adapter(model):
                _keep_trained(model, Path(args.output_dir) / name / TRAINED)
            states.mkdir(parents=True, exist_ok=True)
            older = list(states.iterdir())
            os.replace(Path(args.output_dir) / name, states / name)
            distributed.wait()  # the older one goes when every process has the new one
            for folder in older:
                shutil.rmtree(folder)

    return Room()


def _keep_trained(model: PreTrainedModel, path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.detach().contiguous() for name, value in model.named_parameters() if value.requires_grad}, str(path))


def _idle(batch: Batch) -> Batch:
    """A pass that counts nothing (`Step.learn`)."""
    return {**batch, "idle": batch["row_weights"]}


def _keep_slices(path: Path, model: PreTrainedModel, optimizer: Optimizer, schedule: Any) -> None:
    import torch

    torch.save({**distributed.slices(model, optimizer), "schedule": schedule.state_dict(), "noise": torch.get_rng_state()}, path)


def _resume(path: Path, model: PreTrainedModel, optimizer: Optimizer, schedule: Any) -> None:
    import torch

    found = torch.load(path, weights_only=True, map_location="cpu")
    distributed.restore(model, optimizer, found)
    schedule.load_state_dict(found["schedule"])
    for group, rate in zip(optimizer.param_groups, schedule.get_last_lr(), strict=True):
        group["lr"] = rate
    torch.set_rng_state(found["noise"])


def _last_state(states: Path) -> str | None:
    """The newest complete resume state, of several processes that all have; a kill between a rename and the clearing may leave two."""
    found = distributed.common([int(path.name.split("-")[1]) for path in states.glob("checkpoint-*")])
    return str(states / f"checkpoint-{max(found)}") if found else None
