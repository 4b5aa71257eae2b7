"""The report's sections on what the rooms did: learning curves, blueprints, critiques, the filter's waterfall, the merge map."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from flows.report.charts import Bar, Cell, Curve, bars, curves, heat, smooth
from flows.report.reading import Folders, colours, number, read_columns, read_csv
from flows.report.talks import clean
from tasks.contract import schemas
from tasks.road import ROAD, Road

MOST_TENSORS = 400
"""Lines of the merge table that are shown; ours: a page stays light."""


def learning(folders: Folders, road: Road = ROAD) -> list[dict[str, Any]]:
    """Curves of every training: a step's own, or those of its units; columns that have no chart of their own come as small ones."""
    paths: dict[str, tuple[str, Path]] = {}
    for step in road:
        folder = folders.get(step.name)
        if folder and (folder / "curves.csv").is_file():
            paths[step.checkpoint()] = (step.name, folder / "curves.csv")
        elif folder:
            for path in sorted(folder.glob("*/curves.csv")):
                paths[step.checkpoint(path.parent.name)] = (f"{step.name} in {path.parent.name}", path)
    kinds = colours([*paths], road)
    found = [_curves_of(path, title, kinds[model]) for model, (title, path) in paths.items()]
    return [entry for entry in found if entry]


def _curves_of(path: Path, title: str, kind: str) -> dict[str, Any]:
    lines = read_csv(path)
    played = bool(lines) and "reward" in lines[0]
    main = ("reward", "validation") if played else ("loss", "validation_loss")
    axis = "mean reward" if played else "loss, nats a token"
    series = {name: _points(lines, name) for name in (lines[0] if lines else ()) if name != "step"}
    series = {name: points for name, points in series.items() if points}
    shown: list[Curve] = []
    for name in main:
        points = series.pop(name, [])
        if name.startswith("validation"):
            shown += [Curve(name.replace("_", " "), kind, points, "dots")] if points else []
        elif len(points) >= 20 and name == "reward":
            window = max(5, len(points) // 12)
            shown += [Curve("", kind, points, "faint"), Curve(f"mean of {window} steps", kind, smooth(points, window))]
        elif points:
            shown.append(Curve(name.replace("_", " "), kind, points))
    small = [(name, curves([Curve("", kind, points)], "step", name.replace("_", " "), 190)) for name, points in series.items()]
    return {"title": title, "chart": curves(shown, "step", axis) if shown else "", "small": small} if shown or small else {}


def _points(lines: Sequence[Mapping[str, str]], name: str) -> list[tuple[float, float]]:
    pairs = ((number(line.get("step")), number(line.get(name))) for line in lines)
    return [(step, value) for step, value in pairs if step is not None and value is not None]


def blueprints(folders: Folders, stage: str) -> dict[str, Any]:
    """Attempts of a stage at blueprints: accepted by attempt, refused by status, with the commonest reasons."""
    table = read_columns(
        folders, stage, "blueprints.parquet", schemas.BLUEPRINT, "status", "attempt", "fail_reason", "world", "avg_score"
    )
    if table is None or not table.num_rows:
        return {}
    found = table.to_pylist()
    accepted = Counter(row["attempt"] for row in found if row["status"] == "accepted")
    refused = Counter(row["status"] for row in found if row["status"] != "accepted")
    reasons = {
        status: Counter(_kind_of_reason(row["fail_reason"]) for row in found if row["status"] == status).most_common(6)
        for status in refused
    }
    lines = [
        Bar(f"accepted, attempt {attempt + 1}", n, f"{n:,}", f"{n} accepted at attempt {attempt + 1}", "good")
        for attempt, n in sorted(accepted.items())
    ]
    for status, n in refused.most_common():
        label = status.replace("failed_", "refused: ").replace("_", " ")
        lines.append(Bar(label, n, f"{n:,}", f"{n} of {len(found)} attempts {label}", "bad"))
    return {
        "stage": stage,
        "chart": bars(lines, "attempts at blueprints"),
        "attempts": len(found),
        "accepted": sum(accepted.values()),
        "reasons": [{"status": status.removeprefix("failed_"), "lines": lines} for status, lines in reasons.items()],
    }


def _kind_of_reason(text: str | None) -> str:
    """A reason without the names and numbers that make each one different: 'order W1001 is ...' and 'order W2 is ...' are one."""
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", "\u2026", text or "no reason given")
    return clean(re.sub(r"[#\w./-]*\d[\w./-]*", "\u2026", plain))[:160]


def critique(folders: Folders, stage: str, played_by: str) -> dict[str, Any]:
    """The critics' score of conversations won and lost, and pairs kept and dropped by reason. played_by: the stage that played them."""
    scores = read_columns(
        folders,
        stage,
        "critiques.parquet",
        schemas.CRITIQUE,
        "traj_id",
        "source",
        "score",
        "n_units",
        "n_dropped",
    )
    played = read_columns(folders, played_by, "trajectories.parquet", schemas.TRAJECTORY, "traj_id", "reward")
    if scores is None or played is None:
        return {}
    reward = dict(zip(played["traj_id"].to_pylist(), played["reward"].to_pylist(), strict=True))
    judged = [
        row for row in scores.to_pylist() if row["source"] == "aggregate" and row["score"] is not None and row["traj_id"] in reward
    ]
    lines = []
    for label, kind, won in (("won", "good", 1), ("lost", "bad", 0)):
        group = [row for row in judged if reward[row["traj_id"]] == won]
        if group:
            mean = math.fsum(row["score"] for row in group) / len(group)
            faults = math.fsum(row["n_units"] for row in group) / len(group)
            words = f"{mean:.2f} (n = {len(group)})"
            lines.append(Bar(label, mean, words, f"{label}: mean score {mean:.2f}, {faults:.1f} faults found a conversation", kind))
    pairs = read_columns(folders, stage, "preferences.parquet", schemas.PREFERENCE, "kept", "drop_reason")
    drops = (
        Counter((row["drop_reason"] or "dropped") if not row["kept"] else "kept" for row in pairs.to_pylist()) if pairs else Counter()
    )
    return {"stage": stage, "chart": bars(lines, "mean score") if lines else "", "n": len(judged), "pairs": drops.most_common()}


def waterfall(folders: Folders, stage: str) -> dict[str, Any]:
    """What each check of a filter left and dropped."""
    lines = read_csv(folders[stage] / "waterfall.csv") if stage in folders else []
    if not lines:
        return {}
    drawn = []
    for line in lines:
        kept, dropped = int(line["kept"]), int(line["dropped"])
        label = line["reason"].replace("_", " ") or "all conversations"
        words = f"{kept:,}" + (f"  (\u2212{dropped:,})" if dropped else "")
        drawn.append(Bar(label, kept, words, f"{label} ({line['stage']}): {dropped} dropped, {kept} left", gone=dropped))
    table = read_columns(folders, stage, "dataset.parquet", schemas.DATASET, "split", "keep")
    kept_by = pc.value_counts(table.filter(table["keep"])["split"]).to_pylist() if table is not None else []
    splits = sorted((entry["values"], entry["counts"]) for entry in kept_by)
    return {
        "stage": stage,
        "chart": bars(drawn, "filter"),
        "all": int(lines[0]["kept"]),
        "kept": int(lines[-1]["kept"]),
        "splits": splits,
    }


_LAYER = re.compile(r"(?:^|\.)(\d+)\.")
OUTSIDE = "\u2013"
"""The column of what belongs to no layer."""
_COUNTS = ("numel", "kept_n", "trimmed_n")
_NORMS = ("delta_l2", "masked_l2")
_NUMBERS = (*_NORMS, "mean_pairwise_cos", "sign_conflict_frac")
_REPORT = pa.schema(
    [*((name, pa.string()) for name in ("tensor", "model")), *((name, pa.int64()) for name in _COUNTS)]
    + [(name, pa.float64()) for name in _NUMBERS]
)
"""What is read of the merge room's report (`tasks.merge.core.tally.COLUMNS` says what each is)."""
Line = Mapping[str, Any]
"""One tensor and expert."""


def merge_map(folders: Folders, stage: str, kinds: Mapping[str, str]) -> dict[str, Any]:
    """How far each expert moved, tensor by tensor; where and how much the experts agree; what the method left of each."""
    table = read_columns(folders, stage, "report.parquet", _REPORT, *_REPORT.names)
    lines = table.to_pylist() if table is not None else []
    if not lines:
        return {}
    experts = list(dict.fromkeys(line["model"] for line in lines))
    most = max(map(_moved, lines)) or 1.0
    maps = [
        (f"how far {expert} moved", _tensor_map([line for line in lines if line["model"] == expert], lambda line: _moved(line) / most))
        for expert in experts
    ]
    if len(experts) > 1:
        first = [line for line in lines if line["model"] == experts[0]]  # these two are the same for all experts
        maps.append(("where they disagree in sign", _tensor_map(first, lambda line: 2 * (line["sign_conflict_frac"] or 0.0))))
        maps.append(("how alike their changes are", _tensor_map(first, lambda line: line["mean_pairwise_cos"] or 0.0)))
    maps.append(("what is left of them, layer by layer", _left_map(lines, experts)))
    maps.append(("norms before and after", _norm_bars(lines, experts, kinds)))
    return {
        "stage": stage,
        "maps": [{"title": title, "chart": chart} for title, chart in maps],
        "most": f"{most:.3g}",
        "trimmed": _most_trimmed(_by_layer(lines).values()),
        "lines": [{**line, "kept": _share(line, "kept_n")} for line in lines[:MOST_TENSORS]],
        "more": max(0, len(lines) - MOST_TENSORS),
        "kinds": kinds,
    }


def _moved(line: Line) -> float:
    """Root mean square of a change."""
    return float(line["delta_l2"]) / math.sqrt(line["numel"] or 1)


def _share(line: Line, count: str) -> float:
    return (line[count] or 0) / (line["numel"] or 1)


def _left(line: Line) -> float:
    """Norm after over norm before; a method may also stretch what it keeps."""
    return float(line["masked_l2"]) / (line["delta_l2"] or 1.0)


def _note(line: Line) -> str:
    counts = ", ".join(f"{name} {line[name]:,}" for name in _COUNTS if line[name] is not None)
    numbers = ", ".join(f"{name} {line[name]:.4g}" for name in _NUMBERS if line.get(name) is not None)
    return f"{line['tensor']}, {line['model']}: {counts}, {numbers}"


def _place(tensor: str) -> str:
    layer = _LAYER.search(tensor)
    return layer[1] if layer else OUTSIDE


def _columns(tensors: Iterable[str]) -> list[str]:
    """Layers in order, then the column of what belongs to none."""
    return sorted({_place(tensor) for tensor in tensors}, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else 0))


def _tensor_map(lines: Sequence[Line], share: Callable[[Line], float]) -> str:
    """Kinds of tensors down, layers across."""
    placed = {}
    for line in lines:
        kind = re.sub(r"^model\.|layers\.|\.weight$", "", _LAYER.sub(".", line["tensor"], count=1)).strip(".")
        placed[kind, _place(line["tensor"])] = Cell(share(line), _note(line))
    return heat(list(dict.fromkeys(kind for kind, _ in placed)), _columns(line["tensor"] for line in lines), placed, "layer")


def _by_layer(lines: Sequence[Line]) -> dict[tuple[str, str], dict[str, Any]]:
    """(expert, layer) -> its tensors as one line: counts added up, norms as of one long vector."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        place = _place(line["tensor"])
        name = "outside the layers" if place == OUTSIDE else f"layer {place}"
        one = found.setdefault((line["model"], place), {"tensor": name, "model": line["model"]} | dict.fromkeys((*_COUNTS, *_NORMS), 0))
        one.update({key: one[key] + (line[key] or 0) for key in _COUNTS})
        one.update({key: math.hypot(one[key], line[key]) for key in _NORMS})
    return found


def _left_map(lines: Sequence[Line], experts: Sequence[str]) -> str:
    """The share of the entries that is kept, of the norm that is left, and of the entries that are trimmed; layers across."""
    layers = _by_layer(lines)
    most = _most_trimmed(layers.values())
    cells = {}
    for (expert, place), line in layers.items():
        kept, left, trimmed = _share(line, "kept_n"), _left(line), _share(line, "trimmed_n")
        note = f"{_note(line)}: {100 * kept:.3g} % of the entries, {100 * left:.3g} % of the norm, {100 * trimmed:.3g} % trimmed"
        cells[f"{expert} kept", place] = Cell(kept, note)
        cells[f"{expert} norm", place] = Cell(left, note)
        if most:
            cells[f"{expert} trimmed", place] = Cell(trimmed / most, note)
    measures = ("kept", "norm", "trimmed") if most else ("kept", "norm")
    names = [f"{expert} {measure}" for measure in measures for expert in experts]
    return heat(names, _columns(line["tensor"] for line in lines), cells, "layer")


def _most_trimmed(layers: Iterable[Line]) -> float:
    return max(_share(line, "trimmed_n") for line in layers)


def _norm_bars(lines: Sequence[Line], experts: Sequence[str], kinds: Mapping[str, str]) -> str:
    """Per expert the norm of its whole change: solid what is left of it, pale what was taken away."""
    drawn = []
    for expert in experts:
        own = [line for line in lines if line["model"] == expert]
        before, after = (math.hypot(*(line[key] for line in own)) for key in _NORMS)
        words = f"{after:.3g} of {before:.3g}"
        drawn.append(Bar(expert, after, words, f"{expert}: norm {words}", kinds.get(expert, "count"), max(0.0, before - after)))
    return bars(drawn, "norm after and before")
