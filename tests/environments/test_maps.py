"""Symbol maps: tables by hand, known symbols, two alphabets."""

from __future__ import annotations

import numpy as np
import pytest

from tasks.contract.params import BadInput
from tasks.environments import NO_ACTION, maps
from tasks.environments.maps import Maps, Params

SEEDS = range(200)
VARIATIONS = {
    "in context": {"named": False, "examples": 4, "alphabets": 2, "questions": 1, "law": "permutation", "symbols": 10},
    "partly known": {"known": 0.5, "maps": 3},
}


def made(**params: object) -> Maps:
    return maps.environment(Params.model_validate(params))


def test_an_affine_table_and_an_episode_by_hand() -> None:
    """Over 3 symbols there are 2 x 3 maps y = a x + b (mod 3), and every one of them is drawn once."""
    one = made(maps=6, symbols=3, questions=2)
    assert sorted(map(tuple, one.tables.tolist())) == [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)]
    map_, x = one.reset([7])[0].tolist()
    assert one.tell() == [f"map_{map_} a{x}"] and one.family(7) == f"map_{map_}"
    y = int(one.tables[map_, x])
    assert one.oracle().tolist() == [y] and one.replies(one.oracle()) == [f"a{y}"]
    steps = one.step(one.read([f"a{y}"]))
    assert steps.reward.tolist() == [0.5] and not steps.terminal[0]
    assert one.tell() == [f"a{steps.observation[0, 1]}"], "the name is told once"
    steps = one.step(np.array([NO_ACTION]))
    assert steps.reward.tolist() == [0.0] and steps.terminal.tolist() == [True] and one.tell() == [""]


def test_more_affine_maps_than_there_are_is_refused() -> None:
    with pytest.raises(BadInput, match=r"symbols = 3 allows 6 affine maps; 7 are wanted. Use more symbols or fewer maps."):
        made(maps=7, symbols=3)


def test_a_map_without_a_name_is_told_by_examples_in_either_alphabet() -> None:
    one = made(maps=4, symbols=5, law="permutation", named=False, examples=3, questions=1, alphabets=2)
    one.reset(SEEDS)
    for seed, told, right in zip(SEEDS, one.tell(), one.replies(one.oracle()), strict=True):
        words = told.split()
        _, number, letter = one.family(seed).split("_")
        table = {f"{letter}{x}": f"{letter}{y}" for x, y in enumerate(one.tables[int(number)])}
        assert len(words) == 7 and all(table[words[place]] == words[place + 1] for place in (0, 2, 4)) and table[words[6]] == right
    assert {word[0] for told in one.tell() for word in told.split()} == {"a", "b"}


def test_families_that_show_known_symbols_alone() -> None:
    one = made(maps=2, symbols=10, known=0.5, questions=4)
    assert one.families == ("map_0", "map_1", "map_0_part", "map_1_part") and one.known.shape == (2, 5)
    one.reset(SEEDS)
    asked = one.snapshot().questions
    shown = {
        family: {int(x) for seed, row in zip(SEEDS, asked, strict=True) if one.family(seed) == family for x in row}
        for family in one.families
    }
    assert shown["map_0_part"] == set(one.known[0].tolist()) and shown["map_1_part"] == set(one.known[1].tolist())
    assert shown["map_0"] == shown["map_1"] == set(range(10))


def test_pairs_without_turns_train_the_images_alone() -> None:
    """`map_3 a5 a12 a7 a0`: ids 4 + word; every second one after the name is the image of the one before."""
    one = made(maps=4, symbols=7, questions=2)
    for ids, trained in one.rows("pairs", SEEDS, np.random.default_rng(0)):
        table = one.tables[ids[0] - 4]
        x, y = np.array(ids[1::2]) - 8, np.array(ids[2::2]) - 8
        assert trained == [False, False, True, False, True] and table[x].tolist() == y.tolist()


def test_errors_of_the_expert_are_what_they_say() -> None:
    one, rng = made(maps=3, symbols=5, alphabets=2), np.random.default_rng(0)
    one.reset(SEEDS)
    right = one.oracle()
    after = one.expert({"next_symbol": 1.0}, rng)
    assert ((after - right) % 5 == 1).all() and (after // 5 == right // 5).all()
    wrong = one.expert({"next_symbol": 0.25, "other_map": 0.25}, rng)
    assert 0.3 < float((wrong != right).mean()) < 0.6
