"""The chat format of Qwen3-Instruct-2507 (https://huggingface.co/Qwen/Qwen3-4B-Instruct-2507), which the tiny model is built with: its
markers, its template, and the same text written by hand, ten times as fast.

It preserves prefixes and has no thinking, so the text of a conversation is the text of its beginning plus what came after.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from tasks.contract.client import Message

START, END, TEXT = "<|im_start|>", "<|im_end|>", "<|endoftext|>"
CALL, CALL_END, ANSWER, ANSWER_END = "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"
SPECIALS = (TEXT, START, END, CALL, CALL_END, ANSWER, ANSWER_END)
"""Every one is a single token; TEXT pads, END closes a turn."""

CHAT_TEMPLATE = r"""
{%- set system = messages[0].content if messages and messages[0].role == 'system' else none %}
{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if system is not none %}{{- system + '\n\n' }}{%- endif %}
    {{- '# Tools\n\nYou may call one or more functions to assist with the user query.\n\n' }}
    {{- 'You are provided with function signatures within <tools></tools> XML tags:\n<tools>' }}
    {%- for tool in tools %}{{- '\n' }}{{- tool | tojson }}{%- endfor %}
    {{- '\n</tools>\n\nFor each function call, return a json object with function name and arguments within ' }}
    {{- '<tool_call></tool_call> XML tags:\n<tool_call>\n' }}
    {{- '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n' }}
{%- elif system is not none %}
    {{- '<|im_start|>system\n' + system + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\n' }}
        {%- generation %}
        {{- content }}
        {%- for tool_call in message.tool_calls or [] %}
            {%- if content or not loop.first %}{{- '\n' }}{%- endif %}
            {%- set call = tool_call.function if tool_call.function else tool_call %}
            {{- '<tool_call>\n{"name": "' + call.name + '", "arguments": ' }}
            {%- if call.arguments is string %}{{- call.arguments }}{%- else %}{{- call.arguments | tojson }}{%- endif %}
            {{- '}\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>' }}
        {%- endgeneration %}
        {{- '\n' }}
    {%- elif message.role == 'tool' %}
        {%- if loop.first or loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' + content + '\n</tool_response>' }}
        {%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
""".strip()
"""The same text as TRL's `qwen3_instruct_2507` template; the generation markers enclose what the assistant produces."""

OPEN = f"{START}assistant\n"
"""What asks the assistant for a turn."""


def turn_text(message: Message) -> str:
    """What the assistant produces in one turn (of `ChatFormat.readable`): content, tool calls and the end marker."""
    parts = [message["content"]] if message["content"] else []
    return "\n".join(parts + [_call_text(call) for call in message.get("tool_calls") or ()]) + END


def _call_text(call: Message) -> str:
    function = call["function"]
    return f'{CALL}\n{{"name": "{function["name"]}", "arguments": {json.dumps(function["arguments"], ensure_ascii=False)}}}\n{CALL_END}'


def _read_text(messages: Sequence[Message]) -> str:
    """The text of messages that the assistant reads (system, user, tool); neighbouring tool answers share one user turn."""
    parts = []
    for index, message in enumerate(messages):
        content = message["content"]
        if message["role"] != "tool":
            parts.append(f"{START}{message['role']}\n{content}{END}\n")
            continue
        first = index == 0 or messages[index - 1]["role"] != "tool"
        last = index == len(messages) - 1 or messages[index + 1]["role"] != "tool"
        opening, closing = f"{START}user" if first else "", f"{END}\n" if last else ""
        parts.append(f"{opening}\n{ANSWER}\n{content}\n{ANSWER_END}{closing}")
    return "".join(parts)


def suffix_text(messages: Sequence[Message]) -> str:
    """What is read between two turns, the end of the first apart."""
    return "\n" + _read_text(messages) + OPEN


def turn_texts(messages: Sequence[Message], prompt: bool) -> list[str]:
    """Texts read and produced by turns: [read, turn, read, turn, ..., read]. messages: of `ChatFormat.readable`, the system message
    among them. prompt: the last read ends by asking for a turn."""
    segments: list[str] = []
    waiting: list[Message] = []
    for message in messages:
        if message["role"] != "assistant":
            waiting.append(message)
            continue
        segments += [suffix_text(waiting) if segments else _read_text(waiting) + OPEN, turn_text(message)]
        waiting = []
    return [*segments, ("\n" if segments else "") + _read_text(waiting) + (OPEN if prompt else "")]
