"""A run is published: what goes out and what does not, the whole way there and back, and every way to fail."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hub_faults import FAULTS
from hub_server import CLOSED, Hub, Person, Repo, UseHub
from hub_state import contents_of
from huggingface_hub import ModelCard

from tl_core import api
from tl_core.config import TrainConfig
from tl_core.errors import HubError, JobError
from tl_core.files import write_json
from tl_core.hub import fetch_model
from tl_core.runs import Run, create_run
from tl_core.settings import Settings
from tl_core.sharing import check_push, files_of, published, push_run, rehearse

TOKEN = "hf_AbCdEfGhIjKlMnOpQrStUvWxYz"
NAME = "me/tomatoes"
DEMO = "spaces/me/tomatoes-demo"


@pytest.fixture
def mine(hub: Hub) -> Hub:
    """A Hub that knows the token."""
    hub.people[TOKEN] = Person("me", {"garden": "write", "museum": "read"})
    return hub


def push(run: Run, settings: Settings, **options: Any) -> dict[str, Any]:
    return push_run(run, NAME, TOKEN, settings, **options)


def content_of(run: Run) -> dict[str, bytes]:
    return contents_of(files_of(run, NAME))


def ask(model: str, image: Path, **environment: str) -> dict[str, float]:
    """Probabilities from plain transformers, in a process of its own that knows nothing of this project."""
    code = (
        "import json, sys; from transformers import AutoImageProcessor, AutoModelForImageClassification; "
        "from PIL import Image; import torch; name = sys.argv[1]; "
        "processor = AutoImageProcessor.from_pretrained(name); "
        "model = AutoModelForImageClassification.from_pretrained(name).eval(); "
        "inputs = processor(Image.open(sys.argv[2]).convert('RGB'), return_tensors='pt'); "
        "row = model(**inputs).logits.softmax(-1)[0].tolist(); "
        "print(json.dumps({model.config.id2label[i]: value for i, value in enumerate(row)}))"
    )
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, model, str(image)],
        **{"capture_output": True, "text": True, "check": True, "cwd": image.parent, "env": environment},
    )
    return json.loads(answer.stdout)


# What goes out


def test_everything_that_a_model_needs_is_published(run: Run) -> None:
    content = content_of(run)
    model = {file.name for file in run.model_dir.iterdir()}
    assert model | {"report.json", "results/confusion-matrix.png", "results/recall-by-class.png"} == set(content)
    assert {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "training_config.json",
    } <= model
    card = ModelCard(content["README.md"].decode())
    assert card.data.pipeline_tag == "image-classification"
    assert NAME in card.text
    assert "results/confusion-matrix.png" in card.text and "results/recall-by-class.png" in card.text
    assert json.loads(content["report.json"])["metrics"] == (run.report() or {})["metrics"]


def test_a_rehearsal_tells_files_and_bytes_with_neither_token_nor_network(
    run: Run, use_hub: UseHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub(CLOSED)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    planned = rehearse(run, NAME, space=True)
    assert {row["path"]: row["bytes"] for row in planned["files"]} == {
        path: len(content) for path, content in content_of(run).items()
    }
    assert planned["bytes"] == sum(row["bytes"] for row in planned["files"])
    assert planned["url"] == f"{CLOSED}/{NAME}"
    assert planned["space"]["url"] == f"{CLOSED}/{DEMO}"
    assert {"app.py", "README.md", "requirements.txt"} <= {row["path"] for row in planned["space"]["files"]}
    assert published(run) == []


@pytest.mark.parametrize("name", ["tomatoes", "a/b/c", "me/", "me/-x", "me/a--b", "me/" + "x" * 97, "", "me/päonie"])
def test_a_name_that_cannot_be_is_said_before_anything_else(run: Run, name: str) -> None:
    with pytest.raises(HubError, match="owner/name"):
        rehearse(run, name)


def test_a_name_that_leaves_no_room_for_the_demo_is_said(run: Run) -> None:
    long = "me/" + "x" * 92
    assert rehearse(run, long)["repo_id"] == long
    with pytest.raises(HubError, match="-demo"):
        rehearse(run, long, space=True)


def test_a_run_without_a_model_is_not_published(settings: Settings) -> None:
    run = create_run(TrainConfig.parse({"data": "x"}), settings)
    with pytest.raises(JobError, match="queued and has no model to publish"):
        files_of(run, NAME)


def test_a_run_that_works_is_not_published(run: Run) -> None:
    (run.dir / "status.json").unlink()
    with run.hold():
        run.claim(1)
        with pytest.raises(JobError, match="push it once it has ended"):
            api.push(run.id, NAME, dry_run=True)


# There and back


@pytest.mark.slow
def test_who_has_only_the_name_gets_the_same_probabilities(
    run: Run, mine: Hub, settings: Settings, trained: tuple[Path, str], tmp_path: Path
) -> None:
    image = tmp_path / "image.png"
    shutil.copy(Path((run.report() or {})["predictions"][0]["path"]), image)
    labels = api.predict(run.id, [image])["predictions"][0]["labels"]
    ours = {entry["label"]: entry["score"] for entry in labels}
    ticks: list[tuple[str, int, int]] = []
    answer = push(run, settings, space=True, ticker=lambda *tick: ticks.append(tick))
    assert answer["url"] == f"{mine.url}/{NAME}"
    size = sum(row["bytes"] for row in answer["files"])
    model, demo = ([tick for tick in ticks if kind in tick[0]] for kind in ("model", "space"))
    assert model == sorted(model) and model[-1][1:] == (size, size)
    assert answer["bytes"] == size + demo[-1][1]

    shutil.rmtree(settings.home)
    environment = {"HF_ENDPOINT": mine.url, "HF_HOME": str(tmp_path / "theirs"), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    assert ask(NAME, image, **environment) == pytest.approx(ours, abs=1e-5)


def test_what_was_published_opens_here_by_its_name(run: Run, mine: Hub, settings: Settings) -> None:
    commit = push(run, settings)["commit"]
    fetched = fetch_model(NAME, settings)
    assert fetched.revision == commit
    weights = (run.model_dir / "model.safetensors").read_bytes()
    assert (fetched.path / "model.safetensors").read_bytes() == weights


def test_what_was_published_is_remembered(run: Run, mine: Hub, settings: Settings) -> None:
    answer = push(run, settings, private=True, space=True)
    first, second = published(run)
    assert first | {"at": ""} == {
        **{"repo_id": NAME, "kind": "model", "url": f"{mine.url}/{NAME}", "commit": answer["commit"]},
        **{"at": "", "private": True},
    }
    assert (second["kind"], second["url"]) == ("space", answer["space_url"])
    assert mine.repos[NAME].private and mine.repos[DEMO].private
    assert answer["space_url"] == f"{mine.url}/{DEMO}"


def test_published_again_nothing_is_sent(run: Run, mine: Hub, settings: Settings) -> None:
    first = push(run, settings, space=True)
    before, commits = published(run), [len(repo.history) for repo in mine.repos.values()]
    mine.received.clear()
    again = push(run, settings, space=True)
    assert (again["bytes"], again["commit"]) == (0, first["commit"])
    assert not again["changes"]["new"] and not again["changes"]["changed"]
    assert mine.bytes_of("PUT") == 0
    assert not [request for request, _ in mine.received if "/commit/" in request]
    assert [len(repo.history) for repo in mine.repos.values()] == commits
    assert published(run) == before


def test_a_demo_asks_the_model_whose_figures_it_shows(run: Run, mine: Hub, settings: Settings) -> None:
    commit = push(run, settings, space=True)["commit"]
    facts = json.loads(mine.repos[DEMO].files["figures.json"])
    assert (facts["model"], facts["revision"]) == (NAME, commit)
    assert facts["accuracy"] == (run.report() or {})["metrics"]["accuracy"]


def test_what_somebody_put_there_is_changed_only_with_their_word(run: Run, mine: Hub, settings: Settings) -> None:
    theirs = {
        "README.md": b"mine\n",
        "notes.txt": b"keep\n",
        "pytorch_model.bin": b"\0old",
        "model-00001.safetensors": b"\0",
    }
    mine.repos[NAME] = Repo(dict(theirs))
    with pytest.raises(HubError, match=r"exists with other content.*README\.md.*pytorch_model\.bin deleted.*--replace"):
        push(run, settings)
    assert mine.repos[NAME].files == theirs
    assert published(run) == []
    answer = push(run, settings, replace=True)
    assert set(answer["changes"]["removed"]) == {"pytorch_model.bin", "model-00001.safetensors"}
    held = mine.repos[NAME].files
    assert held["notes.txt"] == b"keep\n"
    assert not {"pytorch_model.bin", "model-00001.safetensors"} & set(held)


def test_a_demo_in_the_way_is_found_before_the_model_is_sent(run: Run, mine: Hub, settings: Settings) -> None:
    mine.repos[DEMO] = Repo(
        {"README.md": b"---\nsdk: gradio\n---\n", "app.py": b"mine"}, history=[{}], messages=["a", "b"]
    )
    with pytest.raises(HubError, match=r"tomatoes-demo exists with other content"):
        push(run, settings, space=True)
    assert NAME not in mine.repos


def test_a_demo_that_fails_does_not_hide_where_the_model_is(run: Run, mine: Hub, settings: Settings) -> None:
    mine.fail("POST", r"/api/spaces/.*/commit/", 1, 500)
    with pytest.raises(HubError, match=rf"the model is at {mine.url}/{NAME}, but not its demo: "):
        push(run, settings, space=True)
    assert [entry["kind"] for entry in published(run)] == ["model"]
    push(run, settings, space=True)
    assert [entry["kind"] for entry in published(run)] == ["model", "space"]


# Every way to fail


@pytest.mark.parametrize(("method", "path", "kind", "sentence"), FAULTS.values(), ids=FAULTS)
def test_each_fault_is_one_sentence_that_loses_nothing(
    run: Run,
    mine: Hub,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    path: str,
    kind: int | str,
    sentence: str,
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    write_json(run.dir / "published.json", earlier := [{"repo_id": "me/earlier", "kind": "model", "commit": "c"}])
    mine.fail(method, path, 99, kind)
    with pytest.raises(HubError, match=sentence) as caught:
        push(run, settings)
    assert "\n" not in caught.value.message
    assert TOKEN not in str([caught.value.message, caught.value.details])
    assert published(run) == earlier
    mine.faults.clear()
    push(run, settings)
    assert [entry["repo_id"] for entry in published(run)] == ["me/earlier", NAME]
    assert set(content_of(run)) <= set(mine.repos[NAME].files)


def test_an_interrupted_upload_goes_on_where_it_was(run: Run, mine: Hub, settings: Settings) -> None:
    weights = (run.model_dir / "model.safetensors").stat().st_size
    mine.fail("POST", r"/commit/", 1, "cut")
    with pytest.raises(HubError, match="try again"):
        push(run, settings)
    assert mine.bytes_of("PUT") > weights
    mine.received.clear()
    answer = push(run, settings)
    assert mine.bytes_of("PUT") == 0
    assert answer["bytes"] < weights
    assert mine.repos[NAME].files["model.safetensors"] == (run.model_dir / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("token", "sentence"),
    [("", "there is no access token"), ("hf_unknown", "does not accept"), ("x y", "holds a blank")],
)
def test_without_a_token_that_is_known_nothing_is_sent(
    run: Run, mine: Hub, settings: Settings, token: str, sentence: str
) -> None:
    with pytest.raises(HubError, match=sentence):
        push_run(run, NAME, token, settings)
    assert mine.repos == {}


def test_offline_is_said_and_loses_nothing(run: Run, use_hub: UseHub, offline: Settings, settings: Settings) -> None:
    with pytest.raises(HubError, match="HF_HUB_OFFLINE"):
        push(run, offline)
    use_hub(CLOSED)
    with pytest.raises(HubError, match="cannot be reached"):
        push(run, settings)
    assert published(run) == []


# Before a training


def test_what_can_be_found_out_is_found_before_a_training(mine: Hub, settings: Settings) -> None:
    config = TrainConfig.parse({"data": "photos"})
    account = check_push(config, NAME, TOKEN, settings, space=True)
    assert account.owners == ("me", "garden")
    assert mine.repos == {}
    with pytest.raises(HubError, match="museum"):
        check_push(config, "museum/tomatoes", TOKEN, settings)
    with pytest.raises(HubError, match="owner/name"):
        check_push(config, "tomatoes", TOKEN, settings)
    mine.people["hf_reader"] = Person("me", role="read")
    with pytest.raises(HubError, match="may not write"):
        check_push(config, NAME, "hf_reader", settings)
    mine.repos[NAME] = Repo({"model.safetensors": b"\0"})
    with pytest.raises(HubError, match="exists with other content"):
        check_push(config, NAME, TOKEN, settings)
    check_push(config, NAME, TOKEN, settings, replace=True)
    mine.repos[NAME].files |= {"preprocessor_config.json": b"{}", "config.json": b"{}", "pytorch_model.bin": b"\0"}
    told = "config.json, model.safetensors, preprocessor_config.json replaced; pytorch_model.bin deleted; nothing"
    with pytest.raises(HubError, match=told):  # what will come with the model is not said to be deleted
        check_push(config, NAME, TOKEN, settings)


def test_a_demo_in_the_way_is_found_before_a_training(mine: Hub, settings: Settings) -> None:
    config = TrainConfig.parse({"data": "photos"})
    mine.repos[DEMO] = Repo({"app.py": b"mine"})
    check_push(config, NAME, TOKEN, settings)
    with pytest.raises(HubError, match="tomatoes-demo exists"):
        check_push(config, NAME, TOKEN, settings, space=True)
