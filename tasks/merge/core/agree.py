"""What base and experts say differently besides their weights, and what holds in the merged model.

A difference that changes what a model computes or what an id or a turn means is refused, with the key that settles it: `settle` in the
recipe says from whom it is taken. Where nothing contradicts (only one has a chat template; a longer list of end tokens; another storage
dtype) the merge goes on with the base's, or the only one there is, and tells.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.contract.params import brief, cut, nearest
from tasks.merge.core import meaning
from tasks.merge.core.adapters import Adapter
from tasks.merge.core.headers import TEMPLATES, Checkpoint, read_json, read_templates
from tasks.merge.core.vocabulary import highest_id, is_table

TOKENIZER, TEMPLATE, DTYPE = "tokenizer", "chat_template", "dtype"
"""Keys of `settle` beside those of config.json."""
BASE = "base"

Expert = Checkpoint | Adapter


@dataclass
class Agreement:
    """problems: why these cannot be merged, a line each. notes: what differs and what holds, a line each. config, generation: of the
    merged model, where they are not the base's. tokenizer: the folder whose tokenizer files are carried. template: the chat template,
    where it is not the one in that folder; named: those besides it, where they lie in files. dtypes:
    tensor -> how it is stored, where not as in the base."""

    tokenizer: Path
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    config: Mapping[str, Any] | None = None
    generation: Mapping[str, Any] | None = None
    template: str | None = None
    named: Mapping[str, str] = field(default_factory=dict)
    dtypes: Mapping[str, str] = field(default_factory=dict)


def agree(base: Checkpoint, experts: Sequence[Expert], settle: Mapping[str, str], united: bool) -> Agreement:
    """Compare everything but the weights' values. united: added tokens may differ, and the tables' rows with them."""
    found = Agreement(base.folder)
    parties: dict[str, Expert] = {BASE: base, **{expert.label: expert for expert in experts}}
    full = [expert for expert in experts if isinstance(expert, Checkpoint)]
    _configs(found, base, full, settle, united)
    _tokenizers(found, parties, settle, united)
    _templates(found, parties, settle)
    _dtypes(found, base, full, settle)
    for expert in full:
        found.problems += _tensors(base, expert, united)
    return found


# --- config.json -----------------------------------------------------------------------------------------------------


def _configs(found: Agreement, base: Checkpoint, full: Sequence[Checkpoint], settle: Mapping[str, str], united: bool) -> None:
    asked = {key: label for key, label in settle.items() if key not in (TOKENIZER, TEMPLATE, DTYPE)}
    told = [said for one in (base, *full) for said in (one.config, meaning.meaning(one.config) if asked else {})]
    known = {key for said in told for key in (*said, *meaning.flat(said))}
    for key in asked:
        if key not in known:
            allowed = [*sorted(known), TOKENIZER, TEMPLATE, DTYPE]
            found.problems.append(f"settle: {brief(key)} is no key of any config.json here.{nearest(key, allowed)}")
    free = {"vocab_size"} if united else set()
    for other in full:
        compared = meaning.compare(base.config, other.config)
        for key, values in compared.different.items():
            if key not in free and key not in asked and key.partition(".")[0] not in asked:
                found.problems.append(_difference(other.label, key, *values) + _settle(key, other.label))
        for key, values in compared.base_holds.items():
            if key not in asked and key.partition(".")[0] not in asked:
                found.notes.append(
                    _difference(other.label, key, *values) + f"; the base's holds (`settle: {{{key}: {other.label}}}` for the other)"
                )
    by_label = {one.label: one for one in full}
    found.problems += [
        f"settle: {key}: {label} is an adapter, which has no config.json. Allowed: {', '.join([BASE, *by_label][:20])}."
        for key, label in asked.items()
        if label not in (BASE, *by_label)
    ]
    taken = {key: by_label[label] for key, label in asked.items() if label in by_label}
    if taken:
        found.config, lost = _with(base.config, taken)
        found.problems += [
            f"settle: {key}: {taken[key].label}: its value cannot be taken over alone, the base's config.json would mean "
            f"{brief_json(got)}, and not {brief_json(expected)}. Settle what it hangs on as well, or leave it: "
            f"`settle: {{{key}: base}}`"
            for key, (got, expected) in lost.items()
        ]
        found.generation = _generation(base, taken)


def _difference(label: str, key: str, base: Any, its: Any) -> str:
    if isinstance(base, dict) and isinstance(its, dict):  # a long one is cut: only what differs is shown
        apart = {name for name in (*base, *its) if base.get(name) != its.get(name)}
        base, its = ({name: value for name, value in one.items() if name in apart} for one in (base, its))
    return f"{label}: config.json has {key} = {brief_json(its)}, the base's has {brief_json(base)}"


def brief_json(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    return cut(json.dumps(value))


def _settle(key: str, label: str, first: str = BASE) -> str:
    """How a difference between `first` and `label` is settled."""
    if key.rpartition(".")[2] == "vocab_size":
        return " (`tokenizer: union` merges tables of different length)"
    return f" (if you know which holds: `settle: {{{key}: {first}}}` or `settle: {{{key}: {label}}}`)"


def _with(config: Mapping[str, Any], taken: Mapping[str, Checkpoint]) -> tuple[dict[str, Any], dict[str, tuple[Any, Any]]]:
    """The base's configuration with the keys that others settle, as they write them or, where that would mean something else beside
    the base's other keys, as they mean them; and what cannot be said: key -> (what it would mean, what it should)."""
    out: dict[str, Any] = json.loads(json.dumps(config))
    expected = {key: _value(meaning.meaning(one.config), key) for key, one in taken.items()}
    for key, one in taken.items():
        said = _value(one.config, key)
        _put(out, key, expected[key] if said is MISSING else said)
    for key in taken:
        if _value(meaning.meaning(out), key) not in (expected[key], MISSING):
            _put(out, key, expected[key])
    means = meaning.meaning(out)
    got = {key: _value(means, key) for key in taken}
    return out, {key: (got[key], expected[key]) for key in taken if _lost(key, got[key], expected[key])}


def _lost(key: str, got: Any, expected: Any) -> bool:
    """Whether a settled value came out as another; a configuration inside is taken whole, as it stands."""
    return not key.endswith("_config") and MISSING not in (got, expected) and bool(got != expected)


MISSING: Any = type("Missing", (), {"__repr__": lambda self: "nothing"})()
"""In place of a value that is not there; null is a value."""


def _value(config: Mapping[str, Any], dotted: str) -> Any:
    found: Any = config
    for part in dotted.split("."):
        found = found.get(part, MISSING) if isinstance(found, Mapping) else MISSING
    return found


def _put(config: dict[str, Any], dotted: str, value: Any) -> None:
    *way, last = dotted.split(".")
    for part in way:
        config = config.setdefault(part, {})
    for old in meaning.OLD_ROPE if last == "rope_parameters" else ():
        config.pop(old, None)
    config[last] = value
    if value is MISSING:
        del config[last]


def _generation(base: Checkpoint, taken: Mapping[str, Checkpoint]) -> dict[str, Any] | None:
    """The base's generation_config.json, where one is, with the ids that others settle: it outweighs config.json when text is made."""
    said = read_json(base.folder / "generation_config.json")
    ids = {key: one for key, one in taken.items() if key in meaning.GENERATION}
    if said is None or not ids:
        return None
    for key, one in ids.items():
        said[key] = (read_json(one.folder / "generation_config.json") or {}).get(key, one.config.get(key))
    return {key: value for key, value in said.items() if value is not None}


# --- tokenizer and chat template -------------------------------------------------------------------------------------


def _tokenizers(found: Agreement, parties: Mapping[str, Expert], settle: Mapping[str, str], united: bool) -> None:
    having = {label: one for label, one in parties.items() if one.tokenizer}
    if TOKENIZER in settle:
        if settle[TOKENIZER] not in having:
            found.problems.append(
                f"settle: tokenizer: {settle[TOKENIZER]} has none. Allowed: {', '.join(having) or 'nobody, none has one'}."
            )
            return
        source = having[settle[TOKENIZER]]
        found.problems += _too_many_ids(settle[TOKENIZER], source, parties[BASE])
    elif not having:
        return
    else:
        first, source = next(iter(having.items()))
        if first != BASE:
            found.notes.append(f"the base has no tokenizer; that of {first} is taken")
        for label, other in having.items():
            found.problems += _parts(first, source, label, other, united) if other is not source else []
    found.tokenizer = source.folder


def _parts(first: str, source: Expert, label: str, other: Expert, united: bool) -> Iterator[str]:
    ours, its = source.tokenizer, other.tokenizer
    if ours != its:
        ours, its = (meaning.tokenizer(json.dumps(one, ensure_ascii=False)) for one in (ours, its))
    for part in sorted({*ours, *its} - {"padding", "truncation", "version"} - ({"added_tokens"} if united else set())):
        if ours.get(part) != its.get(part):
            whose = "base's" if first == BASE else f"{first}'s"
            union = " `tokenizer: union` takes added tokens over." if part == "added_tokens" else ""
            yield (
                f"{label}: the tokenizer's {part!r} is not the {whose}: ids or turns would mean different things.{union} If you know "
                f"that they do not: `settle: {{tokenizer: {first}}}` or `settle: {{tokenizer: {label}}}`"
            )


def _too_many_ids(label: str, source: Expert, base: Expert) -> Iterator[str]:
    assert isinstance(base, Checkpoint)
    highest = highest_id(source.tokenizer)
    for name, spec in base.tensors.items():
        if is_table(name) and highest >= spec.shape[0]:
            yield f"settle: tokenizer: {label}: ids up to {highest}, {name!r} has {spec.shape[0]} rows. `tokenizer: union` adds rows."


def _templates(found: Agreement, parties: Mapping[str, Expert], settle: Mapping[str, str]) -> None:
    having = {label: one.template for label, one in parties.items() if one.template}
    if TEMPLATE in settle:
        if settle[TEMPLATE] not in having:
            allowed = ", ".join(having) or "nobody, none has one"
            found.problems.append(f"settle: chat_template: {settle[TEMPLATE]} has none. Allowed: {allowed}.")
            return
        first = settle[TEMPLATE]
    elif not having:
        return
    else:
        first = next(iter(having))
        for label, template in having.items():
            if not meaning.same_template(having[first], template):
                whose = "base's" if first == BASE else f"{first}'s"
                found.problems.append(
                    f"{label}: the chat template is not the {whose}: turns would mean different things"
                    + _settle(TEMPLATE, label, first)
                )
        if first != BASE:
            found.notes.append(f"the base has no chat template; that of {first} is taken")
    named = {
        label: {name: text for name, text in read_templates(parties[label].folder).items() if name != "default"} for label in having
    }
    if TEMPLATE not in settle:
        _named(found, first, named)
    carried = next(one for one in parties.values() if one.folder == found.tokenizer)
    there = read_templates(carried.folder)
    same = there == {**({"default": having[first]} if having[first] else {}), **named[first]}
    found.template = None if same else having[first]
    in_files = (parties[first].folder / TEMPLATES).is_dir()
    found.named = named[first] if in_files or not same else {}
    found.problems += [
        f"{first}: chat template {brief(name)}: allowed in a name are letters, digits, _ and -"
        for name in found.named
        if not re.fullmatch(r"[\w-]+", name)
    ]


def _named(found: Agreement, first: str, named: Mapping[str, Mapping[str, str]]) -> None:
    """Templates besides the default: under one name there is one; what only some have is told."""
    whose = "base's" if first == BASE else f"{first}'s"
    for label, its in named.items():
        for name in sorted({*named[first], *its}):
            ours, other = named[first].get(name), its.get(name)
            if ours is not None and other is not None and not meaning.same_template(ours, other):
                found.problems.append(
                    f"{label}: the chat template {name!r} is not the {whose}: turns would mean different things"
                    + _settle(TEMPLATE, label, first)
                )
            elif (ours is None) != (other is None):
                found.notes.append(
                    f"{label}: {'lacks' if other is None else 'has'} a chat template {name!r}, unlike the {whose}; the {whose} hold"
                )


# --- tensors ---------------------------------------------------------------------------------------------------------


def _dtypes(found: Agreement, base: Checkpoint, full: Sequence[Checkpoint], settle: Mapping[str, str]) -> None:
    """Arithmetic is float32 whatever the files hold; how the result is stored is the base's matter, or that of whom `settle` names."""
    of = {one.label: one for one in full}
    if (label := settle.get(DTYPE, BASE)) != BASE:
        if label not in of:
            found.problems.append(
                f"settle: dtype: {label} is an adapter, which stores no whole tensors. Allowed: {', '.join([BASE, *of])}."
            )
            return
        found.dtypes = {name: spec.dtype for name, spec in of[label].tensors.items() if spec.is_float}
        config = dict(found.config or base.config)
        said = next((of[label].config[key] for key in ("dtype", "torch_dtype") if key in of[label].config), None)
        for key in ("dtype", "torch_dtype"):
            if key in config and said is not None:
                config[key] = said
        found.config = config
    for other in full:
        differ = sorted({(its.dtype, base.tensors[name].dtype) for name, its in other.tensors.items() if _floats(base, name, its)})
        if differ and DTYPE not in settle:
            how = ", ".join(f"{its} against the base's {ours}" for its, ours in differ)
            found.notes.append(
                f"{other.label}: stored as {how}; merged in float32, stored as the base (`settle: {{dtype: {other.label}}}`)"
            )


def _floats(base: Checkpoint, name: str, its: Any) -> bool:
    ours = base.tensors.get(name)
    return ours is not None and ours.dtype != its.dtype and ours.is_float and its.is_float


def _tensors(base: Checkpoint, other: Checkpoint, united: bool) -> Iterator[str]:
    label = other.label
    mine, theirs = set(base.tensors), set(other.tensors)
    for name in sorted(mine - theirs):
        yield f"{label}: tensor {name!r} is missing; the base has it"
    for name in sorted(theirs - mine):
        yield f"{label}: tensor {name!r} is not in the base"
    for name in sorted(mine & theirs):
        ours, its = base.tensors[name], other.tensors[name]
        free = 1 if united and is_table(name) else 0  # the first dimension counts tokens
        if ours.shape[free:] != its.shape[free:]:
            padded = is_table(name) and ours.shape[1:] == its.shape[1:]
            hint = ": tables of different length, one of them perhaps padded, are merged by `tokenizer: union`" if padded else ""
            yield f"{label}: tensor {name!r} has shape {list(its.shape)}, the base's has {list(ours.shape)}{hint}"
        elif ours.dtype != its.dtype and not (ours.is_float and its.is_float):
            yield f"{label}: tensor {name!r} has dtype {its.dtype}, the base's has {ours.dtype}; save both alike"
