"""params/roles.lock: whose report counts, what of a role is in a key, and what DVC's lock may say of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.contract.params import BadInput
from tasks.engine import dvc_lock, roles_lock
from tasks.engine.dotted import overlay
from tasks.engine.dvc_yaml import listed
from tasks.engine.hashes import Hashes
from tasks.engine.key import Key, key_of
from tasks.engine.settings import Settings, load
from tasks.engine.shared_params import REACHED, ROLES, Role
from tests.conftest import ROOT

PLAYER: dict[str, Any] = {"backend": "openai_compatible", "base_url": "http://127.0.0.1:1/v1", "model": "small"}
OTHERS: dict[str, Any] = {
    "backend": "local",
    "path": "elsewhere",
    "identity": "2",
    "errors": {"vague": 0.5},
    "base_url": "http://127.0.0.1:2/v1",
    "model": "large",
    "key_env": "KEY",
    "key_block": "block",
    "price_in": 1.0,
    "price_out": 1.0,
    "max_in_flight": 2,
    "timeout_seconds": 2.0,
    "retries": 2,
    "structured": "prompt",
    "send_seed": False,
    "temperature": 0.5,
    "thinking": 2,
    "others": [PLAYER],
    "dtype": "bfloat16",
    "content_beside_calls": "empty",
    "limit_field": "max_completion_tokens",
}
"""Another value than the default's (or PLAYER's) for the fields of a role."""
SAID = {"asked": "small", "answered": "small-2026", "root": "/models/small"}


def with_judge(tree: dict[str, Any], **more: Any) -> Settings:
    return Settings(ROOT, overlay(load(ROOT, "smoke").tree, "roles.judge", tree), **more)


def digest(settings: Settings, hashes: Hashes, stage: str = "generate") -> str:
    about = listed(settings)[stage]
    return key_of(settings, about, dict.fromkeys(about.inputs, "x"), hashes).digest


@pytest.mark.parametrize("deep", [False, True], ids=["role", "committee"])
def test_the_key_holds_what_changes_answers_and_not_how_a_model_is_reached(tmp_path: Path, deep: bool) -> None:
    """Each field of a role, of the role itself and of its second model: where it is reached and what it costs is left out."""
    hashes = Hashes(tmp_path)

    def of(player: dict[str, Any]) -> str:
        return digest(with_judge({**PLAYER, "others": [player]} if deep else player), hashes)

    before = of(PLAYER)
    for name in Role.model_fields:
        default = getattr(Role(**PLAYER), name)
        other = OTHERS.get(
            name, not default if isinstance(default, bool) else (default or 0) + 1 if not isinstance(default, str) else "x"
        )
        assert (of({**PLAYER, name: other}) == before) == (name in REACHED), name


def test_a_report_counts_for_the_model_that_is_asked_and_for_the_stages_that_ask_it(tmp_path: Path) -> None:
    hashes = Hashes(tmp_path)
    unknown = with_judge(PLAYER)
    known = roles_lock.noting(unknown, {"judge": SAID})
    assert roles_lock.in_force(known)["judge"] == {"judge": SAID}
    assert digest(known, hashes) != digest(unknown, hashes) and digest(known, hashes, "critique") == digest(unknown, hashes, "critique")
    other = roles_lock.noting(unknown, {"judge": {**SAID, "answered": "small-2027"}})
    assert digest(other, hashes) != digest(known, hashes), "another revision is another result"
    for tree in ({**PLAYER, "model": "large"}, {"backend": "scripted"}):
        assert roles_lock.in_force(with_judge(tree, reported=known.reported))["judge"] is None
    several = with_judge({**PLAYER, "others": [{"backend": "scripted"}, {**PLAYER, "model": "large"}]}, reported=known.reported)
    both = roles_lock.noting(several, {"judge/3": {"asked": "large"}})
    assert roles_lock.in_force(both)["judge"] == {"judge": SAID, "judge/3": {"asked": "large"}}


def test_the_file_has_an_entry_for_every_role_and_keeps_odd_words(tmp_path: Path) -> None:
    """1e5, yes and 010 are names; YAML 1.1 and 1.2 would make numbers and truths of them, if they were written bare."""
    from dvc.utils.serialize import parse_yaml

    said = {"judge": {"judge": {"asked": "1e5", "answered": "yes", "root": "010: é"}}}
    (tmp_path / "params").mkdir()
    path = tmp_path / "params/roles.lock"
    path.write_text(roles_lock.text(said), encoding="utf-8")
    found = roles_lock.read(tmp_path)
    assert found == {role: said.get(role) for role in ROLES} == parse_yaml(path.read_text(encoding="utf-8"), path)
    assert (ROOT / "params/roles.lock").read_text() == roles_lock.text(dict(yaml.safe_load((ROOT / "params/roles.lock").read_text())))
    path.write_text("judge: small\n")
    with pytest.raises(BadInput, match=r"params/roles\.lock: expected for each role null or what its servers said"):
        roles_lock.read(tmp_path)
    path.unlink()
    assert roles_lock.read(tmp_path) == {}, "a run writes it"


def test_what_the_machine_remembers_counts_where_the_file_says_nothing(tmp_path: Path) -> None:
    (tmp_path / roles_lock.MEMORY).write_text(json.dumps({"http://127.0.0.1:1/v1 small": SAID}))
    assert roles_lock.in_force(roles_lock.recalled(with_judge(PLAYER), tmp_path))["judge"] == {"judge": SAID}
    known = roles_lock.noting(with_judge(PLAYER), {"judge": {**SAID, "root": "/new"}})
    assert roles_lock.recalled(known, tmp_path) is known
    elsewhere = with_judge({**PLAYER, "base_url": "http://127.0.0.1:2/v1"})
    assert roles_lock.in_force(roles_lock.recalled(elsewhere, tmp_path))["judge"] is None


def test_dvc_holds_a_result_wherever_its_model_was_reached(tmp_path: Path) -> None:
    """A clone on a machine with another port adopts; what DVC would call modified is not called up to date."""
    (tmp_path / "params").mkdir()
    settings = roles_lock.noting(with_judge(PLAYER), {"judge": SAID})
    about = listed(settings)["generate"]
    for file in about.files:
        (tmp_path / file).write_text((ROOT / file).read_text())
    (tmp_path / "params/roles.lock").write_text(roles_lock.text(roles_lock.in_force(settings)))
    servers = {role: roles_lock.in_force(settings)[role] for role in about.roles}
    key = Key({"inputs": {"worlds": "w.dir"}, "code": {}, "servers": servers, "versions": {}, "kernels": {}})

    def lock(player: dict[str, Any], said: dict[str, Any]) -> None:
        tree = with_judge(player).tree
        params = {
            "params/pipeline.yaml": {name: _dig(tree, name) for name in about.settings},
            "params/roles.lock": {role: said if role == "judge" else None for role in about.roles},
            **{file: yaml.safe_load((tmp_path / file).read_text()) or {} for file in about.files},
        }
        entry = {
            "deps": [{"path": "data/worlds", "md5": "w.dir"}],
            "params": params,
            "outs": [{"path": "data/generate", "md5": "g.dir"}],
        }
        (tmp_path / "dvc.lock").write_text(yaml.safe_dump({"stages": {"generate": entry}}))

    def look() -> tuple[str | None, bool]:
        tree = settings.tree
        held = dvc_lock.held(tmp_path, about, key, tree)
        return held, dvc_lock.up_to_date(tmp_path, about, key, tree, "g.dir", {}, {"worlds": "w.dir"})

    lock(PLAYER, {"judge": SAID})
    assert look() == ("g.dir", True)
    lock({**PLAYER, "base_url": "http://127.0.0.1:2/v1", "retries": 9}, {"judge": SAID})
    assert look() == ("g.dir", False)
    lock({**PLAYER, "temperature": 0.5}, {"judge": SAID})
    assert look() == (None, False)
    lock(PLAYER, {"judge": {**SAID, "answered": "small-2027"}})
    assert look() == (None, False)


def _dig(tree: Any, name: str) -> Any:
    for part in name.split("."):
        tree = tree[part]
    return tree
