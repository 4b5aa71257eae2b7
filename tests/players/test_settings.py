"""What a user writes for a role behind a server: mistakes are named before anything runs, and a key is never shown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.contract.params import BadInput, StageFailed
from tasks.engine import roles_lock
from tasks.engine import server_keys as keys
from tasks.engine.dotted import overlay
from tasks.engine.dvc_yaml import listed
from tasks.engine.job import job_of
from tasks.engine.plan import Plan
from tasks.engine.settings import Settings, load
from tasks.engine.shared_params import Role
from tasks.players.openai_compatible import EndpointClient, Setting
from tasks.players.roles import maker
from tests.conftest import ROOT

GOOD: dict[str, Any] = {
    "backend": "openai_compatible",
    "base_url": "https://api.example.org/v1",
    "model": "some-model",
    "key_env": "SOME_KEY",
}


def settings(role: dict[str, Any], **more: Any) -> Settings:
    tree = overlay(load(ROOT, "smoke").tree, "roles.judge", role)
    for key, value in more.items():
        tree = overlay(tree, key, value)
    return Settings(ROOT, tree)


def test_a_complete_role_is_accepted_and_is_part_of_the_key() -> None:
    found = settings(GOOD, budget={"max_tokens": 10})
    found.check()
    assert found.shared.roles["judge"].max_in_flight == 32 and found.shared.budget.max_tokens == 10
    for stage, about in listed(found).items():
        assert ("budget" in about.settings) == (stage in ("generate", "reserve", "critique"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"base_url": ""}, r"roles\.judge\.base_url = '': where the API begins, with http:// or https://"),
        ({"base_url": "api.example.org/v1"}, r"base_url = 'api\.example\.org/v1': where the API begins"),
        ({"base_url": "https://user:pw@api.example.org/v1"}, r"base_url: an address alone"),
        ({"base_url": "user:pw@api.example.org/v1"}, r"base_url: where the API begins"),
        ({"base_url": "https://api.example.org/v1/chat/completions"}, r"without /chat/completions"),
        ({"model": " "}, r"roles\.judge\.model is missing: the model's name at https://api\.example\.org/v1"),
        ({"key_env": "sk-secret-abc"}, r"roles\.judge\.key_env: the NAME of an environment variable .* never the key"),
        ({"key_env": "hf_secretABC"}, r"the NAME of an environment variable"),
        ({"key_block": "block"}, r"key_env and key_block both say where the key is; keep one"),
        ({"structured": "xml"}, r"structured = 'xml'.*json_schema"),
        ({"max_in_flight": 0}, r"roles\.judge\.max_in_flight = 0: Input should be greater than or equal to 1"),
        ({"api_key": "sk-secret-abc"}, r"unknown key 'judge\.api_key'|unknown key 'roles\.judge\.api_key'"),
    ],
)
def test_a_mistake_is_named_and_no_secret_with_it(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as wrong:
        settings(GOOD | change).check()
    assert "secret" not in str(wrong.value) and ":pw@" not in str(wrong.value)


def test_a_script_plays_no_role_in_place_of_a_model_that_is_named() -> None:
    """Without its backend a role is scripted: a run that asks nobody would pass for one of the named model."""
    for named in ({"base_url": "https://api.example.org/v1", "model": "m"}, {"model": "m"}, {"path": "models/m"}):
        with pytest.raises(BadInput, match=rf"roles\.judge\.backend is missing: beside {next(iter(named))} .*openai_compatible.*local"):
            settings(named).check()
        settings({**named, "backend": "scripted"}).check()
    with pytest.raises(BadInput, match=r"roles\.judge\.others\[0\]\.backend is missing"):
        settings({**GOOD, "others": [{"model": "m"}]}).check()
    settings({"errors": {"overlooks_missing_wish": 0.1}}).check()


def test_a_budget_of_money_needs_prices() -> None:
    """A server on this machine is free; any other wants its prices."""
    with pytest.raises(BadInput, match=r"roles\.judge: budget\.max_cost = 5 cannot be kept while price_in and price_out are unknown"):
        settings(GOOD, budget={"max_cost": 5}).check()
    settings(GOOD | {"price_in": 1}, budget={"max_cost": 5}).check()
    settings(GOOD | {"base_url": "http://127.0.0.1:8000/v1"}, budget={"max_cost": 5}).check()


def test_a_missing_key_is_said_before_anything_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tasks.engine.plan import Plan

    plan = Plan.open(settings(GOOD), tmp_path)  # to look at the plan needs no key
    monkeypatch.delenv("SOME_KEY", raising=False)
    plan.check_closures(["sft"])
    with pytest.raises(
        BadInput, match=r"roles\.judge\.key_env: the environment variable SOME_KEY is not set\. Set it to the key of https://api"
    ):
        plan.check_closures(["generate"])
    monkeypatch.setenv("SOME_KEY", " abc \n")
    plan.check_closures(["generate"])
    assert keys.of(Role(**GOOD).model_dump()) == "abc" and keys.of(Role(**GOOD | {"key_env": ""}).model_dump()) == ""


def test_a_job_carries_the_name_of_a_key_and_not_the_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The spec is what a process of its own is given in a file."""
    from tasks.engine.running import context

    monkeypatch.setenv("SOME_KEY", "very-secret")
    plan = Plan.open(settings(GOOD, budget={"max_tokens": 7}), tmp_path)
    job = job_of(plan, "generate", {"worlds": "0" * 32})
    spec = job.spec(tmp_path, tmp_path, {"worlds": tmp_path})
    assert "very-secret" not in json.dumps(spec) + json.dumps(job.key.parts) and "SOME_KEY" in json.dumps(spec)
    client = context(spec, print, print, print).role("judge")
    assert isinstance(client, EndpointClient) and client._setting == Setting(
        tmp_path, job.key.digest, plan.ledger, {"max_cost": 0.0, "max_tokens": 7}
    )


def test_a_run_has_one_ledger_whatever_its_budget(tmp_path: Path) -> None:
    """A raised budget goes on from what is spent, though the stage has another key; another param is another run."""
    small, large = (Plan.open(settings(GOOD, budget={"max_tokens": limit}), tmp_path) for limit in (7, 70))
    one, other = (job_of(plan, "generate", {"worlds": "0" * 32}) for plan in (small, large))
    assert one.key.digest != other.key.digest and small.run_key != large.run_key and small.ledger == large.ledger
    assert Plan.open(settings(GOOD | {"model": "another"}), tmp_path).ledger != small.ledger
    moved = Plan.open(settings(GOOD | {"base_url": "https://other.example.org/v1", "price_in": 3, "retries": 9}), tmp_path)
    assert moved.ledger == Plan.open(settings(GOOD), tmp_path).ledger, "another port or price is the same run"


def test_the_maker_gives_one_client_a_role_in_every_world() -> None:
    asked = []
    role = maker({"judge": Role(**GOOD).model_dump()}, None, 0, lambda wanted: asked.append(wanted["model"]) or "key")
    one, other = role("judge", "retail"), role("judge", "airline")
    assert one is other and (one.name, one.revision) == ("some-model", "unpinned")
    assert maker({"judge": Role(**GOOD, identity="2026-01").model_dump()}, None, 0)("judge").revision == "2026-01"
    assert asked == [], "a key is asked for when the first call is made"


def test_the_budget_reaches_every_stage_that_asks_and_no_key_of_those_that_resume(tmp_path: Path) -> None:
    """rl and evaluate stop at the budget and go on under the same key when it is raised."""
    small, large = (
        Plan.open(settings({"backend": "scripted"}, **{"roles.human": GOOD, "budget.max_tokens": n}), tmp_path) for n in (7, 70)
    )
    for stage in ("rl", "evaluate"):
        one, other = (job_of(plan, stage, dict.fromkeys(plan.stages[stage].inputs, "0" * 32)) for plan in (small, large))
        assert one.key.digest == other.key.digest
        assert one.spec(tmp_path, tmp_path, {})["budget"] == {"max_cost": 0.0, "max_tokens": 7}
        assert one.spec(tmp_path, tmp_path, {})["ledger"] == other.spec(tmp_path, tmp_path, {})["ledger"]


def test_each_player_is_told_what_its_own_server_said(tmp_path: Path) -> None:
    """A committee: the second model's report is the second model's."""
    plan = Plan.open(settings({**GOOD, "others": [{**GOOD, "model": "large"}]}), tmp_path)
    reports = {"judge": {"asked": "some-model", "root": "/a"}, "judge/2": {"asked": "large", "answered": "large-2026"}}
    plan = replace(plan, settings=roles_lock.noting(plan.settings, reports))
    judge = job_of(plan, "generate", {"worlds": "0" * 32}).spec(tmp_path, tmp_path, {})["roles"]["judge"]
    found = [(one["revision"], json.loads(one["reported"])) for one in (judge, *judge["others"])]
    assert found == [("/a", reports["judge"]), ("large-2026", reports["judge/2"])]
    assert maker({"judge": judge}, None, 0)("judge/2").revision == "large-2026"


@pytest.mark.parametrize(
    ("role", "player", "said"),
    [
        (
            "judge",
            {"backend": "none"},
            r"roles\.judge\.backend = none: only the contender may be left out\. Allowed here: scripted, local",
        ),
        ("contender", {"backend": "none", "model": "big"}, r"roles\.contender\.backend = none beside model: nobody would play\."),
        ("contender", {"backend": "local", "path": "nowhere"}, r"roles\.contender\.path = 'nowhere': not a checkpoint folder"),
        ("contender", {"backend": "local", "path": "PICKLED"}, r"roles\.contender\.path = '.*': its weights are pickled \(a\.bin\)"),
        (
            "contender",
            {"backend": "scripted", "errors": {"skips_confirmaton": 1}},
            r"roles\.contender\.errors: unknown error .*skips_conf",
        ),
        ("contender", {**GOOD, "others": [GOOD]}, r"roles\.contender\.others: several models in turn are for the judge"),
        ("policy", GOOD, r"roles: unknown role 'policy'"),
    ],
)
def test_who_may_be_nobody_and_what_a_contender_needs(role: str, player: dict[str, Any], said: str, tmp_path: Path) -> None:
    for name in ("config.json", "a.bin"):
        (tmp_path / name).write_text("{}")
    player = {key: str(tmp_path) if value == "PICKLED" else value for key, value in player.items()}
    with pytest.raises(BadInput, match=said):
        Settings(ROOT, overlay(load(ROOT, "smoke").tree, f"roles.{role}", player)).check()


def test_a_file_without_a_contender_is_told_what_to_write() -> None:
    tree = dict(load(ROOT, "smoke").tree)
    tree["roles"] = {name: role for name, role in tree["roles"].items() if name != "contender"}
    with pytest.raises(BadInput, match=r"roles\.contender\.backend is missing; .*`backend: none`, which `cairn migrate` writes"):
        listed(Settings(ROOT, tree))


def test_a_role_that_the_room_does_not_name_is_refused() -> None:
    """In rl the checkpoint that is trained acts, and nobody else can: no served agent has its token ids."""
    from tasks.engine.running import context

    tree = overlay(load(ROOT, "smoke").tree, "roles.agent", GOOD)
    assert listed(Settings(ROOT, tree))["rl"].roles == ("human",)
    human = {"backend": "scripted", "errors": {}}
    spec = {"stage": "rl", "room": "rl", "method": "grpo", "roles": {"human": human}, "inputs": {}, "prompt": None, "seed": 0}
    quiet: Any = [lambda *_: None] * 3
    ctx = context({**spec, "out": "/", "scratch": "/", "device": "cpu", "threads": 1}, *quiet)
    with pytest.raises(StageFailed, match=r"rl/grpo asked for the role 'agent', which .*ROLES in tasks/rl/__init__\.py: human"):
        ctx.agent("retail")
