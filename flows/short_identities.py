"""Results by the beginning of their identity, which is what tables print of it: `af1cf2f3fac5` for `af1cf2f3fac5....dir`.

Commands alone take a beginning. In params an identity stands whole: a beginning that names one result today may name two tomorrow.
"""

from __future__ import annotations

import re
from pathlib import Path

from flows.records import Records
from tasks.contract.params import BadInput
from tasks.engine import dvc_lock
from tasks.engine.artifact import Store
from tasks.engine.dvc_yaml import DATA

SHORTEST = 7
"""Characters of the shortest beginning that is taken for one, as git takes of a commit's."""
BEGINNING = rf"[0-9a-f]{{{SHORTEST},32}}(?:\.dir)?"
_NAMED = re.compile(rf"artifact:(?P<beginning>{BEGINNING})(?P<inside>/.*)?")


def whole(beginning: str, project: Path, store: Store, records: Records | None = None) -> str:
    """The identity that begins so, of what is recorded or kept in the store, or named by dvc.lock; "" where none does. A whole one is
    returned as it is. BadInput when several begin so. records: of that store, where they are read already."""
    if beginning.endswith(".dir") and len(beginning) == 36:
        return beginning
    start = beginning.removesuffix(".dir")
    locked = {one for path, one in dvc_lock.outs(project).items() if path.startswith(DATA) and one.startswith(start)}
    found = sorted(locked | (records or Records(store)).beginning(start))
    if not found:
        found = [name for name in store.objects() if name.startswith(start) and name.endswith(".dir")]
    if len(found) > 1:
        raise BadInput(f"{beginning}: {len(found)} results begin so, {', '.join(found[:3])}: name one with more of its characters.")
    return found[0] if found else ""


def completed(source: str, project: Path, store: Store, records: Records | None = None) -> str:
    """A name of a checkpoint or an artifact, with its identity whole; any other name as it is. BadInput when no result begins so."""
    named = _NAMED.fullmatch(source)
    if named is None:
        return source
    identity = whole(named["beginning"], project, store, records)
    if not identity:
        raise BadInput(
            f"{source}: no result of this store or of dvc.lock has an identity that begins with {named['beginning']}. One that lies in "
            "the DVC remote alone is named whole, as artifact:<32 digits>.dir."
        )
    return f"artifact:{identity}{named['inside'] or ''}"
