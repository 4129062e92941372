"""From a verified, divided collection to the data sets that training reads.

A `datasets.DatasetDict` names files and classes; decoding happens when a batch is asked for, by the project's own
reader (which reads 16-bit and transparent pictures as they look). Must not know models or strategies.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from torch.utils.data import Dataset as TorchDataset

from tl_core.images.collection import TEST, TRAIN, VALIDATION, Collection, Picture
from tl_core.images.decode import open_upright
from tl_core.images.splits import Division
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
                    "image": [{"path": str(pictures[i].path), "bytes": None} for i in indices],
                    "label": [number[pictures[i].label] for i in indices],
                },
                features=features,
            )
            for name, indices in parts.items()
        }
    )


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
        pictures = (open_upright(Path(image["path"]), self.max_pixels) for image in rows["image"])
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
        pictures = [open_upright(Path(image["path"]), self.max_pixels) for image in rows["image"]]
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        return [
            {"pixel_values": pixel, "labels": torch.tensor(label)}
            for pixel, label in zip(pixels, rows["label"], strict=True)
        ]


def make_collator(
    normalisation: Normalisation, channels_last: bool
) -> Callable[[list[dict[str, torch.Tensor]]], dict[str, torch.Tensor]]:
    """Stacks items into a batch; 8-bit pictures are normalised here, once for the whole batch."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format

    def collate(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        pixels = torch.stack([item["pixel_values"] for item in items])
        if pixels.dtype == torch.uint8:
            pixels = normalisation(pixels)
        return {
            "pixel_values": pixels.contiguous(memory_format=memory_format),
            "labels": torch.stack([item["labels"] for item in items]),
        }

    return collate
