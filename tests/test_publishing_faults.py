"""What can go wrong while files are put into a repository: each fault is one sentence, loses nothing, and a second try
goes on."""

import logging
import traceback
import warnings

import httpx2
import huggingface_hub
import pytest
from hub_server import CLOSED, Hub, UseHub
from huggingface_hub.utils import http_backoff
from pushing import BYTES, CARD, FILES, NAME, TOKEN, WEIGHTS, changes, push, waits

from tl_core.errors import HubError
from tl_core.hub import patience
from tl_core.hub.patience import LONGEST_WAIT_SECONDS
from tl_core.hub.refusals import plain_refusals
from tl_core.hub.repository import Unreachable
from tl_core.settings import Settings

__all__ = ["waits"]  # a fixture


@pytest.mark.parametrize(
    ("method", "path", "kind", "said"),
    [
        (
            "GET",
            "/api/models",
            401,
            rf"not accept this access token for the model {NAME} \(status 401.*make one with the",
        ),
        (
            "GET",
            "/api/models",
            403,
            r"does not let this access token do that with .*; nothing was sent; use a token with",
        ),
        ("GET", "/api/models", 500, r"failed at the model .*status 500.*; nothing was sent; try again later"),
        ("POST", "/create", 401, r"not accept this access token .*; nothing was sent"),
        ("POST", "/create", 402, r"wants a subscription or credits for .*; nothing was sent; see http.*/pricing"),
        ("POST", "/create", 403, r"does not let this access token do that with .*; nothing was sent"),
        (
            "POST",
            "/create",
            404,
            r"is not at http.*, or not for this access token .*; nothing was sent; check the name",
        ),
        ("POST", "/create", 409, r"has the model .* already, or is at work on it .*; try again, or take another name"),
        ("POST", "/create", 500, r"failed at the model .*; nothing was sent; try again later"),
        (
            "POST",
            "/create",
            "cut",
            r"the connection to http.* broke while the model .* was being sent; nothing was sent",
        ),
        ("POST", "/preupload/", 403, r"does not let this access token .* was created and is empty"),
        ("POST", "/objects/batch", 403, r"does not let this access token .* was created and is empty"),
        ("PUT", "/storage/", 403, r"the storage of http.* did not take .* \(status 403.* or came too late"),
        (
            "POST",
            "/commit/",
            401,
            r"not accept this access token .* was created and is empty, and what arrived whole is",
        ),
        ("POST", "/commit/", 403, r"does not let this access token .* was created and is empty"),
        ("POST", "/commit/", 404, r"is not at http.* was created and is empty"),
        ("POST", "/commit/", 409, r"somebody else changed the model .* meanwhile .*; look at it and try again"),
        ("POST", "/commit/", 418, r"refuses the model .* \(status 418.*; correct that and try again"),
        (
            "POST",
            "/commit/",
            500,
            r"failed at the model .* was created and is empty, and what arrived whole is kept; try",
        ),
        (
            "POST",
            "/commit/",
            "cut",
            r"the connection to .* broke while the model .*; check the connection and try again",
        ),
    ],
)
def test_a_refusal_is_one_sentence_after_which_a_second_try_goes_on(
    hub: Hub, settings: Settings, waits: list[float], method: str, path: str, kind: int | str, said: str
) -> None:
    hub.fail(method, path, 1, kind)
    with pytest.raises(HubError, match=said) as caught:
        push(settings)
    assert "\n" not in caught.value.message
    assert waits == []
    push(settings)
    assert {name: hub.repos[NAME].files[name] for name in FILES} == FILES


@pytest.mark.parametrize(
    ("method", "path", "kind", "said"),
    [
        ("POST", "/preupload/", 500, r"failed at the model .* \(status 500"),
        ("POST", "/objects/batch", 429, r"had too many requests for the model .*; wait some minutes and try again"),
        ("PUT", "/storage/", 500, r"failed at the model .* \(status 500"),
        ("PUT", "/storage/", "cut", r"the connection to http.* broke while .*(safetensors|png) was being sent"),
        ("POST", "/objects/verify", 500, r"failed at the model .* \(status 500"),
    ],
)
def test_an_upload_is_tried_again_by_the_client_and_then_given_up(
    hub: Hub, settings: Settings, waits: list[float], method: str, path: str, kind: int | str, said: str
) -> None:
    hub.fail(method, path, 3, kind)
    assert push(settings).sent_bytes == BYTES
    assert len(waits) == 3
    del hub.repos[NAME]
    hub.objects.clear()
    hub.fail(method, path, 99, kind)
    with pytest.raises(Unreachable, match=said):
        push(settings)
    hub.faults.clear()
    push(settings)
    assert hub.repos[NAME].files["model.safetensors"] == WEIGHTS


def test_what_arrived_before_an_interruption_is_not_sent_again(
    hub: Hub, settings: Settings, waits: list[float]
) -> None:
    hub.fail("POST", "/commit/", 1, "cut")
    with pytest.raises(Unreachable):
        push(settings)
    assert len(hub.objects) == 2
    hub.received.clear()
    published = push(settings)
    assert hub.bytes_of("PUT") == 0
    assert published.sent_bytes == len(CARD) + len(FILES["config.json"])
    assert hub.repos[NAME].files["model.safetensors"] == WEIGHTS


def test_damage_on_the_way_is_noticed_and_mended_by_a_second_try(hub: Hub, settings: Settings) -> None:
    hub.fail("PUT", "/storage/", 2, "wrong-hash")
    said = (
        r"the storage of http.* did not take (model\.safetensors|results/matrix\.png) \(status 400: BadDigest .*\): "
        r"what arrived is not what was to be sent, .* was created and is empty, .* try again"
    )
    with pytest.raises(Unreachable, match=said):
        push(settings)
    assert "model.safetensors" not in hub.repos[NAME].files
    hub.faults.clear()  # of two files that are sent side by side, the first that is refused may end the other
    push(settings)
    assert hub.repos[NAME].files["model.safetensors"] == WEIGHTS


def test_a_commit_whose_answer_was_lost_is_found_done(hub: Hub, settings: Settings) -> None:
    hub.fail("POST", "/commit/", 1, "unheard")
    with pytest.raises(Unreachable, match=r"the connection to .* broke"):
        push(settings)
    again = push(settings)
    assert again.changes.is_empty
    assert hub.repos[NAME].messages == ["initial commit", "A model"]


def test_a_change_of_somebody_else_meanwhile_is_not_overwritten(hub: Hub, settings: Settings) -> None:
    push(settings)

    def change(done: int, total: int) -> None:
        hub.repos[NAME].files = hub.repos[NAME].files | {"config.json": b"theirs"}

    with pytest.raises(HubError, match=rf"somebody else changed the model {NAME} meanwhile \(status 412: A commit has"):
        push(settings, FILES | {"config.json": b"ours"}, replace=True, ticker=change)
    assert hub.repos[NAME].files["config.json"] == b"theirs"


def test_too_many_requests_are_waited_for_as_long_as_the_hub_says(
    hub: Hub, settings: Settings, waits: list[float]
) -> None:
    for path in ("/create", "/preupload/", "/commit/"):
        hub.fail("POST", path, 1, 429, retry_after=7)
    hub.fail("GET", "/api/models", 1, 429, headers={"RateLimit": '"api";r=0;t=9'})
    push(settings)
    assert waits == [10, 8, 8, 8]
    assert hub.repos[NAME].messages == ["initial commit", "A model"]


@pytest.mark.parametrize(("method", "path"), [("POST", "/create"), ("PUT", "/storage/"), ("POST", "/commit/")])
def test_a_longer_wait_than_bearable_is_said(
    hub: Hub, settings: Settings, waits: list[float], method: str, path: str
) -> None:
    hub.fail(method, path, 99, 429, retry_after=LONGEST_WAIT_SECONDS + 1)
    with pytest.raises(
        Unreachable, match=rf"too many requests .*; wait {LONGEST_WAIT_SECONDS + 1} seconds and try again"
    ):
        push(settings)
    assert waits == []


def test_waiting_ends_after_some_tries(hub: Hub, settings: Settings, waits: list[float]) -> None:
    hub.fail("POST", "/commit/", 99, 429, retry_after=1)
    with pytest.raises(Unreachable, match="wait 1 seconds"):
        push(settings)
    assert waits == [2, 2]


def test_a_hub_that_falls_silent_is_given_up(
    hub: Hub, settings: Settings, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub.close_session()
    monkeypatch.setattr(patience, "SILENCE_SECONDS", 0.2)
    hub.fail("POST", "/commit/", 1, "silent")
    try:
        with pytest.raises(Unreachable, match="cannot be reached for the model"):
            push(settings)
    finally:
        hub.awake.set()
        huggingface_hub.close_session()


def test_silence_is_given_up_after_a_connection_that_failed_too(
    hub: Hub, settings: Settings, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "SILENCE_SECONDS", 0.2)
    hub.fail("POST", "/commit/", 1, "silent")

    def lose(done: int, total: int) -> None:
        if not done:  # what huggingface_hub does itself after a ConnectError: it makes a new client
            with pytest.raises(httpx2.ConnectError):
                http_backoff("GET", CLOSED, max_retries=0)

    try:
        with pytest.raises(Unreachable, match="cannot be reached for the model"):
            push(settings, ticker=lose)
    finally:
        hub.awake.set()
        huggingface_hub.close_session()


def test_a_client_that_another_thread_has_closed_is_one_sentence(hub: Hub, settings: Settings) -> None:
    def close(done: int, total: int) -> None:
        huggingface_hub.get_session().close()

    try:
        with pytest.raises(Unreachable, match=r"the connection to .* broke while the model .* try again"):
            push(settings, ticker=close)
    finally:
        huggingface_hub.close_session()
    push(settings)


def test_a_client_that_was_closed_amid_an_upload_is_one_sentence() -> None:
    said = r"broke while model\.safetensors was being sent; nothing is lost"
    closed = RuntimeError("Cannot send a request, as the client has been closed.")
    with pytest.raises(Unreachable, match=said), plain_refusals("the model x", TOKEN, "nothing is lost"):
        raise RuntimeError("Error while uploading 'model.safetensors' to the Hub.") from closed


def test_a_new_repository_that_is_not_seen_at_once_is_waited_for(
    hub: Hub, settings: Settings, waits: list[float]
) -> None:
    hub.delay = 3
    push(settings)
    assert waits == [0.5, 1, 1.5]
    assert hub.repos[NAME].messages == ["initial commit", "A model"]
    hub.delay = 99
    with pytest.raises(
        HubError, match=r"^the model tester/other was created and is empty, and cannot be seen yet; try"
    ):
        push(settings, name="tester/other")


def test_a_fault_after_a_repository_was_created_does_not_say_that_nothing_happened(
    hub: Hub, settings: Settings
) -> None:
    hub.fail("GET", "/tree/", 1, 403)
    with pytest.raises(HubError, match=rf"; the model {NAME} was created and is empty; use a token"):
        push(settings)


def test_one_repository_is_created_after_the_other(hub: Hub, settings: Settings, waits: list[float]) -> None:
    busy = "Cannot create repo: another conflicting operation is in progress"
    hub.fail("POST", "/create", 1, 409, says=busy)
    push(settings)
    assert waits == [6]
    hub.fail("POST", "/create", 99, 409, says=busy)
    with pytest.raises(HubError, match="has the model tester/other already, or is at work on it"):
        push(settings, name="tester/other")


def test_a_gateway_in_trouble_is_asked_once_more(hub: Hub, settings: Settings, waits: list[float]) -> None:
    hub.fail("POST", "validate-yaml", 1, "gateway")
    push(settings)
    assert waits == [2]
    hub.fail("POST", "validate-yaml", 9, "gateway")
    with pytest.raises(Unreachable, match=r"is not the Hub, or it is in trouble .*; try again later"):
        push(settings, FILES | {"README.md": CARD + b"more"}, replace=True)


def test_what_the_hub_advises_about_a_card_is_not_for_the_person(hub: Hub, settings: Settings) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        push(settings, FILES | {"README.md": b"no metadata"})


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (b"---\nlicense: [mit\n---\n", r"refuses the lines between the two '---' of README\.md for .*\(- bad YAML: "),
        (
            b"---\n- mit\n---\n",
            r"of README\.md for the model tester/leaves \(- should be an object\); .*; correct them",
        ),
    ],
)
def test_a_card_that_the_hub_refuses_is_said_before_the_weights_are_sent(
    hub: Hub, settings: Settings, card: bytes, said: str
) -> None:
    with pytest.raises(HubError, match=said):
        push(settings, FILES | {"README.md": card})
    assert hub.bytes_of("PUT") == 0


def test_a_name_of_somebody_else_is_refused_by_the_hub_itself(hub: Hub, settings: Settings) -> None:
    with pytest.raises(HubError, match=r"\(status 403: You don't have the rights to create a model under .*google"):
        push(settings, name="google/leaves")


def test_no_network_and_a_forbidden_hub_are_said(use_hub: UseHub, settings: Settings, offline: Settings) -> None:
    use_hub(CLOSED)
    for ask in (push, changes):
        with pytest.raises(
            Unreachable, match=f"^{CLOSED} cannot be reached for the model {NAME}; nothing was sent; check"
        ):
            ask(settings)
        with pytest.raises(Unreachable, match=f"HF_HUB_OFFLINE forbids asking the Hub, so the model {NAME} cannot"):
            ask(offline)


def test_a_log_in_page_is_not_taken_for_the_hub(hub: Hub, settings: Settings) -> None:
    hub.bodies[f"/api/models/{NAME}"] = b"<html>Welcome</html>"
    with pytest.raises(Unreachable, match=r"is not the Hub, or it is in trouble .*; nothing was sent; try again later"):
        push(settings)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/api/models", 403), ("POST", "/create", 409), ("POST", "/preupload/", 403), ("PUT", "/storage/", 400),
     ("POST", "/objects/verify", 403), ("POST", "/commit/", 400), ("POST", "/commit/", 500)],
)  # fmt: skip
def test_a_token_that_a_server_repeats_is_not_told(
    hub: Hub, settings: Settings, caplog: pytest.LogCaptureFixture, method: str, path: str, status: int
) -> None:
    caplog.set_level(logging.INFO)
    hub.fail(method, path, 99, status, says=f"who is {TOKEN}?")
    with pytest.raises(HubError, match=r"who is ….") as caught:
        push(settings)
    told = [*traceback.format_exception(caught.value), repr(caught.value), *caught.value.details]
    assert TOKEN not in "".join(told) + caplog.text


def test_the_token_goes_to_the_hub_and_to_nobody_else(
    hub: Hub,
    settings: Settings,
    waits: list[float],
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.fail("PUT", "/storage/", 1, "cut")
    push(settings)
    hub.fail("POST", "/commit/", 1, 403)
    with pytest.raises(HubError) as caught:
        push(settings, FILES | {"config.json": b"{}"}, replace=True)
    sent = dict(zip(hub.requests, hub.tokens, strict=True))
    assert {token for request, token in sent.items() if "/storage/" in request} == {""}
    assert {token for request, token in sent.items() if "/storage/" not in request} == {TOKEN}
    captured = capfd.readouterr()
    assert TOKEN not in "".join(traceback.format_exception(caught.value)) + caplog.text + captured.out + captured.err
    assert captured.out == ""
