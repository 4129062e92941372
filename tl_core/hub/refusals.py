"""One sentence for each way in which a question asked with an access token can fail: what the Hub said, what that
leaves behind, what to do.

Must not know: what was asked. The token is an argument so that it can be kept out of the sentence and of what the
exception is chained to, whatever a server answers.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tl_core.errors import HubError
from tl_core.hub.outgoing import Watching
from tl_core.hub.patience import asked_wait
from tl_core.hub.repository import Unreachable, endpoint
from tl_core.settings import Settings

if TYPE_CHECKING:
    from huggingface_hub.errors import HfHubHTTPError

# As much of a server's own words as one sentence can hold.
_MOST_SAID = 200
_UPLOADING = re.compile(r"Error while uploading '(.+)' to the Hub")  # how huggingface_hub names the file of a failure
# What httpx says where another thread, whose connection failed, has ended the client that all of them share.
_ENDED = "the client has been closed"
# From the storage these mean the file and not the person: what arrived is damaged, or the permission to send expired.
_NOT_TAKEN = frozenset({400, 404, 409, 412, 422})


def forbidden_offline(settings: Settings, undone: str) -> None:
    """Raise Unreachable where the environment forbids asking the Hub."""
    if settings.offline:
        raise Unreachable(f"HF_HUB_OFFLINE forbids asking the Hub, so {undone}; unset it and try again")


@contextmanager
def plain_refusals(subject: str, token: str | None, left: str) -> Iterator[None]:
    """Turn what the Hub's client raises about `subject` into one sentence; `left` says what is left behind.

    Raises Unreachable for what may be gone in a while (no network, 429, 5xx, a broken line), HubError for the rest.
    What whoever watches the progress raises comes through as it is.
    """
    import httpx2
    from huggingface_hub import errors

    try:
        yield
    except Watching as watched:
        raise watched.reason from None
    except (httpx2.HTTPError, httpx2.InvalidURL, errors.OfflineModeIsEnabled, OSError, ValueError, KeyError) as failure:
        said = _sentence(failure, subject, left, "")
        raise _without(token, said) from _chained(failure, token)
    except RuntimeError as failure:  # around whatever ended the upload of one file
        named = _UPLOADING.match(str(failure))
        cause, file = (failure.__cause__, named[1]) if named and failure.__cause__ else (failure, "")
        if isinstance(cause, Watching):
            raise cause.reason from None
        known = (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError, KeyError)
        if not isinstance(cause, known) and not _ended(cause):
            raise cause from None  # not the Hub's doing
        said = _sentence(cause, subject, left, file)
        raise _without(token, said) from _chained(cause, token)


def _sentence(failure: BaseException, subject: str, left: str, file: str) -> HubError:
    """The order matters: later classes contain earlier ones."""
    import httpx2
    from huggingface_hub import errors

    if isinstance(failure, errors.HfHubHTTPError):
        return _refusal(failure, subject, left, file)
    kind = type(failure).__name__
    if isinstance(failure, (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError)) or _ended(failure):
        return Unreachable(
            f"the connection to {endpoint()} broke while {file or subject} was being sent; {left}; check the "
            "connection and try again",
            [f"{kind}: {failure}".rstrip(": ")],
        )
    if isinstance(failure, (httpx2.HTTPError, httpx2.InvalidURL, errors.OfflineModeIsEnabled, TimeoutError)):
        return Unreachable(
            f"{endpoint()} cannot be reached for {subject}; {left}; check the connection and try again",
            [f"{kind}: {failure}".rstrip(": ")],
        )
    if isinstance(failure, OSError):
        return HubError(f"{file or subject} cannot be read for sending ({failure}); {left}; check the file")
    if str(failure).startswith("Invalid metadata in README.md"):
        faults = " ".join(str(failure).split()).partition("README.md. ")[2]
        return HubError(
            f"{endpoint()} refuses the lines between the two '---' of README.md for {subject} ({faults[:_MOST_SAID]}); "
            f"{left}; correct them and try again"
        )
    if str(failure).startswith("LFS batch API returned errors"):
        faults = " ".join(str(failure).split()).partition("`")[2]
        return HubError(
            f"the storage of {endpoint()} takes no more for {subject} ({faults[:_MOST_SAID]}); {left}; make room there "
            f"({endpoint()}/settings/billing) or push less"
        )
    return Unreachable(
        f"what answers at {endpoint()} about {subject} is not the Hub, or it is in trouble (perhaps this is a "
        f"network's log-in page); {left}; try again later, and check the connection and HF_ENDPOINT",
        [f"{kind}: {failure}"],
    )


def _refusal(failure: "HfHubHTTPError", subject: str, left: str, file: str) -> HubError:
    hub, status, request = endpoint(), failure.response.status_code, failure.response.request
    said = str(failure.server_message or failure.response.headers.get("X-Error-Message", ""))
    words = " ".join(re.sub(r"<[^>]*>", " ", said).split())
    found = f"status {status}: {words[:_MOST_SAID]}" if words else f"status {status}"
    if status == 429:
        seconds = asked_wait(failure.response)
        wait = "some minutes" if seconds is None else f"{seconds} seconds"
        return Unreachable(f"{hub} had too many requests for {subject} ({found}); {left}; wait {wait} and try again")
    if status >= 500:
        return Unreachable(f"{hub} failed at {subject} ({found}); {left}; try again later")
    if file and (status in _NOT_TAKEN or request.method == "PUT"):
        return Unreachable(
            f"the storage of {hub} did not take {file} ({found}): what arrived is not what was to be sent, or came too "
            f"late; {left}; try again, and if it stays so see that nothing writes to the file"
        )
    if status == 401:
        return HubError(
            f"{hub} does not accept this access token for {subject} ({found}): wrong, expired or revoked; {left}; make "
            f"one with the role write at {hub}/settings/tokens, or sign in again"
        )
    if status == 402:
        return HubError(f"{hub} wants a subscription or credits for {subject} ({found}); {left}; see {hub}/pricing")
    if status == 403:
        return HubError(
            f"{hub} does not let this access token do that with {subject} ({found}); {left}; use a token with the role "
            "write, or a fine-grained one with write access to the repositories of that owner"
        )
    if status == 404:
        return HubError(
            f"{subject} is not at {hub}, or not for this access token ({found}); {left}; check the name and the token"
        )
    if status == 412 or (status == 409 and "/commit/" in request.url.path):
        return HubError(f"somebody else changed {subject} meanwhile ({found}); {left}; look at it and try again")
    if status == 409:
        return HubError(
            f"{hub} has {subject} already, or is at work on it ({found}); {left}; try again, or take another name"
        )
    return HubError(f"{hub} refuses {subject} ({found}); {left}; correct that and try again")


def _ended(failure: BaseException) -> bool:
    return isinstance(failure, RuntimeError) and _ENDED in str(failure)


def _without(token: str | None, error: HubError) -> HubError:
    """The same error if the token is not in it, else one that has dots in its place."""
    if not token or not _tells(error, token):
        return error
    return type(error)(error.message.replace(token, "…"), [detail.replace(token, "…") for detail in error.details])


def _chained(failure: BaseException, token: str | None) -> BaseException | None:
    """What a traceback may show as the cause: none of it where a server has put the token into its words."""
    link: BaseException | None = failure
    while link is not None:
        if token and _tells(link, token):
            return None
        link = link.__cause__ or link.__context__
    return failure


def _tells(failure: BaseException, token: str) -> bool:
    return token in str(failure) or any(token in str(detail) for detail in getattr(failure, "details", ()))
