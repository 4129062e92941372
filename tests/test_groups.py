"""Layer groups of many architectures: complete, disjoint, in order; what does not train does not move."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn
from transformers import (
    ConvNextConfig,
    ConvNextV2Config,
    DeiTConfig,
    Dinov2Config,
    EfficientNetConfig,
    MobileNetV1Config,
    MobileNetV2Config,
    RegNetConfig,
    ResNetConfig,
    SwinConfig,
    TimmWrapperConfig,
    ViTConfig,
    ViTImageProcessor,
)

from tl_core.ml.backbone import Backbone, make_model
from tl_core.ml.groups import LayerGroup, layer_groups, train_only
from tl_core.sources import ModelSource

LABELS = ["a", "b", "c"]
TRANSFORMER = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
STAGES = {"hidden_sizes": [8, 16, 16, 16], "depths": [1, 1, 2, 1]}
SWIN = {"embed_dim": 8, "num_heads": [1, 2, 2], "image_size": 32, "patch_size": 2, "window_size": 4}

# Name: config, side of a picture, number of blocks.
Case = tuple[Callable[[], Any], int, int]
CASES: dict[str, Case] = {
    "vit": (lambda: ViTConfig(**TRANSFORMER, intermediate_size=32), 32, 3),
    "deit": (lambda: DeiTConfig(**TRANSFORMER, intermediate_size=32), 32, 3),
    "dinov2": (lambda: Dinov2Config(**TRANSFORMER), 32, 3),
    "swin": (lambda: SwinConfig(**SWIN, depths=[1, 2, 1]), 32, 4),
    "convnext": (lambda: ConvNextConfig(**STAGES), 32, 5),
    "convnextv2": (lambda: ConvNextV2Config(**STAGES), 32, 5),
    "resnet-basic": (lambda: resnet("basic"), 32, 3),
    "resnet-bottleneck": (lambda: resnet("bottleneck"), 32, 3),
    "regnet-x": (lambda: RegNetConfig(**STAGES, embedding_size=8, groups_width=8, layer_type="x"), 32, 5),
    "regnet-y": (lambda: RegNetConfig(**STAGES, embedding_size=8, groups_width=8, layer_type="y"), 32, 5),
    # 13 separable convolutions (Howard et al. 2017, table 1); by default 999 of 1,000 features are dropped
    "mobilenet_v1": (lambda: MobileNetV1Config(depth_multiplier=0.25, classifier_dropout_prob=0.0), 32, 13),
    # 17 bottlenecks (Sandler et al. 2018, table 2), of which transformers makes the first a part of the stem
    "mobilenet_v2": (lambda: MobileNetV2Config(depth_multiplier=0.25), 32, 16),
    # 1 + 2 + 2 + 3 + 3 + 4 + 1 blocks (Tan and Le 2019, table 1)
    "efficientnet": (lambda: EfficientNetConfig(width_coefficient=0.25, depth_coefficient=1.0, hidden_dim=320), 32, 16),
    # 8 convolutions, the first of which is the stem, and 2 hidden fully connected layers
    "timm-vgg11_bn": (lambda: timm_config("vgg11_bn", mlp_ratio=0.01), 32, 9),
    # Mixed_5b to 5d, 6a to 6e, 7a to 7c
    "timm-inception_v3": (lambda: timm_config("inception_v3"), 75, 11),
    # 2 + 2 + 6 + 6 + 1 entries of its five stages
    "timm-mobilenetv4": (lambda: timm_config("mobilenetv4_conv_small_050"), 64, 17),
    "timm-test_resnet": (lambda: timm_config("test_resnet"), 64, 4),
    "timm-test_vit": (lambda: timm_config("test_vit"), 160, 6),
    "timm-test_convnext": (lambda: timm_config("test_convnext"), 64, 9),
}


def resnet(layer_type: str) -> ResNetConfig:
    return ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 2], layer_type=layer_type)


def timm_config(architecture: str, **arguments: Any) -> TimmWrapperConfig:
    settings = timm.get_pretrained_cfg(architecture).to_dict()
    fields = {"architecture": architecture, "label_names": LABELS, "pretrained_cfg": settings}
    return TimmWrapperConfig.from_dict({**fields, "num_classes": len(LABELS), "model_args": arguments or None})


def make_backbone(name: str) -> Backbone:
    make, side, _ = CASES[name]
    config = make()
    config.num_labels = len(LABELS)
    torch.manual_seed(0)
    model = make_model(config).eval()
    processor = ViTImageProcessor(size={"height": side, "width": side})
    return Backbone(ModelSource(name, Path(), "folder"), model, processor, LABELS, [])


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> tuple[Backbone, list[LayerGroup], int]:
    backbone = make_backbone(request.param)
    return backbone, layer_groups(backbone), CASES[request.param][2]


def pictures(backbone: Backbone, count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, *backbone.input_size, generator=torch.Generator().manual_seed(1))


def take_step(backbone: Backbone, in_eval: Sequence[nn.Module]) -> set[str]:
    """One step of plain gradient descent; the names of the parameters and buffers that it changed."""
    model = backbone.model
    before = {name: value.clone() for name, value in [*model.named_parameters(), *model.named_buffers()]}
    model.train()
    for module in in_eval:
        module.eval()
    optimizer = torch.optim.SGD([parameter for parameter in model.parameters() if parameter.requires_grad], lr=0.1)
    optimizer.zero_grad()
    model(pixel_values=pictures(backbone), labels=torch.tensor([0, 1])).loss.backward()
    optimizer.step()
    model.eval()
    after = [*model.named_parameters(), *model.named_buffers()]
    return {name for name, value in after if not torch.equal(value, before[name])}


def test_blocks_are_those_of_the_architecture(case) -> None:
    _, groups, blocks = case
    assert [group.name for group in groups] == ["stem", *(f"block {n}" for n in range(1, blocks + 1)), "head"]
    assert all(group.parameters for group in groups)


def test_every_parameter_is_in_one_group(case) -> None:
    backbone, groups, _ = case
    grouped = [parameter for group in groups for parameter in group.parameters]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == set(backbone.model.parameters())


def test_every_buffer_and_dropout_is_in_a_module_of_one_group(case) -> None:
    backbone, groups, _ = case
    grouped = [part for group in groups for module in group.modules for part in module.modules()]
    assert len(grouped) == len(set(grouped))
    for name, module in backbone.model.named_modules():
        acts_otherwise_in_training = isinstance(module, nn.Dropout) or bool(list(module.buffers(recurse=False)))
        assert module in set(grouped) or not acts_otherwise_in_training, name


def test_groups_are_in_the_order_in_which_a_picture_passes_them(case) -> None:
    backbone, groups, _ = case
    group_of = {part: place for place, group in enumerate(groups) for top in group.modules for part in top.modules()}
    passed: list[int] = []
    hooks = [
        module.register_forward_hook(lambda module, *_: passed.append(group_of[module]))
        for module in group_of
        if list(module.parameters(recurse=False))
    ]
    with torch.no_grad():
        backbone.model(pixel_values=pictures(backbone))
    for hook in hooks:
        hook.remove()
    assert passed == sorted(passed)
    assert set(passed) == set(range(len(groups)))


def test_the_head_is_the_classifier_alone(case) -> None:
    backbone, groups, _ = case
    assert set(groups[-1].parameters) == set(backbone.head.parameters())


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_step_changes_the_trained_groups_and_nothing_else(case, count: int) -> None:
    backbone, groups, _ = case
    trained = groups[-count:]
    in_eval = train_only(backbone.model, groups, trained)
    wanted = {parameter for group in trained for parameter in group.parameters}
    assert {parameter for parameter in backbone.model.parameters() if parameter.requires_grad} == wanted
    changed = take_step(backbone, in_eval)
    parameters = dict(backbone.model.named_parameters())
    assert all(parameter.grad is not None for parameter in wanted)
    moved = {parameters[name] for name in changed if name in parameters}
    assert moved <= wanted
    for group in trained:
        assert moved & set(group.parameters), f"{group.name} did not move"
    frozen_modules = {part for module in in_eval for part in module.modules()}
    for name in changed - set(parameters):
        assert backbone.model.get_submodule(name.rpartition(".")[0]) not in frozen_modules, name


def test_batch_norms_of_frozen_groups_stay_only_in_eval_mode() -> None:
    backbone = make_backbone("timm-test_resnet")
    groups = layer_groups(backbone)
    in_eval = train_only(backbone.model, groups, groups[-2:])
    moved = {name for name in take_step(backbone, in_eval) if "running" in name}
    assert moved and all(name.startswith("timm_model.layer4.") for name in moved)
    assert "timm_model.bn1.running_mean" in take_step(backbone, [])


@pytest.mark.parametrize("name", ["vit", "dinov2", "timm-test_vit"])
def test_tokens_and_position_embeddings_are_of_the_stem(name: str) -> None:
    backbone = make_backbone(name)
    stem = set(layer_groups(backbone)[0].parameters)
    embeddings = {
        name: parameter for name, parameter in backbone.model.named_parameters() if "token" in name or "pos" in name
    }
    assert len(embeddings) >= 2
    assert set(embeddings.values()) <= stem


def test_layer_scales_are_of_their_block() -> None:
    backbone = make_backbone("dinov2")
    blocks = layer_groups(backbone)[1:-1]
    for name, parameter in backbone.model.named_parameters():
        if "layer_scale" in name:
            assert parameter in set(blocks[int(name.split(".")[3])].parameters), name


def test_a_shared_parameter_is_frozen_with_the_first_group_that_uses_it() -> None:
    backbone = make_backbone("vit")
    norms = [module for module in backbone.model.modules() if isinstance(module, nn.LayerNorm)]
    norms[-2].weight = norms[0].weight  # of the last block and the first
    groups = layer_groups(backbone)
    assert norms[0].weight in set(groups[1].parameters)
    assert norms[0].weight not in set(groups[-2].parameters)
    train_only(backbone.model, groups, groups[-2:])
    assert not norms[0].weight.requires_grad


def test_looking_at_a_model_leaves_it_as_it_was() -> None:
    backbone = make_backbone("resnet-basic")
    model = backbone.model.train()
    first = next(model.parameters()).requires_grad_(False)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    layer_groups(backbone)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not first.requires_grad and all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_groups_of_another_model_are_refused() -> None:
    backbone = make_backbone("vit")
    groups = layer_groups(backbone)
    with pytest.raises(ValueError, match="not groups of this model: head"):
        train_only(backbone.model, groups[:-1], groups[-1:])
