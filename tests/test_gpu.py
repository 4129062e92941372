"""The strategies on a CUDA device, in every number format: opt in with -m gpu."""

from pathlib import Path

import pytest
import torch
from hub_server import CLOSED
from models import save_resnet, save_vit
from pictures import make_folder, picture
from safetensors.torch import load_file
from space_app import ask, running_space
from transformers import pipeline

import tl_core

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

# Bytes that CUDA takes on the device for a process before that has put anything there; some hundred MiB in fact.
LEAST_CONTEXT = 50 * 1024**2


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    make_folder(tmp_path / "photos", {"a": 80, "b": 80, "c": 80})
    return tmp_path / "photos"


@pytest.mark.parametrize("save", [save_resnet, save_vit])
@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16", "fp16"])
@pytest.mark.parametrize("strategy", ["frozen", "last-blocks", "full", "lp-ft", "scratch"])
def test_a_strategy_learns_and_its_model_works_on_the_cpu(
    photos: Path, tmp_path: Path, strategy: str, precision: str, save
) -> None:
    source = save(tmp_path / "m")
    steps = {} if strategy == "frozen" else {"max_steps": 150, "learning_rate": 3e-3}
    report = tl_core.train(data=str(photos), model=str(source.path), strategy=strategy, precision=precision, **steps)
    assert report["machine"]["device"] == "cuda"
    if precision == "auto":
        assert report["precision"] in ("bf16", "fp16")
    else:
        assert report["precision"] == precision
    assert report["metrics"]["accuracy"] > 0.6
    weights = load_file(Path(report["model_dir"]) / "model.safetensors")
    assert all(value.dtype in (torch.float32, torch.int64) for value in weights.values())
    file = next(photos.rglob("*.png"))
    on_gpu = tl_core.predict(report["run_id"], [file], top=0)["predictions"][0]["labels"]
    on_cpu = {entry["label"]: entry["score"] for entry in pipeline(model=report["model_dir"], device="cpu")(str(file))}
    assert all(abs(on_cpu[entry["label"]] - entry["score"]) < 1e-2 for entry in on_gpu)


def test_a_full_gpu_makes_smaller_batches_of_the_same_step(photos: Path, tmp_path: Path) -> None:
    """The limit of this process's share stands in for a small device; the batch of a step stays what it was."""
    source = save_resnet(tmp_path / "m")
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(min(1.0, 200 * 1024**2 / total))
    try:
        report = tl_core.train(
            data=str(photos), model=str(source.path), strategy="full", image_size=256, batch_size=128, max_steps=3
        )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert report["training"]["micro_batch"] < 128
    assert abs(report["training"]["batch_size"] - 128) <= 0.05 * 128


def test_the_app_as_a_space_answers_on_the_device(tmp_path: Path) -> None:
    picture(0.3, 1, (80, 60)).save(tmp_path / "mine.png")
    with running_space(tmp_path, CLOSED) as app:
        before, _ = torch.cuda.mem_get_info()  # of the whole device; makes this process's own context first
        assert "tl-lead" in ask(app, tmp_path / "mine.png")
        after, _ = torch.cuda.mem_get_info()
    assert before - after > LEAST_CONTEXT
