"""A trained model as one file to take away: a zip that plain `transformers` can use once it is unpacked.

Must not know how the file is handed over, nor what the model is.
"""

import os
import secrets
import zipfile
from contextlib import suppress
from pathlib import Path

from tl_core.errors import JobError
from tl_core.files import UNFINISHED
from tl_core.runs import Run


def pack_model(run: Run, folder: Path) -> Path:
    """Make `folder`/RUN.zip of the run's model folder, in place of an earlier one; its path.

    Everything lies in one folder named after the run, with the card, which says how to use it, the processor and the
    options it was trained with. Nothing is compressed: weights hardly shrink. The zip is whole or not there. Raises
    JobError for a run without a model, and where the zip cannot be written.
    """
    if not (run.model_dir / "config.json").is_file():
        raise JobError(f"run {run.id} is {run.view().state} and has no model to pack; `runs` shows which have one")
    packed = folder / f"{run.id}.zip"
    unfinished = folder / f".{run.id}.{secrets.token_hex(4)}{UNFINISHED}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Clocks may be wrong, and a zip knows no year before 1980.
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
            for file in sorted(run.model_dir.rglob("*")):
                if file.is_file():
                    archive.write(file, f"{run.id}/{file.relative_to(run.model_dir).as_posix()}")
        os.replace(unfinished, packed)
    except OSError as failure:
        raise JobError(
            f"the model of run {run.id} cannot be packed into {folder}: {failure.strerror or failure}; make room, or "
            "choose another folder"
        ) from failure
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return packed
