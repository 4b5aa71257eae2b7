"""Whether something was said: texts become words in one form, whatever script, case, width or number format they are written in.

Both sides of a comparison go through `words`, and a text says another one when its words hold the other's in a row:

    letters    of any script count as they are: "Mänchen" is not "München". Case is folded (ß is SS); width and composition do not
               matter (ＡＢＣ is ABC, ö is one letter however it is encoded); characters without width are left out.
    Turkish    I is the capital of i, and in Turkish of ı: both count, so "ISPARTA" is "ısparta", and "sinir" is not "sınır".
    no blanks  In Chinese, Japanese, Korean, Thai, Lao, Khmer and Burmese each character is a word, since no blank ends a name:
               "東京" is said by "東京都に行く", and so is "京都", which only a dictionary could tell. A run of katakana is
               one word ("カー" is not said by "スカート").
    numbers    1,234.50 is 1.234,50, 1 234,50, 1'234.50, and 12,34,567 is grouped as in India, in the digits of any script. What
               stands inside a longer number or a word is not said: 12 in 1234, 5 in 5.5, 4821 in W4821. Signs count, also
               U+2212; percent and currency signs do not.
    ambiguous  Three digits behind one separator: 1,234 and 1.234 are first read as in English and JSON (1234 and 1.234). A reply
               is read the other way too, since it may be German: "1.234" says 1234 and 1.234. "12,5" is 12.5: lists need a
               blank ("1, 2") or three entries. A plain blank groups digits where decimals follow ("1 234,50"); "1 234" says
               1234 as well as 1 and 234.
    dates      stay text: "03.05.2024" is one word, "2024-05-03" three.

Cost: some 10 microseconds for a reply in ASCII, a few times that for others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from unicodedata import category, decimal, name, normalize

_THAI_LAO, _BURMESE, _HANGUL_LETTERS, _KHMER = "\u0e00-\u0eff", "\u1000-\u109f", "\u1100-\u11ff", "\u1780-\u17ff"
_KANA, _HAN, _HANGUL = "\u3041-\u309f", "\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff", "\uac00-\ud7af"
_ALONE = "".join((_THAI_LAO, _BURMESE, _HANGUL_LETTERS, _KHMER, _KANA, _HAN, _HANGUL))
"""Characters that are words of their own: scripts that put no blank between two words, or between a word and its particles."""
_MARKS = r" .,'$\-"
"""All that is left of punctuation before words are looked for."""


def _word(alone: str) -> re.Pattern[str]:
    """Finds the words of a text that holds no other punctuation than `_MARKS`: numbers, dates and versions, all others."""
    letter = f"[^{_MARKS}{alone}]"
    number = rf"(?<![^ ,'$\-{alone}])(?:-(?:\$ ?)?)?(?:\d+(?:\.\d+)?|\.\d+)(?!\.?{letter})"
    plain = rf"[^{_MARKS}{alone}0-9]{letter}*"  # looked for first, since most words are such
    return re.compile(rf"{plain}|{number}|\d+(?:\.\d+){{2,}}|\d+\.\d+{letter}+|{letter}+" + (f"|[{alone}]" if alone else ""))


_ASCII_WORD, _WORD = _word(""), _word(_ALONE)
_NUMBER = re.compile(r"(?<!\d)\d+(?:[.,']\d+| \d{3}(?!\d))+")
_JOINED_DASH = re.compile(rf"(?<=[^{_MARKS}])-")
_GROUPS = re.compile(
    r"[1-9]\d{0,2}(?:(?:,\d{3})+(?:\.\d+)?|(?:'\d{3})+(?:[.,]\d+)?|(?: \d{3})+[.,]\d+|(?:\.\d{3})+,\d+|(?:\.\d{3}){2,})"
)
_LAKHS = re.compile(r"[1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?")
_DECIMAL_COMMA = re.compile(r"\d+,\d+")
_EITHER = re.compile(rf"(?<![^ $\-{_ALONE}])[1-9]\d{{0,2}}(?:[.,]\d{{3}}|(?: \d{{3}})+)(?![.,']?\d| \d{{3}}(?!\d))")
_MAYBE_EITHER = re.compile(r"\d[., ]\d{3}(?!\d|[.,']\d)")
_OTHERWISE = str.maketrans({",": ".", ".": "", " ": ""})
_ASCII = {code: " " if not chr(code).isalnum() and chr(code) not in " .,'$-" else chr(code).lower() for code in range(128)}
_WIDE_BLANK = re.compile(r"(?<=\d)[\u00a0\u2007\u2009\u202f](?=\d)")


def words(text: str, turkish: bool = False, otherwise: bool = False) -> list[str]:
    """The words of a text in one form.

    turkish: I is the capital of ı. otherwise: numbers that can be read in two ways are read in the less usual one.

    >>> words("Order W4821: $1,234.50!")
    ['order', 'w4821', '1234.5']
    >>> words("ＭÜNCHEN, −1.234,50 €")
    ['münchen', '-1234.5']
    """
    return list(_words(text, turkish, otherwise))


@lru_cache(maxsize=2048)
def _words(text: str, turkish: bool = False, otherwise: bool = False) -> tuple[str, ...]:
    """See `words`. Kept, since one reply is asked for several outputs, and one output is looked for in many replies."""
    ascii_alone = text.isascii() and not turkish
    text = text.translate(_ASCII) if ascii_alone else _plain(text, turkish)
    if otherwise:
        text = _EITHER.sub(lambda found: found[0].translate(_OTHERWISE), text)
    text = _JOINED_DASH.sub(" ", _NUMBER.sub(_usual, text))
    found = (_ASCII_WORD if ascii_alone else _WORD).findall(text)
    return tuple([_number(word) if "." in word or "$" in word else word for word in found])


def says(replies: Iterable[str], output: str) -> bool:
    """Whether some reply holds the words of `output` in a row. An output without words is never said."""
    phrase = _words(output)
    if not phrase:
        return False
    number = any(word[-1].isdigit() for word in phrase)
    return any(_holds(_words(reply), phrase) or _holds_otherwise(reply, output, phrase, number) for reply in replies)


def _holds(found: tuple[str, ...], phrase: tuple[str, ...]) -> bool:
    """Whether the words stand among the others, in a row."""
    size = len(phrase)
    if size == 1:
        return phrase[0] in found
    return any(found[start : start + size] == phrase for start in range(len(found) - size + 1))


def _holds_otherwise(reply: str, output: str, phrase: tuple[str, ...], number: bool) -> bool:
    """Whether a reply that does not say it in the usual reading does so in another one. number: whether a number is wanted."""
    if ("ı" in reply or "ı" in output) and _holds(_words(reply, turkish=True), _words(output, turkish=True)):
        return True
    ambiguous = number and bool(_MAYBE_EITHER.search(reply) if reply.isascii() else True)
    return ambiguous and _holds(_words(reply, otherwise=True), phrase)


# --- characters ---


class _Table(dict[int, str | None]):
    """A table for `str.translate` that is filled as texts bring characters. of: what stands for a character; None leaves it out."""

    def __init__(self, of: Callable[[str], str | None]) -> None:
        super().__init__()
        self._of = of

    def __missing__(self, code: int) -> str | None:
        self[code] = found = self._of(chr(code))
        return found


_SAME = {
    **dict.fromkeys("\u2019\u02bc\uff07\u066c", "'"),  # apostrophes, and the Arabic separator of thousands
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"),  # hyphens, the dash between numbers, the minus sign
    "\u066b": ".",  # the Arabic decimal separator
    "\u0640": None,  # lengthens an Arabic word on paper
    "\u034f": None,  # joins characters, and has no width
}


def _apart(char: str) -> str | None:
    """Before compatibility forms are resolved: digits in ASCII; what has no width is left out; signs such as ² or ™, which would grow
    together with their neighbours, stand apart."""
    kind = category(char)
    if char in _SAME:
        return _SAME[char]
    if kind in ("Cf", "Me") or "VARIATION SELECTOR" in name(char, ""):
        return None
    if kind == "Nd":
        return str(decimal(char))
    return f" {char} " if kind in ("No", "So") else char


def _letters(char: str) -> str:
    """After it: letters, marks and digits as they are, every currency the same, other punctuation blank."""
    if char.isascii():
        return _ASCII[ord(char)]
    kind = category(char)
    return char if kind[0] in "LMN" else "$" if kind == "Sc" else " "


_APART, _LETTERS = _Table(_apart), _Table(_letters)


def _plain(text: str, turkish: bool) -> str:
    """A text with the punctuation of `_MARK` alone, its letters folded."""
    text = _WIDE_BLANK.sub("'", text.translate(_APART))  # a blank that does not break a line stands inside a number
    text = normalize("NFKC", text)
    if turkish:
        text = text.replace("I", "ı")
    text = text.casefold().replace("i\u0307", "i")  # how İ is folded
    return normalize("NFKC", text).translate(_LETTERS)


# --- numbers ---


def _usual(found: re.Match[str]) -> str:
    """A run of digits and separators as a number without groups and with a decimal point, where it is one."""
    run = found[0]
    if run.replace(".", "", 1).isdigit():
        return run
    if _GROUPS.fullmatch(run):
        whole, point, part = _split(run)
        return f"{whole}{point}{part}"
    if _LAKHS.fullmatch(run):
        return run.replace(",", "")
    if _DECIMAL_COMMA.fullmatch(run):
        return run.replace(",", ".")
    if " " in run:
        return " ".join(_NUMBER.sub(_usual, part) for part in run.split(" "))
    return run


def _split(run: str) -> tuple[str, str, str]:
    """(whole number, point, decimals) of a number in groups: the last separator is the decimal one if it differs from the first."""
    separators = re.sub(r"\d", "", run)
    whole, decimals = (run, "") if separators[0] == separators[-1] else run.rsplit(separators[-1], 1)
    return re.sub(r"\D", "", whole), "." if decimals else "", decimals


def _number(word: str) -> str:
    """A number without its currency, the noughts behind its decimals, and the point where none are left; .5 as 0.5."""
    word = word.replace("$", "").replace(" ", "")
    whole, point, part = word.partition(".")
    if not point or not part.isdecimal():
        return word
    part, whole = part.rstrip("0"), whole if whole.strip("-") else f"{whole}0"
    return f"{whole}.{part}" if part else whole
