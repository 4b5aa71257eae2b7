"""What learned from a row of a data set: the trainings that read it, the models that go on from theirs, and versions of those."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.records import Record
from flows.trace.rows import Place
from flows.trace.stages import Known


def learned_from(known: Known, row: Mapping[str, Any], place: Place) -> dict[str, list[str]]:
    """Facts: which steps trained on the row (and which read its data set without), what went on from them, which versions."""
    readers = [one for one in known.records.readers(place.identity) if one["parts"]["stage"] in known.road.names]
    own = [line for one in readers for line in _training(known, row, one)]
    later = [one for one in _later(known, readers) if one["identity"] not in {reader["identity"] for reader in readers}]
    there = {one["identity"] for one in (*readers, *later)}
    versions = {f"version {one['version']} of {one['model']}": None for one in known.ledger.entries() if one.get("identity") in there}
    return {
        "learned by": own or ["no training that is recorded here read this data set"],
        "goes on in": [
            f"{one['parts']['stage']} {one['identity']}" for name in known.road.names for one in later if one["parts"]["stage"] == name
        ],
        "was champion": list(versions),
    }


def _training(known: Known, row: Mapping[str, Any], record: Record) -> Iterator[str]:
    """What one step that read the data set did with the row; sft trains on kept rows of the train split, and says what it left out."""
    stage, name = record["parts"]["stage"], f"{record['parts']['stage']} {record['identity']}"
    if known.road[stage].room != "sft":
        yield f"{name}: reads the data set; which rows it took is not recorded"
        return
    if not row["keep"]:
        yield f"{name}: not trained on, the row was dropped"
    elif row["split"] != "train":
        yield f"{name}: not trained on, of the {row['split']} split" + (
            " (its loss is watched)" if row["split"] == "validation" else ""
        )
    elif (why := _left_out(known.folder(record["identity"]), row["traj_id"])) is None:
        yield f"{name}: trained on unless it was left out for its length; dropped.csv, which says that, is not at hand (`dvc pull`)"
    else:
        yield f"{name}: left out, {why}" if why else f"{name}: trained on"
    if (record["parts"].get("loop") or {}).get("control"):
        yield f"{name}/unfiltered: a control on as many rows, drawn from all by its seed; which ones is not recorded"


def _left_out(folder: Path | None, conversation: str) -> str | None:
    """Why sft left a row out; "" when it did not, None when that cannot be said."""
    if folder is None or not (folder / "dropped.csv").is_file():
        return None
    with (folder / "dropped.csv").open(encoding="utf-8", newline="") as stream:
        return next((line["reason"] for line in csv.DictReader(stream) if line["traj_id"] == conversation), "")


def _later(known: Known, records: list[Record]) -> Iterator[Record]:
    """What was made of results, and of what was made of them."""
    met, todo = {one["identity"] for one in records}, [one["identity"] for one in records]
    while todo:
        for record in known.records.readers(todo.pop(0)):
            if record["identity"] not in met:
                met.add(record["identity"])
                todo.append(record["identity"])
                yield record
