"""Plain fine-tuning through the whole room: the loss falls, a kill changes no byte, hooks reach the weights.

By hand: one row of t tokens of which n are trained; with all weights one the loss is the mean of n next-token losses, the same
number that transformers computes from labels (the limit in which the room's loop is ordinary fine-tuning).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.chat.local import qwen3_instruct
from tasks.checkpoints import folders, saving
from tasks.checkpoints.tiny import tiny_qwen3
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed
from tasks.sft import Inputs, sft
from tasks.sft.core import divergence, loop
from tasks.sft.core.data import IGNORED, Row, collate
from tasks.sft.core.hooks import Hooks, Training
from tasks.sft.core.params import Loop, check
from tasks.sft.core.scoring import Tokens, prepare_scoring, tokens_of
from tests.base.test_tiny_qwen3 import same
from tests.chat.talks import dataset, render, tokenizer, worlds

if TYPE_CHECKING:
    from torch import Tensor

SMALL = {"batch_tokens": 256, "log_every": 2, "save_every": 4, "validate_every": 6, "warmup": 2, "learning_rate": 5e-3}


def tiny() -> Any:
    import torch

    torch.manual_seed(0)
    return tiny_qwen3(tokenizer(), layers=2, width=32, heads=2)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("inputs")
    saving.save(tiny(), tokenizer(), folder / "model")
    return Inputs(worlds(folder / "worlds"), folder, dataset(folder, 40))


def tune(inputs: Inputs, out: Path, scratch: Path, hooks: Hooks | None = None, stop: int = 0, **more: Any) -> dict[str, Any]:
    def progress(done: int, total: int, note: str) -> None:
        if stop and done >= stop:
            raise KeyboardInterrupt

    out.mkdir()
    ctx = Context(seed=5, out=out, scratch=scratch, progress=progress)
    return loop.run(inputs, Loop(**{**SMALL, **more}), hooks or sft.hooks(sft.Params(), ctx), ctx)


def test_the_loss_is_the_one_of_transformers() -> None:
    """Padding and neighbours change nothing: a padded batch scores its tokens as each row alone does."""
    import torch

    ids = render(tokenizer(), None, [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ada"}]).ids
    rows = [Row("a", ids, [IGNORED] * 4 + ids[4:], 1.0), Row("b", ids[:6], [IGNORED] * 2 + ids[2:6], 1.0)]
    model = tiny().eval()
    wanted = [model(input_ids=torch.tensor([row.ids]), labels=torch.tensor([row.labels])).loss.item() for row in rows]
    prepare_scoring(model)
    batch = tokens_of(model, collate(rows, 0))
    for index, loss in enumerate(wanted):
        assert batch.nll[batch.rows == index].mean().item() == pytest.approx(loss, rel=1e-5)
    assert batch.logits.shape == (len(ids) - 4 + 4, len(tokenizer()))


def test_it_learns_and_accounts_for_every_row(inputs: Inputs, tmp_path: Path) -> None:
    figures = tune(inputs, tmp_path / "a", tmp_path / "s", epochs=3)
    assert (figures["rows"], figures["validation_rows"], figures["dropped_rows"], figures["proven_turns"]) == (32, 8, 0, 120)
    lines = [line.split(",") for line in (tmp_path / "a" / "curves.csv").read_text().splitlines()]
    assert lines[0] == ["step", "loss", "validation_loss"]
    assert float(lines[-1][2]) == figures["final_validation_loss"] < 0.8 * float(lines[1][1])
    assert (tmp_path / "a" / "dropped.csv").read_text() == "traj_id,reason\n"
    assert {path.suffix for path in (tmp_path / "a" / "model").iterdir()} == {".json", ".safetensors", ".jinja"}
    model, words = folders.load(tmp_path / "a" / "model")
    assert words.chat_template == qwen3_instruct.CHAT_TEMPLATE and not model.training


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_same_bytes_again_and_after_a_kill(inputs: Inputs, tmp_path: Path, optimizer: str) -> None:
    run = partial(tune, inputs, optimizer=optimizer)
    figures = run(tmp_path / "a", tmp_path / "sa")
    assert figures == run(tmp_path / "b", tmp_path / "sb")
    assert same(tmp_path / "a", tmp_path / "b")
    assert figures["steps"] > 10
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "c", tmp_path / "sc", stop=10)
    assert [path.name for path in (tmp_path / "sc" / "phase-0" / "states").iterdir()] == ["checkpoint-8"]
    (tmp_path / "sc" / "phase-0" / "staging" / "checkpoint-12").mkdir(parents=True)  # half written when the kill came
    assert figures == run(tmp_path / "d", tmp_path / "sc")
    assert same(tmp_path / "a", tmp_path / "d")
    assert figures == run(tmp_path / "e", tmp_path / "sa")  # killed after the last step, before the artifact was stored
    assert same(tmp_path / "a", tmp_path / "e")


class Last(Hooks):
    """Only the last layer trains."""

    def prepare(self, model: Any, training: Training) -> Any:
        for name, parameter in model.named_parameters():
            parameter.requires_grad = ".layers.1." in name
        return model


class Weightless(Hooks):
    def row_weight(self, row: Any) -> float:
        return 0.0


def states(folder: Path) -> Any:
    return folders.load(folder / "model")[0].state_dict()


def test_hooks_choose_what_trains(inputs: Inputs, tmp_path: Path) -> None:
    """Frozen parts stay as the base left them; rows that all weigh nothing are refused."""
    figures = tune(inputs, tmp_path / "a", tmp_path / "sa", Last(), max_steps=3)
    base, tuned = states(inputs.base), states(tmp_path / "a")
    moved = {name for name in base if not base[name].equal(tuned[name])}
    assert moved and all(".layers.1." in name for name in moved)
    wanted = sum(value.numel() for name, value in tiny().named_parameters() if ".layers.1." in name)
    assert figures["trained_share"] == [pytest.approx(wanted / sum(value.numel() for value in tiny().parameters()), abs=1e-6)]
    with pytest.raises(StageFailed, match="every row of the train split weighs 0"):
        tune(inputs, tmp_path / "b", tmp_path / "sb", Weightless(), max_steps=2)


class Frozen(Hooks):
    def prepare(self, model: Any, training: Training) -> Any:
        return model.requires_grad_(False)


def test_a_model_of_which_nothing_trains_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="nothing would train"):
        tune(inputs, tmp_path / "a", tmp_path / "s", Frozen(), max_steps=1)


def test_nothing_to_train_on_says_so(inputs: Inputs, tmp_path: Path) -> None:
    wanted = (
        r"0 of 32 kept rows of the train split, with 0 of \d+ trained tokens, fit max_length = 16; .*40 too long.*longest row has 141"
    )
    with pytest.raises(StageFailed, match=wanted):
        tune(inputs, tmp_path / "a", tmp_path / "s", max_length=16)
    with pytest.raises(StageFailed, match="no row of the train split is kept and fits max_length = 16: nothing to train on"):
        tune(inputs, tmp_path / "b", tmp_path / "s", max_length=16, min_trained=0.0)


def test_rows_beyond_the_models_positions_do_not_train(inputs: Inputs, tmp_path: Path) -> None:
    """max_length is no licence to train where the checkpoint has no positions."""
    short = tiny()
    short.config.max_position_embeddings = 64
    saving.save(short, tokenizer(), tmp_path / "base" / "model")
    with pytest.raises(StageFailed, match=r"0 of 32 kept rows .* fit the model's 64 positions"):
        tune(Inputs(inputs.worlds, tmp_path / "base", inputs.rows), tmp_path / "a", tmp_path / "s", max_length=2048)


def test_a_training_that_nobody_could_judge_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    dataset(tmp_path, 4)  # the fifth row would be the first of the validation split
    alone = Inputs(inputs.worlds, inputs.base, tmp_path)
    with pytest.raises(StageFailed, match=r"no row of the validation split is kept .* validation_rows: 0 trains without"):
        tune(alone, tmp_path / "a", tmp_path / "s", max_steps=1)
    assert tune(alone, tmp_path / "b", tmp_path / "s", max_steps=1, validation_rows=0)["final_validation_loss"] is None


class Spoilt(Hooks):
    def finish(self, model: Any) -> Any:
        model.get_input_embeddings().weight.data.fill_(float("nan"))
        return model


def test_a_training_that_diverges_leaves_no_model(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="the training diverged"):
        tune(inputs, tmp_path / "a", tmp_path / "s", Spoilt(), max_steps=1)


class Overflows(Hooks):
    """One row's loss, or its gradient alone, is no number."""

    def __init__(self, factor: Callable[[Tensor], Tensor]) -> None:
        self.factor = factor

    def token_loss(self, tokens: Tokens) -> Tensor:
        losses, spoilt = tokens.nll.clone(), tokens.row_weights == 0.5
        losses[spoilt] = self.factor(tokens.nll[spoilt])
        return losses

    def row_weight(self, row: Any) -> float:
        return 0.5 if row["traj_id"] == "t17" else 1.0


@pytest.mark.parametrize(
    ("factor", "what"),
    [
        (lambda nll: nll * float("inf"), "the loss is (inf|nan)"),
        (lambda nll: (nll - nll.detach()).sqrt(), "the gradient's norm is nan"),
    ],
)
def test_a_step_without_a_finite_loss_or_gradient_is_not_taken(inputs: Inputs, tmp_path: Path, factor: Any, what: str) -> None:
    """It is named with its rows, and the state before it stays for a rerun."""
    with pytest.raises(
        StageFailed, match=rf"sft: step (\d+) of 93: {what}\. .*\bt17\b.*Lower learning_rate \(0.005\) or max_norm"
    ) as failed:
        tune(inputs, tmp_path / "a", tmp_path / "s", Overflows(factor), epochs=3, save_every=2)
    text = str(failed.value)
    assert "so look at the method's loss" in text
    (kept,) = (tmp_path / "s" / "phase-0" / "states").iterdir()
    assert f"The state after step {kept.name.removeprefix('checkpoint-')} is kept" in text and not (tmp_path / "a" / "model").exists()


def test_rows_that_the_model_cannot_score_are_named_alone(inputs: Inputs, tmp_path: Path) -> None:
    import torch

    model, loss = tiny(), torch.tensor(float("nan"))
    model.get_input_embeddings().register_forward_hook(lambda table, ids, vectors: vectors / (ids[0] != 9)[..., None])
    rows = [Row("good", [7, 8, 7], [IGNORED, 8, 7], 1.0), Row("bad", [7, 9, 7], [IGNORED, 9, 7], 1.0)]
    with pytest.raises(
        StageFailed, match=r"step 3: the loss is nan\. Of its 2 rows the model's likelihood is no number for bad\. No state"
    ):
        divergence.check_gradient(prepare_scoring(model), loss, "step 3", rows, 0, Loop(), tmp_path)
    with pytest.raises(StageFailed, match=r"after step 4 weights are NaN or infinite\. No state was saved before it\. Lower muon_rate"):
        model.get_input_embeddings().weight.data[9] = float("inf")
        divergence.check_weights(model, 4, tmp_path, Loop(optimizer="muon"))
    with pytest.raises(StageFailed, match="the validation loss of the rows good, bad is nan"):
        divergence.check_validation(loss, rows, Loop())


def test_a_resume_state_between_two_points_is_refused() -> None:
    with pytest.raises(BadInput, match="save_every 30 is not a multiple of log_every 25"):
        check(Loop(save_every=30))
