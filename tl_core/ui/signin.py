"""Who is signed in with Hugging Face, on a Space that offers it, and with which access token the Hub is asked for them.

A token is looked for where it is needed and given on: it is kept nowhere, only what the Hub said of it is, for some
minutes. Must not know panels, nor what is asked for.
"""

import functools
import hashlib
import importlib.util
import os
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock

import gradio as gr
from gradio.context import LocalContext

from tl_core.errors import HubError
from tl_core.hub.account import Account, account_of, sound_token, token_at_hand
from tl_core.settings import Settings
from tl_core.ui.markup import notice, paragraph

# What a Space with `hf_oauth: true` is given (https://huggingface.co/docs/hub/spaces-oauth).
_GIVEN = ("OAUTH_CLIENT_ID", "OAUTH_CLIENT_SECRET", "OAUTH_SCOPES", "OPENID_PROVIDER_URL")
_PACKAGES = ("authlib", "itsdangerous")
# Not in hex, so that no browser's token can ever have it for its hash.
_OWNER = "huggingface:"
# Where a browser says that another site sent it here, that site may not use the cookie of who is signed in: the cookies
# of a Space go along wherever it is shown.
_OWN_PAGES = frozenset({"same-origin", "none"})
# The Hub answers the question whose token this is only so often.
_REMEMBERED_SECONDS = 300.0
_MOST_REMEMBERED = 200
NOT_SIGNED_IN = (
    "you are not signed in, so nothing can be sent; press “Sign in with Hugging Face”, and what you made before stays "
    "yours"
)
EXPIRED = "your sign-in has expired, and nothing was sent; press “Sign in with Hugging Face” and go on where you were"
ELSEWHERE = "this was asked for by another site, in the name of who is signed in here; open the page itself"

_key = secrets.token_bytes(32)
_accounts: OrderedDict[bytes, tuple[float, Account]] = OrderedDict()
_lock = Lock()


@dataclass(frozen=True)
class SignedIn:
    """`id` stays the same when somebody takes another name on the Hub."""

    id: str
    name: str

    @property
    def owner(self) -> str:
        """As whom their runs and drafts are kept; says nothing of who they are."""
        return _OWNER + hashlib.sha256(self.id.encode()).hexdigest()


def is_offered(settings: Settings) -> bool:
    """Elsewhere Gradio asks the Hub whose computer this is before it serves anything, and the token of that computer
    serves better. Without the packages of `gradio[oauth]` the page could not be served at all."""
    given = settings.on_space and all(os.environ.get(name) for name in _GIVEN)
    return given and all(map(_is_installed, _PACKAGES))


def who_is_signed_in() -> SignedIn | None:
    """Who sends the event that is being handled; None where nobody is signed in (any more), and outside of events."""
    request = LocalContext.request.get(None)
    inner = getattr(request, "request", None)
    if inner is None or _comes_from_elsewhere(inner.headers.get("sec-fetch-site")):
        return None
    found = (inner.scope.get("session") or {}).get("oauth_info") or {}
    expires = found.get("expires_at")
    if not found or (expires is not None and expires < time.time()):
        return None
    return SignedIn(str(found["userinfo"]["sub"]), str(found["userinfo"]["preferred_username"]))


def token_for(pasted: str | None, signed: gr.OAuthToken | None, settings: Settings, *, known: bool = False) -> str:
    """The token to ask the Hub with: of who is signed in, else the pasted one, else this computer's own.

    `known`: the page has shown somebody's name already. Raises HubError that says what to do.
    """
    if is_offered(settings):
        if signed is None:
            raise HubError(EXPIRED if known else NOT_SIGNED_IN)
        if who_is_signed_in() is None:
            raise HubError(ELSEWHERE)
        return signed.token
    given = (pasted or "").strip() or token_at_hand()
    if given:
        return sound_token(given)
    raise HubError(
        "there is no access token to send with; paste one with the role write into “Access token”"
        + ("" if settings.shared else ", or log in on this computer with `hf auth login`")
    )


def account_for(token: str, settings: Settings) -> Account:
    """Whose token it is, as `account_of`; the answer is remembered for some minutes, the token is not."""
    key, now = hashlib.blake2b(token.encode(), key=_key).digest(), time.monotonic()
    with _lock:
        at, known = _accounts.get(key, (0.0, None))
        if known is not None and now - at < _REMEMBERED_SECONDS:
            return known
    found = account_of(token, settings)
    with _lock:
        _accounts[key] = (now, found)
        while len(_accounts) > _MOST_REMEMBERED:
            _accounts.popitem(last=False)
    return found


def sign_in_button(step: str, elem_id: str) -> gr.Button:
    """Hidden at first. Whoever has signed in by it is on this step of the page again."""
    return gr.Button(
        "Sign in with Hugging Face",
        variant="huggingface",
        link=f"/login/huggingface?_target_url=%2F%3Fstep%3D{step}",
        visible=False,
        elem_id=elem_id,
    )


def owner_field(elem_id: str) -> gr.Dropdown:
    """Empty; `offered_owners` fills it."""
    return gr.Dropdown([], label="Owner", info="You, or an organisation you may write to.", elem_id=elem_id)


def offered_owners(account: Account, chosen: str | None) -> gr.Dropdown:
    """Under which names somebody may publish.

    What is chosen stays where it is one of them, also what was chosen after this was asked: nothing is said of it then.
    """
    if chosen in account.owners:
        return gr.Dropdown(list(account.owners))
    return gr.Dropdown(list(account.owners), value=next(iter(account.owners), None))


def introduced(account: Account, *, of_computer: bool) -> str:
    """Markup of who somebody is on the Hub, and whether they may write; by the token `of_computer` or one of theirs."""
    if not account.owners:
        return notice(f"This access token of {account.name} can only read: make one with the role write.", "warn")
    by_token = ", by the access token of this computer" if of_computer else ""
    return paragraph(f"You are {account.name} on the Hub{by_token}.", "tl-quiet")


@functools.cache
def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _comes_from_elsewhere(site: str | None) -> bool:
    """By a header that no page can forge; what is no browser sends none, and has nobody's cookies either."""
    return site is not None and site not in _OWN_PAGES
