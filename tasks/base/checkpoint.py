"""Begins with a checkpoint that exists already: a transformers folder, an artifact, a registered model, a GGUF file, or one of a hub.

Its weights are kept as they are, without a copy where the file system can share them; only a GGUF file, an adapter in the folder or
another `dtype` has them written anew. How it writes conversations is found out from its own tokenizer and proven (`tasks.chat`), and
kept with it. What could not be trained, or would lose every conversation, is refused before anything is paid.

Departures: No departure; this is no paper's method.

Cost: the proof of the chat format, seconds; and reading the weights once, to know their bytes.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from tasks.base import Inputs
from tasks.chat import proof
from tasks.chat.local import kept
from tasks.chat.local.format import ChatFormat, ChatRefused
from tasks.checkpoints import adapters, folders, gguf_file, saving, source
from tasks.checkpoints.reading import readable
from tasks.contract.context import Context
from tasks.contract.params import BadInput, StageFailed
from tasks.contract.params import Params as Base
from tasks.worlds.api.frozen import load_all
from tasks.worlds.api.system_prompt import system_message, tools_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TITLE = "A checkpoint that exists already"
PAPER = ""
SLUG = ""

OPENING = "Hello."
"""A user's first words, with which a prompt is measured; ours: the shortest that people say."""


class Params(Base):
    """Which checkpoint, and how it writes conversations."""

    PLACE: ClassVar[str] = "source"

    source: str = Field(
        "",
        description="where it lies: a folder or a GGUF file, artifact:<identity>, models:/<name>@<alias>, models:/<name>/<version>, or "
        "hub:<owner>/<name>@<commit>",
    )
    identity: str = Field("", description="its bytes, which a key holds instead of the place; Cairn says it when it is missing")
    origin: str = Field("", description="where it comes from, for model cards; empty: its name on the hub, or what its files say")
    license: str = Field("", description="its licence, for model cards; empty: what its files say")
    chat_format: Literal["auto", "hermes"] = Field(
        "auto",
        description="auto: as its own chat template writes tools; hermes: calls as text, taught by fine-tuning, for a template without "
        "tools or a checkpoint without a template",
    )
    thinking: bool = Field(False, description="whether prompts leave room for a thought, where its template can do with and without")
    dtype: Literal["source", "float32", "bfloat16", "float16"] = Field(
        "source", description="of the weights that are kept; source: as they are (of a GGUF file: float32)"
    )

    @model_validator(mode="before")
    @classmethod
    def _called_as_on_the_hub(cls, values: Any) -> Any:
        """What comes from the hub is called so on cards, unless the params say otherwise."""
        if isinstance(values, Mapping) and str(values.get("source", "")).startswith("hub:") and not values.get("origin"):
            return {**values, "origin": str(values["source"]).removeprefix("hub:")}
        return values


@dataclass(frozen=True)
class Found:
    """A source as it was read. shapes: of its tensors by name, {} of a GGUF file. adapter: one lies beside the weights."""

    config: Any
    tokenizer: Any
    chat: ChatFormat
    shapes: Mapping[str, tuple[int, ...]]
    license: str
    origin: str
    adapter: bool


def preflight(inputs: Inputs, params: Params, prompt: Mapping[str, str]) -> Found:
    """What was found without loading the weights, by which whoever has to run or train it can say whether it does. BadInput for a
    checkpoint that no training could begin with. prompt: what the agent's system prompts carry."""
    return _examine(inputs, params, prompt)


def run(inputs: Inputs, params: Params, ctx: Context) -> dict[str, Any]:
    """Leave model/, an empty curves.csv and source.json: identity, origin and licence of what was taken, its chat format."""
    found, place = _examine(inputs, params, ctx.prompt), _source(inputs)
    folder, linked = ctx.out / "model", params.dtype == "source" and not found.adapter and not gguf_file.is_gguf(place)
    folder.mkdir()
    if linked:
        _check_numbers(source.weight_files(place))
        _link(place, folder)
        saving.save_tokenizer(found.tokenizer, folder)
    else:
        model = _loaded(place, params, found, ctx)
        if not saving.all_finite(model):
            raise StageFailed(f"weights are NaN or infinite as {model.dtype}: the checkpoint is broken, or dtype too narrow for it.")
        saving.save(model, found.tokenizer, folder)
    (ctx.out / "curves.csv").write_text("step,loss\n", encoding="utf-8")
    about = {
        "identity": params.identity,
        "origin": found.origin,
        "license": found.license,
        "chat_format": {"name": found.chat.name, "form": found.chat.form, "style": found.chat.style, **found.chat.about},
    }
    (ctx.out / "source.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    weights = source.shapes(source.weight_files(folder))
    return {
        "parameters": sum(math.prod(shape) for shape in weights.values()),
        "vocabulary": len(found.tokenizer),
        "context": _context(found.config),
        "chat_form": found.chat.form,
        "chat_cost": found.chat.about["cost"],
        "license": found.license or "unknown",
        "origin": found.origin or "unknown",
    }


def _source(inputs: Inputs) -> Path:
    if inputs.source is None:
        raise StageFailed("base.checkpoint was run without a source")
    return inputs.source


def check_files(place: Path) -> None:
    """BadInput for a folder or a GGUF file that lacks weights, configuration or tokenizer, or whose parts are not of one checkpoint."""
    files = _read(place)
    proof.check_vocabulary(files.tokenizer, _rows(files.config, files.shapes))
    _check_weights(place, files)


@dataclass(frozen=True)
class _Files:
    """What lies there, read without loading the weights. about: what a GGUF file says of itself, {} of a folder."""

    config: Any
    tokenizer: Any
    shapes: Mapping[str, tuple[int, ...]]
    about: Mapping[str, str]


def _read(place: Path) -> _Files:
    if gguf_file.is_gguf(place):
        return _Files(*gguf_file.config_and_tokenizer(place), {}, gguf_file.about(place))
    if place.is_file():
        raise BadInput("a file that is no GGUF file. Give the folder that it lies in.")
    shapes = _shapes(place)
    _check_json(place)
    return _Files(source.read_config(place), source.read_tokenizer(place), shapes, {})


def _examine(inputs: Inputs, params: Params, prompt: Mapping[str, str]) -> Found:
    """Read what the source says without loading its weights; BadInput for what cannot be used."""
    place = _source(inputs)
    files = _read(place)
    config, tokenizer = files.config, files.tokenizer
    rows = _rows(config, files.shapes)
    _check_weights(place, files)
    chat = _chat(tokenizer, params, rows)
    _check_context(inputs.worlds, prompt, tokenizer, chat, _context(config))
    said = files.about.get("license", "") if files.about else source.licence(place)
    adapter = not files.about and adapters.is_adapter(place)
    origin = params.origin or files.about.get("name", "")
    return Found(config, tokenizer, chat, files.shapes, params.license or said, origin, adapter)


def _shapes(folder: Path) -> Mapping[str, tuple[int, ...]]:
    alone = {path.name for path in folder.glob("*.safetensors")} <= {adapters.WEIGHTS}
    if adapters.is_adapter(folder) and alone:
        raise BadInput("an adapter alone. Put it beside its base's files, in one folder: then it is checked and merged.")
    if not (folder / "config.json").is_file():
        inside = ", ".join(path.name for path in sorted(folder.glob("*.gguf"))[:3])
        raise BadInput(f"no config.json in it{f'. It holds {inside}: name the file' if inside else ''}.")
    found = source.shapes(source.weight_files(folder))
    if adapters.is_adapter(folder):
        source.check_adapter(folder, found)
    return found


def _check_json(folder: Path) -> None:
    """BadInput for a file of those that are kept as they are that is no JSON object, or that transformers could not generate with."""
    from transformers import GenerationConfig

    for path, name in _named_files(folder):
        if path.suffix != ".json":
            continue
        try:
            said = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise BadInput(f"{name} is no JSON: {error}. Was it fetched whole?") from None
        if not isinstance(said, dict):
            raise BadInput(f"{name} holds no JSON object, but {str(said)[:40]!r}. Take the file of the model's own publisher.")
        if name == "generation_config.json":
            with readable(f"{name} cannot be used"):
                GenerationConfig.from_dict(said)


def _rows(config: Any, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Rows of the embedding. BadInput when the configuration says another number."""
    said, stored = int(config.get_text_config().vocab_size), shapes.get("model.embed_tokens.weight", (0,))[0]
    if stored and stored != said:
        raise BadInput(f"config.json says vocab_size {said}, and the embedding has {stored} rows: they are not of one checkpoint.")
    return said


def _check_weights(place: Path, files: _Files) -> None:
    """BadInput for a folder whose weights are not those of the model that its configuration names, or that cannot be loaded here."""
    if not files.shapes:
        return
    with tempfile.TemporaryDirectory() as folder:
        for path, name in _named_files(place):
            (Path(folder) / name).symlink_to(path.resolve())
        with readable("transformers cannot load it"):
            wrong = folders.misfit(Path(folder))
    if wrong:
        raise BadInput(f"{wrong}. Was it fetched whole, and is the config.json its own?")


def _context(config: Any) -> int:
    return int(getattr(config.get_text_config(), "max_position_embeddings", 0) or 0)


def _chat(tokenizer: Any, params: Params, rows: int) -> ChatFormat:
    """The proven chat format, which the tokenizer keeps from now on; what pads is a token that it has."""
    proof.check_vocabulary(tokenizer, rows)
    try:
        chat = proof.find(tokenizer, params.chat_format, thinking=params.thinking)
    except ChatRefused as error:
        hint = ". Or base.checkpoint.chat_format: hermes, which teaches calls as text" if params.chat_format == "auto" else ""
        raise BadInput(f"its chat format cannot be used: {str(error).rstrip('.')}{hint}.") from None
    kept.keep(tokenizer, chat)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or chat.ends[0]
    return chat


def _check_context(worlds: Path, prompt: Mapping[str, str], tokenizer: Any, chat: ChatFormat, context: int) -> None:
    """BadInput when a world's prompt leaves no room for an answer."""
    for world in load_all(worlds).values():
        messages = [{"role": "user", "content": OPENING}]
        length = len(chat.prompt_ids(tokenizer, system_message(world, prompt), messages, tools_of(world, prompt)))
        if context and length >= context:
            raise BadInput(
                f"its context is {context} tokens, and the first prompt of world {world.name} alone has {length}. Shorten the prompt "
                "(prompt.tools, prompt.policy), or take a checkpoint with a longer context."
            )


def _link(place: Path, folder: Path) -> None:
    """The weights and the configuration under the names that transformers looks for."""
    for path, name in _named_files(place):
        source.place(path, folder / name)


def _named_files(place: Path) -> Iterator[tuple[Path, str]]:
    """(file, name that transformers looks for) of the weights and the configuration."""
    files = source.weight_files(place)
    yield from ((path, path.name if len(files) > 1 else "model.safetensors") for path in files)
    names = ["config.json", "generation_config.json", *(["model.safetensors.index.json"] if len(files) > 1 else [])]
    yield from ((place / name, name) for name in names if (place / name).is_file())


def _check_numbers(files: list[Path]) -> None:
    """StageFailed for a weight that is NaN or infinite: every stage to come would be paid for nothing."""
    import torch
    from safetensors import safe_open

    for path in files:
        with safe_open(str(path), framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                weights = tensors.get_tensor(name)
                if weights.is_floating_point() and weights.element_size() > 1 and not bool(torch.isfinite(weights).all()):
                    raise StageFailed(f"{path.name} holds a weight that is NaN or infinite, in {name}: the checkpoint is broken.")


def _loaded(place: Path, params: Params, found: Found, ctx: Context) -> PreTrainedModel:
    """The model with weights that are written anew."""
    if gguf_file.is_gguf(place):
        return gguf_file.load(place, "float32" if params.dtype == "source" else params.dtype)
    plain = ctx.scratch / "base"  # transformers would load the adapter's own idea of a base, were it beside the weights
    plain.mkdir(exist_ok=True)
    for path in plain.iterdir():
        path.unlink()
    _link(place, plain)
    saving.save_tokenizer(found.tokenizer, plain)
    dtype = str(found.config.dtype or "float32").removeprefix("torch.") if params.dtype == "source" else params.dtype
    model, _ = folders.load(plain, dtype=dtype)
    if found.adapter:
        from peft import PeftModel

        merged: PreTrainedModel = PeftModel.from_pretrained(model, str(place)).merge_and_unload()
        return merged
    return model
