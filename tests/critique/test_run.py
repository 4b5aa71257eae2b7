"""The critique stage on conversations that a world's own scripts played."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.contract import schemas, tables
from tasks.contract.params import BadInput, StageFailed
from tasks.critique import Inputs
from tasks.critique.multicritique import Params, run
from tasks.players.critics import scripted as critics
from tests.critique.played import play_into
from tests.critique.test_multicritique import context

NOISY = {role: dict(rates) for role, rates in critics.CATALOGUE.items()}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    return Inputs(*play_into(tmp_path_factory.mktemp("played")))


def reviewed(inputs: Inputs, out: Path, params: Params, **more: Any) -> dict[str, Any]:
    out.mkdir()
    return run(inputs, params, replace(context(out, NOISY), **more))


def test_every_conversation_gets_its_critiques_and_one_pair(inputs: Inputs, tmp_path: Path) -> None:
    figures = reviewed(inputs, tmp_path / "a", Params())
    trajectories = tables.read_table(inputs.generate / "trajectories.parquet", schemas.TRAJECTORY)["traj_id"].to_pylist()
    critiques = tables.read_table(tmp_path / "a/critiques.parquet", schemas.CRITIQUE).to_pylist()
    pairs = tables.read_table(tmp_path / "a/preferences.parquet", schemas.PREFERENCE).to_pylist()
    assert [row["traj_id"] for row in pairs] == trajectories
    assert [row["traj_id"] for row in critiques if row["source"] == "aggregate"] == trajectories
    assert figures["pairs_kept"] + sum(figures["pairs_dropped"].values()) == figures["trajectories"] == len(trajectories)
    assert figures["units"] == sum(figures["units_by_class"].values())
    assert figures["score_won"] > figures["score_lost"]
    assert 0.2 < figures["flawless"] < 0.9  # trap 4: enough empty critiques, and not only such


def test_same_inputs_same_bytes_whatever_the_shards_and_the_order_of_critics(inputs: Inputs, tmp_path: Path) -> None:
    reviewed(inputs, tmp_path / "a", Params())
    reviewed(inputs, tmp_path / "b", Params(shard_size=7, critics=tuple(reversed(Params().critics))))
    for name in ("critiques.parquet", "preferences.parquet"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_critics_without_errors_find_nothing_in_faultless_conversations(tmp_path: Path) -> None:
    """The teacher without errors breaks no rule, so a flaw found here would be a false alarm of the detectors."""
    worlds, generate = play_into(tmp_path, errors={})
    figures = run(Inputs(worlds, generate), Params(min_pairs=0), context(tmp_path))
    assert figures["pairs_kept"] == 0
    with pytest.raises(StageFailed, match=r"0 preference pairs are kept of \d+ .* min_pairs = 1 \(\w+ \d+"):
        run(Inputs(worlds, generate), Params(), context(tmp_path))
    assert (figures["units"], figures["flawless"], figures["score"]) == (0, 1.0, 1.0)


def test_a_trajectory_of_a_world_that_is_not_there_is_named(inputs: Inputs, tmp_path: Path) -> None:
    table = tables.read_table(inputs.generate / "trajectories.parquet", schemas.TRAJECTORY)
    place = table.schema.get_field_index("world")
    moved = table.set_column(place, "world", pa.array(["moon"] * len(table)))
    (tmp_path / "generate").mkdir()
    pq.write_table(moved, tmp_path / "generate" / "trajectories.parquet")
    with pytest.raises(BadInput, match="its world 'moon' is not among airline, retail"):
        run(Inputs(inputs.worlds, tmp_path / "generate"), Params(), context(tmp_path))


def test_no_trajectories_give_empty_tables(inputs: Inputs, tmp_path: Path) -> None:
    tables.write_rows(tmp_path / "generate" / "trajectories.parquet", schemas.TRAJECTORY, [])
    figures = run(Inputs(inputs.worlds, tmp_path / "generate"), Params(min_pairs=0), context(tmp_path))
    assert (figures["trajectories"], figures["critiques"], figures["score"]) == (0, 0, None)
    assert tables.read_table(tmp_path / "preferences.parquet", schemas.PREFERENCE).num_rows == 0
