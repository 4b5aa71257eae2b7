"""Sums of several steps: results, worked solutions and answers by hand, tries, the tool, and bad input.

By hand: 4 7 + 5 * 3 is 52 and then 156, which modulo 100 is 56; 3 - 5 is 98.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tasks.contract.params import BadInput, validate
from tasks.environments import NO_ACTION
from tasks.environments.arithmetic import HARD, OPERATIONS, Arithmetic, Params, State, Sums, environment

VARIATIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "long": {"style": "long", "most": 8, "form": "apart"},
    "both": {"style": "both", "tries": 3},
    "blind": {
        "style": "none",
        "tries": 4,
        "blind": True,
        "largest": 9999,
        "modulus": 100_000,
        "operations": ("+",),
        "fewest": 2,
        "most": 2,
    },
    "tool": {"tool": True, "hard": 0.5, "tries": 2},
}


def arithmetic(**settings: Any) -> Arithmetic:
    return environment(validate(Params, settings, "environments.arithmetic"))


def one_sum(made: Arithmetic, values: list[int], words: str, long: bool = False) -> None:
    """Let the environment's only episode be this sum."""
    operations = np.array([[OPERATIONS.index(word) for word in words]])
    results, so_far = [], values[0]
    for value, word in zip(values[1:], words, strict=True):
        so_far = {"+": so_far + value, "-": so_far - value, "*": so_far * value}[word] % made.params.modulus
        results.append(so_far)
    sums = Sums(np.array([len(values)]), np.array([values]), operations, np.array([results]), np.array([long]))
    zero = np.zeros(1, dtype=int)
    made.restore(State(sums, zero, zero, zero, np.zeros(1, dtype=bool)))


def done_by_hand(text: str, modulus: int) -> int:
    """A told sum, read and done anew."""
    words = text.removeprefix("wrong ").removesuffix(" =").split()
    parts = [[""]]
    for word in words:
        if word in OPERATIONS:
            parts += [[word], [""]]
        else:
            parts[-1][0] += word
    flat = [part[0] for part in parts]
    so_far = int(flat[0])
    for word, value in zip(flat[1::2], flat[2::2], strict=True):
        so_far = {"+": so_far + int(value), "-": so_far - int(value), "*": so_far * int(value)}[word] % modulus
    return so_far


def test_a_worked_solution_by_hand() -> None:
    made = arithmetic(largest=47)
    one_sum(made, [47, 5, 3], "+*")
    assert made.tell() == ["4 7 + 5 * 3 ="] and made.oracle().tolist() == [56]
    assert made.replies(np.array([56])) == ["4 7 + 5 = 5 2 ; 5 2 * 3 = 5 6 ; answer 5 6"]
    assert made.replies(np.array([7])) == ["4 7 + 5 = 5 2 ; 5 2 * 3 = 7 ; answer 7"], "an error shows in the last step"
    one_sum(made, [47, 5, 3], "+*", long=True)
    assert made.replies(np.array([56])) == ["left 4 7 + 5 * 3 ; 4 7 + 5 = 5 2 ; left 5 2 * 3 ; 5 2 * 3 = 5 6 ; answer 5 6"]
    one_sum(made, [3, 5], "-")
    assert made.oracle().tolist() == [98] and made.replies(np.array([NO_ACTION])) == ["answer"]
    apart = arithmetic(form="apart")
    one_sum(apart, [47, 5, 3], "+*")
    assert apart.tell() == ["of 4 7 , 5 , 3 by + *"]


@pytest.mark.parametrize("settings", [{}, {"modulus": 7}, {"largest": 9999, "modulus": 100_000, "fewest": 2, "most": 3}])
def test_the_answer_is_the_sum_that_is_told(settings: dict[str, Any]) -> None:
    made = arithmetic(**settings)
    made.reset(range(200))
    assert [done_by_hand(text, made.params.modulus) for text in made.tell()] == made.oracle().tolist()
    sizes = {made.family(seed) for seed in range(200)}
    assert sizes == set(made.families)
    terms = [f"{int(one)}_numbers" for one in made.snapshot().sums.terms]
    assert terms == [made.family(seed) for seed in range(200)]


def test_the_long_style_is_half_as_long_again_and_both_mix() -> None:
    lengths = {}
    for style in ("short", "long", "both"):
        made = arithmetic(style=style)
        made.reset(range(300))
        lengths[style] = np.array([len(reply.split()) for reply in made.replies(made.oracle())])
    assert lengths["long"].sum() >= 1.5 * lengths["short"].sum() and (lengths["long"] > lengths["short"]).all()
    share = (lengths["both"] == lengths["long"]).mean()
    assert 0.4 < share < 0.6 and ((lengths["both"] == lengths["long"]) | (lengths["both"] == lengths["short"])).all()


def test_replies_are_read_strictly() -> None:
    made = arithmetic(tool=True)
    made.reset([0])
    replies = [
        "answer 5 6",
        "4 + 2 = 6 ; answer 6",
        "answer 1 ; answer 0 7",
        "ask",
        "answer",
        "5 6",
        "answer 5 + 1",
        "answer 1 0 0",
        "ask ask",
        "",
    ]
    assert made.read(replies).tolist() == [56, 6, 7, 100, *[NO_ACTION] * 6]
    assert arithmetic().read(["ask"]).tolist() == [NO_ACTION]


def test_tries_end_with_a_right_answer_or_with_the_last() -> None:
    made = arithmetic(tries=3)
    made.reset([1, 2])
    right, wrong = made.oracle(), (made.oracle() + 1) % 100
    first = made.step(np.array([right[0], wrong[1]]))
    assert first.reward.tolist() == [1, 0] and first.terminal.tolist() == [True, False]
    assert made.tell()[0] == "" and made.tell()[1].startswith("wrong ")
    made.step(wrong)
    last = made.step(wrong)
    assert last.reward.tolist() == [0, 0] and last.terminal.tolist() == [False, True] and not last.truncated.any()


def test_blind_tries_are_all_called_wrong_and_the_last_counts() -> None:
    made = arithmetic(tries=3, blind=True)
    made.reset([1, 2])
    right, wrong = made.oracle(), (made.oracle() + 1) % 100
    found = [made.step(one) for one in (right, right, np.array([right[0], wrong[1]]))]
    assert [one.reward.tolist() for one in found] == [[0, 0], [0, 0], [1, 0]]
    assert [one.terminal.tolist() for one in found] == [[False] * 2, [False] * 2, [True] * 2]


def test_the_tool_is_asked_once_and_tells_what_no_rule_does() -> None:
    made = arithmetic(tool=True, hard=1.0)
    made.reset(range(50))
    assert all(text.startswith("tool ") and text.count("#") == 1 for text in made.tell())
    assert (made.snapshot().sums.last[1] == HARD).all() and all(made.family(seed).endswith("_hard") for seed in range(50))
    ask, right = np.full(50, 100), made.oracle()
    steps = made.step(ask)
    assert not steps.reward.any() and not steps.terminal.any()
    assert made.tell() == [f"result {' '.join(str(one))}" for one in right.tolist()]
    assert made.replies(right) == [f"answer {' '.join(str(one))}" for one in right.tolist()]
    kept = made.snapshot()
    assert made.step(right).reward.all()
    made.restore(kept)
    again = made.step(ask)
    assert again.terminal.all() and not again.reward.any(), "to ask twice is a wrong answer"
    other = arithmetic(tool=True, hard=1.0)
    other.reset(range(50))
    assert (other.oracle() == right).all(), "the table is the same for everybody"


def test_the_table_depends_on_both_numbers() -> None:
    made = arithmetic()
    first, second = (one.ravel() for one in np.indices((10, 10)))
    table = made._result(first, second, np.full(100, HARD)).reshape(10, 10)
    assert all(len(set(row)) > 5 for row in [*table.tolist(), *table.T.tolist()]) and 0 <= table.min() <= table.max() < 100


def test_half_of_the_sums_are_hard() -> None:
    made = arithmetic(hard=0.4)
    kinds = [made.family(seed) for seed in range(1000)]
    assert set(kinds) == set(made.families) and sum(one.endswith("_hard") for one in kinds) / 1000 == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("name", VARIATIONS)
def test_many_are_as_one_at_a_time_and_words_are_closed(name: str) -> None:
    made, other, seeds = arithmetic(**VARIATIONS[name]), arithmetic(**VARIATIONS[name]), range(10)
    first, rng = made.reset(seeds), np.random.default_rng(0)
    begun = made.snapshot()
    actions = [made.expert({"carry": 0.5}, rng) for _ in range(made.limit)]
    texts = []
    for one in actions:
        texts.append(made.tell())
        replies = made.replies(one)
        assert made.read(replies).tolist() == one.tolist()
        assert {word for text in (*texts[-1], *replies) for word in text.split()} <= set(made.words)
        made.step(one)
    assert made.snapshot().answers.max() <= made.params.tries and made.snapshot().over.all()
    made.restore(begun)
    for column, seed in enumerate(seeds):
        assert (other.reset([seed])[0] == first[column]).all()
        for place, one in enumerate(actions):
            assert other.tell()[0] == texts[place][column]
            other.step(one[[column]])
    assert made.tell() == texts[0] and len(set(made.words)) == len(made.words)


def test_the_errors_of_the_expert() -> None:
    made = arithmetic(largest=9, fewest=3)
    made.reset(range(300))
    rng, right, sums = np.random.default_rng(0), made.oracle(), made.snapshot().sums
    assert (made.expert({}, rng) == right).all()
    assert set(((made.expert({"carry": 1}, rng) - right) % 100).tolist()) == {1, 10, 90, 99}
    assert (made.expert({"skip": 1}, rng) == sums.before_last).all()
    assert (made.expert({"silent": 1}, rng) == NO_ACTION).all()
    other = made.expert({"operation": 1}, rng)
    value, operation = sums.last
    results = np.stack([made._result(sums.before_last, value, np.full(300, one)) for one in range(HARD)])
    possible = (results == other) & (np.arange(HARD)[:, None] != operation)
    assert possible.any(0).all() and (other != right).mean() > 0.8
    with pytest.raises(BadInput, match="its expert makes no error 'carries'"):
        made.expert({"carries": 0.1}, rng)


def test_equal_sums_lie_in_one_split_whatever_their_style() -> None:
    splits: dict[str, set[str]] = {}
    for style in ("short", "long"):
        made = arithmetic(style=style, fewest=2, most=2, largest=3)
        made.reset(range(300))
        for seed, text in enumerate(made.tell()):
            splits.setdefault(text, set()).add(made.split(seed))
    assert len(splits) < 50 and all(len(one) == 1 for one in splits.values())
    assert set.union(*splits.values()) == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fewest": 6}, "environment arithmetic: fewest = 6 is above most = 5"),
        ({"operations": ["/"]}, "operations.0 = '/'"),
        ({"hard": 2}, "hard = 2"),
        ({"styles": "long"}, "unknown key 'styles'"),
    ],
)
def test_params_that_are_no_sums_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        arithmetic(**settings)
    assert message in str(caught.value)
