"""A backbone: a Hugging Face image-classification model, its processor, and where its classifier sits.

Works on any architecture that transformers maps to image classification; nothing here goes by model names. Must not
know strategies, data sets or runs, nor what a processor does.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoConfig, AutoModelForImageClassification
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from tl_core.errors import ModelError
from tl_core.images.verified import VERSION as DECODER_VERSION
from tl_core.ml.heads import LinearHead
from tl_core.ml.preprocessing import load_processor, processor_size, reason_of
from tl_core.ml.regularisation import DROP_PATH_FIELDS, DROPOUT_FIELDS, set_regularisation
from tl_core.sources import ModelSource

# A checkpoint may lack small parts outside the head (an unused pooler's norm); beyond this share of the parameters it
# is not the checkpoint of this architecture.
MAX_MISSING_SHARE = 0.02
# What a config says about classes, training, files and versions, none of which changes the features of a picture.
NOT_OF_FEATURES = (
    *(*DROP_PATH_FIELDS, *DROPOUT_FIELDS),
    *("id2label", "label2id", "num_labels", "num_classes", "label_names", "problem_type"),
    *("dtype", "torch_dtype", "transformers_version", "_name_or_path", "architectures"),
)
CHANNELS = 3


@dataclass
class Backbone:
    """A model ready to be taught, with a classifier made for `labels`.

    `random_seed` is the seed of whatever outside the classifier is random; None where the checkpoint had all of it.
    """

    source: ModelSource
    model: PreTrainedModel
    processor: Any
    labels: list[str]
    notes: list[str]
    random_seed: int | None = None

    @cached_property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels of what the processor hands to the model."""
        return processor_size(self.processor)

    @cached_property
    def head(self) -> nn.Linear:
        """The classifier. Raises ModelError for a model whose logits come from anything but one linear layer."""
        return find_head(self.model, self.input_size)

    @cached_property
    def weights_digest(self) -> str:
        """Identifies the files that the weights were read from: 32 hexadecimal digits."""
        digest = hashlib.blake2b(digest_size=16)
        for file in sorted(self.source.path.glob("*.safetensors")):
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        return digest.hexdigest()

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


def load_backbone(
    source: ModelSource,
    labels: Sequence[str],
    *,
    image_size: int | None = None,
    pretrained: bool = True,
    seed: int = 0,
    regularisation: tuple[float | None, float | None] | None = None,
) -> Backbone:
    """The model with a new head for `labels`, in float32 and eval mode; with `pretrained=False` random everywhere.

    The head is always made anew: a checkpoint with as many classes as `labels` would otherwise keep its old head under
    the new names. `regularisation` is the stochastic depth and the dropout of a model that is going to be trained, None
    for the checkpoint's own. Raises ModelError.
    """
    config = read_architecture(source)
    processor = load_processor(source, image_size)
    _name_classes(config, labels)
    if image_size and getattr(config, "image_size", None) and not pretrained:
        config.image_size = image_size
    notes = set_regularisation(config, *regularisation) if regularisation is not None else []
    size = processor_size(processor)
    torch.manual_seed(seed)
    if not pretrained:
        model = make_model(config)
        _reset_drawn_norms(model)
        _check_answer(model, _answer_to_noise(model, size), labels)
        return Backbone(source, model.eval(), processor, list(labels), notes, seed)
    model, missing = load_weights(source, config)
    backbone = Backbone(source, model.eval(), processor, list(labels), notes)
    if lost := _judge_missing(source, model, backbone.head, missing):
        backbone.notes += lost
        backbone.random_seed = seed
    backbone.head.reset_parameters()
    return backbone


def read_architecture(source: ModelSource) -> Any:
    """The transformers config of a model folder. Raises ModelError when it cannot classify RGB images."""
    try:
        config = AutoConfig.from_pretrained(source.path, trust_remote_code=False)
    except Exception as failure:  # transformers, huggingface_hub and json judge a config by errors of their own
        raise ModelError(f"the config.json of {source.named} cannot be used: {reason_of(failure)}") from failure
    accept_architecture(config.to_dict(), source.named)
    return config


def accept_architecture(config: dict[str, Any], name: str = "this model") -> None:
    """Raises ModelError for a config.json that describes no classifier of RGB images."""
    kind = config.get("model_type") or ("timm_wrapper" if "architecture" in config else None)
    if not isinstance(kind, str) or kind not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        raise ModelError(
            f"{name} is a {kind!r} model, for which transformers has no image classification; "
            "`python -m tl_core models` lists backbones that have it"
        )
    channels = _channels(config)
    if channels != CHANNELS:
        raise ModelError(
            f"{name} takes pictures of {channels!r} channels, and pictures are read as RGB, which is {CHANNELS}; "
            "use another backbone"
        )


def load_weights(source: ModelSource, config: Any) -> tuple[PreTrainedModel, list[str]]:
    """The pretrained model in float32, and the names of parameters that the checkpoint did not have."""
    transformers_logging.disable_progress_bar()
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # the missing head is what we want; anything else is judged below
    try:
        model, info = AutoModelForImageClassification.from_pretrained(
            source.path,
            config=config,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as failure:  # safetensors, torch and transformers share no error class for a broken file
        raise ModelError(f"the weights of {source.named} cannot be loaded: {reason_of(failure)}") from failure
    finally:
        transformers_logging.set_verbosity(verbosity)
    mismatched = [item[0] if isinstance(item, tuple) else item for item in info.get("mismatched_keys", ())]
    return model, [*info["missing_keys"], *mismatched]


def make_model(config: Any) -> PreTrainedModel:
    """The architecture of `config` with random weights, drawn from torch's global generator."""
    mapped = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
    candidates = mapped if isinstance(mapped, tuple) else (mapped,)  # DeiT and LeViT map to several classes
    wanted = set(config.architectures or ())
    chosen = next((candidate for candidate in candidates if candidate.__name__ in wanted), candidates[0])
    return chosen(config).float()


def find_head(model: PreTrainedModel, size: tuple[int, int]) -> nn.Linear:
    """The linear layer whose output is the logits, found by watching one forward pass of a noisy picture.

    Raises ModelError for a model whose logits come from anything else.
    """
    outputs: dict[nn.Linear, torch.Tensor] = {}

    def remember(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        assert isinstance(module, nn.Linear)
        outputs[module] = output

    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(remember) for module in linears]
    try:
        logits = _answer_to_noise(model, size)
    finally:
        for hook in hooks:
            hook.remove()
    for module, output in reversed(outputs.items()):
        if output.numel() == logits.numel() and torch.equal(output.reshape(-1), logits.reshape(-1)):
            return module
    raise ModelError(
        f"{type(model).__name__} has no single linear classifier, so there is no head to train on features; "
        "use another backbone"
    )


def linear_head(backbone: Backbone) -> nn.Linear:
    """The classifier of `backbone`, which a fitted head can be written into.

    Raises ModelError for one that is not a single linear layer with a bias.
    """
    if backbone.head.bias is None:
        raise ModelError(
            f"the classifier of {backbone.source.named} has no bias, which a fitted head needs; use another backbone"
        )
    return backbone.head


def write_head(head: nn.Linear, fitted: LinearHead) -> None:
    """Put a fitted head into the model's own classifier, as `linear_head` found it."""
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(fitted.weight))
        head.bias.copy_(torch.from_numpy(fitted.bias))


def fingerprint(backbone: Backbone) -> str:
    """Identifies what turns a file into features, whatever the classes: 32 hexadecimal digits.

    That is the reading of files, the preprocessing, the architecture and the weights; where some of them are random,
    their seed as well, and the class count, since the classifier may draw from the same generator before them.
    """
    settings: dict[str, Any] = {
        "decoder": DECODER_VERSION,
        "processor": backbone.processor.to_dict(),
        "model": type(backbone.model).__name__,
        "config": _of_features(backbone.model.config.to_dict()),
        "weights": backbone.weights_digest,
    }
    if backbone.random_seed is not None:
        settings["random"] = [backbone.random_seed, len(backbone.labels)]
    return hashlib.blake2b(json.dumps(settings, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def save_backbone(backbone: Backbone, folder: Path) -> None:
    """Write an ordinary `from_pretrained` folder: config, float32 safetensors, processor."""
    config = backbone.model.config
    _name_classes(config, backbone.labels)
    config.dtype = torch.float32
    backbone.model.save_pretrained(folder)
    backbone.processor.save_pretrained(folder)


def _name_classes(config: Any, labels: Sequence[str]) -> None:
    """Class names in every place a config keeps them; one softmax over all of them."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    if config.model_type == "timm_wrapper":  # it writes label_names, not id2label, to disk
        config.label_names = list(labels)
        config.num_labels = len(labels)


def _of_features(config: dict[str, Any]) -> dict[str, Any]:
    return {
        str(key): _of_features(value) if isinstance(value, dict) else value
        for key, value in config.items()
        if key not in NOT_OF_FEATURES
    }


def _channels(config: dict[str, Any]) -> Any:
    """Of the pictures a model takes, from wherever its kind of config says so; RGB where none does."""
    parts = (config.get(name) for name in ("vision_config", "pretrained_cfg", "model_args"))
    vision, timm, arguments = (part if isinstance(part, dict) else {} for part in parts)
    if "in_chans" in arguments:
        return arguments["in_chans"]
    return config.get("num_channels") or vision.get("num_channels") or (timm.get("input_size") or [CHANNELS])[0]


def _answer_to_noise(model: PreTrainedModel, size: tuple[int, int]) -> torch.Tensor:
    """The logits (1, C) of one picture of (height, width) pixels, always the same, in eval mode. Raises ModelError.

    Noise, because a plain picture can leave a network without biases at zero everywhere, where all layers agree.
    """
    was_training = model.training
    noise = torch.randn(1, CHANNELS, *size, generator=torch.Generator().manual_seed(0))
    try:
        model.eval()
        with torch.no_grad():  # inference mode would leave tensors behind that cannot be trained with
            return model(pixel_values=noise.to(next(model.parameters()).device)).logits
    except Exception as failure:  # any layer of any architecture may refuse the size in its own way
        raise ModelError(
            f"this backbone cannot take pictures of {size[1]} × {size[0]} pixels in {CHANNELS} channels: "
            f"{reason_of(failure)}"
        ) from failure
    finally:
        model.train(was_training)


def _reset_drawn_norms(model: nn.Module) -> None:
    """Let batch norms begin at one. transformers draws EfficientNet's near zero, and no signal comes through.

    Those that an architecture begins at zero, at the end of residual blocks, stay so.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm) and module.affine and not ((module.weight == 0) | (module.weight == 1)).all():
            module.reset_parameters()


def _check_answer(model: PreTrainedModel, logits: torch.Tensor, labels: Sequence[str]) -> None:
    if tuple(logits.shape) != (1, len(labels)):
        raise ModelError(
            f"{type(model).__name__} answers a picture with an array of shape {tuple(logits.shape)} instead of "
            f"{len(labels)} numbers, one for each class; use another backbone"
        )


def _judge_missing(source: ModelSource, model: PreTrainedModel, head: nn.Linear, missing: list[str]) -> list[str]:
    parameters = dict(model.named_parameters())
    of_head = {id(parameter) for parameter in head.parameters()}
    lost = [name for name in missing if name in parameters and id(parameters[name]) not in of_head]
    count = sum(parameters[name].numel() for name in lost)
    if not count:
        return []
    if count > MAX_MISSING_SHARE * sum(parameter.numel() for parameter in parameters.values()):
        raise ModelError(
            f"the weights of {source.named} do not fit its config: {len(lost)} of its parameters are missing",
            lost[:5],
        )
    return [f"{source.named} lacks {len(lost)} small parameters outside the head ({lost[0]}, …); they start at random"]
