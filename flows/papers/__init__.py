"""Papers: one file each, `flows/papers/<slug>.py`, that states a paper's claim and the graph of room calls that measures it.

The slug is the paper's short name. Such a module has TITLE, PAPER (its address) and CLAIM (`flows.claims.declaration`).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from flows.claims import declaration
from tasks.contract.params import BadInput, nearest

HERE = Path(__file__).parent
RESULTS = HERE / "results"
"""Where the results file of a paper lies, `<slug>.json`."""


def names() -> tuple[str, ...]:
    """The slugs of all papers, sorted."""
    return tuple(sorted(path.stem for path in HERE.glob("*.py") if not path.stem.startswith("_")))


def load(slug: str) -> ModuleType:
    """A paper's module. BadInput when there is none, with the known ones, or when its claim cannot be judged."""
    if slug not in names():
        known = ", ".join(names()) or "none yet"
        raise BadInput(f"no paper {slug!r}.{nearest(slug, names())} Known: {known}.")
    module = importlib.import_module(f"flows.papers.{slug}")
    if not isinstance(claim := getattr(module, "CLAIM", None), declaration.Claim):
        raise BadInput(f"paper {slug}: it states no CLAIM (a Claim of flows.claims.declaration), the rule by which it is judged.")
    declaration.check(claim, slug)
    return module
