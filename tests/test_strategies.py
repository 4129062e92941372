"""What each strategy does to a model, on tiny ones of many architectures, trained by real steps of the real Trainer."""

import copy
import dataclasses
import gc
import math
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from pictures import make_folder
from pictures import picture as draw
from PIL import Image
from test_groups import CASES, make_backbone
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from transformers import TimmWrapperImageProcessor, pipeline

from tl_core.config import TrainConfig
from tl_core.images.collection import Collection
from tl_core.images.splits import Division
from tl_core.ml.backbone import Backbone, find_head, save_backbone
from tl_core.ml.data import read_picture, targets_of
from tl_core.ml.finetuning import Finetuning
from tl_core.ml.frozen import train_frozen
from tl_core.ml.groups import LayerGroup, layer_groups, train_only
from tl_core.ml.inference import load_predictor
from tl_core.ml.memory import OVERHEAD, USABLE_SHARE, training_bytes
from tl_core.ml.outcome import Outcome
from tl_core.ml.precision import PLAIN
from tl_core.ml.preprocessing import preprocess
from tl_core.ml.strategies import choose_trained, parameter_groups
from tl_core.recorder import Recorder
from tl_core.runs import create_run
from tl_core.settings import Settings
from tl_core.sources import ModelSource, open_data

CLASSES = ["Grüne Tomate", "train station", "日本語"]
LOOKED_AT = 4  # pictures of validation, and as many of the test part
BATCH = 4
STEPS = 2
# Below this a gradient is rounding, and its step smaller than that of the weight's last digit.
GRADIENT = 1e-6

# Option of a strategy, and how many groups it trains (None: all).
STRATEGIES: dict[str, tuple[dict[str, Any], int | None]] = {
    "last-blocks 1": ({"strategy": "last-blocks", "unfreeze_blocks": 1}, 2),
    "last-blocks 2": ({"strategy": "last-blocks", "unfreeze_blocks": 2}, 3),
    "full": ({"strategy": "full"}, None),
    "lp-ft": ({"strategy": "lp-ft"}, None),
}
every_architecture = pytest.mark.parametrize("name", CASES)


@dataclasses.dataclass
class Step:
    """What a real optimizer was about to do, seen from outside."""

    rates: dict[nn.Parameter, float]
    decays: dict[nn.Parameter, float]
    gradients: dict[nn.Parameter, torch.Tensor]

    @property
    def norm(self) -> float:
        return float(torch.cat([gradient.flatten() for gradient in self.gradients.values()]).norm())


@dataclasses.dataclass
class Batch:
    """What a model was given in training mode and answered, and the gradient of the loss by that answer."""

    pixels: torch.Tensor
    logits: torch.Tensor
    in_eval: set[nn.Module]
    gradient: torch.Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))

    def targets(self, images: int = BATCH) -> torch.Tensor:
        """The shares of classes that a cross-entropy, the mean over so many images, has such a gradient for."""
        return self.logits.softmax(-1) - images * self.gradient


@dataclasses.dataclass
class Watched:
    """A training from outside; `end` is the model's state after the last step, which need not be what is kept."""

    steps: list[Step] = dataclasses.field(default_factory=list)
    batches: list[Batch] = dataclasses.field(default_factory=list)
    end: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)


@contextmanager
def watch(model: nn.Module) -> Iterator[Watched]:
    seen = Watched()
    own = next(model.parameters())

    def answer(module: nn.Module, _: Any, given: dict[str, Any], output: Any) -> None:
        rehearses = next(module.parameters()) is not own  # with copies of its weights, to count memory
        if rehearses or not (module.training and torch.is_grad_enabled()):
            return
        in_eval = {part for part in module.modules() if not part.training}
        batch = Batch(given["pixel_values"].clone(), output.logits.detach().clone(), in_eval)
        seen.batches.append(batch)
        output.logits.register_hook(lambda gradient: setattr(batch, "gradient", gradient.clone()))

    def step(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        members = [(parameter, group) for group in optimizer.param_groups for parameter in group["params"]]
        assert len(members) == len({parameter for parameter, _ in members})
        seen.steps.append(
            Step(
                {parameter: group["lr"] for parameter, group in members},
                {parameter: group["weight_decay"] for parameter, group in members},
                {parameter: parameter.grad.clone() for parameter, _ in members if parameter.grad is not None},
            )
        )

    def stepped(*_: Any) -> None:
        seen.end = state_of(model)

    hooks = [
        model.register_forward_hook(answer, with_kwargs=True),
        register_optimizer_step_pre_hook(step),
        register_optimizer_step_post_hook(stepped),
    ]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@dataclasses.dataclass
class Studio:
    """Divided pictures, and the trainings that are made with them."""

    collection: Collection
    division: Division
    settings: Settings

    def config(self, **options: Any) -> TrainConfig:
        given = {"data": "photos", "strategy": "full", "batch_size": BATCH, "max_steps": STEPS, "warmup_steps": 0}
        given |= {"augment": "none", "mirror": "no", "patience": 0, "precision": "fp32"}
        return TrainConfig.parse({**given, **options})

    def recorder(self, config: TrainConfig) -> Recorder:
        recorder = Recorder(create_run(config, self.settings))
        recorder.start()
        return recorder

    def train(self, backbone: Backbone, **options: Any) -> tuple[Outcome, Watched]:
        """Train a backbone as a run would, but for the data it reports on."""
        config = self.config(**options)
        recorder = self.recorder(config)
        alike = range(len(self.collection.pictures))
        folder = recorder.run.checkpoints_dir
        finetuning = Finetuning(
            backbone, self.collection, alike, self.division, config, self.settings, recorder, folder
        )
        with watch(backbone.model) as seen:
            return finetuning.run(), seen

    def train_head(self, backbone: Backbone) -> Outcome:
        config = TrainConfig.parse({"data": "photos", "precision": "fp32"})
        alike = list(range(len(self.collection.pictures)))
        recorder = self.recorder(config)
        return train_frozen(backbone, self.collection, alike, self.division, config, self.settings, recorder)

    def pictures(self, indices: Sequence[int]) -> list[Image.Image]:
        paths = [self.collection.pictures[index].path for index in indices]
        return [read_picture(path, self.settings.max_pixels) for path in paths]

    def targets(self, indices: Sequence[int]) -> list[int]:
        return targets_of([self.collection.pictures[index] for index in indices], self.collection.classes)

    def gradients(self, backbone: Backbone) -> dict[str, torch.Tensor]:
        """By the mean cross-entropy of all training pictures at once, computed here and in eval mode."""
        model = copy.deepcopy(backbone.model).eval()
        logits = model(pixel_values=preprocess(backbone.processor, self.pictures(self.division.train))).logits
        nn.functional.cross_entropy(logits, torch.tensor(self.targets(self.division.train))).backward()
        return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def open_studio(folder: Path, counts: dict[str, int], settings: Settings) -> Studio:
    """Pictures of each class in turn, so that every part has all classes; all but a few train."""
    collection = open_data(str(make_folder(folder, counts)), settings)
    turns = dict.fromkeys(counts, 0)
    in_turn = []
    for index, picture in enumerate(collection.pictures):
        in_turn.append((turns[picture.label], index))
        turns[picture.label] += 1
    order = [index for _, index in sorted(in_turn)]
    held_out, train = order[: 2 * LOOKED_AT], order[2 * LOOKED_AT :]
    return Studio(collection, Division(train, held_out[:LOOKED_AT], held_out[LOOKED_AT:]), settings)


@pytest.fixture(scope="module", autouse=True)
def _little_garbage() -> Iterator[None]:
    """Trainer has garbage collected after each training: a third of a second among all that was imported."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    folder = tmp_path_factory.mktemp("strategies")
    return open_studio(folder / "photos", dict(zip(CLASSES, (5, 5, 6), strict=True)), Settings(home=folder / "home"))


@pytest.fixture
def studio(photos: Studio, settings: Settings) -> Studio:
    """Sixteen pictures of three classes, eight of which train, and a home folder for this test."""
    return dataclasses.replace(photos, settings=settings)


def taught(name: str) -> Backbone:
    """A tiny backbone with a head for the classes of the studio, through which pictures and gradients pass.

    In networks of many small random weights, and batch norms that have seen nothing, both vanish where in pretrained
    ones they do not. A timm model has timm's own preprocessing.
    """
    backbone = dataclasses.replace(make_backbone(name), labels=list(CLASSES))
    model = backbone.model
    if name.startswith("timm"):
        model.config.pretrained_cfg["input_size"] = (3, *backbone.input_size)
        backbone = dataclasses.replace(backbone, processor=TimmWrapperImageProcessor(model.config.pretrained_cfg))
    norms = batch_norms(model)
    if norms:
        torch.manual_seed(0)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            nn.init.ones_(norm.weight)
            norm.momentum = 1.0
        with torch.no_grad():
            seen = [draw(number / 8, number) for number in range(8)]
            model.train()(pixel_values=preprocess(backbone.processor, seen))
        model.eval()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return backbone


def batch_norms(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def without_dropout(backbone: Backbone) -> Backbone:
    for module in backbone.model.modules():
        for rate in ("p", "drop_prob", "drop_rate"):
            if hasattr(module, rate):
                setattr(module, rate, 0.0)
    return backbone


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and all buffers, those too that no checkpoint keeps."""
    return {name: value.detach().clone() for name, value in (*model.named_parameters(), *model.named_buffers())}


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
    head = find_head(backbone.model, backbone.input_size)
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
    head = find_head(backbone.model, backbone.input_size)
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


# ------------------------------------------------------------------ options of a training


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
