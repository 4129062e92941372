"""Where things are kept and how much is allowed, read from the environment when asked (never at import).

Every limit has a name, a default and an environment variable; nothing else in the project reads `TL_*`.
"""

import os
import re
import secrets
import tempfile
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import filelock
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
# On a Space strangers share two cores: what one of them may ask for. Elsewhere, no such limit unless one is set.
SPACE_MAX_IMAGES = 10_000
SPACE_MAX_RUN_MINUTES = 30
SPACE_KEPT_RUNS = 10
# Where a Space's volume is mounted, when it has one (https://huggingface.co/docs/hub/spaces-storage).
SPACE_VOLUME = Path("/data")
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
    project_url: str | None = None  # where this project can be found, for what is published
    persistent: bool = True  # whether `home` is still there after the machine was started anew
    # Of one person where several use one page; None for as much as the machine can.
    max_images: int | None = None  # of one training
    max_run_minutes: int | None = None  # of one training
    kept_runs: int | None = None

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
    on_space = "SPACE_ID" in os.environ
    home = _home(on_space)
    return Settings(
        home=home,
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
        project_url=_address("TL_PROJECT_URL"),
        persistent=not on_space or _is_mounted(home),
        max_images=_limit("TL_MAX_IMAGES", SPACE_MAX_IMAGES, on_space),
        max_run_minutes=_limit("TL_MAX_RUN_MINUTES", SPACE_MAX_RUN_MINUTES, on_space),
        kept_runs=_limit("TL_KEPT_RUNS", SPACE_KEPT_RUNS, on_space),
    )


# What nobody sets for this program: it is found out, or is a variable of the Hub's client.
_NOT_SET = frozenset({"offline", "on_space", "persistent"})
# Every variable that is read here, and of what type it is.
_VARIABLES = {f"TL_{field.name.upper()}": field.type for field in fields(Settings) if field.name not in _NOT_SET}


def check_variable(name: str, text: str) -> bool | int | str:
    """What the text means. Raises ConfigError where this is no setting that an environment variable could give."""
    if name not in _VARIABLES:
        raise ConfigError(f"{name!r} is no setting of this program; allowed are {', '.join(sorted(_VARIABLES))}")
    if not text:
        raise ConfigError(f"{name} is given without a value; leave it out, or say what it is to be")
    kind = _VARIABLES[name]
    if kind is Path:
        return text
    if kind == (str | None):
        return _as_address(name, text)
    return _as_switch(name, text) if kind is bool else _as_whole_number(name, text)


def _home(on_space: bool) -> Path:
    """TL_HOME; else, on a Space, its volume or what is lost with the machine; else the user's data folder."""
    if given := os.environ.get("TL_HOME"):
        return Path(os.path.expanduser(given)).absolute()
    if not on_space:
        return Path(platformdirs.user_data_dir("tl_core", False))
    kept = os.path.ismount(SPACE_VOLUME) and os.access(SPACE_VOLUME, os.W_OK) and _can_hold_runs(SPACE_VOLUME)
    return (SPACE_VOLUME if kept else Path(tempfile.gettempdir())) / "tl_core"


@cache
def _can_hold_runs(folder: Path) -> bool:
    """Whether files there can be locked, added to and renamed over others, as runs do all the time; a volume that is
    a bucket perhaps cannot. Tried once in a process."""
    probe = folder / f".tl_core-{secrets.token_hex(8)}"
    lock, moved = probe.with_suffix(".lock"), probe.with_suffix(".moved")
    try:
        moved.write_bytes(b"")
        with filelock.FileLock(lock, timeout=5):
            for piece in (b"one ", b"two"):
                with probe.open("ab") as file:
                    file.write(piece)
            os.replace(probe, moved)
        return moved.read_bytes() == b"one two"
    except (OSError, NotImplementedError):  # a lock that cannot be had in time is an OSError too
        return False
    finally:
        for path in (probe, lock, moved):
            with suppress(OSError):
                path.unlink()


def _is_mounted(home: Path) -> bool:
    """Whether a folder lies on a volume of its own: all else on a Space is lost when that is started anew."""
    temporary = Path(tempfile.gettempdir()).resolve()
    above = [folder for folder in (home, *home.parents) if folder != folder.parent]
    return temporary not in above and any(map(os.path.ismount, above))


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _limit(name: str, on_a_space: int, on_space: bool) -> int | None:
    if on_space or os.environ.get(name):
        return _whole_number(name, on_a_space)
    return None


def _whole_number(name: str, default: int) -> int:
    text = os.environ.get(name)
    return _as_whole_number(name, text) if text else default


def _as_whole_number(name: str, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise ConfigError(f"the variable {name} is {text!r}; it must be a whole number of at least 1")
    return value


def _address(name: str) -> str | None:
    text = os.environ.get(name, "").strip()
    return _as_address(name, text) if text else None


def _as_address(name: str, text: str) -> str:
    if not re.fullmatch(r"https?://[^\s/]\S*", text):
        raise ConfigError(f"the variable {name} is {text!r}; it must be an address such as https://…")
    return text


def _switch(name: str, default: bool) -> bool:
    text = os.environ.get(name)
    return _as_switch(name, text) if text else default


def _as_switch(name: str, text: str) -> bool:
    value = _SWITCH.get(text.lower())
    if value is None:
        raise ConfigError(f"the variable {name} is {text!r}; it must be 1 or 0")
    return value
