"""What a paper's module has, `flows/papers/<slug>.py`.

One has TITLE, PAPER (where it is published), SLUG, CLAIM (`declaration.Claim`), graph(g), which makes its calls on a `graph.Graph`, and

    measure(scores, arm) -> metric -> values, one a problem

of what the arm's step of room evaluate left (`scores.Scores`). Nothing heavy is imported: a module is read to be listed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from flows import papers
from flows.claims.declaration import Claim
from flows.claims.graph import Graph
from flows.claims.scores import Scores
from tasks.contract.params import BadInput


class Paper(Protocol):
    """A paper's module."""

    TITLE: str
    PAPER: str
    SLUG: str
    CLAIM: Claim

    @staticmethod
    def graph(g: Graph) -> None:
        """Say what is called, and which step measures which arm."""
        ...

    @staticmethod
    def measure(scores: Scores, arm: str) -> Mapping[str, Sequence[float]]:
        """The metrics of an arm, a value a problem, in an order that is the same for every arm."""
        ...


def load(slug: str) -> Paper:
    """A paper's module, with a claim that can be judged. BadInput with the known ones when there is none, and for one that lacks a
    part."""
    module = papers.load(slug)
    if lacking := [name for name in ("TITLE", "PAPER", "SLUG", "graph", "measure") if not hasattr(module, name)]:
        raise BadInput(f"paper {slug}: flows/papers/{slug}.py lacks {', '.join(lacking)} (flows/claims/papers.py says what it has).")
    return cast(Paper, module)


def graph_of(slug: str, paper: Paper, seed: int, quick: bool = False) -> Graph:
    """A paper's graph for one seed. BadInput where it has no arm that the claim names."""
    made = Graph(slug, seed, quick)
    paper.graph(made)
    if lacking := [arm for arm in paper.CLAIM.arms() if arm not in made.arms]:
        raise BadInput(
            f"paper {slug}: its claim names arm {lacking[0]!r}, which its graph does not measure (g.arm(name, step)). Arms: "
            f"{', '.join(made.arms) or 'none'}. A control that is not run says nothing."
        )
    return made


def results_file(slug: str, quick: bool, state: Path) -> Path:
    """The results file of a paper: the committed one, of a quick run one beside the store."""
    return (state / "claims" if quick else papers.RESULTS) / f"{slug}.json"
