"""How long the Hub is waited for when it asks for time, or says nothing.

huggingface_hub asks again by itself, with growing pauses, for a file tree, how each file is to be sent, the storage and
each upload (its `http_backoff`: five times after 429, 5xx or a broken connection). It does so never for what must not
happen twice: creating a repository, a commit; and it waits as long as Retry-After says, be it a day. Here is what that
leaves open. Must not know: what is asked.
"""

import json
from collections.abc import Callable
from threading import Lock
from time import sleep
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import httpx2

# A person who pushes looks on. The Hub counts requests in windows of five minutes; half a window is the most that one
# waits for without being told (https://huggingface.co/docs/hub/rate-limits).
LONGEST_WAIT_SECONDS = 150
# How often a question that huggingface_hub asks only once is asked where the Hub says when.
TIMES_ASKED = 3
# Without a byte in either direction for so long, a line counts as broken. The Hub's own gateway gives up after 60.
SILENCE_SECONDS = 120

# Each of these has been asked six times when its refusal arrives.
_ASKED_AGAIN_BY_CLIENT = ("/tree/", "/preupload/", "/info/lfs/")

# The Hub creates one repository of a person at a time, and says so; huggingface_hub asks again at once, without end.
_ONE_AT_A_TIME, _TURN_SECONDS = "another conflicting operation is in progress", 5
# A gateway in trouble is asked once more after so long.
_RECOVERY_SECONDS = 2
# A repository that was created is not yet seen by every server of the Hub: before each further look, so long.
_PAUSES = (0.5, 1, 1.5, 2)

Answer = TypeVar("Answer")

_lock = Lock()


def patiently(ask: Callable[[], Answer]) -> Answer:
    """`ask()`; where the Hub had too many requests, again after as long as it says, at most LONGEST_WAIT_SECONDS."""
    from huggingface_hub.errors import HfHubHTTPError

    for _ in range(TIMES_ASKED - 1):
        try:
            return ask()
        except HfHubHTTPError as failure:
            seconds = _TURN_SECONDS if _waits_for_its_turn(failure.response) else asked_wait(failure.response)
            again = any(part in failure.response.url.path for part in _ASKED_AGAIN_BY_CLIENT)
            if again or seconds is None or seconds > LONGEST_WAIT_SECONDS:
                raise
            sleep(seconds + 1)  # a window that ends within this second has not ended yet
    return ask()


def despite_a_gateway(ask: Callable[[], Answer]) -> Answer:
    """`ask()`; where what came was no JSON, once more: huggingface_hub reads the verdict on a card before it looks at
    the status, and a gateway in trouble answers with a page of words."""
    try:
        return ask()
    except json.JSONDecodeError:
        sleep(_RECOVERY_SECONDS)
        return ask()


def until_seen(look: Callable[[], Answer | None]) -> Answer | None:
    """What `look()` finds, for some seconds asked again while it finds nothing."""
    found = look()
    for seconds in _PAUSES:
        if found is not None:
            break
        sleep(seconds)
        found = look()
    return found


def bound_waiting() -> None:
    """From now on no request of this process waits in silence for ever, nor sleeps as long as a Retry-After wishes.

    For every client that huggingface_hub makes from now on: it makes a new one after each connection that failed. Who
    set up clients of their own keeps them, with these limits. Call it before the first question: it ends what is asked.
    """
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import _http

    with _lock:
        if not isinstance(_http._GLOBAL_CLIENT_FACTORY, _Bounded):
            set_client_factory(_Bounded(_http._GLOBAL_CLIENT_FACTORY))


class _Bounded:
    """Makes the clients that another factory makes, each with limits to its patience."""

    def __init__(self, factory: "Callable[[], httpx2.Client]") -> None:
        self._factory = factory

    def __call__(self) -> "httpx2.Client":
        import httpx2

        client = self._factory()
        client.event_hooks["response"] += [_refuse_a_long_wait, _refuse_to_ask_without_end]
        if client.timeout == httpx2.Timeout(None):
            client.timeout = SILENCE_SECONDS
        return client


def asked_wait(response: "httpx2.Response") -> int | None:
    """For how many seconds the Hub, having had too many requests, asks; None for any other answer."""
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]  # exported lazily

    if response.status_code != 429:
        return None
    limit = parse_ratelimit_headers(response.headers)
    if limit is not None and limit.remaining == 0:
        return limit.reset_in_seconds
    seconds = response.headers.get("Retry-After", "").strip()
    return int(seconds) if seconds.isdecimal() else None


def _refuse_a_long_wait(response: "httpx2.Response") -> None:
    from huggingface_hub import hf_raise_for_status

    if (asked_wait(response) or 0) > LONGEST_WAIT_SECONDS:
        hf_raise_for_status(response)


def _refuse_to_ask_without_end(response: "httpx2.Response") -> None:
    from huggingface_hub import hf_raise_for_status

    if response.status_code == 409 and response.url.path.endswith("/repos/create"):
        response.read()
        if _waits_for_its_turn(response):
            hf_raise_for_status(response)


def _waits_for_its_turn(response: "httpx2.Response") -> bool:
    return response.status_code == 409 and response.url.path.endswith("/create") and _ONE_AT_A_TIME in response.text
