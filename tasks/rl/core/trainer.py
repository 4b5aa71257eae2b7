"""TRL's `GRPOTrainer` with the room's rollouts, advantages and loss in the three places where they differ.

TRL keeps the data loop, the optimiser, the schedule and resuming; conversations come through `rollout_func`; `env_mask`
marks the model's own tokens. The room is asked through `Room`, so nothing here knows a method.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tasks.rl.core.params import LoopParams

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import GRPOTrainer

Batch = dict[str, Any]
"""TRL's tensors of one step: prompt_ids, prompt_mask, completion_ids, completion_mask, tool_mask, sampling_per_token_logps
..."""


class Room(Protocol):
    """What the trainer asks of the loop."""

    def roll(self, prompts: list[Any], trainer: GRPOTrainer) -> dict[str, list[Any]]:
        """TRL's rollout_func: one conversation per prompt, in order."""
        ...

    def judge(self, batch: Batch) -> Batch:
        """Put the method's advantages into the step's tensors and mask what does not train."""
        ...

    def loss(self, model: PreTrainedModel, batch: Batch) -> torch.Tensor:
        """The loss of one slice."""
        ...

    def after_step(self, step: int, model: PreTrainedModel) -> tuple[bool, bool]:
        """After `step` optimiser steps: (save a state to resume from now, stop now)."""
        ...

    def saved(self, step: int, folder: Path) -> None:
        """TRL has written its state into `folder`."""
        ...


def build_trainer(
    room: Room,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    params: LoopParams,
    staging: Path,
    device: str,
    seed: int,
) -> GRPOTrainer:
    """A trainer that is ready for `train(resume_from_checkpoint=...)`; it writes its states into `staging` alone."""
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"  # rollout_func is marked experimental; the lock pins the version that was tested
    from datasets import Dataset
    from transformers import PrinterCallback, TrainerCallback

    class Steps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> Any:
            control.should_save, stop = room.after_step(state.global_step, more["model"])
            control.should_training_stop = control.should_training_stop or stop
            return control

        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            room.saved(state.global_step, staging / f"checkpoint-{state.global_step}")

    prompts = Dataset.from_dict({"prompt": [str(index) for index in range(params.groups * params.steps)]})
    trainer: GRPOTrainer = _trainer_class()(
        room=room,
        model=model,
        processing_class=tokenizer,
        reward_funcs=[reward],
        rollout_func=room.roll,
        train_dataset=prompts,
        args=_config(params, staging, device, seed),
        callbacks=[Steps()],
    )
    trainer.remove_callback(PrinterCallback)  # the room reports its own figures
    return trainer


def reward(reward: list[float | None], **_: Any) -> list[float | None]:
    """What TRL logs as the reward: the column that the rollouts brought along (None: the conversation does not count)."""
    return reward


def _trainer_class() -> Any:
    """The subclass, made here because its base takes seconds to import."""
    from trl import GRPOTrainer

    class ConversationTrainer(GRPOTrainer):
        def __init__(self, room: Room, **arguments: Any) -> None:
            super().__init__(**arguments)
            self.room = room

        def _generate_and_score_completions(self, inputs: list[Batch]) -> Batch:
            return self.room.judge(super()._generate_and_score_completions(inputs))

        def _compute_loss(self, model: PreTrainedModel, inputs: Batch) -> torch.Tensor:
            return self.room.loss(self.accelerator.unwrap_model(model), inputs)

        def create_model_card(self, *_: Any, **__: Any) -> None:
            """A resume state needs no card."""

    return ConversationTrainer


def _config(params: LoopParams, staging: Path, device: str, seed: int) -> Any:
    from trl import GRPOConfig

    return GRPOConfig(
        output_dir=str(staging),
        max_steps=params.steps,
        per_device_train_batch_size=params.groups * params.group_size // params.slices,
        gradient_accumulation_steps=params.slices,
        steps_per_generation=params.slices,
        num_generations=params.group_size,
        max_completion_length=params.max_episode_tokens,
        learning_rate=params.lr,
        lr_scheduler_type=params.schedule,
        max_grad_norm=params.max_grad_norm,
        temperature=params.temperature,
        beta=0.0,
        num_iterations=1,
        shuffle_dataset=False,
        seed=seed % 2**31,
        save_strategy="no",
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        ignore_data_skip=True,
        remove_unused_columns=False,
        dataloader_num_workers=0,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=device == "cpu",
    )
