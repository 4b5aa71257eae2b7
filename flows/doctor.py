"""`cairn doctor`: everything that is kept, looked at once and said in lines; what is damaged is told from what never ran.

What was read whole and is not what its name says is removed, so that it is fetched or made again; what cannot be read now is told and
left alone. Each part ends in what to do.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flows.console import tracked
from flows.dvc_command import holders
from flows.ledger import Ledger
from flows.moved_alias import told_of_alias
from flows.road import behind
from flows.survey import Outlook, survey
from flows.upgrade import standing
from tasks.contract.params import StageFailed
from tasks.engine import disk, dvc_lock, roles_lock, versions
from tasks.engine.explain import DAMAGED, LOST
from tasks.engine.files import sweep
from tasks.engine.hashes import walk
from tasks.engine.key import Key
from tasks.engine.locks import FOLDER, holder, is_held, meaning
from tasks.engine.plan import Plan


@dataclass(frozen=True)
class Note:
    """One thing that was seen. part: what was looked at. damage: something is not what was written there."""

    part: str
    text: str
    damage: bool = False

    def __str__(self) -> str:
        return f"{self.part:<10} {'DAMAGE: ' if self.damage else ''}{self.text}"


@dataclass
class Report:
    """What is told, in order, and how much of it is damage."""

    plan: Plan
    tell: Callable[[Note], None]
    faults: int = 0
    names: dict[str, str] = field(default_factory=dict)
    """object -> which file of which stage it is, as far as a record knows it"""

    def good(self, part: str, text: str) -> None:
        """Something that is as it should be, or at least no damage."""
        self.tell(Note(part, text))

    def bad(self, part: str, text: str) -> None:
        """A line about something damaged; the command then ends with 1."""
        self.faults += 1
        self.tell(Note(part, text, damage=True))


def examine(plan: Plan, tell: Callable[[Note], None]) -> int:
    """Look at all of it; returns how much damage was found (0: none). tell: is told of everything that was seen, in order."""
    report = Report(plan, tell)
    for part in (
        _versions,
        _upgrade,
        _roles,
        _registry,
        _locks,
        _half_written,
        _hashes,
        _records,
        _objects,
        _views,
        _stages,
        _workspace,
    ):
        try:
            part(report)
        except OSError as error:
            report.bad(part.__name__.strip("_"), disk.in_words(error) or f"cannot be read now: {error}")
    if report.faults:
        report.good(
            "what to do",
            f"{report.faults} found. What was damaged was removed. `dvc pull` fetches it where a remote has it; `cairn run` makes it "
            "again: the same inputs give the same bytes.",
        )
    return report.faults


def set_runs_right(state: Path) -> Iterator[Note]:
    """Set right what MLflow and Prefect show of runs that were killed; a Prefect server is started when one is needed for that."""
    from contextlib import nullcontext

    from flows.reconcile import needs_own_server, reconcile
    from flows.server import prefect_api

    with prefect_api() if needs_own_server(state) else nullcontext():
        for line in reconcile(state):
            yield Note("runs", line)


def _versions(report: Report) -> None:
    lines = versions.differences(report.plan.settings.project)
    for line in lines:
        report.bad("versions", f"{line}: `make setup` installs what the lock says, `make lock` takes a wanted change over")
    if not lines:
        report.good("versions", f"libraries and CPU kernels agree with {versions.FILE}")


def _upgrade(report: Report) -> None:
    if line := standing(report.plan.settings.project):
        report.good("upgrade", line)


def _roles(report: Report) -> None:
    noted = [role for role, entry in roles_lock.read(report.plan.settings.project).items() if entry]
    report.good("servers", f"params/roles.lock names the models of {', '.join(noted)}" if noted else "params/roles.lock names no model")


def _registry(report: Report) -> None:
    try:
        count = len(Ledger.of(report.plan).records())
    except StageFailed as error:
        report.bad("registry", str(error))
        return
    report.good("registry", told_of_alias(report.plan) or f"the champion's alias is where the ledger says ({count} records, sound)")


def _locks(report: Report) -> None:
    lines = [f"{meaning(path.name)}: {holder(path)}" for path in sorted((report.plan.store.state / FOLDER).glob("*")) if is_held(path)]
    now, left = holders(report.plan.settings.project)
    for line in [*lines, *(f"DVC: {one}" for one in now), *(f"left behind by DVC: {one}" for one in left)]:
        report.good("locks", line)
    if not lines and not now:
        report.good("locks", "nobody holds one")


def _half_written(report: Report) -> None:
    store, project = report.plan.store, report.plan.settings.project
    below = [folder for root in ("data", "reports", "params") for folder in _folders(project / root)]
    gone = [*store.sweep(), *(path for folder in (project, *below, *_folders(store.state / "views")) for path in sweep(folder))]
    waiting = [path for path in (store.state / "work").glob("*") if path.is_dir()]
    report.good("leftovers", f"{len(gone)} half-written files of killed processes were deleted" if gone else "no half-written files")
    if waiting:
        report.good(
            "leftovers", f"{len(waiting)} interrupted results in {store.state / 'work'}; a run that wants one goes on from there"
        )


def _folders(root: Path) -> Iterator[Path]:
    if root.is_dir():
        yield root
        yield from (path for path in root.rglob("*") if path.is_dir())


def _hashes(report: Report) -> None:
    if report.plan.store.hashes.check():
        report.good("hashes", "the database of known hashes is sound")
    else:
        report.bad("hashes", "the database of known hashes was damaged; it was made anew")


def _records(report: Report) -> None:
    """The entries of keys/: readable, and under the name that their own content has."""
    store, sound, adopted, unproven = report.plan.store, 0, 0, 0
    for path in sorted((store.state / "keys").glob("*.json")):
        entry = store.entry(path.stem)
        if entry is None or Key(entry["parts"]).digest != path.stem:
            path.unlink(missing_ok=True)
            report.bad("records", f"{path.name} is not what was written; it was removed, its stage is found by dvc.lock or made again")
            continue
        sound += 1
        adopted += "adopted" in entry or "accepted" in entry
        unproven += not {"read", "adopted", "accepted"} & entry.keys()
        files = store.files(entry["identity"]) or {}
        name = str(entry["parts"].get("unit") or entry["parts"].get("stage"))
        report.names |= {md5: f"{name}: {file}" for file, md5 in files.items()} | {entry["identity"]: f"{name}: its listing"}
    more = f"; {adopted} taken over from DVC or by `cairn accept`" if adopted else ""
    old = f"; {unproven} made before inputs were hashed at each computation: `cairn run --refresh STAGE` proves one" if unproven else ""
    report.good("records", f"{sound} results noted, readable{more}{old}")


def _objects(report: Report) -> None:
    store, count = report.plan.store, 0
    for name, fault in tracked(store.examine(), len(store.objects()), "doctor", "files read and hashed"):
        count += 1
        if fault:
            report.bad("store", f"{report.names.get(name, name)} ({name[:12]}): {fault}")
    report.good("store", f"{count} files read and hashed")


def _views(report: Report) -> None:
    store, count = report.plan.store, 0
    for folder in sorted((store.state / "views").glob("*.dir")):
        if store.files(folder.name) is None:  # what it showed is gone or was damaged: it is laid out anew when somebody reads it
            shutil.rmtree(folder, ignore_errors=True)
            continue
        before = set(walk(folder))
        if not store.intact(folder.name, trust=False) and store.has(folder.name):
            if gone := sorted(path.relative_to(folder).as_posix() for path in before - set(walk(folder))):
                report.bad("views", f"{folder.name[:12]} was altered ({', '.join(gone[:3])}); it was laid out anew")
            store.view(folder.name)
        count += 1
    report.good("views", f"{count} folders for reading, as their artifacts are")


def _stages(report: Report) -> None:
    plan = report.plan
    steps = survey(plan)
    for step in steps:
        line = (
            f"{step.stage}: cached {step.artifact.identity[:12]}" if step.artifact else f"{step.stage}: {'; '.join(step.reasons[:6])}"
        )
        if {DAMAGED, LOST} & set(step.reasons):
            report.bad("stages", line)
        else:
            report.good("stages", line)
    _agreement(report, steps)


def _agreement(report: Report, steps: list[Outlook]) -> None:
    done = {step.stage: step.artifact for step in steps if step.artifact}
    late = behind(report.plan, done, {step.stage: step.job for step in steps if step.artifact and step.job})
    if late:
        report.good("dvc.lock", f"is behind for {', '.join(late)}; `cairn run` brings it up to date")
    else:
        report.good("dvc.lock", "agrees" if done else "nothing is cached yet")


def _workspace(report: Report) -> None:
    """data/ and the metrics files against dvc.lock: what lies there is what DVC believes lies there."""
    plan, count = report.plan, 0
    entries = dvc_lock.stages(plan.settings.project)
    for stage, about in plan.stages.items():
        for out in (entries.get(stage) or {}).get("outs") or ():
            path, wanted = plan.settings.project / out["path"], out.get("md5")
            if not path.exists():
                report.good("workspace", f"{out['path']} is not laid out; `cairn run` or `dvc checkout` does it")
            elif plan.store.hashes.path(path, trust=False) != wanted:
                files = plan.store.files(wanted) or {} if out["path"] == about.out else {}
                report.bad(
                    "workspace", f"{out['path']} is not what dvc.lock says{_where(report, path, files)}; `cairn run` puts it right"
                )
            else:
                count += 1
    report.good("workspace", f"{count} outputs as dvc.lock says")


def _where(report: Report, folder: Path, files: Mapping[str, str]) -> str:
    """Which files of a folder differ, when it is known what they should be."""
    if not files or not folder.is_dir():
        return ""
    found = report.plan.store.hashes.listing(folder)
    differ = sorted(path for path in {*found, *files} if found.get(path) != files.get(path))
    return f" ({', '.join(differ[:3])}{', ...' if len(differ) > 3 else ''})"
