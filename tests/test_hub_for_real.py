"""The way there and back on the real Hub: `TL_TEST_HUB_TOKEN=hf_… pytest -m hub tests/test_hub_for_real.py`.

The token needs the role write. A private repository is made in its owner's name, and deleted at the end.
"""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pictures import make_folder

# HF_TOKEN is taken away from all tests, so that none uses it by mistake.
TOKEN = os.environ.get("TL_TEST_HUB_TOKEN")

pytestmark = [pytest.mark.hub, pytest.mark.skipif(not TOKEN, reason="TL_TEST_HUB_TOKEN holds no access token")]

ASK = (
    "import sys; from transformers import AutoImageProcessor, AutoModelForImageClassification; from PIL import Image; "
    "import json; model = AutoModelForImageClassification.from_pretrained(sys.argv[1]).eval(); "
    "inputs = AutoImageProcessor.from_pretrained(sys.argv[1])(Image.open(sys.argv[2]), return_tensors='pt'); "
    "row = model(**inputs).logits.softmax(-1)[0].tolist(); "
    "print(json.dumps({model.config.id2label[i]: value for i, value in enumerate(row)}))"
)


@pytest.fixture
def name() -> Iterator[str]:
    """Of a repository that is not there yet, and is no more afterwards."""
    from huggingface_hub import HfApi

    api = HfApi(token=TOKEN)
    repo_id = f"{api.whoami()['name']}/tl-core-test-{secrets.token_hex(6)}"
    yield repo_id
    for kind, made in (("model", repo_id), ("space", f"{repo_id}-demo")):
        api.delete_repo(made, repo_type=kind, missing_ok=True)


def test_a_model_goes_to_the_hub_and_comes_back(name: str, home: Path, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    from tl_core import api
    from tl_core.runs import Run
    from tl_core.sharing import published

    photos = make_folder(tmp_path / "photos", {"a": 24, "b": 24})
    run_id = api.train(data=str(photos))["run_id"]
    image = next((photos / "a").iterdir())
    ours = {row["label"]: row["score"] for row in api.predict(run_id, [image])["predictions"][0]["labels"]}
    first = api.push(run_id, name, private=True, token=TOKEN)
    assert api.push(run_id, name, private=True, token=TOKEN)["bytes"] == 0
    info = HfApi(token=TOKEN).model_info(name)
    assert info.private and info.sha == first["commit"] and info.pipeline_tag == "image-classification"
    assert [entry["commit"] for entry in published(Run(home / "runs" / run_id))] == [first["commit"]]

    shutil.rmtree(home)
    environment = {**os.environ, "HF_HOME": str(tmp_path / "theirs"), "HF_TOKEN": TOKEN or ""}
    answer = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ASK, name, str(image)],
        **{"capture_output": True, "text": True, "check": True, "cwd": tmp_path, "env": environment},
    )
    assert json.loads(answer.stdout) == pytest.approx(ours, abs=1e-5)
