"""From several critics' judged units to one critique, by rule and without a model."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import replace

from tasks.critique.core.units import SOUND, Unit, order

AGGREGATE = "aggregate"
"""The `source` of the aggregated critique."""


def aggregate(owner: str, units: Iterable[Unit]) -> list[Unit]:
    """One unit per (location, criterion) that has a sound one, ordered by place.

    Units are repaired first, so that a flaw seen at a wrong place joins its cluster. In each cluster the sound unit of
    highest weight speaks (ties: by content, so the order of critics does not matter); its severity is the sound units' lower
    median, and `source_ids` names them. Clusters without a sound unit (classes 6, 7 or unjudged) are dropped.
    """
    clusters: dict[tuple[int, str], list[Unit]] = {}
    for unit in units:
        if unit.quality_class in SOUND:
            fixed = unit.repaired()
            clusters.setdefault((fixed.location, fixed.criterion), []).append(fixed)
    merged = []
    for index, place in enumerate(sorted(clusters)):
        cluster = sorted(clusters[place], key=order)
        best = cluster[0]  # `order` puts the highest weight first within one place
        merged.append(
            replace(
                best,
                unit_id=f"{owner}-{index}",
                critic=AGGREGATE,
                severity=statistics.median_low(unit.severity for unit in cluster),
                source_ids=tuple(sorted(unit.unit_id for unit in cluster)),
            )
        )
    return merged
