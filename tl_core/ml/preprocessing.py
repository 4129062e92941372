"""What a checkpoint's own image processor does to a picture: asked of the processor, never read off its settings.

Processors have some thirty implementations, each with settings of its own; showing one a picture is the only question
that all of them answer. Must not know models, strategies or runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from transformers import AutoImageProcessor
from transformers.image_utils import SizeDict

from tl_core.errors import ModelError
from tl_core.sources import ModelSource

# (width, height) of pictures that processors of one size make alike and others do not: wide, high, square and larger.
SAMPLE_SIZES = ((96, 64), (64, 96), (112, 112))
BLACK = (0, 0, 0)
PRIMARIES = ((255, 0, 0), (0, 255, 0), (0, 0, 255))
PROBE = (37, 111, 202)  # any colour of three different values that is none of the above
# Grey levels by which a processor's answer may miss what its own answers to other colours foretell: rounding once.
TOLERANCE = 0.5


@dataclass(frozen=True)
class ColourMap:
    """Output channel c is `scale[c] * input[order[c]] + shift[c]`, the input in grey levels from 0 to 255."""

    order: list[int]
    scale: torch.Tensor
    shift: torch.Tensor


def load_processor(source: ModelSource, image_size: int | None = None) -> Any:
    """The checkpoint's own image processor, at another size in pixels if asked. Raises ModelError without one."""
    try:
        processor = AutoImageProcessor.from_pretrained(source.path, trust_remote_code=False)
    except Exception as failure:  # each processor and each library below it judges settings by errors of its own
        raise ModelError(
            f"{source.named} has no usable image processor (preprocessor_config.json): {reason_of(failure)}"
        ) from failure
    if image_size is not None:
        _resize(source, processor, image_size)
    return processor


def preprocess(processor: Any, pictures: Sequence[Image.Image]) -> torch.Tensor:
    """(B, 3, H, W) float32: RGB pictures of any sizes as the processor makes them for the model.

    Each picture is handed over alone, as transformers' pipeline does. Raises ModelError when that fails, when the
    result is not one picture of three channels, or when the results differ in size.
    """
    made = [_preprocess_one(processor, picture) for picture in pictures]
    sizes = sorted({(int(pixels.shape[1]), int(pixels.shape[2])) for pixels in made})
    if len(sizes) > 1:
        found = ", ".join(f"{width} × {height}" for height, width in sizes)
        raise ModelError(
            f"the {type(processor).__name__} of this model makes pictures of several sizes ({found} pixels), and a "
            "model is taught and asked with one; train it with --image-size, or write do_center_crop and crop_size "
            "into its preprocessor_config.json"
        )
    return torch.stack(made)


def processor_size(processor: Any) -> tuple[int, int]:
    """(height, width) in pixels of what a processor makes of any picture. Raises ModelError where that varies."""
    made = preprocess(processor, [Image.new("RGB", size) for size in SAMPLE_SIZES])
    return int(made.shape[2]), int(made.shape[3])


def measure_colours(processor: Any) -> ColourMap:
    """How a processor rescales, normalises and orders the channels, from its answers to plainly coloured pictures.

    Raises ModelError for a processor that treats a colour in any other way than channel by channel and linearly.
    """
    height, width = processor_size(processor)
    plain = [Image.new("RGB", (width, height), colour) for colour in (BLACK, *PRIMARIES, PROBE)]
    answers = preprocess(processor, plain).double()
    black, *primaries, probe = answers[:, :, height // 2, width // 2]  # the edges may be padding
    gains = torch.stack([(primary - black) / 255 for primary in primaries], dim=1)  # (output channel, input channel)
    order = gains.abs().argmax(dim=1)
    scale = gains[torch.arange(len(gains)), order]
    foretold = scale * torch.tensor(PROBE, dtype=torch.float64)[order] + black
    grey_level = scale.abs()
    if not bool(
        sorted(order.tolist()) == [0, 1, 2]
        and (grey_level > 0).all()
        and ((foretold - probe).abs() <= TOLERANCE * grey_level).all()
    ):
        raise ModelError(
            f"the {type(processor).__name__} of this model does more to colours than to rescale each channel, which "
            "training cannot do to varied pictures; use --strategy frozen or another backbone"
        )
    return ColourMap(order.tolist(), scale.float(), black.float())


def reason_of(failure: BaseException) -> str:
    """The first line of what a library's error says, or its name where it says nothing."""
    lines = str(failure).strip().splitlines()
    return lines[0] if lines else type(failure).__name__


def _preprocess_one(processor: Any, picture: Image.Image) -> torch.Tensor:
    try:
        pixels = processor(images=[picture], return_tensors="pt").get("pixel_values")
    except Exception as failure:  # as in load_processor: settings that make no sense fail here in any way
        raise ModelError(
            f"the {type(processor).__name__} of this model cannot process a picture of {picture.width} × "
            f"{picture.height} pixels: {reason_of(failure)}"
        ) from failure
    if not isinstance(pixels, torch.Tensor) or pixels.ndim != 4 or tuple(pixels.shape[:2]) != (1, 3):
        found = f"an array of shape {tuple(pixels.shape)}" if isinstance(pixels, torch.Tensor) else "no pixel values"
        raise ModelError(
            f"the {type(processor).__name__} of this model makes {found} of a picture, where only one picture of "
            "three channels can be used; use another backbone"
        )
    return pixels[0].float()


def _resize(source: ModelSource, processor: Any, side: int) -> None:
    if hasattr(processor, "data_config"):
        raise ModelError(
            f"{source.named} is a timm model, whose preprocessing is part of its config; leave out --image-size"
        )
    sizes = _sample_sizes(processor)
    if len(sizes) > 1:
        processor.do_resize, processor.size = True, SizeDict(height=side, width=side)
    else:
        settings, scale = processor.to_dict(), side / sizes[0][0]
        for name in ("size", "crop_size"):
            if isinstance(settings.get(name), dict):
                scaled = {key: round(number * scale) for key, number in settings[name].items() if number}
                setattr(processor, name, type(getattr(processor, name))(**scaled))
    refusal = f"the {type(processor).__name__} of {source.named} cannot be made to give pictures of {side} pixels"
    try:
        made = _sample_sizes(processor)
    except ModelError as failure:
        raise ModelError(f"{refusal}; leave out --image-size or use another backbone", [failure.message]) from failure
    if len(made) > 1 or made[0][0] != side:
        found = ", ".join(f"{width} × {height}" for height, width in made)
        raise ModelError(f"{refusal}, it gives {found}; leave out --image-size or use another backbone")


def _sample_sizes(processor: Any) -> list[tuple[int, int]]:
    made = [_preprocess_one(processor, Image.new("RGB", size)) for size in SAMPLE_SIZES]
    return sorted({(int(pixels.shape[1]), int(pixels.shape[2])) for pixels in made})
