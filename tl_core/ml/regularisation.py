"""Dropout and stochastic depth, set in a model's config before the model is built.

Architectures name these rates differently, have one of the two or none, and some configs carry rates that the
classifier never reads. So a rate counts as present only if a skeleton of the model, without weights, changes with it.
Must not know strategies or how a rate was chosen.
"""

import copy
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING

from tl_core.errors import ModelError
from tl_core.ml.preprocessing import reason_of

# Fields of a config, or arguments of a timm model; the first that the model listens to is taken.
DROP_PATH_FIELDS = ("drop_path_rate", "drop_connect_rate")
# Right before the classifier where the architecture has that, as fine-tuning recipes do; else within the blocks.
CLASSIFIER_FIELDS = ("classifier_dropout_prob", "classifier_dropout", "dropout_rate")
DROPOUT_FIELDS = (*CLASSIFIER_FIELDS, "drop_rate", "hidden_dropout_prob", "resid_pdrop")
# More is unheard of; MobileNetV1's config has 0.999 and V2's 0.8, which in TensorFlow was the share that is kept.
MAX_INHERITED_DROPOUT = 0.5
_RATES = ("p", "drop_prob", "drop_rate")  # what layers call theirs


def set_regularisation(config: Any, drop_path: float | None, dropout: float | None) -> list[str]:
    """Set the rates, 0 to below 1, in a transformers config; notes in plain words on what was done.

    `drop_path` is the rate of the deepest block; most architectures let it rise from 0 at the first (Huang et al.
    2016). None leaves the checkpoint's own rate, except that a dropout before the classifier of more than
    `MAX_INHERITED_DROPOUT` is lowered to that. Raises ModelError where a rate is wanted that the architecture has not.
    """
    notes = []
    if drop_path is not None:
        field = _find_field(config, DROP_PATH_FIELDS, "stochastic depth", "--drop-path")
        _set_rate(config, field, drop_path)
        notes.append(f"stochastic depth of up to {drop_path:g} ({field})")
    if dropout is not None:
        field = _find_field(config, DROPOUT_FIELDS, "dropout", "--dropout")
        _set_rate(config, field, dropout)
        notes.append(f"dropout of {dropout:g} ({field})")
    else:
        notes.extend(_lower_inherited(config))
    return notes


def _lower_inherited(config: Any) -> list[str]:
    notes = []
    for field in CLASSIFIER_FIELDS:
        inherited = getattr(config, field, None)
        if inherited is not None and inherited > MAX_INHERITED_DROPOUT:
            _set_rate(config, field, MAX_INHERITED_DROPOUT)
            notes.append(
                f"the backbone's config drops {inherited:.1%} of what enters the classifier in training, which hardly "
                f"can be meant; lowered to {MAX_INHERITED_DROPOUT:.0%} (--dropout sets another)"
            )
    return notes


def _find_field(config: Any, fields: tuple[str, ...], what: str, option: str) -> str:
    for field in fields:
        if (_is_timm(config) or hasattr(config, field)) and _is_read(config, field):
            return field
    name = config.architecture if _is_timm(config) else config.model_type
    raise ModelError(f"{name} has no {what} that could be set; leave out {option}, or use another backbone")


def _is_read(config: Any, field: str) -> bool:
    """Whether layers of the model change with a field of its config."""
    rates = []
    for rate in (0.0, 0.5):
        tried = copy.deepcopy(config)
        try:
            _set_rate(tried, field, rate)
        except StrictDataclassError:  # LeViT's config takes whole numbers only
            return False
        skeleton = _make_skeleton(tried, field)
        if skeleton is None:
            return False
        rates.append(
            {
                (name, kind): getattr(module, kind)
                for name, module in skeleton.named_modules()
                for kind in _RATES
                if isinstance(getattr(module, kind, None), int | float)
            }
        )
    return rates[0] != rates[1]


def _make_skeleton(config: Any, field: str) -> nn.Module | None:
    """The model without memory for weights; None when timm's function for it does not know the argument `field`."""
    mapped = MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING[type(config)]
    architecture = mapped[0] if isinstance(mapped, tuple) else mapped
    try:
        with torch.device("meta"):
            return architecture(config)
    except Exception as failure:  # an architecture may refuse its config in its own way
        if _is_timm(config) and isinstance(failure, TypeError) and field in str(failure):
            return None
        raise ModelError(
            f"a {config.model_type} model cannot be made of this config: {reason_of(failure)}"
        ) from failure


def _set_rate(config: Any, field: str, rate: float) -> None:
    if _is_timm(config):
        config.model_args = {**(config.model_args or {}), field: rate}
    else:
        current = getattr(config, field)
        several = isinstance(current, list | tuple)  # CvT: one for each stage
        setattr(config, field, [rate] * len(current) if several else rate)


def _is_timm(config: Any) -> bool:
    return config.model_type == "timm_wrapper"
