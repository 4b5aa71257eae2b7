"""`cairn reserve grow`: more proven test problems, and what they may cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.estimate import estimate, lines
from flows.model_fill import with_changes, written_into
from flows.reserve import raised, step_of
from flows.stage import run_stage
from tasks.engine.files import write_text
from tasks.engine.param_files import PIPELINE
from tasks.engine.reserve import USED, read

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
    lines for people. When it fails, or is interrupted, the params are what they were."""
    path, changes = plan.settings.project / PIPELINE, raised(plan.settings, more)
    old = path.read_text(encoding="utf-8")
    new = written_into(old, changes)
    write_text(path, new)
    yield from (f"{PIPELINE}: {key}: {value}" for key, value in changes)
    try:
        run_stage(step_of(plan.settings))
    except BaseException:
        yield _put_back(path, old, new, [key for key, _ in changes])
        raise
    if read(plan.settings.project / USED).entries:
        yield f"a candidate that was evaluated stays with the reserve that it met ({USED}); the next one takes from this one"


def _put_back(path: Path, old: str, new: str, keys: Sequence[str]) -> str:
    """Undo what growing wrote, unless somebody has edited the file since; a line for people."""
    again = "what was proven until now is kept, and the same command goes on from there"
    if path.read_text(encoding="utf-8") != new:
        return f"{PIPELINE} was edited meanwhile and stays as it is, with the raised {' and '.join(keys)}; {again}"
    write_text(path, old)
    return f"{PIPELINE}: {' and '.join(keys)} are put back to what they were; {again}"
