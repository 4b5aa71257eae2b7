"""The room's own parts: the pool, the scoring of the model's own tokens, the record."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput, validate
from tasks.contract.problem import Problem
from tasks.rl.core import record
from tasks.rl.core.batch import Row, collate
from tasks.rl.core.params import Loop, check
from tasks.rl.core.pool import Group, Screened, choose_pool, difficulty, has_spread, in_turn
from tests.rollout import tiny


def problem(name: str, family: str) -> Problem:
    return Problem(name, "retail", "train", family, (name,), "plain", "do it", {}, ())


def screened(family: str, *solved: int) -> list[Screened]:
    return [Screened(problem(f"{family}{index}", family), won, 4) for index, won in enumerate(solved)]


def names(pool: list[Screened]) -> list[str]:
    return [item.problem.problem_id for item in pool]


def test_the_pool_keeps_every_family() -> None:
    """By hand: six places, two families, three places each. Of the writes (solved 1, 2, 0, 3 of 4) the three medium ones
    stay. No refusal is of medium difficulty (0, 4, 0, 4): screening over all families would drop them; here max(1, 3 // 4)
    = 1 that is always solved and 1 that is never solved stay."""
    items = screened("write", 1, 2, 0, 3) + screened("forbidden", 0, 4, 0, 4)
    assert names(choose_pool(items, 6)) == ["forbidden1", "forbidden0", "write0", "write1", "write3"]
    assert difficulty(items) == {"forbidden": {"always": 2, "never": 2}, "write": {"never": 1, "sometimes": 3}}


def test_real_outcomes_are_of_medium_difficulty_when_they_differ() -> None:
    """Sums of four outcomes: -2 that differ, -4 alike (a trap each time), 2 alike (half of all each time), 90 that differ."""
    sums = [(-2.0, True), (-4.0, False), (2.0, False), (90.0, True)]
    items = [Screened(problem(f"grid{place}", "fetch"), total, 4, apart) for place, (total, apart) in enumerate(sums)]
    assert difficulty(items) == {"fetch": {"always": 1, "never": 1, "sometimes": 2}}
    assert names(choose_pool(items, 4)) == ["grid0", "grid3", "grid2", "grid1"]


def test_of_real_outcomes_beyond_one_the_highest_validation_is_kept() -> None:
    kept = record.Record()
    rates = [3.0, 2.5, -1.0, 3.5]
    found = [kept.validated(record.Validation(step, {"fetch": (4 * rate, 4)}), 9.0) for step, rate in enumerate(rates)]
    assert found == [True, False, False, True] and kept.best == 3


def test_scores_under_autocast_are_those_of_float32_up_to_its_rounding() -> None:
    """What a GPU does: matrices in bfloat16 (8 bits of mantissa), log-probabilities summed in float32."""
    import torch

    from tasks.rl.core.scoring import score

    ids = torch.tensor([[5, 6, 7, 8, 9]])
    ones, trained = torch.ones_like(ids), torch.ones((1, 3), dtype=torch.long)
    wide, _ = score(tiny.model(), ids, ones, trained, temperature=1.0)
    with torch.autocast("cpu", torch.bfloat16):
        narrow, entropy = score(tiny.model(), ids, ones, trained, temperature=1.0)
    assert narrow.dtype == entropy.dtype == torch.float32 and not narrow.equal(wide)
    assert (narrow - wide).abs().max() < 0.1


def test_families_are_spread_evenly_and_every_problem_comes_once_a_round() -> None:
    """By hand: three problems of family a stand at 1/6, 1/2 and 5/6 of a round, the one of family b at 1/2: a a b a."""
    pool = screened("a", 1, 1, 1) + screened("b", 1)
    walk: list[Problem] = []
    history: list[Group] = []
    for step in range(4):
        now = in_turn(2, pool, history, seed=1)
        history += [Group(step, one.problem_id, one.family, (0, 1), (0.0, 1.0)) for one in now]
        walk += now
    assert [one.family for one in walk] == ["a", "a", "b", "a"] * 2
    assert {one.problem_id for one in walk[:4]} == {"a0", "a1", "a2", "b0"} and walk[:4] == walk[4:]


def test_a_problem_whose_group_agreed_waits_three_turns() -> None:
    """By hand: two problems; a's groups agree and count 4, b's count 1. a b b b b (a: 4, b: 4), then a again."""
    pool = screened("a", 1) + screened("b", 1)
    walk: list[str] = []
    history: list[Group] = []
    for step in range(6):
        (now,) = in_turn(1, pool, history, seed=1)
        history.append(Group(step, now.problem_id, now.family, (1, 1) if now.family == "a" else (0, 1), (0.0, 1.0)))
        walk.append(now.family)
    assert walk == ["a", "b", "b", "b", "b", "a"]


def test_never_solved_problems_take_few_places() -> None:
    """By hand: eight places for one family and ten problems never solved: 8 // 4 = 2 of them stay."""
    assert names(choose_pool(screened("hard", *[0] * 10), 8)) == ["hard0", "hard1"]


def test_the_latest_checkpoint_within_one_standard_error_is_kept() -> None:
    """By hand: the highest rate is 0.8 of 100, its standard error 0.04: 0.76 is kept, 0.75 is not, and 0.76 of the highest
    (not of the one kept last) is what later ones are compared with."""
    kept = record.Record()
    rates = [60, 80, 76, 75, 76]
    assert [kept.validated(record.Validation(step, {"a": (won, 100)}), 1.0) for step, won in enumerate(rates)] == [
        True, True, True, False, True,
    ]  # fmt: skip
    assert kept.best == 4


def test_shaped_rewards_do_not_bring_a_dead_group_to_life() -> None:
    assert not has_spread(Group(0, "p", "f", (0, 0), (0.0, 0.5)))
    assert has_spread(Group(0, "p", "f", (0, 1), (0.0, 1.0)))


def test_outcomes_that_are_real_numbers_have_spread_beyond_rounding() -> None:
    assert has_spread(Group(0, "p", "f", (0.25, 0.75), (0.25, 0.75)))
    assert not has_spread(Group(0, "p", "f", (0.1 + 0.2, 0.3), (0.3, 0.3)))
    kept = record.Record()
    assert kept.validated(record.Validation(0, {"a": (1.5, 4)}), 1.0) and kept.results()[0].rate == 0.375


def test_score_equals_the_plain_forward_and_scores_only_trained_tokens() -> None:
    """Three rows in TRL's layout (prompt padded left, completion padded right); row 1 does not train, row 2 has a token in
    the middle that is not the model's. Each trained token's log-probability is the one of a pass over its row alone."""
    import torch

    from tasks.rl.core.scoring import score

    model = tiny.model()
    ids = torch.tensor([[0, 9, 8, 7, 6, 0], [5, 6, 7, 8, 0, 0], [3, 4, 5, 6, 7, 8]])
    present = torch.tensor([[0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]])
    trained = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 1]])
    logp, entropy = score(model, ids, present, trained, temperature=0.5)
    assert (logp != 0).tolist() == trained.bool().tolist() == (entropy > 0).tolist()
    for row, column in torch.nonzero(trained).tolist():
        alone = ids[row][present[row].bool()]
        place = int(present[row, : 3 + column].sum())
        full = torch.log_softmax(model(alone[None]).logits[0, place - 1] / 0.5, dim=-1)
        assert float(logp[row, column]) == pytest.approx(float(full[ids[row, 3 + column]]), abs=1e-4)
        assert float(entropy[row, column]) == pytest.approx(float(-(full.exp() * full).sum()), abs=1e-4)
    assert logp.requires_grad and not entropy.requires_grad


@pytest.mark.parametrize("packing", ["rows", "shared_prompt"])
@pytest.mark.parametrize("tokens", [1, 60, 1000])
def test_packs_score_every_token_as_padded_rows_do(packing: Any, tokens: int) -> None:
    """Twelve conversations behind one prompt of 20 tokens, some of whose tokens are not the model's, and one that does not train: the
    log-probabilities, the critic's values and the gradient agree."""
    import torch

    from tasks.rl.core.learners import critic_of
    from tasks.rl.core.scoring import PADDED, Lines, score, values

    rng = random.Random(0)
    prompt = [rng.randint(5, 300) for _ in range(20)]

    def turn(read: int, own: int) -> dict[str, Any]:
        return {
            "prompt_ids": [rng.randint(5, 300) for _ in range(read)],
            "ids": [rng.randint(5, 300) for _ in range(own)],
            "logprobs": [0.0] * own,
        }

    rows = []
    for index in range(12):
        first = turn(0, rng.randint(1, 5)) | {"prompt_ids": prompt + [rng.randint(5, 300) for _ in range(index % 3)]}
        rows.append(Row([first, turn(rng.randint(1, 6), rng.randint(1, 5))], 1.0, trains=index != 5))
    batch = collate(rows, 0, 0, 1, ())
    found = []
    for lines in (PADDED, Lines(packing, tokens)):
        model = tiny.model(loudness=1.0)
        critic = critic_of(model)
        torch.nn.init.normal_(critic.head.weight)
        critic.head.weight.data = torch.linspace(-1, 1, critic.head.weight.numel())[None]
        where = (batch.ids, batch.sequences, batch.mask)
        logp, entropy = score(model, *where, 1.0, lines=lines)
        judged = values(critic, *where, lines)
        (logp.sum() / batch.mask.sum() + judged.sum() / batch.mask.sum()).backward()
        gradient = torch.cat(
            [weight.grad.flatten() for module in (model, critic) for weight in module.parameters() if weight.grad is not None]
        )
        found.append((logp, entropy, judged, gradient))
    for padded, packed in zip(*found, strict=True):
        assert torch.allclose(padded, packed, atol=1e-5)


def test_a_pass_holds_as_many_units_as_its_tokens() -> None:
    """By hand: rows of 6, 6, 6 and 10 tokens, a prompt of 4 among them. Padded, two rows of 6 fill 12 and the longest stands alone; in
    packs the prompt counts once: 4 + 2 + 2 + 2 = 10. A row that does not train costs nothing."""
    import torch

    from tasks.rl.core.scoring import Lines, slices

    turns = [[{"prompt_ids": [1, 2, 3, 4, 9], "ids": [5] * own, "logprobs": [0.0] * own}] for own in (1, 1, 1, 5)]
    batch = collate([Row(turn, 1.0, episode=number) for number, turn in enumerate(turns)], 0, 0, 1, ())

    def numbers(part: Any) -> list[int]:
        return [row.episode for row in part.rows]

    alone = list(torch.arange(4).split(1))
    for lines, wanted in (
        (Lines(), [[0, 1, 2, 3]]),
        (Lines("none", 12), [[0, 1], [2], [3]]),
        (Lines("shared_prompt", 10), [[0, 1, 2], [3]]),
        (Lines("rows", 12), [[0, 1], [2], [3]]),
        (Lines("none", 1), [[0], [1], [2], [3]]),
    ):
        assert [numbers(part) for part in slices(alone, batch, lines)] == wanted
    assert [numbers(part) for part in slices(torch.arange(4).split(2), batch, Lines("none", 1))] == [[0, 1], [2, 3]]
    idle = collate([Row(turn, 1.0, episode=index, trains=index == 0) for index, turn in enumerate(turns)], 0, 0, 1, ())
    assert [numbers(part) for part in slices(alone, idle, Lines("none", 6))] == [[0, 1, 2, 3]]


def test_tokens_of_a_conversation_are_concatenated_never_rendered() -> None:
    """By hand: the model read 1 2, said 3 4, read 5 and said 6: prompt 1 2, completion 3 4 5 6, of which 5 is not the
    model's. A second conversation has no turn: one padding token, which nobody trains; a third does not train."""
    turns = [
        {"prompt_ids": [1, 2], "ids": [3, 4], "logprobs": [-0.5, -0.25]},
        {"prompt_ids": [5], "ids": [6], "logprobs": [-1.0]},
    ]
    rows = [Row(turns, 1.0, (0.0, 1.0)), Row((), 0.0), Row(turns[:1], 0.5, (0.5,), trains=False)]
    batch = collate(rows, pad=9, step=0, steps=1, lines=())
    assert batch.ids.tolist() == [[1, 2, 3, 4, 5, 6], [9, 9, 9, 9, 9, 9], [1, 2, 3, 4, 9, 9]]
    assert batch.sequences.tolist() == [[1, 1, 1, 1, 1, 1], [0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0]]
    assert batch.turns.tolist() == [[0, 0, -1, 1], [-1] * 4, [0, 0, -1, -1]]
    assert batch.mask.tolist() == [[1, 1, 0, 1], [0] * 4, [0] * 4]
    assert batch.old_logp.tolist() == [[-0.5, -0.25, 0.0, -1.0], [0.0] * 4, [-0.5, -0.25, 0.0, 0.0]]
    assert batch.turn_rewards.tolist() == [[0.0, 1.0], [0.0, 0.0], [0.5, 0.0]]
    last = batch.at_last_tokens(batch.turn_rewards + 1)
    assert last.tolist() == [[0.0, 1.0, 0.0, 2.0], [0.0] * 4, [0.0, 1.5, 0.0, 0.0]]


def test_the_best_checkpoint_may_not_let_a_family_fall() -> None:
    """By hand: from 5 of 10 and 5 of 10, step 10 wins with 6 and 6; step 20 has more in all (10 and 3) but family b fell by
    0.2."""
    kept = record.Record()
    assert kept.validated(record.Validation(0, {"a": (5, 10), "b": (5, 10)}), 0.1)
    assert kept.validated(record.Validation(10, {"a": (6, 10), "b": (6, 10)}), 0.1)
    assert not kept.validated(record.Validation(20, {"a": (10, 10), "b": (3, 10)}), 0.1)
    assert kept.best == 10
    assert kept.results()[2].falls(kept.results()[0]) == {"b": pytest.approx(0.2)}


def test_the_entropy_alarm_compares_with_the_first_step_that_trained() -> None:
    kept = record.Record()
    lines = [(0.0, 0), (2.0, 10), (0.5, 10), (0.3, 10), (0.0, 0)]
    alarms = [kept.add({"entropy": entropy, "tokens": tokens}, [], floor=0.2) for entropy, tokens in lines]
    assert alarms == [False, False, False, True, False] and kept.alarms == [4]


def test_a_state_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    assert record.newest(tmp_path) is None
    for step in (2, 10):
        kept = record.Record(step=step)
        record.keep(kept, record.fresh(tmp_path / "staging" / f"checkpoint-{step}"), tmp_path, step)
    record.fresh(tmp_path / "staging" / "checkpoint-12")  # a kill while it was written: never moved
    state = record.newest(tmp_path)
    assert state == tmp_path / "steps" / "10" and record.read(state).step == 10
    assert [path.name for path in (tmp_path / "steps").iterdir()] == ["10"]


def test_bad_params_say_what_is_allowed() -> None:
    with pytest.raises(BadInput, match=r"packing: rows needs pass_tokens"):
        check(Loop(packing="rows"))
    with pytest.raises(BadInput, match="max_turn_tokens = 96 leaves no room"):
        check(Loop(max_episode_tokens=96))
    with pytest.raises(BadInput, match=r"group_size = 1.*>= 2"):
        validate(Loop, {"group_size": 1}, "rl.grpo")
    with pytest.raises(BadInput, match=r"steps = 0.*>= 1"):
        validate(Loop, {"steps": 0}, "rl.grpo")
