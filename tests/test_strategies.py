"""What each strategy does to a model, on tiny ones of many architectures, trained by real steps of the real Trainer."""

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from studio import CLASSES, STEPS, STRATEGIES, Studio, batch_norms, state_of, taught
from test_groups import CASES, make_backbone
from torch import nn
from transformers import pipeline

from tl_core.ml.backbone import Backbone, find_head, save_backbone
from tl_core.ml.groups import LayerGroup, layer_groups, train_only
from tl_core.ml.inference import load_predictor
from tl_core.ml.preprocessing import preprocess
from tl_core.ml.strategies import choose_trained, parameter_groups
from tl_core.sources import ModelSource

# Below this a gradient is rounding, and its step smaller than that of the weight's last digit.
GRADIENT = 1e-6
every_architecture = pytest.mark.parametrize("name", CASES)


def without_dropout(backbone: Backbone) -> Backbone:
    for module in backbone.model.modules():
        for rate in ("p", "drop_prob", "drop_rate"):
            if hasattr(module, rate):
                setattr(module, rate, 0.0)
    return backbone


def moved_in(model: nn.Module, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in state_of(model).items() if not torch.equal(value, before[name])}


def parts_of(groups: Sequence[LayerGroup]) -> set[nn.Module]:
    return {part for group in groups for module in group.modules for part in module.modules()}


def statistics_of(model: nn.Module, modules: Sequence[nn.Module]) -> set[str]:
    names = {module: name for name, module in model.named_modules()}
    return {f"{names[module]}.{name}" for module in modules for name, _ in module.named_buffers(recurse=False)}


# ------------------------------------------------------------------ which parts train


@every_architecture
@pytest.mark.parametrize("strategy", [*STRATEGIES])
def test_a_strategy_moves_what_it_trains_and_nothing_else(studio: Studio, name: str, strategy: str) -> None:
    options, count = STRATEGIES[strategy]
    backbone = taught(name)
    model = backbone.model
    groups = layer_groups(backbone)
    trained = groups if count is None else groups[-count:]
    rest = [group for group in groups if group not in trained]
    before = state_of(model)
    outcome, seen = studio.train(backbone, **options)

    assert outcome.trained == [group.name for group in trained]
    assert len(seen.steps) == STEPS
    wanted = {parameter for group in trained for parameter in group.parameters}
    assert all(set(step.rates) == wanted for step in seen.steps)
    gradients = [found for step in seen.steps for found in step.gradients.items()]
    pulled = {parameter for parameter, gradient in gradients if gradient.abs().max() > GRADIENT}
    for group in trained:
        assert pulled & set(group.parameters), f"no gradient reached {group.name}"
    for batch in seen.batches:
        assert parts_of(rest) <= batch.in_eval

    names = {parameter: found for found, parameter in model.named_parameters()}
    may_move = {names[parameter] for parameter in wanted}
    statistics = statistics_of(model, [module for module in batch_norms(model) if module not in parts_of(rest)])
    moved = {found for found, value in seen.end.items() if not torch.equal(value, before[found])}
    assert {names[parameter] for parameter in pulled} <= moved
    assert moved <= may_move | statistics
    assert statistics <= moved
    assert moved_in(model, before) <= may_move | statistics  # what is kept may be of an earlier step


@every_architecture
def test_frozen_moves_the_classifier_and_nothing_else(studio: Studio, name: str) -> None:
    backbone = taught(name)
    head = backbone.head
    before = state_of(backbone.model)
    assert studio.train_head(backbone).trained == ["head"]
    of_head = {
        found for found, value in backbone.model.named_parameters() if value is head.weight or value is head.bias
    }
    assert moved_in(backbone.model, before) == of_head


# ------------------------------------------------------------------ at which rates


NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


@every_architecture
def test_rates_fall_from_the_head_down_and_each_parameter_has_one(name: str) -> None:
    backbone = make_backbone(name)
    groups = layer_groups(backbone)
    for strategy, unfreeze_blocks in (("last-blocks", 1), ("last-blocks", 2), ("full", None), ("frozen", None)):
        trained = choose_trained(strategy, groups, unfreeze_blocks)
        train_only(backbone.model, groups, trained)
        made = parameter_groups(backbone.model, groups, 0.5, 0.8, 0.1)
        members = [(parameter, found) for found in made for parameter in found["params"]]
        assert len(members) == len({parameter for parameter, _ in members})
        rates = {parameter: found["lr"] for parameter, found in members}
        assert set(rates) == {parameter for group in trained for parameter in group.parameters}
        for height, group in enumerate(reversed(trained)):
            assert all(rates[parameter] == pytest.approx(0.5 * 0.8**height) for parameter in group.parameters)


@every_architecture
def test_only_weights_of_linear_layers_and_convolutions_decay(name: str) -> None:
    """Not norms, GRN's of four dimensions among them, biases, tables of them, tokens and position embeddings."""
    backbone = make_backbone(name)
    made = parameter_groups(backbone.model, layer_groups(backbone), 0.5, 0.8, 0.1)
    decays = {parameter: found["weight_decay"] for found in made for parameter in found["params"]}
    owners = {parameter: part for part in backbone.model.modules() for parameter in part.parameters(recurse=False)}
    kinds = set()
    for found, parameter in backbone.model.named_parameters():
        spared = found.endswith("bias") or isinstance(owners[parameter], NORMS) or parameter.ndim == 1
        spared = spared or any(word in found for word in ("token", "pos", "relative_position", "grn", "gamma"))
        assert decays[parameter] == (0.0 if spared else 0.1), found
        kinds.add(decays[parameter])
    assert kinds == {0.0, 0.1}


@pytest.mark.parametrize("name", ["vit", "convnextv2", "resnet-basic"])
def test_the_optimizer_of_a_training_has_these_rates(studio: Studio, name: str) -> None:
    backbone = taught(name)
    groups = layer_groups(backbone)
    options = {"learning_rate": 0.01, "layer_decay": 0.5, "weight_decay": 0.2}
    _, seen = studio.train(backbone, **options)
    first = seen.steps[0]  # without warm-up at the peak
    for height, group in enumerate(reversed(groups)):
        assert all(first.rates[parameter] == pytest.approx(0.01 * 0.5**height) for parameter in group.parameters)
    head = backbone.head
    assert (first.decays[head.weight], first.decays[head.bias]) == (0.2, 0.0)
    assert all(seen.steps[1].rates[parameter] < rate for parameter, rate in first.rates.items())


@pytest.mark.parametrize("name", ["vit", "resnet-basic", "timm-test_convnext"])
def test_scratch_moves_everything_at_one_rate(studio: Studio, name: str) -> None:
    backbone = taught(name)
    before = state_of(backbone.model)
    outcome, seen = studio.train(backbone, strategy="scratch", learning_rate=0.01)
    assert outcome.trained == [group.name for group in layer_groups(backbone)]
    assert {rate for parameter, rate in seen.steps[0].rates.items()} == {0.01}
    assert set(seen.steps[0].rates) == set(backbone.model.parameters())
    assert moved_in(backbone.model, before) == set(before)


# ------------------------------------------------------------------ where lp-ft begins


@every_architecture
def test_lp_ft_begins_as_the_probe(studio: Studio, name: str) -> None:
    """The first step, in training mode, finds the head that was fitted and the answers that it was fitted for."""
    backbone = without_dropout(taught(name))
    model = backbone.model
    head = find_head(model, backbone.input_size)
    own = head.weight
    given = state_of(model)
    kept: list[nn.Module] = []

    def keep(module: nn.Module, _: Any) -> None:
        if module.training and head.weight is own and not kept:  # not with a rehearsal's copies
            kept.append(copy.deepcopy(module).eval())

    hook = model.register_forward_pre_hook(keep)
    whole = len(studio.division.train)
    _, seen = studio.train(backbone, strategy="lp-ft", max_steps=1, batch_size=whole)
    hook.remove()
    (probe,), (first,) = kept, seen.batches
    names = {parameter: found for found, parameter in model.named_parameters()}
    assert moved_in(probe, given) & set(names.values()) == {names[head.weight], names[head.bias]}

    shown = preprocess(backbone.processor, studio.pictures(studio.division.train))
    rows = torch.cdist(first.pixels.flatten(1), shown.flatten(1)).argmin(1)
    assert sorted(rows.tolist()) == list(range(whole))
    labels = torch.tensor(studio.targets(studio.division.train))
    # The probe is soft, but on the side of the labels: a head that knows nothing has the logarithm of their number.
    with torch.no_grad():
        loss = nn.functional.cross_entropy(probe(pixel_values=shown).logits, labels)
    assert loss < math.log(len(backbone.labels)) - 0.02
    torch.testing.assert_close(first.logits, as_if_in_training(probe, shown)[rows], rtol=1e-3, atol=1e-3)


def as_if_in_training(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor:
    """What `model` answers in eval mode where its batch norms remember just these `pixels`.

    They remember n / (n - 1) times the variance of n values, which few values of small pictures show.
    """
    model = copy.deepcopy(model).eval()
    counts: dict[nn.Module, int] = {}

    def count(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        counts[module] = inputs[0].numel() // inputs[0].shape[1]

    for norm in batch_norms(model):
        norm.register_forward_pre_hook(count)
    with torch.no_grad():
        model(pixel_values=pixels)
        for norm, values in counts.items():
            norm.running_var *= (values - 1) / values
        return model(pixel_values=pixels).logits


# ------------------------------------------------------------------ what is kept


@every_architecture
def test_a_saved_model_gives_the_same_answers_in_plain_transformers(studio: Studio, name: str, tmp_path: Path) -> None:
    backbone = taught(name)
    untaught = copy.deepcopy(backbone.model)
    studio.train(backbone, strategy="last-blocks", learning_rate=1e-4)
    save_backbone(backbone, tmp_path / "model")
    shown = studio.pictures(studio.division.test)
    one_by_one = [preprocess(backbone.processor, [picture]) for picture in shown]
    with torch.no_grad():
        before, ours = (
            np.concatenate([model(pixel_values=pixels).logits.softmax(-1).numpy() for pixels in one_by_one])
            for model in (untaught, backbone.model)
        )
    assert np.abs(ours - before).max() > 1e-3, "the training shows in no answer"
    assert np.ptp(ours, axis=0).max() > 1e-3, "all pictures have one answer, which a wrong model might give too"
    theirs = pipeline("image-classification", model=str(tmp_path / "model"))(shown, top_k=len(CLASSES))
    for mine, answer in zip(ours, theirs, strict=True):
        scores = {entry["label"]: entry["score"] for entry in answer}
        assert set(scores) == set(CLASSES)
        assert [scores[label] for label in CLASSES] == pytest.approx(mine.tolist(), abs=1e-5)
    predictor = load_predictor(ModelSource("model", tmp_path / "model", "folder"))
    assert predictor.labels == CLASSES
