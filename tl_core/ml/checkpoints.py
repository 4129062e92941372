"""What a training leaves on disk while it runs: Trainer's checkpoints to resume from, its looks at the validation
images, and the weights that it would ship.

Must not know what is trained, nor when something is worth keeping.
"""

import math
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_model
from torch import nn
from transformers.trainer_utils import get_last_checkpoint

from tl_core.files import read_json, write_json
from tl_core.ml.steering import Look

KEPT_CHECKPOINTS = 2  # the newest may be cut off by a kill; the one before is then whole
BEST, LOOKS = "best.safetensors", "looks.json"


def newest_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that can be resumed from; broken ones (a kill while writing) are removed."""
    while folder.is_dir() and (newest := get_last_checkpoint(str(folder))):
        if _is_whole(Path(newest)):
            return Path(newest)
        shutil.rmtree(newest)
    return None


def remove_broken(folder: Path) -> None:
    """Remove whatever below `folder` was cut off while it was written, so that a full disk has room again."""
    for unfinished in folder.rglob(f"{BEST}.new"):
        unfinished.unlink()
    for each in [folder, *(path for path in folder.glob("*") if path.is_dir())]:
        newest_whole_checkpoint(each)


def save_best(model: nn.Module, step: int, folder: Path) -> None:
    """Keep the weights of `model` in `folder` as those to ship, instead of those kept before, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh = folder / f"{BEST}.new"
    save_model(model, str(fresh), {"step": str(step)})
    fresh.replace(folder / BEST)


def best_step(folder: Path) -> int | None:
    """The step of the weights that were kept, None where there are none."""
    try:
        with safe_open(folder / BEST, framework="pt") as weights:
            return int(weights.metadata()["step"])
    except FileNotFoundError:
        return None


def keep_looks(looks: Sequence[Look], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [(look.step, look.accuracy, look.loss if math.isfinite(look.loss) else None) for look in looks]
    write_json(folder / LOOKS, {"looks": rows})


def kept_looks(folder: Path, until: int) -> list[Look]:
    """The looks of this training up to a step: those after it are looked at again by a process that resumes there."""
    rows = (read_json(folder / LOOKS) or {"looks": []})["looks"]
    looks = [Look(step, accuracy, math.inf if loss is None else loss) for step, accuracy, loss in rows]
    return [look for look in looks if look.step <= until]


def load_best(model: nn.Module, folder: Path) -> None:
    """Put the best weights back into `model`, wherever its own are."""
    with safe_open(folder / BEST, framework="pt") as weights:
        kept = {name: weights.get_tensor(name) for name in weights.keys()}  # noqa: SIM118
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name in kept:  # of weights that are shared, one name is kept
                value.copy_(kept[name])


def _is_whole(checkpoint: Path) -> bool:
    try:
        with safe_open(checkpoint / "model.safetensors", framework="pt") as weights:
            weights.keys()
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):  # torch's files are zip archives
            with zipfile.ZipFile(checkpoint / name) as archive:
                if archive.testzip() is not None:
                    return False
    except (OSError, SafetensorError, zipfile.BadZipFile):
        return False
    return read_json(checkpoint / "trainer_state.json") is not None
