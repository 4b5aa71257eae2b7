from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows import papers
from flows.claims.declaration import Claim, Comparison, Effect, Mechanism, NotWorse, check
from tasks.contract.params import BadInput
from tests.claims.made_up import CLAIM, claim


def test_a_claim_names_the_arms_and_metrics_that_it_needs() -> None:
    check(CLAIM, "made_up")
    assert CLAIM.arms() == {"masked": ("kept",), "plain": ("kept",), "random_mask": ("kept",), "base": ("kept",)}
    other = claim(
        also=(NotWorse("learned", "higher", 0.01), Effect("share", "higher", 0.1, baseline=0.5)),
        mechanisms=(Mechanism("masked_elsewhere", "there is nothing to mask", baseline="plain_elsewhere"),),
        reported=(Comparison("against dense", "masked", "dense", "seconds", "lower"),),
    )
    check(other, "made_up")
    assert other.arms() == {
        "masked": ("kept", "learned", "share", "seconds"),
        "plain": ("kept", "learned"),
        "masked_elsewhere": ("kept",),
        "plain_elsewhere": ("kept",),
        "base": ("kept",),
        "dense": ("seconds",),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"statement": " "}, "statement is empty"),
        ({"mechanisms": ()}, "there is no mechanism control. Whatever is changed may help"),
        ({"mechanisms": (Mechanism("plain", "nothing"),)}, "the mechanism control 'plain' is the baseline itself"),
        ({"mechanisms": (Mechanism("masked", "nothing"),)}, "the mechanism control 'masked' is the treatment itself"),
        ({"mechanisms": (Mechanism("random_mask", ""),)}, "'random_mask' does not say what it lacks"),
        ({"interval": "percentile"}, "interval = 'percentile'. Allowed: paired_t, hierarchical_bootstrap."),
        ({"seeds": 4}, "seeds = 4; fewer than 5"),
        ({"baseline": "masked"}, "treatment and baseline are the same arm, 'masked'"),
        ({"baseline": float("nan")}, "a baseline is nan"),
        ({"treatment": ""}, "an arm or a metric has no name"),
        ({"effect": Effect("kept", "higher", 0.0)}, "smallest of kept is 0.0; the smallest difference that would matter, above 0"),
        ({"effect": Effect("kept", "higher", 1.0)}, "its limits 0 and 1 leave no room"),
        ({"effect": Effect("kept", "up", 0.1)}, "direction of kept is 'up'. Allowed: higher, lower."),  # type: ignore[arg-type]
        ({"also": (NotWorse("learned", "higher", 0.0),)}, "margin of learned is 0.0"),
        ({"sanity": (Comparison("odd", "plain", "plain", "kept", "higher"),)}, "'odd' compares 'plain' with itself"),
    ],
)
def test_a_claim_that_cannot_be_judged_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as told:
        check(claim(**changes), "made_up")
    assert str(told.value).startswith("paper made_up: CLAIM: ") and message in str(told.value)


def test_the_rule_leaves_out_words_for_people() -> None:
    worded = claim(
        statement="Said in another way.",
        mechanisms=(Mechanism("random_mask", lacks="said in another way"),),
        sanity=(Comparison("said in another way", "base", 0.8, "kept", "higher"),),
    )
    assert worded.rule() == CLAIM.rule() != claim(seeds=7).rule()
    assert claim(effect=Effect("kept", "higher", 0.05, saturates="yes or no")).rule() != CLAIM.rule()


@pytest.fixture
def papers_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package of papers, in a folder of its own."""
    monkeypatch.setattr(papers, "HERE", tmp_path)
    monkeypatch.setattr(papers, "__path__", [str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("flows.papers.")]:
        del sys.modules[name]


def test_a_paper_without_a_claim_or_a_control_is_refused(papers_folder: Path) -> None:
    with pytest.raises(BadInput, match=r"no paper 'silent'. Known: none yet\."):
        papers.load("silent")
    (papers_folder / "silent.py").write_text('"""Claims nothing."""\nCLAIM = "it works"\n')
    with pytest.raises(BadInput, match=r"paper silent: it states no CLAIM"):
        papers.load("silent")
    (papers_folder / "uncontrolled.py").write_text(
        "from flows.claims.declaration import Claim, Effect\n"
        "CLAIM = Claim('It works.', 'masked', 'plain', Effect('kept', 'higher', 0.05), mechanisms=())\n"
    )
    with pytest.raises(BadInput, match="paper uncontrolled: CLAIM: there is no mechanism control"):
        papers.load("uncontrolled")
    with pytest.raises(BadInput, match=r"no paper 'silentt'. Did you mean 'silent'"):
        papers.load("silentt")


@pytest.mark.parametrize("slug", papers.names())
def test_every_paper_states_a_claim_that_can_be_judged(slug: str) -> None:
    assert isinstance(papers.load(slug).CLAIM, Claim)
