"""The hermes text form: tools, calls and results as text inside messages that any chat template can hold.

For checkpoints whose template knows no tools: fine-tuning teaches it on their own tokenizer. The words are those of Qwen's template,
which took them from Hermes (https://huggingface.co/NousResearch/Hermes-2-Pro-Mistral-7B).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tasks.chat.local.calls import CallGrammar, Tools
from tasks.contract.client import Message

CALL, CALL_END, ANSWER, ANSWER_END = "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"
MARKERS = (CALL, CALL_END, ANSWER, ANSWER_END)
GRAMMAR = CallGrammar("object", open=f"{CALL}\n", close=f"\n{CALL_END}", between="\n" + f"{CALL}\n")
_ABOUT_TOOLS = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>\n{schemas}\n</tools>\n\n"
    "For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\n"
    '<tool_call>\n{{"name": <function-name>, "arguments": <args-json-object>}}\n</tool_call>'
)


def written(messages: Sequence[Message], tools: Tools = ()) -> list[Message]:
    """The same conversation in messages of role, system, user and assistant alone; neighbouring results share one user message."""
    ready: list[Message] = []
    if tools:
        system = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
        ready.append({"role": "system", "content": with_tools(system, tools)})
        messages = messages if system is None else messages[1:]
    results: list[str] = []
    for message in messages:
        if message["role"] == "tool":
            results.append(f"{ANSWER}\n{message['content']}\n{ANSWER_END}")
            continue
        if results:
            ready.append({"role": "user", "content": "\n".join(results)})
            results = []
        ready.append({"role": message["role"], "content": _words(message)})
    return [*ready, {"role": "user", "content": "\n".join(results)}] if results else ready


def with_tools(system: str | None, tools: Tools) -> str:
    """A system message that says, behind its own words, which tools there are and how they are called."""
    about = _ABOUT_TOOLS.format(schemas="\n".join(json.dumps(tool, ensure_ascii=False) for tool in tools))
    return about if system is None else f"{system}\n\n{about}"


def _words(message: Message) -> str:
    parts = [message["content"]] if message["content"] else []
    return "\n".join(parts + [_call(call) for call in message.get("tool_calls") or ()])


def _call(call: Message) -> str:
    function = call["function"]
    name, arguments = (json.dumps(function[key], ensure_ascii=False) for key in ("name", "arguments"))
    return f'{CALL}\n{{"name": {name}, "arguments": {arguments}}}\n{CALL_END}'
