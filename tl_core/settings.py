"""Where things are kept and how much is allowed, read from the environment when asked (never at import).

Every limit has a name, a default and an environment variable; nothing else in the project reads `TL_*`.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from tl_core.errors import ConfigError

# Pillow warns at 89.5 megapixels and refuses at twice that; a 12,000 × 8,000 photograph still passes here.
DEFAULT_MAX_PIXELS = 100_000_000
DEFAULT_MAX_FILES = 500_000
DEFAULT_MAX_UNPACKED_BYTES = 20 * 1024**3
# Of all backbones together: a million pictures through a backbone of 512 features, which takes hours to compute again.
DEFAULT_FEATURES_BYTES = 2 * 1024**3
# Below this many free bytes a run is not begun: checkpoints and the saved model would not fit.
DEFAULT_MIN_FREE_BYTES = 200 * 1024**2
# What a browser may send: one file (the zips of common datasets fit), and all that one draft may hold.
DEFAULT_MAX_UPLOAD_BYTES = 2 * 1024**3
DEFAULT_MAX_DRAFT_BYTES = 8 * 1024**3
# Trainings share cores, memory and the accelerator: two at a time are no sooner done than one after the other.
DEFAULT_PARALLEL_RUNS = 1
# One visitor of a shared page must not fill the queue for the others.
DEFAULT_WAITING_RUNS = 3
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True)
class Settings:
    """One reading of the environment. `home` holds runs, unpacked data, features and caches."""

    home: Path
    max_pixels: int = DEFAULT_MAX_PIXELS
    max_files: int = DEFAULT_MAX_FILES
    max_unpacked_bytes: int = DEFAULT_MAX_UNPACKED_BYTES
    features_bytes: int = DEFAULT_FEATURES_BYTES
    min_free_bytes: int = DEFAULT_MIN_FREE_BYTES
    workers: int = 1
    offline: bool = False
    on_space: bool = False
    shared: bool = False  # several people use one page: each sees only what is theirs
    waiting_runs: int = DEFAULT_WAITING_RUNS  # in the queue, of one person where several use one page
    parallel_runs: int = DEFAULT_PARALLEL_RUNS  # background runs that work at the same time; more wait in a queue
    max_upload_bytes: int = DEFAULT_MAX_UPLOAD_BYTES
    max_draft_bytes: int = DEFAULT_MAX_DRAFT_BYTES

    @property
    def runs_dir(self) -> Path:
        return self.home / "runs"

    @property
    def data_dir(self) -> Path:
        """Unpacked archives and tables, one folder for each."""
        return self.home / "data"

    @property
    def features_dir(self) -> Path:
        return self.home / "features"

    @property
    def cache_dir(self) -> Path:
        """What can be thrown away at any time: verification results, measurements."""
        return self.home / "cache"


def read_settings() -> Settings:
    """Read the environment. Raises ConfigError for a number or a switch that is not one."""
    home = os.environ.get("TL_HOME")
    on_space = "SPACE_ID" in os.environ
    return Settings(
        home=Path(os.path.expanduser(home)).absolute() if home else Path(platformdirs.user_data_dir("tl_core", False)),
        max_pixels=_whole_number("TL_MAX_PIXELS", DEFAULT_MAX_PIXELS),
        max_files=_whole_number("TL_MAX_FILES", DEFAULT_MAX_FILES),
        max_unpacked_bytes=_whole_number("TL_MAX_UNPACKED_BYTES", DEFAULT_MAX_UNPACKED_BYTES),
        features_bytes=_whole_number("TL_FEATURES_BYTES", DEFAULT_FEATURES_BYTES),
        min_free_bytes=_whole_number("TL_MIN_FREE_BYTES", DEFAULT_MIN_FREE_BYTES),
        workers=_whole_number("TL_WORKERS", _usable_cores()),
        offline=os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"},
        on_space=on_space,
        shared=_switch("TL_SHARED", on_space),
        waiting_runs=_whole_number("TL_WAITING_RUNS", DEFAULT_WAITING_RUNS),
        parallel_runs=_whole_number("TL_PARALLEL_RUNS", DEFAULT_PARALLEL_RUNS),
        max_upload_bytes=_whole_number("TL_MAX_UPLOAD_BYTES", DEFAULT_MAX_UPLOAD_BYTES),
        max_draft_bytes=_whole_number("TL_MAX_DRAFT_BYTES", DEFAULT_MAX_DRAFT_BYTES),
    )


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _whole_number(name: str, default: int) -> int:
    text = os.environ.get(name)
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ConfigError(f"the environment variable {name} is {text!r}; it must be a whole number of at least 1")
    return value


def _switch(name: str, default: bool) -> bool:
    text = os.environ.get(name)
    if not text:
        return default
    value = _SWITCH.get(text.lower())
    if value is None:
        raise ConfigError(f"the environment variable {name} is {text!r}; it must be 1 or 0")
    return value
