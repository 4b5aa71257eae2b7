"""The trail of an answer that `cairn serve` gave, by its response id."""

from __future__ import annotations

import json
from typing import Any

from flows.preview_text import call_text
from flows.trace.stages import Known, down
from flows.trace.trail import Section, Trail, utc
from tasks.contract.params import BadInput
from tasks.generate.parts.imported.kept_answers import Answer, conversations, plain_messages, read
from tasks.serving.endpoint.kept import FOLDER


def of_answer(known: Known, name: str) -> Trail:
    """The trail of a kept answer: what was said, by which checkpoint, and what that was made of. BadInput for one that is not kept."""
    place = known.store.state / FOLDER
    found = next((one for one in read(place, name) if one["id"] == name), None)
    if found is None:
        kept = sum(1 for _ in read(place))
        raise BadInput(
            f"{name}: no such answer among the {kept} that `cairn serve` kept in {place}. They are kept where it ran, unless with "
            "--keep no."
        )
    identity = str(found.get("checkpoint") or "")
    record = known.records.of(identity) if identity else None
    sections, stages = down(known, {record["parts"]["stage"]: identity}) if record else ([], {})
    return Trail([_section(known, found, bool(record)), *sections], stages)


def _section(known: Known, answer: Answer, recorded: bool) -> Section:
    identity, adapter = str(answer.get("checkpoint") or ""), str(answer.get("adapter") or "")
    messages = plain_messages(answer["messages"])
    reply = next((one for one in reversed(messages) if one["role"] == "assistant"), messages[-1])
    calls = [call_text(one["function"]["name"], _json(one["function"]["arguments"])) for one in reply.get("tool_calls") or ()]
    missing = []
    if not identity:
        missing.append("which checkpoint answered: it was served from a folder, not as a version or a result (`cairn serve champion`)")
    elif not recorded:
        missing.append(f"how {identity} was made is not recorded in this store; the machine that made it has the record (.cairn/keys)")
    if adapter:
        missing.append(f"what the adapter {adapter!r} is: it was loaded from a folder, of which its name alone is kept")
    versions = {str(one["version"]): None for one in known.ledger.entries() if identity and one.get("identity") == identity}
    facts = {
        "answered": utc(answer.get("created") or 0),
        "served as": f"{answer.get('model', '')}{', adapter ' + adapter if adapter else ''}",
        "shadow of": answer.get("shadow_of", ""),
        "checkpoint": identity,
        "was champion": f"as version {', '.join(versions)}" if versions else "",
        "world": answer.get("world", ""),
        "problem": answer.get("problem", ""),
        "finish": answer.get("finish", ""),
        "tokens": f"{len(answer.get('prompt_ids') or ())} read, {len(answer.get('ids') or ())} produced",
        "sampling": ", ".join(f"{name} {value}" for name, value in (answer.get("sampling") or {}).items()),
        "question": next((one["content"] for one in reversed(messages) if one["role"] == "user"), ""),
        "reply": reply["content"],
        "calls": calls,
        "blocked writes": [
            f"{one['tool']} by {rule}: {why}"
            for one in answer.get("calls") or ()
            for rule, why in (one.get("blocked_by") or {}).items()
        ],
        "conversation": answer.get("conversation", ""),
        "turns of it": _turns(known, answer),
    }
    return Section("answer", answer["id"], facts, missing, {"messages": answer["messages"], "tools": answer.get("tools") or []})


def _turns(known: Known, answer: Answer) -> str:
    """The answers of the same conversation, where there are others."""
    kept = list(read(known.store.state / FOLDER))
    talk = next((one for one in conversations(kept) if answer["id"] in {turn["id"] for turn in one}), [])
    return ", ".join(turn["id"] for turn in talk) if len(talk) > 1 else ""


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
