"""What `make parity-merge` judges, without mergekit: its cases, its judges on outcomes made by hand, and its environment's making.

Also the row-wise mask of Model Breadcrumbs' authors, restated: of each row of d entries the int(d gamma) largest changes are zeroed
first, then the int(d beta) largest of what is left are kept.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra import oracle, parity_merge, peer
from infra.oracle import (
    FAMILIES,
    MODEL,
    OUTSIDE,
    Case,
    Family,
    Tensors,
    arc,
    arc_of_changes,
    average,
    floors,
    kept_share,
    merge_here,
    tensors,
    trimmed_share,
)
from infra.parity_known import KNOWN, Known
from infra.parity_merge import at_cuts, deviation, half_steps, judge, judge_known, judge_random, random_cases, same_cases
from tasks.merge import breadcrumbs
from tasks.merge.core.headers import narrow, widen
from tasks.merge.core.masks import middle_counts
from tests.conftest import ROOT
from tests.merge.formulas import blend

PLAIN = Case("task_arithmetic", {"alpha": 1.0}, (1.0,))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for each family."""
    home = tmp_path_factory.mktemp("families")
    for name, make in FAMILIES.items():
        make(home / name)
    return home


@pytest.fixture(scope="module")
def family(home: Path) -> Family:
    return Family.open(home / "float32")


def cosine(left: Any, right: Any) -> float:
    left, right = left.reshape(-1).astype(np.float64), right.reshape(-1).astype(np.float64)
    return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))


def moved(merged: Tensors, name: str, entry: int, by: float) -> Tensors:
    """The same but for one entry."""
    other = merged[name].copy()
    other.reshape(-1)[entry] += by
    return {**merged, name: other}


def test_the_authors_mask_row_by_row() -> None:
    """Restated with loops; shares that give whole numbers of a row's 20 entries, since ours rounds the kept count."""
    change = np.random.default_rng(0).standard_normal((7, 20)).astype(np.float32)
    for beta, gamma in ((0.1, 0.05), (0.5, 0.24), (0.2, 0.0), (0.9, 0.1)):
        expected = np.zeros_like(change)
        for row, entries in enumerate(change):
            left = list(entries)
            for _ in range(int(20 * gamma)):
                left[max(range(20), key=lambda index: abs(left[index]))] = 0.0
            for index in sorted(range(20), key=lambda index: -abs(left[index]))[: int(20 * beta)]:
                expected[row, index] = left[index]
        params = breadcrumbs.Params(keep=beta, trim_top=gamma, alpha=1.0, granularity="row")
        _, (masked,) = blend(breadcrumbs.formula(params), np.zeros_like(change), [change])
        np.testing.assert_array_equal(masked, expected)


def test_the_families_are_what_they_are_for(home: Path) -> None:
    votes, sparse, near = (Family.open(home / name) for name in ("votes", "sparse", "near"))
    first, second = votes.changes[:2]
    for name in first:
        cancels = first[name] == -second[name]
        assert (first[name] > 0).all() and cancels.reshape(-1)[::2].all() and not cancels.reshape(-1)[1::2].any()
    assert np.mean([np.mean(change != 0) for change in sparse.changes[1].values()]) == pytest.approx(0.3, abs=0.03)
    cosines = [cosine(base, base + near.changes[0][name]) for name, base in near.base.items()]
    assert min(cosines) < 0.9995 < max(cosines), "both branches of slerp"
    assert np.isnan(tensors(home / "NaN" / "expert_0")["model.norm.weight"]).sum() == 1


def test_a_case_is_said_in_both_words() -> None:
    case = Case("ties", {"keep": 0.5, "alpha": 0.4}, (1.0, 0.5), "bfloat16")
    models = [
        {"model": str(Path("f/expert_0")), "parameters": {"weight": 1.0, "density": 0.5}},
        {"model": str(Path("f/expert_1")), "parameters": {"weight": 0.5, "density": 0.5}},
    ]
    assert case.configuration(Path("f")) == {
        "merge_method": "ties",
        "base_model": str(Path("f/base")),
        "models": models,
        "parameters": {"lambda": 0.4},
        "dtype": "float32",
    }
    ours = case.ours()
    assert ours["weights"] == {"expert_0": 1.0, "expert_1": 0.5} and len(ours["overrides"]) == len(MODEL.shapes())
    assert case.setting == "keep 0.5, alpha 0.4, weights 1.0 0.5, 2 experts, bfloat16"


def test_configurations_of_their_own() -> None:
    folder = Path("f")
    assert "base_model" not in Case("linear", {"normalize": True}, configure=average).configuration(folder)
    between = Case("slerp", {"t": 0.3}, (1.0,), weigh=False, configure=arc).configuration(folder)
    ends = [str(folder / "base"), str(folder / "expert_0")]
    assert [model["model"] for model in between["models"]] == ends and between["base_model"] == ends[0]
    assert between["parameters"] == {"t": 0.3}
    params = {"t": 0.25, "space": "changes", "origin": "expert_0"}
    changes = Case("slerp", params, (1.0, 1.0), weigh=False, theirs="nuslerp", configure=arc_of_changes).configuration(folder)
    assert changes["merge_method"] == "nuslerp" and [model["parameters"]["weight"] for model in changes["models"]] == [0.75, 0.25]
    rescaled = Case("dare_linear", {"keep": 0.1, "rescale": "l1"}).configuration(folder)["parameters"]
    assert rescaled == {"rescale": True}
    assert "dtype" not in Case("task_arithmetic", {"alpha": 1.0}, stored=True).configuration(folder)


@pytest.mark.parametrize("keep", [0.05, 0.29, 0.57, 0.9, 1.0])
@pytest.mark.parametrize("trim_top", [0.0, 0.006, 0.01, 0.05])
def test_floored_shares_give_floored_counts(keep: float, trim_top: float) -> None:
    if keep == 1 and trim_top:
        return  # more than there is
    for (name, shape), one in zip(MODEL.shapes().items(), floors(keep, trim_top), strict=True):
        n = math.prod(shape)
        params = breadcrumbs.Params(keep=one["params"]["keep"], trim_top=one["params"]["trim_top"])
        assert middle_counts(n, params.keep, params.trim_top) == (int(trim_top * n), int(keep * n)), name


@given(st.integers(2, 10**8), st.data())
def test_shares_mean_their_counts_for_tensors_of_any_size(n: int, data: st.DataObject) -> None:
    """15 of 5,184 entries: the share 15 / 5184 was read as 14."""
    trimmed = data.draw(st.integers(0, n - 1))
    kept = data.draw(st.integers(0, n - trimmed))
    if kept == n:
        return  # nothing is trimmed and nothing left out: not a Breadcrumbs merge
    params = breadcrumbs.Params(keep=kept_share(kept, n), trim_top=trimmed_share(trimmed, n))
    breadcrumbs.check(params)
    assert middle_counts(n, params.keep, params.trim_top) == (trimmed, kept)


def test_the_share_that_was_misread() -> None:
    params = breadcrumbs.Params(keep=kept_share(15, 5184), trim_top=trimmed_share(15, 5184))
    assert middle_counts(5184, params.keep, params.trim_top) == (15, 15)


def test_every_case_is_a_line_of_its_own_and_is_merged_by_ours(home: Path, tmp_path: Path) -> None:
    cases = [*same_cases(), *random_cases()]
    assert len({(case.method, case.setting) for case in cases}) == len(cases)
    for method in sorted({case.method for case in cases}):
        case = next(one for one in cases if one.method == method)
        merged = merge_here(case, home / case.family, tmp_path / method)
        assert not isinstance(merged, str) and merged.keys() == MODEL.shapes().keys()


def test_the_judge_sees_one_entry_of_another_mask(family: Family) -> None:
    merged = {name: base + family.changes[0][name] for name, base in family.base.items()}
    assert judge(PLAIN, merged, merged, family).cells() == ("task_arithmetic", "alpha 1.0, 1 expert", "0.0e+00", "holds")
    change = float(np.abs(family.changes[0]["lm_head.weight"]).max())
    rounded, other = (moved(merged, "lm_head.weight", 5, share * change) for share in (5e-6, 1e-3))
    assert judge(PLAIN, merged, rounded, family).holds
    verdict = judge(PLAIN, merged, other, family)
    assert not verdict.holds and float(verdict.apart) == pytest.approx(1e-3, rel=0.05)


def test_the_judge_says_what_is_missing(family: Family) -> None:
    refused = judge(PLAIN, "keep = 2: allowed", family.base, family)
    assert not refused.holds and refused.note == "ours: keep = 2: allowed; mergekit: merged"
    fewer = {name: values for name, values in family.base.items() if name != "lm_head.weight"}
    assert judge(PLAIN, family.base, fewer, family).cells()[3] == "DOES NOT HOLD; only one side has lm_head.weight"


def test_bfloat16_is_judged_up_to_one_rounding(home: Path) -> None:
    family = Family.open(home / "bfloat16")
    case = Case("task_arithmetic", {"alpha": 1.0}, (1.0,), "bfloat16")
    exact = {name: (base + np.float32(0.3) * family.changes[0][name]).astype(np.float32) for name, base in family.base.items()}
    rounded = {name: widen(narrow(values, "BF16"), "BF16") for name, values in exact.items()}
    assert judge(case, rounded, exact, family).holds
    name = "model.norm.weight"
    by = 2.2 * float(half_steps(exact[name]).reshape(-1)[0])
    assert not judge(case, moved(rounded, name, 0, by), exact, family).holds
    np.testing.assert_array_equal(half_steps(np.array([1.0, 1.5, 0.75, -2.0])), [2**-8, 2**-8, 2**-9, 2**-7])


def test_entries_that_tie_at_a_cut_are_free() -> None:
    """keep 0.5 of six: ranks 1 to 3, and three entries of magnitude 2 hold ranks 2 to 4. keep 1/3 with trim 1/6: also between 1 and 2."""
    change = np.array([1.0, 2.0, -2.0, 3.0, 2.0, 0.5], dtype=np.float32)
    free = at_cuts([change], 0.5, None)
    np.testing.assert_array_equal(free, np.abs(change) == 2)
    assert not at_cuts([change], None, None).any()
    assert not at_cuts([change], 1 / 6 + 1e-9, None).any(), "3 and 2 differ"
    assert not at_cuts([change], 5 / 6, None).any(), "1 and 0.5 differ"


def test_a_free_entry_may_be_chosen_otherwise_and_is_counted(family: Family) -> None:
    changes = {name: np.ones_like(change) for name, change in family.changes[0].items()}
    ties = Family({name: np.zeros_like(base) for name, base in family.base.items()}, [changes])
    case = Case("magnitude_prune", {"keep": 0.5, "alpha": 1.0}, (1.0,))
    first = {name: (np.arange(change.size) % 2).reshape(change.shape).astype(np.float32) for name, change in changes.items()}
    second = {name: 1 - values for name, values in first.items()}
    verdict = judge(case, first, second, ties)
    assert verdict.holds and verdict.note == f"{MODEL.parameters} entries tie at a cut and are chosen otherwise"


def drawn(family: Family, keep: float, scale: float, seed: int) -> Tensors:
    """The base plus a random part of expert 0's change."""
    rng = np.random.default_rng(seed)
    masks = {name: rng.random(base.shape) < keep for name, base in family.base.items()}
    return {name: base + np.float32(scale) * masks[name] * family.changes[0][name] for name, base in family.base.items()}


def test_random_masks_are_judged_by_their_means(family: Family) -> None:
    plain = Case("dare_linear", {"keep": 0.5, "alpha": 1.0, "rescale": "none"}, (1.0,))
    ours = drawn(family, 0.5, 1, 0)
    assert judge_random(plain, ours, drawn(family, 0.5, 1, 1), family).holds
    assert not judge_random(plain, ours, drawn(family, 0.52, 1, 1), family).holds, "another share"
    assert not judge_random(plain, ours, drawn(family, 0.5, 1.05, 1), family).holds, "another size"
    flipped = {name: 2 * family.base[name] - values for name, values in drawn(family, 0.5, 1, 1).items()}
    assert not judge_random(plain, ours, flipped, family).holds, "another direction"


def test_the_l1_norm_must_be_kept_in_every_tensor(family: Family) -> None:
    """The means alone would not see it: dividing by the share keeps the norm in expectation only."""
    case = Case("dare_linear", {"keep": 0.5, "alpha": 1.0, "rescale": "l1"}, (1.0,))
    inverse = drawn(family, 0.5, 2, 0)
    assert not judge_random(case, inverse, inverse, family).holds
    none = Case("dare_linear", {"keep": 0.5, "alpha": 1.0, "rescale": "inverse"}, (1.0,))
    assert judge_random(none, inverse, inverse, family).holds


def test_deviation_by_hand() -> None:
    """Means 0.5 and 1 of four entries each, variances 0.25 and 0: 0.5 / sqrt(0.25 / 4) = 2."""
    assert deviation(np.array([0.0, 1, 0, 1]), np.ones(4)) == 2
    assert deviation(np.ones(4), np.ones(4)) == 0 and deviation(np.zeros(4), np.ones(4)) == math.inf


@pytest.mark.parametrize("known", KNOWN, ids=[known.label for known in KNOWN])
def test_a_known_difference_is_not_shown_by_two_that_agree(known: Known, home: Path, tmp_path: Path) -> None:
    """Ours does its part of each; a mergekit that did the same would be a difference less, and the table would say so."""
    ours = merge_here(known.case, home / known.case.family, tmp_path / "out")
    family = Family.open(home / known.case.family)
    assert not known.shows(ours, ours, family)
    if not isinstance(ours, str):
        verdict = judge_known(known, ours, "RuntimeError: no", family)
        assert not verdict.holds and "mergekit: RuntimeError: no" in verdict.note


def test_known_differences_are_shown_by_what_is_stated_of_mergekit(home: Path, tmp_path: Path) -> None:
    """Restated for three of them: nothing trimmed at density 1, a curve's beginning outside of the layers, 18 of 64 entries kept."""
    family = Family.open(home / "float32")
    change = family.changes[0]
    by_label = {known.label.split(":")[0]: known for known in reversed(KNOWN)}
    whole = {name: base + change[name] for name, base in family.base.items()}
    refusing = by_label["keep 1, trim_top 0.1"]
    assert refusing.shows(merge_here(refusing.case, home / "float32", tmp_path / "refused"), whole, family)

    curve = by_label["weight curve 0 to 1"]
    ours = merge_here(curve.case, home / "float32", tmp_path / "curve")
    assert not isinstance(ours, str)
    free = {name for name in ours if any(part in name for part in ("embed_tokens", "lm_head", "model.norm"))}
    assert free == {name for name in ours if oracle.re.search(OUTSIDE, name)}
    assert curve.shows(ours, {name: family.base[name] if name in free else values for name, values in ours.items()}, family)

    count = by_label["counts"]
    ours = merge_here(count.case, home / "float32", tmp_path / "counts")
    assert not isinstance(ours, str)
    kept = np.flatnonzero(ours["model.norm.weight"] != family.base["model.norm.weight"])
    fewer = {**ours, "model.norm.weight": ours["model.norm.weight"].copy()}
    fewer["model.norm.weight"][kept[0]] = family.base["model.norm.weight"][kept[0]]
    assert count.shows(ours, fewer, family)


def test_a_parity_that_does_not_hold_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, family: Family, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parity_merge, "same_cases", lambda: [PLAIN])
    monkeypatch.setattr(parity_merge, "random_cases", list)
    monkeypatch.setattr(parity_merge, "KNOWN", ())
    monkeypatch.setattr(parity_merge, "merge_both", lambda cases, home: [(family.base, family.base, family)])
    assert parity_merge.main() == 0 and "1 of 1 hold" in capsys.readouterr().out
    other = moved(family.base, "lm_head.weight", 0, 1.0)
    monkeypatch.setattr(parity_merge, "merge_both", lambda cases, home: [(family.base, other, family)])
    assert parity_merge.main() == 1 and "DOES NOT HOLD" in capsys.readouterr().out


def test_mergekit_is_pinned_apart_and_no_dependency() -> None:
    pins = [line for line in peer.PINS.read_text().splitlines() if not line.startswith("#")]
    assert "mergekit==0.1.5" in pins and all(oracle.re.fullmatch(r"[\w.-]+==[\w.]+", pin) for pin in pins)
    for name in ("pyproject.toml", "requirements.lock", "requirements-cuda.lock"):
        assert "mergekit" not in (ROOT / name).read_text()


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for an environment whose interpreter is a shell script."""
    monkeypatch.setattr(peer, "ROOT", tmp_path)
    monkeypatch.setattr(peer, "HOME", tmp_path / "mergekit")
    monkeypatch.setattr(peer, "PINS", tmp_path / "pins.txt")
    peer.PINS.write_text("# pins\nleft==1\nright==2\n")
    return tmp_path / "mergekit"


def interpreter(script: str) -> Any:
    def create(home: Path, with_pip: bool) -> None:
        (home / "bin").mkdir(parents=True)
        (home / "bin" / "python").write_text(f"#!/bin/sh\n{script}\n")
        (home / "bin" / "python").chmod(0o755)

    return create


def test_the_environment_is_made_once_and_again_when_its_pins_change(
    apart: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = f"echo made >> {apart.parent}/calls; echo Collecting left==1; echo Processing /wheels/right-2.whl; echo Installing"
    monkeypatch.setattr(peer.venv, "create", interpreter(script))
    assert peer.ready() == apart / "bin" == peer.ready()
    assert capsys.readouterr().out.splitlines()[1:] == ["  1 of 2: left==1", "  2 of 2: right-2.whl", "  installing"]
    peer.PINS.write_text("left==2\n")
    peer.ready()
    assert (apart.parent / "calls").read_text() == "made\nmade\n"


def test_an_index_without_it_is_said_with_the_remedy(apart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer.venv, "create", interpreter("echo 'ERROR: no matching distribution for left==1'; exit 1"))
    with pytest.raises(SystemExit, match=r"no matching distribution(.|\n)*PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER"):
        peer.ready()
    assert not apart.exists()


def test_merges_run_in_one_process_and_say_what_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an interpreter that answers as the command line does: the second of two merges fails."""
    (tmp_path / "python").write_text(f"""#!{sys.executable}
import json, sys
asked = json.load(sys.stdin)
assert all(json.load(open(one[0]))["merge_method"] == "linear" and one[2:5] == {list(peer.QUIET)!r} for one in asked)
for said in ("", "RuntimeError: no")[: len(asked)]:
    print("noise\\nMERGED " + json.dumps(said))
sys.exit(len(asked) > 2)
""")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr(peer, "ready", lambda: tmp_path)
    jobs: Any = [({"merge_method": "linear"}, tmp_path / name) for name in "abc"]
    assert peer.merges(jobs[:2]) == ["", "RuntimeError: no"]
    with pytest.raises(SystemExit, match="ended with 1 after 2 of 3 merges"):
        peer.merges(jobs)
