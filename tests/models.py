"""Tiny models with random weights, for tests: real architectures, saved as ordinary folders."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LevitConfig,
    LevitForImageClassificationWithTeacher,
    LevitImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from tl_core.sources import ModelSource

SIDE = 32


def save_resnet(folder: Path, classes: int = 3, seed: int = 0) -> ModelSource:
    """A ResNet of some 6,000 parameters for 32 px pictures, with batch norm."""
    torch.manual_seed(seed)
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=classes)
    return _save(ResNetForImageClassification(config), folder)


def save_vit(folder: Path, classes: int = 3, seed: int = 0) -> ModelSource:
    """A ViT of some 10,000 parameters for 32 px pictures."""
    torch.manual_seed(seed)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=SIDE,
        patch_size=8,
        num_labels=classes,
    )
    return _save(ViTForImageClassification(config), folder)


def save_levit(folder: Path, classes: int = 3) -> ModelSource:
    """A LeViT, whose logits are the mean of two classifiers; batch norm before each."""
    torch.manual_seed(0)
    config = LevitConfig(
        image_size=64,
        hidden_sizes=[16, 16, 16],
        num_attention_heads=[1, 1, 1],
        key_dim=[8, 8, 8],
        depths=[1, 1, 1],
        num_labels=classes,
    )
    LevitForImageClassificationWithTeacher(config).save_pretrained(folder)
    LevitImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64}).save_pretrained(folder)
    return ModelSource(str(folder), folder, "folder")


def edit_config(source: ModelSource, **fields: Any) -> None:
    """Change fields of a saved model's config.json, as a careless hand might."""
    path = source.path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def _save(model: torch.nn.Module, folder: Path) -> ModelSource:
    model.save_pretrained(folder)
    ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return ModelSource(str(folder), folder, "folder")
