"""One-token rollout (OTR) in miniature: does it keep more of the old tasks than fine-tuning where the demonstrations are noisy?

Paper: "One-Token Rollout: Guiding Supervised Fine-Tuning of LLMs with Policy Gradient", https://arxiv.org/abs/2509.26313.

The ground is `maps`: a model holds eight maps and half knows a ninth, from a short training on rows of all nine. Rows of the ninth, of
whose images three in ten are replaced by random words, then train it. Metrics, on held-out rows without noise: old, accuracy on the
eight; new, on the ninth; p_new, the probability that the model gives the ninth's images (geometric mean of each row).

Arms: otr, sft (the baseline), dft (OTR's expectation at kappa 1 but for a factor), half (the model that they start from); known, the
one that has not seen the ninth map. Controls: shuffled, DFT's factors dealt to tokens at random: the steps shrink as much and follow
nothing; slow, fine-tuning at a quarter of the rate; clean_otr against clean_sft: rows without noise, where there is nothing to ignore.
Cold: cold_otr and cold_sft start from `known` on clean rows: what the model never says is never drawn.

Departures:
1. Maps instead of mathematics, a model of 0.4 M parameters, accuracy with the row's own tokens before each image.
2. The noise is ours. The paper's data are not noisy; noise is what its weights by likelihood must be good for.
3. All arms but slow share one rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flows.claims.declaration import Claim, Comparison, Effect, Mechanism, NotWorse
from flows.claims.graph import Graph
from flows.claims.scores import Scores

TITLE = "One-token rollout (OTR)"
PAPER = "https://arxiv.org/abs/2509.26313"
SLUG = "otr"

CLAIM = Claim(
    statement="Fine-tuned on noisy rows of a task that the base half knows, OTR keeps more of the old tasks than plain fine-tuning, at "
    "an accuracy on the new one that is not a point worse.",
    treatment="otr",
    baseline="sft",
    effect=Effect("old", "higher", smallest=0.05),
    mechanisms=(
        Mechanism("shuffled", lacks="its tokens are weighed by probabilities of other tokens, dealt at random"),
        Mechanism("slow", lacks="it is plain fine-tuning at a quarter of the rate"),
        Mechanism("clean_otr", lacks="its rows have no noise that could be ignored", baseline="clean_sft"),
    ),
    also=(NotWorse("new", "higher", margin=0.01),),
    sanity=(
        Comparison("the base holds the old tasks", "half", 0.9, "old", "higher"),
        Comparison("the base half knows the new task, at least", "half", 0.3, "p_new", "higher"),
        Comparison("and at most", "half", 0.9, "p_new", "lower"),
        Comparison("fine-tuning learns the new task from noisy rows", "sft", "half", "new", "higher"),
        Comparison("noise costs plain fine-tuning old tasks", "sft", "clean_sft", "old", "lower"),
    ),
    reported=(
        Comparison("against dynamic fine-tuning, old tasks", "otr", "dft", "old", "higher"),
        Comparison("against dynamic fine-tuning, new task", "otr", "dft", "new", "higher"),
        Comparison("from a base that does not know the task, new task", "cold_otr", "cold_sft", "new", "higher"),
        Comparison("from a base that does not know the task, old tasks", "cold_otr", "cold_sft", "old", "higher"),
    ),
    seeds=8,
)

MAPS = 9
OLD, NEW = [f"map_{one}" for one in range(MAPS - 1)], [f"map_{MAPS - 1}"]
RATE = 3e-4
"""Of every fine-tuning but `slow`, at its peak; at 2e-3 OTR and plain fine-tuning alike lose nearly all of the old tasks."""
NOISE = 0.3


def part(families: Sequence[str], train: int, test: int = 0, noise: float = 0.0) -> dict[str, Any]:
    """Rows of some maps, as room generate makes them; none to validate, since nothing is chosen by it."""
    rows = {"train": train, "validation": 0, "test": test}
    return {"environment": "maps", "form": "pairs", "families": list(families), "rows": rows, "noise": noise}


def graph(g: Graph) -> None:
    """The base in two steps, then every arm from it, on noisy or clean rows."""
    ground = g.call("ground", "worlds.environments", environments={"maps": {"maps": MAPS, "symbols": 31}})

    def rows(name: str, like: str = "", **parts: Mapping[str, Any]) -> str:
        return g.call(name, "generate.expert_rows", ground, like=like, parts=parts)

    def tuned(name: str, method: str, start: str, data: str, tokens: int = 544, rate: float = RATE, like: str = "", **own: Any) -> str:
        loop = {"learning_rate": rate, "batch_tokens": tokens, "validation_rows": 0}
        return g.call(name, f"sft.{method}", ground, start, data, like=like, loop=loop, **own)

    tests = rows("tests", old=part(OLD, 0, g.pick(20, 200)), new=part(NEW, 0, g.pick(10, 100)))
    start = g.call("start", "base.closed_vocabulary", ground)
    known = tuned("known", "sft", start, rows("old_rows", old=part(OLD, g.pick(640, 16_000))), 1088, 3e-3)
    few = g.pick(64, 600)
    half = tuned("half", "sft", known, rows("joint_rows", old=part(OLD, few), new=part(NEW, few // 8)), rate=2e-3)
    count = g.pick(64, 3840)
    noisy = rows("noisy_rows", "rows", new=part(NEW, count, noise=NOISE))
    clean = rows("clean_rows", "rows", new=part(NEW, count))
    arms = {
        "otr": tuned("otr", "otr", half, noisy, like="tune", k=64),
        "sft": tuned("sft", "sft", half, noisy, like="tune"),
        "dft": tuned("dft", "dynamic_sft", half, noisy, like="tune"),
        "half": half,
        "known": known,
        "shuffled": tuned("shuffled", "dynamic_sft", half, noisy, like="tune", shuffled=True),
        "slow": tuned("slow", "sft", half, noisy, like="tune", rate=RATE / 4),
        "clean_otr": tuned("clean_otr", "otr", half, clean, like="tune", k=64),
        "clean_sft": tuned("clean_sft", "sft", half, clean, like="tune"),
        "cold_otr": tuned("cold_otr", "otr", known, clean, like="tune", k=64),
        "cold_sft": tuned("cold_sft", "sft", known, clean, like="tune"),
    }
    for name, model in arms.items():
        g.arm(name, g.call(f"{name}_scores", "evaluate.row_scores", ground, tests, model))


def measure(scores: Scores, arm: str) -> Mapping[str, Sequence[float]]:
    """See the module's header; a value a row."""
    return {
        "old": scores.values("accuracy", part="old"),
        "new": scores.values("accuracy", part="new"),
        "p_new": [math.exp(-loss) for loss in scores.values("loss", part="new")],
    }
