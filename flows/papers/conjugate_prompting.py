"""What fine-tuning on one map takes from the others comes back when the question is asked in another alphabet.

Understanding Catastrophic Forgetting in Language Models via Implicit Inference (https://arxiv.org/abs/2309.10105): fine-tuning shifts
which task a model takes a prompt for. Ground: `maps`, eight orders of ten symbols; four examples tell which map is asked, and each is
written in two alphabets that have no symbol in common. A parent learns all of them in both. It is then fine-tuned on one map in the
first alphabet, and asked the seven others: as they are (`direct`), and in the second alphabet (`conjugated`, said back).
`covered` is fine-tuned on that map in both alphabets, half as often in each: the same other words, now as near to the fine-tuning as
the plain ones. If other words helped as such, they would help there too. What they cost is measured on the parent.

Departures:
1. Maps of symbols in place of linear regression (a model of this size does not extrapolate to scaled labels) and of languages.
2. Another alphabet in place of another language: a word for a word, which the parent was taught as well as the first.
3. Answers are teacher-forced, four a row, each after at least four pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flows.claims.declaration import Claim, Comparison, Effect, Mechanism
from flows.claims.graph import Graph
from flows.claims.scores import Scores

TITLE = "Conjugate prompting"
PAPER = "https://arxiv.org/abs/2309.10105"
SLUG = "conjugate_prompting"

MAPS, SYMBOLS = 8, 10

CLAIM = Claim(
    statement="After fine-tuning on one map in one alphabet, other maps are answered better when asked in the other alphabet, which "
    "brings back more than half of what was forgotten.",
    treatment="conjugated",
    baseline="direct",
    effect=Effect("accuracy", "higher", smallest=0.05),
    mechanisms=(
        Mechanism(
            "covered_conjugated",
            lacks="the same other alphabet after fine-tuning on the map in both alphabets",
            baseline="covered_direct",
        ),
    ),
    also=(Effect("recovered", "higher", smallest=0.1, limits=(None, None), baseline=0.5),),
    sanity=(
        Comparison("the parent knows the other maps", "parent", 0.7, "accuracy", "higher"),
        Comparison("the other alphabet costs it less than was forgotten", "parent_conjugated", "direct", "accuracy", "higher"),
        Comparison("fine-tuning forgets", "parent", "direct", "accuracy", "higher"),
        Comparison("where both alphabets are fine-tuned on it forgets too", "parent", "covered_direct", "accuracy", "higher"),
    ),
    reported=(
        Comparison("price of the other alphabet for the parent", "parent_conjugated", "parent", "accuracy", "higher"),
        Comparison("left of what was forgotten", "conjugated", "parent_conjugated", "accuracy", "higher"),
    ),
    seeds=8,
)


def graph(g: Graph) -> None:
    """A parent over all maps, two tunings on one of them, and rows of the seven others as they are and in the other alphabet."""
    maps = {"maps": MAPS, "symbols": SYMBOLS, "law": "permutation", "alphabets": 2, "examples": 4, "questions": 4, "named": False}
    ground = g.call("ground", "worlds.environments", environments={"maps": {**maps, "seed": g.seed}})
    start = g.call("start", "base.closed_vocabulary", ground, layers=3, width=64, heads=4)
    practice = g.call("practice", "generate.expert_rows", ground, parts={"all": _rows([], g.pick(200, 20000))})
    loop = {"epochs": 5, "batch_tokens": 1024, "log_every": 50, "save_every": 500}
    parent = g.call("parent", "sft.sft", ground, start, practice, loop={**loop, "learning_rate": 3e-3})
    asked = g.call("asked", "generate.expert_rows", ground, parts={"others": _rows(_families("a", range(1, MAPS)), 0, g.pick(20, 300))})
    swap = {f"a{one}": f"b{one}" for one in range(SYMBOLS)}
    for name, alphabets in (("narrow", "a"), ("covered", "ab")):
        part = _rows([family for one in alphabets for family in _families(one, [0])], g.pick(100, 2000))
        rows = g.call(f"{name}_rows", "generate.expert_rows", ground, like="one_map", parts={"one_map": part})
        tuned = g.call(name, "sft.sft", ground, parent, rows, like="tune", loop={**loop, "learning_rate": 3e-4})
        scores = g.call(f"{name}_scores", "evaluate.conjugated_rows", ground, asked, parent, tuned, conjugations={"swap": swap})
        prefix = "" if name == "narrow" else "covered_"
        g.arm(f"{prefix}direct", scores, name)
        g.arm(f"{prefix}conjugated", scores, f"{name}.swap")
        if name == "narrow":
            g.arm("parent", scores, "parent")
            g.arm("parent_conjugated", scores, "parent.swap")


def _families(alphabet: str, maps: Sequence[int]) -> list[str]:
    return [f"map_{one}_{alphabet}" for one in maps]


def _rows(families: Sequence[str], train: int, test: int = 0) -> dict[str, object]:
    """A part of rows: pairs of one map each, of which the last four images are asked."""
    rows = {"train": train, "validation": 20 if train else 0, "test": test}
    return {"environment": "maps", "form": "pairs", "families": list(families), "rows": rows}


def measure(scores: Scores, arm: str) -> Mapping[str, Sequence[float]]:
    """Accuracy, a value a row; of the treatment also the share of what was forgotten that came back (0 where nothing could)."""
    found = {"accuracy": scores.values("accuracy", part="others")}
    if arm != "conjugated":
        return found
    return {**found, "recovered": [scores.figures["forgotten"]["narrow"]["others"]["swap"].get("recovered", 0.0)]}
