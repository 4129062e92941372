"""What is sent to the Hub, read in a way that says how much of it has left.

Files are handed to huggingface_hub as open files, which it sends over plain HTTP (git LFS for the large ones) and not
with hf_xet: so the bytes that left can be counted, each refusal is an answer that can be read, and a server that knows
no Xet will do. The Hub takes both (https://huggingface.co/docs/hub/xet/legacy-git-lfs). The price is that of a changed
file all of it is sent again. A file that arrived before an interruption is not. Must not know: where it goes.
"""

import hashlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from tl_core.errors import HubError

Content = Path | bytes
Ticker = Callable[[int, int], None]  # bytes that left, bytes that have to; called by several threads, one at a time

_PIECE = 1 << 20
# Smaller files are read at once: hundreds of them cannot all be held open.
_HELD_BYTES = 1 << 20


class Watching(Exception):
    """Whoever watches the progress raised `reason`: neither the Hub's fault nor the file's."""

    def __init__(self, reason: Exception) -> None:
        super().__init__()
        self.reason = reason  # the cause of an exception is lost on its way through the client


@contextmanager
def only_our_progress(ticker: Ticker | None) -> Iterator[None]:
    """Without the client's own bar beside ours, its warning about what is meant here (see above), and the Hub's advice
    about a card: none of these is for the person who pushes."""
    from huggingface_hub import constants
    from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported lazily
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    logging.getLogger("huggingface_hub._commit_api").addFilter(_is_news)
    # For good, and not for a while: other threads may have set theirs meanwhile.
    warnings.filterwarnings("ignore", r"Warnings while validating metadata in README\.md", UserWarning)
    if ticker is None or constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _is_news(record: logging.LogRecord) -> bool:
    return "binary IO buffer" not in record.getMessage()


class Progress:
    """How many bytes left, over all files; a piece that is sent again counts once."""

    def __init__(self, total: int, ticker: Ticker | None) -> None:
        self.done = 0
        self._total, self._ticker, self._lock = total, ticker, Lock()
        self._reached: dict[str, int] | None = None  # None while files are only read to be hashed

    def begin(self) -> None:
        self._reached = {}
        self._tell(0)

    def note(self, name: str, position: int) -> None:
        if self._reached is None:
            return
        with self._lock:
            gained = position - self._reached.get(name, 0)
            if gained > 0:
                self._reached[name] = position
                self.done += gained
                try:
                    self._tell(self.done)
                except Exception as failure:
                    raise Watching(failure) from failure

    def finish(self) -> None:
        self._tell(self._total)

    def _tell(self, done: int) -> None:
        if self._ticker:
            self._ticker(done, self._total)


class Outgoing(io.BufferedReader):
    """A file, or bytes, that says how far it has been read."""

    def __init__(self, path_in_repo: str, content: Content, progress: Progress) -> None:
        with _reading(content):
            if isinstance(content, Path) and content.stat().st_size <= _HELD_BYTES:
                content = content.read_bytes()
            super().__init__(io.FileIO(content) if isinstance(content, Path) else io.BytesIO(content))
        self._path_in_repo, self._progress = path_in_repo, progress

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self._progress.note(self._path_in_repo, self.tell())
        return piece


@contextmanager
def _reading(content: Content) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise HubError(f"{content!s} cannot be read ({failure}); nothing was sent; check the file") from failure


def size_of(content: Content) -> int:
    if isinstance(content, bytes):
        return len(content)
    with _reading(content):
        return content.stat().st_size


def digest_of(digest: "hashlib._Hash", content: Content) -> str:
    if isinstance(content, bytes):
        digest.update(content)
        return digest.hexdigest()
    with _reading(content), content.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
