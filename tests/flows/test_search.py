"""The search over merge params: its samplers by themselves, and a whole search on a finished smoke road.

By hand (grid): two values of alpha and two of keep are four points, in the order of the file.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.search import Range, Search, points, read_search
from tasks.contract.params import BadInput
from tests.conftest import Project, copied

pytestmark = [pytest.mark.smoke, pytest.mark.xdist_group("road")]

SMALL = {"problems": 4, "repeats": 1, "final_problems": 4, "final_repeats": 1}


def test_a_grid_has_every_combination_once() -> None:
    search = Search(sampler="grid", space={"alpha": [0.5, 1.0], "keep": [0.1, 0.2]})
    found = list(points(search, 0, lambda _: math.nan))
    assert found == [{"alpha": a, "keep": k} for a in (0.5, 1.0) for k in (0.1, 0.2)]


def test_cma_es_finds_the_top_of_a_hill_and_stays_in_its_ranges() -> None:
    search = Search(space={"x": Range(low=-1, high=3), "y": Range(low=0, high=1)}, trials=90)

    def hill(point: Any) -> float:
        return -((point["x"] - 2) ** 2) - (point["y"] - 0.25) ** 2

    found = list(points(search, 0, hill))
    assert len(found) == 90 and found == list(points(search, 0, hill)), "the same seed tries the same points"
    assert all(-1 <= point["x"] <= 3 and 0 <= point["y"] <= 1 for point in found)
    best = max(found, key=hill)
    assert hill(best) > -0.01 > hill(found[0])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"space": {}}, "space"),
        ({"space": {"alpha": [1], "keep": [1]}}, r"space\.alpha: cmaes needs a range"),
        ({"space": {"alpha": {"low": 1, "high": 1}, "keep": {"low": 0, "high": 1}}}, r"space\.alpha: cmaes needs a range"),
        ({"space": {"alpha": {"low": 0, "high": 1}}}, "cmaes needs two params or more"),
        ({"sampler": "grid", "space": {"alpha": {"low": 0, "high": 1}}}, r"space\.alpha: a grid needs a list"),
        ({"sampler": "grid", "space": {"alpha": []}}, r"space\.alpha: a grid needs a list"),
        ({"sampler": "random", "space": {"alpha": [1]}}, "sampler = 'random'"),
        ({"sampler": "grid", "space": {"alpha": [1]}, "trails": 3}, "unknown key 'trails'.*Did you mean 'trials'"),
    ],
)
def test_a_search_file_with_mistakes_is_refused(tmp_path: Path, given: dict[str, Any], words: str) -> None:
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(given))
    with pytest.raises(BadInput, match=words):
        read_search(tmp_path / "search.yaml")


@pytest.fixture(scope="module")
def shop(road: Project, tmp_path_factory: pytest.TempPathFactory, prefect_server: str) -> Project:
    """The finished road in a folder of its own: other tests look at what the road's one run left."""
    copy = copied(road, tmp_path_factory.mktemp("search") / "project")
    copy.environment["PREFECT_API_URL"] = prefect_server
    return copy


def searched(project: Project, given: dict[str, Any], *options: str, check: bool = True) -> Any:
    (project.folder / "search.yaml").write_text(yaml.safe_dump(given))
    return project.cairn("search", "search.yaml", *options, check=check)


def test_a_search_is_cached_and_changes_nothing_that_did_not_win(shop: Project) -> None:
    """The smoke road's models solve next to nothing, so no setting can win and params/pipeline.yaml must stay as it is."""
    before = (shop.folder / "params/pipeline.yaml").read_bytes()
    identities = shop.identities()
    present = yaml.safe_load(before)["merge"]["breadcrumbs"]["keep"]
    given = {"sampler": "grid", "space": {"keep": [present, 0.1]}, **SMALL}
    first = searched(shop, given)
    assert "best of 2" in first.stdout and "search    2: keep 0.1" in first.stderr
    assert (shop.folder / "params/pipeline.yaml").read_bytes() == before
    lines = list(csv.DictReader((shop.folder / "reports/search_merge.csv").open()))
    assert len(lines) == 2 and {line["keep"] for line in lines} == {str(present), "0.1"}
    assert identities["merge"] in {line["merged"] for line in lines}, "the present setting is the road's own merge"
    done = set((shop.folder / ".cairn/keys").iterdir())
    searched(shop, given)
    assert set((shop.folder / ".cairn/keys").iterdir()) == done, "a second search finds every trial"
    assert "Nothing to do" in shop.cairn("run").stdout and shop.identities() == identities


def test_a_search_of_a_param_that_is_not_there_is_refused(shop: Project) -> None:
    answer = searched(shop, {"sampler": "grid", "space": {"kept": [0.1]}, **SMALL}, check=False)
    assert answer.returncode == 2 and "merge.breadcrumbs has no such param. Did you mean 'keep'?" in answer.stderr


def test_the_winner_is_written_and_comments_stay(tmp_path: Path) -> None:
    from flows.search import _write
    from tasks.engine.settings import Settings

    path = tmp_path / "params/pipeline.yaml"
    path.parent.mkdir()
    path.write_text("# mine\nmerge:\n  method: breadcrumbs   # the road's\n  breadcrumbs: {keep: 0.2, alpha: 1.0}\nseed: 3  # three\n")
    tree = yaml.safe_load(path.read_text())
    _write(Settings(tmp_path, tree), {"keep": 0.1, "weights.rl_retail": 0.5})
    text = path.read_text()
    assert yaml.safe_load(text)["merge"]["breadcrumbs"] == {"keep": 0.1, "alpha": 1.0, "weights": {"rl_retail": 0.5}}
    assert "# mine" in text and "# the road's" in text and "# three" in text
