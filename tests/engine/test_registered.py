"""A registered version works where it is loaded: with what lies in it alone, in a process that has no Cairn."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.model_card import how_to_use
from tasks.chat.local.kept import QWEN3_INSTRUCT
from tasks.checkpoints import folders, saving
from tasks.engine.mlflow_run import MlflowRun
from tasks.engine.registered.agent import Agent
from tasks.engine.registry import About, register, short
from tasks.engine.track import Tracker
from tasks.players.checkpoint_agent import CheckpointAgent
from tasks.players.local import own
from tasks.serving.endpoint.card import Behaviour, agent_card
from tests.rollout import tiny
from tests.services.servers import mlflow_server

ASK = "Hello, please cancel order #W12345, my name is Ada Lovelace."
CALL = {"name": "get_order", "arguments": {"order_id": "#W12345"}}
TURN = {"role": "assistant", "content": "", "tool_calls": [{"id": "call_0", "type": "function", "function": CALL}]}
TOOL = {
    "type": "function",
    "function": {
        "name": "get_order",
        "description": "Read an order.",
        "parameters": {"type": "object", "properties": {"order_id": {"type": "string", "description": "Its number."}}},
    },
}
SYSTEM = "You are the retail agent."


def frozen(folder: Path, *names: str) -> Path:
    """Frozen worlds, as far as a card reads them."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "world.json").write_text(json.dumps({"name": name}))
        (folder / name / "policy.md").write_text("Be kind.\n")
        tool = json.loads(json.dumps(TOOL).replace("get_order", "get_order" if name == "retail" else f"get_{name}"))
        (folder / name / "schemas.json").write_text(json.dumps([tool]))
    return folder


def behaviour(worlds: Path, **prompt: str) -> Behaviour:
    return Behaviour(worlds, {"tools": "none", "policy": "none", **prompt}, "a" * 32 + ".dir", 0.0, 48)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt one turn by heart: behind the retail world's system message and ASK it calls `get_order`."""
    import torch

    (rows,) = QWEN3_INSTRUCT.rows(tiny.tokenizer(), [(SYSTEM, [{"role": "user", "content": ASK}, TURN], ())])
    ids, mask = torch.tensor([rows[0].ids]), torch.tensor([rows[0].mask])
    model = tiny.model(loudness=1.0).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        model(ids, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("learnt") / "model"
    saving.save(model.eval(), tiny.tokenizer(), folder)
    return folder


def about(worlds: Path) -> About:
    """What goes with a version, its model card with the example alone."""
    return About(behaviour(worlds), ["# An agent", how_to_use("retail", ASK)], {"cairn.artifact": "x", "gates": "all hold"}, "Agents.")


def registered(checkpoint: Path, place: Path, uri: str) -> tuple[Tracker, str]:
    """The tracker of a run, and the version that it registered: of an agent of two worlds."""
    facts = {"run": "a" * 64, "profile": "smoke", "tags": {}, "uri": uri, "prefect": {}}
    tracker = Tracker(place / ".cairn", facts)
    return tracker, register(tracker, "cairn-agent", checkpoint, about(frozen(place / "worlds", "retail", "airline")))


def agent(checkpoint: Path, card: dict[str, Any]) -> Agent:
    return Agent(*folders.load(checkpoint), card)


NOT_INSTALLED = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tasks", "flows"):
            raise ModuleNotFoundError(f"no module named {name}: Cairn is not installed here")
sys.meta_path.insert(0, Missing())
"""


def elsewhere(folder: Path, code: str, *arguments: str, **environment: str) -> Any:
    """What a program prints as JSON, in another folder, where Cairn is not installed."""
    folder.mkdir(exist_ok=True)
    surroundings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "MLFLOW"))}
    answer = subprocess.run(
        [sys.executable, "-c", NOT_INSTALLED + code, *arguments],
        cwd=folder,
        env={**surroundings, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.strip().splitlines()[-1])


LOAD = """
import contextlib, io, json, mlflow
uri, ask, tools = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
folder = mlflow.artifacts.download_artifacts(uri, dst_path="here")
card = open(f"{folder}/README.md").read()
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    for block in card.split("```python")[1:]:
        exec(block.partition("```")[0])
chat = mlflow.pyfunc.load_model(folder)
answers = {
    "world": chat.predict({"messages": [{"role": "user", "content": ask}], "custom_inputs": {"world": "retail"}}),
    "tools": chat.predict({"messages": [{"role": "user", "content": ask}], "tools": tools}),
}
needs = open(f"{folder}/requirements.txt").read().split()
print(json.dumps({**answers, "example": printed.getvalue(), "modules": sorted(sys.modules.keys() & {"cairn_agent", "tasks"}), "needs": needs}))
"""


def check(found: dict[str, Any]) -> None:
    """What a program that has the version alone says of it."""
    (choice,) = found["world"]["choices"]
    assert choice["finish_reason"] == "tool_calls" and found["world"]["object"] == "chat.completion"
    (call,) = choice["message"]["tool_calls"]
    assert call["function"] == {"name": "get_order", "arguments": '{"order_id": "#W12345"}'} and call["id"] == "call_0"
    assert found["tools"]["choices"] == [choice], "the tools of a world say which one is meant, and stay out of the prompt"
    by_pyfunc, by_transformers = map(ast.literal_eval, found["example"].strip().splitlines())
    assert by_pyfunc["tool_calls"] == by_transformers["tool_calls"] == choice["message"]["tool_calls"]
    assert found["modules"] == ["cairn_agent"]
    pinned = dict(one.split("==") for one in found["needs"])
    assert {"mlflow", "torch", "transformers"} <= pinned.keys() and pinned["transformers"] == importlib.metadata.version("transformers")


def test_a_version_acts_where_cairn_is_not_installed_and_its_cards_example_makes_calls(
    checkpoint: Path, tmp_path: Path, mlflow_uri: str
) -> None:
    tracker, version = registered(checkpoint, tmp_path, mlflow_uri)
    client = tracker.mlflow.client
    found = client.get_model_version("cairn-agent", version)
    assert found.description.startswith("## Use\n") and f'load_model("{found.source}")' in found.description
    assert found.tags["gates"] == "all hold" and client.get_registered_model("cairn-agent").description == "Agents."
    check(elsewhere(tmp_path / "else", LOAD, f"models:/cairn-agent/{version}", ASK, json.dumps([TOOL]), MLFLOW_TRACKING_URI=mlflow_uri))


LOAD_ADAPTER = """
import contextlib, io, json, mlflow
uri, base, other = sys.argv[1:4]
folder = mlflow.artifacts.download_artifacts(uri, dst_path="here")
card = open(f"{folder}/README.md").read()
printed = io.StringIO()
with contextlib.redirect_stdout(printed):
    for block in card.split("```python")[1:]:
        exec(block.partition("```")[0].replace("<folder of the base>", base))
refused = []
for wrong in ("", "/nowhere", other):
    try:
        mlflow.pyfunc.load_model(folder, model_config={"base": wrong})
    except Exception as error:
        refused.append(str(error))
needs = open(f"{folder}/requirements.txt").read().split()
modules = sorted(sys.modules.keys() & {"cairn_agent", "tasks"})
print(json.dumps({"example": printed.getvalue(), "refused": refused, "needs": needs, "modules": modules, "adapters": list(model.peft_config)}))
"""


def test_an_adapters_version_acts_on_its_base_and_refuses_another(checkpoint: Path, tmp_path: Path, mlflow_uri: str) -> None:
    """Its card's example runs, where Cairn is not installed, with the base's folder in it: the agent has learnt the call by its base."""
    from flows.model_card import adapter_use
    from tasks.checkpoints.adapter_params import AdapterParams
    from tasks.checkpoints.starting import begin

    start = begin(checkpoint, AdapterParams(kind="lora", r=2), {})
    worn = start.wear(start.model)
    start.keep(worn, tmp_path / "made/model", tmp_path / "made/adapter")
    tracker = Tracker(tmp_path / ".cairn", {"run": "a" * 64, "profile": "smoke", "tags": {}, "uri": mlflow_uri, "prefect": {}})
    what = behaviour(frozen(tmp_path / "worlds", "retail", "airline"))
    about = About(what, ["# An adapter", adapter_use(ASK, "retail", "the learnt one")], {"cairn.artifact": "x"}, "Agents.")
    version = register(tracker, "cairn-agent", tmp_path / "made/model", about)
    tiny.saved(tmp_path / "other")
    uri = {"MLFLOW_TRACKING_URI": tracker.facts["uri"]}
    found = elsewhere(
        tmp_path / "else", LOAD_ADAPTER, f"models:/cairn-agent/{version}", str(checkpoint), str(tmp_path / "other"), **uri
    )
    (call,) = ast.literal_eval(found["example"].strip())["tool_calls"]
    assert call["function"] == {"name": "get_order", "arguments": '{"order_id": "#W12345"}'}
    unnamed, nowhere, another = found["refused"]
    assert "this version is an adapter and needs the checkpoint" in unnamed and "base = '/nowhere'" in nowhere
    assert "this is another checkpoint than the adapter was trained on" in another and "model_config={'base': FOLDER}" in another
    assert found["modules"] == ["cairn_agent"] and found["adapters"] == ["default"]
    assert dict(one.split("==") for one in found["needs"])["peft"] == importlib.metadata.version("peft")


def test_a_long_card_is_cut_between_its_sections_in_the_list_of_versions() -> None:
    assert short(["# A", "## B", "c" * 80], 80) == "# A\n\n## B\n\n(The rest of this card is README.md beside the weights.)"
    assert short(["# A", "## B"], 80) == "# A\n\n## B"


@pytest.mark.parametrize(
    ("uri", "place", "told"), [("http://x", "/srv/a", "/srv/a"), ("http://x", "mlflow-artifacts:/1", ""), ("sqlite:///x", "/srv/a", "")]
)
def test_a_server_whose_experiment_keeps_files_in_a_folder_is_noticed(tmp_path: Path, uri: str, place: str, told: str) -> None:
    """Cairn made such an experiment before it left the place to the server; its versions load only where that folder is."""
    run = MlflowRun(tmp_path, {"uri": uri})
    run.__dict__ |= {"experiment": "1", "client": SimpleNamespace(get_experiment=lambda one: SimpleNamespace(artifact_location=place))}
    assert run.kept_apart() == told


@pytest.mark.services
def test_with_a_tracking_server_the_weights_go_through_it(checkpoint: Path, tmp_path: Path) -> None:
    """The server keeps them in a folder of its own; the trainer's is gone when another machine loads the version."""
    with mlflow_server(tmp_path / "server") as uri:
        _, version = registered(checkpoint, tmp_path / "trainer", uri)
        assert not list((tmp_path / "trainer").rglob("*.safetensors")) and list((tmp_path / "server/kept").rglob("*.safetensors"))
        shutil.rmtree(tmp_path / "trainer")
        check(elsewhere(tmp_path / "else", LOAD, f"models:/cairn-agent/{version}", ASK, json.dumps([TOOL]), MLFLOW_TRACKING_URI=uri))


# --- requests --------------------------------------------------------------------------------------------------------


def test_it_answers_as_the_checkpoint_plays_in_evaluate(checkpoint: Path, tmp_path: Path) -> None:
    """Prompt and produced ids are those of `CheckpointAgent`, turn by turn, with the tool's answer and the user's next words."""
    model, tokenizer = folders.load(checkpoint)
    world = SimpleNamespace(name="retail", policy="Be kind.", tools={"get_order": TOOL}, schemas=lambda: [TOOL])
    turns_played = 0
    for prompt in ({"tools": "none", "policy": "none"}, {"tools": "full", "policy": "full"}, {"tools": "names", "policy": "none"}):
        card = agent_card("a", checkpoint, behaviour(frozen(tmp_path / prompt["tools"], "retail"), **prompt))
        served = Agent(model, tokenizer, card)
        player = CheckpointAgent(model, tokenizer, prompt, engine=own.opened, max_turn_tokens=48, max_episode_tokens=4096)
        read = 0  # in this conversation
        messages: list[dict[str, Any]] = [{"role": "user", "content": ASK}]
        for _ in range(2):
            player.send("c", messages, world, 0)  # type: ignore[arg-type]
            while not (turns := player.poll()):
                pass
            ((_, turn),) = turns
            reply = served.reply(messages)
            read += len(turn.prompt_ids)
            assert (reply.read, reply.produced) == (read, len(turn.ids))
            assert reply.error == turn.error.replace("max_tokens", "") and _read(reply.message) == turn.message
            if turn.error:  # there the conversation ends in evaluate
                break
            turns_played += 1
            read += len(turn.ids)
            messages += [turn.message, {"role": "tool", "tool_call_id": "call_0", "content": "{}"}, {"role": "user", "content": ASK}]
    assert turns_played, "the learnt call was read and answered"


def _read(message: dict[str, Any]) -> dict[str, Any]:
    """A message with the arguments of its calls read."""
    calls = [
        {**call, "function": {**call["function"], "arguments": json.loads(call["function"]["arguments"])}}
        for call in message.get("tool_calls", ())
    ]
    return {**message, **({"tool_calls": calls} if calls else {})}


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"messages": []}, "messages is empty"),
        ({"messages": [{"role": "user", "content": "Hi"}]}, "knows 2 worlds .retail, airline|airline, retail"),
        ({"messages": [{"role": "user", "content": "Hi"}], "world": "bank"}, "world = 'bank': this agent knows"),
        (
            {"messages": [{"role": "user", "content": "Hi"}], "world": "retail", "tools": [{"function": {"name": "fly"}}]},
            "tools: fly: this agent was trained without tools in its prompt",
        ),
    ],
)
def test_what_it_cannot_be_asked_is_said(checkpoint: Path, tmp_path: Path, request_: dict[str, Any], said: str) -> None:
    card = agent_card("a", checkpoint, behaviour(frozen(tmp_path, "retail", "airline")))
    with pytest.raises(ValueError, match=said):
        agent(checkpoint, card).reply(**request_)
