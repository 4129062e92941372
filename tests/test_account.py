"""Whose token it is and where it may write: the real client against a Hub on this machine."""

import traceback
from time import sleep

import pytest
from hub_server import CLOSED, Hub, Person, UseHub
from patience import PATIENCE

from tl_core.errors import HubError
from tl_core.hub import repository
from tl_core.hub.account import Account, account_of, check_may_create, sound_token, token_at_hand
from tl_core.settings import Settings

TOKEN = "hf_aBcDeFgHiJ"
ROLES = {"admins": "admin", "writers": "write", "helpers": "contributor", "readers": "read"}


def with_token(hub: Hub, settings: Settings, person: Person) -> Account:
    hub.people[TOKEN] = person
    return account_of(TOKEN, settings)


def test_an_account_names_the_person_and_the_organisations_that_may_be_written_to(hub: Hub, settings: Settings) -> None:
    account = with_token(hub, settings, Person("ada", ROLES))
    assert account == Account("ada", ("admins", "writers", "helpers"), may_write=True)
    assert account.owners == ("ada", "admins", "writers", "helpers")
    assert hub.requests == ["GET /api/whoami-v2"]
    assert hub.tokens == [TOKEN]


def test_a_token_that_only_reads_may_create_nothing(hub: Hub, settings: Settings) -> None:
    account = with_token(hub, settings, Person("ada", ROLES, role="read"))
    assert account.may_write is False
    assert account.owners == ()
    said = rf"^this access token of ada may not write to ada/cats; make one with the role write at {hub.url}/settings"
    with pytest.raises(HubError, match=said):
        check_may_create(account, "ada/cats")


def test_a_token_of_a_sign_in_leaves_open_what_it_may_do(hub: Hub, settings: Settings) -> None:
    account = with_token(hub, settings, Person("ada", ROLES, role="oauth"))
    assert account.may_write is None
    check_may_create(account, "ada/cats")
    check_may_create(account, "helpers/cats")


def test_a_fine_grained_token_may_what_it_names(hub: Hub, settings: Settings) -> None:
    own = with_token(hub, settings, Person("ada", ROLES, "fineGrained", ("ada", "writers", "readers")))
    assert own.owners == ("ada", "writers")
    assert own.may_write is True
    other = with_token(hub, settings, Person("ada", ROLES, "fineGrained", ("admins", "ada/cats")))
    assert other.owners == ("admins",)
    check_may_create(other, "ada/cats")
    with pytest.raises(HubError, match="may not create repositories for 'ada'; allowed: admins; take one of these"):
        check_may_create(other, "ada/dogs")
    single = with_token(hub, settings, Person("ada", ROLES, "fineGrained", ("ada/cats",)))
    with pytest.raises(HubError, match=r"may not write to ada/dogs \(only to the model ada/cats\); make one"):
        check_may_create(single, "ada/dogs")
    nothing = with_token(hub, settings, Person("ada", ROLES, "fineGrained"))
    assert nothing.may_write is False


def test_a_grant_for_one_repository_writes_to_it_and_creates_nothing(hub: Hub, settings: Settings) -> None:
    account = with_token(hub, settings, Person("ada", {}, "fineGrained", ("ada/cats", "spaces/ada/dogs")))
    assert account.repositories == (("model", "ada/cats"), ("space", "ada/dogs"))
    check_may_create(account, "ada/cats", kind="model", there=True)
    with pytest.raises(HubError, match=rf"ada/cats and not create it, .*; create it at {hub.url}/new, or use a token"):
        check_may_create(account, "ada/cats", kind="model", there=False)
    with pytest.raises(HubError, match=r"may not write to ada/cats \(only to the model ada/cats, the space ada/dogs\)"):
        check_may_create(account, "ada/cats", kind="space", there=True)


def test_a_hub_that_has_answered_may_take_its_time(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An address may have been another test's Hub within the last minute.
    monkeypatch.setattr(repository, "_answered", {})
    monkeypatch.setattr(repository, "FIRST_ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(repository, "LATER_ANSWER_SECONDS", PATIENCE)
    hub.people[TOKEN] = Person("ada")
    hub.fail("GET", "whoami", 1, "silent")
    with pytest.raises(repository.Unreachable, match="cannot be reached for your account"):
        account_of(TOKEN, settings)
    hub.awake.set()
    monkeypatch.setattr(repository, "FIRST_ANSWER_SECONDS", PATIENCE)
    assert account_of(TOKEN, settings).name == "ada"
    monkeypatch.setattr(repository, "FIRST_ANSWER_SECONDS", 0.3)
    hub.fail("GET", "whoami", 1, lambda: sleep(1))
    assert account_of(TOKEN, settings).name == "ada"


def test_a_foreign_owner_is_refused_with_the_allowed_ones() -> None:
    account = Account("ada", ("writers",), may_write=True)
    check_may_create(account, "writers/cats")
    with pytest.raises(
        HubError, match="create repositories for 'google'; allowed: ada, writers; take one of these names"
    ):
        check_may_create(account, "google/cats")


@pytest.mark.parametrize(
    "name", ["", "cats", "ada/", "ada/ca ts", "ada/cats.git", "ada/a--b", "ada/" + "x" * 97, "a/b/c"]
)
def test_what_cannot_be_a_name_is_refused_with_the_rule(name: str) -> None:
    said = r"cannot be a repository's name; it must be owner/name, .* of letters, digits, .* at most 96"
    with pytest.raises(HubError, match=said):
        check_may_create(Account("ada"), name)


@pytest.mark.parametrize("role", ["write", "oauth"])
def test_a_wrong_or_expired_token_is_said(hub: Hub, settings: Settings, role: str) -> None:
    hub.people["hf_another"] = Person("ada", role=role)
    said = (
        r"does not accept this access token for your account \(status 401: Invalid credentials.*\): wrong, expired or"
    )
    with pytest.raises(HubError, match=said) as caught:
        account_of(TOKEN, settings)
    assert f"make one with the role write at {hub.url}/settings/tokens, or sign in again" in caught.value.message


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (403, "does not let this access token do that with your account"),
        (429, "had too many requests for your account .*; nothing was sent; wait 40 seconds and try again"),
        (500, "failed at your account .*; nothing was sent; try again later"),
        ("cut", "the connection to http.* broke while your account was being sent"),
    ],
)
def test_every_other_refusal_is_one_sentence(hub: Hub, settings: Settings, kind: int | str, said: str) -> None:
    hub.fail("GET", "whoami", 9, kind, retry_after=40 if kind == 429 else None)
    with pytest.raises(HubError, match=said):
        account_of(TOKEN, settings)
    assert len(hub.requests) == 1


def test_no_network_and_a_forbidden_hub_are_said(use_hub: UseHub, settings: Settings, offline: Settings) -> None:
    use_hub(CLOSED)
    with pytest.raises(repository.Unreachable, match=f"^{CLOSED} cannot be reached for your account; nothing was sent"):
        account_of(TOKEN, settings)
    with pytest.raises(
        repository.Unreachable, match="HF_HUB_OFFLINE forbids asking the Hub, so your account cannot be"
    ):
        account_of(TOKEN, offline)


@pytest.mark.parametrize("answer", [b"<html>Welcome</html>", b"[]", b"{}", b'{"name": 1}'])
def test_a_log_in_page_is_not_taken_for_an_account(hub: Hub, settings: Settings, answer: bytes) -> None:
    hub.bodies["/api/whoami-v2"] = answer
    with pytest.raises(HubError, match=r"is not the Hub, or it is in trouble .* check the connection and HF_ENDPOINT"):
        account_of(TOKEN, settings)


# --- tokens


@pytest.mark.parametrize("token", [None, "", " \n"])
def test_no_token_is_said_without_a_question(hub: Hub, settings: Settings, token: str | None) -> None:
    with pytest.raises(
        HubError, match="there is no access token for the Hub; log in with `hf auth login`, set HF_TOKEN"
    ):
        account_of(token, settings)
    assert hub.requests == []


@pytest.mark.parametrize("token", ["hf_se cret", "hf_se\ncret", "hf_secret\N{EN DASH}", "hf_sécret"])
def test_what_cannot_be_a_token_is_said_and_not_repeated(hub: Hub, settings: Settings, token: str) -> None:
    with pytest.raises(HubError, match="holds a blank, a line break or a letter that no token has") as caught:
        account_of(token, settings)
    assert "hf_s" not in "".join(traceback.format_exception(caught.value))
    assert hub.requests == []


def test_blanks_around_a_token_do_not_matter(hub: Hub) -> None:
    assert sound_token(f" {TOKEN}\n") == TOKEN


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_a_token_that_a_server_repeats_is_not_told(hub: Hub, settings: Settings, status: int) -> None:
    hub.fail("GET", "whoami", 1, status, says="who is TOKEN, that TOKEN of yours?")
    with pytest.raises(HubError, match=r"who is ….*that … of yours") as caught:
        account_of(TOKEN, settings)
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value) + repr(caught.value.details)
    assert TOKEN not in told


def test_the_token_at_hand_is_that_of_the_computer_and_not_for_visitors(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert token_at_hand() is None
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert token_at_hand() == TOKEN
    monkeypatch.setenv("TL_SHARED", "1")
    assert token_at_hand() is None
