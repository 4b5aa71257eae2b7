"""What every method of the room does around its formula: plan, check, merge, report, figures."""

from __future__ import annotations

import json
import math
from typing import Any

from tasks.contract.context import Context
from tasks.merge import Inputs
from tasks.merge.core.engine import Formula, Report, merge
from tasks.merge.core.params import MergeParams, check_labels
from tasks.merge.core.plan import make_plan
from tasks.merge.core.tally import write_report


def merge_checkpoints(method: str, inputs: Inputs, params: MergeParams, ctx: Context, formula: Formula) -> dict[str, Any]:
    """Merge `inputs.experts` into `ctx.out`/model and describe it in `ctx.out`/report.parquet; returns the figures.

    Raises BadInput for checkpoints that do not fit together, non-finite weights, a wrong base, unknown experts, a full disk.
    """
    plan = make_plan(inputs.base, inputs.experts, params)
    check_labels(method, params, plan.labels, list(plan.specs))
    report = merge(
        plan,
        formula,
        ctx.out / "model",
        params,
        scratch=ctx.scratch,
        metadata={
            "merge_method": method,
            "merge_params": json.dumps(params.model_dump(mode="json"), sort_keys=True),
            "merge_seed": str(ctx.seed),
        },
        workers=ctx.threads,
        progress=ctx.progress,
    )
    write_report(ctx.out / "report.parquet", report.rows)
    return figures(report) | ({"notes": plan.agreed.notes} if plan.agreed.notes else {})


def figures(report: Report) -> dict[str, Any]:
    """What a person wants to see of the report: sizes, and per expert how far it moved and how much of that is left. `notes`, where
    there are any: what the inputs say differently, and what holds."""
    experts = {}
    for label, norm in report.norms.items():
        rows = [row for row in report.rows if row["model"] == label]
        before, after = (math.sqrt(math.fsum(row[key] ** 2 for row in rows)) for key in ("delta_l2", "masked_l2"))
        entries = sum(row["numel"] for row in rows)
        experts[label] = {
            "relative_delta": norm,
            "delta_l2": before,
            "masked_l2": after,
            "kept_frac": sum(row["kept_n"] for row in rows) / entries if entries else 0.0,
            "trimmed_frac": sum(row.get("trimmed_n") or 0 for row in rows) / entries if entries else 0.0,
            "unchanged": before == 0,
        }
    return {"tensors": report.tensors, "copied": report.copied, "parameters": report.parameters, "experts": experts}
