"""What numbers depend on in the machine that they were measured on."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("numpy", "torch", "transformers")
"""Whose versions decide about the last digits of a training."""


def processor() -> str:
    """The processor, as the system calls it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return sys.platform
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), sys.platform)


def description() -> dict[str, str]:
    """Processor, cores, system, Python and libraries: no name of a host, no path, no time."""
    found = {"processor": processor(), "cores": str(os.cpu_count()), "system": f"{platform.system()} {platform.machine()}"}
    return found | {"python": platform.python_version()} | {name: version(name) for name in LIBRARIES}
