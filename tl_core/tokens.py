"""The access tokens of runs that wait for their turn, and how a worker gets its own and nobody else's.

They are in the memory of the process that was given them, and go to the worker through a pipe that nobody else can
read: they are in no file, no argument and no environment that a later process could inherit. Must not know what a run
does with its token, nor when its turn is.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tl_core.runs import Run
from tl_core.settings import Settings

WITH_TOKEN = "--with-token"  # tells a worker that there is a token to be read from its standard input
# Where huggingface_hub finds a token of its own accord; in the file HF_TOKEN_PATH names it finds the stored login.
_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE")

_kept: dict[Path, str] = {}


def keep(run: Run, token: str) -> None:
    """Remember a run's token until it is given to the run's worker, or forgotten."""
    _kept[run.dir] = token


def kept(run: Run) -> str | None:
    return _kept.get(run.dir)


def forget(run: Run) -> None:
    _kept.pop(run.dir, None)


def runs_with_tokens(settings: Settings) -> list[Run]:
    """The runs in this home whose tokens this process keeps."""
    return [Run(folder) for folder in list(_kept) if folder.parent == settings.runs_dir]


def environment_of_worker(settings: Settings) -> dict[str, str]:
    """This process's environment; where several people share a machine, without any way to its owner's token."""
    environment = dict(os.environ)
    if settings.shared:
        for name in _VARIABLES:
            environment.pop(name, None)
        environment["HF_TOKEN_PATH"] = os.devnull
    return environment


def hand_over(worker: subprocess.Popen[bytes], token: str) -> None:
    """Give a worker its token. One that has ended already needs none."""
    assert worker.stdin is not None
    with suppress(BrokenPipeError), worker.stdin as pipe:
        pipe.write(token.encode() + b"\n")


def handed_over(arguments: list[str]) -> str | None:
    """In a worker: the token that it was given, None where it was started without one."""
    return sys.stdin.readline().strip() or None if WITH_TOKEN in arguments else None
