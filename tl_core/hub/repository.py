"""One repository on the Hub: its commit, its file names, its files, and one sentence for everything that can go wrong.

Must not know: which files a model or a dataset needs.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Literal, TypeVar

from tl_core import catalogue
from tl_core.errors import ConfigError, HubError, printable
from tl_core.hub.patience import bound_waiting
from tl_core.settings import Settings, read_settings

# Without a network a person must hear so within three seconds, the start of the program included. On a slow line the
# Hub client's own variable HF_HUB_ETAG_TIMEOUT gives the first answer more time.
FIRST_ANSWER_SECONDS = 2
# Of a Hub that has answered within the last minute it is known that it is there: it may take its time.
LATER_ANSWER_SECONDS = 20
_LATELY_SECONDS = 60
# The names of very many files arrive in pages of 1,000.
LISTING_SECONDS = 120

_COMMIT = re.compile(r"[0-9a-f]{40}")
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"
_ID = re.compile(rf"(?:{_NAME}/)?{_NAME}")

Answer = TypeVar("Answer")

_answered: dict[str, float] = {}  # address of a Hub: when it answered last


class Unreachable(HubError):
    """No answer from the Hub, or none of use: what lies in the cache is still good, and `why` is true then too."""

    def __init__(self, message: str, details: Sequence[str] = (), why: str | None = None) -> None:
        super().__init__(message, details)
        self.why = printable(why or message)


class RepositoryMissing(HubError):
    """The Hub shows no such repository to whoever asks."""


class RevisionMissing(HubError):
    """The repository is there, the branch, tag or commit is not."""


def is_hub_id(text: str) -> bool:
    """Whether `text` can be a repository's name on the Hub: `name` or `owner/name`, by the rules that the Hub client
    checks (https://huggingface.co/docs/huggingface_hub, `validate_repo_id`). An existing path may look the same."""
    return bool(_ID.fullmatch(text)) and "--" not in text and ".." not in text and not text.endswith(".git")


@dataclass(frozen=True)
class Repository:
    """A model or dataset repository at a branch, tag or commit; None is its main branch."""

    kind: Literal["model", "dataset"]
    id: str
    revision: str | None = None

    @property
    def is_pinned(self) -> bool:
        return bool(_COMMIT.fullmatch(self.revision or ""))

    def pinned(self, settings: Settings) -> "Repository":
        """The same repository at the commit its revision is now.

        The first question to the Hub, so the one that finds out: raises Unreachable within FIRST_ANSWER_SECONDS, at
        once where the environment forbids asking, RepositoryMissing, RevisionMissing, and HubError for a closed one.
        """
        from huggingface_hub import HfApi

        if settings.offline:
            raise Unreachable(f"{self._not_here} and HF_HUB_OFFLINE forbids asking the Hub; unset it {self._otherwise}")
        bound_waiting()
        seconds = first_answer_seconds()
        api = HfApi(endpoint=endpoint(), token=_token())

        def ask() -> str | None:
            return api.repo_info(
                self.id,
                repo_type=self.kind,
                revision=self.revision,
                timeout=seconds,
                expand=["sha"],  # type: ignore[arg-type]  # declared as one word, used as a list
            ).sha

        with self._plain_errors():
            commit = answer_within(seconds, ask)
            if commit is None:
                raise ValueError("the answer names no commit")
            return replace(self, revision=commit)

    def files(self) -> dict[str, int]:
        """{file name: bytes} of everything in the repository, asked of the Hub."""
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        api = HfApi(endpoint=endpoint(), token=_token())

        def ask() -> dict[str, int]:
            entries = api.list_repo_tree(self.id, recursive=True, revision=self.revision, repo_type=self.kind)
            return {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}

        with self._plain_errors():
            return answer_within(LISTING_SECONDS, ask)

    def kept_files(self) -> dict[str, int] | None:
        """What `files` would say, as an earlier download noted it in the cache; None where there was none."""
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        try:
            entries = get_cached_repo_tree(self.id, repo_type=self.kind, revision=self.revision, cache_dir=_cache_dir())
        except CachedRepoTreeNotFoundError:
            return None
        return {entry.path: entry.size for entry in entries}

    def kept_folder(self, file: str) -> Path | None:
        """The folder of the cache that holds `file` of this revision, named by its commit."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(
            self.id, file, repo_type=self.kind, revision=self.revision, cache_dir=_cache_dir()
        )
        return Path(found).parent if isinstance(found, str) else None

    def download(self, names: list[str], *, from_cache: bool = False) -> Path:
        """The folder that holds at least these files, named by its commit. Raises Unreachable where some are missing
        and cannot be had (`from_cache`: are not asked for), HubError where they may not be read or stored."""
        from huggingface_hub import snapshot_download

        with self._plain_errors():
            return Path(
                snapshot_download(
                    self.id,
                    repo_type=self.kind,
                    revision=self.revision,
                    allow_patterns=[escape(name) for name in names],
                    cache_dir=_cache_dir(),
                    endpoint=endpoint(),
                    token=_token(),
                    local_files_only=from_cache,
                )
            )

    @contextmanager
    def storing(self) -> Iterator[None]:
        """Around writing this repository's files to disk: raises HubError where the disk is full or closed."""
        try:
            yield
        except OSError as failure:
            raise HubError(
                f"{self} cannot be stored ({failure}); make room, or set HF_HOME and TL_HOME to folders of yours"
            ) from failure

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """Turn what the Hub client raises into one sentence. The order matters: later classes contain earlier ones."""
        import httpx2
        from huggingface_hub import errors

        with self.storing():
            try:
                yield
            except errors.GatedRepoError as failure:
                raise HubError(
                    f"{self} is gated: accept its terms at {self._page} and log in with `hf auth login` or HF_TOKEN"
                ) from failure
            except errors.RepositoryNotFoundError as failure:
                raise RepositoryMissing(f"{self} is unknown at {endpoint()}, or private; {self._spelling}") from failure
            except errors.RevisionNotFoundError as failure:
                raise RevisionMissing(f"{self} has no revision {self.revision!r}; its newest is main") from failure
            except errors.LocalEntryNotFoundError as failure:
                raise self._not_whole() from failure
            except errors.HfHubHTTPError as failure:
                raise self._refusal(failure.response.status_code) from failure
            except (httpx2.HTTPError, httpx2.InvalidURL, errors.OfflineModeIsEnabled, TimeoutError) as failure:
                why = f"{endpoint()} cannot be reached"
                raise Unreachable(
                    f"{why} and {self._not_here}; check the connection {self._otherwise}",
                    [f"{type(failure).__name__}: {failure}".rstrip(": ")],
                    why,
                ) from failure
            except (ValueError, KeyError, errors.FileMetadataError) as failure:
                why = f"what answers at {endpoint()} is not the Hub (perhaps a network's log-in page)"
                raise Unreachable(
                    f"{why} and {self._not_here}; check the connection {self._otherwise}",
                    [f"{type(failure).__name__}: {failure}"],
                    why,
                ) from failure
            except OSError as failure:
                if failure.errno is not None:
                    raise  # the system's own: a full disk, a closed folder
                raise self._not_whole() from failure

    def _not_whole(self) -> HubError:
        return Unreachable(f"{self} has not arrived whole (what came is kept); check the connection and try again")

    def _refusal(self, status: int) -> HubError:
        if status in (401, 403):
            return HubError(
                f"{endpoint()} refused your access token for {self} (status {status}); renew it with `hf auth login`, "
                "or unset HF_TOKEN"
            )
        if status == 429:
            return Unreachable(f"{endpoint()} had too many requests from here to send {self}; wait some minutes")
        return Unreachable(f"{endpoint()} answered with an error for {self} (status {status}); try again later")

    def __str__(self) -> str:
        return f"the {self.kind} {self.id}"

    @property
    def _page(self) -> str:
        return f"{endpoint()}/{'datasets/' if self.kind == 'dataset' else ''}{self.id}"

    @property
    def _spelling(self) -> str:
        near = catalogue.nearest(self.id) if self.kind == "model" else None
        if near and near != self.id:
            return f"did you mean {near}?"
        return "check the spelling, or log in with `hf auth login`"

    @property
    def _not_here(self) -> str:
        return f"{self} is not on this machine"

    @property
    def _otherwise(self) -> str:
        if self.kind == "dataset":
            return "or use sample:digits, which is built in"
        names = ", ".join(backbone.id for backbone in catalogue.embedded())
        return f"or use an embedded model: {names}" if names else "or give the folder of a model"


def answer_within(seconds: float, ask: Callable[[], Answer]) -> Answer:
    """`ask()`, or TimeoutError. Looking up a host's name ignores a connection's time limit, so a question without an
    answer is left behind in a thread that does not keep the program from ending."""
    answer: Future[Answer] = Future()

    def work() -> None:
        try:
            answer.set_result(ask())
        except BaseException as failure:  # handed over whole: result() raises it in the caller
            answer.set_exception(failure)

    Thread(target=work, daemon=True, name="hub").start()
    try:
        return answer.result(timeout=seconds)
    except TimeoutError as failure:
        raise TimeoutError(str(failure) or f"no answer within {seconds:g} seconds") from None


def answer_soon(ask: Callable[[float], Answer]) -> Answer:
    """`ask(seconds)`, or TimeoutError after so many: few where it has to be found out whether there is a Hub at all."""
    from huggingface_hub.errors import HfHubHTTPError

    hub, seconds = endpoint(), first_answer_seconds()
    if monotonic() - _answered.get(hub, -_LATELY_SECONDS) < _LATELY_SECONDS:
        seconds = max(seconds, LATER_ANSWER_SECONDS)
    try:
        answer = answer_within(seconds, lambda: ask(seconds))
    except HfHubHTTPError:  # a refusal is an answer
        _answered[hub] = monotonic()
        raise
    _answered[hub] = monotonic()
    return answer


def _token() -> bool | None:
    """This computer's access token is its owner's, and not for the visitors of a page that several people share."""
    return False if read_settings().shared else None


def endpoint() -> str:
    """The Hub's address. Raises ConfigError where HF_ENDPOINT holds none."""
    address = os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"the environment variable HF_ENDPOINT is {address!r}; it must begin with https://")
    return address


def _cache_dir() -> str | None:
    """The Hub client reads these variables once, when it is imported; None leaves the choice to it."""
    if cache := os.environ.get("HF_HUB_CACHE"):
        return os.path.expanduser(cache)
    if home := os.environ.get("HF_HOME"):
        return os.path.join(os.path.expanduser(home), "hub")
    return None


def first_answer_seconds() -> float:
    """How long the first answer of the Hub is waited for."""
    text = os.environ.get("HF_HUB_ETAG_TIMEOUT", "")
    return float(text) if text.isdecimal() else FIRST_ANSWER_SECONDS
