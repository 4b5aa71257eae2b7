"""The trail of a conversation or a problem of `cairn evaluate`: the row itself, and what was evaluated."""

from __future__ import annotations

from pathlib import Path

from flows.evaluate_agent import ABOUT, FOLDER
from flows.trace.conversations import row_sections
from flows.trace.rows import FILES, Place, ids_of
from flows.trace.stages import Known
from flows.trace.trail import Section, Trail
from tasks.worlds.api.folder import read_json


def of_evaluation(known: Known, name: str) -> Trail | None:
    """The trail of a row of an evaluation beside the road, by its id; None where none holds it."""
    step = known.road.judged
    for about in sorted((known.project / FOLDER).glob(f"*/{ABOUT}")):
        for file, column in FILES["evaluate"].items():
            path = about.parent / step / file
            if path.is_file() and name in ids_of(path, column):
                place = Place(step, f"{FOLDER}/{about.parent.name}", path)
                return Trail([*row_sections(known, name, place), _evaluation(about)], {})
    return None


def _evaluation(file: Path) -> Section:
    """What was evaluated, as it was noted."""
    said = read_json(file)
    roles = {
        name: f"{role['backend']} {role['model'] or role['path']} {role['base_url']}".strip() for name, role in said["roles"].items()
    }
    facts = {
        "lies in": str(file.parent),
        "agent": " ".join(dict.fromkeys(filter(None, (said["model"], said["agent"])))),
        "world": said["world"],
        "split": said["split"],
        "seed": str(said["seed"]),
        "roles": [f"{name}: {role}" for name, role in roles.items()],
        "params": ", ".join(f"{key} {value}" for key, value in said["params"].items()),
        "prompt": ", ".join(f"{key} {value}" for key, value in said["prompt"].items()),
    }
    return Section("evaluation", file.parent.name, facts, details={"about": said})
