from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from flows import papers
from flows.claims import page
from flows.claims.results import Cell, Results, read, write
from flows.claims.standing import standing
from flows.claims.verdict import conclusion, judge
from tasks.contract.values import canonical_json
from tasks.engine.hashes import file_md5
from tests.claims.made_up import CLAIM, CODE, MACHINE, cell

PAPER = '''"""A paper that nobody wrote."""

from tests.claims.made_up import CLAIM

TITLE, PAPER = "Made up", "https://arxiv.org/abs/0000.00000"
__all__ = ["CLAIM"]
'''
LEVELS = {"masked": 0.7, "plain": 0.5, "random_mask": 0.52, "base": 0.9}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of papers in a folder of its own, with one paper."""
    monkeypatch.setattr(papers, "HERE", tmp_path)
    monkeypatch.setattr(papers, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(papers, "__path__", [str(tmp_path)])
    (tmp_path / "made_up.py").write_text(PAPER)
    yield tmp_path
    sys.modules.pop("flows.papers.made_up", None)


def measured(seeds: int = CLAIM.seeds, failed: str = "") -> Results:
    cells = [cell(arm, seed, {"kept": [level + 0.01 * math.sin(seed)]}) for arm, level in LEVELS.items() for seed in range(seeds)]
    if failed:
        cells[-1] = Cell("base", seeds - 1, 0.5, CODE, MACHINE, failed=failed)
    return Results("made_up", CLAIM.rule(), tuple(sorted(cells, key=lambda one: (one.arm, one.seed))))


def test_what_was_not_run_is_listed_as_not_run(folder: Path) -> None:
    assert f"| Made up (`made_up.py`) | {CLAIM.statement} | not run |  | 6 |  |" in page.index()
    assert page.generated() == {}


def test_a_paper_that_was_measured_has_a_page_and_a_plot(folder: Path) -> None:
    write(folder / "results" / "made_up.json", measured())
    assert page.differing() == page.write() == [folder / "pages" / "made_up.md", folder / "pages" / "made_up.svg"]
    assert page.differing() == page.write() == []
    text = (folder / "pages" / "made_up.md").read_text()
    assert "**reproduced**: kept of masked minus plain: +0.2 " in text and CLAIM.statement in text
    assert "| mechanism control: its mask is drawn at random | masked minus random_mask | kept | +0.18 " in text
    assert "| random_mask | kept | 0.52" in text and "Measured on cores 2, processor abacus." in text
    assert "[Made up](pages/made_up.md)" in page.index() and "**reproduced** | kept +0.2 " in page.index()
    drawn = ElementTree.parse(folder / "pages" / "made_up.svg").getroot()
    labels = [one.text for one in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert {"minus plain", "minus random_mask", "smallest 0.05"} <= set(labels)


def test_without_all_cells_a_page_says_what_is_open(folder: Path) -> None:
    write(folder / "results" / "made_up.json", measured(failed="the loss is not a number"))
    page.write()
    text = (folder / "pages" / "made_up.md").read_text()
    assert "**No verdict.** paper made_up: no verdict yet. 1 of 24 cells are open: base with seed 5 failed" in text
    assert "base with seed 5 failed: the loss is not a number" in text
    assert not (folder / "pages" / "made_up.svg").exists() and "| not all run |" in page.index()


def test_a_page_that_no_results_need_is_removed(folder: Path) -> None:
    write(folder / "results" / "made_up.json", measured())
    page.write()
    (folder / "results" / "made_up.json").unlink()
    assert page.write() and not list((folder / "pages").iterdir())


def test_results_are_current_older_or_missing(tmp_path: Path) -> None:
    used = tmp_path / "method.py"
    used.write_text("LEARNING_RATE = 0.1\n")
    code = {"method.py": file_md5(used)}
    whole = measured()
    results = Results(
        whole.paper, whole.rule, tuple(Cell(one.arm, one.seed, 1.0, code, MACHINE, {}, one.figures) for one in whole.cells)
    )
    assert standing(CLAIM, results, tmp_path).in_words() == "current"
    used.write_text("LEARNING_RATE = 0.2\n")
    found = standing(CLAIM, results, tmp_path)
    assert (found.state, found.in_words()) == ("older", "older: method.py")
    used.unlink()
    assert standing(CLAIM, results, tmp_path).differing == ("method.py",), "gone"
    assert standing(CLAIM, None, tmp_path).in_words() == "missing: 24 of 24 cells"
    fewer = Results(results.paper, results.rule, results.cells[1:])
    assert standing(CLAIM, fewer, tmp_path).in_words() == "missing: 1 of 24 cells"


@pytest.mark.parametrize("slug", papers.names())
def test_what_every_paper_published_follows_from_its_cells(slug: str) -> None:
    results = read(papers.RESULTS / f"{slug}.json")
    if results and results.conclusion:
        claim = papers.load(slug).CLAIM
        assert canonical_json(conclusion(judge(claim, results))) == canonical_json(results.conclusion), "judged as it was published"


def test_results_have_a_paper() -> None:
    """What is left of a paper that is gone would be published nowhere."""
    assert {path.stem for path in papers.RESULTS.glob("*.json")} <= {*papers.names()}
