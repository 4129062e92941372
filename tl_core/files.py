"""Small files that are whole or not there: JSON replaced atomically, read without surprises.

Must not know what the files mean.
"""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tl_core.errors import JobError
from tl_core.settings import Settings


def existing_path(text: str) -> Path | None:
    """The file or folder that a word names, None where it names none (or could not: too long, a zero byte)."""
    path = Path(os.path.expanduser(text))
    try:
        return path if text and path.exists() else None
    except (OSError, ValueError):
        return None


# With less free than this a write has just failed, or the next one will.
_NEARLY_NOTHING = 1024**2


@contextmanager
def writing_to_home(settings: Settings) -> Iterator[None]:
    """Turn the system's refusal to write under the home folder into a JobError."""
    try:
        yield
    except OSError as failure:
        raise JobError(
            f"cannot write to {settings.home}: {failure.strerror or failure}; "
            "free some space or set TL_HOME to a folder that can be written"
        ) from failure


def disk_is_full(failure: BaseException, folder: Path) -> bool:
    """Whether a failure comes from a full disk; libraries tell it in errors of their own, or only as a failed write."""
    told = isinstance(failure, OSError) and failure.errno == errno.ENOSPC
    return told or "No space left" in str(failure) or shutil.disk_usage(folder).free < _NEARLY_NOTHING


def write_json(path: Path, value: Any) -> None:
    write_atomically(path, json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old or the new text, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is none or it cannot be read as one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None
