"""Loading any image-classification model, finding its classifier, and giving it new classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from models import edit_config, save_levit, save_resnet, save_vit
from transformers import (
    AutoModelForImageClassification,
    BertConfig,
    Dinov2Config,
    Dinov2Model,
    EfficientNetConfig,
    TimmWrapperConfig,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTModel,
)

from tl_core.errors import ModelError
from tl_core.ml import backbone as backbone_module
from tl_core.ml.backbone import (
    accept_architecture,
    find_head,
    fingerprint,
    linear_head,
    load_backbone,
    make_model,
    read_architecture,
    save_backbone,
    write_head,
)
from tl_core.ml.heads import LinearHead
from tl_core.ml.preprocessing import load_processor
from tl_core.sources import ModelSource

LABELS = ["日本語", "a/b", "None"]


def save_timm(folder: Path, architecture: str) -> ModelSource:
    settings = timm.get_pretrained_cfg(architecture).to_dict()
    config = TimmWrapperConfig.from_dict(
        {"architecture": architecture, "num_classes": 5, "label_names": list("abcde"), "pretrained_cfg": settings}
    )
    AutoModelForImageClassification.from_config(config).save_pretrained(folder)
    return ModelSource("timm", folder, "folder")


@pytest.mark.parametrize("save", [save_resnet, save_vit])
def test_the_head_is_new_even_when_the_class_count_agrees(tmp_path: Path, save) -> None:
    source = save(tmp_path, classes=3)
    old = AutoModelForImageClassification.from_pretrained(tmp_path)
    backbone = load_backbone(source, LABELS, seed=1)
    head = backbone.head
    assert head.weight.shape[0] == 3
    assert not torch.equal(head.weight, find_head(old, backbone.input_size).weight)
    of_head = {id(parameter) for parameter in head.parameters()}
    kept = dict(old.named_parameters())
    for name, parameter in backbone.model.named_parameters():
        assert id(parameter) in of_head or torch.equal(parameter, kept[name]), name


def test_the_same_seed_gives_the_same_head(tmp_path: Path) -> None:
    source = save_resnet(tmp_path)
    heads = []
    for seed in (3, 3, 4):
        backbone = load_backbone(source, LABELS, seed=seed)
        heads.append(backbone.head.weight)
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.mark.parametrize("save", [save_resnet, save_vit])
def test_class_names_survive_saving(tmp_path: Path, save) -> None:
    backbone = load_backbone(save(tmp_path / "old", classes=7), LABELS)
    save_backbone(backbone, tmp_path / "new")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "new")
    assert [again.config.id2label[index] for index in range(3)] == LABELS
    assert again.dtype == torch.float32
    assert json.loads((tmp_path / "new" / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("architecture", ["test_resnet", "test_vit", "test_convnext"])
def test_timm_models_keep_their_class_names_too(tmp_path: Path, architecture: str) -> None:
    backbone = load_backbone(save_timm(tmp_path / "old", architecture), LABELS)
    assert backbone.head.out_features == 3
    save_backbone(backbone, tmp_path / "new")
    again = AutoModelForImageClassification.from_pretrained(tmp_path / "new")
    assert [again.config.id2label[index] for index in range(3)] == LABELS
    load_processor(ModelSource("timm", tmp_path / "new", "folder"))


def test_a_model_without_a_classifier_is_a_fine_backbone(tmp_path: Path) -> None:
    config = Dinov2Config(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)
    Dinov2Model(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 28, "width": 28}).save_pretrained(tmp_path)
    backbone = load_backbone(ModelSource("dino", tmp_path, "folder"), LABELS)
    assert backbone.head.in_features == 32  # class token beside the mean patch
    assert backbone.notes == []


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path: Path) -> None:
    source = save_resnet(tmp_path / "a")
    save_vit(tmp_path / "b")
    (tmp_path / "b" / "model.safetensors").replace(tmp_path / "a" / "model.safetensors")
    with pytest.raises(ModelError, match="do not fit its config"):
        load_backbone(source, LABELS)


def test_broken_weights_are_a_sentence(tmp_path: Path) -> None:
    source = save_resnet(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_backbone(source, LABELS)


def test_a_text_model_is_refused_by_its_config(tmp_path: Path) -> None:
    BertConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"'bert' model.*no image classification"):
        load_backbone(ModelSource("bert", tmp_path, "folder"), LABELS)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "no_such_thing"}', "{}"])
def test_a_broken_config_is_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_backbone(ModelSource("broken", tmp_path, "folder"), LABELS)


@pytest.mark.parametrize("field", [{"hidden_size": "wide"}, {"num_hidden_layers": [2]}, {"hidden_act": 3}])
def test_a_config_field_of_a_wrong_type_is_a_sentence(tmp_path: Path, field: dict[str, object]) -> None:
    source = save_vit(tmp_path)
    edit_config(source, **field)
    with pytest.raises(ModelError, match=r"config\.json of .* cannot be used: \S"):
        read_architecture(source)


@pytest.mark.parametrize("kind", [None, ["vit"], {}, 3])
def test_a_model_type_that_is_no_word_is_a_sentence(kind: object) -> None:
    with pytest.raises(ModelError, match="no image classification"):
        accept_architecture({"model_type": kind})


def test_a_model_of_other_channels_is_refused_by_its_config(tmp_path: Path) -> None:
    config = ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=32, num_channels=1)
    ViTForImageClassification(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="grey takes pictures of 1 channels"):
        load_backbone(ModelSource("grey", tmp_path, "folder"), LABELS)


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "clip", "vision_config": {"num_channels": 4}},
        {"architecture": "resnet18", "pretrained_cfg": {"input_size": [4, 224, 224]}},
        {"architecture": "resnet18", "pretrained_cfg": {"input_size": [3, 224, 224]}, "model_args": {"in_chans": 4}},
    ],
)
def test_other_channels_are_seen_wherever_a_config_says_them(config: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="pictures of 4 channels"):
        accept_architecture(config)


def test_a_model_without_a_processor_is_a_sentence(tmp_path: Path) -> None:
    source = save_resnet(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="image processor"):
        load_backbone(source, LABELS)


def test_an_image_size_changes_what_the_backbone_sees(tmp_path: Path) -> None:
    backbone = load_backbone(save_resnet(tmp_path), LABELS, image_size=64)
    assert backbone.input_size == (64, 64)


def test_an_image_size_that_the_backbone_cannot_take_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot take pictures of 48 × 48 pixels"):
        load_backbone(save_vit(tmp_path), LABELS, image_size=48)


def test_fingerprints_tell_weights_and_preprocessing_apart(tmp_path: Path) -> None:
    one, two = save_resnet(tmp_path / "1", seed=1), save_resnet(tmp_path / "2", seed=2)
    prints = {
        fingerprint(load_backbone(one, LABELS)),
        fingerprint(load_backbone(two, LABELS)),
        fingerprint(load_backbone(one, LABELS, image_size=64)),
    }
    assert len(prints) == 3
    assert fingerprint(load_backbone(one, LABELS)) in prints


@pytest.mark.parametrize("field", [{"hidden_act": "relu"}, {"layer_norm_eps": 0.1}, {"qkv_bias": False}])
def test_fingerprints_tell_configs_of_the_same_weights_apart(tmp_path: Path, field: dict[str, object]) -> None:
    source = save_vit(tmp_path)
    before = fingerprint(load_backbone(source, LABELS))
    edit_config(source, **field)
    assert fingerprint(load_backbone(source, LABELS)) != before


def test_fingerprints_are_the_same_whatever_the_classes_seed_and_place(tmp_path: Path) -> None:
    one, two = save_vit(tmp_path / "1"), save_vit(tmp_path / "2")
    edit_config(two, transformers_version="4.0.0", dtype="float16", architectures=None)
    before = fingerprint(load_backbone(one, LABELS, seed=1))
    assert fingerprint(load_backbone(two, ["a", "b"], seed=2)) == before


def test_fingerprints_of_timm_models_do_not_depend_on_the_classes(tmp_path: Path) -> None:
    source = save_timm(tmp_path, "test_resnet")
    assert fingerprint(load_backbone(source, LABELS)) == fingerprint(load_backbone(source, ["a", "b"]))


def test_fingerprints_change_with_the_reading_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = load_backbone(save_resnet(tmp_path), LABELS)
    before = fingerprint(backbone)
    monkeypatch.setattr(backbone_module, "DECODER_VERSION", "another")
    assert fingerprint(backbone) != before


def test_parts_that_start_at_random_make_the_seed_and_the_class_count_count(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8
    )
    weights = ViTModel(config, add_pooling_layer=False).state_dict()
    del weights["embeddings.cls_token"]
    ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path, state_dict=weights)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    source = ModelSource("vit", tmp_path, "folder")
    first = load_backbone(source, LABELS, seed=1)
    assert first.random_seed == 1
    assert "start at random" in first.notes[0]
    others = [load_backbone(source, LABELS, seed=2), load_backbone(source, ["a", "b"], seed=1)]
    assert fingerprint(first) not in {fingerprint(other) for other in others}
    assert fingerprint(first) == fingerprint(load_backbone(source, LABELS, seed=1))


def test_logits_of_two_classifiers_can_be_taught_from_scratch_but_not_frozen(tmp_path: Path) -> None:
    source = save_levit(tmp_path)
    backbone = load_backbone(source, LABELS, pretrained=False, seed=3)
    assert backbone.model(pixel_values=torch.zeros(1, 3, 64, 64)).logits.shape == (1, 3)
    assert backbone.random_seed == 3
    with pytest.raises(ModelError, match="no single linear classifier"):
        load_backbone(source, LABELS)


def test_from_scratch_too_a_size_that_the_backbone_cannot_take_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot take pictures of 4 × 4 pixels"):
        load_backbone(save_vit(tmp_path), LABELS, image_size=4, pretrained=False)


def test_the_linear_head_is_the_classifier(tmp_path: Path) -> None:
    backbone = load_backbone(save_vit(tmp_path), LABELS)
    assert linear_head(backbone) is backbone.model.classifier


def test_a_classifier_without_a_bias_is_refused(tmp_path: Path) -> None:
    backbone = load_backbone(save_vit(tmp_path), LABELS)
    backbone.model.classifier.bias = None
    with pytest.raises(ModelError, match="has no bias"):
        linear_head(backbone)


def test_a_written_head_is_what_the_model_answers_with(tmp_path: Path) -> None:
    backbone = load_backbone(save_resnet(tmp_path), LABELS)
    head = backbone.head
    fitted = LinearHead(np.zeros((3, head.in_features), np.float32), np.array([1.0, 2.0, 3.0], np.float32))
    write_head(head, fitted)
    logits = backbone.model(pixel_values=torch.rand(2, 3, 32, 32)).logits
    assert torch.equal(logits, torch.tensor([[1.0, 2.0, 3.0]] * 2))


def test_a_random_efficientnet_lets_signals_through(tmp_path: Path) -> None:
    """transformers draws the scales of its batch norms near zero."""
    config = EfficientNetConfig(width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320)
    make_model(config).save_pretrained(tmp_path)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    backbone = load_backbone(ModelSource("m", tmp_path, "folder"), ["a", "b"], pretrained=False)
    norms = [module for module in backbone.model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and all((norm.weight == 1).all() for norm in norms)
