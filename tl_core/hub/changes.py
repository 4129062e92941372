"""What publishing would change in a repository, found out by comparing hashes.

Must not know: how the Hub is asked, nor what the files are.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tl_core.errors import HubError
from tl_core.hub.outgoing import Content, digest_of, size_of

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

Files = Mapping[str, Content]  # path in the repository: what goes there
# Whether what somebody has put there may be changed: never, whatever it is, or as it is at this commit alone.
Consent = bool | str

_NAMED = 5  # so many files are named in a sentence, the rest counted


class Occupied(HubError):
    """A repository holds something that publishing would change, and nobody has allowed that."""


@dataclass(frozen=True)
class Changes:
    """Paths in a repository: what publishing would add, replace, leave as it is, leave because it is not ours, delete.

    `needs_replace`: it holds something that somebody put there, so nothing is changed without their word. `commit` is
    what all this was found in.
    """

    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    same: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    bytes_to_send: int = 0
    needs_replace: bool = False
    commit: str = field(default="", compare=False)

    @property
    def is_empty(self) -> bool:
        return not (self.new or self.changed or self.removed)

    def __str__(self) -> str:
        told = (("added", self.new), ("replaced", self.changed), ("deleted", self.removed))
        return "; ".join(f"{some(names)} {done}" for done, names in told if names) or "nothing changed"


def compare(
    there: Mapping[str, "RepoFile"], files: Files, remove: tuple[str, ...], *, untouched: bool, commit: str
) -> Changes:
    """What becomes of the files that are `there`; `untouched`: nobody else has put any of them there."""
    new = [name for name in sorted(files) if name not in there]
    same = [name for name in sorted(files) if name in there and _is_same(there[name], files[name])]
    changed = [name for name in sorted(files) if name in there and name not in same]
    removed = tuple(name for name in sorted(set(remove) - set(files)) if name in there)
    return Changes(
        tuple(new),
        tuple(changed),
        tuple(same),
        tuple(name for name in sorted(there) if name not in files and name not in removed),
        removed,
        sum(size_of(files[name]) for name in new + changed),
        needs_replace=not untouched and bool(new or changed or removed),
        commit=commit,
    )


def check_allowed(
    subject: str, changes: Changes | None, consent: Consent = False, said_with: str = "--replace"
) -> None:
    """Raises Occupied where publishing would change what somebody has put there and there is no `consent` to that;
    `said_with` would allow it."""
    if changes is None or not changes.needs_replace or consent is True or consent == changes.commit:
        return
    raise Occupied(
        f"{subject} exists with other content; what would change: {changes}; nothing was sent; allow it with "
        f"{said_with}, or take another name",
        [f"- {path}" for path in changes.removed],
    )


def some(names: tuple[str, ...]) -> str:
    """The first of these names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more:,} more" if more > 0 else "")


def _is_same(known: "RepoFile", content: Content) -> bool:
    size = size_of(content)
    if known.size != size:
        return False
    if known.lfs is not None:
        return known.lfs.sha256 == digest_of(hashlib.sha256(), content)
    return known.blob_id == digest_of(hashlib.sha1(b"blob %d\0" % size), content)  # as git names it
