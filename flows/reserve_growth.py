"""`cairn reserve grow`: more proven test problems, and what they may cost."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from flows.estimate import estimate, lines
from flows.model_fill import with_changes, written_into
from flows.reserve import raised, step_of
from flows.stage import run_stage
from tasks.engine.files import write_text
from tasks.engine.param_files import PIPELINE

if TYPE_CHECKING:
    from tasks.engine.plan import Plan


def cost(plan: Plan, more: int) -> Iterator[str]:
    """What growing it may cost, for a person."""
    changes = raised(plan.settings, more)
    yield from (f"{key}: {value}" for key, value in changes)
    settings = with_changes(plan.settings, changes)
    yield from lines(estimate(settings, [step_of(settings)], plan.store.state), settings)


def grow(plan: Plan, more: int) -> Iterator[str]:
    """Raise the size in the params and make what is new; what was proven stays, and no answer of a server is paid for twice. Gives
    lines for people."""
    path, changes = plan.settings.project / PIPELINE, raised(plan.settings, more)
    write_text(path, written_into(path.read_text(encoding="utf-8"), changes))
    yield from (f"{PIPELINE}: {key}: {value}" for key, value in changes)
    run_stage(step_of(plan.settings))
