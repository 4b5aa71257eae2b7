"""What `cairn serve` is told to serve: adapters on their base, versions that are gone, worlds that have changed since."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.ledger import Ledger
from flows.serving import source, world_changes
from flows.serving.source import Named, named
from flows.worlds import command
from tasks.checkpoints.adapter_params import AdapterParams
from tasks.checkpoints.starting import begin
from tasks.contract.params import BadInput
from tasks.engine.artifact import Store
from tasks.serving.endpoint.card import Behaviour, agent_card
from tasks.worlds.api.folder import pretty
from tasks.worlds.api.tools import tools_of
from tests.flows.shop import Kiosk
from tests.rollout import tiny

MODEL = "cairn-agent"
KIOSK = "tests.flows.shop:Kiosk"


def adapted(store: Store, place: Path, *seeds: int) -> dict[str, Path]:
    """A base and adapters of it, each an artifact of a store; identity -> folder of the adapters' artifacts."""
    import torch

    tiny.saved(place / "base/model", seed=0)
    base = store.put(place / "base")
    found: dict[str, Path] = {}
    for seed in seeds:
        start = begin(store.view(base) / "model", AdapterParams(kind="lora", r=2, save="adapter"), {base: store.view(base)})
        worn = start.wear(start.model)
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, weight in worn.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.3)
        start.keep(worn, place / str(seed) / "model", place / str(seed) / "beside")
        identity = store.put(place / str(seed))
        found[identity] = store.view(identity)
    return found


@pytest.fixture
def registry(tmp_path: Path, mlflow_uri: str, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A registry and a store of the test's own."""
    import mlflow

    monkeypatch.setattr(source, "STATE", tmp_path / "state")
    client: Any = mlflow.MlflowClient()
    client.create_registered_model(MODEL)
    return SimpleNamespace(client=client, store=Store(tmp_path / "state"), state=tmp_path / "state")


def test_a_version_that_is_an_adapter_comes_with_its_base(registry: SimpleNamespace, tmp_path: Path) -> None:
    for alias, identity in zip(("champion", "challenger"), adapted(registry.store, tmp_path / "made", 1, 2), strict=True):
        version = registry.client.create_model_version(MODEL, source=str(tmp_path), tags={"cairn.artifact": identity})
        registry.client.set_registered_model_alias(MODEL, alias, version.version)
    champion, challenger = named("champion"), named("challenger")
    assert champion.base == challenger.base and champion.base is not None and (champion.base / "model.safetensors").is_file()
    assert champion.folder != challenger.folder and (champion.folder / "adapter_config.json").is_file()
    assert (champion.name, named("2").folder) == ("champion", challenger.folder)
    registry.client.set_registered_model_alias(MODEL, "champion", "2")  # moved before the card is read: that of version 1 is meant
    assert champion.address == f"models:/{MODEL}/1" and named(f"models:/{MODEL}@champion").address == f"models:/{MODEL}/2"


def test_an_adapter_from_elsewhere_and_a_base_that_is_gone_are_told(registry: SimpleNamespace, tmp_path: Path) -> None:
    (folder,) = adapted(registry.store, tmp_path / "made", 1).values()
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match=f"does not say in which artifact its base lies.*--adapter NAME={alone}"):
        named(str(alone))
    base = json.loads((folder / "model/base.json").read_text())
    (alone / "base.json").write_text(json.dumps({**base, "artifact": "0" * 32 + ".dir"}))
    with pytest.raises(BadInput, match=r"an adapter, whose base is model of artifact 0{32}.dir"):
        named(str(alone))


def test_an_alias_whose_version_is_gone_is_no_champion_that_never_was(registry: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"there is no champion of {MODEL} yet"):
        named("champion")
    registry.client.create_model_version(MODEL, source=str(tmp_path))
    registry.client.set_registered_model_alias(MODEL, "champion", "1")
    registry.client.delete_model_version(MODEL, "1")
    Ledger(registry.state).append({"event": "promote", "version": "1", "model": MODEL, "identity": "a" * 32 + ".dir"})
    with pytest.raises(BadInput, match=r"version 1 is champion .* by the ledger, .* deleted there.*cairn rollback --to VERSION"):
        named("champion")
    with pytest.raises(BadInput, match=r"the registry does not know it: Model Version .*version=1"):
        named("1")


@pytest.fixture
def card(tmp_path: Path) -> dict[str, Any]:
    """Of an agent of the kiosk as it is now."""
    (tmp_path / "worlds/kiosk").mkdir(parents=True)
    schemas = [tool.schema() for tool in tools_of(Kiosk).values()]
    for name, text in (("world.json", pretty({"name": Kiosk.NAME})), ("schemas.json", pretty(schemas)), ("policy.md", Kiosk.POLICY)):
        (tmp_path / "worlds/kiosk" / name).write_text(text)
    behaviour = Behaviour(tmp_path / "worlds", {"tools": "none", "policy": "none"}, "x")
    return agent_card("agent", tiny.saved(tmp_path / "model"), behaviour)


def test_a_served_model_whose_world_changed_is_refused_unless_it_is_wanted(
    card: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(command, "active", lambda: (KIOSK,))
    monkeypatch.setattr(world_changes, "card_of", lambda _: card)
    here = Named(tmp_path, "champion")
    assert world_changes.card_for_now(here, False) == card and not capsys.readouterr().err
    monkeypatch.setattr(Kiosk, "POLICY", Kiosk.POLICY + "R99. No refunds.\n")
    tool = next(iter(tools_of(Kiosk)))
    card["worlds"]["kiosk"]["tools"][0]["function"]["description"] = "Something else."
    card["worlds"]["kiosk"]["tools"][1]["function"]["name"] = "fly"
    with pytest.raises(
        BadInput, match=f"kiosk: the policy, without fly now, with .* now, other arguments or words of {tool}.*--changed"
    ):
        world_changes.card_for_now(here, False)
    assert world_changes.card_for_now(here, True) == card
    assert "with the system message and the tools of then" in capsys.readouterr().err
    del card["worlds"]["kiosk"]["policy_sha256"]
    assert "of an earlier Cairn, has no hash" in world_changes.changes(card)[0]
    card["worlds"] = {"another": card["worlds"]["kiosk"]}
    assert world_changes.changes(card) == []
