"""Whether something was said. By hand: words in any script, numbers as each country writes them, and what must not count. By property:
encoding, case and width do not matter. By comparison: on conversations of both worlds nothing changed since outputs version 2.
"""

from __future__ import annotations

import re
import time
from functools import cache
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.contract.wording import says, words
from tasks.players import scripted
from tasks.players.client_agent import ClientAgent
from tasks.worlds.api.grading import replies_of
from tasks.worlds.api.loading import world_class
from tasks.worlds.api.play import play
from tasks.worlds.api.problem_making import draw_problems
from tasks.worlds.api.runtime import World

NARROW, NO_BREAK = "\u202f", "\u00a0"


@pytest.mark.parametrize(
    ("reply", "output", "message"),
    [
        # as before
        ("It is $1,234.50.", "1234.5", True),
        ("It is 1234.50", "1,234.5", True),
        ("It costs 25.00.", "25", True),
        ("It costs 25", "25.0", True),
        ("Order W15 costs 15.", "5", False),
        ("Your order W4821.", "4821", False),
        ("Your order W4821.", "w4821", True),
        ("It is out-of-stock!", "out of stock", True),
        ("It is Delivered.", "delivered", True),
        ("It is undelivered.", "delivered", False),
        ("A change of -5 in all", "-5", True),
        ("A change of -5 in all", "5", False),
        ("rooms 1,2,3", "2", True),
        ("10,00 is odd", "1000", False),
        ("- 5 rooms", "5", True),
        ("nothing", "", False),
        # letters
        ("nach München", "Mänchen", False),
        ("nach Mänchen", "München", False),
        ("Mänchen", "M", False),
        ("le café", "cafe", False),
        ("le cafe", "café", False),
        ("Ihr Flug nach MÜNCHEN", "München", True),
        ("Столица — Москва.", "москва", True),
        ("в Москву", "Москва", False),
        ("ΣΙΣΥΦΟΣ", "σισυφος", True),
        ("HAUPTSTRASSE 5", "Hauptstraße 5", True),
        ("ＡＢＣ１２３", "abc123", True),
        ("ﬁne", "fine", True),
        ("Mu\u0308nchen", "München", True),
        ("Mün\u200bchen, Mün\u00adchen", "München", True),
        ("\u2067שלום\u2069", "שלום", True),
        ("हिन्दी में", "हिन्दी", True),
        ("हिन्दी", "हिन", False),
        ("مرحبـــا", "مرحبا", True),
        ("I can’t", "I can't", True),
        ("Acme™ phones", "acme", True),
        # the letter I in Turkish
        ("İSTANBUL'da", "istanbul", True),
        ("ISPARTA", "ısparta", True),
        ("ısparta", "ISPARTA", True),
        ("TITANIC", "titanic", True),
        ("sinir", "sınır", False),
        # no blanks
        ("東京に行きます", "東京", True),
        ("東京都", "東京", True),
        ("大阪", "東京", False),
        ("ｶｰﾄﾞで", "カード", True),
        ("スカート", "カー", False),
        ("서울에 갑니다", "서울", True),
        ("ฉันอยู่กรุงเทพฯ", "กรุงเทพ", True),
        ("価格は１，２３４円です", "1234", True),
        ("第12号", "12", True),
        ("第12号", "2", False),
        # digits of other scripts
        ("٣٤٥", "345", True),
        ("١٬٢٣٤٫٥٠", "1234.5", True),
        ("१,२३,४५६.५०", "123456.5", True),
        ("๑๒๓", "123", True),
        ("1½", "11", False),
        ("5²", "52", False),
        ("5️⃣", "5", True),
        ("№5", "5", True),
        # numbers by country
        ("1.234,50 €", "1234.5", True),
        ("1 234,50 €", "1234.5", True),
        (f"1{NO_BREAK}234,50{NO_BREAK}€", "1234.5", True),
        (f"1{NARROW}234", "1234", True),
        (f"1{NARROW}234", "234", False),
        (f"1\u200b{NARROW}\u200b234", "1234", True),
        ("CHF 1'234.50", "1234.5", True),
        ("1’234’567.-", "1234567", True),
        ("12,34,567 rupees", "1234567", True),
        ("1.234.567", "1234567", True),
        ("1.234.567,89", "1234567.89", True),
        ("12,5 kg", "12.5", True),
        ("12,5 kg", "5", False),
        ("0,125", "0.125", True),
        (".5 litres", "0.5", True),
        (".5 litres", "5", False),
        ("1.234,5", "234.5", False),
        ("5.5", "5", False),
        ("1234", "12", False),
        ("1.5kg", "1", False),
        ("10.0.0.1", "10", False),
        ("W1,234", "1.234", False),
        # two readings
        ("1.234", "1.234", True),
        ("1.234", "1234", True),
        ("(1,234)", "1.234", True),
        ("1 234 rooms", "1234", True),
        ("in 2024 100,50 was paid", "100.5", True),
        # signs, percent, currency
        ("−5 °C", "-5", True),
        ("−5 °C", "5", False),
        ("−$5", "-5", True),
        ("-€ 1.234,50", "-1234.5", True),
        ("5–10 days", "10", True),
        ("5–10 days", "-10", False),
        ("5 %, ５％", "5%", True),
        ("5€ or £6 or ₽7 or 8 USD", "7", True),
        # dates
        ("am 03.05.2024.", "03.05.2024", True),
        ("am 03.05.2024.", "2024", False),
        ("on 2024-05-03", "2024-05-03", True),
    ],
)
def test_by_hand(reply: str, output: str, message: bool) -> None:
    assert says(["Hello.", reply], output) is message


@pytest.mark.parametrize("reply", ["123 " * 5_000, "1" * 20_000, "1,234" * 4_000, "1 234 " * 4_000], ids=lambda text: text[:6])
def test_numbers_without_end_are_read_at_once(reply: str) -> None:
    started = time.monotonic()
    assert not says([reply], "77 and 78")
    assert time.monotonic() - started < 1.0


@given(st.integers(0, 10**9))
def test_every_form_of_a_number_is_the_same(number: int) -> None:
    point, blank, quote = f"{number:,}".replace(",", "."), f"{number:,}".replace(",", NARROW), f"{number:,}".replace(",", "'")
    forms = {str(number), f"{number}.0", f"{number}.00", f"{number:,}", f"{number:,}.0", f"${number:,}", f"{point},00", blank, quote}
    assert {tuple(words(f"It is {form}.")) for form in forms} == {("it", "is", str(number))}
    longer = {f"{number}7", f"7{number}", f"{number}.5", f"7,{number:09}"}
    assert not any(says([form], str(number)) for form in longer)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=20))
def test_encoding_does_not_matter(text: str) -> None:
    assert words(text) == words(normalize("NFD", text)) == words(normalize("NFC", text)) == words("\u200b".join(text))


@given(st.text("aäßçéñłšжψяשعकไ東", min_size=1, max_size=8), st.text("aäßçéñłšжψяשعकไ東", min_size=1, max_size=8))
def test_words_are_the_same_letters(one: str, other: str) -> None:
    assert says([one], one.upper()) and says([one.upper()], one)
    same = {form: re.sub("([東ไ])", r" \1 ", form.replace("ß", "ss")) for form in (one, other)}
    assert says([one], other) == (f" {' '.join(same[other].split())} " in f" {' '.join(same[one].split())} ")


# --- the same verdict as before on what both worlds say --------------------------------------------------------------------------


_WORD = re.compile(r"(?<![a-z0-9.])-?\d+(?:\.\d+)?(?![a-z0-9])|[a-z0-9]+")
_THOUSANDS = re.compile(r"(?<![\d,.])\d{1,3}(?:,\d{3})+(?![\d,])")


def version_2(replies: list[str], output: str) -> bool:
    """How outputs were looked for in version 2 of that part of the grading: Latin letters without accents alone."""
    wanted = _old_words(output)
    found = [_old_words(reply) for reply in replies]
    return bool(wanted) and any(one[at : at + len(wanted)] == wanted for one in found for at in range(len(one)))


@cache
def _old_words(text: str) -> list[str]:
    text = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text.lower())
    found = _WORD.findall(re.sub(r"(?<=\w)-", " ", text))
    return [re.sub(r"\.$", "", word.rstrip("0")) if "." in word else word for word in found]


@pytest.mark.parametrize("address", ["tasks.worlds.library.retail:Retail", "tasks.worlds.library.airline:Airline"])
def test_nothing_changed_for_the_built_in_worlds(address: str) -> None:
    """Every output of every problem is looked for in every conversation, so that most are not said."""
    world = World.build(world_class(address), 120, 0, address)
    agent = ClientAgent(scripted.client("agent", world, dict.fromkeys(world.ERRORS, 0.1), 1), {"tools": "none", "policy": "none"})
    jobs = [(problem, 0) for problem in draw_problems(world, "test", 70, 0)]
    played = play(world, jobs, agent, scripted.client("human", world, {"wrong_detail": 0.1}, 1), seed=3)
    outputs = sorted({output for problem, _ in jobs for output in problem.outputs})
    verdicts = {}
    for talk in played:
        replies = replies_of(talk.messages)
        for output in outputs:
            verdicts[talk.problem.problem_id, output] = says(replies, output)
            assert verdicts[talk.problem.problem_id, output] == version_2(replies, output), (output, replies)
    assert sum(verdicts.values()) >= 10 and len(outputs) >= 10
