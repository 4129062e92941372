"""transformers' own example of image classification, with its defaults: what a person would write without this project.

Every picture is decoded and processed in every epoch, eight make a step, and the arithmetic is float32.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import datasets
import torch
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)

T = TypeVar("T")

HELD_OUT = 10  # every so many-th picture of a class is for testing


def divide(data: Path, classes: int) -> tuple[list[Path], list[Path]]:
    """Pictures to train on and to test on, of those that `benchmarks.frozen.make_pictures` made."""
    files = sorted(data.rglob("*.jpg"), key=lambda path: int(path.stem))
    held = [path for path in files if int(path.stem) // classes % HELD_OUT == 0]
    return sorted(set(files) - set(held)), held


def prepared(paths: Sequence[Path], processor: Any) -> datasets.Dataset:
    """Pictures in folders named `class N`, processed when they are asked for."""
    columns = {"image": [str(path) for path in paths], "label": [int(path.parent.name[6:]) for path in paths]}
    dataset = datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())

    def process(batch: dict[str, list[Any]]) -> dict[str, Any]:
        pictures = [image.convert("RGB") for image in batch["image"]]
        return {"pixel_values": processor(pictures, return_tensors="pt")["pixel_values"], "labels": batch["label"]}

    return dataset.with_transform(process)


def make_trainer(model_dir: Path, paths: Sequence[Path], folder: Path, *, frozen: bool, **length: Any) -> Trainer:
    """A Trainer over `paths`; `length` is num_train_epochs or max_steps."""
    model = AutoModelForImageClassification.from_pretrained(model_dir)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not frozen or name.startswith("classifier")
    arguments = TrainingArguments(
        str(folder),
        remove_unused_columns=False,
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        **length,
    )
    trainer = Trainer(model, arguments, train_dataset=prepared(paths, AutoImageProcessor.from_pretrained(model_dir)))
    trainer.remove_callback(PrinterCallback)
    return trainer


def answer_apart(work: Callable[..., T], *arguments: Any) -> T:
    """What `work` answers in a process of its own, as a script is: nothing of how ours keeps memory is in it."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(work, *arguments).result()
