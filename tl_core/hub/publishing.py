"""A repository on the Hub made to hold given files: what that would change, and doing it in one commit.

Must not know: what the files are. The token is an argument of each call: it is neither kept nor logged nor told.
"""

import logging
from contextlib import ExitStack
from dataclasses import dataclass

from tl_core.hub.changes import Changes, Consent, Files, Occupied, check_allowed, compare
from tl_core.hub.names import Kind
from tl_core.hub.outgoing import Outgoing, Progress, Ticker, only_our_progress
from tl_core.hub.patience import despite_a_gateway, patiently
from tl_core.hub.target import (
    Target,
    There,
    check_may_write,
    check_not_ignored,
    check_private,
    create,
    look,
    look_at_new,
    target_of,
)
from tl_core.settings import Settings

__all__ = ["Changes", "Consent", "Files", "Kind", "Occupied", "Published", "begin", "look_at", "publish"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """Where it is now, and whether it is `private`. `sent_bytes` leaves out what had arrived in an earlier try; where
    `changes.is_empty` there was no commit, and `commit` is the one that was there."""

    id: str
    kind: Kind
    url: str
    commit: str
    sent_bytes: int
    changes: Changes
    private: bool


def look_at(
    kind: Kind,
    repo_id: str,
    files: Files,
    token: str | None,
    settings: Settings,
    *,
    private: bool = False,
    remove: tuple[str, ...] = (),
    ours: tuple[str, ...] = (),
) -> Changes | None:
    """What `publish` would change; None where the repository is not there yet (or not for this token to see).

    Compares hashes: nothing is downloaded. Raises HubError as `publish` would, as far as that can be known: where it is
    to be `private` and is not, has got another name, or may not be written to with this token.
    """
    target = target_of(kind, repo_id, token or None, settings)
    there = look(target, ours)
    if there is None:
        return None
    check_private(target, there, private)
    changes = compare(there.files, files, remove, untouched=there.untouched, commit=there.commit)
    if target.token and not changes.is_empty:
        check_may_write(target)
        check_not_ignored(target, there, (*changes.new, *changes.changed))
    return changes


def begin(
    kind: Kind,
    repo_id: str,
    token: str,
    settings: Settings,
    *,
    private: bool = False,
    space_sdk: str = "gradio",
) -> None:
    """Create a repository that is not there yet, and leave it empty. Raises HubError."""
    create(target_of(kind, repo_id, token, settings), private, space_sdk)


def publish(
    kind: Kind,
    repo_id: str,
    files: Files,
    token: str,
    settings: Settings,
    *,
    message: str,
    private: bool = False,
    replace: Consent = False,
    remove: tuple[str, ...] = (),
    ours: tuple[str, ...] = (),
    ticker: Ticker | None = None,
    space_sdk: str = "gradio",
) -> Published:
    """Make a repository hold `files` in one commit titled `message`, creating it where it is missing.

    Sends only what differs, nothing at all where nothing does, and can be repeated after any interruption. What is
    there and not ours stays, but for the paths in `remove`. `ours` are titles of commits of this program: after one of
    these the repository holds what it was given, and may be changed. `space_sdk` matters for a new Space. Raises
    Occupied where somebody's files would change and `replace` does not allow it, HubError for every refusal, where
    `private` and it is public, where it has got another name, and where somebody changes it meanwhile: the commit is
    made on the one that was compared with, and on no other.
    """
    target = target_of(kind, repo_id, token, settings)
    there = look(target, ours)
    created = there is None
    if there is None:
        create(target, private, space_sdk)
        there = look_at_new(target)
    check_private(target, there, private)
    untouched = there.untouched or created
    changes = compare(there.files, files, remove, untouched=untouched, commit=there.commit)
    if changes.is_empty:
        log.info("%s holds these files already; nothing was sent", target)
        return Published(repo_id, kind, target.url, there.commit, 0, changes, there.private)
    check_allowed(str(target), changes, replace)
    check_not_ignored(target, there, (*changes.new, *changes.changed))
    commit, sent = _send(target, there, files, changes, message, ticker, created)
    return Published(repo_id, kind, target.url, commit, sent, changes, there.private)


def _send(
    target: Target, there: There, files: Files, changes: Changes, message: str, ticker: Ticker | None, created: bool
) -> tuple[str, int]:
    """The new commit, and how many bytes left for it."""
    from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete

    left = f"{target} {'was created and is empty' if created else 'is as it was'}, and what arrived whole is kept"
    progress = Progress(changes.bytes_to_send, ticker)
    with ExitStack() as opened:
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationDelete(name, is_folder=False) for name in changes.removed
        ]
        for name in (*changes.new, *changes.changed):
            file = opened.enter_context(Outgoing(name, files[name], progress))
            operations.append(CommitOperationAdd(name, file))  # reads it once, to hash it

        def send() -> CommitInfo:
            return target.api.create_commit(
                target.id, operations, commit_message=message, repo_type=target.kind, parent_commit=there.commit
            )

        progress.begin()
        with target.plain_refusals(left), only_our_progress(ticker):
            made = patiently(lambda: despite_a_gateway(send))
    progress.finish()
    return made.oid, progress.done
