"""One repository that is to be written to: what is there, whether it can be, and making it.

Must not know: what the files are, nor how they are sent. The token is not told, not even where a target is printed.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tl_core.errors import HubError
from tl_core.hub.account import sound_token
from tl_core.hub.changes import some
from tl_core.hub.names import Kind, called, page_of
from tl_core.hub.patience import bound_waiting, patiently, until_seen
from tl_core.hub.refusals import forbidden_offline, plain_refusals
from tl_core.hub.repository import LISTING_SECONDS, answer_soon, answer_within, endpoint
from tl_core.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

# What the Hub writes into a new repository, and into a new Space, by itself.
_HUBS_OWN = frozenset({".gitattributes"})
_HUBS_OWN_IN_A_SPACE = _HUBS_OWN | {"README.md"}


@dataclass(frozen=True)
class There:
    commit: str
    private: bool
    files: Mapping[str, "RepoFile"]
    untouched: bool  # nobody has put anything there, or nobody since we did


@dataclass(frozen=True)
class Target:
    kind: Kind
    id: str
    token: str | None = field(repr=False)

    @property
    def url(self) -> str:
        return page_of(self.kind, self.id)

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
        return called(self.kind, self.id)


def target_of(kind: Kind, repo_id: str, token: str | None, settings: Settings) -> Target:
    """Raises HubError where the token cannot be one, or the Hub must not be asked; `token` None: as nobody."""
    target = Target(kind, repo_id, sound_token(token) if token is not None else None)
    forbidden_offline(settings, f"{target} cannot be asked for")
    bound_waiting()
    return target


def look(target: Target, ours: tuple[str, ...] = (), left: str = "nothing was sent") -> There | None:
    """What is on the main branch; None where there is no such repository, or none for this token to see.

    After a commit with one of the titles `ours` it is as we left it. Raises HubError, also where the repository has
    got another name since: the Hub answers to the old one too, and whoever says that means something else perhaps.
    """
    from huggingface_hub.errors import RepositoryNotFoundError
    from huggingface_hub.hf_api import RepoFile

    api = target.api

    def about(seconds: float) -> tuple[str, str | None, bool | None]:
        wanted: Any = ["sha", "private"]  # declared as one word, used as a list
        info = api.repo_info(target.id, repo_type=target.kind, timeout=seconds, expand=wanted)
        return info.id, info.sha, info.private

    def entries() -> dict[str, RepoFile]:
        listed = api.list_repo_tree(target.id, recursive=True, revision=head, repo_type=target.kind)
        return {entry.path: entry for entry in listed if isinstance(entry, RepoFile)}

    with target.plain_refusals(left):
        try:
            name, head, private = patiently(lambda: answer_soon(about))
        except RepositoryNotFoundError as failure:
            # The Hub says 401 to nobody about what is not there, and to a token only if the token is at fault.
            if target.token and failure.response.status_code == 401:
                raise
            return None
        if head is None:
            raise ValueError("the answer names no commit")
        if name.casefold() != target.id.casefold():
            raise HubError(f"{target} is called {name} now; {left}; say that name if you mean it, or take another one")
        files = answer_within(LISTING_SECONDS, entries)
        untouched = set(files) <= _HUBS_OWN
        new_space = target.kind == "space" and set(files) <= _HUBS_OWN_IN_A_SPACE
        if not untouched and (new_space or ours):
            titles = [made.title for made in patiently(lambda: api.list_repo_commits(name, repo_type=target.kind))]
            untouched = (new_space and len(titles) == 1) or any(title in ours for title in titles[:1])
    return There(head, bool(private), files, untouched)


def create(target: Target, private: bool, space_sdk: str) -> None:
    sdk = space_sdk if target.kind == "space" else None
    hidden = private or None  # an organisation may have decided that what nobody says anything about is private
    with target.plain_refusals():
        patiently(lambda: target.api.create_repo(target.id, repo_type=target.kind, private=hidden, space_sdk=sdk))


def look_at_new(target: Target) -> There:
    """`look` at what was created a moment ago: the Hub may need some seconds until everybody can see it."""
    left = f"{target} was created and is empty"
    there = until_seen(lambda: look(target, left=left))
    if there is None:
        raise HubError(f"{left}, and cannot be seen yet; try again in a minute, or look at {target.url}")
    return there


def check_private(target: Target, there: There, private: bool) -> None:
    if private and not there.private:
        raise HubError(
            f"{target} exists and is public, and you asked for a private one; nothing was sent; make it private at "
            f"{target.url}/settings, or take another name"
        )


def check_may_write(target: Target) -> None:
    """Raises HubError where the token may see the repository and not write to it."""
    from huggingface_hub.errors import HfHubHTTPError

    with target.plain_refusals():
        try:
            patiently(lambda: target.api.auth_check(target.id, repo_type=target.kind, write=True))
        except HfHubHTTPError as failure:
            if failure.response.status_code == 404:  # it is there, so this Hub does not know the question
                return
            if failure.response.status_code != 403:
                raise
            raise HubError(
                f"{target} exists, and this access token may not write to it (a sign-in may write only to what it has "
                "created); nothing was sent; take another name, or a token that may"
            ) from None


def check_not_ignored(target: Target, there: There, names: tuple[str, ...]) -> None:
    """Raises HubError where the repository's .gitignore names one of these files: the client would leave it out and
    say nothing."""
    from huggingface_hub import CommitOperationAdd

    if ".gitignore" not in there.files or not names:
        return
    asked = [CommitOperationAdd(name, b"") for name in names]  # of nothing, so that nothing is sent
    with target.plain_refusals():
        patiently(lambda: target.api.preupload_lfs_files(target.id, asked, repo_type=target.kind))
    ignored = tuple(each.path_in_repo for each in asked if each._should_ignore)
    if ignored:
        raise HubError(
            f"the .gitignore of {target} keeps out {some(ignored)}; nothing was sent; delete .gitignore there, or take "
            "another name"
        )
