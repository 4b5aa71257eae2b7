"""What each `cairn` command does."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tasks import STAGES
from tasks.params import BadInput, nearest


def _stage(name: str, option: str) -> str:
    if name not in STAGES:
        raise BadInput(f"{option} {name!r}: no such stage.{nearest(name, STAGES)} The road: {', '.join(STAGES)}.")
    return name


def init(asked: argparse.Namespace) -> int:
    """cairn init: the files, git and DVC; with --smoke also the environment and a first run."""
    import shlex
    import subprocess
    from pathlib import Path

    from flows.init import create, versioned

    folder = Path(asked.folder).resolve()
    address = create(folder, asked.world, asked.cls)
    print(f"{folder}: a project with the world {address}\n{versioned(folder, folder.name)}\n")
    if asked.smoke:
        return subprocess.run(["make", "--no-print-directory", "smoke"], cwd=folder, check=False).returncode
    print(f"cd {shlex.quote(asked.folder)}")
    print("make smoke    # the environment, then every stage on tiny inputs\nmake run      # to a promoted agent")
    return 0


def run(asked: argparse.Namespace) -> int:
    """cairn run: survey first; import Prefect only when something is to be computed."""
    from flows.asking import Asking, write_down
    from flows.promote import settle
    from flows.road import check_part, survey
    from flows.run import open_plan
    from tasks.settings import parse_override

    start = time.monotonic()
    if asked.only and (asked.first, asked.last) != (STAGES[0], STAGES[-1]):
        raise BadInput("--only names one stage; --from and --to have no place beside it")
    first, last = (asked.only, asked.only) if asked.only else (asked.first, asked.last)
    begins = "--only" if asked.only else "--from"
    part = check_part(first, last, asked.refresh or (), (begins, "--to", "--refresh"))
    refresh = list(asked.refresh or part) if asked.refresh is not None else []
    overrides = dict(parse_override(text) for text in asked.set)

    plan = open_plan(asked.profile, overrides, refresh)
    if not (asked.dry_run or asked.estimate) and (said := settle(plan)):
        print(said)
    steps = [step for step in survey(plan, asked.verify) if STAGES.index(step.stage) <= STAGES.index(last)]
    if asked.dry_run:
        _print_steps(steps)
        return 0
    todo = [step for step in steps if step.artifact is None]
    if asked.estimate:
        from flows.estimate import estimate, lines

        stages = [step.stage for step in todo if step.stage in part]
        print("\n".join(lines(estimate(plan.settings, stages, plan.store.state), plan.settings)))
        return 0
    for step in todo:
        if step.stage not in part:
            raise BadInput(f"{begins} {first}: stage {step.stage!r} before it is not cached ({'; '.join(step.reasons)}).")
    if not todo:
        return _nothing_to_do(write_down(plan), steps, start)
    plan.check_closures(step.stage for step in todo)
    _check_champion(plan, part, steps)
    from flows.caps import Caps

    known = {step.stage: step.artifact.identity for step in steps if step.artifact and step.stage in ("worlds", "base")}
    Caps(plan).check([step.stage for step in todo], **known)
    asking = Asking(accept=asked.refresh_models)
    if not any(role.key_block for _, _, role in plan.settings.shared.players()):  # such a key comes from Prefect's server, in the flow
        plan = asking.ahead(plan, first, last)
        for step in survey(plan):
            if step.artifact is None and STAGES.index(step.stage) < STAGES.index(first):
                raise BadInput(f"{begins} {first}: stage {step.stage!r} before it is not cached ({'; '.join(step.reasons)}).")
    _say_surroundings()
    from flows.lost import without
    from flows.server import prefect_api

    def done() -> bool:
        wanted = STAGES.index(last)
        return all(step.artifact for step in survey(open_plan(asked.profile, overrides)) if STAGES.index(step.stage) <= wanted)

    with prefect_api(), without(done):
        from flows.pipeline import pipeline

        pipeline(asked.profile, overrides, first, last, refresh, asked.refresh_models)
    _print_table(_reports(plan) / "summary.json")
    return 0


def _say_surroundings() -> None:
    """Before anything starts: which inherited settings change where things go, and whether the servers that they name are there."""
    from flows import inherited, reach

    for one in inherited.moving():
        print(f"cairn: {one}", file=sys.stderr)
    reach.mlflow()


def _check_champion(plan: Any, part: Sequence[str], steps: Sequence[Any]) -> None:
    """The champion has to play the gate: its bytes must be there before hours of training, not after."""
    from tasks.champion import CHAMPION, read
    from tasks.fingerprint import CANDIDATE

    standing = read(plan.settings.project / CHAMPION)
    there = {step.stage: step.artifact for step in steps}
    candidate, trials = there.get(CANDIDATE), there.get("evaluate")
    met = standing.opponent(candidate.identity) if candidate else standing.champion
    if "evaluate" in part and trials is None and met and not plan.store.has(met):
        raise BadInput(
            f"the champion {met} must play the gate, and its bytes are not in the store. `dvc pull` may bring them; "
            "`cairn champion --none` decides from now on as if there were no champion."
        )


def _reports(plan: Any) -> Any:
    reports = plan.settings.project / "reports"
    return reports / "runs" / plan.run_key[:10] if plan.experiment else reports


def _nothing_to_do(plan: Any, steps: Sequence[Any], start: float) -> int:
    """Every stage is cached: look after the registry, the workspace, DVC and the report, and say so."""
    from flows.promote import ALIAS, champion
    from flows.reconcile import reconcile
    from flows.road import bring_up_to_date

    for line in reconcile(plan.store.state):
        print(line)
    done = {step.stage: step.artifact for step in steps}
    path = _reports(plan) / "summary.json"
    current = _is_current(path, plan, done)
    if not current:
        _render_again(plan, done)
    if not plan.experiment:
        for line in bring_up_to_date(plan, done):
            print(line)
    summary = json.loads(path.read_text())
    now = champion(plan.store.state)
    summary["seconds"] = round(time.monotonic() - start, 3)
    for stage in summary["stages"].values():
        stage["cached"] = True
    from tasks.files import write_text

    write_text(path, json.dumps(summary, indent=1))
    _print_table(path)
    who = f"; {ALIAS}: version {now['version']}" if now else ""
    print(f"Nothing to do: {len(done)} stages cached, checked in {summary['seconds']:.1f} s{who}.")
    return 0


def _is_current(path: Any, plan: Any, done: Mapping[str, Any]) -> bool:
    """Whether the last report shows these artifacts, and says of the decision what is to be said now."""
    from flows.promote import foreseen

    try:
        summary = json.loads(path.read_text())
        shown = {name: one["artifact"] for name, one in summary["stages"].items()}
        told = summary["promotion"]
    except (OSError, ValueError, KeyError):
        return False
    if not path.with_name("report.html").exists() or shown != {name: artifact.identity for name, artifact in done.items()}:
        return False
    if "decide" not in done:
        return True
    now = foreseen(plan, done["decide"], done["merge"])
    fresh = told.get("outcome") == "promoted" and now.done and now.version == told["version"]
    return now.decision != "waiting" and (fresh or now.told() == told)


def _render_again(plan: Any, done: Mapping[str, Any]) -> None:
    from flows import reach
    from flows.promote import promote_candidate
    from flows.run import Run
    from tasks.track import Tracker

    reach.mlflow()
    run = Run(plan, Tracker.of(plan), time.monotonic())
    promote_candidate(run, done.get("decide"), done.get("merge"))
    run.report(done)
    run.tracker.close(None)


def _print_steps(steps: Sequence[Any]) -> None:
    for step in steps:
        if step.artifact:
            print(f"{step.stage:<9} cached     {step.artifact.identity[:12]}")
        else:
            print(f"{step.stage:<9} would run  {'; '.join(step.reasons[:6])}")


def _print_table(path: Any) -> None:
    from pathlib import Path

    from flows.models import place

    summary = json.loads(path.read_text())
    print(f"\n{'stage':<9} {'method':<20} {'seconds':>8}  artifact")
    for name, stage in summary["stages"].items():
        seconds = "" if stage["seconds"] is None else f"{stage['seconds']:.1f}"
        print(f"{name:<9} {stage['method']:<20} {seconds:>8}  {stage['artifact'][:12]}{'  cached' if stage['cached'] else ''}")
    if "evaluate" in summary:
        worlds = sorted({world for model in summary["evaluate"].values() for world in model})
        print(f"\n{'pass^1':<15}" + "".join(f"{world:>26}" for world in worlds))
        for model, figures in sorted(summary["evaluate"].items(), key=lambda one: place(one[0])):
            cells = [_cell(figures.get(world, {}).get("pass_1")) for world in worlds]
            print(f"{model:<15}" + "".join(f"{cell:>26}" for cell in cells))
        print("(mean, 95 % interval over problems; simulated roles)")
    promotion = summary["promotion"]
    if promotion["decision"]:
        print(f"\n{promotion['outcome']}: {promotion['reason']}")
    report = path.with_name("report.html")
    print(f"report: {report.relative_to(Path.cwd()) if report.is_relative_to(Path.cwd()) else report}")


def _cell(figure: Mapping[str, Any] | None) -> str:
    return f"{figure['mean']:.2f} [{figure['low']:.2f}, {figure['high']:.2f}]" if figure else "-"


def use(asked: argparse.Namespace) -> int:
    """cairn use: the profile's file becomes params/pipeline.yaml, byte for byte."""
    from flows import OUTSIDE, PROJECT, STATE
    from tasks.files import write_text
    from tasks.params import read_yaml
    from tasks.settings import PIPELINE, Settings, profile_path, profiles

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    active = PROJECT / PIPELINE
    if not asked.profile:
        for name in profiles(PROJECT):
            mark = "*" if profile_path(PROJECT, name).read_bytes() == active.read_bytes() else " "
            print(f"{mark} {name}")
        return 0
    text = profile_path(PROJECT, asked.profile).read_text(encoding="utf-8")
    Settings(PROJECT, read_yaml(profile_path(PROJECT, asked.profile)), f"params/profiles/{asked.profile}.yaml").check()
    old = active.read_text(encoding="utf-8")
    edited = all(profile_path(PROJECT, name).read_text(encoding="utf-8") != old for name in profiles(PROJECT))
    if edited and not asked.force:
        raise BadInput(f"{PIPELINE} has edits that are in no profile. Save them as a profile, or repeat with --force (a copy is kept).")
    if edited:
        kept = STATE / "replaced" / f"pipeline-{time.strftime('%Y%m%d-%H%M%S')}.yaml"
        write_text(kept, old)
        print(f"the edited params are kept in {kept}")
    if text != old:
        write_text(active, text)
    print(f"{PIPELINE} is now profile {asked.profile}")
    return 0


def stage(asked: argparse.Namespace) -> int:
    """cairn stage: what dvc.yaml calls."""
    from flows.stage import run_stage

    print(run_stage(asked.name, asked.refresh))
    return 0


def methods(asked: argparse.Namespace) -> int:
    """cairn methods: rooms and papers."""
    from tasks.methods import everything

    for one in everything():
        print(f"{one.stage:<9} {one.name:<20} {one.title}{'  ' + one.paper if one.paper else ''}")
    return 0


def status(asked: argparse.Namespace) -> int:
    """cairn status: a dry run of the workspace, and whether DVC agrees; then the settings that it inherits."""
    from flows.road import behind, survey
    from flows.run import open_plan

    plan = open_plan()
    steps = survey(plan, asked.verify)
    _print_steps(steps)
    done = {step.stage: step.artifact for step in steps if step.artifact}
    late = behind(plan, done, {step.stage: step.job for step in steps if step.artifact and step.job})
    print(f"dvc.lock is behind for {', '.join(late)}" if late else "dvc.lock agrees" if done else "nothing is cached yet")
    _print_inherited()
    return 0


def _print_inherited() -> None:
    from flows import inherited

    found = inherited.everything()
    print("\ninherited settings:" if found else "\nno setting is inherited from the environment or from files of Prefect")
    for one in found:
        print(f"  {one}")


def doctor(asked: argparse.Namespace) -> int:
    """cairn doctor: the environment, and everything that is kept."""
    from flows.doctor import examine
    from flows.run import open_plan

    plan = open_plan()
    broken = examine(plan)
    _reconcile(plan.store.state)
    _print_inherited()
    return 1 if broken else 0


def _reconcile(state: Any) -> None:
    """Set right what MLflow and Prefect show of runs that were killed; a Prefect server is started when one is needed for that."""
    from contextlib import nullcontext

    from flows.reconcile import needs_own_server, reconcile
    from flows.server import prefect_api

    with prefect_api() if needs_own_server(state) else nullcontext():
        for line in reconcile(state):
            print(f"runs       {line}")


def merge(asked: argparse.Namespace) -> int:
    """cairn merge: one recipe, one merged checkpoint."""
    from pathlib import Path

    from flows.merging import merge_by_recipe, print_figures
    from tasks.settings import parse_override

    if asked.threads < 0:
        raise BadInput(f"--threads {asked.threads}: allowed are 1 and more, or 0 for all cores")
    print_figures(merge_by_recipe(Path(asked.recipe), Path(asked.out), dict(map(parse_override, asked.set)), asked.threads))
    return 0


def search(asked: argparse.Namespace) -> int:
    """cairn search: try params of the merge; keep the best if it wins on fresh problems."""
    from pathlib import Path

    from flows import OUTSIDE
    from flows.run import open_plan

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    from flows.search import check_space, read_search, search_merge
    from flows.server import prefect_api

    wanted = read_search(Path(asked.file))
    check_space(open_plan().settings, wanted)
    with prefect_api():
        said = search_merge(wanted, write=not asked.no_write)
    best = ", ".join(f"{name} {value}" for name, value in said["best"].items())
    print(f"\nbest of {said['trials']}: {best}")
    print(f"pass^1 {said['score']:.3f} on the validation problems of the search; all trials: reports/search_merge.csv")
    if said["difference"] is None:
        print("That is the present setting.")
        return 0
    gap = said["difference"]
    print(f"on fresh ones, against the present setting: {gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]")
    print("written into params/pipeline.yaml" if said["written"] else "params/pipeline.yaml stays as it is")
    return 0


def bank(asked: argparse.Namespace) -> int:
    """cairn bank pin, grow."""
    from flows import OUTSIDE, PROJECT
    from flows.bank import grow, pin

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    print((pin if asked.action == "pin" else grow)(PROJECT))
    return 0


def calls(asked: argparse.Namespace) -> int:
    """cairn calls: the cache of model calls."""
    from flows import OUTSIDE, STATE
    from flows.calls import forget, forget_answer, lines

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    if asked.forget:
        print(f"{forget(STATE, asked.forget)} answers of {asked.forget} are forgotten")
        return 0
    if asked.forget_answer:
        print(f"{forget_answer(STATE, asked.forget_answer)} is forgotten; whoever asks the same again pays for a new one")
        return 0
    print("\n".join(lines(STATE)))
    return 0


def accept(asked: argparse.Namespace) -> int:
    """cairn accept: bind each stage's present key to the result it had, in the road's order."""
    from flows.road import bring_up_to_date, survey
    from flows.run import open_plan

    names = sorted({_stage(name, "stage") for name in asked.stages}, key=STAGES.index)
    plan = open_plan()
    steps = {step.stage: step for step in survey(plan)}
    there = {name for name, step in steps.items() if step.artifact} | set(names)
    for name in names:  # all or none: nothing is bound when one of them cannot be
        if lacking := [one for one in plan.stages[name].inputs if one not in there]:
            raise BadInput(f"{name}: its input {lacking[0]} would run. Accept or run that stage first.")
        if not steps[name].artifact and not plan.store.has(_last(plan, name)["identity"]):
            raise BadInput(f"{name}: the bytes of its last result are gone; it has to run")
    for name in names:
        _accept(plan, name, asked.why)
    for line in bring_up_to_date(plan, {one.stage: one.artifact for one in survey(plan) if one.artifact}):
        print(line)
    return 0


def _accept(plan: Any, name: str, why: str) -> None:
    from flows.road import survey
    from tasks.execute import remember
    from tasks.files import write_text
    from tasks.fingerprint import changed

    step = next(step for step in survey(plan) if step.stage == name)
    if step.artifact:
        print(f"{name} is cached already; there is nothing to accept")
        return
    if step.job is None:
        raise BadInput(f"{name}: {'; '.join(step.reasons)}. Accept or run that stage first.")
    old = _last(plan, name)
    moved = list(changed(old["parts"], step.job.key.parts))
    plan.store.record(step.job.key, old["identity"], {"accepted": why, "changed": moved, "figures": old.get("figures", {})})
    remember(plan, step.job)
    path = plan.store.state / "accepted.jsonl"
    entry = {"stage": name, "why": why, "changed": moved, "identity": old["identity"]}
    write_text(path, (path.read_text() if path.exists() else "") + json.dumps(entry) + "\n")
    print(f"{name}: {old['identity'][:12]} accepted although {'; '.join(moved)}")


def _last(plan: Any, name: str) -> dict[str, Any]:
    from tasks.execute import last
    from tasks.files import read_json

    noted = read_json(last(plan, name))
    if noted is None:
        raise BadInput(f"{name} never ran here, so there is no result to accept")
    entry: dict[str, Any] | None = plan.store.entry(str(noted.get("key")))
    if entry is None:
        raise BadInput(f"{name}: the record of its last result is gone; it has to run")
    return entry


def _decided(plan: Any) -> tuple[Any, Any]:
    from flows.road import survey

    there = {step.stage: step.artifact for step in survey(plan)}
    if not there["decide"]:
        raise BadInput("there is no decision for the present params and code; `cairn run` makes one")
    return there["decide"], there["merge"]


def promote(asked: argparse.Namespace) -> int:
    """cairn promote: approval by hand; says what became of it, and ends with 0 when the candidate is champion."""
    from flows import reach
    from flows.promote import promote_candidate
    from flows.run import Run

    reach.mlflow()
    with Run.open() as run:
        decision, candidate = _decided(run.plan)
        promote_candidate(run, decision, candidate, approved=asked.why)
        print(f"{run.promotion['outcome']}: {run.promotion['reason']}")
        _tell_dvc(run.plan)
        return 0 if run.promotion["alias"] else 1


def rollback(asked: argparse.Namespace) -> int:
    """cairn rollback: the alias goes back."""
    from flows import reach
    from flows.promote import rollback as go_back
    from flows.run import Run

    reach.mlflow()
    with Run.open() as run:
        print(f"champion is version {go_back(run, asked.why, asked.to)}")
        _tell_dvc(run.plan)
    return 0


def champion(asked: argparse.Namespace) -> int:
    """cairn champion: the ledger's last word, and whom decisions meet."""
    from flows import OUTSIDE, PROJECT, STATE
    from flows.promote import champion as who
    from flows.promote import differs, forget, settle
    from flows.run import open_plan
    from tasks.champion import CHAMPION, read

    if OUTSIDE:
        raise BadInput(OUTSIDE)
    if asked.none:
        forget(STATE, PROJECT / CHAMPION)
    if asked.settle and (said := settle(open_plan())):
        print(said)
    now, standing = who(STATE), read(PROJECT / CHAMPION)
    print(f"champion: {f'''version {now['version']}, {now['identity']} ({now['event']}: {now['reason']})''' if now else 'none'}")
    print(f"whom decisions meet ({CHAMPION}): {standing.champion or 'nobody'}")
    if said := differs(STATE, PROJECT):
        print(f"{said}; the next `cairn run` or `cairn champion --settle` writes it anew")
    if asked.none or asked.settle:
        _tell_dvc(open_plan())
    return 0


def _tell_dvc(plan: Any) -> None:
    """After another champion: evaluate and decide read who it is, and what they found stays right; DVC is told so."""
    from flows.road import bring_up_to_date, survey

    for line in bring_up_to_date(plan, {step.stage: step.artifact for step in survey(plan) if step.artifact}):
        print(line)


def regrade(asked: argparse.Namespace) -> int:
    """cairn regrade: stored conversations under the present grading."""
    from pathlib import Path

    from flows import OUTSIDE, PROJECT
    from flows.regrade import lines
    from flows.regrade import regrade as grade_again
    from tasks.settings import load

    seed = asked.seed if asked.seed is not None or OUTSIDE else load(PROJECT).shared.seed
    worlds, out = (Path(text) if text else None for text in (asked.world, asked.out))
    difference = grade_again(Path(asked.file), worlds, [Path(text) for text in asked.problems], seed, out)
    print("\n".join(lines(difference)))
    if out is not None:
        print(f"written: {out}")
    return 0


def preview(asked: argparse.Namespace) -> int:
    """cairn preview: a few rows of a stage, made beside the road and shown."""
    from flows.asking import Asking
    from flows.preview import show
    from flows.run import open_plan
    from tasks.settings import parse_override

    plan = open_plan(asked.profile, dict(parse_override(text) for text in asked.set))
    show(Asking(accept=True).before(plan, [asked.stage]), asked.n)
    return 0


def export(asked: argparse.Namespace) -> int:
    """cairn export: conversations as a data set for other trainers."""
    from flows.export import run

    return run(asked)


def world(asked: argparse.Namespace) -> int:
    """cairn world: write, prove or play a world."""
    from flows.worlds.command import run

    return run(asked)
