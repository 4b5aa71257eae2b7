"""Claims for people, as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from flows.claims.declaration import Claim
from flows.claims.papers import Paper
from flows.claims.results import Results
from flows.claims.verdict import Finding, judge
from tasks.contract.params import BadInput

WIDTH = 120
"""Columns of a wrapped line."""
SHOWN = 5
"""Files that differ, of one paper."""


def rule(slug: str, paper: Paper) -> list[str]:
    """A claim and the rule that judges it."""
    claim, effect = paper.CLAIM, paper.CLAIM.effect
    wanted = f"{claim.treatment} is to have a {effect.direction} {effect.metric} than {claim.against(effect.baseline)}"
    return [
        f"{slug}: {paper.TITLE}  {paper.PAPER}",
        *textwrap.wrap(claim.statement, WIDTH),
        "",
        f"rule: {wanted}, by {effect.smallest:g} or more; {claim.interval}, {claim.seeds} seeds",
        *(f"control: {one.arm}, which lacks the mechanism: {one.lacks}" for one in claim.mechanisms),
        *(f"must be so: {one.name}" for one in claim.sanity),
    ]


def outcome(slug: str, claim: Claim, found: Results | None) -> list[str]:
    """The verdict with its findings, or which cells it waits for."""
    if found is None:
        return [f"nothing was measured yet; `cairn claims run {slug}` does"]
    try:
        verdict = judge(claim, found)
    except BadInput as missing:
        return [str(missing)]
    return [
        f"verdict: {verdict.word}: {verdict.reason}",
        *_findings((verdict.effect, *verdict.also, *verdict.mechanisms, *verdict.sanity, *verdict.reported)),
    ]


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    for one in findings:
        mark = {True: "as claimed", False: "not as claimed", None: "reported"}[one.holds]
        interval = f"[{one.difference.low:+.4f}, {one.difference.high:+.4f}]"
        yield f"  {one.name}: {one.treatment} - {one.baseline}, {one.metric}: {one.difference.mean:+.4f} {interval} ({mark})"


def status(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """A line a paper; under one that is older, what differs."""
    if not found:
        return ["no paper is here yet"]
    width, lines = max(len(one["paper"]) for one in found), []
    for one in found:
        missing = f"{one['open_cells']} of {one['cells']} cells are missing" if one["state"] == "missing" else ""
        lines.append(f"{one['paper']:<{width}}  {one['state']:<8}  {one['verdict'] or missing or one.get('why', '')}".rstrip())
        differing = one.get("differing", ())
        lines += [f"{'':<{width}}  differs: {path}" for path in differing[:SHOWN]]
        lines += [f"{'':<{width}}  and {len(differing) - SHOWN} more files"] if len(differing) > SHOWN else []
    return lines


def table(found: Mapping[str, Any]) -> list[str]:
    """A block a metric: arms by seeds."""
    lines = []
    for metric, arms in found["metrics"].items():
        seeds = sorted({int(seed) for values in arms.values() for seed in values})
        width = max(len(arm) for arm in arms)
        lines += [f"{metric}", f"  {'':<{width}}  " + "".join(f"{f'seed {seed}':>9}" for seed in seeds) + f"{'mean':>9}"]
        for arm, values in arms.items():
            cells = "".join(f"{values[str(seed)]:>9.4f}" if str(seed) in values else f"{'':>9}" for seed in seeds)
            lines.append(f"  {arm:<{width}}  {cells}{sum(values.values()) / len(values):>9.4f}")
    return [*lines, *(f"failed: {cell}: {why}" for cell, why in found["failed"].items())]
