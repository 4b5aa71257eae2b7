"""`cairn serve`."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from flows.cli import group

app = group.app()

STOPPED = "stopped; nothing is served any more"


@app.command(cls=group.Command)
def serve(
    checkpoint: Annotated[str, typer.Argument(metavar="FOLDER", help="A checkpoint folder.")],
    adapters: Annotated[
        Optional[list[str]],  # noqa: UP045 (typer)
        typer.Option("--adapter", metavar="NAME=FOLDER", help="A LoRA adapter to begin with; as often as you like."),
    ] = None,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="The base's name in requests; default: the folder's.")] = "",
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="The address to bind to.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", min=1, max=65535, help="The port.")] = 8000,
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda", help="Where tensors live.")] = "cpu",
    dtype: Annotated[str, typer.Option("--dtype", metavar="DTYPE", help="float32, bfloat16 or float16; default: the folder's.")] = "",
    most: Annotated[int, typer.Option("--max-tokens", metavar="N", min=2, help="Tokens of the longest conversation.")] = 8192,
) -> int:
    """Token ids in, token ids and their log-probabilities out, by the engine `own`: /v1/completions, /v1/models,
    /v1/load_lora_adapter and /v1/unload_lora_adapter, as vLLM has them. A step of the road plays with it by engine: {method: server}.

    Examples:
      cairn serve data/sft/model
      cairn serve models/instruct --adapter retail=data/rl/retail/adapter --port 8001
    """
    from pathlib import Path

    from flows import interrupt
    from flows.serving.run import opened
    from flows.serving.run import serve as answer
    from tasks.contract.params import BadInput

    if dtype not in ("", "float32", "bfloat16", "float16") or device not in ("cpu", "cuda"):
        raise BadInput(f"--dtype {dtype!r}, --device {device!r}: allowed are float32, bfloat16, float16 and cpu, cuda")
    pairs = [one.partition("=") for one in adapters or ()]
    if wrong := next((one for one, (key, _, folder) in zip(adapters or (), pairs, strict=True) if not key or not folder), ""):
        raise BadInput(f"--adapter {wrong}: expected NAME=FOLDER")
    interrupt.ends_with(STOPPED)
    folder = Path(checkpoint)
    served = opened(folder, {key: Path(value) for key, _, value in pairs}, name or folder.resolve().name, device, dtype, most)
    print(f"{served.name} at http://{host}:{port}/v1, with the adapters: {', '.join(served.adapters) or 'none'}. Ctrl-C ends it.")
    answer(served, host, port)
    return 0
