"""An alias that somebody moved in MLflow: seen, told, and adopted or put back as the params say; and never moved by two at once."""

from __future__ import annotations

import pytest

from flows.moved_alias import look, settle_alias, told_of_alias
from flows.promotions_text import lines
from tasks.contract.params import BadInput, StageFailed
from tasks.engine import registry
from tasks.engine.champion import CHAMPION, Standing
from tasks.engine.registry_alias import NoRegistry
from tests.flows.test_decisions import Shop, shop, three  # noqa: F401

MOVED = (
    "the alias champion of cairn-agent was moved past Cairn, by whom MLflow does not keep: by the ledger (`cairn promotions`) it is at"
)


def events(one: Shop) -> list[tuple[str, str]]:
    return [(entry["event"], entry.get("version", "")) for entry in one.ledger.entries()]


def test_where_the_ledger_says_nothing_is_said(shop: Shop) -> None:  # noqa: F811
    assert told_of_alias(shop.run().plan) == "" == settle_alias(shop.run().plan)
    three(shop)
    shop.back()
    assert told_of_alias(shop.run().plan) == "" == settle_alias(shop.run().plan)


def test_told_and_nothing_is_promoted_until_a_person_has_settled_it(shop: Shop) -> None:  # noqa: F811
    three(shop)
    shop.alias = "1"
    for said in (told_of_alias(shop.run().plan), settle_alias(shop.run().plan)):
        assert said.startswith(f"{MOVED} version 3, in the registry at version 1.")
    waits = shop.promote("d", met="c")
    assert waits["outcome"] == "waiting" and waits["reason"].startswith(MOVED) and "promote.moved_by_hand is tell" in waits["reason"]
    assert (shop.alias, len(shop.ledger.entries())) == ("1", 3), "nothing was done"
    with pytest.raises(BadInput, match=r"was moved past Cairn.*`--to` names the version that is to be champion"):
        shop.back()
    assert shop.back("3") == "3" and shop.alias == "3", "the ledger's own champion is put back by name"
    assert shop.promote("d", met="c")["version"] == "4"


def test_a_person_takes_the_registrys_word_by_name(shop: Shop) -> None:  # noqa: F811
    a = three(shop)[0]
    shop.alias = "1"
    assert shop.back("1") == "1" and shop.standing().champion == a and told_of_alias(shop.run().plan) == ""


def test_adopted_with_a_record(shop: Shop) -> None:  # noqa: F811
    a = three(shop)[0]
    shop.alias, shop.moved_by_hand = "1", "adopt"
    said = settle_alias(shop.run().plan)
    assert said.startswith(MOVED) and said.endswith(f"Adopted: version 1 ({a}) is the champion that decisions meet.")
    assert events(shop)[-1] == ("adopt", "1") and settle_alias(shop.run().plan) == ""
    record = "\n".join(lines(shop.ledger.records(), "here"))
    assert "adopted: cairn-agent from version 3 to version 1" in record and "the alias was moved in MLflow, past Cairn" in record
    assert "decided against" in shop.promote("d", met="c")["reason"] and shop.promote("e", met="a")["version"] == "4"
    assert shop.standing().opponents[shop.model("e").identity] == a and shop.back() == "1"


def test_adopted_by_the_promotion_that_meets_it(shop: Shop) -> None:  # noqa: F811
    three(shop)
    shop.alias, shop.moved_by_hand = "1", "adopt"
    said = shop.promote("d", met="c")
    assert said["outcome"] == "not promoted" and "decided against" in said["reason"] and shop.alias == "1"
    assert any("Adopted: version 1" in note for note in shop.notes)


def test_a_version_that_was_never_champion_is_adopted_with_whom_it_met(shop: Shop) -> None:  # noqa: F811
    """Here the challenger, which a person made champion in MLflow instead of by `cairn promote`."""
    shop.promote("a")
    shop.promote_as = "manual"
    shop.promote("b", met="a")
    shop.alias, shop.moved_by_hand = shop.challenger, "adopt"
    a, b = shop.names("a", "b")
    assert settle_alias(shop.run().plan).endswith(f"Adopted: version 2 ({b}) is the champion that decisions meet.")
    assert shop.ledger.champion() and shop.ledger.champion()["against"] == a  # type: ignore[index]


def test_a_version_that_cairn_did_not_register_is_not_adopted(shop: Shop) -> None:  # noqa: F811
    three(shop)
    shop.alias, shop.moved_by_hand = "7", "adopt"
    assert "It cannot be adopted: version 7 was not registered by Cairn" in settle_alias(shop.run().plan)
    assert shop.promote("d", met="c")["outcome"] == "waiting" and len(shop.ledger.entries()) == 3


def test_an_alias_that_was_taken_away_is_adopted_as_no_champion(shop: Shop) -> None:  # noqa: F811
    three(shop)
    shop.alias, shop.moved_by_hand = "", "adopt"
    assert settle_alias(shop.run().plan).endswith("Adopted: decisions meet no champion.")
    assert shop.ledger.champion() is None and settle_alias(shop.run().plan) == ""
    assert shop.promote("d")["version"] == "4"


def test_restored_with_a_record(shop: Shop) -> None:  # noqa: F811
    three(shop)
    shop.alias, shop.moved_by_hand = "1", "restore"
    assert settle_alias(shop.run().plan).endswith("Restored: it is at version 3 again.")
    assert shop.alias == "3" and events(shop)[-1] == ("restore", "3") and shop.standing().champion == shop.model("c").identity
    shop.alias = ""
    assert shop.promote("d", met="c")["version"] == "4" and shop.alias == "4", "restored by the promotion that meets it"
    assert shop.back() == "3", "restorations are no champions to go back along"


def test_a_deleted_version_is_not_restored_and_not_gone_back_to(shop: Shop) -> None:  # noqa: F811
    """MLflow takes the alias away with the version."""
    three(shop)
    shop.alias, shop.moved_by_hand = "", "restore"
    shop.deleted = {"3"}
    said = settle_alias(shop.run().plan)
    assert "There is no version 3 in it: it was deleted, or MLFLOW_TRACKING_URI" in said and "It cannot be restored" in said
    with pytest.raises(BadInput, match=r"version 3 was deleted in the registry, so .* `--to` names another one: 1, 2\."):
        shop.back("3")
    assert shop.back("2") == "2" and shop.alias == "2"
    shop.deleted, shop.alias = {"1", "2", "3"}, ""
    with pytest.raises(BadInput, match=r"version 2 was deleted in the registry.* No other one .* is there; `cairn champion --none`"):
        shop.back("2")


def test_a_version_that_is_deleted_under_a_move_ends_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    shop.promote("a")
    shop.promote("b", met="a")
    shop.die_after = "intent"
    with pytest.raises(KeyboardInterrupt):
        shop.back()
    shop.deleted = {"1"}
    said = shop.promote("c", met="b")
    assert said["outcome"] == "not promoted" and "version 1 of cairn-agent was deleted in the registry" in said["reason"]
    assert shop.promote("c", met="b")["version"] == "3", "it is not tried for ever"


def test_an_experiment_leaves_it(shop: Shop) -> None:  # noqa: F811
    three(shop)
    shop.alias, shop.moved_by_hand, shop.experiment = "1", "adopt", True
    assert settle_alias(shop.run().plan) == "" and len(shop.ledger.entries()) == 3 and shop.alias == "1"


@pytest.mark.parametrize("wish", ["tell", "restore", "adopt"])
def test_an_alias_that_was_set_before_anything_was_promoted(shop: Shop, wish: str) -> None:  # noqa: F811
    """No version can be gone back to by name, and none put back."""
    shop.alias, shop.moved_by_hand = "7", wish
    with pytest.raises(BadInput, match=r"No version was champion before\. .* take the alias away in MLflow; the param promote\.moved"):
        shop.back("7")
    said = settle_alias(shop.run().plan)
    assert "by the ledger no version ever was champion" in said or wish != "restore"
    assert "take the alias away in MLflow" in said and shop.ledger.entries() == []


def test_a_move_that_has_begun_is_nobodys_hand(shop: Shop) -> None:  # noqa: F811
    three(shop)
    shop.die_after = "alias"
    with pytest.raises(KeyboardInterrupt):
        shop.back()
    assert not look(shop.run().plan).moved


def test_none_leaves_the_alias_where_it_is(shop: Shop) -> None:  # noqa: F811
    from flows.rollback import forget

    three(shop)
    forget(shop.run().plan)
    assert told_of_alias(shop.run().plan) == ""


def test_a_clone_knows_its_champions_version_and_no_other(shop: Shop) -> None:  # noqa: F811
    """No ledger, the file of the champion, a registry that others share."""
    a = shop.model("a").identity
    shop.artifacts["5"] = {"cairn.artifact": a}
    shop.alias, shop.moved_by_hand = "5", "restore"
    assert told_of_alias(shop.run().plan).startswith(f"{MOVED} no version, in the registry at version 5.")
    assert "It cannot be restored" in settle_alias(shop.run().plan) and shop.alias == "5", "others' champion is not taken away"
    (shop.folder / CHAMPION).write_text(f"# why\nchampion: {{identity: {a}}}\n")
    assert told_of_alias(shop.run().plan) == ""
    assert shop.promote("b", met="a")["outcome"] == "promoted" and shop.standing() != Standing()


def test_whoever_is_overtaken_says_so_and_changes_nothing(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    """Somebody else, on another machine, moves the alias while the candidate is registered."""
    three(shop)
    register = shop._register
    monkeypatch.setattr(registry, "register", lambda *given: (register(*given), setattr(shop, "alias", "2"))[0])
    said = shop.promote("d", met="c")
    assert said["outcome"] == "not promoted" and said["alias"] is None
    assert said["reason"].startswith("somebody else was first: the alias champion of cairn-agent is at version 2 now, and was at 3 a")
    assert shop.alias == "2" and len(shop.ledger.entries()) == 3 and not (shop.state / "promotion.json").exists()


def test_a_registry_that_cannot_be_asked_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    three(shop)

    def away(*given: str) -> None:
        raise NoRegistry("nobody answers")

    monkeypatch.setattr("flows.moved_alias.read_alias", away)
    for said in (told_of_alias(shop.run().plan), settle_alias(shop.run().plan)):
        assert said == "whether the alias champion was moved in the registry is not known: nobody answers"
    assert shop.promote("d", met="c")["outcome"] == "waiting"


def test_records_that_are_gone_from_the_ledgers_end_are_named(shop: Shop) -> None:  # noqa: F811
    """No hash behind them is left to tell; the champion's version is."""
    import sqlite3

    three(shop)
    shop.artifacts["3"] |= {"cairn.record": shop.told["3", "cairn.record"]}
    assert told_of_alias(shop.run().plan) == ""
    with sqlite3.connect(shop.state / "promotions.db") as database:
        database.execute("DELETE FROM cairn_promotions WHERE number = 3")
    said = r"promotions\.db: record 3 is missing, which the registry's champion carries as a tag\..*Put it back from a backup"
    for act in (lambda: look(shop.run().plan), shop.back, lambda: shop.promote("d", met="b")):
        with pytest.raises(StageFailed, match=said):
            act()
    shop.artifacts["3"] |= {"cairn.record": "another 7 ledger"}
    assert look(shop.run().plan).moved, "another project's ledger has records of its own"
