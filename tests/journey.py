"""One model's way to a Hub and back, and this app's way there: the same on the real Hub and on that of these tests."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pictures import make_folder

from tl_core import api
from tl_core.hub.repository import endpoint
from tl_core.runs import Run
from tl_core.sharing import published

ASK = (
    "import sys; from transformers import AutoImageProcessor, AutoModelForImageClassification; from PIL import Image; "
    "import json; model = AutoModelForImageClassification.from_pretrained(sys.argv[1]).eval(); "
    "inputs = AutoImageProcessor.from_pretrained(sys.argv[1])(Image.open(sys.argv[2]), return_tensors='pt'); "
    "row = model(**inputs).logits.softmax(-1)[0].tolist(); "
    "print(json.dumps({model.config.id2label[i]: value for i, value in enumerate(row)}))"
)


class Interrupted(Exception):
    """Raised by whoever watches an upload."""


def demo_of(name: str) -> str:
    return f"{name}-demo"


def app_of(name: str) -> str:
    return f"{name}-app"


def go_there_and_back(name: str, token: str, home: Path, folder: Path) -> None:
    """Train, push with a demo, interrupted and again, deploy twice, and ask the model by its name alone.

    Everything is private: `name`, `demo_of(name)` and `app_of(name)`, for the caller to delete, however this ends.
    """
    photos = make_folder(folder / "photos", {"a": 24, "b": 24})
    run_id = api.train(data=str(photos))["run_id"]
    run, image = Run(home / "runs" / run_id), next((photos / "a").iterdir())
    ours = {row["label"]: row["score"] for row in api.predict(run_id, [image])["predictions"][0]["labels"]}

    with pytest.raises(Interrupted):
        api.push(run_id, name, private=True, space=True, token=token, ticker=interrupt)
    assert published(run) == []
    first = api.push(run_id, name, private=True, space=True, token=token)
    assert api.push(run_id, name, private=True, space=True, token=token)["bytes"] == 0
    assert [(entry["repo_id"], entry["private"]) for entry in published(run)] == [(name, True), (demo_of(name), True)]
    is_there(name, first["commit"], token)

    sent = api.deploy(app_of(name), private=True, token=token)
    again = api.deploy(app_of(name), private=True, token=token)
    assert sent["bytes"] > 0 and (again["bytes"], again["commit"]) == (0, sent["commit"])

    shutil.rmtree(home)
    environment = {**os.environ, "HF_HOME": str(folder / "theirs"), "HF_TOKEN": token}
    command = [sys.executable, "-W", "ignore", "-c", ASK, name, str(image)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=environment)
    assert json.loads(answer.stdout) == pytest.approx(ours, abs=1e-5)


def interrupt(_: str, done: int, total: int) -> None:
    """Amid the files: some bytes have left, not all."""
    if 0 < done < total:
        raise Interrupted


def is_there(name: str, commit: str, token: str) -> None:
    """As a stranger's client sees it: the model at this commit, private, and its demo."""
    from huggingface_hub import HfApi

    hub = HfApi(endpoint=endpoint(), token=token)
    model = hub.model_info(name)
    assert (model.private, model.sha) == (True, commit)
    assert {"README.md", "config.json", "model.safetensors", "report.json"} <= set(hub.list_repo_files(name))
    demo = demo_of(name)
    assert hub.space_info(demo).private
    assert {"README.md", "app.py", "figures.json"} <= set(hub.list_repo_files(demo, repo_type="space"))
