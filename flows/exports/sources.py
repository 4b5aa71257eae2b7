"""Where the conversations of an export come from: the artifact of a stage, its worlds, its blueprints, and how it was made.

An artifact's folder holds rows alone. What is known of the run that made it (params, roles, seed, inputs) is the record of its key in
the store, found by the artifact's identity; a folder from elsewhere has none, and the card then says only what the rows say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.records import Records
from tasks.contract.params import BadInput
from tasks.engine.dvc_yaml import DATA
from tasks.road import ROAD, Road

if TYPE_CHECKING:
    from tasks.engine.artifact import Store

FILES = {"generate": "trajectories.parquet", "filter": "dataset.parquet"}
"""Room -> the file with the conversations that a step of it leaves."""
SHOWN = 12
"""Characters of an identity in a message, as in the tables of a run."""
PARTS = ("state", "outputs", "required")
"""Parts of the outcome whose product is the reward."""


@dataclass(frozen=True)
class Source:
    """One artifact. room: generate or filter. folder: with its rows. worlds: frozen worlds. generate: folder with the blueprints, or
    None. records: stage -> what the store recorded when it made this artifact and those it hangs on ({"identity", "parts",
    "figures"}), in the road's order; may lack stages. made: the one of the stage that made the conversations, or None."""

    room: str
    folder: Path
    worlds: Path
    generate: Path | None
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    made: Mapping[str, Any] | None = None

    def count(self) -> int:
        """How many conversations there are."""
        import pyarrow.parquet as pq

        return int(pq.ParquetFile(self.folder / FILES[self.room]).metadata.num_rows)

    def rows(self) -> Iterator[dict[str, Any]]:
        """Every conversation, with `accepted` and the `reason` why not."""
        from tasks.contract import schemas, tables

        schema = {"generate": schemas.TRAJECTORY, "filter": schemas.DATASET}[self.room]
        for row in tables.read_rows(self.folder / FILES[self.room], schema, group=256):
            if self.room == "filter":
                yield {**row, "accepted": row["keep"]}
            else:
                yield {**row, "accepted": bool(row["reward"]), "reason": ", ".join(part for part in PARTS if not row[part])}

    @cached_property
    def prompts_and_tools(self) -> dict[str, tuple[str, list[dict[str, Any]]]]:
        """World -> (system message with the whole policy, tool schemas), read from the frozen files: no world's code is needed."""
        from tasks.worlds.api.folder import read_json

        found = {}
        for about in sorted(self.worlds.glob("*/world.json")):
            policy = (about.parent / "policy.md").read_text(encoding="utf-8").strip()
            name = read_json(about)["name"]
            found[name] = (f"You are the {name} agent.\n\n{policy}".strip(), read_json(about.parent / "schemas.json"))
        return found

    def system_and_tools(self, world: str) -> tuple[str, list[dict[str, Any]]]:
        """System message and tools of a world; BadInput when it is not among the worlds."""
        if world not in self.prompts_and_tools:
            known = ", ".join(self.prompts_and_tools) or "none"
            raise BadInput(f"{self.worlds}: no frozen world {world!r}, which the conversations are about; there: {known}.")
        return self.prompts_and_tools[world]


def find(stage: str, text: str, project: Path, store: Store, road: Road = ROAD) -> Source:
    """The source that `text` names: "" for data/<stage>, a folder, or artifact:<identity>. BadInput when its rows are not there."""
    from flows.short_identities import completed
    from tasks.engine.checkpoint_names import checkpoint

    room, default = road[stage].room, project / DATA / stage
    if not text and not default.is_dir():
        raise BadInput(_not_there(stage, Records(store, road)))
    folder = checkpoint(completed(text, project, store), project, store) if text else default
    if not (folder / FILES[room]).is_file():
        raise BadInput(f"{text or default}: no {FILES[room]} here, so it is not what stage {stage!r} leaves.")
    records = Records(store, road).behind(store.hashes.path(folder), stage)
    inputs = records[stage]["parts"]["inputs"] if stage in records else {}
    worlds = _input(road.input(stage, "worlds"), inputs, store, folder)
    player = stage if room == "generate" else road.input(stage, "generate")
    if worlds is None:
        raise BadInput(f"{folder}: the frozen worlds of its conversations are neither in the store nor beside it; `dvc pull` may help.")
    generate = folder if player == stage else _input(player, inputs, store, folder)
    return Source(room, folder, worlds, generate, records, records.get(player))


def _not_there(stage: str, records: Records) -> str:
    """Why the workspace has no rows of a stage, and where there are some."""
    said = f"{DATA}{stage} is not there; `cairn run --to {stage}` makes it, or name an artifact with --from."
    made = [f"--from artifact:{one['identity'][:SHOWN]} (profile {one.get('profile', 'unknown')})" for one in records.newest(stage)[:3]]
    if not made:
        return said
    return (
        f"{said} Experiments, such as `make smoke` and `cairn run --profile` or `--set`, leave their results in the store and not in "
        f"{DATA}. The newest there: {', '.join(made)}."
    )


def _input(name: str, inputs: Mapping[str, str], store: Store, folder: Path) -> Path | None:
    """The artifact that was this input; or, when there is no record or its bytes are gone, what lies beside the folder."""
    identity = inputs.get(name)
    if identity and store.has(identity):
        return store.view(identity)
    beside = folder.parent / name
    return beside if beside.is_dir() and (not identity or store.hashes.path(beside) == identity) else None
