"""Rates of dropout and stochastic depth reach the model's layers, or are refused."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from transformers import (
    AutoModelForImageClassification,
    ConvNextConfig,
    CvtConfig,
    Dinov2Config,
    EfficientNetConfig,
    LevitConfig,
    MobileNetV1Config,
    MobileNetV2Config,
    ResNetConfig,
    SegformerConfig,
    SwinConfig,
    TimmWrapperConfig,
    ViTConfig,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

from tl_core.errors import ModelError
from tl_core.ml.backbone import make_model
from tl_core.ml.regularisation import MAX_INHERITED_DROPOUT, set_regularisation

TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
STAGES = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 2, 1]}


def vit() -> ViTConfig:
    return ViTConfig(**TRANSFORMER, intermediate_size=32, num_labels=3)


def convnext() -> ConvNextConfig:
    return ConvNextConfig(**STAGES, num_labels=3)


def efficientnet() -> EfficientNetConfig:
    return EfficientNetConfig(width_coefficient=0.25, depth_coefficient=1.0, hidden_dim=320, num_labels=3)


def swin() -> SwinConfig:
    sizes = {"embed_dim": 8, "num_heads": [1, 2], "depths": [1, 2], "image_size": 32, "patch_size": 2, "window_size": 4}
    return SwinConfig(**sizes, num_labels=3)


def timm_config(architecture: str) -> TimmWrapperConfig:
    settings = timm.get_pretrained_cfg(architecture).to_dict()
    fields = {"architecture": architecture, "label_names": ["a", "b", "c"], "pretrained_cfg": settings}
    return TimmWrapperConfig.from_dict({**fields, "num_classes": 3})


def rates(model: nn.Module, of: str) -> list[float]:
    return [getattr(module, of) for module in model.modules() if hasattr(module, of)]


def answers(model: nn.Module, side: int = 32) -> list[torch.Tensor]:
    """Of several calls in training mode; without batch norm only dropout can make them differ."""
    pixels = torch.randn(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return [model.train()(pixel_values=pixels).logits for _ in range(5)]


@pytest.mark.parametrize(
    "make",
    [
        convnext,
        swin,
        lambda: Dinov2Config(**TRANSFORMER, num_labels=3),
        lambda: CvtConfig(embed_dim=[8, 8, 8], num_heads=[1, 1, 1], depth=[1, 2, 3], num_labels=3),
        lambda: timm_config("test_vit"),
        lambda: timm_config("test_convnext"),
        lambda: timm_config("test_resnet"),
    ],
)
def test_stochastic_depth_reaches_the_blocks(make: Any) -> None:
    config = make()
    notes = set_regularisation(config, 0.3, None)
    assert "stochastic depth of up to 0.3" in notes[0]
    assert max(rates(make_model(config), "drop_prob")) == pytest.approx(0.3)


def test_efficientnet_drops_connections() -> None:
    config = efficientnet()
    assert "drop_connect_rate" in set_regularisation(config, 0.3, 0.0)[0]
    assert max(rates(make_model(config), "p")) == pytest.approx(0.3 * 15 / 16)  # block 16 of 16, counted from 0


@pytest.mark.parametrize(
    ("make", "layers"),
    [
        (vit, 4),  # embeddings and one in each of 3 layers
        (efficientnet, 1),
        (lambda: MobileNetV1Config(depth_multiplier=0.25, num_labels=3), 1),
        (lambda: MobileNetV2Config(depth_multiplier=0.25, num_labels=3), 1),
        (lambda: timm_config("test_vit"), 1),
        (lambda: timm_config("vgg11_bn"), 2),
        (lambda: timm_config("inception_v3"), 1),
    ],
)
def test_dropout_reaches_the_layers(make: Any, layers: int) -> None:
    config = make()
    assert any("dropout of 0.37" in note for note in set_regularisation(config, None, 0.37))
    with torch.device("meta"):
        model = make_model(config)
    assert rates(model, "p").count(0.37) >= layers


@pytest.mark.parametrize(
    ("make", "drop_path", "dropout", "side"),
    [(convnext, 0.5, None, 32), (vit, None, 0.5, 32), (lambda: timm_config("test_vit"), 0.5, 0.5, 160)],
)
def test_answers_in_training_mode_differ_only_with_a_rate(make: Any, drop_path: Any, dropout: Any, side: int) -> None:
    plain = answers(make_model(make()), side)
    assert all(torch.equal(plain[0], other) for other in plain[1:])
    config = make()
    set_regularisation(config, drop_path, dropout)
    model = make_model(config)
    for module in model.modules():
        if hasattr(module, "layer_scale_parameter"):  # starts near 0, where no branch shows
            nn.init.ones_(module.layer_scale_parameter)
    dropped = answers(model, side)
    assert any(not torch.equal(dropped[0], other) for other in dropped[1:])


@pytest.mark.parametrize(
    ("make", "drop_path", "dropout", "option"),
    [
        (vit, 0.1, None, "--drop-path"),
        (ResNetConfig, 0.1, None, "--drop-path"),
        (ResNetConfig, None, 0.1, "--dropout"),
        (convnext, None, 0.1, "--dropout"),
        (LevitConfig, 0.1, None, "--drop-path"),  # its config refuses fractions
        (lambda: timm_config("vgg11_bn"), 0.1, None, "--drop-path"),
        (lambda: timm_config("inception_v3"), 0.1, None, "--drop-path"),
    ],
)
def test_what_an_architecture_has_not_is_refused(make: Any, drop_path: Any, dropout: Any, option: str) -> None:
    config = make()
    before = config.to_dict()
    with pytest.raises(ModelError, match=f"leave out {option}"):
        set_regularisation(config, drop_path, dropout)
    assert config.to_dict() == before


def test_a_rate_that_the_classifier_never_reads_is_passed_over() -> None:
    config = SegformerConfig()  # its classifier_dropout_prob is for segmentation
    assert "hidden_dropout_prob" in set_regularisation(config, None, 0.2)[0]
    assert config.hidden_dropout_prob == 0.2


@pytest.mark.parametrize("kind", [MobileNetV1Config, MobileNetV2Config])
def test_an_inherited_dropout_of_nearly_everything_is_lowered(kind: Any) -> None:
    config = kind()
    notes = set_regularisation(config, None, None)
    assert config.classifier_dropout_prob == MAX_INHERITED_DROPOUT
    assert len(notes) == 1 and "--dropout sets another" in notes[0]
    asked = kind()
    set_regularisation(asked, None, 0.7)
    assert asked.classifier_dropout_prob == 0.7


@pytest.mark.parametrize("make", [vit, convnext, swin, efficientnet, ResNetConfig, lambda: timm_config("test_vit")])
def test_nothing_asked_changes_nothing(make: Any) -> None:
    config = make()
    before = config.to_dict()
    assert set_regularisation(config, None, None) == []
    assert config.to_dict() == before


@pytest.mark.parametrize("make", [convnext, swin, lambda: timm_config("test_vit")])
def test_a_saved_model_is_an_ordinary_checkpoint(make: Any, tmp_path: Path) -> None:
    config = make()
    set_regularisation(config, 0.2, None)
    torch.manual_seed(0)
    model = make_model(config).eval()
    model.save_pretrained(tmp_path)
    again = AutoModelForImageClassification.from_pretrained(tmp_path).eval()
    assert rates(again, "drop_prob") == pytest.approx(rates(model, "drop_prob"))
    side = 160 if config.model_type == "timm_wrapper" else 32
    pixels = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert torch.equal(model(pixel_values=pixels).logits, again(pixel_values=pixels).logits)


def test_random_state_stays() -> None:
    before = torch.get_rng_state()
    set_regularisation(convnext(), 0.1, None)
    set_regularisation(timm_config("test_resnet"), 0.1, 0.1)
    assert torch.equal(before, torch.get_rng_state())


def test_every_rate_found_in_any_architecture_is_taken_or_refused_in_words() -> None:
    for kind in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING:
        if kind.__name__ in ("CLIPConfig", "MetaClip2Config", "ShieldGemma2Config", "SiglipConfig", "Siglip2Config"):
            continue  # large, and made of parts without rates of their own
        for rates_asked in ((0.1, None), (None, 0.1)):
            try:
                assert set_regularisation(kind(), *rates_asked)
            except ModelError as refusal:
                assert "leave out --drop" in refusal.message or "cannot be made" in refusal.message
