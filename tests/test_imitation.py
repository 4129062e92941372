"""The imitation of processors: their own answers to a grey level, for pictures of any shape, or no imitation at all."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from transformers import (
    BeitImageProcessor,
    BitImageProcessor,
    CLIPImageProcessor,
    ConvNextImageProcessor,
    DeiTImageProcessor,
    EfficientNetImageProcessor,
    LevitImageProcessor,
    MobileNetV2ImageProcessor,
    MobileViTImageProcessor,
    PerceiverImageProcessor,
    SiglipImageProcessor,
    TimmWrapperImageProcessor,
    ViTImageProcessor,
    ViTImageProcessorPil,
)
from transformers.image_utils import PILImageResampling

from tl_core.images.decode import decode
from tl_core.ml.imitation import FINER, Imitation, Reduced, imitate
from tl_core.ml.pixels import PixelReader
from tl_core.ml.preprocessing import preprocess
from tl_core.ml.transforms import Normalisation

MAX_PIXELS = 100_000_000
SQUARE = {"height": 56, "width": 56}
SHORT = {"shortest_edge": 64}
PROCESSORS = {
    "vit": ViTImageProcessor(size=SQUARE),
    "vit at 224": ViTImageProcessor(),
    "vit by Pillow": ViTImageProcessorPil(size=SQUARE),
    "vit, bicubic, by Pillow": ViTImageProcessorPil(size=SQUARE, resample=PILImageResampling.BICUBIC),
    "vit, lanczos, by Pillow": ViTImageProcessorPil(size=SQUARE, resample=PILImageResampling.LANCZOS),
    "vit, nearest": ViTImageProcessor(size=SQUARE, resample=PILImageResampling.NEAREST),
    "oblong": ViTImageProcessor(size={"height": 40, "width": 72}),
    "convnext, cut": ConvNextImageProcessor(size={"shortest_edge": 56}, crop_pct=0.875),
    "convnext, whole": ConvNextImageProcessor(size={"shortest_edge": 384}),
    "bit": BitImageProcessor(size=SHORT, crop_size=SQUARE),
    "clip": CLIPImageProcessor(size={"shortest_edge": 56}, crop_size=SQUARE),
    "beit": BeitImageProcessor(size={"height": 64, "width": 64}, crop_size=SQUARE, do_center_crop=True),
    "deit": DeiTImageProcessor(size={"height": 64, "width": 64}, crop_size=SQUARE),
    "efficientnet, normalised twice": EfficientNetImageProcessor(size=SQUARE, include_top=True),
    "levit": LevitImageProcessor(size={"shortest_edge": 56}, crop_size=SQUARE),
    "mobilenet": MobileNetV2ImageProcessor(size=SHORT, crop_size=SQUARE),
    "blue first": MobileViTImageProcessor(size=SHORT, crop_size=SQUARE),
    "siglip": SiglipImageProcessor(size=SQUARE),
    "timm": TimmWrapperImageProcessor(timm.get_pretrained_cfg("test_convnext").to_dict()),
}
# (width, height): wide, high, square, odd, small, tiny, large, extreme.
SIZES = ((125, 90), (90, 125), (112, 112), (101, 303), (33, 21), (1, 1), (1200, 900), (900, 70))


def noise(seed: int, size: tuple[int, int]) -> Image.Image:
    width, height = size
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def photograph(size: tuple[int, int]) -> Image.Image:
    """Smooth shapes and edges, as photographs have, in a file of this size."""
    rows, columns = np.mgrid[0 : size[1], 0 : size[0]] / max(size)
    waves = [127 + 90 * np.sin(rate * rows + 3 * rate * columns**2) for rate in (11.0, 7.0, 5.0)]
    edges = 30 * ((rows * 9).astype(int) % 2 == (columns * 9).astype(int) % 2)
    return Image.fromarray(np.clip(np.stack(waves, axis=-1) + edges[..., None], 0, 255).astype(np.uint8))


def found(processor: Any) -> Imitation:
    imitation = imitate(processor)
    assert imitation is not None
    return imitation


@pytest.mark.parametrize("name", PROCESSORS)
def test_it_gives_the_processors_own_answer_within_one_grey_level(name: str) -> None:
    processor = PROCESSORS[name]
    imitation = found(processor)
    grey_level = Normalisation(processor).scale.abs().max().item()
    pictures = [noise(seed, size) for seed, size in enumerate(SIZES)]
    ours = imitation.finish([imitation.place(picture) for picture in pictures])
    theirs = preprocess(processor, pictures)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1.01 * grey_level


class Blurred(ViTImageProcessor):
    """Takes the mean of neighbours, which no resize does."""

    def __call__(self, *arguments: Any, **words: Any) -> Any:
        made = super().__call__(*arguments, **words)
        made["pixel_values"] = torch.nn.functional.avg_pool2d(made["pixel_values"], 3, 1, 1, count_include_pad=False)
        return made


class Upside(ViTImageProcessor):
    def __call__(self, *arguments: Any, **words: Any) -> Any:
        made = super().__call__(*arguments, **words)
        made["pixel_values"] = made["pixel_values"].flip(2)
        return made


@pytest.mark.parametrize(
    "processor",
    [
        Blurred(size=SQUARE),
        Upside(size=SQUARE),
        PerceiverImageProcessor(size=SQUARE, crop_size=SQUARE),
        MobileViTImageProcessor(size={"shortest_edge": 48}, crop_size=SQUARE),  # pads
        ViTImageProcessor(size=SQUARE, do_resize=False),  # makes several sizes
    ],
    ids=lambda processor: type(processor).__name__,
)
def test_what_cannot_be_imitated_is_not(processor: Any) -> None:
    assert imitate(processor) is None


def saved(folder: Path, picture: Image.Image, **words: Any) -> Path:
    picture.save(folder / "photograph.jpg", quality=92, **words)
    return folder / "photograph.jpg"


@pytest.mark.parametrize("size", [(1600, 1200), (1203, 1601), (999, 3001)])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["vit", "clip"])
def test_a_photograph_decoded_smaller_is_nearly_the_same(
    tmp_path: Path, size: tuple[int, int], orientation: int, name: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, photograph(size), exif=exif)
    imitation = found(PROCESSORS[name])
    whole, reduced = decode(path, MAX_PIXELS), decode(path, MAX_PIXELS, imitation.least_size)
    assert whole.image.size == whole.size == reduced.size
    assert max(reduced.image.size) < max(whole.size) / 2
    least = imitation.least_size(*whole.size)
    assert all(side >= part for side, part in zip(reduced.image.size, least, strict=True))
    from_whole = imitation.place(whole.image).float()
    from_reduced = imitation.place(reduced.image, Reduced(reduced.size, reduced.covered)).float()
    assert (from_whole - from_reduced).abs().mean() < 1.0


def test_a_picture_that_is_hardly_larger_is_decoded_whole(tmp_path: Path) -> None:
    path = saved(tmp_path, photograph((500, 375)))
    least = found(ViTImageProcessor()).least_size
    assert least(500, 375) == (FINER * 224, FINER * 224)
    assert decode(path, MAX_PIXELS, least).image.size == (500, 375)


def test_a_file_of_another_kind_is_decoded_whole(tmp_path: Path) -> None:
    stream = io.BytesIO()
    photograph((800, 600)).save(stream, "PNG")
    reduced = decode(stream, MAX_PIXELS, found(PROCESSORS["vit"]).least_size)
    assert reduced.image.size == reduced.size == (800, 600)


def test_a_truncated_photograph_is_noticed_at_a_smaller_size_too(tmp_path: Path) -> None:
    from tl_core.errors import DataError

    path = saved(tmp_path, photograph((1600, 1200)))
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(DataError, match=r"photograph\.jpg: truncated"):
        PixelReader(PROCESSORS["vit"], MAX_PIXELS).read(path)


@pytest.mark.parametrize("processor", [PROCESSORS["clip"], PerceiverImageProcessor(size=SQUARE, crop_size=SQUARE)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_reader_gives_what_the_processor_gives(tmp_path: Path, processor: Any, mirrored: bool) -> None:
    path = saved(tmp_path, photograph((90, 70)))
    reader = PixelReader(processor, MAX_PIXELS, mirrored=mirrored)
    picture = decode(path, MAX_PIXELS).image
    if mirrored:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    expected = preprocess(processor, [picture])
    grey_level = Normalisation(processor).scale.abs().max().item()
    assert (reader.batch([reader.read(path)]) - expected).abs().max() <= 1.01 * grey_level
