"""The form of Prefect's UI: choices, typed params, what Prefect compares when a run is created and what the flow says in its first second."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
from prefect import State
from prefect.server.events.schemas.automations import AutomationCreate
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import validate

from flows import form
from flows.flow_ends import INVALID, REFUSED, decided, in_words
from flows.pipeline import pipeline
from tasks.contract.params import BadInput, read_yaml
from tasks.engine import methods
from tasks.engine.param_files import profiles
from tasks.engine.settings import load
from tasks.road import ROAD
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """What `prefect deploy` sends of the flow, and the server compares with."""
    return parameter_schema(pipeline).model_dump_for_openapi()


def refusals(parameters: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    return [error.message for error in validate(parameters, schema)]  # type: ignore[arg-type]


def test_each_choice_is_there_with_its_description(schema: dict[str, Any]) -> None:
    fields = schema["properties"]
    assert fields["profile"]["enum"] == ["workspace", *profiles(ROOT)] and fields["profile"]["default"] == "workspace"
    assert fields["first"]["enum"] == fields["last"]["enum"] == fields["refresh"]["items"]["enum"] == list(ROAD.names)
    assert (fields["first"]["default"], fields["last"]["default"]) == (ROAD.names[0], ROAD.names[-1])
    quickstart = "- **quickstart**: The default profile: the whole road on a laptop CPU, offline, in minutes."
    assert quickstart in fields["profile"]["description"].split("\n\n"), "Prefect's form makes a space of a single line break"
    assert {f"- **{step.name}**: {step.summary}" for step in ROAD} <= set(fields["first"]["description"].split("\n\n"))
    assert all(field["description"] for field in fields.values()), "a field without help"
    assert "required" not in schema, "each field is optional"


def test_common_params_are_typed_as_their_owners_say(schema: dict[str, Any]) -> None:
    fields = schema["properties"]["overrides"]["properties"]
    steps = {f"{step.name}.{key}" for step in ROAD for key in ("method", *form.COMMON.get(step.room, ()))}
    assert set(fields) == {*form.SHARED, *steps}
    assert not [name for name in fields if name.startswith("promote")], "a run with overrides promotes nothing: it would do nothing"
    assert set(form.COMMON) == set(ROAD.rooms), "each stage has some"
    assert fields["merge.method"]["enum"] == list(methods.names("merge"))
    assert fields["sft.loop.epochs"]["type"] == "integer" and fields["sft.loop.epochs"]["maximum"] == 100
    assert fields["sft.loop.epochs"]["description"] == "Passes over the rows. Left empty: as in the profile."
    worlds, lines = fields["worlds.freeze.modules"]["items"]["enum"], fields["worlds.freeze.modules"]["description"].split("\n\n")
    assert "- **tasks.worlds.library.retail:Retail**: A shop's orders, products and customers" in lines
    assert [line.split("**")[1] for line in lines[1:]] == worlds and "tasks.worlds.library.library.world:Library" in worlds
    assert not [name for name, field in fields.items() if "default" in field or "$ref" in str(field)], "left empty: as in the profile"
    assert fields["filter.rejection_sampling.policy"]["enum"] == [True, False], "a switch would look as if it were off"
    assert not [name for name, field in fields.items() if "ours" in field["description"].split()], "a word of those who write methods"
    assert list(schema["properties"])[-1] == "overrides", "the long part of the form comes last"


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"profile": "smoke", "first": "sft", "last": "merge", "refresh": ["rl"]},
        {"overrides": {"sft.loop.epochs": 2, "merge.method": "ties", "rl.loop.steps": None}, "more_overrides": "seed = 3"},
        {"overrides": {"base.checkpoint.source": "x"}},  # of `cairn run --set`
    ],
)
def test_what_a_user_may_choose_is_taken(schema: dict[str, Any], parameters: dict[str, Any]) -> None:
    assert refusals(parameters, schema) == []


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"profile": "quikstart"}, "'quikstart' is not one of ['workspace'"),
        ({"first": "banana"}, "'banana' is not one of ['worlds'"),
        ({"refresh": ["banana"]}, "'banana' is not one of"),
        ({"overrides": {"merge.method": "tie"}}, "'tie' is not one of"),
        ({"overrides": {"sft.loop.epochs": 0}}, "0 is less than the minimum of 1"),
        ({"overrides": {"sft.loop.epochs": "two"}}, "is not valid under any of the given schemas"),
    ],
)
def test_what_prefect_refuses_when_the_run_is_created(schema: dict[str, Any], parameters: dict[str, Any], words: str) -> None:
    (message,) = refusals(parameters, schema)
    assert words in message


def test_lines_and_fields_become_one_mapping() -> None:
    lines = "\n# a remark\n  merge.breadcrumbs.keep = 0.3 \n\nroles.human.errors={forgets: 0.1}\nseed = null\n"
    found = form.all_overrides({"sft.loop.epochs": 2, "rl.loop.steps": None}, lines)
    assert found == {"sft.loop.epochs": 2, "merge.breadcrumbs.keep": 0.3, "roles.human.errors": {"forgets": 0.1}, "seed": None}


@pytest.mark.parametrize(
    ("overrides", "lines", "message"),
    [
        ({}, "banana", "more_overrides: 'banana': expected key=value, for example more_overrides: sft.loop.epochs=2"),
        ({}, "a = [", "more_overrides: 'a = [': not valid YAML"),
        ({"seed": 1}, "seed = 2", "more_overrides: seed is given twice, with 1 and 2. Keep one."),
        ({}, "seed = 1\nseed = 2", "seed is given twice"),
        ([], "", "overrides = []: expected a mapping"),
        ({}, None, "more_overrides = None: expected text"),
    ],
)
def test_a_mistake_ends_the_flow_with_its_message(overrides: Any, lines: Any, message: str) -> None:
    """In its first second: nothing was opened, and the state that Prefect shows has the message for its own."""
    ended = pipeline.fn(overrides=overrides, more_overrides=lines)
    assert isinstance(ended, State) and ended.is_failed() and ended.name == INVALID
    assert message in str(ended.message)


def test_the_caller_gets_the_mistake_as_it_was() -> None:
    """`cairn run` ends with 2 for it."""

    @in_words
    def wrong() -> None:
        raise BadInput("seed = x: expected a number")

    ended = wrong()
    assert isinstance(ended, State)
    with pytest.raises(BadInput, match=r"^seed = x: expected a number$"):
        ended.result()


def test_a_refusal_is_a_run_that_did_its_work_in_a_state_of_its_own() -> None:
    """Visible in the list of runs, with the reason; whoever called the flow gets its result."""
    refused = decided({"outcome": "refused", "reason": "gain: 0.01, at least 0.02 is wanted"}, {"decide": "x"})
    assert refused.is_completed() and (refused.name, refused.message) == (REFUSED, "gain: 0.01, at least 0.02 is wanted")
    other = decided({"outcome": "promoted", "reason": "version 1 is champion now."}, {"decide": "x"})
    assert (other.name, other.message) == ("Completed", "promoted: version 1 is champion now.")
    assert decided({}, {}).message is None


def test_a_wrong_param_and_a_wrong_profile_are_told_likewise() -> None:
    for given, message in [
        ({"profile": 3}, "profile = 3: expected the name of one"),
        ({"profile": "nowhere"}, "no profile 'nowhere'"),
        ({"profile": "smoke", "more_overrides": "sft.loop.epoch = 2"}, "unknown key 'epoch'. Did you mean 'epochs'?"),
    ]:
        ended = pipeline.fn(**given)  # type: ignore[arg-type]
        assert isinstance(ended, State) and ended.name == INVALID and message in str(ended.message)


def test_common_params_are_taken_by_every_profile() -> None:
    """A field of the form that some profile refuses would be a trap: each is given the value that the profile has."""
    for profile in profiles(ROOT):
        settings = load(ROOT, profile)
        given = {"seed": settings.shared.seed, "threads": settings.shared.threads}
        assert tuple(given) == form.SHARED
        for step in ROAD:
            for key in form.COMMON[step.room]:
                owner, name = form._owner(step.room, key)
                given[f"{step.name}.{key}"] = settings.values(step.name).get(name, owner.model_fields[name].default)
        load(ROOT, profile, tuple(given.items())).check(here=False)


def test_each_profile_has_a_deployment_and_each_deployment_says_what_it_is() -> None:
    deployments = read_yaml(ROOT / "infra/prefect.yaml")["deployments"]
    named = {one["name"]: one["parameters"].get("profile") for one in deployments if one["entrypoint"] == "flows.pipeline:pipeline"}
    assert named == {"workspace": None, **{name: name for name in profiles(ROOT)}}
    assert all(one["description"].strip() and one["tags"] for one in deployments)


def test_deployments_fit_their_flows() -> None:
    for one in read_yaml(ROOT / "infra/prefect.yaml")["deployments"]:
        module, name = one["entrypoint"].split(":")
        found = parameter_schema(getattr(importlib.import_module(module), name)).model_dump_for_openapi()
        wanted = {error.message for error in validate(one["parameters"], found, ignore_required=True)}  # type: ignore[arg-type]
        assert wanted == set(), one["name"]


def test_automations_are_taken() -> None:
    for one in read_yaml(ROOT / "infra/automations.yaml")["automations"]:
        AutomationCreate.model_validate(one)
