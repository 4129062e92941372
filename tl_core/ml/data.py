"""From a verified, divided collection to the data sets that training reads.

A `datasets.DatasetDict` names files and classes; pictures are read when a batch is asked for, by the project's own
reader (which reads 16-bit and transparent pictures as they look), and kept reduced. Must not know models or strategies.
"""

from pathlib import Path
from typing import Any

import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from torch.utils.data import Dataset as TorchDataset

from tl_core.images.collection import TEST, TRAIN, VALIDATION, Collection
from tl_core.images.splits import Division
from tl_core.ml.mixing import Mixing
from tl_core.ml.picture_cache import PictureCache
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


class TrainingImages(TorchDataset[dict[str, Any]]):
    """Augmented training images. What index i looks like in an epoch depends on (seed, epoch, i) alone.

    `pictures` has those of `dataset`, in its order.
    """

    def __init__(self, dataset: Dataset, pictures: PictureCache, transform: TrainTransform) -> None:
        self.labels = torch.tensor(dataset["label"][:])
        self.pictures = pictures
        self.transform = transform
        self.epoch = 0

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> list[dict[str, Any]]:
        varied = self.transform(self.pictures.get(indices), self.epoch, indices)
        return [
            {"pixel_values": pixels, "labels": self.labels[index], "index": index, "epoch": self.epoch}
            for index, pixels in zip(indices, varied, strict=True)
        ]


class EvaluationImages(TorchDataset[dict[str, torch.Tensor]]):
    """Images as the checkpoint's own processor makes them, of reduced pictures: they steer, and report nothing."""

    def __init__(self, dataset: Dataset, pictures: PictureCache, processor: Any) -> None:
        self.labels = torch.tensor(dataset["label"][:])
        self.pictures = pictures
        self.processor = processor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> list[dict[str, torch.Tensor]]:
        pixels = preprocess(self.processor, self.pictures.get(indices))
        return [
            {"pixel_values": pixel, "labels": self.labels[index]} for index, pixel in zip(indices, pixels, strict=True)
        ]


class Collator:
    """Stacks items into a batch; training pictures are normalised and mixed here, once for the whole batch.

    A class and not a function within one: loading processes have to be able to receive it.
    """

    def __init__(self, normalisation: Normalisation, channels_last: bool, mixing: Mixing | None = None) -> None:
        self.normalisation = normalisation
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.mixing = mixing

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        pixels = torch.stack([item["pixel_values"] for item in items])
        labels = torch.stack([item["labels"] for item in items])
        if pixels.dtype == torch.uint8:
            pixels = self.normalisation(pixels)
        if self.mixing is not None and "index" in items[0]:
            pixels, labels = self.mixing(pixels, labels, items[0]["epoch"], [item["index"] for item in items])
        return {"pixel_values": pixels.contiguous(memory_format=self.memory_format), "labels": labels}
