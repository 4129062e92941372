"""Who an access token belongs to, and under which names it may create repositories.

Must not know: what is put into a repository, or where the token came from. A token is an argument here: it is neither
kept nor logged nor told.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tl_core.errors import HubError
from tl_core.hub.names import Kind, check_name
from tl_core.hub.patience import bound_waiting
from tl_core.hub.refusals import forbidden_offline, plain_refusals
from tl_core.hub.repository import answer_soon, endpoint
from tl_core.settings import Settings, read_settings

# https://huggingface.co/docs/hub/organizations-security: a contributor creates repositories and writes to those.
WRITING_ROLES = frozenset({"admin", "write", "contributor"})
# https://huggingface.co/docs/hub/security-tokens: what a fine-grained token needs for a name or a repository.
_WRITING_PERMISSION = "repo.write"
# What fits into an HTTP header: a token that was copied with a line break or a dash of a text processor does not.
_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Account:
    """The person behind a token, as far as the token reaches.

    `organisations` are those that may be written to. `may_write` is False for a token that can only read, and None
    where the Hub does not say (the tokens of a sign-in). A fine-grained token may leave out the person's `own_name`,
    and may name single `repositories` by their kind ("model", "dataset", "space") and id, which it can write to and
    not create.
    """

    name: str
    organisations: tuple[str, ...] = ()
    may_write: bool | None = None
    own_name: bool = True
    repositories: tuple[tuple[str, str], ...] = ()

    @property
    def owners(self) -> tuple[str, ...]:
        """Under which names repositories may be created; the person's own comes first."""
        own = (self.name,) if self.own_name else ()
        return () if self.may_write is False else (*own, *self.organisations)


def token_at_hand() -> str | None:
    """This computer's access token: HF_TOKEN, else what `hf auth login` stored, as the Hub's client finds it.

    None where there is none, and on a page that several people share: it is its owner's, and not for their visitors.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import OIDCError

    if read_settings().shared:
        return None
    try:
        return get_token()
    except OIDCError as failure:
        raise HubError(
            f"HF_OIDC_RESOURCE is set and no access token can be had with it ({failure}); unset it, or set HF_TOKEN"
        ) from failure


def is_stored(token: str) -> bool:
    """Whether every process on this computer finds this token by itself: it is what `hf auth login` stored."""
    from huggingface_hub import constants

    if read_settings().shared or "HF_TOKEN" in os.environ:  # it is not looked for, or another one is found first
        return False
    try:
        return Path(constants.HF_TOKEN_PATH).read_text(encoding="utf-8").strip() == token
    except (OSError, UnicodeDecodeError):
        return False


def sound_token(token: str | None) -> str:
    """`token` without the blanks around it. Raises HubError where there is none, or where it cannot be one."""
    bare = (token or "").strip()
    if not bare:
        raise HubError(
            "there is no access token for the Hub; log in with `hf auth login`, set HF_TOKEN, or sign in on the page "
            f"(a token with the role write is made at {endpoint()}/settings/tokens)"
        )
    if not _TOKEN.fullmatch(bare):
        raise HubError(
            "the access token holds a blank, a line break or a letter that no token has (letters, digits and _ are "
            f"allowed); copy it again from {endpoint()}/settings/tokens"
        )
    return bare


def account_of(token: str | None, settings: Settings) -> Account:
    """Ask the Hub whose token this is and what it may do; one question, which the Hub limits strictly.

    Raises HubError: no token, one that is wrong or expired, no network, HF_HUB_OFFLINE.
    """
    from huggingface_hub import HfApi

    token = sound_token(token)
    forbidden_offline(settings, "your account cannot be asked for")
    bound_waiting()
    with plain_refusals("your account", token, "nothing was sent"):
        answer = answer_soon(lambda _: HfApi(endpoint=endpoint()).whoami(token=token))
        if not isinstance(answer, dict) or not isinstance(answer.get("name"), str):
            raise ValueError("the answer names nobody")
    return _account(answer)


def check_may_create(account: Account, repo_id: str, *, kind: Kind | None = None, there: bool | None = None) -> None:
    """Raise HubError where this account may not put a repository of that name on the Hub: the name is none, the token
    only reads, or the owner is somebody else.

    `kind` and `there` (whether it exists; None where that is not known yet) matter for a token that may write to single
    repositories only.
    """
    check_name(repo_id)
    owner = repo_id.partition("/")[0]
    if owner in account.owners:
        return
    if any(named == repo_id and kind in (None, granted) for granted, named in account.repositories):
        if there is not False:
            return
        raise HubError(
            f"this access token of {account.name} may write to {repo_id} and not create it, and it is not there; "
            f"create it at {endpoint()}/{'new-space' if kind == 'space' else 'new'}, or use a token with the role write"
        )
    if not account.owners:
        named = ", ".join(f"the {granted} {name}" for granted, name in account.repositories)
        raise HubError(
            f"this access token of {account.name} may not write to {repo_id}{f' (only to {named})' if named else ''}; "
            f"make one with the role write at {endpoint()}/settings/tokens"
        )
    raise HubError(
        f"this access token of {account.name} may not create repositories for {owner!r}; allowed: "
        f"{', '.join(account.owners)}; take one of these names, or a token that may"
    )


def _account(answer: dict[str, Any]) -> Account:
    name: str = answer["name"]
    organisations = tuple(
        organisation["name"]
        for organisation in answer.get("orgs") or ()
        # Where the Hub leaves the role out it has to be tried: the push itself is refused or not.
        if organisation.get("roleInOrg", "write") in WRITING_ROLES
    )
    token = (answer.get("auth") or {}).get("accessToken") or {}
    role = token.get("role", "")
    if role != "fineGrained":
        return Account(name, organisations, {"write": True, "read": False}.get(role))
    scoped = (token.get("fineGrained") or {}).get("scoped")
    if scoped is None:
        return Account(name, organisations)
    writable = {
        (grant["entity"].get("type"), grant["entity"].get("name"))
        for grant in scoped
        if _WRITING_PERMISSION in grant.get("permissions", ())
    }
    return Account(
        name,
        tuple(organisation for organisation in organisations if ("org", organisation) in writable),
        bool(writable),
        own_name=("user", name) in writable,
        repositories=tuple(sorted(grant for grant in writable if grant[0] in ("model", "dataset", "space"))),
    )
