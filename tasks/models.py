"""Checkpoints, tokenizers, the chat format, and the proof that training and serving read the same tokens.

A checkpoint is an ordinary transformers folder: safetensors, JSON and `chat_template.jinja` alone; no pickle, no remote
code. The chat format is Qwen3-Instruct-2507's (https://huggingface.co/Qwen/Qwen3-4B-Instruct-2507): it preserves prefixes
and has no thinking, so the text of a conversation is the text of its beginning plus what came after.

Token ids are built turn by turn, exactly as a server sees them: what the model reads before a turn is encoded apart from
what it produces in it. Law 7, "tokens are never re-rendered", rests on `render`, `suffix_ids` and `prove_masks`.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.llm import Message
from tasks.llm.answers import without_thought
from tasks.params import StageFailed
from tasks.worlds.calls import unfit
from tasks.worlds.values import half_character

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

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

_OPEN = f"{START}assistant\n"
_SPECIAL = re.compile("<(?=" + "|".join(re.escape(token[1:]) for token in SPECIALS) + ")")


# The tokenizer and the architecture of the tiny model.

PIECES = (
    r"(?:system|user|assistant)\n"  # a turn's header ends here, whatever comes next: encoding by turns equals encoding the whole
    r'|(?:\n?[\]}"]*(?:, )?[\[{]*"[a-z_]+": (?:\["|")?)+'  # JSON keys with what stands around them: fixed words of a world's API
    r"|~"  # words of a world's data stand alone: one token in prose and in JSON, so that it can be found again and copied
    r"|\d{1,2}"  # a hundred groups that every world uses often; of a thousand groups of three, many are too rare to be copied
    r"| ?(?!~)[a-z]+(?![a-z0-9_@-])(?: (?=[A-Z\d]|~))?|[a-z]+(?:_[a-z]+)+(?![a-z0-9_])"  # other words, names of tools
    r"|[a-z]+|[A-Z][A-Za-z]*"  # parts of identifiers, proper names
    r"|[^\sA-Za-z\d]+(?: [^\sA-Za-z\d]+)*(?:\n| (?=[A-Z\d]|~))?|\s"
)
"""Pre-tokens of the tiny tokenizer: long where a world's API fixes the words, and alike wherever a name or a value is copied.
`~` stands for any of the data's words."""
_WORD = r"(?<![A-Za-z_])[a-z]+(?![A-Za-z_0-9])"


def _pieces(words: Iterable[str]) -> str:
    known = "|".join(sorted(words, key=lambda word: (-len(word), word)))
    return PIECES.replace("~", rf"(?<![A-Za-z_])(?:{known})(?![A-Za-z_0-9])" if known else "(?!)")


def data_words(messages: Sequence[Message]) -> set[str]:
    """Lower-case words in the values that tools are given and answer with, errors apart: what an agent reads and repeats."""
    values: list[Any] = [call["function"]["arguments"] for message in messages for call in message.get("tool_calls") or ()]
    for message in messages:
        if message["role"] == "tool":
            with contextlib.suppress(ValueError):
                values.append(json.loads(message["content"]))
    found: set[str] = set()
    while values:
        value = values.pop()
        if isinstance(value, dict) and set(value) != {"error"}:
            values += value.values()
        elif isinstance(value, list):
            values += value
        elif isinstance(value, str):
            found.update(re.findall(_WORD, value))
    return found


def language(system: str | None, messages: Sequence[Message]) -> list[str]:
    """What a tokenizer learns from a conversation: the texts between the chat format's markers, roles included."""
    markers = "|".join(re.escape(token) for token in SPECIALS)
    return [text for text in re.split(markers, "".join(_segments(system, messages, prompt=False))) if text]


def build_tokenizer(texts: Iterable[str], vocab: int, words: Iterable[str] = ()) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer of at most `vocab` entries on `texts`; deterministic in the texts and their order.

    words: lower-case words that keep no space to themselves, wherever they stand (`data_words`).

    Raises ValueError when `vocab` cannot hold the 256 bytes and the special tokens.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    if vocab < 256 + len(SPECIALS):
        raise ValueError(f"a byte-level vocabulary needs at least {256 + len(SPECIALS)} entries, not {vocab}")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(_pieces(words)), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab, special_tokens=list(SPECIALS), initial_alphabet=alphabet, show_progress=False, min_frequency=2
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token=END,
        pad_token=TEXT,
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


CONTEXT = 4096
"""Positions of the tiny model, tokens: enough for schemas, policy and a long conversation."""


def tiny_qwen3(tokenizer: PreTrainedTokenizerBase, layers: int, width: int, heads: int) -> PreTrainedModel:
    """A Qwen3 with random weights: heads of width / heads, MLP of 8/3 width (rounded up to 32), tied embeddings.

    The weights come from the global generator: seed it first.
    """
    from transformers import GenerationConfig, Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=-(-8 * width // 96) * 32,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        head_dim=width // heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        use_cache=True,
    )
    model = Qwen3ForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return model


# Folders.


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint folder, with the chat template that it was trained with."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    for how in ("is_local", "local_files_only"):  # how it was read is not part of it, but would be saved with it
        tokenizer.init_kwargs.pop(how, None)
    return tokenizer


def load(folder: Path, device: str = "cpu", dtype: str = "float32") -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A checkpoint folder as (model in eval mode on `device`, tokenizer). dtype: a torch dtype's name, e.g. "bfloat16".

    Only safetensors are read. Raises FileNotFoundError when the folder holds no model.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # Cairn reports progress itself
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder}: no checkpoint here (config.json is missing)")
    model = AutoModelForCausalLM.from_pretrained(
        str(folder), dtype=getattr(torch, dtype), local_files_only=True, use_safetensors=True, trust_remote_code=False
    )
    return model.to(device).eval(), load_tokenizer(folder)


def warm_up(folder: Path) -> None:
    """Import all that `load` needs for a checkpoint (4 s) and compute nothing: for a process that forks before it loads."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    load_tokenizer(folder)


def trainable(model: PreTrainedModel) -> list[torch.nn.Parameter]:
    """The parameters that a training moves, at least one; StageFailed when a method's `prepare` has left none."""
    if found := [parameter for parameter in model.parameters() if parameter.requires_grad]:
        return found
    raise StageFailed("nothing would train: after the method's `prepare` no parameter has requires_grad. Leave some of them free.")


def context_of(model: PreTrainedModel) -> int:
    """Positions of a checkpoint: the most tokens that it was made to read at once."""
    return int(getattr(model.config.get_text_config(), "max_position_embeddings", 0) or sys.maxsize)


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a checkpoint folder: safetensors, JSON and the chat template. The bytes depend on the weights alone.

    StageFailed for weights that are no numbers (a training that diverged), and for a model that still wears an adapter: PEFT would
    save that alone, and no later stage could load it.
    """
    import torch
    from transformers.utils import logging

    if hasattr(model, "get_base_model"):
        raise StageFailed("the trained model still wears an adapter. A method that puts one in by `prepare` merges it by `finish`.")
    if not all(bool(torch.isfinite(weights).all()) for weights in model.parameters()):
        raise StageFailed("the training diverged: weights are NaN or infinite, so nothing was kept. Lower the learning rate.")
    logging.disable_progress_bar()  # Cairn reports progress itself
    model.config._name_or_path = ""
    tokenizer.name_or_path = ""
    model.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


# Rendering.


@dataclass(frozen=True)
class Rendered:
    """A conversation as tokens. ids: all of them; mask: 1 where the assistant must produce the token, else 0 (same
    length)."""

    ids: list[int]
    mask: list[int]


def plain(text: str) -> str:
    """Text from users, tools and teachers with the chat format's own markers broken, so that data cannot open a turn."""
    return _SPECIAL.sub("< ", text) if "<" in text else text


def _readable(message: Message) -> str:
    """A message's content as it enters the tokens: a system prompt is ours and may quote markers, anything else may not."""
    content: str = message.get("content") or ""
    return content if message["role"] == "system" else plain(content)


def _call_text(call: Message) -> str:
    function = call["function"]
    arguments = json.dumps(function["arguments"], ensure_ascii=False, sort_keys=True)  # as rows keep them
    return f'{CALL}\n{{"name": "{function["name"]}", "arguments": {arguments}}}\n{CALL_END}'


def turn_text(message: Message) -> str:
    """What the assistant produces in one turn: content, tool calls and the end marker."""
    content = plain(message.get("content") or "")
    parts = [content] if content else []
    return "\n".join(parts + [_call_text(call) for call in message.get("tool_calls") or ()]) + END


def _read_text(messages: Sequence[Message]) -> str:
    """The text of messages that the assistant reads (system, user, tool); neighbouring tool answers share one user turn."""
    parts = []
    for index, message in enumerate(messages):
        content = _readable(message)
        if message["role"] != "tool":
            parts.append(f"{START}{message['role']}\n{content}{END}\n")
            continue
        first = index == 0 or messages[index - 1]["role"] != "tool"
        last = index == len(messages) - 1 or messages[index + 1]["role"] != "tool"
        opening, closing = f"{START}user" if first else "", f"{END}\n" if last else ""
        parts.append(f"{opening}\n{ANSWER}\n{content}\n{ANSWER_END}{closing}")
    return "".join(parts)


def _segments(system: str | None, messages: Sequence[Message], prompt: bool) -> list[str]:
    """Texts read and produced by turns: [read, turn, read, turn, ..., read]. `prompt`: the last read ends by asking for a
    turn."""
    head: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    segments: list[str] = []
    waiting = head
    for message in messages:
        if message["role"] != "assistant":
            waiting = [*waiting, message]
            continue
        segments += [suffix_text(waiting) if segments else _read_text(waiting) + _OPEN, turn_text(message)]
        waiting = []
    return [*segments, ("\n" if segments else "") + _read_text(waiting) + (_OPEN if prompt else "")]


def _encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    # The tokenizer's own batch call: transformers' wrapper costs more than the encoding of short texts.
    return [encoding.ids for encoding in tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)]


def _decode(tokenizer: PreTrainedTokenizerBase, ids: Sequence[list[int]]) -> list[str]:
    texts: list[str] = tokenizer.backend_tokenizer.decode_batch(list(ids), skip_special_tokens=False)
    return texts


def render(tokenizer: PreTrainedTokenizerBase, system: str | None, messages: Sequence[Message]) -> Rendered:
    """A whole conversation as tokens, with the assistant's own marked. `system` None: no system turn."""
    return render_many(tokenizer, [(system, messages)])[0]


def render_many(tokenizer: PreTrainedTokenizerBase, conversations: Sequence[tuple[str | None, Sequence[Message]]]) -> list[Rendered]:
    """`render` for many conversations with one call of the tokenizer."""
    texts = [_segments(system, messages, prompt=False) for system, messages in conversations]
    encoded = iter(_encode(tokenizer, [text for segments in texts for text in segments]))
    rendered = []
    for segments in texts:
        ids: list[int] = []
        mask: list[int] = []
        for index in range(len(segments)):
            piece = next(encoded)
            ids += piece
            mask += [index % 2] * len(piece)
        rendered.append(Rendered(ids, mask))
    return rendered


def prompt_ids(tokenizer: PreTrainedTokenizerBase, system: str | None, messages: Sequence[Message]) -> list[int]:
    """All ids that the model reads before its next turn, from the beginning of a conversation, generation prompt
    included."""
    return [token for piece in _encode(tokenizer, _segments(system, messages, prompt=True)) for token in piece]


def suffix_text(messages_since: Sequence[Message]) -> str:
    """The text behind `suffix_ids`."""
    return "\n" + _read_text(messages_since) + _OPEN


def suffix_ids(tokenizer: PreTrainedTokenizerBase, messages_since: Sequence[Message]) -> list[int]:
    """The ids that the model reads between its last turn (which ended in <|im_end|>) and its next, generation prompt
    included.

    messages_since: the user and tool messages after that turn, none of them the assistant's.
    """
    return _encode(tokenizer, [suffix_text(messages_since)])[0]


# Parsing.


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _parse_call(text: str, number: int) -> Message:
    """One call's JSON: an object of a name and an object of arguments, nothing else; ValueError otherwise."""
    call = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    if not isinstance(call, dict) or set(call) != {"name", "arguments"}:
        raise ValueError("a call is an object with name and arguments")
    if not isinstance(call["name"], str) or not call["name"] or not isinstance(call["arguments"], dict):
        raise ValueError("a call's name is a string and its arguments are an object")
    if wrong := unfit(call["arguments"]) or half_character(call["name"]):
        raise ValueError(f"a call that no file can hold: {wrong}")
    return {"id": f"call_{number}", "type": "function", "function": call}


def _parse_text(text: str, first_call: int) -> Message:
    content, *calls = text.split(CALL)
    if calls:
        content = content.removesuffix("\n")
    message: Message = {"role": "assistant", "content": content}
    for number, piece in enumerate(calls, start=first_call):
        body, closed, rest = piece.partition(CALL_END)
        if not closed or rest.strip():
            raise ValueError("a call is not closed, or text follows it")
        message.setdefault("tool_calls", []).append(_parse_call(body, number))
    if _SPECIAL.search(content) or not (content or calls):
        raise ValueError("a marker of the chat format in the reply, or an empty turn")
    return message


def _parse(text: str, first_call: int) -> tuple[Message, str]:
    """A turn's text as (message, error); text that lacks the end marker ran out of tokens."""
    if not text.endswith(END):
        return {"role": "assistant", "content": text}, "max_tokens"
    try:
        return _parse_text(text.removesuffix(END), first_call), ""
    except (ValueError, RecursionError):
        return {"role": "assistant", "content": text.removesuffix(END)}, "parse_error"


def parse_turn(
    tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], first_call: int = 0, thinking: bool = False
) -> tuple[Message, str]:
    """One generated turn as (assistant message, error). error: "", "parse_error", or "max_tokens" when <|im_end|> is
    missing.

    Calls are data: their JSON must be an object of exactly a name and arguments, without repeated keys or NaN; which tools
    exist and what they accept is the world's to judge. Calls get the ids call_<first_call>, call_<first_call + 1> ... A
    broken turn becomes a message whose content is the raw text. Thoughts before the turn are no part of the message; thinking: the
    prompt has opened them (`without_thought`).
    """
    text = _decode(tokenizer, [list(ids)])[0]
    said = without_thought(text.removesuffix(END), thinking)
    return _parse(said + END if text.endswith(END) else said, first_call)


# The mask proof (law 7).


@dataclass(frozen=True)
class Example:
    """One training row: its name (for errors), the system prompt, the messages without it, and their tokens."""

    name: str
    system: str | None
    messages: Sequence[Message]
    rendered: Rendered


class MaskError(ValueError):
    """The trained tokens of a row are not the assistant's own, or its prompt is not the serving prompt."""


def _runs(mask: Sequence[int]) -> list[tuple[int, int]]:
    """The trained spans [start, end) of a mask."""
    edges = [index for index in range(1, len(mask)) if mask[index] != mask[index - 1]]
    bounds = [0, *edges, len(mask)] if mask else []
    return [(start, end) for start, end in itertools.pairwise(bounds) if mask[start]]


def _meaning(message: Message) -> tuple[str, list[tuple[str, Any]]]:
    calls = [(call["function"]["name"], call["function"]["arguments"]) for call in message.get("tool_calls") or ()]
    return plain(message.get("content") or ""), calls


def _served(example: Example) -> list[str]:
    """What a server encodes before each assistant turn: the whole prompt first, then only what came since."""
    texts, before = [], 0
    for index, message in enumerate(example.messages):
        if message["role"] == "assistant":
            since = example.messages[before:index]
            texts.append(suffix_text(since) if before else _segments(example.system, since, prompt=True)[0])
            before = index + 1
    return texts


def _prove(example: Example, served: Sequence[list[int]], turns: Sequence[str], whole: str, template: str) -> None:
    """served: ids before each turn; turns: the trained spans' texts; whole: all tokens' text; template: the witness."""
    own = [index for index, message in enumerate(example.messages) if message["role"] == "assistant"]
    runs = _runs(example.rendered.mask)
    if len(runs) != len(own) or len(example.rendered.ids) != len(example.rendered.mask):
        raise MaskError(f"row {example.name}: {len(runs)} trained spans for {len(own)} assistant turns")
    end = 0
    for (start, stop), index, prompt, text in zip(runs, own, served, turns, strict=True):
        if example.rendered.ids[end:start] != prompt:
            raise MaskError(f"row {example.name}: the prompt before message {index} differs from what a server would send")
        message, error = _parse(text, 0)
        if error or _meaning(message) != _meaning(example.messages[index]):
            raise MaskError(f"row {example.name}: the trained tokens of message {index} read {text!r}{error and f' ({error})'}")
        end = stop
    if whole != template:
        raise MaskError(f"row {example.name}: the tokens do not read as the chat template renders the conversation")


def _sorted(message: Message) -> Message:
    """The message with the keys of its arguments in order, at every depth: one call has one text."""
    if not message.get("tool_calls"):
        return message
    return {**message, "tool_calls": json.loads(json.dumps(message["tool_calls"], sort_keys=True))}


def _conversation(example: Example) -> list[Message]:
    head = [] if example.system is None else [{"role": "system", "content": example.system}]
    return head + [{**_sorted(message), "content": _readable(message)} for message in example.messages]


def prove_masks(tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example], chunk: int = 256) -> int:
    """Law 7, for every row: the trained tokens decode to exactly the assistant's messages and calls, what stands before each
    of them is what a server would send, and the whole reads as the checkpoint's chat template renders it (an independent
    witness).

    Returns how many assistant turns were proven; works through `chunk` rows at a time. Raises MaskError naming row and
    message.
    """
    proven, waiting = 0, iter(examples)
    while rows := list(itertools.islice(waiting, chunk)):
        texts = [_served(row) for row in rows]
        served = iter(_encode(tokenizer, [text for row in texts for text in row]))
        spans = [[row.rendered.ids[start:stop] for start, stop in _runs(row.rendered.mask)] for row in rows]
        turns = iter(_decode(tokenizer, [span for row in spans for span in row]))
        whole = _decode(tokenizer, [row.rendered.ids for row in rows])
        template = tokenizer.apply_chat_template([_conversation(row) for row in rows], tokenize=False)
        for index, row in enumerate(rows):
            prompts = [next(served) for _ in texts[index]]
            _prove(row, prompts, [next(turns) for _ in spans[index]], whole[index], template[index])
            proven += len(spans[index])
    return proven
