"""From a verified, divided collection to the data sets that training reads.

A `datasets.DatasetDict` names files and classes; decoding happens when a batch is asked for, by the project's own
reader (which reads 16-bit and transparent pictures as they look). Must not know models or strategies.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from torch.utils.data import Dataset as TorchDataset

from tl_core.errors import DataError
from tl_core.images.collection import TEST, TRAIN, VALIDATION, Collection, Picture
from tl_core.images.decode import open_upright
from tl_core.images.splits import Division
from tl_core.ml.preprocessing import preprocess
from tl_core.ml.transforms import Normalisation, TrainTransform


def make_datasets(collection: Collection, division: Division) -> DatasetDict:
    """DatasetDict(train, validation, test) with `image` (path, not decoded) and `label` (ClassLabel)."""
    labels = collection.classes
    number = {label: index for index, label in enumerate(labels)}
    features = Features({"image": Image(decode=False), "label": ClassLabel(names=labels)})
    parts = {TRAIN: division.train, VALIDATION: division.validation, TEST: division.test}
    pictures = collection.pictures
    return DatasetDict(
        {
            name: Dataset.from_dict(
                {
                    "image": [_named(pictures[i].path) for i in indices],
                    "label": [number[pictures[i].label] for i in indices],
                },
                features=features,
            )
            for name, indices in parts.items()
        }
    )


def _named(path: Path) -> dict[str, Any]:
    """A file by its path, or by its content where the path is no Unicode, which arrow's text must be."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return {"path": None, "bytes": path.read_bytes()}
    return {"path": str(path), "bytes": None}


def read_picture(path: Path, max_pixels: int) -> PIL.Image.Image:
    """An upright RGB picture. Raises DataError naming the file."""
    try:
        return open_upright(path, max_pixels)
    except DataError as failure:
        raise DataError(f"{path}: {failure.message}") from failure


def _read(image: dict[str, Any], max_pixels: int) -> PIL.Image.Image:
    if image["bytes"] is not None:
        return open_upright(io.BytesIO(image["bytes"]), max_pixels)
    return read_picture(Path(image["path"]), max_pixels)


def targets_of(pictures: Sequence[Picture], labels: Sequence[str]) -> list[int]:
    """Class numbers of pictures, in the order of `labels`."""
    number = {label: index for index, label in enumerate(labels)}
    return [number[picture.label] for picture in pictures]


class TrainingImages(TorchDataset[dict[str, torch.Tensor]]):
    """Augmented training images. What index i looks like in an epoch depends on (seed, epoch, i) alone."""

    def __init__(self, dataset: Dataset, transform: TrainTransform, max_pixels: int) -> None:
        self.dataset = dataset
        self.transform = transform
        self.max_pixels = max_pixels
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: list[int]) -> list[dict[str, torch.Tensor]]:
        rows = self.dataset[indices]
        pictures = (_read(image, self.max_pixels) for image in rows["image"])
        return [
            {"pixel_values": pixels, "labels": torch.tensor(label)}
            for pixels, label in zip(self.transform(pictures, self.epoch, indices), rows["label"], strict=True)
        ]


class EvaluationImages(TorchDataset[dict[str, torch.Tensor]]):
    """Images as the checkpoint's own processor makes them."""

    def __init__(self, dataset: Dataset, processor: Any, max_pixels: int) -> None:
        self.dataset = dataset
        self.processor = processor
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitems__(self, indices: list[int]) -> list[dict[str, torch.Tensor]]:
        rows = self.dataset[indices]
        pictures = [_read(image, self.max_pixels) for image in rows["image"]]
        pixels = preprocess(self.processor, pictures)
        return [
            {"pixel_values": pixel, "labels": torch.tensor(label)}
            for pixel, label in zip(pixels, rows["label"], strict=True)
        ]


class Collator:
    """Stacks items into a batch; 8-bit pictures are normalised here, once for the whole batch.

    A class and not a function within one: loading processes have to be able to receive it.
    """

    def __init__(self, normalisation: Normalisation, channels_last: bool) -> None:
        self.normalisation = normalisation
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def __call__(self, items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        pixels = torch.stack([item["pixel_values"] for item in items])
        if pixels.dtype == torch.uint8:
            pixels = self.normalisation(pixels)
        return {
            "pixel_values": pixels.contiguous(memory_format=self.memory_format),
            "labels": torch.stack([item["labels"] for item in items]),
        }
