"""The filter stage on conversations that a world's own scripts played and scripted critics reviewed."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tasks.contract import schemas, tables
from tasks.contract.params import BadInput, StageFailed
from tasks.critique import Inputs as CritiqueInputs
from tasks.critique.multicritique import Params as CritiqueParams
from tasks.critique.multicritique import run as critique
from tasks.filter import Check, Inputs, Marks, Offered
from tasks.filter.core.room import mark_rows
from tasks.filter.rejection_sampling import Params, run
from tests.critique.played import play_into
from tests.critique.test_multicritique import context
from tests.filter import weighing


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    folder = tmp_path_factory.mktemp("played")
    worlds, generate = play_into(folder)
    (folder / "critique").mkdir()
    critique(CritiqueInputs(worlds, generate), CritiqueParams(min_pairs=0), context(folder / "critique"))
    return Inputs(worlds, generate, folder / "critique")


def marked(inputs: Inputs, out: Path, params: Params) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    out.mkdir()
    figures = run(inputs, params, context(out))
    return figures, tables.read_table(out / "dataset.parquet", schemas.DATASET).to_pylist()


def test_every_row_comes_out_once_with_its_mark(inputs: Inputs, tmp_path: Path) -> None:
    figures, dataset = marked(inputs, tmp_path / "a", Params(min_score=0.5))
    before = tables.read_table(inputs.generate / "trajectories.parquet", schemas.TRAJECTORY).to_pylist()
    assert [{key: row[key] for key in before[0]} for row in dataset] == before
    counted = Counter(row["reason"] for row in dataset)
    assert figures["rows"] == len(before) == figures["kept"] + sum(figures["dropped"].values())
    assert {reason: count for reason, count in figures["dropped"].items() if count} == {r: c for r, c in counted.items() if r}
    assert all(row["keep"] == (row["reason"] == "") and 0 <= row["score"] <= 1 for row in dataset)
    assert set(figures["kept_by_split"]) == {"train", "validation"}
    assert figures["resplit"] == figures["straddling_components"] == 0


def test_the_waterfall_ends_with_what_is_kept(inputs: Inputs, tmp_path: Path) -> None:
    figures, _ = marked(inputs, tmp_path / "a", Params(min_score=0.5))
    with (tmp_path / "a" / "waterfall.csv").open() as file:
        bars = list(csv.DictReader(file))
    assert int(bars[-1]["kept"]) == figures["kept"]
    assert sum(int(bar["dropped"]) for bar in bars) == figures["rows"] - figures["kept"]


def test_with_everything_off_it_is_the_verifier(inputs: Inputs, tmp_path: Path) -> None:
    _, dataset = marked(inputs, tmp_path / "a", Params(policy=False, deduplicate=False))
    assert [row["keep"] for row in dataset] == [row["reward"] == 1 for row in dataset]
    _, strict = marked(inputs, tmp_path / "b", Params())
    assert all(row["policy"] == 1.0 and row["reward"] == 1 for row in strict if row["keep"])
    assert sum(row["keep"] for row in strict) < sum(row["keep"] for row in dataset)


def test_writes_are_asked_for_in_any_order_and_reads_are_free(inputs: Inputs, tmp_path: Path) -> None:
    """Of four won conversations: one as it was, one with a read and a refused write more, one with a write done twice (as by a detour
    that a state check forgives), one with its writes turned round. The third alone is dropped, and only when asked for."""
    table = [row for row in tables.read_rows(inputs.generate / "trajectories.parquet", schemas.TRAJECTORY) if row["reward"]]
    several = [row for row in table if sum(call["kind"] == "write" and call["ok"] for call in row["calls"]) > 1]
    plain, read, twice, turned = several[:4]
    write = next(call for call in read["calls"] if call["kind"] == "write")
    read["calls"] += [{**write, "kind": "read"}, {**write, "ok": False}]
    twice["calls"].append(next(call for call in twice["calls"] if call["kind"] == "write" and call["ok"]))
    turned["calls"].reverse()
    tables.write_rows(tmp_path / "generate" / "trajectories.parquet", schemas.TRAJECTORY, [plain, read, twice, turned])
    (tmp_path / "generate" / "blueprints.parquet").symlink_to(inputs.generate / "blueprints.parquet")
    changed = Inputs(inputs.worlds, tmp_path / "generate", inputs.critique)
    loose = Params(policy=False, deduplicate=False)
    figures, dataset = marked(changed, tmp_path / "a", loose.model_copy(update={"writes": True}))
    assert [row["reason"] for row in dataset] == ["", "", "writes", ""] and figures["dropped"]["writes"] == 1
    assert all(row["keep"] for row in marked(changed, tmp_path / "b", loose)[1])


def test_same_inputs_same_bytes(inputs: Inputs, tmp_path: Path) -> None:
    for name in ("a", "b"):
        marked(inputs, tmp_path / name, Params(min_score=0.5))
    for name in ("dataset.parquet", "waterfall.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_an_id_that_comes_twice_is_named(inputs: Inputs, tmp_path: Path) -> None:
    table = list(tables.read_rows(inputs.generate / "trajectories.parquet", schemas.TRAJECTORY))
    tables.write_rows(tmp_path / "generate" / "trajectories.parquet", schemas.TRAJECTORY, [table[0], table[0]])
    with pytest.raises(BadInput, match=f"traj_id '{table[0]['traj_id']}' comes more than once"):
        run(Inputs(inputs.worlds, tmp_path / "generate", inputs.critique), Params(), context(tmp_path))


def test_a_method_may_weigh_rows_and_mask_turns(inputs: Inputs, tmp_path: Path) -> None:
    """Worked: a row of four turns weighs 1/4; turns that call are learned, replies are not; counts add up."""
    figures = weighing.run(inputs, weighing.Params(), context(tmp_path))
    dataset = tables.read_table(tmp_path / "dataset.parquet", schemas.DATASET).to_pylist()
    assert figures["rows"] == figures["kept"] + sum(figures["dropped"].values()) and figures["dropped"]["lost"] > 0
    for row in dataset:
        assert row["weight"] == pytest.approx(1 / row["n_agent_steps"]) and len(row["trained_turns"]) == row["n_agent_steps"]
        said = [message for message in row["messages"] if message["role"] == "assistant"]
        assert [bool(message["tool_calls"]) for message in said] == row["trained_turns"]
    assert {turn for row in dataset for turn in row["trained_turns"]} == {True, False}


def test_a_filter_that_says_nothing_leaves_the_defaults(inputs: Inputs, tmp_path: Path) -> None:
    _, dataset = marked(inputs, tmp_path / "a", Params(min_score=0.5))
    assert {(row["weight"], row["trained_turns"]) for row in dataset} == {(1.0, None)}


@pytest.mark.parametrize(
    ("marks", "error", "message"),
    [
        (lambda n: Marks(weights=[0.0] * n), StageFailed, r"all \d+ rows that are kept weigh 0"),
        (lambda n: Marks(weights=[1.0]), ValueError, r"1 weights for \d+ rows; one a row, or none"),
        (lambda n: Marks(weights=[float("nan")] * n), ValueError, "row 0 the weight nan; a weight is a number >= 0"),
        (lambda n: Marks(weights=[None] * n), ValueError, "row 0 the weight None; a weight is a number >= 0"),  # type: ignore[list-item]
        (lambda n: Marks(scores=[float("nan")] * n), ValueError, "row 0 the score nan; a score is a finite number"),
        (lambda n: Marks(trained_turns=[()] * n), ValueError, r"has \d+ assistant turns, the method gave it 0 trained_turns"),
        (
            lambda n: Marks([Check("all", "none", set)]),
            StageFailed,
            r"none of \d+ rows of the train split is kept \(none \d+\).*\(least\)",
        ),
    ],
)
def test_marks_that_train_nothing_or_do_not_fit_are_refused(
    inputs: Inputs, tmp_path: Path, marks: Any, error: Any, message: str
) -> None:
    def marker(offered: Offered) -> Marks:
        return marks(len(offered.splits))

    with pytest.raises(error, match=message):
        mark_rows(inputs, marker, context(tmp_path), "least")


def test_rows_of_which_no_turn_is_learned_are_refused(inputs: Inputs, tmp_path: Path) -> None:
    def marker(offered: Offered) -> Marks:
        return Marks(trained_turns=[[False] * row["n_agent_steps"] for row in offered.read("n_agent_steps")])

    with pytest.raises(StageFailed, match=r"no turn of the .* rows that are kept is to be learned"):
        mark_rows(inputs, marker, context(tmp_path), "least")
