"""Facts told and asked, and replies whose qualities conflict: numbers by hand, the best reply against all replies."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.contract.params import BadInput
from tasks.environments import NO_ACTION, text, tokens
from tasks.environments.text import Params, Text

SEEDS = range(100)
VARIATIONS = {
    "framed": {"style": "framed", "groups": 2, "keys": 16},
    "wishes": {"style": "both", "wishes": 2, "longest": 4, "facts": 2},
    "aims": {"aims": True, "longest": 5, "facts": 3},
}


def made(**params: object) -> Text:
    return text.environment(Params.model_validate(params))


def test_a_question_and_its_replies_by_hand() -> None:
    """Of a key with the values a and b, a reply `a a please` names one of two and one again: right 1/2 - 1/2 = 0, a third of its words
    repeated."""
    one = made(facts=2, longest=4, kinds=5)
    key = int(one.reset([3])[0, 0])
    a, b = (f"v{value}" for value in one.values[key])
    assert one.tell() == [f"k{key} ?"]

    def qualities(reply: str) -> dict[str, float]:
        return {name: round(float(value[0]), 6) for name, value in one.qualities(one.read([reply])).items()}

    assert qualities(f"{a} {a} please") == {"right": 0.0, "long": 0.75, "polite": 1.0, "number": 0.0, "varied": 0.666667}
    assert qualities(f"{b} {a}") == {"right": 1.0, "long": 0.5, "polite": 0.0, "number": 0.0, "varied": 1.0}
    wrong = next(f"v{value}" for value in range(5) if value not in one.values[key])
    assert qualities(f"{a} {wrong} two")["right"] == 0.0 and qualities(f"{a} {wrong} two")["number"] == 1.0
    steps = one.step(one.read([f"{a} {b}"]))
    assert (steps.reward.tolist(), steps.terminal.tolist(), one.tell()) == ([1.0], [True], [""])


def test_lists_and_numbers_of_actions_are_the_same_thing() -> None:
    one = made(longest=3, kinds=2)
    assert one.actions == 9 + 81 + 729
    found = [tuple(word for word in row if word >= 0) for row in one.lists(np.arange(one.actions)).tolist()]
    assert len(set(found)) == one.actions and {len(words) for words in found} == {1, 2, 3}
    assert [one._number(words) for words in found] == list(range(one.actions))


@pytest.mark.parametrize("params", [{"wishes": 1}, {"wishes": 2}, {"wishes": 4}, {"aims": True}, {}])
def test_no_reply_is_better_than_the_oracles(params: dict[str, object]) -> None:
    """All lists of up to 3 of 9 words, in episodes of every wish."""
    one = made(longest=3, kinds=2, facts=1, keys=8, **params)
    one.reset(SEEDS)
    best = one.rewards(one.oracle())
    for action in range(one.actions):
        assert (one.rewards(np.full(len(SEEDS), action)) <= best + 1e-9).all(), one.lists(np.array([action]))


def test_what_is_good_in_one_way_is_bad_in_another() -> None:
    one = made(aims=True, longest=6, facts=2)
    one.reset(SEEDS)
    aim, best = one.snapshot().aim, one.oracle()
    long = one.qualities(best)["long"]
    assert long[aim == 6].min() == 1.0 and long[aim == 0].max() == pytest.approx(2 / 6)
    assert one.tell()[int(np.flatnonzero(aim == 6)[0])].endswith("? aim_6")
    wishes = made(wishes=2, longest=4)
    wishes.reset(SEEDS)
    for told, words in zip(wishes.tell(), wishes.replies(wishes.oracle()), strict=True):
        assert ("please" in words) == ("want polite" in told) or "polite" not in told
        assert len(told.split()) == 2 + 4


def test_framed_replies_are_read_in_their_frame_alone() -> None:
    one = made(style="framed")
    key = int(one.reset([1])[0, 0])
    value = f"v{one.values[key, 0]}"
    assert one.tell() == [f"ask k{key} answer"] and one.replies(one.oracle()) == [f"open {value} close"]
    assert [
        one.read([reply])[0] for reply in (value, f"open {value}", "open close", f"open {value} {value} close", "open k0 close")
    ] == [NO_ACTION] * 5


def test_told_rows_speak_of_the_keys_of_all_splits_and_recalled_ones_train_the_values() -> None:
    one = made(groups=2, keys=16, style="both", facts=2, longest=2)
    vocabulary, rng = tokens.Vocabulary(one.words), np.random.default_rng(0)
    seen: dict[str, set[int]] = {}
    for seed, (ids, trained), (same, values) in zip(SEEDS, one.rows("told", SEEDS, rng), one.rows("recalled", SEEDS, rng), strict=True):
        words = vocabulary.text(ids).split()
        assert ids == same and trained == [False] + [True] * (len(ids) - 1)
        assert [word for word, own in zip(words, values, strict=True) if own] == [word for word in words if word[0] == "v"]
        keys = [int(word[1:]) for word in words if word[0] == "k"]
        told = [int(word[1:]) for word in words if word[0] == "v"]
        assert told == one.values[keys].ravel().tolist() and len(keys) == 4
        assert ("note" in words) == one.family(seed).endswith("framed")
        seen.setdefault(one.family(seed)[:7], set()).update(keys)
    assert seen == {"group_0": set(range(0, 16, 2)), "group_1": set(range(1, 16, 2))}


def test_a_key_is_in_one_split_and_every_group_has_all() -> None:
    one = made(groups=2, keys=20)
    assert [one.splits[group::2].count("train") for group in (0, 1)] == [7, 7]
    assert [one.splits[group::2].count("validation") for group in (0, 1)] == [1, 1]
    one.reset(SEEDS)
    assert [one.split(seed) for seed in SEEDS] == [one.splits[key] for key in one.snapshot().key]


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"facts": 2}, r"facts = 2 are more than a reply holds \(longest = 1\)"),
        ({"keys": 7, "groups": 2}, "keys = 7 are less than 4 for each of 2 groups"),
        ({"aims": True, "wishes": 1}, "aims and wishes = 1: an episode asks for one of them"),
        ({"longest": 12, "kinds": 1000}, "make more lists than 64 bits count"),
    ],
)
def test_params_that_do_not_go_together_are_told(params: dict[str, object], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        made(**params)
