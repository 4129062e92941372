"""What a training by gradient steps derives from data, backbone and options."""

import dataclasses
import json

import pytest

from tl_core.config import TrainConfig
from tl_core.ml.augmentation import Augmentation
from tl_core.ml.plan import FINETUNE_MIN_STEPS, SCRATCH_MIN_STEPS, Circumstances, Plan, derived_figures, make_plan

STRATEGIES = ["last-blocks", "full", "lp-ft", "scratch"]


def plan(
    images: int = 500,
    *,
    validation: int = 100,
    parameters: int = 5_000_000,
    blocks: int = 8,
    mirrored: bool = False,
    **options,
) -> Plan:
    config = TrainConfig.parse({"data": "x", "strategy": "full", **options})
    return make_plan(config, Circumstances(images, validation, parameters, blocks, mirrored, "measured"))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("images", [1, 10, 300, 5_000, 100_000])
def test_what_is_not_given_is_derived_with_a_reason(images: int, strategy: str) -> None:
    made = plan(images, strategy=strategy)
    assert made.steps >= (SCRATCH_MIN_STEPS if strategy == "scratch" else FINETUNE_MIN_STEPS)
    assert made.steps_per_epoch == -(-images // made.batch_size)
    assert 0 < made.warmup_steps < made.steps
    assert {"batch_size", "steps", "learning_rate", "augmentation"} <= set(made.reasons)
    assert ("layer_decay" in made.reasons) == (strategy != "scratch")
    assert all(reason for reason in made.reasons.values())


def test_what_is_given_is_taken() -> None:
    given = {"batch_size": 10, "learning_rate": 0.5, "weight_decay": 0.0, "layer_decay": 0.9, "warmup_steps": 0}
    made = plan(95, **given, epochs=3, augment="none", label_smoothing=0.2, patience=0, max_grad_norm=0)
    assert {name: getattr(made, name) for name in given} == given
    assert (made.steps, made.label_smoothing, made.patience_steps, made.max_grad_norm) == (30, 0.2, 0, 0)
    assert made.reasons == {}


@pytest.mark.parametrize(("images", "batch"), [(13, 2), (13, 3), (13, 12), (257, 16), (1443, 14)])
def test_no_pass_ends_with_a_batch_of_one_image(images: int, batch: int) -> None:
    made = plan(images, batch_size=batch)
    assert images % made.batch_size != 1
    assert "batch_size" in made.reasons


def test_steps_win_over_epochs() -> None:
    assert plan(1000, epochs=3, max_steps=7).steps == 7


def test_more_images_are_passed_over_fewer_times() -> None:
    passes = [plan(images).steps / plan(images).steps_per_epoch for images in (1_000, 20_000, 100_000, 1_000_000)]
    assert passes == sorted(passes, reverse=True)
    assert passes[-1] >= 3


def test_a_larger_backbone_takes_fewer_steps_over_few_images() -> None:
    steps = [plan(50, parameters=parameters).steps for parameters in (1_000_000, 2_850_000, 25_000_000, 86_000_000)]
    assert steps == [1_500, 1_250, 600, 400]
    assert plan(50, parameters=300_000_000).steps == 400


def test_a_larger_backbone_takes_smaller_steps() -> None:
    rates = [plan(parameters=parameters).learning_rate for parameters in (1_000_000, 25_000_000, 86_000_000)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > rates[1] > rates[2]


@pytest.mark.parametrize("blocks", [1, 4, 12, 50])
def test_the_stem_of_a_large_backbone_learns_slowly_however_deep_it_lies(blocks: int) -> None:
    assert plan(blocks=blocks, parameters=86_000_000).layer_decay ** (blocks + 1) == pytest.approx(0.118, abs=0.001)
    assert plan(blocks=blocks, parameters=2_800_000).layer_decay == 1


@pytest.mark.parametrize("validation", [0, 99])
def test_few_validation_images_do_not_end_a_training(validation: int) -> None:
    assert plan(validation=validation).patience_steps == 0
    assert (plan(validation=validation, patience=2).patience_steps > 0) == (validation > 0)


def test_random_weights_learn_at_one_rate_and_to_the_end() -> None:
    made = plan(strategy="scratch")
    assert (made.layer_decay, made.patience_steps) == (1.0, 0)


@pytest.mark.parametrize(("asked", "blocks", "unfrozen"), [(None, 12, 3), (None, 1, 1), (5, 12, 5), (5, 3, 3)])
def test_the_last_blocks_are_a_quarter_or_as_many_as_asked(asked: int | None, blocks: int, unfrozen: int) -> None:
    options = {} if asked is None else {"unfreeze_blocks": asked}
    assert plan(blocks=blocks, strategy="last-blocks", **options).unfreeze_blocks == unfrozen
    assert plan(blocks=blocks).unfreeze_blocks is None


@pytest.mark.parametrize("steps", [1, 7, 400, 10_000])
def test_the_validation_set_is_looked_at_a_bounded_number_of_times(steps: int) -> None:
    made = plan(100, max_steps=steps)
    assert made.steps / made.evaluate_every <= 20
    assert made.patience_steps % made.evaluate_every == 0


@pytest.mark.parametrize(
    ("options", "augmentation"),
    [
        ({}, Augmentation("colour", True, 0.0, "none")),
        ({"mirror": "no"}, Augmentation("colour", False, 0.0, "none")),
        ({"augment": "trivial", "mix": "both", "erase": 0.25}, Augmentation("trivial", True, 0.25, "both")),
        ({"augment": "none"}, Augmentation("none", False, 0.0, "none")),
    ],
)
def test_augmentation_is_what_was_asked_or_measured(options: dict[str, object], augmentation: Augmentation) -> None:
    assert Augmentation(**plan(mirrored=True, **options).augmentation) == augmentation


def test_a_plan_reads_back_the_same() -> None:
    made = dataclasses.replace(plan(1443), precision={"dtype": "fp32"})
    assert Plan(**json.loads(json.dumps(made.to_json()))) == made


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("images", [10, 5_000, 1_000_000])
def test_thoroughness_is_a_share_of_the_steps_and_says_so(images: int, strategy: str) -> None:
    standard = plan(images, strategy=strategy)
    quick, thorough = (plan(images, strategy=strategy, thoroughness=word) for word in ("quick", "thorough"))
    assert quick.steps == max(standard.steps_per_epoch, round(standard.steps / 4))
    assert thorough.steps == 3 * standard.steps
    assert quick.reasons["steps"] == standard.reasons["steps"] + "; a quarter of that, as quick asks for"
    assert thorough.reasons["steps"].endswith("three times that, as thorough asks for")


def test_every_derived_figure_is_told_with_the_value_of_its_option() -> None:
    made = plan(500, mirrored=True)
    told = {figure.option: figure for figure in derived_figures(made)}
    assert len(told) == len(made.reasons)
    assert (told["max_steps"].value, told["max_steps"].label) == (made.steps, "Steps")
    assert told["max_steps"].spoken == f"{made.steps:,}"
    assert told["patience"].value * made.evaluate_every == made.patience_steps
    assert told["augment"].value == "colour"
    given = {option: figure.value for option, figure in told.items() if option != "augment"}
    again = plan(500, mirrored=True, **given)
    assert dataclasses.replace(again, reasons={}) == dataclasses.replace(made, reasons={})
