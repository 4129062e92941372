"""A finished run becomes an embedded backbone, and the ones that are embedded are what they should be."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from models import save_resnet
from pictures import make_folder
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification, pipeline

from tl_core import catalogue
from tl_core.config import TrainConfig
from tl_core.errors import ModelError
from tl_core.ml.embed import embed
from tl_core.ml.worker import work
from tl_core.runs import create_run
from tl_core.settings import Settings

WORDS = {"family": "ResNet", "summary": "To test with: a 'small' one.", "data": "Two colours."}
MAX_PARAMETERS = 3_500_000
MAX_BYTES = 8_000_000


def test_a_run_becomes_a_backbone_of_half_the_bytes_with_a_card(tmp_path: Path, settings: Settings) -> None:
    for split, count in {"train": 40, "validation": 20}.items():
        make_folder(tmp_path / "data" / split, {"a": count, "b": count}, seed=count)
    config = TrainConfig.parse(
        {"data": str(tmp_path / "data"), "model": str(save_resnet(tmp_path / "m").path)}
        | {"strategy": "scratch", "max_steps": 20, "precision": "fp32"}
    )
    run = create_run(config, settings)
    with pytest.raises(ModelError, match="has no report"):
        embed(run, "small", WORDS, settings, tmp_path / "backbones")
    report = work(run, settings, echo=None)
    folder = embed(run, "small", WORDS, settings, tmp_path / "backbones")

    (found,) = catalogue.embedded(tmp_path / "backbones")
    assert (found.id, found.family, found.summary, found.image_size) == ("small", "ResNet", WORDS["summary"], 32)
    kinds = {value.dtype for value in load_file(folder / "model.safetensors").values() if value.is_floating_point()}
    assert kinds == {torch.float16}
    assert AutoModelForImageClassification.from_pretrained(folder).dtype == torch.float32
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["data"] == "data" and recipe["model"] == "small" and recipe["max_steps"] == 20
    card = (folder / "README.md").read_text()
    assert f"{report['metrics']['accuracy']:.4f}" in card
    assert "On the 40 validation images" in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize("backbone", catalogue.embedded(), ids=lambda backbone: backbone.id)
def test_an_embedded_backbone_is_small_and_works_in_plain_transformers(backbone: catalogue.Backbone) -> None:
    assert backbone.path is not None
    assert backbone.parameters <= MAX_PARAMETERS
    assert sum(file.stat().st_size for file in backbone.path.iterdir()) <= MAX_BYTES
    TrainConfig.parse(json.loads((backbone.path / "recipe.json").read_text()))
    classify = pipeline("image-classification", model=str(backbone.path))
    assert classify.model.dtype == torch.float32
    for height, width in ((1, 1), (8, 300), (97, 301), (1200, 700)):
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
        answers = classify(Image.fromarray(noise), top_k=5)
        assert len(answers) == 5
        assert all(not answer["label"].startswith("LABEL_") for answer in answers)


def test_the_default_backbone_is_embedded() -> None:
    assert [backbone.id for backbone in catalogue.embedded() if backbone.default] == [catalogue.DEFAULT_MODEL]
