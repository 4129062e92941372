"""The libraries that training and answering need: loaded without waste, and without what they say to direct callers."""

import gc
import os
import sys
import time
import warnings

from tl_core.ml.allocation import keep_freed_memory

_loading: list[float] = []


def load_libraries() -> None:
    """For a process that trains or asks (a command, a worker, whoever calls `tl_core.train`), before what needs them;
    never called at import, so that other programs keep the libraries' progress bars and advice."""
    keep_freed_memory()
    _import_all()
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # it is loaded later, where it is needed at all
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", message=".*pin_memory.*no accelerator is found.*")


def loading_seconds() -> float | None:
    """What loading them took in this process; None where they were not loaded here, or only in part."""
    return _loading[0] if _loading else None


def _import_all() -> None:
    """Import them without looking for garbage: it would be looked for dozens of times, and there is none."""
    collects, anew, begun = gc.isenabled(), "torch" not in sys.modules, time.perf_counter()
    gc.disable()
    try:
        import transformers.modeling_utils  # noqa: F401
    finally:
        if collects:
            gc.enable()
    if anew:
        _loading.append(time.perf_counter() - begun)
