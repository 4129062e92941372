"""The errors a person can cause, and nothing else.

    TLError                 what was wrong, what was found, what is allowed, what to do
    ├── ConfigError         an option or a configuration file
    ├── DataError           the pictures, their labels, the archive or table they came in
    ├── ModelError          a backbone or a trained model
    ├── HubError            the Hugging Face Hub, or the way to it
    └── JobError            a run: unknown, already running, nothing to resume, no room to write

A `TLError` ends a command with exit code 2 and exactly one line `error: …`; `details` are printed indented under it.
Anything else that is raised is a fault of this project (exit code 1). This module must not know who shows the message.
"""

import unicodedata
from collections.abc import Sequence


class TLError(Exception):
    """One sentence for the person who can mend it, and optional lines of detail."""

    def __init__(self, message: str, details: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.message = printable(message)
        self.details = tuple(printable(detail) for detail in details)


def printable(text: str) -> str:
    """`text` on one line and without control characters: file names may hold any, and must not steer a terminal."""
    kept = (
        character if unicodedata.category(character) not in ("Cc", "Cs") else "\N{REPLACEMENT CHARACTER}"
        for character in " ".join(text.split())
    )
    return "".join(kept)


class ConfigError(TLError):
    pass


class DataError(TLError):
    pass


class ModelError(TLError):
    pass


class HubError(TLError):
    pass


class JobError(TLError):
    pass
