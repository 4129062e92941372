"""Files put into a repository of a Hub on this machine by the real client: what changes, what is sent."""

import logging
import os
import resource
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from hub_server import Hub, Person, Repo, commit, names
from pushing import BYTES, CARD, FILES, NAME, SPACE_FILES, TOKEN, WEIGHTS, changes, push, waits

from tl_core.errors import HubError
from tl_core.hub import fetch_model
from tl_core.hub.publishing import Changes, Files, Occupied, Published, begin, look_at, publish
from tl_core.hub.target import Target
from tl_core.settings import Settings

__all__ = ["waits"]  # a fixture


# --- what is sent


def test_a_new_repository_holds_the_files_in_one_commit(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    weights = tmp_path / "trained.safetensors"
    weights.write_bytes(WEIGHTS)
    published = push(settings, FILES | {"model.safetensors": weights})
    repo = hub.repos[NAME]
    assert {name: repo.files[name] for name in FILES} == FILES
    assert repo.messages == ["initial commit", "A model"]
    assert published.url == f"{hub.url}/{NAME}"
    assert published.commit == commit(repo.files)
    assert published.sent_bytes == BYTES
    assert set(published.changes.new) == set(FILES)
    assert set(hub.objects.values()) == {WEIGHTS, FILES["results/matrix.png"]}
    assert not repo.private


def test_what_was_pushed_can_be_fetched(hub: Hub, settings: Settings) -> None:
    published = push(settings)
    fetched = fetch_model(NAME, settings)
    assert fetched.revision == published.commit
    assert (fetched.path / "model.safetensors").read_bytes() == WEIGHTS
    assert names(fetched.path) == {"README.md", "config.json", "model.safetensors"}, "the card, for its licence"


def test_a_private_repository_is_seen_by_its_owner_alone(hub: Hub, settings: Settings) -> None:
    hub.people |= {TOKEN: Person("tester"), "hf_other": Person("other")}
    push(settings, private=True)
    assert hub.repos[NAME].private
    assert changes(settings).is_empty
    assert look_at("model", NAME, FILES, "hf_other", settings) is None
    assert look_at("model", NAME, FILES, None, settings) is None


def test_what_shall_be_private_does_not_go_into_a_public_repository(hub: Hub, settings: Settings) -> None:
    push(settings)
    said = (
        rf"^the model {NAME} exists and is public, and you asked for a private one; nothing was sent; make it private"
    )
    with pytest.raises(HubError, match=said):
        push(settings, FILES | {"config.json": b"{}"}, private=True, replace=True)
    hub.repos[NAME].private = True
    push(settings, private=True)


def test_pushing_the_same_again_sends_nothing_and_makes_no_commit(hub: Hub, settings: Settings) -> None:
    first = push(settings)
    hub.requests.clear()
    again = push(settings)
    assert again.changes.is_empty
    assert again.commit == first.commit
    assert again.sent_bytes == 0
    assert {request.split()[0] for request in hub.requests} == {"GET"}


def test_only_what_changed_is_sent_and_what_is_not_ours_stays(hub: Hub, settings: Settings) -> None:
    push(settings)
    hub.repos[NAME].files |= {"NOTES.md": b"mine"}
    newer = FILES | {"config.json": b"{}", "extra.json": b"[]"}
    found = changes(settings, newer)
    assert found.changed == ("config.json",)
    assert found.new == ("extra.json",)
    assert found.same == ("README.md", "model.safetensors", "results/matrix.png")
    assert found.kept == (".gitattributes", "NOTES.md")
    assert found.bytes_to_send == 4
    hub.received.clear()
    published = push(settings, newer, replace=True)
    assert published.sent_bytes == 4
    assert hub.bytes_of("PUT") == 0
    assert hub.repos[NAME].files["NOTES.md"] == b"mine"
    assert hub.repos[NAME].files["config.json"] == b"{}"


def test_named_files_are_removed_and_ours_are_not(hub: Hub, settings: Settings) -> None:
    push(settings, FILES | {"old.json": b"{}"})
    gone = ("old.json", "config.json", "never-there.json")
    assert changes(settings, remove=gone).removed == ("old.json",)
    published = push(settings, remove=gone, replace=True)
    assert published.changes.removed == ("old.json",)
    assert "old.json" not in hub.repos[NAME].files
    assert "config.json" in hub.repos[NAME].files


def test_nothing_is_overwritten_without_a_word(hub: Hub, settings: Settings) -> None:
    hub.repos[NAME] = Repo({"README.md": b"# Mine", "config.json": FILES["config.json"]})
    before = commit(hub.repos[NAME].files)
    said = (
        rf"^the model {NAME} exists with other content; what would change: model\.safetensors, results/matrix\.png "
        r"added; README\.md replaced; nothing was sent; allow it with --replace, or take another name$"
    )
    with pytest.raises(HubError, match=said):
        push(settings)
    assert commit(hub.repos[NAME].files) == before
    assert not [request for request in hub.requests if not request.startswith("GET")]
    push(settings, replace=True)
    assert hub.repos[NAME].files["README.md"] == CARD


def test_a_word_for_one_commit_allows_nothing_at_another(hub: Hub, settings: Settings) -> None:
    hub.repos[NAME] = Repo({"README.md": b"mine"})
    seen = changes(settings).commit
    hub.repos[NAME].put("quicker", {"README.md": b"theirs"})
    with pytest.raises(Occupied):
        push(settings, replace=seen)
    assert hub.repos[NAME].files == {"README.md": b"theirs"}
    push(settings, replace=changes(settings).commit)
    assert hub.repos[NAME].files["README.md"] == CARD


def test_looking_asks_and_changes_nothing(hub: Hub, settings: Settings) -> None:
    assert look_at("model", NAME, FILES, TOKEN, settings) is None
    hub.repos[NAME] = Repo(dict(FILES))
    assert changes(settings) == Changes(same=tuple(sorted(FILES)))
    assert not [request for request in hub.requests if not request.startswith("GET")]
    assert not hub.asked("resolve")


def test_progress_counts_every_byte_once_and_ends_with_all(hub: Hub, settings: Settings, waits: list[float]) -> None:
    hub.fail("PUT", "/storage/", 2, 500)
    told: list[tuple[int, int]] = []
    push(settings, ticker=lambda done, total: told.append((done, total)))
    assert told[0] == (0, BYTES)
    assert told[-1] == (BYTES, BYTES)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) > 6  # the weights in pieces, not at once


def test_whoever_watches_the_progress_can_stop_it(hub: Hub, settings: Settings) -> None:
    class Enough(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done > len(WEIGHTS) // 2:
            raise Enough

    with pytest.raises(Enough):
        push(settings, ticker=stop)
    assert hub.repos[NAME].files.keys() == {".gitattributes"}
    push(settings)


@pytest.mark.parametrize("failure", [OSError("the terminal is gone"), ValueError("no number")])
def test_a_fault_of_whoever_watches_is_theirs_and_not_the_files(
    hub: Hub, settings: Settings, failure: Exception
) -> None:
    def fail(done: int, total: int) -> None:
        if done:
            raise failure

    with pytest.raises(type(failure), match=str(failure)):
        push(settings, ticker=fail)


def test_a_large_file_can_go_in_parts(hub: Hub, settings: Settings) -> None:
    hub.part_bytes = 100_000
    push(settings)
    assert hub.objects.keys() and WEIGHTS in hub.objects.values()
    assert len(hub.asked("/complete")) == 1
    assert hub.repos[NAME].files["model.safetensors"] == WEIGHTS


def test_xet_is_not_asked_for_where_it_is_installed(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", False)
    caplog.set_level(logging.WARNING)
    push(settings)
    assert not hub.asked("xet")
    assert hub.repos[NAME].files["model.safetensors"] == WEIGHTS
    assert caplog.text == ""


def test_a_file_that_cannot_be_read_is_said_before_anything_is_sent(
    hub: Hub, settings: Settings, tmp_path: Path
) -> None:
    with pytest.raises(HubError, match=r"gone\.json cannot be read .*; nothing was sent; check the file"):
        push(settings, FILES | {"gone.json": tmp_path / "gone.json"})


# --- Spaces


def space(settings: Settings, files: Files = SPACE_FILES, **options: Any) -> Published:
    return publish("space", "tester/demo", files, TOKEN, settings, message="An app", **options)


def test_a_space_replaces_the_card_that_the_hub_wrote_itself(hub: Hub, settings: Settings) -> None:
    published = space(settings)
    assert published.url == f"{hub.url}/spaces/tester/demo"
    repo = hub.repos["spaces/tester/demo"]
    assert repo.sdk == "gradio"
    assert repo.files["README.md"] == SPACE_FILES["README.md"]
    assert space(settings).changes.is_empty
    with pytest.raises(HubError, match=r"^the Space tester/demo exists with other content; .*: app\.py replaced"):
        space(settings, SPACE_FILES | {"app.py": b"other"})


def test_a_first_push_of_a_space_that_failed_goes_on(hub: Hub, settings: Settings) -> None:
    hub.fail("POST", "/commit/", 1, 500)
    with pytest.raises(
        HubError, match=r"the Space tester/demo was created and is empty, and what arrived whole is kept"
    ):
        space(settings)
    found = look_at("space", "tester/demo", SPACE_FILES, TOKEN, settings)
    assert found is not None and not found.needs_replace
    space(settings)
    assert hub.repos["spaces/tester/demo"].files["app.py"] == SPACE_FILES["app.py"]


def test_a_space_that_was_only_begun_is_filled(hub: Hub, settings: Settings) -> None:
    begin("space", "tester/demo", TOKEN, settings, private=True)
    published = space(settings)
    assert published.private and hub.repos["spaces/tester/demo"].files["app.py"] == SPACE_FILES["app.py"]


def test_after_a_commit_of_ours_a_repository_may_be_changed_and_after_another_not(hub: Hub, settings: Settings) -> None:
    ours: dict[str, Any] = {"ours": ("An app",)}
    space(settings)
    newer = SPACE_FILES | {"app.py": b"newer"}
    space(settings, newer, **ours)
    hub.repos["spaces/tester/demo"].put("Update app.py", {"app.py": b"theirs"})
    with pytest.raises(Occupied, match=r"app\.py replaced; nothing was sent"):
        space(settings, newer, **ours)
    space(settings, newer, **ours, replace=True)
    space(settings, SPACE_FILES, **ours)


# --- what must not be believed


def test_what_a_gitignore_would_keep_out_is_said_before_anything_is_sent(hub: Hub, settings: Settings) -> None:
    hub.repos[NAME] = Repo({".gitignore": b"*.safetensors\nresults/\n"})
    said = rf"^the \.gitignore of the model {NAME} keeps out model\.safetensors, results/matrix\.png; nothing was sent"
    with pytest.raises(HubError, match=said):
        push(settings, replace=True)
    with pytest.raises(HubError, match=said):
        look(settings)
    assert set(hub.repos[NAME].files) == {".gitignore"}
    assert hub.bytes_of("PUT") == 0
    hub.repos[NAME].files = {".gitignore": b"*.log\n"}
    push(settings, replace=True)
    assert set(FILES) <= set(hub.repos[NAME].files)


def look(settings: Settings, **options: Any) -> Changes | None:
    return look_at("model", NAME, FILES, TOKEN, settings, **options)


def test_a_repository_that_has_got_another_name_is_not_changed_by_the_old_one(hub: Hub, settings: Settings) -> None:
    hub.repos["tester/trees"] = Repo({"README.md": b"mine"})
    hub.moved[NAME] = "tester/trees"
    with pytest.raises(
        HubError, match=rf"^the model {NAME} is called tester/trees now; nothing was sent; say that name"
    ):
        push(settings, replace=True)
    with pytest.raises(HubError, match="is called tester/trees now"):
        look(settings)
    assert hub.repos["tester/trees"].files == {"README.md": b"mine"}


def test_what_was_published_is_as_private_as_it_is_and_not_as_was_asked(hub: Hub, settings: Settings) -> None:
    hub.repos[NAME] = Repo({".gitattributes": b"x"}, private=True)
    assert push(settings, private=False).private


def test_a_repository_that_may_be_seen_and_not_written_to_is_found_by_looking(hub: Hub, settings: Settings) -> None:
    hub.people[TOKEN] = Person("tester", role="oauth")
    hub.repos[NAME] = Repo({"README.md": b"mine"})
    with pytest.raises(HubError, match=rf"^the model {NAME} exists, and this access token may not write to it"):
        look(settings)
    push(settings, name="tester/new")
    newer = FILES | {"config.json": b"{}"}
    assert look_at("model", "tester/new", newer, TOKEN, settings) is not None
    hub.fail("GET", "auth-check", 1, 404)
    assert look_at("model", "tester/new", newer, TOKEN, settings) is not None  # a Hub that does not know the question


def test_a_repository_with_more_files_than_a_page_is_seen_whole(hub: Hub, settings: Settings) -> None:
    hub.page = 2
    push(settings)
    assert push(settings).changes.is_empty


def test_files_are_not_all_held_open_at_once(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    files: dict[str, Any] = {}
    for number in range(150):
        files[f"{number}.txt"] = tmp_path / f"{number}.txt"
        files[f"{number}.txt"].write_text(str(number))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, hard))
    try:
        push(settings, files)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert hub.repos[NAME].files["149.txt"] == b"149"


def test_a_target_does_not_print_its_token() -> None:
    assert TOKEN not in repr(Target("model", NAME, TOKEN))
