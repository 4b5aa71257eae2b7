"""One method of the test's own for each hook that a paper needs: a number worked by hand, or a limit in which it is plain GRPO."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tasks.checkpoints import folders
from tasks.contract.params import StageFailed
from tasks.contract.problem import Problem
from tasks.contract.trajectory import Trajectory
from tasks.rl import Inputs, Loop
from tasks.rl.core.batch import Batch, Row, Scored, per_row
from tasks.rl.core.hooks import Hooks, Job, Play, Played
from tasks.rl.core.learners import critic_of
from tasks.rl.core.learning import Learning
from tasks.rl.core.loop import Training, run
from tasks.rl.core.pool import Group, Screened
from tasks.rl.core.reward_model import RewardModel
from tasks.rl.grpo import Params
from tests.rl.micro import LOOP, SHORT, Brief, batch, context, digest, frozen, killed_at
from tests.rollout import tiny

if TYPE_CHECKING:
    from torch import Tensor

PLAIN = Params()
MODEL = "model/model.safetensors"


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return frozen(tmp_path_factory.mktemp("rl"))


@pytest.fixture(scope="module")
def plain(inputs: Inputs, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What plain GRPO leaves after two steps."""
    return ran(inputs, Brief(params=PLAIN), tmp_path_factory.mktemp("plain"))


def ran(inputs: Inputs, hooks: Hooks, root: Path, loop: Loop = SHORT, **more: Any) -> dict[str, str]:
    """The bytes that a run leaves."""
    run(inputs, loop, hooks, context(root, **more))
    return digest(root / "out")


def curve(root: Path, name: str) -> list[float]:
    """A column of the run's curves, where it has a value."""
    return [float(line[name]) for line in csv.DictReader((root / "out" / "curves.csv").open()) if line[name]]


# Advantages a turn.


class RewardToGo(Brief):
    """rtg_grpo of multi_turn_rl: each turn's return less the mean of its group at that turn."""

    def advantages(self, batch: Batch) -> Tensor:
        import torch

        togo = batch.turn_rewards.flip(1).cumsum(1).flip(1)
        there = (batch.turns.max(dim=1).values[:, None] >= torch.arange(togo.shape[1])).float()
        centred = torch.zeros_like(togo)
        for group in batch.groups.unique():
            mine = batch.groups == group
            mean = (togo[mine] * there[mine]).sum(0) / there[mine].sum(0).clamp(min=1)
            centred[mine] = (togo[mine] - mean) * there[mine]
        return batch.at_turns(centred)


def test_each_turn_has_the_advantage_of_what_came_after_it() -> None:
    """By hand: two conversations of two turns earn (1, 0) and (0, 1), so to go they have (1, 0) and (1, 1), the means are 1 and .5:
    the first turns are alike, the second ones -.5 and .5. Each turn is two tokens; the token read between them gets nothing."""
    found = RewardToGo(params=PLAIN).advantages(batch([1.0, 1.0], turns=[(1.0, 0.0), (0.0, 1.0)]))
    assert found.tolist() == [[0, 0, 0, -0.5, -0.5], [0, 0, 0, 0.5, 0.5]]


def test_where_all_conversations_have_one_turn_it_is_grpo_without_scaling(inputs: Inputs, tmp_path: Path) -> None:
    loop = SHORT.model_copy(update={"max_turns": 1})
    grouped = ran(inputs, Brief(params=Params(scale="none")), tmp_path / "grpo", loop)
    assert ran(inputs, RewardToGo(params=PLAIN), tmp_path / "turns", loop)[MODEL] == grouped[MODEL]


class Discounted(Brief):
    """Rewards a turn (multi_turn_rl): half of what the conversation earns, shared out evenly."""

    def turn_rewards(self, talk: Trajectory, reward: float) -> Sequence[float]:
        return [0.5 * reward / len(talk.turns)] * len(talk.turns)


def test_each_turn_has_the_reward_that_the_method_gives_it(inputs: Inputs, tmp_path: Path) -> None:
    training = Training(inputs, SHORT, Discounted(params=PLAIN), context(tmp_path))
    training.start()
    found = Learning(training.models, training.record, training.now).judged(training.rows(0))
    assert found.rewards.all() and (found.turn_rewards.sum(dim=1) - 0.5 * found.rewards).abs().max() < 1e-6


# What is kept.


class Halved(Brief):
    """Something done to what is kept and not to what goes on learning."""

    def finish(self, model: Any) -> Any:
        model.model.norm.weight.data *= 0.5
        return model


def test_what_is_kept_is_finished_and_training_goes_on_without_it(inputs: Inputs, tmp_path: Path) -> None:
    training = Training(inputs, SHORT, Halved(params=PLAIN), context(tmp_path))
    training.start()
    now = training.models.policies[0].module.model.norm.weight
    kept = folders.load(tmp_path / "scratch/best/0/model")[0].model.norm.weight
    start = folders.load(inputs.sft / "model")[0].model.norm.weight
    assert now.equal(start) and kept.equal(0.5 * start)


# A critic, advantages a token, several updates a batch.


@dataclass(frozen=True, kw_only=True)
class Critical(Brief):
    """PPO as small as can be: reward less value at each token, the value's error beside the clipped loss."""

    rate: float = 1e-2
    coefficient: float = 0.1
    ratios: list[float] = field(default_factory=list)

    def critic(self, model: Any) -> Any:
        return critic_of(model), self.rate

    def advantages(self, batch: Batch) -> Tensor:
        assert batch.values is not None
        return (batch.rewards[:, None] - batch.values) * batch.mask

    def returns(self, batch: Batch) -> Tensor:
        return batch.rewards[:, None] * batch.mask

    def loss_terms(self, now: Scored, batch: Batch) -> Mapping[str, Tensor]:
        self.ratios.append(float(((now.logp - batch.old_logp) * batch.mask).abs().max().exp()))
        assert now.values is not None and batch.returns is not None
        return {"value": self.coefficient * batch.mean((now.values - batch.returns) ** 2)} if self.coefficient else {}


def test_a_critic_learns_is_found_again_after_a_kill_and_is_not_shipped(inputs: Inputs, tmp_path: Path) -> None:
    """By hand: its head starts at 0, so the first step's loss is 0.1 x the mean of r^2 over tokens; it falls as the critic learns."""
    hooks, whole, cut = Critical(params=PLAIN), tmp_path / "whole", tmp_path / "cut"
    loop = SHORT.model_copy(update={"steps": 4})
    kept = ran(inputs, hooks, whole, loop)
    losses = curve(whole, "loss_value")
    assert 0 < losses[-1] < losses[0] < 0.1 * 0.3**2 and not any("critic" in name for name in kept)
    with pytest.raises(KeyboardInterrupt):
        run(inputs, loop, hooks, context(cut, log=killed_at(3)))
    assert ran(inputs, hooks, cut, loop) == kept


def test_the_ratio_is_1_before_the_first_of_several_updates(inputs: Inputs, tmp_path: Path) -> None:
    """Two passes of two optimiser steps each: eight in two steps of the loop."""
    hooks = Critical(params=PLAIN, epochs=2, minibatches=2)
    training = Training(inputs, SHORT, hooks, context(tmp_path))
    training.start()
    training.step()
    assert hooks.ratios[0] == pytest.approx(1, abs=1e-4) and min(hooks.ratios[1:]) > 1.001
    training.step()
    assert training.models.policies[0].done == 8 and training.models.critic is not None and 0 < training.models.critic.done <= 8


def test_a_critic_without_a_loss_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="has a critic, but its `loss_terms` give it no gradient"):
        run(inputs, SHORT, Critical(params=PLAIN, coefficient=0.0), context(tmp_path))


def test_a_frozen_critic_is_a_head_on_the_start_checkpoint() -> None:
    """MARFT's. By hand: weights 0 and bias 2 say 2 everywhere."""
    import torch

    critic = critic_of(tiny.model(), frozen=True)
    assert [name for name, weight in critic.named_parameters() if weight.requires_grad] == ["head.weight", "head.bias"]
    critic.head.bias.data.fill_(2.0)
    assert critic(torch.tensor([[5, 6, 7]])).tolist() == [[2.0, 2.0, 2.0]]


# A reference and terms beside the token loss.


@dataclass(frozen=True, kw_only=True)
class Anchored(Brief):
    """GRPO with the k3 estimate of KL to the start, and an entropy bonus (EPO's simplest form)."""

    kl: float = 0.0
    bonus: float = 0.0

    def loss_terms(self, now: Scored, batch: Batch) -> Mapping[str, Tensor]:
        terms = {}
        if batch.ref_logp is not None:
            ahead = batch.ref_logp - now.logp
            terms["kl"] = self.kl * batch.mean(ahead.exp() - ahead - 1)
        if self.bonus:
            terms["entropy"] = -self.bonus * batch.mean(now.entropy)
        return terms


def test_kl_to_the_start_is_0_at_the_start_and_at_weight_0_it_is_grpo(inputs: Inputs, plain: dict[str, str], tmp_path: Path) -> None:
    assert ran(inputs, Anchored(params=PLAIN, reference=True), tmp_path / "zero")[MODEL] == plain[MODEL]
    ran(inputs, Anchored(params=PLAIN, reference=True, kl=10.0), tmp_path / "kl")
    first, second = curve(tmp_path / "kl", "loss_kl")
    assert first == pytest.approx(0, abs=1e-9) and second > 1e-6


def test_another_step_may_be_the_reference(inputs: Inputs, tmp_path: Path) -> None:
    """direct_rlhf's arm with the base as reference: it is another model, so the KL is above 0 from the start."""
    tiny.saved(tmp_path / "base" / "model", layers=1, seed=7)
    ran(replace(inputs, others={"reference": tmp_path / "base"}), Anchored(params=PLAIN, reference=True, kl=1.0), tmp_path)
    assert curve(tmp_path, "loss_kl")[0] > 0.1


def test_an_entropy_bonus_has_a_gradient_and_raises_the_entropy(inputs: Inputs, tmp_path: Path) -> None:
    """By hand: the term that is logged is -5 x the step's mean entropy. What it does is seen on tokens that nobody sampled."""
    import torch

    from tasks.checkpoints import folders
    from tasks.rl.core.scoring import score

    ids, after = torch.arange(5, 25)[None], []
    for name, bonus in (("with", 5.0), ("without", 0.0)):
        ran(inputs, Anchored(params=PLAIN, bonus=bonus, entropy_gradient=True), tmp_path / name)
        model, _ = folders.load(tmp_path / name / "scratch" / "best" / "2" / "model")
        after.append(float(score(model, ids, torch.ones_like(ids), torch.ones(1, 19, dtype=torch.long), 1.0)[1].mean()))
    entropy = curve(tmp_path / "with", "entropy")
    assert curve(tmp_path / "with", "loss_entropy")[0] == pytest.approx(-5 * entropy[0], rel=1e-4)
    assert after[0] > after[1] + 0.01


# The divisor.


class Rows(Brief):
    """Each conversation counts the same (DeepSeekMath's mean of means)."""

    def divisor(self, batch: Batch) -> Tensor:
        return per_row(batch)


def test_a_divisor_a_row_and_a_constant_by_hand() -> None:
    """Rows of 2 and 4 trained tokens with loss 1 a token: 1 by tokens; 1/2 (2/2 + 4/4) = 1 by rows; with loss 3 in the first row
    (3 x 2 + 4) / 6 = 1.67 by tokens, (3 + 1) / 2 = 2 by rows, 10 / 100 by Dr. GRPO's constant."""
    import torch

    short = batch([1.0, 1.0], turns=[(1.0, 0.0), (0.0, 1.0)])
    two = replace(short, mask=short.mask * torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]))
    losses = torch.tensor([[3.0], [1.0]]).expand(2, 5)
    for divisor, wanted in ((two.mask.sum(), 10 / 6), (per_row(two), 2.0), (torch.tensor(100), 0.1)):
        assert float(replace(two, divisor=divisor).mean(losses)) == pytest.approx(wanted)
    parts = [replace(two, divisor=per_row(two)).take(torch.tensor([index])) for index in (0, 1)]
    assert sum(float(part.mean(losses[:1] if index == 0 else losses[1:])) for index, part in enumerate(parts)) == pytest.approx(2.0)


def test_passes_of_a_step_add_up_whatever_it_is_divided_by(inputs: Inputs, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    runs = []
    hows = ({}, {"pass_tokens": 128}, {"pass_tokens": 128, "packing": "shared_prompt", "checkpointing": True})
    for number, how in enumerate(hows):
        root = tmp_path / str(number)
        ran(inputs, Rows(params=PLAIN), root, SHORT.model_copy(update={**how, "steps": 1}))
        runs.append(load_file(root / "out" / MODEL))
    assert all(torch.allclose(runs[0][name], other[name], atol=1e-3) for other in runs[1:] for name in runs[0])


# Rewards.


def scorer(folder: Path) -> Path:
    """A random reward model as a checkpoint folder."""
    import torch
    from transformers import Qwen3ForSequenceClassification

    base = tiny.model(layers=1)
    torch.manual_seed(3)
    config = base.config.__class__(**{**base.config.to_dict(), "num_labels": 1, "pad_token_id": tiny.tokenizer().pad_token_id})
    Qwen3ForSequenceClassification(config).save_pretrained(folder / "model")
    tiny.tokenizer().save_pretrained(folder / "model")
    return folder


class Liked(Brief):
    """SALMON's reward: the reward model alone."""

    def reward_terms(self, played: Sequence[Played], model: RewardModel | None) -> list[Mapping[str, float]]:
        assert model is not None
        texts = [" ".join(str(message["content"]) for message in one.talk.messages) for one in played]
        return [{"liked": score} for (score,) in model.score(texts)]

    def reward(self, outcome: float, terms: Mapping[str, float]) -> float:
        return terms["liked"]


def test_a_reward_model_reads_each_text_at_its_end_token(inputs: Inputs, tmp_path: Path) -> None:
    """The score of a padded batch is that of each text alone, of the whole model, with the end token behind it."""
    import torch

    model = RewardModel.load(scorer(tmp_path) / "model", "cpu")
    texts = ["Hello, please cancel", "Anything else? Your order has been cancelled."]
    for text, (score,) in zip(texts, model.score(texts), strict=True):
        ids = [*model.tokenizer(text, add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
        assert score == pytest.approx(float(model.model(torch.tensor([ids])).logits[0, 0]), abs=1e-5)
    with pytest.raises(StageFailed, match="the input `reward` is a Qwen3ForCausalLM, which scores nothing"):
        RewardModel.load(inputs.sft / "model", "cpu")


def test_a_learned_reward_trains_where_all_outcomes_agree(inputs: Inputs, tmp_path: Path) -> None:
    judged = replace(inputs, others={"reward": scorer(tmp_path / "reward")})
    kept = ran(judged, Liked(params=PLAIN), tmp_path)
    assert curve(tmp_path, "reward") == curve(tmp_path, "term_liked") != [0.0, 0.0] == curve(tmp_path, "outcome")
    assert min(curve(tmp_path, "tokens")) > 0 and "model/config.json" in kept


def test_a_reward_that_is_no_number_is_named(inputs: Inputs, tmp_path: Path) -> None:
    class Broken(Brief):
        def reward_terms(self, played: Sequence[Played], model: RewardModel | None) -> list[Mapping[str, float]]:
            return [{"style": math.nan} for _ in played]

    with pytest.raises(StageFailed, match=r"the reward of problem .*, trial 0 is nan, made of its outcome and \{'style': nan\}"):
        run(inputs, SHORT, Broken(params=PLAIN), context(tmp_path))


@pytest.mark.parametrize(
    "what", ["loss is nan, the norm of the policy's gradient nan", "loss is [-0-9.e]+, the norm of the policy's gradient nan"]
)
def test_a_step_without_a_finite_loss_or_gradient_is_not_taken(inputs: Inputs, tmp_path: Path, what: str) -> None:
    """The third step's conversations are named, the state after the second stays, and a sound method goes on from it to the end."""
    in_loss = what.startswith("loss is nan")

    class Broken(Brief):
        def loss_terms(self, now: Scored, batch: Batch) -> Mapping[str, Tensor]:
            none = batch.mean(now.logp - now.logp.detach())  # 0, and its root has no slope
            return {"broken": none / 0.0 if in_loss else none.abs().sqrt()} if batch.step == 2 else {}

    loop = LOOP.model_copy(update={"max_lost": 1.0})
    kept = tmp_path / "scratch" / "steps" / "2"
    said = rf"rl: step 3 of 4: the {what}\. Its conversations: .+, trials [\d, ]+\. The state after step 2 is kept \({kept}\)\. "
    with pytest.raises(StageFailed, match=said + r"Lower lr \(0.003\) or max_grad_norm \(1\)"):
        run(inputs, loop, Broken(params=PLAIN), context(tmp_path))
    assert kept.is_dir() and not list((tmp_path / "out").iterdir())
    assert run(inputs, loop, Brief(params=PLAIN), context(tmp_path))["steps"] == 4


def test_advantages_of_the_wrong_shape_are_named(inputs: Inputs, tmp_path: Path) -> None:
    class Wrong(Brief):
        def advantages(self, batch: Batch) -> Tensor:
            return batch.turn_rewards[:, :0]

    with pytest.raises(StageFailed, match=r"`advantages` have the shape \(\d+, 0\). Expected: finite numbers of shape \(\d+,\) or"):
        run(inputs, SHORT, Wrong(params=PLAIN), context(tmp_path))


# Rows that were not played now.


@dataclass(frozen=True, kw_only=True)
class Pairs(Hooks):
    """Agent Q's step DPO: stored pairs, the recorded log-probabilities in place of a reference model."""

    rows: Sequence[Row]
    beta: float = 1.0
    sizes: list[int] = field(default_factory=list)

    def stored_rows(self, step: int, others: Any, tokenizer: Any) -> Sequence[Row]:
        return self.rows

    def advantages(self, batch: Batch) -> Tensor:
        return batch.rewards * 0

    def loss_terms(self, now: Scored, batch: Batch) -> Mapping[str, Tensor]:
        import torch

        self.sizes.append(len(batch.rows))
        ahead = self.beta * batch.per_row(now.logp - batch.old_logp)
        won, lost = (ahead[batch.rewards == label][batch.groups[batch.rewards == label].argsort()] for label in (1, 0))
        return {"dpo": -torch.nn.functional.logsigmoid(won - lost).sum() / (len(self.rows) / 2)}


def pairs(count: int = 4) -> list[Row]:
    """Two answers to the same prompt, with log-probabilities of the start checkpoint."""
    import torch

    from tasks.rl.core.scoring import score

    rows = []
    for group in range(count):
        for label, token in ((1.0, 30 + group), (0.0, 60 + group)):
            ids = torch.tensor([[5, 6, token]])
            with torch.no_grad():
                logp, _ = score(tiny.model(layers=1, end=6.0), ids, torch.ones_like(ids), torch.ones(1, 1, dtype=torch.long), 1.0)
            rows.append(Row([{"prompt_ids": [5, 6], "ids": [token], "logprobs": logp[0].tolist()}], label, (label,), group=group))
    return rows


def test_stored_pairs_train_without_any_new_conversation(inputs: Inputs, tmp_path: Path) -> None:
    """By hand: while the policy is the one that produced the rows, each pair's loss is log 2; then it falls. A pair is never torn: in
    two passes each of four rows has whole ones. Nothing is screened or played but the validation."""
    hooks = Pairs(rows=pairs(), plays=False, whole_groups=True)
    loop = SHORT.model_copy(update={"pass_tokens": 12, "steps": 3})
    run(inputs, loop, hooks, context(tmp_path))
    losses = curve(tmp_path, "loss_dpo")
    assert losses[0] == pytest.approx(math.log(2), abs=1e-4) and losses[2] < losses[1] < losses[0]
    assert hooks.sizes == [4] * 6 and curve(tmp_path, "tokens") == [8.0] * 3
    assert not (tmp_path / "scratch" / "shards").exists()


def test_stored_rows_stand_beside_new_conversations(inputs: Inputs, tmp_path: Path) -> None:
    class Both(Brief):
        def stored_rows(self, step: int, others: Any, tokenizer: Any) -> Sequence[Row]:
            return pairs(1)

        def advantages(self, batch: Batch) -> Tensor:
            seen.append((batch.groups.tolist(), [row.talk is None for row in batch.rows]))
            return super().advantages(batch)

    seen: list[tuple[list[int], list[bool]]] = []
    ran(inputs, Both(params=PLAIN), tmp_path)
    groups, stored = seen[0]
    assert stored[-2:] == [True, True] and not any(stored[:-2]) and groups[-2:] == [2, 2] and set(groups[:-2]) <= {0, 1}


def test_a_step_without_rows_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    with pytest.raises(StageFailed, match="step 1 has no rows"):
        run(inputs, SHORT, Pairs(rows=(), plays=False), context(tmp_path))


# Several policies.


@dataclass(frozen=True, kw_only=True)
class Coevolving(Brief):
    """CORY: the pioneer answers, the observer answers seeing that, both are paid the sum; roles swap every step."""

    def converse(self, step: int, jobs: Sequence[Job], group_size: int, play: Play) -> list[Played]:
        pioneer, observer = (step % 2, 1 - step % 2)
        first = play(pioneer, jobs)
        helped = [(replace(problem, instruction=_last(talk)), trial) for (problem, trial), talk in zip(jobs, first, strict=True)]
        second = play(observer, helped)
        groups = len(jobs) // group_size
        return [
            *(Played(talk, index // group_size, pioneer, episode=index) for index, talk in enumerate(first)),
            *(Played(talk, groups + index // group_size, observer, episode=index) for index, talk in enumerate(second)),
        ]

    def reward_terms(self, played: Sequence[Played], model: RewardModel | None) -> list[Mapping[str, float]]:
        own = [terms["brief"] for terms in super().reward_terms(played, model)]
        half = len(own) // 2
        return [{"own": one, "partner": other} for one, other in zip(own, own[half:] + own[:half], strict=True)]


def _last(talk: Trajectory) -> str:
    return str(talk.messages[-1]["content"]) if talk.messages else ""


def test_roles_swap_and_each_policy_keeps_its_optimiser(inputs: Inputs, tmp_path: Path) -> None:
    """After two steps each has played both roles and made two optimiser steps with moments that lasted; both are kept."""
    hooks = Coevolving(params=PLAIN, policies=2)
    training = Training(inputs, SHORT, hooks, context(tmp_path / "two"))
    training.start()
    training.step()
    first = [one.policy for one in training.now.played]
    training.step()
    assert first == [0] * 8 + [1] * 8 and [one.policy for one in training.now.played] == [1] * 8 + [0] * 8
    rewards = dict(zip([(one.policy, one.episode) for one in training.now.played], training.now.rewards, strict=True))
    assert all(rewards[0, pair] == pytest.approx(rewards[1, pair]) for pair in range(8))
    for policy in training.models.policies:
        assert {int(state["step"]) for state in policy.optimizer.state.values()} == {2} and policy.done == 2
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    loop = SHORT.model_copy(update={"steps": 4})
    kept = ran(inputs, hooks, whole, loop)
    assert {MODEL, "policy_1/model.safetensors"} <= set(kept) and kept[MODEL] != kept["policy_1/model.safetensors"]
    with pytest.raises(KeyboardInterrupt):
        run(inputs, loop, hooks, context(cut, log=killed_at(3)))
    assert ran(inputs, hooks, cut, loop) == kept


def test_a_second_policy_that_never_plays_changes_nothing(inputs: Inputs, plain: dict[str, str], tmp_path: Path) -> None:
    kept = ran(inputs, Brief(params=PLAIN, policies=2), tmp_path)
    assert kept[MODEL] == plain[MODEL] and kept["policy_1/model.safetensors"] == digest(inputs.sft)[MODEL]


def test_a_team_is_validated_as_the_method_plays_it(inputs: Inputs, tmp_path: Path) -> None:
    """MARFT: the second agent acts last, so its conversations are the team's."""
    asked: list[int] = []

    class Team(Brief):
        def examine(self, jobs: Sequence[Job], play: Play) -> list[Trajectory]:
            asked.append(len(jobs))
            play(0, jobs)
            return play(1, jobs)

    ran(inputs, Team(params=PLAIN, policies=2), tmp_path)
    assert asked == [6, 6]


# The sampler.


class Hardest(Brief):
    """The first problem of the pool again and again (a posterior that has made up its mind, MPTS)."""

    def next_problems(self, step: int, count: int, pool: Sequence[Screened], history: Sequence[Group], seed: int) -> list[Problem]:
        assert len(history) == step * count
        return [pool[0].problem] * count


def test_a_sampler_chooses_what_is_played(inputs: Inputs, tmp_path: Path) -> None:
    training = Training(inputs, SHORT, Hardest(params=PLAIN), context(tmp_path))
    training.start()
    training.step()
    training.step()
    assert {group.problem_id for group in training.record.groups()} == {training.pool[0].problem.problem_id}


def test_a_problem_of_another_split_is_refused(inputs: Inputs, tmp_path: Path) -> None:
    class Leaky(Brief):
        def next_problems(self, step: int, count: int, pool: Any, history: Any, seed: int) -> list[Problem]:
            return [replace(pool[0].problem, split="test")] * count

    with pytest.raises(
        StageFailed, match=r"chose 2 problems of the splits \['test'\] for step 1; expected: groups = 2 of the split train"
    ):
        run(inputs, SHORT, Leaky(params=PLAIN), context(tmp_path))
