"""What becomes of a decision, sentence by sentence, and who is champion after promotions, rollbacks and kills: without MLflow."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flows import ledger_database
from flows.champion_file import differs, settle
from flows.ledger import Ledger, champions
from flows.promote import foreseen, promote_candidate, turn_down
from flows.rollback import forget, rollback
from flows.run import Run
from flows.waiting import waits_as_reported
from tasks.contract.params import BadInput, StageFailed
from tasks.engine import registry
from tasks.engine.artifact import Artifact, Store
from tasks.engine.champion import CHAMPION, Standing, read
from tasks.engine.key import Key
from tasks.engine.registry_alias import Alias
from tasks.road import ROAD

GATES = [{"name": "reference", "passed": True, "figures": {}, "explanation": "On 100 fresh problems: +0.200."}]
HOLD = "All 5 gates hold. On 100 fresh problems: +0.200."
FAIL = "1 of 5 gates does not hold. reference: On 100 fresh problems: -0.200."


class Shop:
    """A project's state with a registry of its own: versions, and where the alias points."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        (folder / "params").mkdir(parents=True)
        (folder / ".gitignore").write_text(".cairn\nmodels\ndecisions\n")
        (folder / CHAMPION).write_text("# why this file\nchampion: none\n")
        self.versions: dict[str, str] = {}
        self.artifacts: dict[str, dict[str, str]] = {}
        self.deleted: set[str] = set()
        self.moved_by_hand = "tell"
        self.alias = self.challenger = ""
        self.told: dict[tuple[str, str], str] = {}
        self.asked: list[str] = []
        self.tags: dict[str, str] = {}
        self.die_after = ""
        self.notes: list[str] = []
        monkeypatch.setattr(registry, "version_with", lambda tracker, name, tag, value: self.versions.get(value))
        monkeypatch.setattr(registry, "register", self._register)
        monkeypatch.setattr("flows.model_card.about_version", lambda plan, decision, candidate, verdict, tags: tags)
        monkeypatch.setattr(registry, "move_alias", self._move)
        monkeypatch.setattr(registry, "drop_alias", self._drop)
        monkeypatch.setattr(registry, "alone", lambda tracker, name: nullcontext())
        monkeypatch.setattr(registry, "alias_at", lambda tracker, name, alias: self.alias)
        monkeypatch.setattr(registry, "has_version", lambda tracker, name, version: version not in self.deleted)
        for module in ("moved_alias", "waiting"):
            monkeypatch.setattr(f"flows.{module}.read_alias", self._read)
        monkeypatch.setattr(registry, "tag", lambda tracker, name, version, key: self.told.get((version, key), ""))
        monkeypatch.setattr(registry, "set_tag", lambda tracker, name, version, key, value: self.told.update({(version, key): value}))
        monkeypatch.setattr("flows.approval_request.ask", self._ask)
        for name in ("DVC_ROOT", "DVC_EXP_NAME"):
            monkeypatch.delenv(name, raising=False)
        self.promote_as = "auto"
        self.experiment = False
        self.store = Store(folder / ".cairn")

    def _register(self, tracker: Any, name: str, folder: Path, about: Mapping[str, str]) -> str:
        self.tags = dict(about)
        version = self.versions[about["cairn.decision"]] = str(len(self.versions) + 1)
        self.artifacts[version] = dict(about)
        self._killed("register")
        return version

    def _ask(self, project: Path, decision: str) -> list[str]:
        self.asked.append(decision)
        return ["a run asks"]

    def _drop(self, tracker: Any, name: str, alias: str, version: str) -> None:
        if (alias, version) == ("challenger", self.challenger):
            self.challenger = ""

    def _move(self, tracker: Any, name: str, alias: str, version: str) -> None:
        if alias == "challenger":
            self.challenger = version
            return
        self._killed("intent")
        self.alias = version
        self._killed("alias")

    def _read(self, uri: str, model: str, alias: str, expected: str) -> Alias:
        at = self.challenger if alias == "challenger" else self.alias
        return Alias(at, self.artifacts.get(at, {}), bool(expected) and expected not in self.deleted)

    def _killed(self, moment: str) -> None:
        if self.die_after == moment:
            self.die_after = ""
            raise KeyboardInterrupt(moment)

    @property
    def state(self) -> Path:
        return self.store.state

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.state)

    def run(self) -> Run:
        shared = SimpleNamespace(
            profile="smoke",
            promote=SimpleNamespace(model="cairn-agent", approval=self.promote_as, ledger="", moved_by_hand=self.moved_by_hand),
        )
        plan = SimpleNamespace(
            store=self.store,
            settings=SimpleNamespace(project=self.folder, shared=shared, road=ROAD),
            experiment=self.experiment,
            run_key="0123456789abcdef",
            watch=lambda stage, event, about: self.notes.append(about["note"]),
        )
        return cast(Run, SimpleNamespace(plan=plan, tracker=None, promotion={}, computed={"decide"}, note=self.notes.append))

    def model(self, name: str) -> Artifact:
        folder = self.folder / "models" / name
        (folder / "model").mkdir(parents=True, exist_ok=True)
        (folder / "model/weights").write_text(name)
        return Artifact("merge", f"key of {name}", self.store.put(folder))

    def decision(self, name: str, met: str = "", verdict: str = "promote", again: str = "") -> Artifact:
        """A decision on a model against another one (none when left out)."""
        folder = self.folder / "decisions" / f"{name}-{met}-{verdict}-{again}"
        folder.mkdir(parents=True, exist_ok=True)
        against = {"identity": self.model(met).identity} if met else None
        said = {
            "candidate": name,
            "decision": verdict,
            "reason": HOLD if verdict == "promote" else FAIL,
            "gates": GATES,
            "again": again,
            "champion": against,
        }
        (folder / "decision.json").write_text(json.dumps(said))
        return Artifact("decide", "-", self.store.put(folder))

    def promote(self, name: str, met: str = "", verdict: str = "promote", approved: str = "", again: str = "") -> dict[str, Any]:
        run = self.run()
        promote_candidate(run, self.decision(name, met, verdict, again), self.model(name), approved)
        return run.promotion

    def back(self, to: str = "") -> str:
        return rollback(self.run(), "it is rude", to)

    def standing(self) -> Standing:
        return read(self.folder / CHAMPION)

    def names(self, *models: str) -> list[str]:
        return [self.model(name).identity for name in models]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(tmp_path / "shop", monkeypatch)


# --- sentences -------------------------------------------------------------------------------------------------------


def test_promoted(shop: Shop) -> None:
    assert shop.promote("a") == {
        "outcome": "promoted",
        "decision": "promote",
        "reason": f"version 1 of cairn-agent is champion now. {HOLD}",
        "version": "1",
        "alias": "champion",
    }
    assert shop.notes == [f"promoted: version 1 of cairn-agent is champion now. {HOLD}"]


def test_refused_by_a_gate(shop: Shop) -> None:
    said = shop.promote("a", verdict="refuse")
    assert (said["outcome"], said["decision"], said["reason"], said["version"], said["alias"]) == (
        "refused",
        "refuse",
        FAIL,
        None,
        None,
    )


def test_already_champion_says_so_once(shop: Shop) -> None:
    shop.promote("a")
    said = shop.promote("a")
    assert (said["outcome"], said["reason"]) == ("unchanged", "version 1 is already champion, and it is this very model.")
    assert said["alias"] == "champion" and len(shop.ledger.entries()) == 1
    worse = shop.promote("a", verdict="refuse")
    assert worse["reason"].endswith(f"this very model. The gates would refuse it under the present params: {FAIL}")


@pytest.mark.parametrize(
    ("case", "why"),
    [
        ("experiment", "an experiment (profile or --set) promotes nothing"),
        ("dvc", "a DVC experiment promotes nothing"),
        ("older", "this checkout is older than the champion's commit"),
        ("other", "it was decided against no champion, and the champion is {b} now; `cairn run` decides anew"),
    ],
)
def test_not_carried_out_is_no_refusal_by_a_gate(shop: Shop, monkeypatch: pytest.MonkeyPatch, case: str, why: str) -> None:
    """The gates say yes: the sentence begins with what says no, and never reads "refuse: All 5 gates hold"."""
    git(shop.folder, "init", "-q", "-b", "main")
    commit(shop.folder, "one")
    commit(shop.folder, "two")
    shop.promote("b")
    shop.experiment = case == "experiment"
    if case == "dvc":
        monkeypatch.setenv("DVC_EXP_NAME", "x")
    if case == "older":
        git(shop.folder, "checkout", "-q", "HEAD~1")
    said = shop.promote("a", met="" if case == "other" else "b")
    assert said["outcome"] == "not promoted" and said["decision"] == "refuse" and said["alias"] is None
    assert said["reason"].startswith(why.format(b=shop.model("b").identity)), said["reason"]
    assert said["reason"].endswith(f". The gates would allow it: {HOLD}")


def test_waiting_for_approval_then_approved(shop: Shop) -> None:
    """While it waits it stands as challenger, and the decision is asked about; waiting on makes no second version."""
    shop.promote_as = "manual"
    for _ in range(2):
        said = shop.promote("a")
        assert (said["outcome"], said["decision"], said["version"], said["alias"]) == ("waiting", "waiting", "1", None)
        assert said["reason"] == f"promote.approval is manual: `cairn promote` carries it out; a run asks. {HOLD}"
        assert (shop.challenger, shop.alias, len(shop.versions), shop.ledger.entries()) == ("1", "", 1, [])
        assert waits_as_reported(shop.run().plan, shop.decision("a"), said), "a run with nothing to do asks nobody again"
    assert not waits_as_reported(shop.run().plan, shop.decision("b"), said)
    assert shop.asked == [shop.decision("a").identity] * 2
    assert shop.promote("a", approved="I looked at it (Ada)")["outcome"] == "promoted"
    assert shop.ledger.entries()[-1]["approved"] == "I looked at it (Ada)" and (shop.challenger, shop.alias) == ("", "1")


def test_who_is_turned_down_is_not_asked_about_again(shop: Shop) -> None:
    shop.promote_as = "manual"
    waiting = shop.promote("a")
    turn_down(shop.run(), shop.decision("a"), "turned down by Ada: rude")
    assert not waits_as_reported(shop.run().plan, shop.decision("a"), waiting)
    said = shop.promote("a")
    assert waits_as_reported(shop.run().plan, shop.decision("a"), said)
    assert said["outcome"] == "not promoted" and said["reason"].startswith(
        "turned down by Ada: rude; `cairn promote --why ...` makes it"
    )
    assert (shop.challenger, len(shop.asked), shop.ledger.entries()) == ("", 1, [])
    assert shop.promote("a", approved="all the same")["outcome"] == "promoted"


def test_a_version_that_another_took_the_place_of_keeps_its_alias(shop: Shop) -> None:
    """A former decision that is turned down late does not take the alias from the version that stands now."""
    shop.promote_as = "manual"
    shop.promote("a")
    shop.promote("b")
    turn_down(shop.run(), shop.decision("a"), "turned down by time-out: nobody answered")
    assert shop.challenger == "2"


def test_carried_out_before(shop: Shop) -> None:
    shop.promote("a")
    shop.promote("b", met="a")
    assert shop.back() == "1"
    said = shop.promote("b", met="a")
    assert said["outcome"] == "not promoted again" and said["alias"] is None and shop.ledger.champion()["version"] == "1"  # type: ignore[index]
    assert (
        "carried out before, as version 2" in said["reason"]
        and "`cairn rollback --to 2 --why ...` makes it champion again" in said["reason"]
    )


def test_a_model_that_was_taken_back_is_not_promoted_by_a_new_decision(shop: Shop) -> None:
    shop.promote("a")
    shop.promote("b", met="a")
    shop.back()
    said = shop.promote("b", met="a", again="with other params")
    assert said["outcome"] == "not promoted" and said["reason"].startswith("this model was champion before and another took its place")
    assert shop.promote("b", met="a", again="with other params", approved="it was right")["outcome"] == "promoted"


def test_what_dvc_says_of_a_decision_that_it_must_not_carry_out(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DVC_ROOT", str(shop.folder))
    said = foreseen(shop.run().plan, shop.decision("a"), shop.model("a"))
    assert said.title == "waiting" and said.reason == f"`dvc repro` moves no alias, `cairn run` does. {HOLD}"
    assert foreseen(shop.run().plan, shop.decision("a", verdict="refuse"), shop.model("a")).title == "refused"
    monkeypatch.setenv("DVC_EXP_NAME", "x")
    assert foreseen(shop.run().plan, shop.decision("a"), shop.model("a")).reason.startswith("a DVC experiment promotes nothing")


# --- who is champion -------------------------------------------------------------------------------------------------


def three(shop: Shop) -> tuple[str, str, str]:
    """a, then b, then c became champion."""
    shop.promote("a")
    shop.promote("b", met="a")
    shop.promote("c", met="b")
    a, b, c = shop.names("a", "b", "c")
    return a, b, c


def test_the_file_names_the_champion_as_soon_as_there_is_one(shop: Shop) -> None:
    """So both drivers meet it; and no decision that made a champion becomes stale."""
    a, b, c = three(shop)
    assert shop.standing() == Standing(c, {a: None, b: a, c: b})
    assert (shop.folder / CHAMPION).read_text().startswith("# why this file\n")
    assert [shop.standing().opponent(one) for one in (a, b, c, "new.dir")] == [None, a, b, c]
    shop.back()
    assert [shop.standing().opponent(one) for one in (a, b, c, "new.dir")] == [None, a, b, b]
    forget(shop.run().plan)
    assert shop.standing() == Standing()


def test_going_back_twice_goes_back_two_champions(shop: Shop) -> None:
    three(shop)
    assert [shop.back(), shop.back()] == ["2", "1"] and shop.alias == "1"
    with pytest.raises(BadInput, match=r"version 1 is the first champion; .* Rolled back before: 2, 3; `--to` names one of them"):
        shop.back()
    assert shop.back("3") == "3" and shop.back() == "1", "by name it comes back, in front of where we were"
    with pytest.raises(BadInput, match="version 1 is champion already"):
        shop.back("1")
    with pytest.raises(BadInput, match=r"version '9' was never champion\. Known: 1, 2, 3"):
        shop.back("9")


def test_after_a_rollback_the_next_champion_stands_on_the_one_gone_back_to(shop: Shop) -> None:
    three(shop)
    shop.back()
    shop.back()
    assert shop.promote("d", met="a")["version"] == "4"
    assert [entry["version"] for entry in champions(shop.ledger.entries())] == ["1", "4"]
    assert shop.back() == "1", "versions 2 and 3 were found bad"


def test_back_after_none(shop: Shop) -> None:
    c = three(shop)[-1]
    forget(shop.run().plan)
    assert shop.ledger.champion() is None
    assert shop.back() == "3", "the last one there was"
    assert shop.standing().champion == c and shop.back() == "2"
    forget(shop.run().plan)
    assert shop.promote("d")["version"] == "4" and shop.ledger.entries()[-1]["previous"] is None
    assert shop.back() == "2", "an earlier champion exists, though it was forgotten in between"


def test_nothing_to_go_back_to(shop: Shop) -> None:
    with pytest.raises(BadInput, match="there is no champion yet"):
        shop.back()
    shop.promote("a")
    with pytest.raises(BadInput, match=r"first champion; there is none before it to roll back to\.$"):
        shop.back()


@pytest.mark.parametrize("moment", ["register", "intent", "alias"])
def test_a_promotion_that_was_killed_is_finished_by_the_next_run(shop: Shop, moment: str) -> None:
    shop.die_after = moment
    with pytest.raises(KeyboardInterrupt):
        shop.promote("a")
    assert foreseen(shop.run().plan, shop.decision("a"), shop.model("a")).title == "waiting", "a run has something to do"
    said = shop.promote("a")
    assert said["version"] == "1" and said["alias"] == "champion" and len(shop.versions) == 1
    assert len(shop.ledger.entries()) == 1 and shop.standing().champion == shop.model("a").identity


@pytest.mark.parametrize("moment", ["intent", "alias"])
def test_a_rollback_that_was_killed_is_finished_by_whoever_comes_next(shop: Shop, moment: str) -> None:
    """Alias, ledger and file never say different things for long; asking again does not go back one more."""
    three(shop)
    shop.die_after = moment
    with pytest.raises(KeyboardInterrupt):
        shop.back()
    assert shop.promote("c", met="b")["outcome"] == "not promoted again"
    assert shop.alias == "2" == shop.ledger.champion()["version"]  # type: ignore[index]
    assert (
        shop.standing().champion == shop.model("b").identity
        and [entry["event"] for entry in shop.ledger.entries()].count("rollback") == 1
    )


def test_a_kill_between_ledger_and_file(shop: Shop) -> None:
    """The next run writes the file before it looks; `dvc repro`, which cannot, is told to wait for that."""
    shop.promote("a")
    (shop.folder / CHAMPION).write_text("# why this file\nchampion: none\n")
    identity = shop.model("a").identity
    assert differs(shop.run().plan) == f"{CHAMPION} names no champion, and version 1 ({identity}) is by the ledger"
    shop.experiment = True
    assert settle(shop.run().plan) == "" and shop.standing() == Standing(), "an experiment writes nothing"
    shop.experiment = False
    assert "it is written anew" in settle(shop.run().plan) and shop.standing() == Standing(identity, {identity: None})
    assert settle(shop.run().plan) == "" and differs(shop.run().plan) == ""


def test_an_older_commit_decides_as_it_did(shop: Shop) -> None:
    git(shop.folder, "init", "-q", "-b", "main")
    commit(shop.folder, "one")
    commit(shop.folder, "two")
    shop.promote("a")
    commit(shop.folder, "promoted")
    git(shop.folder, "checkout", "-q", "HEAD~2")
    assert shop.standing() == Standing() and settle(shop.run().plan) == "" and differs(shop.run().plan) == ""
    git(shop.folder, "checkout", "-q", "main")
    git(shop.folder, "checkout", "-q", "-b", "side", "HEAD~1")
    (shop.folder / "side").write_text("")
    commit(shop.folder, "a branch that left before")
    assert "names no champion" in differs(shop.run().plan), "a new commit meets the present champion"


def test_a_clone_knows_the_champion_by_the_file(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Committed file, no ledger, an empty registry: the champion is registered there, a new candidate must have met it, and a model
    that was rolled back is not promoted again."""
    three(shop)
    shop.back()
    for candidate, met, outcome in (
        ("b", "a", "promoted"),
        ("d", "b", "promoted"),
        ("d", "", "not promoted"),
        ("c", "b", "not promoted"),
    ):
        clone = Shop(tmp_path / f"clone-{candidate}-{met}", monkeypatch)
        (clone.folder / CHAMPION).write_bytes((shop.folder / CHAMPION).read_bytes())
        assert differs(clone.run().plan) == ""
        said = clone.promote(candidate, met=met)
        assert said["outcome"] == outcome, said
    assert "was champion before and another took its place" in said["reason"]


def test_a_dirty_checkout_is_recorded_as_dirty(shop: Shop) -> None:
    git(shop.folder, "init", "-q", "-b", "main")
    (shop.folder / "method.py").write_text("1")
    commit(shop.folder, "one")
    shop.promote("a")
    head = git(shop.folder, "rev-parse", "HEAD").strip()
    assert shop.ledger.entries()[-1]["commit"] == head == shop.tags["cairn.commit"]
    assert shop.ledger.entries()[-1]["dirty"] == [] and "cairn.dirty" not in shop.tags
    (shop.folder / "method.py").write_text("2")
    (shop.folder / "new ümlaut.py").write_text("")
    assert shop.promote("b", met="a")["outcome"] == "promoted", "params/champion.yaml differs by the promotion itself"
    assert (
        shop.ledger.entries()[-1]["dirty"] == ["method.py", "new ümlaut.py"] and shop.tags["cairn.dirty"] == "method.py, new ümlaut.py"
    )


def git(folder: Path, *arguments: str) -> str:
    who = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def commit(folder: Path, said: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "--allow-empty", "-m", said)


def test_a_damaged_ledger_is_named_and_nothing_is_done(shop: Shop) -> None:
    shop.promote("A")
    path = shop.state / "promotions.db"
    good = path.read_bytes()
    with sqlite3.connect(path) as database:
        database.execute("UPDATE cairn_promotions SET record = replace(record, 'promote', 'rollback')")
    acts = (
        lambda: shop.promote("B", "A"),
        shop.back,
        lambda: settle(shop.run().plan),
        lambda: forget(shop.run().plan),
    )
    for act in acts:
        with pytest.raises(StageFailed, match=r"promotions.db: record 1 was changed.*Put it back from a backup"):
            act()
    assert shop.alias == "1" and shop.standing().champion == shop.model("A").identity
    path.write_bytes(good)
    assert shop.promote("B", "A")["version"] == "2"


def test_a_ledger_that_is_locked_lets_the_decision_wait(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its run ends well, hours of training behind it; the next one carries the decision out."""
    monkeypatch.setattr(ledger_database, "PATIENCE", 0.05)
    shop.promote("A")
    with closing(sqlite3.connect(shop.state / "promotions.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        waiting = shop.promote("B", "A")
        other.execute("ROLLBACK")
    assert waiting["outcome"] == "waiting" and "is locked by another process" in waiting["reason"] and shop.alias == "1"
    assert shop.promote("B", "A")["version"] == "2"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"event": "promote", "version": "1"}'])
def test_a_damaged_note_of_a_move_is_named(shop: Shop, text: str) -> None:
    shop.promote("A")
    (shop.state / "promotion.json").write_text(text)
    for act in (lambda: shop.promote("B", "A"), shop.back):
        with pytest.raises(StageFailed, match=r"promotion.json is to say which move.*Delete it"):
            act()
    assert shop.alias == "1"


@pytest.mark.parametrize(("stage", "other"), [("merge", "another model"), ("worlds", "other worlds")])
def test_evidence_about_another_model_or_dataset_is_refused(shop: Shop, stage: str, other: str) -> None:
    def made(step: str, identity: str, **inputs: str) -> None:
        shop.store.record(Key({"stage": step, "inputs": inputs}), identity, {})

    worlds = shop.model("worlds").identity
    candidate, decision = shop.model("a"), shop.decision("a")
    made("merge", candidate.identity, worlds=worlds)
    inputs = {"merge": candidate.identity, "worlds": worlds} | {stage: shop.model(other).identity}
    evaluation = shop.model("evaluation").identity
    made("evaluate", evaluation, **inputs)
    made("decide", decision.identity, evaluate=evaluation)
    said = f"is no evidence about this candidate: its evaluation had {inputs[stage]} of stage '{stage}'.*`cairn run` evaluates"
    with pytest.raises(BadInput, match=said):
        shop.promote("a")
    assert (shop.versions, shop.alias, shop.ledger.entries()) == ({}, "", [])
    made("evaluate", evaluation, merge=candidate.identity, worlds=worlds)
    assert shop.promote("a")["outcome"] == "promoted", "the same figures came of the candidate, too"
