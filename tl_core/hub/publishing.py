"""A repository on the Hub made to hold given files: what that would change, and doing it in one commit.

Must not know: what the files are. The token is an argument of each call: it is neither kept nor logged nor told.
"""

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from tl_core.errors import HubError
from tl_core.hub.account import sound_token
from tl_core.hub.outgoing import Content, Outgoing, Progress, Ticker, digest_of, only_our_progress, size_of
from tl_core.hub.patience import bound_waiting, patiently
from tl_core.hub.refusals import forbidden_offline, plain_refusals
from tl_core.hub.repository import LISTING_SECONDS, answer_within, endpoint, first_answer_seconds
from tl_core.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

Kind = Literal["model", "space"]
Files = Mapping[str, Content]  # path in the repository: what goes there

# What the Hub writes into a new repository, and into a new Space, by itself.
_HUBS_OWN = frozenset({".gitattributes"})
_HUBS_OWN_IN_A_SPACE = _HUBS_OWN | {"README.md"}
_NAMED = 5  # so many files are named in a sentence, the rest counted

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Changes:
    """Paths in a repository: what publishing would add, replace, leave as it is, leave because it is not ours, delete.

    `needs_replace`: it holds something that somebody put there, so nothing is changed without their word.
    """

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    bytes_to_send: int = 0
    needs_replace: bool = False

    @property
    def is_empty(self) -> bool:
        return not (self.new or self.changed or self.removed)

    def __str__(self) -> str:
        told = (("added", self.new), ("replaced", self.changed), ("deleted", self.removed))
        return "; ".join(f"{_some(names)} {done}" for done, names in told if names) or "nothing changed"


@dataclass(frozen=True)
class Published:
    """Where it is now. `sent_bytes` leaves out what had arrived in an earlier try; where `changes.is_empty` there was
    no commit, and `commit` is the one that was there."""

    id: str
    kind: Kind
    url: str
    commit: str
    sent_bytes: int
    changes: Changes


@dataclass(frozen=True)
class _There:
    commit: str
    private: bool
    files: dict[str, "RepoFile"]
    untouched: bool  # nobody has put anything there


@dataclass(frozen=True)
class _Target:
    kind: Kind
    id: str
    token: str | None

    @property
    def url(self) -> str:
        return f"{endpoint()}/{'spaces/' if self.kind == 'space' else ''}{self.id}"

    @property
    def api(self) -> "HfApi":
        from huggingface_hub import HfApi

        # Without a token of its own a question is asked as nobody, never as the owner of this computer.
        return HfApi(endpoint=endpoint(), token=self.token or False)

    @contextmanager
    def plain_refusals(self, left: str = "nothing was sent") -> Iterator[None]:
        with plain_refusals(str(self), self.token, left):
            yield

    def __str__(self) -> str:
        return f"the {'Space' if self.kind == 'space' else self.kind} {self.id}"


def look_at(
    kind: Kind, repo_id: str, files: Files, token: str | None, settings: Settings, *, remove: tuple[str, ...] = ()
) -> Changes | None:
    """What `publish` would change; None where the repository is not there yet (or not for this token to see).

    Compares hashes: nothing is downloaded. Raises HubError.
    """
    target = _target(kind, repo_id, sound_token(token) if token else None, settings)
    there = _look(target)
    return None if there is None else _compare(there, files, remove)


def publish(
    kind: Kind,
    repo_id: str,
    files: Files,
    token: str,
    settings: Settings,
    *,
    message: str,
    private: bool = False,
    replace: bool = False,
    remove: tuple[str, ...] = (),
    ticker: Ticker | None = None,
    space_sdk: str = "gradio",
) -> Published:
    """Make a repository hold `files` in one commit titled `message`, creating it where it is missing.

    Sends only what differs, nothing at all where nothing does, and can be repeated after any interruption. What is
    there and not ours stays, but for the paths in `remove`. `space_sdk` matters for a new Space. Raises HubError for
    every refusal, where somebody's files would change and `replace` is False, and where `private` and it is public.
    """
    target = _target(kind, repo_id, sound_token(token), settings)
    there = _look(target)
    created = there is None
    if there is None:
        _create(target, private, space_sdk)
        there = _look(target)
        if there is None:
            raise HubError(f"{target} was created and cannot be seen with this access token; look at {target.url}")
    if private and not there.private:
        raise HubError(
            f"{target} exists and is public, and you asked for a private one; nothing was sent; make it private at "
            f"{target.url}/settings, or take another name"
        )
    changes = _compare(there, files, remove)
    if changes.is_empty:
        log.info("%s holds these files already; nothing was sent", target)
        return Published(repo_id, kind, target.url, there.commit, 0, changes)
    if changes.needs_replace and not replace and not created:
        raise HubError(
            f"{target} exists with other content; what would change: {changes}; nothing was sent; allow it with "
            "--replace, or take another name"
        )
    commit, sent = _send(target, there, files, changes, message, ticker, created)
    return Published(repo_id, kind, target.url, commit, sent, changes)


def set_variables(repo_id: str, values: Mapping[str, str], token: str, settings: Settings) -> None:
    """Set a Space's public variables. Only those that differ are touched: each change starts the Space again."""
    target = _target("space", repo_id, sound_token(token), settings)
    with target.plain_refusals("its variables may be incomplete"):
        there = patiently(lambda: target.api.get_space_variables(repo_id))
        for key, value in values.items():
            if key not in there or there[key].value != value:
                patiently(lambda key=key, value=value: target.api.add_space_variable(repo_id, key, value))  # type: ignore[misc]


def _target(kind: Kind, repo_id: str, token: str | None, settings: Settings) -> _Target:
    target = _Target(kind, repo_id, token)
    forbidden_offline(settings, f"{target} cannot be asked for")
    bound_waiting()
    return target


def _look(target: _Target) -> _There | None:
    """What is on the main branch. The first question to the Hub, so the one that finds out that it is out of reach."""
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    api, seconds = target.api, first_answer_seconds()

    def about() -> tuple[str | None, bool | None]:
        wanted: Any = ["sha", "private"]  # declared as one word, used as a list
        info = api.repo_info(target.id, repo_type=target.kind, timeout=seconds, expand=wanted)
        return info.sha, info.private

    def entries() -> dict[str, RepoFile]:
        listed = api.list_repo_tree(target.id, recursive=True, revision=head, repo_type=target.kind)
        return {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}

    with target.plain_refusals():
        try:
            head, private = patiently(lambda: answer_within(seconds, about))
        except RepositoryNotFoundError as failure:
            # The Hub says 401 to nobody about what is not there, and to a token only if the token is at fault.
            if target.token and failure.response.status_code == 401:
                raise
            return None
        if head is None:
            raise ValueError("the answer names no commit")
        files = answer_within(LISTING_SECONDS, entries)
        untouched = set(files) <= _HUBS_OWN
        if target.kind == "space" and not untouched and set(files) <= _HUBS_OWN_IN_A_SPACE:
            untouched = len(patiently(lambda: api.list_repo_commits(target.id, repo_type="space"))) == 1
    return _There(head, bool(private), files, untouched)


def _create(target: _Target, private: bool, space_sdk: str) -> None:
    sdk = space_sdk if target.kind == "space" else None
    hidden = private or None  # an organisation may have decided that what nobody says anything about is private
    with target.plain_refusals():
        patiently(lambda: target.api.create_repo(target.id, repo_type=target.kind, private=hidden, space_sdk=sdk))


def _compare(there: _There, files: Files, remove: tuple[str, ...]) -> Changes:
    new = [name for name in sorted(files) if name not in there.files]
    same = [name for name in sorted(files) if name in there.files and _is_same(there.files[name], files[name])]
    changed = [name for name in sorted(files) if name in there.files and name not in same]
    removed = tuple(name for name in sorted(set(remove) - set(files)) if name in there.files)
    return Changes(
        tuple(new),
        tuple(changed),
        tuple(same),
        tuple(name for name in sorted(there.files) if name not in files and name not in removed),
        removed,
        sum(size_of(files[name]) for name in new + changed),
        needs_replace=not there.untouched and bool(new or changed or removed),
    )


def _is_same(known: "RepoFile", content: Content) -> bool:
    size = size_of(content)
    if known.size != size:
        return False
    if known.lfs is not None:
        return known.lfs.sha256 == digest_of(hashlib.sha256(), content)
    return known.blob_id == digest_of(hashlib.sha1(b"blob %d\0" % size), content)  # as git names it


def _send(
    target: _Target, there: _There, files: Files, changes: Changes, message: str, ticker: Ticker | None, created: bool
) -> tuple[str, int]:
    """The new commit, and how many bytes left for it."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    left = f"{target} {'was created and is empty' if created else 'is as it was'}, and what arrived whole is kept"
    progress = Progress(changes.bytes_to_send, ticker)
    with ExitStack() as opened:
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationDelete(name, is_folder=False) for name in changes.removed
        ]
        for name in (*changes.new, *changes.changed):
            file = opened.enter_context(Outgoing(name, files[name], progress))
            operations.append(CommitOperationAdd(name, file))  # reads it once, to hash it
        progress.begin()
        with target.plain_refusals(left), only_our_progress(ticker):
            made = patiently(
                lambda: target.api.create_commit(
                    target.id, operations, commit_message=message, repo_type=target.kind, parent_commit=there.commit
                )
            )
    progress.finish()
    return made.oid, progress.done


def _some(names: tuple[str, ...]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
