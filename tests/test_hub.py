"""Models of the Hub: the real client against a Hub on this machine, and against no Hub at all; what an id is."""

import json
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import pytest
from hub_server import CLOSED, Hub, Repo, UseHub, commit, names
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from tl_core.errors import ConfigError, DataError, HubError, ModelError, TLError
from tl_core.hub import fetch_dataset, fetch_model, is_hub_id, repository
from tl_core.settings import Settings

CONFIG = json.dumps({"model_type": "resnet"}).encode()
WEIGHTS = b"\x02\0\0\0\0\0\0\0{}"
PLAIN = {
    "config.json": CONFIG,
    "preprocessor_config.json": b"{}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickle",
    "onnx/model.safetensors": b"another",
    "README.md": b"# A model",
}
SHARDED = {
    "config.json": CONFIG,
    "model.safetensors.index.json": json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    ).encode(),
    "model-00001-of-00002.safetensors": WEIGHTS,
    "model-00002-of-00002.safetensors": WEIGHTS,
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def hub(hub: Hub) -> Hub:
    hub.repos |= {"owner/plain": Repo(PLAIN), "owner/sharded": Repo(SHARDED), "canonical": Repo(PLAIN)}
    return hub


@contextmanager
def answering(words: bytes) -> Iterator[tuple[str, list[int]]]:
    """A server that says `words` to whoever connects and hangs up; its address, and one entry for each who came."""
    connections: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.append(1)
                with connection:
                    connection.recv(65536)
                    connection.sendall(words)

        thread = Thread(target=answer, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", connections
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


# --- models


def test_a_model_comes_with_what_it_needs_and_nothing_else_pinned_to_its_commit(hub: Hub, settings: Settings) -> None:
    model = fetch_model("owner/plain", settings)
    assert names(model.path) == {"README.md", "config.json", "preprocessor_config.json", "model.safetensors"}
    assert (model.path / "model.safetensors").read_bytes() == WEIGHTS
    assert model.revision == commit(PLAIN)
    assert model.id == "owner/plain"


def test_sharded_weights_come_whole(hub: Hub, settings: Settings) -> None:
    assert names(fetch_model("owner/sharded", settings).path) == set(SHARDED)


def test_a_name_without_an_owner_is_an_id_too(hub: Hub, settings: Settings) -> None:
    assert fetch_model("canonical", settings).revision == commit(PLAIN)


def test_weights_can_be_left_out(hub: Hub, settings: Settings) -> None:
    model = fetch_model("owner/plain", settings, weights=False)
    assert names(model.path) == {"README.md", "config.json", "preprocessor_config.json"}
    # and a folder without weights does not pass for a whole model later
    assert "model.safetensors" in names(fetch_model("owner/plain", settings).path)


def test_a_branch_and_a_commit_can_be_asked_for(hub: Hub, settings: Settings) -> None:
    older = PLAIN | {"model.safetensors": WEIGHTS + b" "}
    hub.repos["owner/plain"].branches["refs/pr/1"] = older
    assert fetch_model("owner/plain", settings, "refs/pr/1").revision == commit(older)
    fetched = fetch_model("owner/plain", settings, commit(PLAIN))
    assert fetched.revision == commit(PLAIN)
    assert (fetched.path / "model.safetensors").read_bytes() == WEIGHTS


def test_a_commit_in_the_cache_is_not_asked_for_again(hub: Hub, settings: Settings) -> None:
    fetch_model("owner/plain", settings)
    hub.requests.clear()
    assert fetch_model("owner/plain", settings, commit(PLAIN)).revision == commit(PLAIN)
    assert hub.requests == []


def test_a_new_commit_is_noticed(hub: Hub, settings: Settings) -> None:
    fetch_model("owner/plain", settings)
    newer = PLAIN | {"model.safetensors": WEIGHTS + b"  "}
    hub.repos["owner/plain"].files = newer
    assert fetch_model("owner/plain", settings).revision == commit(newer)


def test_the_architecture_can_be_refused_before_any_weight_is_fetched(hub: Hub, settings: Settings) -> None:
    def refuse(config: dict[str, object]) -> None:
        raise ModelError(f"{config['model_type']} does not classify images")

    with pytest.raises(ModelError, match="resnet does not classify images"):
        fetch_model("owner/plain", settings, accept=refuse)
    assert not [line for line in hub.requests if line.endswith("safetensors")]
    fetch_model("owner/plain", settings)
    with pytest.raises(ModelError, match="resnet does not classify images"):  # from the cache just the same
        fetch_model("owner/plain", settings, commit(PLAIN), accept=refuse)


def test_a_timm_repository_is_a_model(hub: Hub, settings: Settings) -> None:
    config = json.dumps({"architecture": "vgg11", "num_classes": 10, "pretrained_cfg": {}}).encode()
    hub.repos["timm/vgg"] = Repo({"config.json": config, "model.safetensors": WEIGHTS})
    assert names(fetch_model("timm/vgg", settings).path) == {"config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"config.json": CONFIG, "pytorch_model.bin": b"p"}, r"no safetensors weights, only pytorch_model\.bin.*conv"),
        ({"config.json": CONFIG, "unet/model.safetensors": WEIGHTS}, "holds no weights"),
        ({"model.safetensors": WEIGHTS}, r"no config\.json"),
        ({"config.json": b"{", "model.safetensors": WEIGHTS}, r"config\.json of owner/odd is not valid JSON"),
        ({"config.json": b"{}", "model.safetensors": WEIGHTS}, "names no architecture"),
    ],
)
def test_what_is_no_model_is_refused_before_weights_are_fetched(
    hub: Hub, settings: Settings, files: dict[str, bytes], said: str
) -> None:
    hub.repos["owner/odd"] = Repo(files)
    with pytest.raises(ModelError, match=said):
        fetch_model("owner/odd", settings)
    assert not [line for line in hub.requests if "resolve" in line and not line.endswith("config.json")]


# --- refusals


def test_an_unknown_id_is_said_after_one_question(hub: Hub, settings: Settings) -> None:
    with pytest.raises(HubError, match=r"the model owner/nothing is unknown at http://127\..* or private; check"):
        fetch_model("owner/nothing", settings)
    assert len(hub.requests) == 1


def test_a_misspelt_id_of_the_catalogue_is_named(hub: Hub, settings: Settings) -> None:
    with pytest.raises(HubError, match=r"did you mean microsoft/resnet-50\?"):
        fetch_model("microsoft/resnet50", settings)


def test_an_unknown_revision_is_said(hub: Hub, settings: Settings) -> None:
    with pytest.raises(HubError, match="the model owner/plain has no revision 'v9'"):
        fetch_model("owner/plain", settings, "v9")


@pytest.mark.parametrize("token", [None, "hf_stranger"])
def test_a_gated_model_says_where_to_accept_its_terms(
    hub: Hub, settings: Settings, monkeypatch: pytest.MonkeyPatch, token: str | None
) -> None:
    hub.repos["owner/gated"] = Repo(PLAIN, gated=True, readers=frozenset({"hf_member"}))
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(HubError, match=f"gated: accept its terms at {hub.url}/owner/gated and log in"):
        fetch_model("owner/gated", settings)


@pytest.mark.parametrize("closed", [{"gated": True}, {"private": True}])
def test_a_token_opens_a_closed_model_and_is_never_told(
    hub: Hub,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    closed: dict[str, bool],
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.repos["owner/closed"] = Repo(PLAIN, readers=frozenset({"hf_member"}), **closed)  # type: ignore[arg-type]
    with pytest.raises(HubError):
        fetch_model("owner/closed", settings)
    monkeypatch.setenv("HF_TOKEN", "hf_member")
    assert fetch_model("owner/closed", settings).revision == commit(PLAIN)
    captured = capfd.readouterr()
    assert "hf_member" not in caplog.text + captured.out + captured.err
    assert captured.out == ""


def test_trouble_at_the_hub_is_said_after_one_question_and_the_cache_stands_in(
    hub: Hub, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    hub.repos["owner/plain"].status = 503
    with pytest.raises(HubError, match=r"answered with an error for the model owner/plain \(status 503\)"):
        fetch_model("owner/plain", settings)
    assert len(hub.requests) == 1
    hub.repos["owner/plain"].status = None
    fetch_model("owner/plain", settings)
    hub.repos["owner/plain"].status = 503
    assert fetch_model("owner/plain", settings).revision == commit(PLAIN)
    assert "using the copy of owner/plain downloaded earlier" in caplog.text


def test_of_a_copy_that_stands_in_it_is_not_said_that_there_is_none(
    hub: Hub, settings: Settings, use_hub: UseHub, caplog: pytest.LogCaptureFixture
) -> None:
    fetch_model("owner/plain", settings)
    use_hub(CLOSED)
    assert fetch_model("owner/plain", settings).revision == commit(PLAIN)
    assert caplog.messages[-1] == f"{CLOSED} cannot be reached; using the copy of owner/plain downloaded earlier"


def test_a_cache_that_cannot_be_written_is_said(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "hf").write_text("a file where the cache should be")
    with pytest.raises(HubError, match=r"the model owner/plain cannot be stored .*make room, or set HF_HOME"):
        fetch_model("owner/plain", settings)


def test_a_download_cut_short_is_not_taken_for_a_whole_one(hub: Hub, settings: Settings, offline: Settings) -> None:
    fetch_model("owner/sharded", settings, accept=lambda config: None)
    (fetch_model("owner/sharded", settings).path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(HubError, match="not on this machine"):
        fetch_model("owner/sharded", offline)


# --- no Hub


def test_without_a_network_an_unknown_id_is_said_at_once(use_hub: UseHub, settings: Settings) -> None:
    use_hub(CLOSED)  # a wait before a retry would fail in use_hub
    with pytest.raises(HubError, match=f"^{CLOSED} cannot be reached and the model owner/plain is not") as caught:
        fetch_model("owner/plain", settings)
    assert len(caught.value.details) == 1
    with pytest.raises(HubError, match="cannot be reached and the dataset owner/leaves is not on this machine"):
        fetch_dataset("owner/leaves", settings)


def test_a_line_that_breaks_is_tried_once(use_hub: UseHub, settings: Settings) -> None:
    with answering(b"") as (url, connections):
        use_hub(url)
        with pytest.raises(HubError, match="cannot be reached"):
            fetch_model("owner/plain", settings)
    assert len(connections) == 1


@pytest.mark.parametrize("page", [b"<html>Welcome to our network</html>", b'{"welcome": 1}'])
def test_a_log_in_page_is_not_taken_for_the_hub(use_hub: UseHub, settings: Settings, page: bytes) -> None:
    with answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + page) as (url, connections):
        use_hub(url)
        with pytest.raises(HubError, match=r"what answers at .* is not the Hub .*; check the connection"):
            fetch_model("owner/plain", settings)
    assert len(connections) == 1


def test_a_silent_line_is_given_up(use_hub: UseHub, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repository, "FIRST_ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:  # accepts, and never says a word
        use_hub(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(HubError, match="cannot be reached"):
            fetch_model("owner/plain", settings)


def test_a_question_that_cannot_be_interrupted_is_left_behind() -> None:
    asked = Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 seconds"):
        repository.answer_within(0.05, asked.wait)
    asked.set()


def test_an_address_of_the_hub_that_is_none_is_said(use_hub: UseHub, settings: Settings) -> None:
    use_hub("huggingface.co")
    with pytest.raises(ConfigError, match=r"HF_ENDPOINT is 'huggingface\.co'; it must begin with https://"):
        fetch_model("owner/plain", settings)


def test_a_cached_model_works_without_a_network_and_with_the_hub_forbidden(
    hub: Hub, use_hub: UseHub, settings: Settings, offline: Settings
) -> None:
    fetched = fetch_model("owner/plain", settings)
    hub.requests.clear()
    assert fetch_model("owner/plain", offline) == fetched
    assert hub.requests == []
    use_hub(CLOSED)
    assert fetch_model("owner/plain", settings) == fetched


def test_with_the_hub_forbidden_an_unknown_id_is_said_without_a_question(hub: Hub, offline: Settings) -> None:
    for fetch in (fetch_model, fetch_dataset):
        with pytest.raises(HubError, match="is not on this machine and HF_HUB_OFFLINE forbids asking the Hub"):
            fetch("owner/plain", offline)
    assert hub.requests == []


@pytest.mark.parametrize("index", [b"{}", b"[]", b"{", b'{"weight_map": []}', b'{"weight_map": {}}'])
def test_a_damaged_index_in_the_cache_counts_as_not_kept(
    hub: Hub, settings: Settings, offline: Settings, index: bytes
) -> None:
    kept = fetch_model("owner/sharded", settings).path / "model.safetensors.index.json"
    kept.resolve().write_bytes(index)
    with pytest.raises(HubError, match="not on this machine"):
        fetch_model("owner/sharded", offline)


def test_a_pickle_that_another_program_left_in_the_cache_is_called_one(
    hub: Hub, settings: Settings, offline: Settings
) -> None:
    folder = fetch_model("owner/plain", settings).path
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelError, match=r"no safetensors weights, only pytorch_model\.bin"):
        fetch_model("owner/plain", offline)


# --- ids


@pytest.mark.parametrize(
    "text",
    [
        "google/vit-base-patch16-224", "timm/vgg16_bn.tv_in1k", "resnet", "a", "a/b", "A_b-c.d/9", "_x/y_", "x" * 96,
        "x" * 97, "", "/a", "a/", "a/b/c", ".a", "a.", "-a/b", "a/b-", "a--b", "a..b", "a/b.git", "a b", "é/b", "./a",
        "../a", "~/a", "C:\\a", "a\n", "o/" + "x" * 97,
    ],
)  # fmt: skip
def test_an_id_is_what_the_hub_client_accepts(text: str) -> None:
    try:
        validate_repo_id(text)
        accepted = True
    except HFValidationError:
        accepted = False
    assert is_hub_id(text) is accepted


def test_what_cannot_be_an_id_is_said(settings: Settings) -> None:
    cases: list[tuple[Callable[..., object], type[TLError]]] = [(fetch_model, ModelError), (fetch_dataset, DataError)]
    for fetch, error in cases:
        with pytest.raises(error, match=r"'a/b/c' cannot be a .* on the Hub: an id looks like owner/name"):
            fetch("a/b/c", settings)
