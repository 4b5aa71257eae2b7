"""A version that is an adapter, loaded onto the base that it changes. It travels with the version, as `agent.py` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks.checkpoints import adapters, folders


def on_base(adapter: Path, base: str) -> Any:
    """The model of an adapter's folder on its base, in eval mode. base: folder of the base's checkpoint. ValueError when it is none, or
    another one than the adapter was trained on."""
    about = adapters.base_of(adapter)
    how = f"mlflow.pyfunc.load_model(..., model_config={{'base': FOLDER}}), with the checkpoint's folder of {about}"
    if not (Path(base) / "config.json").is_file():
        raise ValueError(f"base = {base!r}: this version is an adapter and needs the checkpoint that it was trained on: {how}")
    if about and adapters.weights_of(Path(base)) != about.weights:
        raise ValueError(f"base = {base!r}: this is another checkpoint than the adapter was trained on: {how}")
    model, _ = folders.load(Path(base))
    adapters.grow(model, folders.load_tokenizer(adapter))
    return adapters.put_on(model, adapter).eval()
