from __future__ import annotations

import errno
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flows.claims.declaration import Effect
from flows.claims.results import Cell, add, check_rule, figures, read, write
from tasks.contract.params import BadInput
from tests.claims.made_up import CLAIM, CODE, MACHINE, cell, claim


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results" / "made_up.json"


def test_cells_are_kept_one_by_one_whoever_writes(file: Path, tmp_path: Path) -> None:
    assert read(file) is None
    cells = [cell(arm, seed, {"kept": [0.25, 0.5 + seed / 7]}) for seed in range(6) for arm in CLAIM.arms()]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda one: add(file, CLAIM, one, tmp_path), cells))
    found = read(file)
    assert found and not found.open_cells(CLAIM)
    assert sorted(found.cells, key=lambda one: (one.seed, one.arm)) == sorted(cells, key=lambda one: (one.seed, one.arm))
    before = file.read_bytes()
    write(file, found)
    assert file.read_bytes() == before, "what was read is written as it was"
    assert file.read_text().count('\n  {"arm": ') == len(cells), "a line a cell"


def test_whoever_finishes_first_the_bytes_are_the_same(file: Path, tmp_path: Path) -> None:
    cells = [cell(arm, seed, {"kept": [0.5]}) for seed in range(2) for arm in CLAIM.arms()]
    other = tmp_path / "other" / "made_up.json"
    for path, order in ((file, cells), (other, cells[::-1])):
        for one in order:
            add(path, CLAIM, one, tmp_path)
    assert file.read_bytes() == other.read_bytes()


def test_cells_that_are_open_are_named_with_the_reason(file: Path, tmp_path: Path) -> None:
    for arm in CLAIM.arms():
        for seed in range(CLAIM.seeds):
            if (arm, seed) not in {("plain", 2), ("random_mask", 4)}:
                add(file, CLAIM, cell(arm, seed, {"kept": [0.5]}), tmp_path)
    found = add(file, CLAIM, Cell("plain", 2, 0.1, CODE, MACHINE, failed="the loss is not a number"), tmp_path)
    assert found.open_cells(CLAIM) == [("plain", 2, "the loss is not a number"), ("random_mask", 4, "")]
    found = add(file, CLAIM, cell("plain", 2, {"kept": [0.5]}), tmp_path)
    assert found.open_cells(CLAIM) == [("random_mask", 4, "")], "measured at last"


def test_what_a_cell_keeps() -> None:
    kept = figures(CLAIM, "plain", {"kept": [0.5, 0.75], "spare": [1 / 3]})
    assert (kept["kept"].mean, kept["kept"].n, kept["kept"].values) == (0.625, 2, ())
    assert kept["spare"].mean == 0.333333333
    both = claim(interval="hierarchical_bootstrap")
    kept = figures(both, "plain", {"kept": [0.5, 0.75], "spare": [1 / 3]})
    assert kept["kept"].values == (0.5, 0.75) and kept["spare"].values == (), "a value a problem where the interval needs them"
    assert kept["kept"].digest != figures(both, "plain", {"kept": [0.75, 0.5]})["kept"].digest, "the same mean of other values"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"other": [1.0]}, "the claim needs 'kept' of arm 'plain', which was not measured (measured: other)"),
        ({"kept": []}, "'kept' of arm 'plain' has no values"),
        ({"kept": [0.5, float("nan")]}, "'kept' of arm 'plain' has a value that is no number"),
    ],
)
def test_a_cell_that_lacks_what_the_claim_needs_is_refused(values: dict[str, list[float]], message: str) -> None:
    with pytest.raises(ValueError) as told:
        figures(CLAIM, "plain", values)
    assert str(told.value) == message


@pytest.mark.parametrize("what", ["mean", "code", "rule"])
def test_an_edit_by_hand_is_told(file: Path, tmp_path: Path, what: str) -> None:
    add(file, CLAIM, cell("plain", 0, {"kept": [0.5]}), tmp_path)
    text = file.read_text()
    edits = {"mean": ('"mean": 0.5', '"mean": 0.9'), "code": ('": "22"', '": "23"'), "rule": ('"seeds": 6', '"seeds": 5')}
    assert edits[what][0] in text
    file.write_text(text.replace(*edits[what]))
    with pytest.raises(
        BadInput, match=r"made_up.json: edited by hand: its content is not what its sha256 says. `git checkout -- made_up.json`"
    ):
        read(file)


def test_a_damaged_file_and_another_papers_are_told(file: Path, tmp_path: Path) -> None:
    add(file, CLAIM, cell("plain", 0, {"kept": [0.5]}), tmp_path)
    moved = file.with_name("another.json")
    moved.write_bytes(file.read_bytes())
    with pytest.raises(BadInput, match=r"another.json: holds the results of paper 'made_up'"):
        read(moved)
    for damaged in (file.read_text()[:-40], "[]", "{}", json.dumps({"sha256": 1}), "<<<<<<< ours"):
        file.write_text(damaged)
        with pytest.raises(BadInput, match=r"made_up.json: (no results file, or a damaged one|edited by hand)"):
            read(file)


def test_a_rule_stands_before_anything_runs(file: Path, tmp_path: Path) -> None:
    add(file, CLAIM, cell("plain", 0, {"kept": [0.5]}), tmp_path)
    before = file.read_bytes()
    fitted = claim(seeds=8, effect=Effect("kept", "lower", 0.01))
    with pytest.raises(BadInput, match=r"paper made_up: effect, seeds of its CLAIM changed after 1 cells were measured"):
        add(file, fitted, cell("plain", 1, {"kept": [0.5]}), tmp_path)
    assert file.read_bytes() == before
    found = read(file)
    assert found
    check_rule(found, claim(statement="Said in another way."))


def test_a_file_is_whole_or_the_old_one(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(file, CLAIM, cell("plain", 0, {"kept": [0.5]}), tmp_path)
    before = file.read_bytes()

    def disk_is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", disk_is_full)
    with pytest.raises(OSError, match="No space left"):
        add(file, CLAIM, cell("plain", 1, {"kept": [0.5]}), tmp_path)
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]
