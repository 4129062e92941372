"""What a backbone costs for each picture on this machine: measured once, remembered in the home folder.

A list of backbones shows it, so that torch is loaded only where something has to be measured.
"""

import platform
from importlib.metadata import version
from pathlib import Path

from tl_core.catalogue import Backbone
from tl_core.files import read_json, write_json
from tl_core.settings import Settings
from tl_core.sources import ModelSource


def cost_of(backbone: Backbone, settings: Settings, *, measure: bool) -> float | None:
    """Seconds that an embedded backbone takes for a picture of its size; None for one that is not known here.

    Raises ModelError where it is measured and its files are damaged.
    """
    if backbone.path is None:
        return None
    key = _key(backbone.path)
    known = read_json(_path(settings)) or {}
    if key in known or not measure:
        return known.get(key)
    from tl_core.ml.libraries import quieten
    from tl_core.ml.speed import forward_seconds

    quieten()
    seconds = forward_seconds(ModelSource(backbone.id, backbone.path, "embedded"))
    settings.cache_dir.mkdir(parents=True, exist_ok=True)
    write_json(_path(settings), {**known, key: seconds})
    return seconds


def _path(settings: Settings) -> Path:
    return settings.cache_dir / "costs.json"


def _key(model_dir: Path) -> str:
    """What a cost depends on: the weights' file as it is now, the machine, and who computes."""
    weights = (model_dir / "model.safetensors").stat()
    return "|".join((model_dir.name, str(weights.st_size), str(weights.st_mtime_ns), platform.node(), version("torch")))
