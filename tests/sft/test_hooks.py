"""Each hook by a method that needs it, and a number worked by hand.

By hand, for `Toy`, whose vocabulary is two tokens: it gives the token with id k the logits [a_k, 0] for what comes next, so that the
next token's loss is log(1 + exp(-a_k)); with a_k = -log(exp(x) - 1) it is x. Two rows with weights 1 and 3; their trained tokens have
losses (1, 2) and (4). The loss is (1*1 + 1*2 + 3*4) / (1 + 1 + 3) = 3.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tasks.contract.params import StageFailed
from tasks.sft import Inputs
from tasks.sft.core import loop
from tasks.sft.core.data import IGNORED, Row, collate
from tasks.sft.core.hooks import Hooks, Phase, Step, Training
from tasks.sft.core.params import Loop
from tasks.sft.core.scoring import hidden_of
from tasks.sft.core.teachers import frozen, without_adapter
from tests.base.test_tiny_qwen3 import same
from tests.sft.test_sft import inputs as inputs
from tests.sft.test_sft import states, tiny, tune

ROWS = [Row("a", [1, 2, 0], [IGNORED, 0, 0], 1.0), Row("b", [3, 0], [IGNORED, 0], 3.0)]


def toy(*losses: float) -> Any:
    """A model that loses so much on the token after ids 1, 2, 3."""
    import torch

    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = torch.nn.Parameter(torch.tensor([0.0, *(-math.log(math.exp(x) - 1) for x in losses)]))

        def forward(self, input_ids: Any, scored: Any) -> Any:
            found = self.a[input_ids[scored]]
            return torch.stack([found, torch.zeros_like(found)], 1)

    return Toy()


def step_of(
    hooks: Hooks, batches: Sequence[Sequence[Row]] = (ROWS,), model: Any = None, teacher: Any = None
) -> tuple[float, list[float]]:
    """One step's loss, and the gradient that it leaves."""
    model = model or toy(1.0, 2.0, 4.0)
    given = [collate(list(rows), 0) for rows in batches]
    loss = hooks.step(Step(model, given, hooks, teacher, nullcontext, lambda loss: loss.backward())).item()
    return loss, model.a.grad.tolist()[1:]


class TokenWeights(Hooks):
    def __init__(self, *weights: float) -> None:
        self.weights = weights

    def token_weight(self, tokens: Any) -> Any:
        import torch

        return torch.tensor(self.weights)


def test_the_loss_by_hand() -> None:
    """Token weights scale the losses and stay out of the denominator: (1 + 0 + 6) / 5; they may be negative: (1 - 2 + 12) / 5."""
    assert step_of(Hooks())[0] == pytest.approx(3.0)
    assert step_of(TokenWeights(1.0, 0.0, 0.5))[0] == pytest.approx(1.4)
    assert step_of(TokenWeights(1.0, -1.0, 1.0))[0] == pytest.approx(2.2)
    assert step_of(TokenWeights(1.0, 1.0, 1.0)) == step_of(Hooks())
    weightless = [Row(row.name, row.ids, row.labels, 0.0) for row in ROWS]
    assert step_of(Hooks(), [weightless]) == (0.0, [0.0, 0.0, 0.0])


def test_batches_of_a_step_are_one_mean() -> None:
    """By hand: row a alone costs 3 / 2, row b 4; the mean over both is 3, not the mean of the means, 2.75. So is its gradient."""
    whole, parts = step_of(Hooks()), step_of(Hooks(), [ROWS[:1], ROWS[1:]])
    assert parts[0] == pytest.approx(3.0) and parts[1] == pytest.approx(whole[1])


class Pull(Hooks):
    """A term per batch, as LT-SFT's pull towards the base is one."""

    def loss_term(self, model: Any, tokens: Any) -> Any:
        return 0.5 * (model.a - 1).abs().sum()


def test_a_term_is_added_once_a_step_however_many_batches_it_has() -> None:
    """By hand: at a = (0, 0, 0, 0) the term is 0.5 * 4 = 2, beside a loss of log 2; its gradient is -0.5 everywhere."""
    half = math.log(2)
    for batches in ([ROWS], [ROWS[:1], ROWS[1:]]):
        loss, gradient = step_of(Pull(), batches, toy(half, half, half))
        plain = step_of(Hooks(), batches, toy(half, half, half))[1]
        assert loss == pytest.approx(half + 2.0)
        assert [mine - theirs for mine, theirs in zip(gradient, plain, strict=True)] == pytest.approx([-0.5] * 3)


class Rise(Hooks):
    """Recursive introspection: the mean over rows of each row's weighted mean over its tokens."""

    def token_weight(self, tokens: Any) -> Any:
        return 1 / tokens.rows.bincount()[tokens.rows]

    def count(self, batch: Any) -> Any:
        return batch["row_weights"].new_tensor(float(len(batch["row_weights"])))


def test_a_mean_over_rows() -> None:
    """By hand: (1 * (1 + 2) / 2 + 3 * 4) / 2 = 6.75."""
    assert step_of(Rise())[0] == pytest.approx(6.75) == step_of(Rise(), [ROWS[:1], ROWS[1:]])[0]


class ToTeacher(Hooks):
    """Kullback-Leibler divergence from a frozen teacher instead of the data's tokens."""

    def token_loss(self, tokens: Any) -> Any:
        p, q = tokens.teacher_logits.log_softmax(-1), tokens.logits.log_softmax(-1)
        return (p.exp() * (p - q)).sum(-1)


def test_a_teachers_logits_come_with_the_batch() -> None:
    """By hand: a teacher that is even, a student that is not: 0.5 * (log 0.5 - log p) + 0.5 * (log 0.5 - log(1 - p)), p = exp(-loss).
    A student that is even loses nothing, and its gradient is none."""
    teacher = toy(*[math.log(2)] * 3)

    def logits(batch: Any) -> Any:
        from tasks.sft.core.scoring import scored_of

        return teacher(batch["input_ids"], scored_of(batch)).detach()

    each = [-math.log(2) - 0.5 * (-x + math.log(1 - math.exp(-x))) for x in (1.0, 2.0, 4.0)]
    assert step_of(ToTeacher(), teacher=logits)[0] == pytest.approx((each[0] + each[1] + 3 * each[2]) / 5)
    loss, gradient = step_of(ToTeacher(), model=toy(*[math.log(2)] * 3), teacher=logits)
    assert loss == pytest.approx(0, abs=1e-7) and gradient == pytest.approx([0, 0, 0], abs=1e-7)


class Fomaml(Hooks):
    """First-order MAML: one inner step on the first batch, the gradient of the second there. Its loss is (a - c)^2, c from the row."""

    def objective(self, model: Any, batch: Any, teacher_logits: Any) -> tuple[Any, None]:
        return ((model.a[1] - batch["row_weights"][0]) ** 2), None

    def count(self, batch: Any) -> Any:
        import torch

        return torch.ones(())

    def step(self, step: Step) -> Any:
        import torch

        support, query = step.batches
        parameters = [one for one in step.model.parameters() if one.requires_grad]
        start = [one.detach().clone() for one in parameters]
        for one, slope in zip(parameters, torch.autograd.grad(step.loss(support), parameters), strict=True):
            one.data.add_(slope, alpha=-0.25)
        loss = step.backward(step.loss(query))
        for one, before in zip(parameters, start, strict=True):
            one.data.copy_(before)
        return loss


def test_a_step_may_use_its_batches_apart() -> None:
    """By hand: a = 0; the support's loss (a - 1)^2 moves it by 0.25 * 2 to 0.5; the query's (a - 2)^2 has the slope -3 there, not -4,
    and the loss 2.25. The parameter itself has not moved."""
    model = toy(math.log(2), 1.0, 1.0)
    loss, gradient = step_of(Fomaml(), [ROWS[:1], [Row("q", [1], [0], 2.0)]], model)
    assert (loss, gradient[0]) == (2.25, -3.0) and model.a[1].item() == 0.0


# --- through the whole room -----------------------------------------------------------------------------------------------


class LtSft(Hooks):
    """Lottery-ticket sparse fine-tuning: train, keep the 50 weights that moved most, rewind, train those alone."""

    def phases(self, training: Training) -> list[Phase]:
        few = training.loop.model_copy(update={"max_steps": 3})
        return [Phase("full", training.steps(few)), Phase("sparse", training.steps(few, name="sparse"))]

    def begin(self, number: int, model: Any, weights: Any) -> None:
        import torch

        self.masks: dict[str, Any] = {}
        if number == 1:
            start, moved = weights(0), weights(1)
            change = torch.cat([(moved[name] - start[name]).abs().flatten() for name in start])
            least = change.topk(50).values[-1]
            self.masks = {name: (moved[name] - start[name]).abs() >= least for name in start}
            model.load_state_dict(start, strict=False)

    def gradients(self, model: Any) -> None:
        for name, parameter in model.named_parameters():
            if name in self.masks:
                parameter.grad.mul_(self.masks[name])


def test_phases_follow_one_another_also_after_a_kill(inputs: Inputs, tmp_path: Path) -> None:
    """By hand: 50 weights of the base are changed in the end, in two phases of three steps that the curve counts through."""
    import torch

    figures = tune(inputs, tmp_path / "a", tmp_path / "s", LtSft(), log_every=1, save_every=1)
    base, tuned = states(inputs.base), states(tmp_path / "a")
    names = {name for name, _ in tiny().named_parameters()}
    assert sum(int(torch.ne(base[name], tuned[name]).sum()) for name in names) == 50
    assert figures["steps"] == 6 and figures["trained_share"] == [1.0, 1.0]
    steps = [line.split(",")[0] for line in (tmp_path / "a" / "curves.csv").read_text().splitlines()[1:]]
    assert steps == ["1", "2", "3", "4", "5", "6"]
    with pytest.raises(KeyboardInterrupt):
        tune(inputs, tmp_path / "b", tmp_path / "sb", LtSft(), stop=5, log_every=1, save_every=1)
    assert tune(inputs, tmp_path / "c", tmp_path / "sb", LtSft(), log_every=1, save_every=1) == figures
    assert same(tmp_path / "a", tmp_path / "c")


class Hft(Hooks):
    """Half fine-tuning by rounds: one half of the layers' matrices is frozen in the first, the other in the second."""

    def phases(self, training: Training) -> list[Phase]:
        return [Phase(f"round {n}", training.steps()[:2]) for n in range(2)]

    def begin(self, number: int, model: Any, weights: Any) -> None:
        self.moved = [] if number == 0 else [name for name, value in weights(1).items() if not value.equal(weights(0)[name])]
        for name, parameter in model.named_parameters():
            parameter.requires_grad = f".layers.{number}." in name


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_each_round_trains_what_it_leaves_free(inputs: Inputs, tmp_path: Path, optimizer: str) -> None:
    """Layer 0 alone in the first round, layer 1 alone in the second; by hand: each is the same share of the weights."""
    hooks = Hft()
    figures = tune(inputs, tmp_path / "a", tmp_path / "s", hooks, validation_rows=0, optimizer=optimizer)
    assert hooks.moved and all(".layers.0." in name for name in hooks.moved)
    base, tuned, middle = states(inputs.base), states(tmp_path / "a"), load_file(str(tmp_path / "s" / "weights-1.safetensors"))
    assert all(tuned[name].equal(value) for name, value in middle.items() if ".layers.1." not in name)
    assert {name.split(".layers.")[1][0] for name in base if not base[name].equal(tuned[name])} == {"0", "1"}
    assert figures["trained_share"][0] == figures["trained_share"][1] < 0.5


class Empty(Hooks):
    def phases(self, training: Training) -> list[Phase]:
        return [Phase("warm", training.steps()), Phase("replay", [])]


def test_a_phase_without_a_step_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match=r"phase 1 'replay' has no step"):
        tune(inputs, tmp_path / "a", tmp_path / "s", Empty())


class RewardModel(Hooks):
    """Another objective than next tokens: a head over the last hidden state of a row, and pairs of rows (Bradley and Terry)."""

    def prepare(self, model: Any, training: Training) -> Any:
        import torch

        model.reward_head = torch.nn.Linear(model.config.hidden_size, 1, bias=False)
        torch.nn.init.zeros_(model.reward_head.weight)
        return model

    def phases(self, training: Training) -> list[Phase]:
        return [Phase("pairs", [[[0, 1]]] * 4)]

    def objective(self, model: Any, batch: Any, teacher_logits: Any) -> tuple[Any, None]:
        import torch

        last = torch.nn.functional.one_hot((batch["labels"] != IGNORED).cumsum(1).argmax(1), batch["labels"].shape[1]).bool()
        better, worse = model.reward_head(hidden_of(model, batch, last))[:, 0]
        return -torch.nn.functional.logsigmoid(better - worse), None

    def count(self, batch: Any) -> Any:
        import torch

        return torch.ones(())

    def validation(self, model: Any, batch: Any) -> tuple[Any, int]:
        import torch

        return torch.zeros(()), 1

    def finish(self, model: Any) -> Any:
        self.head = model.reward_head.weight.detach().clone()
        del model.reward_head
        return model


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_head_and_an_objective_of_its_own(inputs: Inputs, tmp_path: Path, optimizer: str) -> None:
    """By hand: a head of zeros cannot tell better from worse: log 2. Then it learns."""
    hooks = RewardModel()
    tune(inputs, tmp_path / "a", tmp_path / "s", hooks, log_every=1, save_every=4, optimizer=optimizer)
    losses = [float(line.split(",")[1]) for line in (tmp_path / "a" / "curves.csv").read_text().splitlines()[1:]]
    assert losses[0] == pytest.approx(math.log(2), abs=1e-6) and losses[-1] < losses[0]
    assert hooks.head.abs().sum() > 0 and not any("reward" in name for name in states(tmp_path / "a"))


class Eva(Hooks):
    """A LoRA that starts from the principal directions of its layers' inputs on training rows (PEFT's), and a key beside it (L2M)."""

    def prepare(self, model: Any, training: Training) -> Any:
        import torch
        from peft import EvaConfig, LoraConfig, get_peft_model, initialize_lora_eva_weights

        config = LoraConfig(
            r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights="eva", eva_config=EvaConfig(rho=1.0, tau=0.5)
        )
        worn = get_peft_model(model, config)
        rows = [training.batch([index])["input_ids"] for index in range(6)]
        initialize_lora_eva_weights(
            worn, [{"input_ids": one, "attention_mask": torch.ones_like(one)} for one in rows], show_progress_bar=False
        )
        self.first = [value.detach().clone() for name, value in worn.named_parameters() if "lora_A" in name]
        worn.get_base_model().key = torch.nn.Parameter(torch.ones(3))
        return worn

    def loss_term(self, model: Any, tokens: Any) -> Any:
        return (model.get_base_model().key ** 2).sum()

    def finish(self, model: Any) -> Any:
        self.key = model.get_base_model().key.detach().clone()
        del model.get_base_model().key
        return model


def test_parameters_start_from_the_training_rows_and_all_that_trains_comes_back(inputs: Inputs, tmp_path: Path) -> None:
    """Directions are unit and orthogonal; the pull moves the key alone, and a kill forgets neither."""
    import torch

    hooks, again = Eva(), Eva()
    tune(inputs, tmp_path / "a", tmp_path / "s", hooks, max_steps=6)
    assert all((one @ one.mT - torch.eye(2)).abs().max() < 1e-4 for one in hooks.first) and len(hooks.first) == 2
    assert 0 < hooks.key[0] < 1
    with pytest.raises(KeyboardInterrupt):
        tune(inputs, tmp_path / "b", tmp_path / "sb", Eva(), max_steps=6, stop=6)
    tune(inputs, tmp_path / "c", tmp_path / "sb", again, max_steps=6)
    assert same(tmp_path / "a", tmp_path / "c") and hooks.key.equal(again.key)


def test_teachers_stay_where_they_are() -> None:
    """A copy of the model before it moves, and the base under an adapter, say the same; another vocabulary is refused."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tasks.sft.core.scoring import logits_of, prepare_scoring

    batch = collate([Row("a", [7, 8, 9, 10], [IGNORED, 8, 9, 10], 1.0)], 0)
    student = tiny()
    before = frozen(student, student)
    worn = get_peft_model(student, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    prepare_scoring(worn)
    assert torch.allclose(before(batch), without_adapter(worn)(batch), atol=1e-6)
    assert not torch.allclose(before(batch), logits_of(worn, batch), atol=1e-6)
    other = tiny()
    other.config.vocab_size += 1
    with pytest.raises(StageFailed, match=r"the teacher has a vocabulary of \d+ tokens, the model one of \d+"):
        frozen(other, student)


class Itself(ToTeacher):
    """Its teacher is the base before it moves."""

    def teacher(self, model: Any, training: Training) -> Any:
        return frozen(model, model)


def test_the_methods_teacher_is_asked_in_the_loop(inputs: Inputs, tmp_path: Path) -> None:
    """A model that is to say what it says itself loses nothing in its first step."""
    figures = tune(inputs, tmp_path / "a", tmp_path / "s", Itself(), max_steps=1, log_every=1, save_every=1)
    assert figures["final_loss"] == pytest.approx(0, abs=1e-6)


def test_steps_hold_as_many_batches_as_asked_for() -> None:
    from tasks.contract.context import Context

    rows = [Row(f"t{n}", [7] * 10, [IGNORED, *[7] * 9], 1.0) for n in range(10)]
    training = Training(Loop(batch_tokens=20, accumulate=2, epochs=2), rows, 0, Context(0, Path(), Path()))
    plan = training.steps()
    assert [len(step) for step in plan] == [2] * 5 and sorted(i for step in plan for batch in step for i in batch) == sorted(
        [*range(10)] * 2
    )
    only = training.steps(only=[3, 4])
    assert {index for step in only for batch in step for index in batch} == {3, 4}
    assert loop.check_phases([Phase("", plan)])
