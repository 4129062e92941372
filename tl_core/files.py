"""Small files that are whole or not there: JSON replaced atomically, valid UTF-8 whatever a file name holds.

Must not know what the files mean.
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tl_core.errors import JobError
from tl_core.settings import Settings

# With less free than this a write has just failed, or the next one will.
_NEARLY_NOTHING = 1024**2
# What the name of a file that is still being written ends with; a kill may leave one behind.
UNFINISHED = ".part"


def existing_path(text: str) -> Path | None:
    """The file or folder that a word names, None where it names none (or could not: too long, a zero byte)."""
    path = Path(os.path.expanduser(text))
    try:
        return path if text and path.exists() else None
    except (OSError, ValueError):
        return None


@contextmanager
def writing_to_home(settings: Settings) -> Iterator[None]:
    """Turn the system's refusal to write under the home folder into a JobError."""
    try:
        yield
    except OSError as failure:
        full = failure.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "free some space, or set TL_HOME to another disk" if full else "set TL_HOME to a folder that can be"
        raise JobError(
            f"cannot write to {settings.home}: {failure.strerror or failure}; {advice}" + ("" if full else " written")
        ) from failure


def disk_is_full(failure: BaseException, folder: Path) -> bool:
    """Whether a failure comes from a full disk; libraries tell it in errors of their own, or only as a failed write."""
    told = isinstance(failure, OSError) and failure.errno in (errno.ENOSPC, errno.EDQUOT)
    return told or "No space left" in str(failure) or shutil.disk_usage(folder).free < _NEARLY_NOTHING


def write_json(path: Path, value: Any) -> None:
    """Raises ValueError for a number that JSON does not have (NaN, infinity)."""
    write_atomically(path, json_text(value, indent=1) + "\n")


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON that every reader takes; the bytes of a file name that are no UTF-8 come back from it as they went in.

    Raises ValueError for NaN and infinity.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character: only an escape can say it
        return json.dumps(value, allow_nan=False, indent=indent)
    return text


def write_atomically(path: Path, text: str) -> None:
    """Replace a file so that a reader sees the old or the new text, never a part; of several writers one wins."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{UNFINISHED}")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None where there is none or it cannot be read as one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
