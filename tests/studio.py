"""A studio for tests: divided pictures, tiny backbones to teach, and the real Trainer's steps seen from outside."""

import copy
import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pictures import make_folder
from pictures import picture as draw
from PIL import Image
from test_groups import make_backbone
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from transformers import TimmWrapperImageProcessor

from tl_core.config import TrainConfig
from tl_core.images.collection import Collection, targets_of
from tl_core.images.decode import read_picture
from tl_core.images.splits import Division
from tl_core.ml.backbone import Backbone
from tl_core.ml.finetuning import Finetuning
from tl_core.ml.frozen import train_frozen
from tl_core.ml.outcome import Outcome
from tl_core.ml.preprocessing import preprocess
from tl_core.recorder import Recorder
from tl_core.runs import create_run
from tl_core.settings import Settings
from tl_core.sources import open_data

CLASSES = ["Grüne Tomate", "train station", "日本語"]
LOOKED_AT = 4  # pictures of validation, and as many of the test part
BATCH = 4
STEPS = 2

# Option of a strategy, and how many groups it trains (None: all).
STRATEGIES: dict[str, tuple[dict[str, Any], int | None]] = {
    "last-blocks 1": ({"strategy": "last-blocks", "unfreeze_blocks": 1}, 2),
    "last-blocks 2": ({"strategy": "last-blocks", "unfreeze_blocks": 2}, 3),
    "full": ({"strategy": "full"}, None),
    "lp-ft": ({"strategy": "lp-ft"}, None),
}


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


def state_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and all buffers, those too that no checkpoint keeps."""
    return {name: value.detach().clone() for name, value in (*model.named_parameters(), *model.named_buffers())}
