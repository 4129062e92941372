"""A backbone: a Hugging Face image-classification model, its processor, and where its classifier sits.

Works on any architecture that transformers maps to image classification; nothing here goes by model names. Must not
know strategies, data sets or runs.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageClassification
from transformers.modeling_utils import PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING,
    MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
)
from transformers.utils import logging as transformers_logging

from tl_core.errors import ModelError
from tl_core.ml.heads import LinearHead
from tl_core.sources import ModelSource

# A checkpoint may lack small parts outside the head (an unused pooler's norm); beyond this share of the parameters it
# is not the checkpoint of this architecture.
MAX_MISSING_SHARE = 0.02


@dataclass
class Backbone:
    """A model ready to be taught, with a classifier made for `labels`."""

    source: ModelSource
    model: PreTrainedModel
    processor: Any
    labels: list[str]
    notes: list[str]

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) in pixels of what the processor hands to the model."""
        return processor_size(self.processor)

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())


def load_backbone(
    source: ModelSource, labels: Sequence[str], *, image_size: int | None = None, pretrained: bool = True, seed: int = 0
) -> Backbone:
    """The model with a new head for `labels`, in float32 and eval mode; with `pretrained=False` random everywhere.

    The head is always made anew: a checkpoint with as many classes as `labels` would otherwise keep its old head under
    the new names. Raises ModelError.
    """
    config = read_architecture(source)
    processor = load_processor(source, image_size)
    _name_classes(config, labels)
    if image_size and getattr(config, "image_size", None) and not pretrained:
        config.image_size = image_size
    notes: list[str] = []
    torch.manual_seed(seed)
    if pretrained:
        model, missing = load_weights(source, config)
    else:
        model, missing = make_model(config), []
    head = find_head(model, processor_size(processor))
    if pretrained:
        notes += _judge_missing(source, model, head, missing)
        head.reset_parameters()
    return Backbone(source, model.eval(), processor, list(labels), notes)


def read_architecture(source: ModelSource) -> Any:
    """The transformers config of a model folder. Raises ModelError when it cannot classify images."""
    try:
        config = AutoConfig.from_pretrained(source.path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as failure:
        reason = str(failure).strip().splitlines()[0]
        raise ModelError(f"the config.json of {source.named} cannot be used: {reason}") from failure
    accept_architecture(config.to_dict(), source.named)
    return config


def accept_architecture(config: dict[str, Any], name: str = "this model") -> None:
    """Raises ModelError for a config.json that describes no image classifier."""
    kind = config.get("model_type") or ("timm_wrapper" if "architecture" in config else None)
    if kind not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        raise ModelError(
            f"{name} is a {kind!r} model, for which transformers has no image classification; "
            "`python -m tl_core models` lists backbones that have it"
        )


def load_processor(source: ModelSource, image_size: int | None = None) -> Any:
    """The checkpoint's own image processor, at another size if asked. Raises ModelError where there is none."""
    try:
        processor = AutoImageProcessor.from_pretrained(source.path, trust_remote_code=False)
    except (OSError, ValueError, KeyError, AttributeError) as failure:
        raise ModelError(
            f"{source.named} has no usable image processor (preprocessor_config.json): {str(failure).splitlines()[0]}"
        ) from failure
    if image_size is not None:
        _resize_processor(source, processor, image_size)
    return processor


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
        reason = str(failure).strip().splitlines()[0] if str(failure).strip() else type(failure).__name__
        raise ModelError(f"the weights of {source.named} cannot be loaded: {reason}") from failure
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
    """The linear layer whose output is the logits, found by watching one forward pass of a grey picture.

    Raises ModelError for a model whose logits come from anything else.
    """
    outputs: dict[nn.Linear, torch.Tensor] = {}

    def remember(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        assert isinstance(module, nn.Linear)
        outputs[module] = output

    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_hook(remember) for module in linears]
    was_training = model.training
    device = next(model.parameters()).device
    try:
        model.eval()
        with torch.inference_mode():
            logits = model(pixel_values=torch.zeros(1, 3, *size, device=device)).logits
    except (RuntimeError, ValueError) as failure:
        raise ModelError(
            f"this backbone cannot take pictures of {size[1]} × {size[0]} pixels: {str(failure).splitlines()[0]}"
        ) from failure
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    for module, output in reversed(outputs.items()):
        if output.numel() == logits.numel() and torch.equal(output.reshape(-1), logits.reshape(-1)):
            return module
    raise ModelError(
        f"{type(model).__name__} has no single linear classifier, so there is no head to train on features"
    )


def write_head(head: nn.Linear, fitted: LinearHead) -> None:
    """Put a fitted head into the model's own classifier. Raises ModelError for a classifier without a bias."""
    if head.bias is None:
        raise ModelError("this backbone's classifier has no bias, which a fitted head needs; use another backbone")
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(fitted.weight))
        head.bias.copy_(torch.from_numpy(fitted.bias))


def fingerprint(source: ModelSource, processor: Any) -> str:
    """Identifies what turns a picture into features: the weights' bytes and the preprocessing."""
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(source.path.glob("*.safetensors")):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    digest.update(json.dumps(processor.to_dict(), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def save_backbone(backbone: Backbone, folder: Path) -> None:
    """Write an ordinary `from_pretrained` folder: config, float32 safetensors, processor."""
    config = backbone.model.config
    _name_classes(config, backbone.labels)
    config.dtype = torch.float32
    backbone.model.save_pretrained(folder)
    backbone.processor.save_pretrained(folder)


def processor_size(processor: Any) -> tuple[int, int]:
    """(height, width) of a processor's output."""
    for name in ("crop_size", "size"):
        size = getattr(processor, name, None)
        if name == "crop_size" and not getattr(processor, "do_center_crop", False):
            continue
        if size is not None:
            height, width = _get(size, "height"), _get(size, "width")
            if height and width:
                return int(height), int(width)
            if edge := _get(size, "shortest_edge"):
                return int(edge), int(edge)
    timm_size = getattr(processor, "data_config", {}).get("input_size")
    if timm_size:
        return int(timm_size[-2]), int(timm_size[-1])
    raise ModelError(f"{type(processor).__name__} does not say what picture size it makes")


def _get(size: Any, key: str) -> Any:
    return size.get(key) if isinstance(size, dict) else getattr(size, key, None)


def _resize_processor(source: ModelSource, processor: Any, side: int) -> None:
    if hasattr(processor, "data_config"):
        raise ModelError(
            f"{source.named} is a timm model, whose preprocessing is part of its config; leave out --image-size"
        )
    old = processor_size(processor)
    scale = side / old[0]
    settings = processor.to_dict()
    for name in ("size", "crop_size"):
        value = settings.get(name)
        if isinstance(value, dict):
            settings[name] = {key: round(number * scale) for key, number in value.items() if number}
    for name in ("size", "crop_size"):
        if settings.get(name):
            setattr(processor, name, type(getattr(processor, name))(**settings[name]))


def _name_classes(config: Any, labels: Sequence[str]) -> None:
    """Class names in every place a config keeps them; one softmax over all of them."""
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    if config.model_type == "timm_wrapper":  # it writes label_names, not id2label, to disk
        config.label_names = list(labels)
        config.num_labels = len(labels)


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
