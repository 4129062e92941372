"""A packed model is used as anybody would: unpacked, with transformers alone."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from models import save_vit
from pictures import picture

import tl_core
from tl_core import api
from tl_core.config import TrainConfig
from tl_core.errors import JobError
from tl_core.packing import pack_model
from tl_core.runs import Run, create_run
from tl_core.settings import Settings


@pytest.fixture
def run(settings: Settings) -> Run:
    """A run with a model, made without training."""
    made = create_run(TrainConfig.parse({"data": "x", "name": "日本語 tomatoes"}), settings)
    save_vit(made.model_dir)
    return made


def test_a_packed_model_works_in_plain_transformers_elsewhere(tmp_path: Path) -> None:
    report = tl_core.train("sample:shapes", seed=1)
    packed = api.pack(report["run_id"], tmp_path / "downloads")
    elsewhere = tmp_path / "elsewhere"
    zipfile.ZipFile(packed).extractall(elsewhere)
    (model,) = elsewhere.iterdir()
    assert model.name == report["run_id"] == packed.stem
    assert "pipeline(" in (model / "README.md").read_text(encoding="utf-8")
    image = tmp_path / "image.png"
    picture(0.3, 7, (80, 60)).save(image)
    code = (
        "import json, sys; from transformers import pipeline; "
        "print(json.dumps(pipeline('image-classification', model=sys.argv[1], device='cpu')(sys.argv[2], top_k=20)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(model), str(image)], capture_output=True, text=True, check=True, cwd=elsewhere
    )
    theirs = {entry["label"]: entry["score"] for entry in json.loads(answer.stdout)}
    ours = api.predict(report["run_id"], [image])["predictions"][0]["labels"]
    assert theirs == pytest.approx({entry["label"]: entry["score"] for entry in ours}, abs=1e-5)


def test_a_zip_holds_the_model_whole_in_one_folder_uncompressed(run: Run, tmp_path: Path) -> None:
    packed = pack_model(run, tmp_path)
    with zipfile.ZipFile(packed) as archive:
        names = [entry.filename for entry in archive.infolist()]
        assert names == sorted(f"{run.id}/{file.name}" for file in run.model_dir.iterdir())
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}
        for file in run.model_dir.iterdir():
            assert archive.read(f"{run.id}/{file.name}") == file.read_bytes()
    assert [left.name for left in tmp_path.iterdir() if left.is_file()] == [packed.name]


def test_packing_again_replaces_the_zip(run: Run, tmp_path: Path) -> None:
    first = pack_model(run, tmp_path).read_bytes()
    (run.model_dir / "README.md").write_text("new")
    again = pack_model(run, tmp_path)
    assert again.read_bytes() != first
    assert f"{run.id}/README.md" in zipfile.ZipFile(again).namelist()


def test_a_run_without_a_model_says_so(settings: Settings, tmp_path: Path) -> None:
    run = create_run(TrainConfig.parse({"data": "x"}), settings)
    with pytest.raises(JobError, match="queued and has no model to pack"):
        pack_model(run, tmp_path)


def test_a_folder_that_cannot_be_written_says_so(run: Run, tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file")
    with pytest.raises(JobError, match="cannot be packed"):
        pack_model(run, blocked)
