"""Transfer learning for image classification: the core under the page, the command line and Python.

`tl_core.check`, `train`, `predict`, `evaluate` and the rest are the functions of `tl_core.api`. Importing this package
has no effects and loads nothing heavy.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"
__all__ = [
    "TLError",
    "TrainConfig",
    "check",
    "evaluate",
    "models",
    "pack",
    "predict",
    "preview",
    "rank",
    "resume",
    "resume_in_background",
    "runs",
    "stop",
    "train",
    "train_in_background",
    "warm",
]

# What makes runs or passes. Of several processes that a launcher started, the first one does it, for all.
_DONE_ONCE = {"rank", "resume", "resume_in_background", "train", "train_in_background"}


def __dir__() -> list[str]:
    return [*globals(), *__all__]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = {"TLError": "tl_core.errors", "TrainConfig": "tl_core.config"}
    value = getattr(import_module(homes.get(name, "tl_core.api")), name)
    return import_module("tl_core.launch").once(value) if name in _DONE_ONCE else value
