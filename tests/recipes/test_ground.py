"""The ground of the recipes: maps and facts by hand, masked training, scores, checkpoints.

By hand: two maps over 3 symbols, task 0 with y = x + 1 (mod 3), are the tables (1, 2, 0) and, say, (0, 2, 1). Tokens 0 and 1 name the
tasks, 2, 3, 4 are the symbols. A row of task 0 that shows symbols 0 and 2 reads 0 | 2 3 | 4 2.
With 2 keys and 2 values (values 1 and 0): specials are 0..5, keys 6 and 7, values 8 and 9; "key 0 IS value 1 DOT" reads 6 0 9 1, and the
question about key 1 reads ASK 7 REPLY OPEN 8 CLOSE = 2 7 3 4 8 5.
"""

from __future__ import annotations

import random
from pathlib import Path
from types import ModuleType

import pytest

from flows.recipes.ground import facts, maps, training
from flows.recipes.ground.merging import Bench
from flows.recipes.ground.scoring import score
from tasks.contract.params import BadInput
from tasks.merge import task_arithmetic, ties

TWO = maps.Maps(((1, 2, 0), (0, 2, 1)), pairs=4)


def model(vocabulary: int = 5, seed: int = 0) -> object:
    return training.tiny_model(vocabulary, layers=1, width=32, seed=seed)


def test_a_row_names_its_task_and_shows_what_the_map_makes() -> None:
    batch = TWO.batch([0, 1], 50, training.generator("rows"))
    assert batch.ids.shape == (50, 9) and TWO.vocabulary == 5
    assert set(batch.ids[:, 0].tolist()) == {0, 1}
    assert batch.scored.nonzero()[:, 1].tolist() == [2, 4, 6, 8] * 50
    for row in batch.ids.tolist():
        assert [y - 2 for y in row[2::2]] == [TWO.tables[row[0]][x - 2] for x in row[1::2]]
    assert {x for row in batch.ids.tolist() for x in row[1::2]} == {2, 3, 4}


def test_rows_show_only_what_they_may() -> None:
    wide = maps.Maps(tuple(maps.affine(3, 11, random.Random(0))), pairs=8)
    partly = wide.partly(0.4, [1, 2], seed=7)
    assert [len(one) for one in partly.shown] == [11, 4, 4] and partly.shown[1] != partly.shown[2]
    rows = partly.batch([1], 60, training.generator("rows")).ids
    assert {x - 3 for row in rows.tolist() for x in row[1::2]} == set(partly.shown[1])
    assert {x - 3 for row in partly.batch([0], 60, training.generator("rows")).ids.tolist() for x in row[1::2]} == set(range(11))
    assert wide.partly(0.4, [1, 2], seed=8).shown != partly.shown


def test_affine_maps_are_different_bijections() -> None:
    tables = maps.affine(12, 6, random.Random(0))
    assert len(set(tables)) == 12  # a in {1, 5}, b in 0..5
    for table in tables:
        assert sorted(table) == list(range(6))
        assert len({(table[(x + 1) % 6] - table[x]) % 6 for x in range(6)}) == 1
    assert all(sorted(table) == list(range(6)) for table in maps.permutations(5, 6, random.Random(0)))


def test_more_affine_maps_than_there_are() -> None:
    with pytest.raises(BadInput, match="symbols = 6 allows 12 affine maps; 13 are wanted"):
        maps.affine(13, 6, random.Random(0))


def test_facts_are_told_recalled_and_asked() -> None:
    known = facts.Facts((1, 0), kinds=2)
    sentences = {0: [6, 0, 9, 1], 1: [7, 0, 8, 1]}
    told, recalled = (draw([0, 1], 20, 3, training.generator("text")) for draw in (known.told, known.recalled))
    assert told.ids.tolist() == recalled.ids.tolist() and told.ids.shape == (20, 12)
    assert all(row[start : start + 4] in sentences.values() for row in told.ids.tolist() for start in (0, 4, 8))
    assert not told.scored[:, 0].any() and told.scored[:, 1:].all()
    assert recalled.scored[0].nonzero().flatten().tolist() == [2, 6, 10]
    asked = known.asked([1, 0])
    assert asked.ids.tolist() == [[2, 7, 3, 4, 8, 5], [2, 6, 3, 4, 9, 5]]
    assert asked.scored.tolist() == [[False, False, False, True, True, True]] * 2
    drawn = known.questions([1], 4, training.generator("questions"))
    assert drawn.ids.tolist() == [[2, 7, 3, 4, 8, 5]] * 4
    assert known.vocabulary == 10 and facts.draw(5, 3, random.Random(0)) == facts.draw(5, 3, random.Random(0))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_training_learns_and_is_the_same_again(optimizer: str) -> None:
    def run() -> tuple[dict[str, object], float]:
        found = model()
        loss = training.train(found, lambda n, g: TWO.batch([0, 1], n, g), training.Schedule(60, 16, 1e-2, optimizer), seed=3)
        return training.weights_of(found), loss

    (one, loss), (two, again) = run(), run()
    assert loss == again < 0.3  # log 3 = 1.1 before
    assert all((one[name] == two[name]).all() for name in one)


def test_masked_entries_alone_move() -> None:
    import torch

    found = model()
    before = training.weights_of(found)
    masks = {name: torch.zeros_like(tensor) for name, tensor in before.items()}
    masks["model.layers.0.mlp.up_proj.weight"][3, :5] = 1
    training.train(found, lambda n, g: TWO.batch([0], n, g), training.Schedule(12, 8, 1e-2), seed=0, masks=masks)
    for name, tensor in training.weights_of(found).items():
        assert ((tensor != before[name]) == masks[name].bool()).all(), name


def test_muon_cannot_be_masked() -> None:
    with pytest.raises(ValueError, match="moves each entry on its own"):
        training.train(model(), lambda n, g: TWO.batch([0], n, g), training.Schedule(1, 2, 1e-2, "muon"), seed=0, masks={})


def test_a_score_counts_tokens_and_whole_rows() -> None:
    """With all weights but the embedding's silent, a tied model repeats the token it reads: right where y = x."""
    import torch

    found = model()
    with torch.no_grad():
        for name, parameter in found.named_parameters():  # type: ignore[attr-defined]
            if "proj" in name:
                parameter.zero_()
        found.model.embed_tokens.weight.copy_(torch.eye(5, 32))  # type: ignore[attr-defined]
    same_but_last = maps.Maps(((0, 2, 1),), pairs=1)  # symbol 0 maps to itself, 1 and 2 do not
    ids = torch.tensor([[0, 1, 1], [0, 2, 3], [0, 3, 2], [0, 1, 1]])
    scored = torch.tensor([[False, False, True]] * 4)
    assert same_but_last.vocabulary == 4
    said = score(found, training.Batch(ids, scored))  # type: ignore[arg-type]
    assert (said.accuracy, said.exact, said.n) == (0.5, 0.5, 4)
    both = score(found, training.Batch(torch.tensor([[0, 1, 1, 2, 3]]), torch.tensor([[False, False, True, False, True]])))  # type: ignore[arg-type]
    assert (both.accuracy, both.exact, both.n) == (0.5, 0.0, 2)


def test_a_checkpoint_comes_back_and_holds_a_tied_table_once(tmp_path: Path) -> None:
    found = model()
    weights = training.weights_of(found)
    training.save_weights(found, weights, tmp_path / "one")
    again = training.load_weights(tmp_path / "one")
    assert again.keys() == weights.keys() and "lm_head.weight" not in again
    assert training.distance(again, weights) == 0
    assert training.parameter_count(found) == sum(tensor.numel() for tensor in weights.values())
    other = model(seed=1)
    training.set_weights(other, again)
    assert training.distance(training.weights_of(other), weights) == 0


@pytest.mark.parametrize(("method", "settings"), [(task_arithmetic, {"alpha": 0.5}), (ties, {"keep": 1.0, "alpha": 0.5})])
def test_a_merge_is_loaded_and_leaves_nothing(tmp_path: Path, method: ModuleType, settings: dict[str, float]) -> None:
    found = model()
    start = training.weights_of(found)
    training.save_weights(found, start, tmp_path / "base")
    training.save_weights(found, {name: tensor * 3 for name, tensor in start.items()}, tmp_path / "far")
    weights, figures = Bench(tmp_path / "base", tmp_path / "merges", seed=0).merge(method, settings, {"far": tmp_path / "far"})
    for name, tensor in weights.items():
        assert abs(tensor - 2 * start[name]).max() < 1e-6  # base + 0.5 x (3 base - base)
    assert figures["parameters"] == training.parameter_count(found) and not list((tmp_path / "merges").iterdir())


def test_settings_that_a_method_refuses_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"merge\.ties: keep = 2: .* Allowed: float > 0 and <= 1"):
        Bench(tmp_path, tmp_path / "merges", seed=0).merge(ties, {"keep": 2}, {})


def test_a_width_without_whole_heads() -> None:
    with pytest.raises(BadInput, match="width = 48 is not a multiple of 32"):
        training.tiny_model(5, layers=1, width=48, seed=0)
