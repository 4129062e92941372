"""How long the Hub is waited for when it asks for time, or says nothing.

huggingface_hub asks again by itself, with growing pauses, for a file tree, how each file is to be sent, the storage and
each upload (its `http_backoff`: five times after 429, 5xx or a broken connection). It does so never for what must not
happen twice: creating a repository, a commit; and it waits as long as Retry-After says, be it a day. Here is what that
leaves open. Must not know: what is asked.
"""

from collections.abc import Callable
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

Answer = TypeVar("Answer")


def patiently(ask: Callable[[], Answer]) -> Answer:
    """`ask()`; where the Hub had too many requests, again after as long as it says, at most LONGEST_WAIT_SECONDS."""
    from huggingface_hub.errors import HfHubHTTPError

    for _ in range(TIMES_ASKED - 1):
        try:
            return ask()
        except HfHubHTTPError as failure:
            seconds = asked_wait(failure.response)
            again = any(part in failure.response.url.path for part in _ASKED_AGAIN_BY_CLIENT)
            if again or seconds is None or seconds > LONGEST_WAIT_SECONDS:
                raise
            sleep(seconds + 1)  # a window that ends within this second has not ended yet
    return ask()


def bound_waiting() -> None:
    """From now on no request of this process waits in silence for ever, nor sleeps as long as a Retry-After wishes.

    What may be changed without taking the client away from others who set one up: its hooks, and the limit it lacks.
    """
    import httpx2
    from huggingface_hub import get_session

    session = get_session()
    hooks = session.event_hooks["response"]
    if _refuse_a_long_wait not in hooks:
        hooks.append(_refuse_a_long_wait)
    if session.timeout == httpx2.Timeout(None):
        session.timeout = SILENCE_SECONDS


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
