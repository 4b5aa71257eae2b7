"""What a foreign tool answered, as an agent reads it: all that was said, once, as text that any file can hold."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.contract.problem import Image
from tasks.contract.values import whole_text

LEAVES = 2000
"""Values of a structured answer that are looked for in the text beside it; ours: with more, only equal data is the same."""
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")
"""Kinds of pictures that hosted models take (OpenAI, Anthropic and Gemini agree on them)."""
LARGEST = 5_000_000
"""Bytes of a picture that is shown; the least of what hosted APIs allow (Anthropic). A larger one is named in the text alone."""
LOOKED = 50_000_000
"""Values times characters of such a search; ours: some tenths of a second."""
_NUMBERS = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")


@dataclass(frozen=True)
class Answer:
    """An answer of a server's tool. texts: what it said, embedded documents too. others: what it gave besides (pictures, sounds,
    files, links), named. structured: its JSON value; None for none. failed: the server says that the call failed. images: the pictures
    among the others that models take."""

    texts: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    structured: Any = None
    failed: bool = False
    images: tuple[Image, ...] = ()

    def readable(self) -> Any:
        """As the agent reads it: the text, with the JSON value after it when the text leaves something out. Text or a value that is
        nothing but JSON comes as the value, which is written shorter.
        """
        words = whole_text("\n".join((*self.texts, *self.others)))
        if self.structured is not None and not (self.texts and texts_hold(self.structured, self.texts)):
            value = clear(self.structured)
            return f"{words}\n{json.dumps(value, ensure_ascii=False)}" if words else value
        if isinstance(value := _json(words), dict | list):
            with contextlib.suppress(RecursionError):  # more levels than Python follows stay text
                return clear(value)
        return words


def answer_of(result: Any, hide: Callable[[Any], Any] = lambda value: value) -> Answer:
    """The answer in a result of the Model Context Protocol. hide: replaces what nobody may see."""
    texts, others, images = [], [], []
    for part in result.content:
        if (image := _image(part)) is not None:
            images.append(image)
        if part.type == "text":
            texts.append(part.text)
        elif part.type == "resource" and hasattr(part.resource, "text"):
            texts.append(part.resource.text)
        else:
            others.append(_named(part))
    said = tuple(hide(text) for text in texts if text)
    return Answer(said, tuple(map(hide, others)), hide(result.structured_content), bool(result.is_error), tuple(images))


def _image(part: Any) -> Image | None:
    """A picture, or an embedded file that is one, if models take its kind and size."""
    whole, data = (part, "data") if part.type == "image" else (getattr(part, "resource", None), "blob")
    kind, content = getattr(whole, "mime_type", None), getattr(whole, data, None)
    return Image(kind, content) if kind in PICTURES and content and _bytes(content) <= LARGEST else None


def _named(part: Any) -> str:
    """What is no text, by type, size and hash, so that two of them can be told apart in rows, which hold no bytes."""
    if part.type in ("image", "audio"):
        return f"[{part.type}: {part.mime_type}, {_size(part.data)}]"
    if part.type == "resource":
        return f"[file: {part.resource.uri}, {part.resource.mime_type or 'of no named type'}, {_size(part.resource.blob)}]"
    if part.type == "resource_link":
        size = f"{part.size:,} bytes" if part.size is not None else ""
        about = [str(one) for one in (part.name, part.uri, part.mime_type, size, part.description) if one]
        return f"[link: {', '.join(about)}]"
    return f"[{part.type}]"


def _size(base64: str) -> str:
    digest = hashlib.blake2b(base64.encode("utf-8", "replace"), digest_size=6).hexdigest()
    return f"{_bytes(base64):,} bytes, {digest}"


def _bytes(base64: str) -> int:
    return len(base64) * 3 // 4 - base64[-2:].count("=")


def refusal(answer: Any, key: str, beginnings: Sequence[str], patterns: Sequence[str] = ()) -> str:
    """The reason when an answer says that the call failed: data with something under this key, text that begins so, or text or JSON in
    which one of the regular expressions is found; else ""."""
    if key and isinstance(answer, Mapping) and (reason := answer.get(key)):
        return reason if isinstance(reason, str) else json.dumps(answer, ensure_ascii=False, default=str)
    if isinstance(answer, str) and answer.lstrip().startswith(tuple(beginnings)):
        return answer.strip()
    if patterns and answer is not None:
        text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, default=str)
        return text.strip() if any(re.search(pattern, text) for pattern in patterns) else ""
    return ""


def clear(value: Any) -> Any:
    """JSON as a file can hold it: text by `whole_text`; NaN and the infinities, which JSON lacks, as text."""
    if isinstance(value, str):
        return whole_text(value)
    if isinstance(value, float) and value - value != 0.0:
        return {"inf": "Infinity", "-inf": "-Infinity"}.get(str(value), "NaN")
    if isinstance(value, Mapping):
        return {whole_text(key): clear(item) for key, item in value.items()}
    return [clear(item) for item in value] if isinstance(value, list) else value


def _json(text: str) -> Any:
    """The value that a text is the JSON of; None when it is none that can be written again as it was."""
    try:
        return json.loads(text, parse_constant=_finite, parse_float=_finite)
    except (ValueError, RecursionError):
        return None


def _finite(text: str) -> float:
    number = float(text)
    if number - number != 0.0:
        raise ValueError(f"{text} is no JSON number")
    return number


def texts_hold(structured: Any, texts: Sequence[str]) -> bool:
    """Whether texts say all that a structured answer holds: they are its JSON, in one piece or item by item, or each of its values
    occurs in them. Servers put what is no object under "result".
    """
    inner = structured["result"] if isinstance(structured, Mapping) and set(structured) == {"result"} else structured
    joined = "\n".join(texts)
    if inner == joined or _json(joined) in (structured, inner) or [_json(text) for text in texts] == inner or list(texts) == inner:
        return True
    leaves = list(_leaves(structured, LEAVES + 1))
    if len(leaves) > LEAVES or len(leaves) * len(joined) > LOOKED:
        return False
    low = joined.lower()
    numbers = {float(found) for found in _NUMBERS.findall(joined.replace(",", ""))}
    return all(_occurs(leaf, joined, low, numbers) for leaf in leaves)


def _leaves(value: Any, most: int) -> Iterator[Any]:
    """The values that hold no others, at most so many."""
    todo, given = [value], 0
    while todo and given < most:
        one = todo.pop()
        if isinstance(one, Mapping):
            todo += one.values()
        elif isinstance(one, list):
            todo += one
        else:
            given += 1
            yield one


def _occurs(leaf: Any, text: str, low: str, numbers: Iterable[float]) -> bool:
    if isinstance(leaf, str):
        return leaf in text or json.dumps(leaf, ensure_ascii=False)[1:-1] in text
    if leaf is None:
        return True
    return str(leaf).lower() in low if isinstance(leaf, bool) or abs(leaf) > 1e300 else float(leaf) in numbers
