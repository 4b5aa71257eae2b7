"""The room's data and optimisers."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.checkpoints.tiny import tiny_qwen3
from tasks.contract.params import StageFailed
from tasks.contract.rows import message_of
from tasks.contract.schemas import DATASET
from tasks.contract.tables import read_table, write_rows
from tasks.sft.core import optimizer
from tasks.sft.core.data import IGNORED, Data, Row, batches, collate, load_data
from tasks.sft.core.loop import check_used
from tasks.sft.core.params import Loop
from tests.chat.talks import dataset, tokenizer, turn_text, worlds

PROMPT = {"tools": "none", "policy": "none"}


def rows(count: int) -> list[Row]:
    rng = random.Random(0)
    made = []
    for index in range(count):
        ids = [rng.randint(7, 99) for _ in range(rng.randint(5, 60))]
        made.append(Row(f"t{index}", ids, [IGNORED, *ids[1:]], 1.0))
    return made


@pytest.mark.parametrize("rng", [None, random.Random(1)])
def test_every_row_is_in_one_batch_and_batches_are_small(rng: random.Random | None) -> None:
    made = rows(300)
    plan = batches(made, 128, rng)
    assert sorted(index for batch in plan for index in batch) == list(range(300))
    padded = [len(batch) * max(len(made[index].ids) for index in batch) for batch in plan]
    assert max(padded) <= 128
    assert sum(padded) < 1.15 * sum(len(row.ids) for row in made)


def test_batches_that_share_a_prompt_are_of_one_world_and_count_it_once() -> None:
    prompts = {"shop": [1] * 50, "hotel": [2] * 50}
    made = [
        replace(row, ids=prompts[world] + row.ids, labels=[IGNORED] * 50 + row.labels, about={"world": world})
        for row in rows(100)
        for world in prompts
    ]
    plan = batches(made, 200, random.Random(1), "shared_prompt")
    assert sorted(index for batch in plan for index in batch) == list(range(200))
    assert all(len({made[index].about["world"] for index in batch}) == 1 for batch in plan)
    packed = [50 + sum(len(made[index].ids) - 50 for index in batch) for batch in plan]
    assert max(packed) <= 200 and sum(packed) / len(packed) > 150
    assert plan != batches(made, 200, random.Random(2), "shared_prompt")


def test_a_long_row_is_a_batch_of_its_own() -> None:
    assert all(len(batch) == 1 for batch in batches(rows(9), 1, None))
    assert batches([], 128, None) == []


def test_collate_pads_on_the_right() -> None:
    batch = collate([Row("a", [7, 8, 9], [IGNORED, 8, 9], 2.0), Row("b", [5], [IGNORED], 1.0)], pad=0)
    assert batch["input_ids"].tolist() == [[7, 8, 9], [5, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 8, 9], [IGNORED, IGNORED, IGNORED]]
    assert batch["row_weights"].tolist() == [2.0, 1.0]


def load(tmp_path: Path, **more: Any) -> Any:
    how = {"max_length": 2048, "row_weight": lambda row: 1.0, **more}
    frozen = worlds(tmp_path / "worlds")
    return load_data(dataset(tmp_path, 10) / "dataset.parquet", frozen, tokenizer(), PROMPT, **how)


def test_rows_are_proven_split_and_end_at_their_last_trained_token(tmp_path: Path) -> None:
    data = load(tmp_path, row_weight=lambda row: len(row["messages"]))
    assert [len(data.train), len(data.validation), data.dropped, data.proven_turns] == [8, 2, [], 30]
    text = tokenizer().decode(data.train[0].ids)
    assert text.endswith(" is cancelled.<|im_end|>") and "You are the retail agent." in text
    assert all(row.labels[-1] != IGNORED and row.weight == 8 for row in data.train)


def _with(tmp_path: Path, **columns: Any) -> None:
    """The dataset with the first row's columns changed."""
    dataset(tmp_path, 10)
    found = read_table(tmp_path / "dataset.parquet", DATASET).to_pylist()
    found[0].update(columns)
    write_rows(tmp_path / "dataset.parquet", DATASET, found)


def read(tmp_path: Path, row_weight: Any = lambda row: 1.0) -> Data:
    frozen = worlds(tmp_path / "worlds")
    return load_data(tmp_path / "dataset.parquet", frozen, tokenizer(), PROMPT, 2048, row_weight)


def test_only_the_turns_that_the_filter_marked_are_trained(tmp_path: Path) -> None:
    """By hand: of three turns the second alone trains; the row ends with it, and what trains reads as that turn's text."""
    _with(tmp_path, trained_turns=[False, True, False], weight=2.0)
    found = read_table(tmp_path / "dataset.parquet", DATASET).to_pylist()[0]
    (row,) = (row for row in read(tmp_path).train if row.name == found["traj_id"])
    own = [message_of(message) for message in found["messages"] if message["role"] == "assistant"]
    text = tokenizer().decode([label for label in row.labels if label != IGNORED])
    assert text == turn_text(own[1]) and tokenizer().decode(row.ids).endswith(text)
    assert (row.weight, row.about["world"]) == (2.0, "retail")
    whole = next(row for row in load(tmp_path).train if row.name == found["traj_id"])
    assert whole.ids[: len(row.ids)] == row.ids and whole.trained > row.trained


@pytest.mark.parametrize(
    ("columns", "factor", "message"),
    [
        ({"weight": -1.0}, 1.0, r"row t0: its weight is -1.0 in the dataset, times 1 by the method. Allowed: finite and at least 0"),
        ({"weight": None}, 1.0, r"row t0: its weight is None in the dataset"),
        ({}, float("nan"), r"row t0: its weight is 1.0 in the dataset, times nan by the method"),
        ({"trained_turns": [True]}, 1.0, r"row t0: trained_turns has 1 values for 3 turns of the assistant. Allowed: one for each"),
    ],
)
def test_marks_that_make_no_sense_name_their_row(tmp_path: Path, columns: dict[str, Any], factor: float, message: str) -> None:
    _with(tmp_path, **columns)
    with pytest.raises(StageFailed, match=message):
        read(tmp_path, lambda row: factor)


def test_a_row_of_which_no_turn_is_learned_is_counted(tmp_path: Path) -> None:
    _with(tmp_path, trained_turns=[False, False, False])
    assert read(tmp_path).dropped == [("t0", "no trained turn")]


def test_a_row_that_does_not_fit_is_named_not_cut(tmp_path: Path) -> None:
    data = load(tmp_path)
    sizes = {row.name: len(row.ids) for row in data.train}
    limit = sorted(sizes.values())[4]
    fitting = load(tmp_path, max_length=limit)
    assert {name: f"{size} tokens" for name, size in sizes.items() if size > limit}.items() <= dict(fitting.dropped).items()
    assert {row.name for row in fitting.train} == {name for name, size in sizes.items() if size <= limit}


def test_what_is_left_out_is_counted_by_reason_before_and_after(tmp_path: Path) -> None:
    """By hand: of ten kept rows one was cut in its last turn and one could not be read; both count as offered, none
    trains. A human that hung up, or the last step, leaves the agent's last turn whole."""
    dataset(tmp_path, 10)
    rows = read_table(tmp_path / "dataset.parquet", DATASET).to_pylist()
    rows[0]["stop"], rows[1]["stop"] = "max_tokens", "parse_error"
    rows[2]["stop"], rows[3]["stop"] = "human_error", "max_steps"
    write_rows(tmp_path / "dataset.parquet", DATASET, rows)
    data = load_data(tmp_path / "dataset.parquet", worlds(tmp_path / "worlds"), tokenizer(), PROMPT, 2048, lambda row: 1.0)
    assert (len(data.train), len(data.validation)) == (6, 2)
    assert data.dropped_by() == {"its last turn was cut or cannot be read": 2}
    assert data.offered == {
        "train": (8, sum(row.trained for row in data.train)),
        "validation": (2, sum(row.trained for row in data.validation)),
    }


@pytest.mark.parametrize(
    ("offered", "stops"), [((10, 100), False), ((20, 100), False), ((21, 100), True), ((10, 201), True), ((10, 200), False)]
)
def test_the_share_that_must_train_is_one_of_rows_and_of_tokens(offered: tuple[int, int], stops: bool) -> None:
    """By hand: ten rows of ten trained tokens each are left; at 0.5 of 21 rows, or of 201 tokens, that is too little."""
    made = [Row(f"t{n}", [7] * 11, [IGNORED, *[7] * 10], 1.0) for n in range(10)]
    data = Data(train=made, validation=made[:1], offered={"train": offered, "validation": (1, 10)})
    with pytest.raises(StageFailed, match=r"min_trained = 0.5") if stops else nullcontext():
        check_used(data, Loop(), 2048, Path("kept"))
    check_used(data, Loop(min_trained=0.0), 2048, Path("kept"))


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("3000 tokens", "Raise max_length"),
        ("the checkpoint's chat format does not hold several calls in a turn", "`cairn chat check` says what a format holds"),
        ("its last turn was cut or cannot be read", "have it make other ones"),
    ],
)
def test_what_helps_follows_from_why_rows_were_left_out(reason: str, remedy: str) -> None:
    kept = [Row("t", [7, 7], [IGNORED, 7], 1.0)]
    data = Data(train=kept, validation=kept, offered={"train": (9, 9), "validation": (1, 1)}, dropped=[("a", reason), ("b", reason)])
    with pytest.raises(StageFailed) as stopped:
        check_used(data, Loop(), 2048, Path("kept"))
    assert remedy in str(stopped.value)


def test_the_control_draws_as_many_rows_from_all(tmp_path: Path) -> None:
    """Row t10, which the filter dropped, is among 9 train rows of which 8 are drawn; validation stays as it is."""
    filtered = load(tmp_path)
    drawn = [{row.name for row in load(tmp_path, unfiltered=random.Random(seed)).train} for seed in range(8)]
    assert {len(names) for names in drawn} == {8} and any("t10" in names for names in drawn)
    control = load(tmp_path, unfiltered=random.Random(0))
    assert [row.name for row in control.validation] == [row.name for row in filtered.validation]


def params(**more: Any) -> Loop:
    return Loop(learning_rate=0.01, **more)


def test_muon_moves_matrices_of_the_layers_and_adamw_the_rest() -> None:
    """By hand: the first step of Muon on a gradient with orthogonal rows of one length goes along that gradient."""
    import torch

    model = tiny_qwen3(tokenizer(), layers=1, width=32, heads=2)
    both = optimizer.build(model, params(optimizer="muon", muon_rate=0.01))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    square = model.model.layers[0].self_attn.q_proj.weight
    square.grad = torch.nn.init.orthogonal_(torch.empty(32, 32))
    model.model.norm.weight.grad = torch.ones(32)
    both.step()
    moved = square.detach() - before["model.layers.0.self_attn.q_proj.weight"]
    cosine = -(moved * square.grad).sum() / moved.norm() / square.grad.norm()
    assert cosine.item() == pytest.approx(1.0, abs=0.01)
    assert moved.pow(2).mean().sqrt().item() == pytest.approx(0.01 * 0.2, rel=0.2)  # match_rms_adamw: 0.2 of the rate
    step = model.model.norm.weight.detach() - before["model.norm.weight"]
    assert step.mean().item() == pytest.approx(-0.01, rel=1e-3)  # AdamW's first step is its rate


def test_our_muon_is_torchs_up_to_the_rounding_of_bfloat16() -> None:
    """Two steps on tall, wide and square matrices, against torch.optim.Muon, which iterates in bfloat16."""
    import torch

    torch.manual_seed(0)
    ours, theirs = (tiny_qwen3(tokenizer(), layers=1, width=32, heads=2) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    both = optimizer.build(ours, params(optimizer="muon", muon_rate=0.01, weight_decay=0.1))
    names = [name for name, value in theirs.named_parameters() if value.ndim == 2 and "embed" not in name]
    known = dict(theirs.named_parameters())
    matrices = [known[name] for name in names]
    muon = torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    before = [matrix.detach().clone() for matrix in matrices]
    for _ in range(2):
        for name in names:
            known[name].grad = torch.randn_like(known[name])
            dict(ours.named_parameters())[name].grad = known[name].grad.clone()
        both.step()
        muon.step()
    for name, start in zip(names, before, strict=True):
        moved, wanted = dict(ours.named_parameters())[name] - start, known[name] - start
        assert (moved - wanted).norm() < 0.05 * wanted.norm(), name


@pytest.mark.parametrize("how", ["adamw", "muon"])
@pytest.mark.parametrize("wanted", [("q_proj",), ("norm",), ("embed_tokens",), ("q_proj", "norm"), ("q_proj", "embed_tokens", "norm")])
def test_any_set_of_parameters_trains(how: str, wanted: tuple[str, ...]) -> None:
    """Matrices alone, vectors alone, the table alone, and together: what has a gradient moves, the rest stays."""
    import torch

    model = tiny_qwen3(tokenizer(), layers=1, width=32, heads=2)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(part in name for part in wanted)
        parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
    before = {name: value.clone() for name, value in model.named_parameters()}
    optimizer.build(model, params(optimizer=how)).step()
    moved = {name for name, value in model.named_parameters() if not value.equal(before[name])}
    assert moved == {name for name in before if any(part in name for part in wanted)} != set()


@pytest.mark.parametrize("how", ["adamw", "muon"])
def test_without_a_parameter_that_trains_there_is_no_optimizer(how: str) -> None:
    model = tiny_qwen3(tokenizer(), layers=1, width=32, heads=2).requires_grad_(False)
    with pytest.raises(StageFailed, match=r"nothing would train: .*`prepare`"):
        optimizer.build(model, params(optimizer=how))


def test_a_schedule_reaches_every_part_and_a_state_comes_back() -> None:
    model = tiny_qwen3(tokenizer(), layers=1, width=32, heads=2)
    both = optimizer.build(model, params(optimizer="muon"))
    for group in both.param_groups:
        group["lr"] = 0.0
    for parameter in model.parameters():
        parameter.grad = parameter.detach().clone()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    both.step()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    again = optimizer.build(model, params(optimizer="muon"))
    again.load_state_dict(both.state_dict())
    assert [group["lr"] for group in again.param_groups] == [0.0] * len(both.param_groups)
