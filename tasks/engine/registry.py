"""MLflow's registry: versions of a model, and the alias that points at one."""

from __future__ import annotations

import random
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tasks.checkpoints.adapters import is_adapter
from tasks.contract.params import StageFailed
from tasks.engine.mlflow_run import EXPERIMENT
from tasks.engine.track import Tracker
from tasks.serving.endpoint.card import Behaviour, agent_card

ADDRESS = "<address of this version>"
DESCRIPTION = 4900
"""Characters of a description that every store of MLflow takes."""
MOVING = "cairn.moving."
"""How the tag of a model begins whose alias somebody is moving; its value is the time, in seconds."""
STALE, WAIT = 120.0, 180.0
"""Seconds: for how long such a tag counts, and for how long others are waited for; ours. A move takes a fraction of one."""


@dataclass(frozen=True)
class About:
    """What a version says of itself. behaviour: how the agent is to act. model_card: its sections in Markdown; ADDRESS in them is
    the address by which MLflow loads it. tags: name -> value, for people and for Cairn. model: a sentence on the registered model, all
    versions of it."""

    behaviour: Behaviour
    model_card: Sequence[str]
    tags: Mapping[str, str]
    model: str


def register(tracker: Tracker, name: str, checkpoint: Path, about: About) -> str:
    """Log a checkpoint as a model of this pipeline run and register it; returns the new version.

    A whole one has the transformers flavor (model, tokenizer, chat template) and a pyfunc that acts by the agent's card, and needs no
    Cairn where it is loaded. Of an adapter the version holds the folder as it is, which PEFT loads onto its base, and that pyfunc,
    which is told where the base lies. The files go where the tracking server keeps artifacts.
    """
    tracker.flush()
    from mlflow import set_tracking_uri

    mlflow, client = tracker.mlflow, tracker.mlflow.client
    set_tracking_uri(client.tracking_uri)  # the registry asks it, of all addresses, for the logged model
    if place := mlflow.kept_apart():
        tracker.tell(
            f"the experiment {EXPERIMENT!r} of the tracking server keeps files in the folder {place}: where that is not seen, the "
            "version cannot be loaded. A new experiment takes the server's own store: delete or rename the old one there."
        )
    kind = "adapter" if is_adapter(checkpoint) else "agent"
    model = client.create_logged_model(mlflow.experiment, name, source_run_id=mlflow.parent, model_type=kind, tags=dict(about.tags))
    uri = f"models:/{model.model_id}"
    with tempfile.TemporaryDirectory() as place:
        folder = _folder(Path(place) / "version", name, checkpoint, about, model.model_id)
        (folder / "README.md").write_text("\n\n".join(about.model_card).replace(ADDRESS, uri) + "\n", "utf-8")
        client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, "READY")
    if not client.search_registered_models(filter_string=f"name = '{name}'"):
        client.create_registered_model(name)
    client.update_registered_model(name, about.model)
    description = short(about.model_card, DESCRIPTION - len(uri)).replace(ADDRESS, uri)
    if description.startswith("# "):  # MLflow's page has that title, and its list of versions shows the first line alone
        description = description.partition("\n")[2].lstrip()
    version = client.create_model_version(
        name, source=uri, run_id=mlflow.parent, tags=dict(about.tags), description=description, model_id=model.model_id
    )
    return str(version.version)


def _folder(folder: Path, name: str, checkpoint: Path, about: About, model_id: str) -> Path:
    from tasks.engine.registered import version_folder

    write = version_folder.write_adapter if is_adapter(checkpoint) else version_folder.write
    write(folder, checkpoint, agent_card(name, checkpoint, about.behaviour), model_id)
    return folder


def short(sections: Sequence[str], most: int) -> str:
    """The first sections of a model card, as many as `most` characters hold."""
    more = "\n\n(The rest of this card is README.md beside the weights.)"
    text = "\n\n".join(sections)
    kept = list(sections)
    while len(text) > most and len(kept) > 1:
        kept.pop()
        text = "\n\n".join(kept) + more
    return text[:most]


def version_with(tracker: Tracker, name: str, tag: str, value: str) -> str | None:
    """The version of a model that carries a tag's value, None when there is none."""
    found = tracker.mlflow.client.search_model_versions(f"name = '{name}' and tags.`{tag}` = '{value}'")
    return str(found[0].version) if found else None


def move_alias(tracker: Tracker, name: str, alias: str, version: str) -> None:
    """Point an alias at a version."""
    tracker.mlflow.client.set_registered_model_alias(name, alias, version)


def drop_alias(tracker: Tracker, name: str, alias: str, version: str) -> None:
    """Take an alias from a version; nothing when another version has it."""
    client = tracker.mlflow.client
    if str(client.get_registered_model(name).aliases.get(alias)) == version:
        client.delete_registered_model_alias(name, alias)


def tag(tracker: Tracker, name: str, version: str, key: str) -> str:
    """A version's tag; empty without it."""
    return str(tracker.mlflow.client.get_model_version(name, version).tags.get(key, ""))


def set_tag(tracker: Tracker, name: str, version: str, key: str, value: str) -> None:
    """Give a version a tag."""
    tracker.mlflow.client.set_model_version_tag(name, version, key, value)


def alias_at(tracker: Tracker, name: str, alias: str) -> str:
    """The version at which an alias points, "" for none."""
    return str(tracker.mlflow.client.get_registered_model(name).aliases.get(alias) or "")


def has_version(tracker: Tracker, name: str, version: str) -> bool:
    """Whether a version is there and was not deleted."""
    return bool(tracker.mlflow.client.search_model_versions(f"name = '{name}' and version_number = {int(version)}"))


@contextmanager
def alone(tracker: Tracker, name: str) -> Iterator[None]:
    """While the block runs, nobody else who comes through here moves an alias of this model, from whichever machine.

    MLflow has no lock and no change on a condition, but tags: whoever comes writes one, and goes on only if no other one is there then.
    Of two who do so at once at least one sees the other, takes his own back and tries again a little later. A tag that a killed process
    left counts for STALE seconds. StageFailed when others hold it for WAIT seconds.
    """
    client, mine, end = tracker.mlflow.client, f"{MOVING}{uuid.uuid4().hex[:8]}", time.monotonic() + WAIT
    while True:
        client.set_registered_model_tag(name, mine, str(int(time.time())))
        tags = client.get_registered_model(name).tags
        others = {tag for tag in tags if tag.startswith(MOVING) and tag != mine}
        fresh = {tag for tag in others if time.time() - float(tags[tag]) < STALE}
        if not fresh:
            break
        client.delete_registered_model_tag(name, mine)
        if time.monotonic() > end:
            raise StageFailed(f"somebody else has been moving an alias of {name} in the registry for {WAIT:.0f} s; try again later")
        time.sleep(random.uniform(0.05, 0.5))
    try:
        for tag in others:
            client.delete_registered_model_tag(name, tag)
        yield
    finally:
        client.delete_registered_model_tag(name, mine)
