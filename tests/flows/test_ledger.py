"""The ledger of promotions: what was written is what is read, whoever writes meanwhile, or the record that is not is named."""

from __future__ import annotations

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flows import ledger_database
from flows.champion_file import standing_of
from flows.ledger import Ledger, anchor, signed
from flows.ledger_database import Database, NoLedger
from flows.promotions_text import lines
from tasks.contract.params import BadInput, StageFailed, validate
from tasks.engine.champion import Standing
from tasks.engine.shared_params import Promote
from tests.services.servers import postgres, postgres_programs


def entry(version: int, **more: Any) -> dict[str, Any]:
    return {"event": "promote", "version": str(version), "identity": f"{version}.dir", "model": "cairn-agent", **more}


@pytest.fixture
def three(tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path)
    for version in (1, 2, 3):
        ledger.append(entry(version))
    return ledger


def altered(ledger: Ledger, statement: str) -> None:
    with sqlite3.connect(ledger.state / "promotions.db") as database:
        database.execute(statement)


def test_nothing_is_written_by_looking(tmp_path: Path) -> None:
    assert Ledger(tmp_path).entries() == [] and Ledger(tmp_path).champion() is None and not list(tmp_path.iterdir())


def test_records_are_numbered_and_chained(three: Ledger) -> None:
    records = three.records()
    assert [(one.number, one.entry["version"]) for one in records] == [(1, "1"), (2, "2"), (3, "3")]
    assert len({one.hash for one in records}) == 3 and three.champion() == entry(3)


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE cairn_promotions SET record = replace(record, '2.dir', '9.dir') WHERE number = 2", "record 2 was changed"),
        ("DELETE FROM cairn_promotions WHERE number = 2", "record 2 is missing"),
        ("DELETE FROM cairn_promotions WHERE number = 1", "record 1 is missing"),
        ("UPDATE cairn_promotions SET number = 5 WHERE number = 3", "record 3 is missing"),
        ("UPDATE cairn_promotions SET hash = 'x' WHERE number = 1", "record 1 was changed"),
    ],
)
def test_what_is_not_as_it_was_written_is_named(three: Ledger, statement: str, named: str) -> None:
    altered(three, statement)
    with pytest.raises(StageFailed, match=rf"promotions\.db: {named}.*Put it back from a backup"):
        three.entries()


def test_a_record_with_a_hash_of_its_own_making_breaks_the_next_one(three: Ledger) -> None:
    """Whoever changes a record has to write all later ones anew."""
    text = json.dumps(entry(7), sort_keys=True)
    altered(
        three,
        f"UPDATE cairn_promotions SET record = '{text}', hash = '{ledger_database._hash(three.records()[0].hash, text)}' WHERE number = 2",
    )
    with pytest.raises(StageFailed, match=r"record 3 was changed, or one before it was replaced"):
        three.entries()


def test_what_is_no_database_is_named(three: Ledger) -> None:
    (three.state / "promotions.db").write_bytes(b"not a database" * 100)
    for act in (three.entries, lambda: three.append(entry(4))):
        with pytest.raises(StageFailed, match=r"promotions\.db: file is not a database.*Put it back from a backup"):
            act()


def test_a_locked_database_is_named(three: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_database, "PATIENCE", 0.05)
    other = sqlite3.connect(three.state / "promotions.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    for act in (three.entries, lambda: three.append(entry(4))):
        with pytest.raises(NoLedger, match=r"promotions\.db, is locked by another process for more than.*try again"):
            act()
    other.execute("ROLLBACK")
    assert three.champion() == entry(3)


def appended_at_once(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ledger.append, map(entry, range(40))))
    assert sorted(int(one["version"]) for one in ledger.entries()) == list(range(40))


def test_many_append_at_once(tmp_path: Path) -> None:
    appended_at_once(Ledger(tmp_path))


# --- where it lay before -----------------------------------------------------------------------------------------------


def test_the_file_of_an_earlier_version_is_moved_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "promotions.jsonl").write_text("".join(json.dumps(entry(n)) + "\n" for n in (1, 2)))
    assert Ledger(tmp_path).entries() == [entry(1), entry(2)]
    assert "the ledger's 2 records are in" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["promotions.db", "promotions.jsonl.moved"]
    assert Ledger(tmp_path).entries() == [entry(1), entry(2)], "once"


def test_a_kill_between_the_copy_and_the_rename_copies_nothing_twice(tmp_path: Path) -> None:
    (tmp_path / "promotions.jsonl").write_text(json.dumps(entry(1)) + "\n")
    Database(tmp_path / "promotions.db").append([entry(1)])
    assert Ledger(tmp_path).entries() == [entry(1)] and not (tmp_path / "promotions.jsonl").exists()


def test_records_that_would_be_lost_are_told(three: Ledger) -> None:
    (three.state / "promotions.jsonl").write_text(json.dumps(entry(9)) + "\n")
    with pytest.raises(StageFailed, match=r"promotions\.jsonl has records that .* does not have.*Move that file away"):
        three.append(entry(4))


@pytest.mark.parametrize("line", ["{}", "[]", "5", '{"event": "promote", "vers', "\x00\x00", "<<<<<<< HEAD", "[" * 100_000])
def test_a_damaged_line_of_the_earlier_file_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "promotions.jsonl").write_text(json.dumps(entry(1)) + "\n\n" + line + "\n")
    with pytest.raises(StageFailed, match=r"promotions.jsonl, line 3, is no entry.*delete that line"):
        Ledger(tmp_path).entries()


# --- another place -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://a@b/c", "postgresql://USER@HOST:PORT/DATABASE"),
        ("postgresql://host", "postgresql://USER@HOST:PORT/DATABASE"),
        ("promotions.db", "postgresql://USER@HOST:PORT/DATABASE"),
        ("postgresql://[", "postgresql://USER@HOST:PORT/DATABASE"),
        ("postgresql://a:secret@b/c", "PGPASSWORD"),
        ("postgresql://a@b/c?password=secret", "PGPASSWORD"),
    ],
)
def test_a_url_that_cannot_be_is_refused_at_the_edge(url: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        validate(Promote, {"ledger": url}, "promote")
    assert validate(Promote, {"ledger": "postgresql://cairn@db.example/cairn"}, "promote")


def test_a_database_that_does_not_answer_is_named_with_its_param(tmp_path: Path) -> None:
    with pytest.raises(NoLedger, match=r"postgresql://a@127\.0\.0\.1:1/b \(the param promote\.ledger\), cannot be used"):
        Ledger(tmp_path, "postgresql://a@127.0.0.1:1/b").entries()


@pytest.mark.services
def test_postgres_keeps_it_as_well(three: Ledger) -> None:
    """Records of the project's own file move there; several people append at once; what was changed is named."""
    programs = postgres_programs()
    assert programs, "Postgres is not installed"
    with postgres(programs) as place:
        shared = Ledger(three.state, f"postgresql://{place}")
        hashes = [one.hash for one in three.records()]
        assert [one.hash for one in shared.records()] == hashes and not (three.state / "promotions.db").exists()
        appended_at_once_behind = Ledger(three.state / "other", f"postgresql://{place}")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(appended_at_once_behind.append, map(entry, range(10, 30))))
        assert len(shared.entries()) == 23
        import psycopg

        with psycopg.connect(f"postgresql://{place}") as database:
            database.execute("DELETE FROM cairn_promotions WHERE number = 5")
        with pytest.raises(StageFailed, match="record 5 is missing"):
            shared.entries()


# --- for people --------------------------------------------------------------------------------------------------------


def test_it_says_who_what_when_why_and_on_which_evidence(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    assert list(lines(ledger.records(), "here")) == ["no promotion yet (here)"]
    evidence = {"gates": [{"name": "reference", "passed": True}, {"name": "minimum", "passed": False}]}
    about = {"decision": "d.dir", "against": None, "reason": "All hold.", "approved": "fine (Ada)", "previous": None}
    made = signed(entry(1, **about, evidence=evidence, commit="0123456789abcdef", dirty=["a.py"]))
    ledger.append(made)
    assert next(lines(ledger.records(), "here")).startswith("1 record in here, ")
    ledger.append(signed(entry(2, **about) | {"event": "rollback", "reason": "rude", "approved": "", "previous": "3"}))
    ledger.append(signed({"event": "forget", "reason": "cairn champion --none"}))
    said = "\n".join(lines(ledger.records(), "here"))
    assert said.splitlines()[:6] == [
        "3 records in here, each proved by its hash",
        "",
        f"1  {made['when']}  promoted: cairn-agent from no version to version 1, by {made['who']}",
        "   why:      All hold.",
        "   approved: fine (Ada)",
        "   evidence: decision d.dir on 1.dir against no champion: reference holds, minimum fails, commit 0123456789 with changes to a.py",
    ]
    assert "rolled back: cairn-agent from version 3 to version 2" in said and "forgotten: decisions meet no champion" in said


def test_the_anchor_is_the_last_champion_that_was_better_than_the_best() -> None:
    """Not the present one, where that was only shown not to be worse; a rollback takes away what it undoes, and --none all."""
    entries = [entry(1), entry(2, best=False), entry(3, best=True), entry(4, best=False)]
    found = [anchor(entries[:count]) for count in range(5)]
    assert found == [None, *(entry(n)["identity"] for n in (1, 1, 3, 3))]
    back = {**entry(2), "event": "rollback"}
    assert anchor([*entries, back]) == entry(1)["identity"]
    assert anchor([*entries, {"event": "forget"}]) is None
    assert anchor([*entries, {"event": "forget"}, entry(5, best=False)]) == entry(5)["identity"]


def test_the_file_names_the_anchor_and_which_one_each_champion_met() -> None:
    first, second = entry(1, against=None), entry(2, against=entry(1)["identity"], best=False)
    third = entry(3, against=second["identity"], anchor=first["identity"], best=True)
    assert standing_of([first, second], Standing()).anchor == first["identity"]
    now = standing_of([first, second, third], Standing())
    assert now.anchor is None and now.held_to(third["identity"]) == first["identity"] and now.held_to("new.dir") is None
