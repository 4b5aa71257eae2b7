"""The figures that the quickstart is to reach: the road from nothing, once per seed, and what its models can do.

Each seed runs `cairn run` in a throwaway copy of this project; all copies are made before the first road starts, so that they
hold the same code. Figures come from data/evaluate of the copy. Differences are paired on the test problems, their intervals
(95 %) resample problems. Over seeds the median of the figure is quoted, with its least and largest value, and the medians of
the two ends of its interval; "above" is judged by the interval's lower end, everything else by the figure itself.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from infra.bench import ROOT, cairn_run, copy
from tasks.evaluate.core.tables import COLUMNS, WRITE, Maker, Played, tables

MAKER = Maker(seed=0, resamples=2000)
"""For the differences that metrics.json does not hold."""
UNFILTERED = "sft_unfiltered"
"""The control of the filter: SFT on as many rows that nobody filtered."""
TAGS = ("unseen_phrasing", "unseen_composition", "unseen_rule")
CORES = 2
"""Processes that play at once when the engine is timed, one thread each."""
ROUNDS = 3
"""Of the engine."""
WALL = Path("reports") / "wall_seconds.txt"
"""In a kept copy: how long its road took. It says that the road was finished."""
TAIL = 40
"""Lines of a failed road that are shown."""


@dataclass(frozen=True)
class Figure:
    """A measured number with its 95 % interval (none for seconds and counts), and min and max over seeds (`spread`)."""

    mean: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    note: str = ""
    spread: tuple[float, float] | None = None

    def __str__(self) -> str:
        form = "{:.4g}" if self.low is None else "{:+.3f}"
        ends = "" if self.low is None else f" [{self.low:+.3f}, {self.high:+.3f}]"
        count = "" if self.n is None else f" n={self.n}"
        return form.format(self.mean) + ends + (f" ({form}..{form})".format(*self.spread) if self.spread else count)


@dataclass(frozen=True)
class Bound:
    """What a figure is to reach. kind: "at most" and "at least" are said of the figure, "above" of its interval's lower end."""

    kind: str
    value: float

    def holds(self, figure: Figure) -> bool:
        """Whether the figure reaches it."""
        if self.kind == "above":
            return figure.low is not None and figure.low > self.value
        return figure.mean <= self.value if self.kind == "at most" else figure.mean >= self.value

    def __str__(self) -> str:
        return f"{self.kind} {self.value:g}"


@dataclass(frozen=True)
class Line:
    """One line of the table. figure: None when the run has no such model or no such problem."""

    label: str
    figure: Figure | None
    required: Bound | None = None
    aim: Bound | None = None

    @property
    def verdict(self) -> str:
        """Met or missed, for what is asked and for the aim."""
        if self.figure is None:
            return "not in this run"
        said = [("met" if self.required.holds(self.figure) else "missed")] if self.required else []
        said += [("aim met" if self.aim.holds(self.figure) else "aim missed")] if self.aim else []
        return ", ".join(said) or "-"

    def cells(self) -> tuple[str, ...]:
        """Label, asked, aim, measured, verdict with its note."""
        note = f"; {self.figure.note}" if self.figure and self.figure.note else ""
        required = str(self.required or "reported")
        return self.label, required, str(self.aim or "-"), str(self.figure or "-"), self.verdict + note


@dataclass(frozen=True)
class Road:
    """What one seed left. seconds: wall time of `cairn run`; stages: seconds by stage; metrics: metrics.json of evaluate; test:
    the trials on the test problems, by (model, world)."""

    seed: int
    seconds: float
    stages: Mapping[str, float]
    metrics: Mapping[str, Any]
    test: Mapping[tuple[str, str], Played]
    temperature: float

    @property
    def worlds(self) -> list[str]:
        """Names of the worlds."""
        return sorted(self.metrics["baselines"])

    def gap(self, first: str, second: str, world: str) -> Mapping[str, Any]:
        """The paired block of two models in a world: from metrics.json, or made of the trials in the same way."""
        found = self.metrics["paired"].get(f"{first}-{second}", {}).get(world)
        return found or MAKER.paired(self.test[first, world], self.test[second, world], ())

    def mean_gap(self, first: str, second: str) -> Figure | None:
        """pass^1 of first minus second over all test problems of all worlds, resampled within their world; None when a model is
        missing. Worlds have equally many test problems, so this is the mean over worlds."""
        if any((model, world) not in self.test for model in (first, second) for world in self.worlds):
            return None
        mine, others = ([self.test[model, world] for world in self.worlds] for model in (first, second))
        if [one.problems for one in mine] != [one.problems for one in others] or len({len(one.problems) for one in mine}) != 1:
            raise ValueError(f"{first} - {second}: not the same test problems, or not equally many in each world")
        everything = [np.ones(len(one.problems), dtype=bool) for one in mine]
        return _figure(MAKER.gaps(mine, others, everything)["pass_1"])

    def best_specialist(self) -> str:
        """The one with the highest pass^1 over all worlds."""
        return max((f"rl_{world}" for world in self.worlds), key=lambda name: self.metrics["overall"][name]["pass_1"]["mean"])


def _figure(block: Mapping[str, Any] | None) -> Figure | None:
    return Figure(block["mean"], block["low"], block["high"], block["n"]) if block else None


def lines(road: Road) -> list[Line]:
    """The table of one seed."""
    whole = Line("whole road, s", Figure(road.seconds), Bound("at most", 900), Bound("at most", 420))
    stages = [Line(f"  {stage}, s", Figure(seconds)) for stage, seconds in road.stages.items()]
    return [whole, *stages, *_on_writes(road), *_specialists(road), *_steps(road), *_unseen(road)]


def _on_writes(road: Road) -> list[Line]:
    """pass^1 of base and SFT on the problems that change the state."""
    bounds = {"base": (Bound("at most", 0.05), None), "sft": (Bound("at least", 0.4), Bound("at least", 0.7))}
    return [
        Line(
            f"pass^1 on write problems, temperature {road.temperature:g}: {model}, {world}",
            _figure(road.metrics["evaluate"][model][world]["families"].get(WRITE, {}).get("pass_1")),
            *bounds[model],
        )
        for model in bounds
        for world in road.worlds
    ]


def _specialists(road: Road) -> list[Line]:
    """Each specialist against SFT in its own world: all problems, and how many families lie below SFT by their interval."""
    found = []
    for world in road.worlds:
        block = road.gap(f"rl_{world}", "sft", world)
        below = [name for name, part in block["families"].items() if name != WRITE and part["pass_1"]["high"] < 0]
        found += [
            Line(f"rl_{world} - sft, {world}", _figure(block["pass_1"]), Bound("above", 0), Bound("at least", 0.15)),
            Line(f"  families below sft, {world}", Figure(len(below), note=", ".join(below)), Bound("at most", 0)),
        ]
    return found


def _steps(road: Road) -> list[Line]:
    """Differences over both worlds: the merge against SFT and the best specialist, the filter against its control."""
    best, both = road.best_specialist(), "mean over worlds"
    against_best = road.mean_gap("merged", best)
    return [
        Line(f"merged - sft, {both}", road.mean_gap("merged", "sft"), Bound("above", 0)),
        Line(
            f"merged - best specialist, {both}",
            replace(against_best, note=f"best: {best}") if against_best else None,
            aim=Bound("above", 0),
        ),
        Line(f"sft filtered - unfiltered, {both}", road.mean_gap("sft", UNFILTERED), aim=Bound("above", 0)),
    ]


def _unseen(road: Road) -> list[Line]:
    """pass^1 on what training never saw, apart for each kind."""
    return [
        Line(f"{tag}: {model}, {world}", _figure(road.metrics["evaluate"][model][world]["tags"].get(tag, {}).get("pass_1")))
        for tag in TAGS
        for model in ("sft", "merged")
        for world in road.worlds
    ]


def over_seeds(found: Sequence[Sequence[Line]]) -> list[Line]:
    """The table over seeds: medians, min and max; the note says in how many seeds what is asked was met."""
    by_label: dict[str, list[Line]] = {}
    for line in (line for seed in found for line in seed):
        by_label.setdefault(line.label, []).append(line)
    return [replace(same[0], figure=_median(same)) for same in by_label.values()]


def _median(same: Sequence[Line]) -> Figure | None:
    """The same line of several seeds as one figure; seeds without it are left out, and their number is in the note."""
    figures = [line.figure for line in same if line.figure]
    if not figures:
        return None
    means = [figure.mean for figure in figures]
    low, high = (
        None if any(end is None for end in ends) else statistics.median(end for end in ends if end is not None)
        for ends in ([figure.low for figure in figures], [figure.high for figure in figures])
    )
    bound = same[0].required or same[0].aim
    met = f"{sum(bound.holds(figure) for figure in figures)} of {len(figures)} seeds" if bound else ""
    notes = sorted({figure.note for figure in figures if figure.note})
    return Figure(statistics.median(means), low, high, note="; ".join([met] * bool(met) + notes), spread=(min(means), max(means)))


def show(title: str, found: Sequence[Line]) -> None:
    """Print a table."""
    table = [(title, "asked", "aim", "measured", ""), *(line.cells() for line in found)]
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    for row in table:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip(), flush=True)
    print(flush=True)


def prepare(folder: Path, profile: str, seed: int) -> None:
    """A project of its own in `folder` on a profile and a seed, without a champion."""
    if folder.exists():
        raise SystemExit(f"{folder} holds no finished road, and every road starts from nothing: remove it or name another")
    folder.mkdir(parents=True)
    copy(folder, profile)
    pipeline = folder / "params" / "pipeline.yaml"
    text, count = re.subn(r"^seed: \d+", f"seed: {seed}", pipeline.read_text(encoding="utf-8"), flags=re.M)
    if count != 1:
        raise SystemExit(f"params/profiles/{profile}.yaml: expected one line 'seed: NUMBER', found {count}")
    pipeline.write_text(text, encoding="utf-8")
    (folder / "params" / "champion.yaml").write_text("champion: none\n", encoding="utf-8")


def travel(folder: Path, seed: int) -> Road:
    """Run the road in a copy and read what it left. SystemExit with the road's last lines when it fails."""
    start = time.perf_counter()
    answer = cairn_run(folder)
    seconds = time.perf_counter() - start
    if answer.returncode:
        last = "\n".join(answer.stdout.splitlines()[-TAIL:])
        raise SystemExit(f"seed {seed}: `cairn run` ended with {answer.returncode} after {seconds:.0f} s:\n{last}")
    (folder / WALL).write_text(f"{seconds:.3f}\n", encoding="utf-8")
    return read(folder, seed, seconds)


def read(folder: Path, seed: int, seconds: float) -> Road:
    """What a finished road left in its project folder."""
    from tasks.contract import schemas
    from tasks.contract.tables import read_table
    from tasks.engine.settings import load

    summary = json.loads((folder / "reports" / "summary.json").read_text())
    trials = read_table(folder / "data" / "evaluate" / "trials.parquet", schemas.TRIAL).select(COLUMNS).to_pylist()
    return Road(
        seed=seed,
        seconds=seconds,
        stages={name: stage["seconds"] for name, stage in summary["stages"].items()},
        metrics=json.loads((folder / "data" / "evaluate" / "metrics.json").read_text()),
        test={(model, world): played for (which, model, world), played in tables(trials).items() if which == "test"},
        temperature=load(folder).params("evaluate").temperature,  # type: ignore[attr-defined]
    )


def engine(folder: Path) -> Line:
    """Episodes a second of the rollout engine with the trained SFT model: a process for each world, side by side, their rates
    added."""
    from tasks.engine import start

    os.environ.update(start.kernels(1))  # the processes are new: they read this before torch loads
    worlds = sorted(path.parent.name for path in (folder / "data" / "worlds").glob("*/world.json"))[:CORES]
    with ProcessPoolExecutor(len(worlds), multiprocessing.get_context("spawn")) as pool:
        rates = list(pool.map(_rate, [folder] * len(worlds), worlds))
    each = ", ".join(f"{world} {rate:.1f}" for world, rate in zip(worlds, rates, strict=True))
    figure = Figure(sum(rates), note=f"{len(worlds)} processes side by side: {each}")
    return Line("episodes/s of the engine, sft", figure, Bound("at least", 50), Bound("at least", 100))


def _rate(folder: Path, name: str) -> float:
    """Episodes/s in one world: the evaluation's problems and trials, played as the evaluation plays; median of the rounds."""
    import torch

    from infra.bench_rollout import _play
    from tasks.checkpoints import folders
    from tasks.engine.settings import load
    from tasks.evaluate.pass_k import draw
    from tasks.players.checkpoint_agent import CheckpointAgent
    from tasks.players.local import own
    from tasks.players.scripted import client
    from tasks.worlds.api.frozen import load as load_world

    torch.set_num_threads(1)
    settings = load(folder)
    params: Any = settings.params("evaluate")
    model, tokenizer = folders.load(folder / "data" / "sft" / "model", "cpu", params.dtype)
    sizes = {key: getattr(params, key) for key in ("rows", "temperature", "max_turn_tokens", "max_episode_tokens")}
    world = load_world(folder / "data" / "worlds" / name)
    jobs = [(problem, trial) for problem in draw(world, params.problems, 0, params.split) for trial in range(params.trials)]
    rates = []
    for repeat in range(ROUNDS):
        agent = CheckpointAgent(model, tokenizer, settings.shared.prompt.model_dump(), engine=own.opened, **sizes)
        rates.append(_play(agent, world, jobs, client("human", world, {}, 0), repeat)["episodes/s"])
    return statistics.median(rates)


def write(target: Path, profile: str, found: Mapping[int, Sequence[Line]]) -> None:
    """Write the tables down, with versions; again after every seed, so that a road that fails takes nothing with it."""

    def plain(table: Sequence[Line]) -> list[dict[str, Any]]:
        return [
            {**asdict(line), "required": str(line.required or ""), "aim": str(line.aim or ""), "verdict": line.verdict}
            for line in table
        ]

    record = {
        "bench": "quickstart",
        "profile": profile,
        "cores": os.cpu_count(),
        "seeds": {str(seed): plain(table) for seed, table in found.items()},
        "medians": plain(over_seeds(list(found.values()))),
        "python": platform.python_version(),
        "versions": {library: version(library) for library in ("prefect", "dvc", "torch", "transformers")},
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def measure(home: Path, options: argparse.Namespace) -> None:
    """Run all seeds in folders below `home`; print a table for each and one over all."""
    folders = {seed: home / f"seed_{seed}" for seed in options.seeds}
    finished = {seed for seed, folder in folders.items() if (folder / WALL).is_file()}
    for seed, folder in folders.items():
        if seed not in finished:
            prepare(folder, options.profile, seed)
    found: dict[int, list[Line]] = {}
    for seed, folder in folders.items():
        print(f"seed {seed}: the road {'was run' if seed in finished else 'runs'} in {folder}", flush=True)
        known = read(folder, seed, float((folder / WALL).read_text())) if seed in finished else travel(folder, seed)
        found[seed] = lines(known)
        write(options.json, options.profile, found)
        show(f"{options.profile}, seed {seed}", found[seed])
    last = options.seeds[-1]
    found[last].append(engine(folders[last]))
    write(options.json, options.profile, found)
    show(f"{options.profile}, median of {len(found)} seeds (min..max)", over_seeds(list(found.values())))
    print(f"also in {options.json}")


def main() -> int:
    """Measure and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = sorted(path.stem for path in (ROOT / "params" / "profiles").glob("*.yaml"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--profile", default="quickstart", choices=known)
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the copies here, as DIR/seed_N, and go on from finished ones")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the tables go; else reports/bench/road_PROFILE.json")
    args = parser.parse_args()
    args.json = args.json or ROOT / "reports" / "bench" / f"road_{args.profile}.json"
    args.seeds = list(dict.fromkeys(args.seeds))
    if args.keep:
        measure(args.keep.resolve(), args)
        return 0
    with tempfile.TemporaryDirectory() as home:
        measure(Path(home), args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
