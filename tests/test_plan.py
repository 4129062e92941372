"""What a training by gradient steps derives, and the precision it takes."""

import pytest
import torch
from torch import nn
from transformers import ResNetConfig, ResNetForImageClassification, ViTConfig, ViTForImageClassification

from tl_core.config import TrainConfig
from tl_core.errors import ConfigError
from tl_core.ml.plan import SCRATCH_MIN_STEPS, plan_scratch
from tl_core.ml.precision import choose_training_precision

CPU = torch.device("cpu")


def config(**values: object) -> TrainConfig:
    return TrainConfig.parse({"data": "x", "strategy": "scratch", **values})


@pytest.mark.parametrize("images", [1, 10, 300, 5_000, 100_000])
def test_what_is_not_given_is_derived_with_a_reason(images: int) -> None:
    plan = plan_scratch(config(), images)
    assert plan.steps >= SCRATCH_MIN_STEPS
    assert plan.steps_per_epoch == -(-images // plan.batch_size)
    assert 0 < plan.warmup_steps < plan.steps
    assert plan.augment == "crop"
    assert {"batch_size", "steps", "learning_rate", "augment"} <= set(plan.reasons)


def test_what_is_given_is_taken() -> None:
    plan = plan_scratch(config(batch_size=10, epochs=3, learning_rate=0.5, weight_decay=0, augment="none"), 95)
    assert (plan.batch_size, plan.steps, plan.learning_rate, plan.weight_decay) == (10, 30, 0.5, 0)
    assert plan.reasons == {}


@pytest.mark.parametrize(("images", "batch"), [(13, 2), (13, 3), (13, 12), (257, 16), (1443, 14)])
def test_no_pass_ends_with_a_batch_of_one_image(images: int, batch: int) -> None:
    plan = plan_scratch(config(batch_size=batch), images)
    assert images % plan.batch_size != 1
    assert "batch_size" in plan.reasons


def test_steps_win_over_epochs() -> None:
    assert plan_scratch(config(epochs=3, max_steps=7), 1000).steps == 7


def test_the_validation_set_is_looked_at_a_bounded_number_of_times() -> None:
    plan = plan_scratch(config(max_steps=10_000), 100)
    assert plan.steps / plan.evaluate_every <= 20


def resnet() -> nn.Module:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[2, 2], layer_type="basic", num_labels=3)
    return ResNetForImageClassification(config)


def vit() -> nn.Module:
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=1,
            intermediate_size=8,
            image_size=32,
            patch_size=16,
            num_labels=3,
        )
    )


def test_precision_is_measured_on_a_cpu_and_leaves_the_model_alone() -> None:
    model = resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    chosen = choose_training_precision("auto", model, (32, 32), 3, CPU)
    assert chosen.dtype in ("fp32", "bf16")
    assert "measured" in chosen.reason
    for name, value in model.state_dict().items():
        assert torch.equal(before[name], value), name


def test_channels_last_is_for_networks_of_convolutions() -> None:
    assert choose_training_precision("bf16", resnet(), (32, 32), 3, CPU).channels_last
    assert not choose_training_precision("bf16", vit(), (32, 32), 3, CPU).channels_last
    assert not choose_training_precision("fp32", resnet(), (32, 32), 3, CPU).channels_last


def test_half_precision_floats_need_a_gpu() -> None:
    with pytest.raises(ConfigError, match="needs a GPU"):
        choose_training_precision("fp16", resnet(), (32, 32), 3, CPU)
