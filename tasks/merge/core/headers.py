"""What a checkpoint folder holds, read from its safetensors headers alone, and one tensor of it at a time.

A safetensors file starts with a header length (8 bytes, little-endian) and a JSON header with dtype, shape and offsets of
every tensor. Numpy only: merging needs no torch, which saves seconds and hundreds of MB. Files are mapped: a tensor is read where
it lies, block by block, and costs no memory of its own.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.contract.params import BadInput, brief, is_file

Array = npt.NDArray[Any]

FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
"""Storage dtypes that can be merged, as numpy reads them (bfloat16 as the upper half of a float32's bits)."""
EXACT = {"BOOL": "|u1", "U8": "|u1", "I8": "|i1", "I16": "<i2", "U16": "<u2"} | {
    "I32": "<i4",
    "U32": "<u4",
    "I64": "<i8",
    "U64": "<u8",
}
"""Storage dtypes that are copied from the base."""
_BYTES = {name: np.dtype(code).itemsize for name, code in (FLOATS | EXACT).items()}
_MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors library itself


@dataclass(frozen=True)
class Spec:
    """Where one tensor lies. `start` is its offset from the beginning of `file`, in bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int

    @property
    def numel(self) -> int:
        """Number of elements (1 for a scalar)."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return _BYTES[self.dtype]

    @property
    def nbytes(self) -> int:
        """Bytes in the file."""
        return self.numel * self.itemsize

    @property
    def is_float(self) -> bool:
        """Whether this tensor is merged (else it is copied)."""
        return self.dtype in FLOATS


@dataclass(frozen=True)
class Checkpoint:
    """A folder's tensors by name, its config, the part of its tokenizer that decides what an id means, and its chat template; the
    last two are empty where the folder has none."""

    label: str
    folder: Path
    tensors: Mapping[str, Spec]
    config: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    template: str


def open_checkpoint(label: str, folder: Path) -> Checkpoint:
    """Read headers, config and tokenizer of a checkpoint folder; BadInput says what is missing or damaged."""
    if not folder.is_dir():
        raise BadInput(f"{label}: {folder} is not a folder")
    tensors: dict[str, Spec] = {}
    said, files = _weight_files(label, folder)
    for file in files:
        for spec in read_header(file):
            if spec.name in tensors:
                raise BadInput(f"{label}: tensor {spec.name!r} is in {tensors[spec.name].file.name} and in {file.name}")
            tensors[spec.name] = spec
    _check_index(label, folder, said, tensors)
    config = read_json(folder / "config.json")
    if config is None:
        raise BadInput(f"{label}: {folder} has no config.json: it is not a checkpoint folder")
    return Checkpoint(label, folder, tensors, config, read_tokenizer(folder), read_template(folder))


class Mapped:
    """One tensor where it lies in its file, as stored (bfloat16 as uint16 bits), without a copy."""

    def __init__(self, spec: Spec) -> None:
        self._offset = spec.start % mmap.ALLOCATIONGRANULARITY
        with spec.file.open("rb") as stream:
            length = self._offset + spec.nbytes
            start = spec.start - self._offset
            self._map = mmap.mmap(stream.fileno(), length, offset=start, access=mmap.ACCESS_READ) if length else None
        code = (FLOATS | EXACT)[spec.dtype]
        self.flat: Array = np.frombuffer(self._map or b"", dtype=code, count=spec.numel, offset=self._offset)

    def ahead(self) -> None:
        """Ask the kernel to read it in the background: it is wanted next."""
        if self._map is not None and hasattr(mmap, "MADV_WILLNEED"):
            self._map.madvise(mmap.MADV_WILLNEED)


def read(spec: Spec) -> Array:
    """One tensor as stored, shape `spec.shape`."""
    return Mapped(spec).flat.reshape(spec.shape)


def widen(stored: Array, dtype: str) -> Array:
    """Stored values as float32; exact for F32, F16 and BF16, which are subsets of it, and rounded for F64."""
    if dtype == "BF16":
        wide: Array = (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return wide
    return stored.astype(np.float32, copy=False)


def narrow(values: Array, dtype: str) -> Array:
    """float32 values as stored in `dtype`, rounded once, to nearest, ties to even. Values must be finite."""
    if dtype == "BF16":
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        odd = (bits >> np.uint32(16)) & np.uint32(1)
        rounded: Array = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
        return rounded
    with np.errstate(over="ignore"):  # an overflow becomes inf, which the engine refuses by the tensor's name
        return values.astype(FLOATS[dtype], copy=False)


INDEX = "model.safetensors.index.json"


def _weight_files(label: str, folder: Path) -> tuple[dict[str, str], list[Path]]:
    """(tensor -> file as the index says, the files); without an index the first is empty."""
    index = folder / INDEX
    if index.is_file():
        weight_map = (read_json(index) or {}).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise BadInput(f"{label}: {index} has no weight_map")
        files = sorted({str(name) for name in weight_map.values()})
        for name in files:
            if Path(name).name != name or not is_file(folder / name):
                raise BadInput(f"{label}: {index} names the shard {brief(name)}, which is not in {folder}")
        if (folder / "model.safetensors").is_file() and "model.safetensors" not in files:
            raise BadInput(
                f"{label}: {folder} holds a model.safetensors and {INDEX}, which names other files: two models, of which "
                "transformers reads the first. Delete the one that is not meant."
            )
        return {str(name): str(file) for name, file in weight_map.items()}, [folder / name for name in files]
    single = folder / "model.safetensors"
    if not single.is_file():
        inside = next((path.parent for path in sorted(folder.glob("*/config.json"))), None)
        hint = f" Is {inside} meant?" if inside else ""
        raise BadInput(f"{label}: {folder} has no model.safetensors; only safetensors are read, pickles are not.{hint}")
    return {}, [single]


def _check_index(label: str, folder: Path, listed: Mapping[str, str], tensors: Mapping[str, Spec]) -> None:
    """An index that names a tensor which is not in its file belongs to other files; whoever loads it makes the missing one up."""
    lost = [name for name, file in listed.items() if name not in tensors or tensors[name].file.name != file]
    if lost:
        more = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        raise BadInput(
            f"{label}: {folder / INDEX} says that {listed[lost[0]]} holds the tensor {lost[0]!r}{more}, which is not there. Index and "
            "files do not belong together: fetch or save the checkpoint again."
        )


def read_header(file: Path) -> list[Spec]:
    """Every tensor of one safetensors file; BadInput when it is damaged."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= min(_MAX_HEADER, size - 8):
                raise ValueError(f"header length {length} in a file of {size} bytes")
            header = json.loads(stream.read(length))
        entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
        return [_spec(file, name, entry, 8 + length, size) for name, entry in entries]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{file}: not a readable safetensors file ({error}). Was it written completely?") from None


def _spec(file: Path, name: str, entry: Mapping[str, Any], data: int, size: int) -> Spec:
    begin, end = entry["data_offsets"]
    if entry["dtype"] not in _BYTES:
        known = ", ".join([*FLOATS, *EXACT])
        raise BadInput(f"{file}: tensor {name!r} is stored as {entry['dtype']}; allowed are {known}")
    spec = Spec(name, entry["dtype"], tuple(entry["shape"]), file, data + begin)
    if end - begin != spec.nbytes or data + end > size or begin < 0:
        raise ValueError(f"tensor {name!r} lies outside the file or has the wrong size")
    return spec


def read_json(file: Path) -> dict[str, Any] | None:
    """A JSON object, None when there is no such file; BadInput when it is something else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file}: not valid JSON ({error})") from None
    if not isinstance(value, dict):
        raise BadInput(f"{file}: expected a JSON object")
    return value


def read_tokenizer(folder: Path) -> dict[str, Any]:
    """What turns text into ids: tokenizer.json without padding and truncation, which trainers rewrite; without one, digests of the
    older files. Empty for a folder without a tokenizer."""
    whole = read_json(folder / "tokenizer.json")
    if whole is not None:
        _check_tokenizer(folder / "tokenizer.json", whole)
        return {key: value for key, value in whole.items() if key not in ("padding", "truncation")}
    older = [folder / name for name in ("tokenizer.model", "vocab.json", "merges.txt") if (folder / name).is_file()]
    return {file.name: hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() for file in older}


def _check_tokenizer(file: Path, whole: Mapping[str, Any]) -> None:
    """BadInput when ids are not where the tokenizers library writes them."""
    added, model = whole.get("added_tokens") or [], whole.get("model") or {}
    pieces = (model.get("vocab") or {}) if isinstance(model, Mapping) else None
    ids = pieces.values() if isinstance(pieces, Mapping) else []
    listed = isinstance(added, list) and all(isinstance(one, Mapping) and "content" in one for one in added)
    if not listed or not isinstance(pieces, (Mapping, list)) or not all(isinstance(one, int) for one in ids):
        raise BadInput(f"{file}: not as the tokenizers library writes it (added_tokens, model.vocab). Save the tokenizer again.")
    if not all(isinstance(one.get("id"), int) for one in added):
        raise BadInput(f"{file}: an added token has no id. Save the tokenizer again.")


TEMPLATES = "additional_chat_templates"
"""Folder of chat templates besides the default (`tool_use`, `rag`), a file each."""


def read_template(folder: Path) -> str:
    """The chat template, from its own file or from tokenizer_config.json (of several by name, the default); empty without one."""
    return read_templates(folder).get("default", "")


def read_templates(folder: Path) -> dict[str, str]:
    """All chat templates by name, as transformers finds them: those in files of their own, else those in tokenizer_config.json."""
    found = {path.stem: path.read_text(encoding="utf-8") for path in sorted((folder / TEMPLATES).glob("*.jinja"))}
    own = folder / "chat_template.jinja"
    if own.is_file():
        found["default"] = own.read_text(encoding="utf-8")
    if found:
        return found
    inline = (read_json(folder / "tokenizer_config.json") or {}).get("chat_template") or ""
    if not isinstance(inline, list):
        return {"default": str(inline)} if inline else {}
    found = {str(one.get("name")): str(one.get("template") or "") for one in inline if isinstance(one, Mapping)}
    return found if "default" in found or not found else {"default": next(iter(found.values())), **found}
