"""What the options of a training do to its steps: memory, class weights, mixed and erased pictures, clipping."""

import types
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from studio import BATCH, CLASSES, STEPS, STRATEGIES, Studio, open_studio, state_of, taught
from test_groups import make_backbone
from torch import nn

from tl_core.ml.groups import layer_groups
from tl_core.ml.memory import OVERHEAD, USABLE_SHARE, training_bytes
from tl_core.ml.precision import PLAIN
from tl_core.settings import Settings


@pytest.mark.parametrize(
    "options", [STRATEGIES["last-blocks 1"][0], STRATEGIES["full"][0]], ids=["last-blocks", "full"]
)
@pytest.mark.parametrize("name", ["vit", "timm-test_vit", "timm-test_convnext"])
def test_checkpointed_activations_train_the_same_weights(studio: Studio, name: str, options: dict[str, Any]) -> None:
    ends, calls = [], []
    for switch in ("off", "on"):
        backbone = taught(name)
        counted: list[nn.Module] = []
        last_block = layer_groups(backbone)[-2].modules[0]
        within = next(part for part in last_block.modules() if isinstance(part, nn.Linear | nn.Conv2d))
        within.register_forward_pre_hook(lambda module, _, counted=counted: counted.append(module))
        outcome, _ = studio.train(backbone, **options, activation_checkpointing=switch)
        assert outcome.details["activation_checkpointing"] == (switch == "on")
        ends.append(state_of(backbone.model))
        calls.append(len(counted))
    assert calls[1] >= calls[0] + STEPS  # once more in each step
    for found, value in ends[0].items():
        torch.testing.assert_close(ends[1][found], value, rtol=1e-5, atol=1e-6, msg=found)


def test_rare_classes_weigh_more_where_asked(tmp_path: Path, settings: Settings) -> None:
    studio = open_studio(tmp_path / "photos", {"common": 15, "rare": 7}, settings)
    images = len(studio.division.train)
    labels = [studio.collection.pictures[index].label for index in studio.division.train]
    balanced = {label: images / (2 * labels.count(label)) for label in ("common", "rare")}
    assert balanced["rare"] > 2 * balanced["common"]
    for option, weights in {"none": {"common": 1.0, "rare": 1.0}, "balanced": balanced}.items():
        backbone = make_backbone("vit")
        backbone.labels[:] = ["common", "rare", "absent"]
        _, seen = studio.train(backbone, class_weights=option, batch_size=images, max_steps=1)
        (batch,) = seen.batches
        own = batch.gradient.argmin(-1, keepdim=True)  # only the true class is to become more likely
        found = images * batch.gradient.gather(1, own) / (batch.logits.softmax(-1).gather(1, own) - 1)
        expected = torch.tensor([weights[("common", "rare")[index]] for index in own.flatten().tolist()])
        assert own.flatten().bincount().tolist() == [labels.count("common"), labels.count("rare")]
        torch.testing.assert_close(found.flatten(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("smoothing", "share"), [(0.0, 1.0), (0.3, 0.8)])
def test_smoothed_labels_leave_a_share_to_every_class(studio: Studio, smoothing: float, share: float) -> None:
    _, seen = studio.train(taught("vit"), label_smoothing=smoothing)
    for batch in seen.batches:
        ordered = batch.targets().sort(-1, descending=True).values
        expected = torch.tensor([share, (1 - share) / 2, (1 - share) / 2]).expand(BATCH, -1)
        torch.testing.assert_close(ordered, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mix", ["mixup", "cutmix", "both"])
def test_mixed_pictures_are_taught_with_mixed_labels(studio: Studio, mix: str) -> None:
    options = {"augment": "crop", "max_steps": 8}
    _, plain = studio.train(taught("vit"), **options)
    _, mixed = studio.train(taught("vit"), **options, mix=mix)
    blended = pasted = 0
    for one, other in zip(plain.batches, mixed.batches, strict=True):  # the same pictures in the same order
        own, before = one.pixels, one.pixels.roll(1, 0)
        whole = one.targets()
        difference = (before - own).flatten()
        share = float((other.pixels - own).flatten() @ difference / difference.square().sum())
        if torch.allclose(other.pixels, own.lerp(before, share), atol=1e-5):
            blended += 0.01 < share < 0.99
        else:
            theirs = other.pixels != own
            assert torch.equal(other.pixels[theirs], before[theirs])
            share = float(theirs.any(0).any(0).float().mean())  # of the area: the rectangle is the same in all
            pasted += 1
        torch.testing.assert_close(other.targets(), whole.lerp(whole.roll(1, 0), share), rtol=1e-3, atol=1e-3)
    assert (blended > 0, pasted > 0) == (mix != "cutmix", mix != "mixup")


def test_erased_rectangles_are_in_training_pictures_alone(studio: Studio) -> None:
    shares = {}
    for erase in (0.0, 1.0):
        backbone = taught("vit")
        looked_at: list[torch.Tensor] = []

        def look(module: nn.Module, _: Any, given: dict[str, Any], looked_at: list[torch.Tensor] = looked_at) -> None:
            if not torch.is_grad_enabled():
                looked_at.append(given["pixel_values"].clone())

        backbone.model.register_forward_pre_hook(look, with_kwargs=True)
        _, seen = studio.train(backbone, augment="crop", erase=erase)
        wiped = [(batch.pixels.abs() < 0.005).all(1).float().mean((1, 2)) for batch in seen.batches]
        kept = [(pixels.abs() < 0.005).all(1).float().mean((1, 2)) for pixels in looked_at]
        assert kept and max(float(share.max()) for share in kept) < 0.01
        shares[erase] = torch.cat(wiped)
    assert shares[0.0].max() < 0.01
    assert shares[1.0].min() > 0.01


def test_where_memory_holds_few_images_a_step_is_that_of_the_whole_batch(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = taught("vit")
    images = len(studio.division.train)
    assert images == 2 * BATCH
    expected = studio.gradients(backbone)
    names = {parameter: name for name, parameter in backbone.model.named_parameters()}
    needed = training_bytes(backbone.model, backbone.input_size, len(CLASSES), PLAIN)
    for_few = OVERHEAD * (needed.fixed + (BATCH + 0.5) * needed.per_image) / USABLE_SHARE
    monkeypatch.setattr(psutil, "virtual_memory", lambda: types.SimpleNamespace(available=int(for_few)))
    options = {"batch_size": images, "max_grad_norm": 0, "activation_checkpointing": "off"}
    outcome, seen = studio.train(backbone, **options)
    assert (outcome.details["batch_size"], outcome.details["micro_batch"]) == (images, BATCH)
    assert "micro_batch" in outcome.details["reasons"]
    assert [len(batch.pixels) for batch in seen.batches] == [BATCH] * 2 * STEPS
    assert len(seen.steps) == STEPS
    for parameter, gradient in seen.steps[0].gradients.items():
        torch.testing.assert_close(gradient, expected[names[parameter]], rtol=1e-4, atol=1e-6, msg=names[parameter])


def test_a_long_gradient_is_clipped_to_the_length_asked_for(studio: Studio) -> None:
    whole = len(studio.division.train)
    free, clipped = (
        studio.train(taught("vit"), batch_size=whole, max_steps=1, max_grad_norm=longest)[1].steps[0]
        for longest in (0, 0.01)
    )
    assert free.norm > 0.1
    assert clipped.norm == pytest.approx(0.01, rel=1e-3)
    for one, other in zip(free.gradients.values(), clipped.gradients.values(), strict=True):
        torch.testing.assert_close(other, one * (0.01 / free.norm), rtol=1e-3, atol=1e-7)
