"""What this process computes on. Must not know models or data."""

import os
import platform
from pathlib import Path
from typing import Any

import torch


def current_device() -> torch.device:
    """The accelerator of this process, or the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def describe_machine() -> dict[str, Any]:
    """Device and processor in words, for reports and cards."""
    device = current_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else _processor_name()
    return {"device": device.type, "name": name, "cores": os.cpu_count(), "threads": torch.get_num_threads()}


def _processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
