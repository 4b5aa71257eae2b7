"""`cairn regrade` on a road of 8 users a world, all of it played and graded in two worlds of one page.

By hand: nothing has changed, so no verdict does. A verdict that was stored wrong is found and named. When the output check calls every
reply right, exactly the conversations with outputs 0 change in that part. When cancelling is forbidden by a new rule, exactly those that
cancelled lose the policy; when the tool refuses to cancel at all, there is no ground truth for problems that need it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from flows.cli import main
from flows.regrade import Difference, lines, regrade, schema_of
from tasks.contract import rows, schemas, tables
from tasks.contract.context import seed_of
from tasks.contract.params import BadInput
from tasks.contract.trajectory import GRADING, Trajectory
from tasks.players import scripted
from tasks.players.trivial.oracle import Oracle
from tasks.worlds.api import grading
from tasks.worlds.api.frozen import freeze_world
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World
from tasks.worlds.api.tools import Refused
from tasks.worlds.library.retail import Retail
from tests.flows.artifacts import build
from tests.flows.shop import Shop

RETAIL = "tasks.worlds.library.retail:Retail"


@pytest.fixture(scope="module")
def road(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("road")
    build(root, users=8, trials=2, steps=5)
    return root


@pytest.fixture
def stored(road: Path) -> Path:
    return road / "generate/trajectories.parquet"


@pytest.fixture
def changed_code(road: Path) -> Iterator[None]:
    """The shop's code is not the one that was frozen (nor, in what follows, the kiosk's, which inherits it)."""
    path = road / "worlds/shop/world.json"
    text = path.read_text()
    path.write_text(json.dumps({**json.loads(text), "code": "0" * 32}))
    yield
    path.write_text(text)


def read(path: Path) -> list[dict[str, Any]]:
    return list(tables.read_rows(path, schema_of(path)))


def ids(found: list[dict[str, Any]]) -> list[str]:
    return [row["problem_id"] for row in found]


def test_nothing_changed(stored: Path, road: Path, tmp_path: Path) -> None:
    before = stored.read_bytes()
    found = regrade(stored, out=tmp_path / "again.parquet")
    assert found.rows == found.graded == 32 and not found.left and not found.lost and not found.won
    assert found.before == found.after == sum(row["reward"] for row in read(stored)) and not found.hashes and not found.answers
    assert read(tmp_path / "again.parquet") == read(stored) and stored.read_bytes() == before
    versions = "outputs 3, policy 2, required 1, state 1"
    assert found.notes == [f"grading that is stored: {versions}; present: {versions}"]
    assert list(tmp_path.iterdir()) == [tmp_path / "again.parquet"]


def test_a_wrong_verdict_is_found_and_named(stored: Path, road: Path, tmp_path: Path) -> None:
    kept = read(stored)
    wrong = [{**row, "state": 1 - row["state"], "reward": 0} if place in (3, 4) else row for place, row in enumerate(kept)]
    (tmp_path / "generate").mkdir()
    altered = tmp_path / "altered.parquet"
    tables.write_rows(altered, schemas.TRAJECTORY, wrong)
    found = regrade(altered, road / "worlds", [road / "generate/blueprints.parquet"], out=tmp_path / "out/again.parquet")
    lost = ids([row for row in wrong[3:5] if row["state"]])
    won = ids([row for row in wrong[3:5] if not row["state"]])
    assert (found.lost.get("state", []), found.won.get("state", [])) == (lost, won) and len(lost) + len(won) == 2
    assert read(tmp_path / "out/again.parquet") == kept
    said = "\n".join(lines(found))
    assert all(one in said for one in (*lost, *won)) and "graded again: 32 of 32 conversations" in said


def test_what_an_earlier_grading_could_not_read(stored: Path, road: Path, tmp_path: Path) -> None:
    """An answer in Arabic digits, which version 2 of the outputs never found."""
    asked = {row["problem_id"] for row in pq.read_table(road / "generate/blueprints.parquet").to_pylist() if row["outputs"]}
    heard = [row for row in read(stored) if row["outputs"] and row["problem_id"] in asked][:1]
    digits = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
    other = [{**message, "content": str(message["content"]).translate(digits)} for message in heard[0]["messages"]]
    tables.write_rows(tmp_path / "old.parquet", schemas.TRAJECTORY, [{**heard[0], "messages": other, "outputs": 0, "reward": 0}])
    found = regrade(tmp_path / "old.parquet", road / "worlds", [road / "generate/blueprints.parquet"])
    assert found.won.get("outputs") == ids(heard) and not found.lost


def test_a_part_of_the_grading_changes(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    silent = [row for row in read(stored) if not row["outputs"]]
    assert silent
    monkeypatch.setattr(grading, "outputs_stated", lambda trajectory: True)
    monkeypatch.setitem(GRADING, "outputs", 4)
    assert main(["regrade", str(stored), "--out", str(tmp_path / "again.parquet")]) == 0
    said = capsys.readouterr().out.splitlines()
    was, now = (f"outputs {version}, policy 2, required 1, state 1" for version in (3, 4))
    assert said[0] == f"grading that is stored: {was}; present: {now}"
    line = next(one for one in said if one.startswith("outputs "))
    assert line.split()[1:3] == ["0", str(len(silent))] and silent[0]["problem_id"] in line
    assert next(one for one in said if one.startswith("state ")).split() == ["state", "0", "0"]
    assert said[-1] == f"written: {tmp_path / 'again.parquet'}"
    again = read(tmp_path / "again.parquet")
    assert all(row["outputs"] for row in again) and sum(row["reward"] for row in again) == sum(
        row["state"] * row["required"] for row in again
    )


def cancelled(row: dict[str, Any]) -> bool:
    return any(call["name"] == "cancel_order" for call in row["calls"])


@pytest.mark.usefixtures("changed_code")
def test_a_new_rule_of_the_worlds_code(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(trajectory: Trajectory, world: World) -> str | None:
        return "cancelled" if any(action.name == "cancel_order" for action, _ in trajectory.calls) else None

    monkeypatch.setattr(Shop, "TRAJECTORY_PREDICATES", {"R9": kept}, raising=False)
    found = regrade(stored)
    assert found.lost == {part: ids([row for row in read(stored) if cancelled(row)]) for part in ("policy", "policy R9")}
    assert not found.won and found.before == found.after
    assert "shop: its code has changed since it was frozen; the frozen tables meet the present code" in found.notes
    assert any(line.startswith("policy R9") for line in lines(found))


@pytest.mark.usefixtures("changed_code")
def test_present_code_refuses_what_worked(stored: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Problems whose ground truth is refused stay as they are stored; in the others, calls are answered otherwise."""

    def never(self: Any, order_id: str) -> str:
        raise Refused("closed")

    never.__dict__.update(Shop.cancel_order.__dict__)
    never.__doc__ = Shop.cancel_order.__doc__
    never.__annotations__ = {"order_id": str, "return": str}
    monkeypatch.setattr(Shop, "cancel_order", never)
    found = regrade(stored, out=tmp_path / "again.parquet")
    needed = [row for row in read(stored) if row["family"] in ("one_write", "two_writes")]
    assert found.left == {"whose ground truth the present code refuses": len(needed)}
    others = [row for row in read(stored) if cancelled(row) and row["family"] not in ("one_write", "two_writes")]
    assert found.answers == len(others) > 0 and found.graded == 32 - len(needed)
    again = {row["traj_id"]: row for row in read(tmp_path / "again.parquet")}
    assert all(again[row["traj_id"]] == row for row in needed)


def test_trials_and_their_problems(road: Path, tmp_path: Path) -> None:
    """Trials of a shop, which draws no problems: theirs must lie in a file; the baseline rows of another world are left."""
    trials = road / "evaluate/trials.parquet"
    with pytest.raises(BadInput, match=r"nothing can be graded again: 240 whose problem is not known \(see --problems\)"):
        regrade(trials, problems=[road / "generate/blueprints.parquet"], seeds=[0])
    kept = [
        {**row, "problem_id": row["problem_id"].removeprefix("train_")}
        for row in tables.read_rows(road / "generate/blueprints.parquet", schemas.BLUEPRINT)
        if row["status"] == "accepted"
    ]
    problems = tmp_path / "problems.parquet"
    tables.write_rows(problems, schemas.PROBLEM, [{name: row[name] for name in schemas.PROBLEM.names} for row in kept])
    found = regrade(trials, road / "worlds/shop", [problems], out=tmp_path / "again.parquet")
    assert (found.rows, found.graded) == (240, 120) and not found.lost and not found.won
    assert found.left == {"of world 'kiosk', which is not there (see --world)": 120}
    assert schema_of(tmp_path / "again.parquet") == schemas.TRIAL and read(tmp_path / "again.parquet") == read(trials)


def test_test_problems_are_drawn_again(tmp_path: Path) -> None:
    """An evaluation's test set follows from the run's seed; gate problems do not."""
    world = World.build(Retail, 30, 0, RETAIL)
    freeze_world(world, tmp_path / "worlds" / "retail")
    problems = draw_problems(world, "test", 7, seed_of(5, "evaluate", "test", "retail"))
    human = scripted.client("human", world, {}, 0)
    played = play(world, [(problem, 0) for problem in problems], Oracle(problems), human, seed=seed_of(5, "evaluate", "play"))
    made = [{"model": "oracle", "set": which, **rows.trajectory_row(one)} for which in ("test", "gate") for one in played]
    made = [{**row, "problem_id": "other"} if row["set"] == "gate" else row for row in made]
    tables.write_rows(tmp_path / "evaluate/trials.parquet", schemas.TRIAL, made)
    found = regrade(tmp_path / "evaluate/trials.parquet", seeds=[5])
    assert (found.graded, found.after, dict(found.left)) == (7, 7, {"whose problem is not known (see --problems)": 7})
    with pytest.raises(BadInput, match="nothing can be graded again"):
        regrade(tmp_path / "evaluate/trials.parquet", seeds=[6])


def test_filtered_rows_keep_their_marks(road: Path, tmp_path: Path) -> None:
    dataset = road / "filter/dataset.parquet"
    found = regrade(dataset, out=tmp_path / "again.parquet")
    assert found.graded == 32 and read(tmp_path / "again.parquet") == read(dataset)


def test_files_say_by_which_grading(stored: Path, road: Path) -> None:
    for path in (stored, road / "filter/dataset.parquet", road / "evaluate/trials.parquet"):
        assert json.loads(pq.read_schema(path).metadata[b"grading"]) == GRADING
    assert json.loads((road / "worlds/shop/world.json").read_text())["grading"] == GRADING


def test_long_lists_are_cut() -> None:
    found = Difference(rows=20, graded=20, lost={"state": [f"p{number:02d}" for number in range(20)] * 2})
    line = next(one for one in lines(found) if one.startswith("state"))
    assert line.split()[1] == "40" and line.endswith("p10, p11 and 8 more")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{road}/none.parquet"], "none.parquet: no such file"),
        (["{road}/worlds/shop/world.json"], "not a readable Parquet file"),
        (["{road}"], "holds no answers that `cairn serve` kept"),
        (["{road}/generate/blueprints.parquet"], "holds no conversations. Give trajectories.parquet of generate"),
        (["{file}", "--world", "{road}/generate"], "holds no frozen world. Give one with --world"),
        (["{file}", "--problems", "{road}/none.parquet"], "none.parquet: no such file"),
        (["{file}", "--problems", "{file}"], "column 'persona' is missing"),
        (["{file}", "--problems", "{road}/worlds/shop/world.json"], "not a readable Parquet file"),
        (["{file}", "--out", "{file}"], "this is the file itself, which stays as it is"),
        (["{file}", "--world", "{lost}"], "nothing can be graded again: 16 of world 'kiosk'"),
    ],
)
def test_bad_input_is_named(
    arguments: list[str], says: str, stored: Path, road: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    freeze_world(World.build(Retail, 3, 0, RETAIL), tmp_path / "lost")
    names = {"road": road, "file": stored, "lost": tmp_path / "lost"}
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "out.parquet")]
    assert main(["regrade", *(text.format(**names) for text in arguments), *out]) == 2
    assert says in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["lost"], "nothing is written"
