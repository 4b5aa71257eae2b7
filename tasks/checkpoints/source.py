"""Checkpoints that come from outside: which of their files count, and what those say without being loaded."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.checkpoints import adapters, folders, lora_config
from tasks.checkpoints.reading import readable
from tasks.contract.params import BadInput, is_file

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

COUNTED = (
    "*.safetensors",
    "*.json",
    "*.jinja",
    "additional_chat_templates/*.jinja",
    "tokenizer.model",
    "merges.txt",
    "vocab.txt",
    "README.md",
    "LICENSE*",
)
"""Files of a checkpoint's folder that are read: weights, configuration, tokenizer, templates, and what says under which licence."""
TOKENIZERS = ("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""Files of which at least one is there where there is a tokenizer."""
PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
"""Weights that run code when they are read."""
_CLONE = 0x40049409
"""Linux' FICLONE: the same bytes under another name, shared until one of them is written to."""
_NO_LINKS = (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)


def counted(source: Path) -> list[Path]:
    """The files of a checkpoint's folder that are read, sorted; the file itself for a GGUF file."""
    if source.is_file():
        return [source]
    return sorted({path for pattern in COUNTED for path in source.glob(pattern) if path.is_file()})


def weight_files(folder: Path) -> list[Path]:
    """The safetensors that hold a folder's whole model, adapters apart. BadInput for weights that are pickled, incomplete or none."""
    found = [path for path in sorted(folder.glob("*.safetensors")) if path.name != adapters.WEIGHTS]
    if not found:
        if pickled := sorted(path.name for pattern in PICKLED for path in folder.glob(pattern)):
            raise BadInput(
                f"its weights are pickled ({', '.join(pickled[:3])}): reading them runs whatever code lies in them, so Cairn does not. "
                "Take a revision with safetensors, or convert them where you trust them: AutoModelForCausalLM.from_pretrained(FOLDER)"
                ".save_pretrained(OTHER) writes safetensors; and copy the tokenizer's files beside them."
            )
        raise BadInput("no weights: no *.safetensors in it.")
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        wanted = _parts(index)
        if missing := sorted(wanted - {path.name for path in found}):
            raise BadInput(f"{index.name} names {', '.join(missing[:3])}, which is not there: the checkpoint was not fetched whole.")
        return [folder / name for name in sorted(wanted)]
    if len(found) > 1:  # Mistral's own form of the same weights lies beside them in its folders
        if whole := [path for path in found if path.name == "model.safetensors"]:
            return whole
        raise BadInput(
            f"{len(found)} files of weights ({', '.join(path.name for path in found[:3])}), and no {index.name} that says what is in "
            "which. Was the checkpoint fetched whole?"
        )
    return found


def _parts(index: Path) -> set[str]:
    """Names of the files that an index names."""
    try:
        return {str(name) for name in json.loads(index.read_text("utf-8"))["weight_map"].values()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadInput(f"{index.name} is no index of weights ({type(error).__name__}: {error}). Was it fetched whole?") from None


def check_folder(folder: Path, where: str) -> None:
    """BadInput for a folder without a checkpoint's configuration, or without weights that can be read and run nothing; those of an
    adapter count. where: begins the message."""
    if not is_file(folder / "config.json"):
        raise BadInput(f"{where}: not a checkpoint folder (no config.json in it)")
    if not adapters.is_adapter(folder):
        try:
            weight_files(folder)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None


def has_tokenizer(folder: Path) -> bool:
    """Whether a tokenizer's files lie in a folder."""
    return any((folder / name).is_file() for name in TOKENIZERS)


def shapes(files: list[Path]) -> dict[str, tuple[int, ...]]:
    """Tensor -> its shape, from the heads of safetensors. BadInput for a file that cannot be read."""
    from safetensors import SafetensorError, safe_open

    found: dict[str, tuple[int, ...]] = {}
    for path in files:
        try:
            with safe_open(str(path), framework="np") as tensors:
                found |= {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise BadInput(f"{path.name} cannot be read: {error}. Was it fetched whole?") from None
    return found


def licence(folder: Path) -> str:
    """What the head of a folder's README.md says of its licence, else the first line of its LICENSE; "" where neither does."""
    with suppress(OSError):
        head = re.match(r"---\n(.*?)\n---", (folder / "README.md").read_text("utf-8", errors="replace"), re.DOTALL)
        if head and (found := re.search(r"^license:[ \t]*(\S.*)$", head[1], re.MULTILINE)):
            return found[1].strip().strip("'\"")
    for path in sorted(folder.glob("LICENSE*")):
        if lines := path.read_text("utf-8", errors="replace").strip().splitlines():
            return lines[0].strip()[:200]
    return ""


def check_adapter(folder: Path, base: Mapping[str, tuple[int, ...]]) -> None:
    """BadInput unless the LoRA adapter in a folder fits the base beside it, which has these shapes."""
    if (made_for := adapters.base_of(folder)) and made_for.weights != (here := adapters.weights_of(folder)):
        raise BadInput(f"an adapter of another base: it was trained on {made_for}, and beside it lie weights {here}.")
    pattern = re.compile(r"(?:base_model\.model\.)?(?P<linear>.+)\.lora_(?P<side>[AB])(?:\.[^.]+)?\.weight")
    sides: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes([folder / adapters.WEIGHTS]).items():
        if found := pattern.fullmatch(name):
            sides.setdefault(found["linear"], {})[found["side"]] = shape
    if not sides:
        raise BadInput(f"{adapters.WEIGHTS} holds no LoRA adapter. Merge it into its base first.")
    for linear, pair in sorted(sides.items()):
        wanted, given = base.get(f"{linear}.weight"), (pair.get("B", (0,))[0], pair.get("A", (0, 0))[-1])
        if given != wanted:
            raise BadInput(f"an adapter of another base: {linear} is {wanted or 'not in this base'}, and the adapter is for {given}.")
    with readable(f"{adapters.CONFIG} cannot be read"):
        config = lora_config.read(folder)
    lora_config.check(config, {linear: pair["A"][0] for linear, pair in sides.items()})


def place(source: Path, target: Path) -> None:
    """Make `target` the same bytes as `source` without a copy where the file system can: shared blocks, else a hard link."""
    source = source.resolve()
    try:
        with source.open("rb") as read, target.open("xb") as written:
            fcntl.ioctl(written.fileno(), _CLONE, read.fileno())
        return
    except OSError:
        target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        shutil.copyfile(source, target)


def read_config(folder: Path) -> Any:
    """The configuration of a checkpoint's folder. BadInput for what transformers does not know, and for code that would have to run."""
    from transformers import AutoConfig

    own = "its architecture is code of its own (auto_map in config.json), and remote code is off"
    with readable("config.json names no model that can be run here", own if "auto_map" in _text(folder / "config.json") else ""):
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a checkpoint's folder, whatever chat format the folder keeps. BadInput for none, and for one that cannot be
    loaded."""
    if not has_tokenizer(folder):
        raise BadInput(f"no tokenizer in it: none of {', '.join(TOKENIZERS)}. Copy the files of the checkpoint's tokenizer there.")
    with readable("its tokenizer cannot be loaded"):
        return folders.load_bare_tokenizer(folder)


def _text(file: Path) -> str:
    return file.read_text("utf-8", errors="replace") if file.is_file() else ""
