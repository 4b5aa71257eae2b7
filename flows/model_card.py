"""What a registered version says of itself: its model card, its tags, and how the agent is to act. All of it is read from the records
of the stages that made it; what they do not know is said to be unknown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from flows.markdown_text import heading, table
from flows.records import Records
from tasks.contract import schemas, tables
from tasks.contract.params import StageFailed
from tasks.engine.artifact import Artifact
from tasks.engine.plan import Plan
from tasks.engine.registry import ADDRESS, About
from tasks.serving.endpoint.card import Behaviour
from tasks.worlds import GRADED_WITHOUT_STATE, NOT_COMPARED, UNSEEN

BASE = "<folder of the base>"
_DATA = ("worlds", "generate", "critique", "filter")
"""Rooms that make data."""


@dataclass(frozen=True)
class _Made:
    """A candidate and what is on record of it. records: stage -> the record of its result, in the road's order. metrics: the
    evaluation's, {} when it is not at hand. base: about the checkpoint that the road began with, see `base_of`. commit: of the
    checkout, "" outside git."""

    plan: Plan
    candidate: str
    name: str
    verdict: Mapping[str, Any]
    records: Mapping[str, Mapping[str, Any]]
    metrics: Mapping[str, Any]
    base: Mapping[str, str]
    commit: str


def about_version(plan: Plan, decision: Artifact, candidate: Artifact, verdict: Mapping[str, Any], tags: Mapping[str, str]) -> About:
    """What is registered with a candidate. tags: the evidence, to which those for people are added.

    Raises StageFailed when nobody knows in which worlds it was trained: an agent without its system message and tools is of no use.
    """
    road, store = plan.settings.road, plan.store
    known = Records(store)
    found = {**known.behind(candidate.identity), **known.behind(decision.identity)}
    records = {name: found[name] for name in road.names if name in found}
    judged = records.get(road.judged)
    metrics = json.loads((store.view(judged["identity"]) / "metrics.json").read_text()) if judged else {}
    name = str((verdict.get("candidate") or {}).get("model") or road[road.candidate].checkpoint())
    made = _Made(plan, candidate.identity, name, verdict, records, metrics, base_of(plan, records), tags.get("cairn.commit", ""))
    behaviour = _behaviour(plan, records, candidate.identity)
    asked = _first_words(plan, judged, name) or (min(one.parent.name for one in behaviour.worlds.glob("*/world.json")), "Hello!")
    sections = [
        _head(made),
        _results(made),
        _gates(made),
        adapter_use(asked[1], asked[0], tags["cairn.base"]) if _alone(plan, tags) else how_to_use(*asked),
        _licence(made),
        _merge_map(made),
        _data(made),
        _recipe(made),
    ]
    said = "The agent that Cairn's road promotes. The alias `champion` points at the version in use; each has its model card."
    people = {**_readable(made), **{f"cairn.base_{key}": value or "unknown" for key, value in made.base.items()}}
    return About(behaviour, [one for one in sections if one], {**tags, **people}, said)


def base_of(plan: Plan, records: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Where the checkpoint that a road began with comes from ({origin, license, identity}); {} for one that was made here."""
    for step in plan.settings.road.entering("base"):
        if step in records and plan.store.has(records[step]["identity"]):
            file = plan.store.view(records[step]["identity"]) / "source.json"
            found = json.loads(file.read_text("utf-8")) if file.is_file() else {}
            return {name: found[name] for name in ("origin", "license", "identity") if name in found}
    return {}


def _behaviour(plan: Plan, records: Mapping[str, Mapping[str, Any]], identity: str) -> Behaviour:
    steps = [name for name in plan.settings.road.entering("worlds") if name in records]
    if not steps or not plan.store.has(records[steps[0]]["identity"]):
        raise StageFailed(
            f"the frozen worlds of the candidate {identity} are not in the store, so nobody knows the system message and the tools "
            "that have to go with it. `cairn run` makes them anew, `dvc pull` may bring them."
        )
    played: Any = plan.settings.params(plan.settings.road.judged)
    worlds = plan.store.view(records[steps[0]]["identity"])
    limits = {name: getattr(played, name) for name in ("temperature", "max_turn_tokens") if hasattr(played, name)}
    return Behaviour(worlds, plan.settings.shared.prompt.model_dump(), identity, **limits)


def _first_words(plan: Plan, judged: Mapping[str, Any] | None, model: str) -> tuple[str, str] | None:
    """(world, what the user says first) of a test conversation that the model won and in which it called tools; None without one."""
    file = plan.store.view(judged["identity"]) / "trials.parquet" if judged else None
    if file and file.is_file():
        schema = schemas.some(schemas.TRIAL, "model", "set", "world", "messages", "n_tool_calls", "reward")
        for row in tables.read_rows(file, schema):
            if row["model"] == model and row["set"] == "test" and row["reward"] and row["n_tool_calls"]:
                return row["world"], next(one["content"] for one in row["messages"] if one["role"] == "user")
    return None


def _readable(made: _Made) -> dict[str, str]:
    """Tags that say in a line of the registry's list what a version is."""
    ours = (made.metrics.get("evaluate") or {}).get(made.name) or {}
    found = {"profile": made.plan.settings.shared.profile, "recipe": " > ".join(_methods(made).values())}
    found |= {f"pass_1.{world}": _estimate(block["pass_1"]) for world, block in ours.items()}
    found["gates"] = ", ".join(f"{gate['name']} {'holds' if gate['passed'] else 'fails'}" for gate in made.verdict["gates"])
    found["base_model"] = made.base.get("origin") or next(iter(_methods(made).values()), "unknown")
    found["license"] = made.base.get("license") or ("unknown" if made.base else "made here")
    return {name: value[:4000] for name, value in found.items()}


def _methods(made: _Made) -> dict[str, str]:
    """Step -> "step: method" of the steps that make the model, data apart."""
    road = made.plan.settings.road
    makers = [name for name in made.records if road[name].room not in (*_DATA, "evaluate", "decide")]
    return {name: f"{name}: {made.records[name]['parts']['method']}" for name in makers}


def _head(made: _Made) -> str:
    lines = [f"# {made.plan.settings.shared.promote.model}: {made.name}", "", made.verdict["reason"], ""]
    commit = f", commit `{made.commit}`" if made.commit else ""
    lines.append(f"Artifact `{made.candidate}`, profile `{made.plan.settings.shared.profile}`{commit}.")
    return "\n".join(lines)


def _estimate(one: Mapping[str, Any] | None) -> str:
    return f"{one['mean']:.3f} [{one['low']:.3f}, {one['high']:.3f}], n = {one['n']}, {one['trials']} trials" if one else "-"


def _results(made: _Made) -> str:
    """pass^1 and the higher pass^k of the candidate and of the model that the road began with, world by world."""
    lines: list[list[str]] = []
    for mark, part in (("", made.metrics), (f" ({UNSEEN})", made.metrics.get(UNSEEN) or {})):
        for model, worlds in (part.get("evaluate") or {}).items():
            if model == made.name or model == next(iter(part["evaluate"])):
                for world, block in worlds.items():
                    powers = [name for name in block if name.startswith("pass_") and block[name]]
                    lines += [[model, f"{world}{mark}", name.replace("_", "^"), _estimate(block[name])] for name in powers]
    if served := made.metrics.get("as_served"):
        lines.append([made.name, "all, as served", "pass^1", _estimate(served["as_served"])])
    if not lines:
        return "\n".join([*heading("Results"), "The evaluation is not at hand."]).strip()
    users = ", ".join(one for one in _roles(made.records[made.plan.settings.road.judged]) if one.startswith("human"))
    blind = [f"- {world}: {GRADED_WITHOUT_STATE}." for world in made.metrics.get(NOT_COMPARED, ())]
    notes = [
        "",
        *blind,
        *([""] if blind else []),
        f"Means with 95 % intervals, which resample problems; one training seed. Who played the user: {users}.",
    ]
    return "\n".join([*heading("Results"), *table(["model", "world", "figure", "on the test problems"], lines), *notes]).strip()


def _gates(made: _Made) -> str:
    lines = [[gate["name"], "holds" if gate["passed"] else "fails", str(gate.get("explanation", ""))] for gate in made.verdict["gates"]]
    return "\n".join([*heading("Gates"), *table(["gate", "verdict", "why"], lines)]).strip()


def how_to_use(world: str, text: str) -> str:
    """The example of the card, with something that a user says in a world: a test runs it as it stands."""
    text = text.replace("`", "'")  # which would end the block of code
    return f"""## Use

A chat request, with `tool_calls` in the answer (Cairn need not be installed; `requirements.txt` has the versions):

```python
import mlflow

agent = mlflow.pyfunc.load_model("{ADDRESS}")
request = {{"messages": [{{"role": "user", "content": {text!r}}}], "custom_inputs": {{"world": {world!r}}}}}
print(agent.predict(request)["choices"][0]["message"])
```

Model, tokenizer and chat template, and calls out of the model's own text:

```python
import json
import mlflow

folder = mlflow.artifacts.download_artifacts("{ADDRESS}")
parts = mlflow.transformers.load_model(folder, return_type="components")
from cairn_agent import Agent  # lies in the version; load_model has put it on the path

card = json.load(open(f"{{folder}}/agent_card.json"))  # system messages, tools, chat format, generation
agent = Agent(parts["model"].eval(), parts["tokenizer"], card)
print(agent.reply([{{"role": "user", "content": {text!r}}}], world={world!r}).message)
```"""


def _alone(plan: Plan, tags: Mapping[str, str]) -> bool:
    """Whether the version is an adapter without its base."""
    return plan.settings.shared.promote.form == "adapter" and "cairn.base" in tags


def adapter_use(text: str, world: str, base: str) -> str:
    """As `how_to_use`, for a version that is an adapter. base: says which checkpoint it changes. A test runs it as it stands, with the
    folder of that checkpoint in the place of BASE."""
    text = text.replace("`", "'")
    return f"""## Use

This version is an adapter (`promote.form: adapter`). It works on the checkpoint that it was trained on, which is not in it: {base}.
Write the folder of that one where {BASE} stands; another one is refused. Cairn need not be installed; `requirements.txt` has the
versions.

```python
import mlflow

agent = mlflow.pyfunc.load_model("{ADDRESS}", model_config={{"base": "{BASE}"}})
request = {{"messages": [{{"role": "user", "content": {text!r}}}], "custom_inputs": {{"world": {world!r}}}}}
print(agent.predict(request)["choices"][0]["message"])
```

The model alone; `agent_card.json` beside it has system messages, tools, chat format and generation:

```python
import mlflow
from peft import PeftModel
from transformers import AutoModelForCausalLM

folder = mlflow.artifacts.download_artifacts("{ADDRESS}")
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{BASE}"), folder)
```"""


def _recipe(made: _Made) -> str:
    lines = [*heading("Recipe")]
    for name in _methods(made):
        record = made.records[name]
        parts = record["parts"]
        lines += [f"**{name}**: method `{parts['method']}`, artifact `{record['identity']}`, seed {parts['settings'].get('seed')}", ""]
        shown = {**parts["params"], **({"loop": parts["loop"]} if parts.get("loop") else {})}
        lines += [f"```yaml\n{yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)}```", ""]
    return "\n".join(lines if len(lines) > 3 else [*lines, "The records of the run are not at hand."]).strip()


def _merge_map(made: _Made) -> str:
    """Which models were merged, and what became of each."""
    steps = [name for name in made.plan.settings.road.entering("merge") if name in made.records]
    lines: list[str] = []
    for name in steps:
        record = made.records[name]
        inputs = ", ".join(f"{one} `{identity}`" for one, identity in record["parts"]["inputs"].items())
        lines += [*heading("Merge map"), f"`{name}` by `{record['parts']['method']}` of {inputs}.", ""]
        experts = record["figures"].get("experts") or {}
        figures = list(dict.fromkeys(key for one in experts.values() for key in one))
        rows = [[expert, *(_short(one.get(key)) for key in figures)] for expert, one in experts.items()]
        lines += [*table(["expert", *figures], rows)] if rows else []
    return "\n".join(lines).strip()


def _data(made: _Made) -> str:
    road = made.plan.settings.road
    lines = [*heading("Data")]
    for name, record in made.records.items():
        if road[name].room in _DATA:
            numbers = {key: value for key, value in record["figures"].items() if isinstance(value, int | float | str) and value != ""}
            told = ", ".join(f"{key} {_short(value)}" for key, value in numbers.items())
            worlds = ", ".join(record["figures"].get("worlds") or ())
            lines.append(
                f"- **{name}** (`{record['parts']['method']}`, artifact `{record['identity']}`): {told or worlds or 'adopted'}"
            )
            lines += [f"  - {role}" for role in _roles(record)]
    return "\n".join(lines if len(lines) > 3 else [*lines, "The records of the data are not at hand."]).strip()


def _roles(record: Mapping[str, Any]) -> Iterator[str]:
    """Who played which role, as the key of a stage has it."""
    for key, role in record["parts"]["settings"].items():
        if key.startswith("roles.") and role.get("backend") not in (None, "none"):
            simulated = ", *simulated*" if role["backend"] == "scripted" else ""
            model = f" {role['model']}" if role.get("model") else ""
            yield f"{key.removeprefix('roles.')}: {role['backend']}{model}{simulated}"


def _licence(made: _Made) -> str:
    if not made.base:
        return "## Licence\n\nThe base was made here, from nothing: no licence of another model applies."
    of = ", ".join(f"{name} {value or 'unknown'}" for name, value in made.base.items())
    return f"## Licence\n\nThe model goes on from another one, whose licence applies: {of}."


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
