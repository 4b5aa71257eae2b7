"""The GPU proof: SFT and GRPO of a 0.6 B or 4 B Qwen3 with LoRA, and the quickstart's road with a 50 M model trained from nothing.

It calls the rooms' own functions, one after the other in this process, without Prefect, DVC and the store, on data that the
scripted roles make. `--device cuda --tiny` takes the same path in a minute: run that first on a new machine.

1. throughput (`gpu_throughput.py`): Qwen3-0.6B's or -4B's published shape with random weights, stored in bfloat16, and LoRA. All
   weights train with `--set "sft.loop.adapter={kind: none}" --set "rl.loop.adapter={kind: none}"`.
2. road (`gpu_road.py`): base, SFT, one specialist a world, merge; pass^1 of each against the minutes until then.

Precision is the rooms' choice and is observed, not assumed: rows say in which dtypes the linear layers computed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from infra.bench import ROOT
from infra.gpu_road import road
from infra.gpu_stages import SIZES, Proof, Spent, make_data
from infra.gpu_throughput import SHAPES, throughput
from infra.gpu_watch import GIB
from tasks.contract.params import BadInput
from tasks.engine import start
from tasks.engine.dotted import parse_override


def machine(device: str) -> dict[str, Any]:
    """What it ran on: no names of hosts or folders."""
    import torch
    import transformers
    import trl

    versions = {"python": platform.python_version(), "torch": torch.__version__}
    versions |= {"transformers": transformers.__version__, "trl": trl.__version__}
    if device == "cpu":
        return {"gpu": None, **versions}
    about = torch.cuda.get_device_properties(0)
    memory = round(about.total_memory / GIB, 1)
    return {"gpu": torch.cuda.get_device_name(0), "gpu_memory_gib": memory, "cuda": torch.version.cuda, **versions}


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m infra.gpu_proof", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--part", choices=["throughput", "road", "all"], default="all")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="the same path in a minute: two layers, a few steps, the smoke profile")
    parser.add_argument("--minutes", type=float, default=60.0, help="no further stage starts after this many (default 60)")
    parser.add_argument("--shape", choices=list(SHAPES), default="0.6b", help="of throughput's model: Qwen3's of that size")
    parser.add_argument("--vocab", type=int, default=0, help="entries of its embedding (default: the tokenizer's)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a param, as in `cairn run --set`")
    parser.add_argument("--out", type=Path, default=ROOT / "reports" / "gpu_proof.json", help="JSON file, or a folder for it")
    return parser.parse_args(argv)


def prove(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Measure the asked parts; returns the record, which is on the disk by then."""
    begin = time.perf_counter()
    report = options.out if options.out.suffix == ".json" else options.out / "gpu_proof.json"
    overrides = [parse_override(text) for text in options.set]
    proof = Proof(folder, options.device, options.tiny, overrides, report, begin + 60 * options.minutes)
    proof.record = {"machine": machine(options.device), "device": options.device, "tiny": options.tiny, "part": options.part}
    proof.record |= {"shape": "tiny" if options.tiny else options.shape}
    proof.record |= {"overrides": options.set, "left_out": "", "rows": []}
    for part in SIZES:
        proof.settings(part).check()  # a mistake ends the proof now, not after minutes
    try:
        data, minutes = make_data(proof)
        if options.part in ("throughput", "all"):
            throughput(proof, data, options.vocab, options.shape)
        if options.part in ("road", "all"):
            road(proof, data, minutes)
    except Spent as spent:
        proof.record["left_out"] = str(spent)
        print(f"gpu_proof: {spent}; what was measured until then is written", file=sys.stderr)
    proof.record["minutes"] = round((time.perf_counter() - begin) / 60, 2)
    proof.write()
    return proof.record


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and publish; 2 for a machine without a GPU and for params that are refused."""
    asked = arguments(argv)
    start.fix(ROOT)  # before torch loads: threads, offline, temporary files inside the project
    if asked.device == "cuda":
        # With several GPUs in sight the Trainer would spread itself over them; one is measured.
        os.environ["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    import torch

    if asked.device == "cuda" and not torch.cuda.is_available():
        print(
            f"gpu_proof: no GPU here (torch {torch.__version__} sees no CUDA device); run it on a machine with one, "
            "or take the same path on a CPU with `--device cpu --tiny`.",
            file=sys.stderr,
        )
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="gpu_proof-") as folder:
            print(json.dumps(prove(asked, Path(folder))))
    except BadInput as mistake:
        print(mistake, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
