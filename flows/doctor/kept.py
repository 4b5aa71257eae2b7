"""Everything that is kept: the database of hashes, the records of results, the stored bytes, the folders that show them.

What was read whole and is not what its name says is removed, so that it is fetched or made again; what cannot be read now is told and
left alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.console import tracked
from flows.doctor.finding import Finding, Place, error, good, note
from flows.road import behind
from flows.survey import survey
from tasks.engine import dvc_lock
from tasks.engine.explain import DAMAGED, LOST
from tasks.engine.files import sweep
from tasks.engine.hashes import walk
from tasks.engine.key import Key

AGAIN = "dvc pull; cairn run"
"""Fetches it where a remote has it, and makes it again where none has: the same inputs give the same bytes."""


def leftovers(place: Place) -> Iterator[Finding]:
    """Half-written files of killed processes, which are deleted."""
    below = [folder for root in ("data", "reports", "params") for folder in _folders(place.project / root)]
    folders = (place.project, *below, *_folders(place.state / "views"))
    gone = [*place.store.sweep(), *(path for folder in folders for path in sweep(folder))]
    yield good("leftovers", f"{len(gone)} half-written files of killed processes were deleted" if gone else "no half-written files")


def _folders(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield root
        yield from (path for path in root.rglob("*") if path.is_dir())


def hashes(place: Place) -> Iterator[Finding]:
    """The database of known hashes."""
    if place.store.hashes.check():
        yield good("hashes", f"what is known of files that were read ({place.state / 'hashes.db'}) is sound")
    else:
        yield error(
            "hashes", f"{place.state / 'hashes.db'} was damaged; it was made anew, so files are read again", "cairn status --verify"
        )


def records(place: Place) -> Iterator[Finding]:
    """The entries of keys/: readable, and under the name that their own content has."""
    store, sound, adopted, unproven = place.store, 0, 0, 0
    for path in sorted((place.state / "keys").glob("*.json")):
        entry = store.entry(path.stem)
        if entry is None or Key(entry["parts"]).digest != path.stem:
            path.unlink(missing_ok=True)
            text = f"{path.name} is not what was written; it was removed, its stage is found by dvc.lock or made again"
            yield error("records", text, AGAIN)
            continue
        sound += 1
        adopted += "adopted" in entry or "accepted" in entry
        unproven += not {"read", "adopted", "accepted"} & entry.keys()
    more = f"; {adopted} taken over from DVC or by `cairn accept`" if adopted else ""
    old = f"; {unproven} made before inputs were hashed at each computation: `cairn run --refresh STAGE` proves one" if unproven else ""
    yield good("records", f"{sound} results are recorded, all readable{more}{old}")


def names(place: Place) -> dict[str, str]:
    """Object -> which file of which stage it is, as far as a record knows it."""
    found: dict[str, str] = {}
    for entry in place.store.entries():
        name = str(entry["parts"].get("unit") or entry["parts"].get("stage"))
        files = place.store.files(entry["identity"]) or {}
        found |= {md5: f"{name}: {file}" for file, md5 in files.items()} | {entry["identity"]: f"{name}: its listing"}
    return found


def stored(place: Place) -> Iterator[Finding]:
    """Every stored file, read and hashed."""
    count, known = 0, names(place)
    for name, fault in tracked(place.store.examine(), len(place.store.objects()), "doctor", "files read and hashed"):
        count += 1
        if fault:
            yield error("store", f"{known.get(name, name)} ({name[:12]}): {fault}", AGAIN)
    yield good("store", f"{count} files read and hashed")


def views(place: Place) -> Iterator[Finding]:
    """The folders for reading, read and hashed."""
    store, count = place.store, 0
    for folder in sorted((place.state / "views").glob("*.dir")):
        if store.files(folder.name) is None:  # what it showed is gone or was damaged: it is laid out anew when somebody reads it
            shutil.rmtree(folder, ignore_errors=True)
            continue
        before = set(walk(folder))
        if not store.intact(folder.name, trust=False) and store.has(folder.name):
            if gone := sorted(path.relative_to(folder).as_posix() for path in before - set(walk(folder))):
                text = f"{folder.name[:12]} was altered ({', '.join(gone[:3])}); it was laid out anew"
                yield error("views", text, "cairn doctor")
            store.view(folder.name)
        count += 1
    yield good("views", f"{count} folders of links to stored files, as they should be")


def stages(place: Place) -> Iterator[Finding]:
    """What a run would do at each stage, and whether dvc.lock agrees."""
    plan = place.checked
    steps = survey(plan)
    for step in steps:
        if step.artifact:
            yield good("stages", f"{step.stage}: cached {step.artifact.identity[:12]}")
        elif {DAMAGED, LOST} & set(step.reasons):
            yield error("stages", f"{step.stage}: {'; '.join(step.reasons[:6])}", AGAIN)
        else:
            yield note("stages", f"{step.stage}: {'; '.join(step.reasons[:6])}")
    done = {step.stage: step.artifact for step in steps if step.artifact}
    if late := behind(plan, done, {step.stage: step.job for step in steps if step.artifact and step.job}):
        yield note("dvc.lock", f"is behind for {', '.join(late)}", "cairn run")
    else:
        yield good("dvc.lock", "agrees" if done else "nothing is cached yet")


def workspace(place: Place) -> Iterator[Finding]:
    """data/ and the metrics files against dvc.lock, read and hashed: what lies there is what DVC believes lies there."""
    count, entries = 0, dvc_lock.stages(place.project)
    for stage, about in place.checked.stages.items():
        for out in (entries.get(stage) or {}).get("outs") or ():
            if not (place.project / out["path"]).exists():
                yield note("workspace", f"{out['path']} is not laid out", "dvc checkout")
            elif differs := _differs(place, out, out["path"] == about.out):
                yield error("workspace", f"{out['path']} is not what dvc.lock says{differs}", "cairn run")
            else:
                count += 1
    yield good("workspace", f"{count} outputs are as dvc.lock says" if count else "no output lies here yet that dvc.lock names")


def _differs(place: Place, out: Mapping[str, Any], whole: bool) -> str:
    """ "" where an output is what dvc.lock says; else which of its files differ, as far as it is known what they should be."""
    path, wanted = place.project / out["path"], out.get("md5")
    if place.store.hashes.path(path, trust=False) == wanted:
        return ""
    files = (place.store.files(str(wanted)) or {}) if whole and path.is_dir() else {}
    found = place.store.hashes.listing(path) if files else {}
    differ = sorted(name for name in {*found, *files} if found.get(name) != files.get(name))
    return f" ({', '.join(differ[:3])}{', ...' if len(differ) > 3 else ''})" if differ else " any more"
