"""What a backbone costs for each picture on this machine: measured once, remembered in the home folder.

A list of backbones shows it, so that torch is loaded only where something has to be measured.
"""

import math
import os
import platform
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tl_core.catalogue import Backbone
from tl_core.errors import ModelError
from tl_core.files import read_json, write_json
from tl_core.settings import Settings
from tl_core.sources import ModelSource

# To be changed with the way of measuring, so that what was measured in another is not compared with this.
MEASURED_AS = "side by side, batch norms folded, in whole batches"


def cost_of(backbone: Backbone, settings: Settings, *, measure: bool) -> float | None:
    """Seconds that an embedded backbone takes for a picture of its size.

    None for one that is not known here, and for one whose files are damaged: whoever opens it is told.
    """
    key = _key(backbone)
    if key is None or backbone.path is None:
        return None
    known = _seconds(read_json(_path(settings)), key)
    if known is not None or not measure:
        return known
    from tl_core.ml.libraries import load_libraries

    load_libraries()
    from tl_core.ml.speed import forward_seconds

    try:
        seconds = forward_seconds(ModelSource(backbone.id, backbone.path, "embedded"))
    except ModelError:
        return None
    with suppress(OSError):  # then it is measured again
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
        # Read again: another process may have measured another backbone meanwhile.
        write_json(_path(settings), {**(read_json(_path(settings)) or {}), key: seconds})
    return seconds


def _path(settings: Settings) -> Path:
    return settings.cache_dir / "costs.json"


def _seconds(known: dict[str, Any] | None, key: str) -> float | None:
    """What the file says, where that is a time that something can take."""
    value = (known or {}).get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < math.inf else None


def _key(backbone: Backbone) -> str | None:
    """What a cost depends on: the weights' file as it is now, the machine, and who computes; None without weights."""
    if backbone.path is None:
        return None
    try:
        weights = (backbone.path / "model.safetensors").stat()
    except OSError:
        return None
    about = (MEASURED_AS, backbone.path.name, weights.st_size, weights.st_mtime_ns, platform.node(), version("torch"))
    return "|".join(map(str, (*about, *_circumstances())))


def _circumstances() -> list[str]:
    """What decides on which device and in how many threads torch computes, told without loading it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    limits = [f"{name}={os.environ.get(name, '')}" for name in ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")]
    gpus = sorted(device.name for device in Path("/dev").glob("nvidia[0-9]*"))
    return [f"{cores} cores", *limits, *gpus]
