"""A trained model that answers: load once, predict many. Used by `predict`, `evaluate`, the parity check and the page.

`load_predictor` opens a model folder anew; `recall_predictor` keeps the last ones for who asks again and again.

Must not know runs or training.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from tl_core.errors import DataError, ModelError
from tl_core.images.decode import read_picture
from tl_core.ml.allocation import give_back_freed_memory
from tl_core.ml.backbone import load_weights, read_architecture
from tl_core.ml.machine import current_device, map_side_by_side, pictures_at_a_time, threads_side_by_side
from tl_core.ml.precision import answers_in_channels_last
from tl_core.ml.preprocessing import load_processor, preprocess, processor_size, reason_of
from tl_core.sources import ModelSource

# Two are asked side by side, before and after a training; more would fill the memory of a page that runs for days.
KEPT_PREDICTORS = 2
# Kinds of answer that are no choice of one class: transformers' own pipeline does not put them through a softmax.
OTHER_PROBLEMS = ("multi_label_classification", "regression")


class Predictor:
    """A model folder, its processor and its class names, in float32 on this process's device."""

    def __init__(self, model: Any, processor: Any, labels: Sequence[str]) -> None:
        self.device = current_device()
        channels_last = answers_in_channels_last(model, self.device)
        self._layout = torch.channels_last if channels_last else torch.contiguous_format
        self.model = model.to(self.device, memory_format=self._layout).eval()
        self.processor = processor
        self.labels = list(labels)

    def read(
        self,
        files: Sequence[Path],
        max_pixels: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """(N, C) float32 softmax probabilities of image files. Raises as `answer`, and DataError for a broken file."""
        rows = np.zeros((len(files), len(self.labels)), np.float32)
        with closing(self.answer(files, max_pixels)) as answers:
            for number, (_, row) in enumerate(answers):
                if isinstance(row, DataError):
                    raise row
                rows[number] = row
                if progress is not None:
                    progress(number + 1, len(files))
        return rows

    def answer(self, files: Sequence[Path], max_pixels: int) -> Generator[tuple[Path, np.ndarray | DataError]]:
        """Each file with its softmax probabilities (C,) by the checkpoint's own processor, or why it cannot be read.

        In each thread no more than one picture is in memory as large as it is, and a batch as the model sees it. Raises
        ModelError where the model cannot answer or its answer is not finite.
        """
        threads = threads_side_by_side()
        size = max(1, min(pictures_at_a_time(processor_size(self.processor)), -(-len(files) // threads)))
        batches = [files[begin : begin + size] for begin in range(0, len(files), size)]

        def work(batch: Sequence[Path]) -> list[np.ndarray | DataError]:
            read = [self._try_to_read(file, max_pixels) for file in batch]
            readable = [pixels for pixels in read if not isinstance(pixels, DataError)]
            judged = iter(self._judge(torch.stack(readable)) if readable else ())
            return [pixels if isinstance(pixels, DataError) else next(judged) for pixels in read]

        threads = max(1, min(threads, len(batches)))
        with closing(map_side_by_side(work, batches, threads)) as answered:
            for batch, rows in zip(batches, answered, strict=True):
                for file, row in zip(batch, rows, strict=True):
                    yield file, row if isinstance(row, DataError) else _finite(row, file)
        give_back_freed_memory()

    def judge(self, pictures: Sequence[Image]) -> np.ndarray:
        """(N, C) float32 softmax probabilities of RGB pictures, all at once. Raises ModelError."""
        return self._judge(preprocess(self.processor, pictures))

    def _judge(self, pixels: torch.Tensor) -> np.ndarray:
        pixels = pixels.to(self.device, memory_format=self._layout)
        try:
            with torch.inference_mode():
                logits = self.model(pixel_values=pixels).logits.float()
        except Exception as failure:  # any layer of any architecture may refuse the pixels in its own way
            height, width = pixels.shape[2:]
            raise ModelError(
                f"the model cannot take the pictures that its own processor makes, {width} × {height} pixels in three "
                f"channels: {reason_of(failure)}"
            ) from failure
        if tuple(logits.shape) != (len(pixels), len(self.labels)):
            raise ModelError(
                f"the model answers {len(pixels)} pictures with an array of shape {tuple(logits.shape)}, but has "
                f"names for {len(self.labels)} classes; its config.json does not belong to its weights"
            )
        return logits.softmax(-1).cpu().numpy()

    def _try_to_read(self, file: Path, max_pixels: int) -> torch.Tensor | DataError:
        """(3, H, W) as the processor makes them."""
        try:
            return preprocess(self.processor, [read_picture(file, max_pixels)])[0]
        except DataError as failure:
            return failure


def _finite(row: np.ndarray, file: Path) -> np.ndarray:
    if not np.isfinite(row).all():
        raise ModelError(
            f"the model's answer to {file} is not finite: its weights are damaged, or its training diverged; "
            "train it anew, with a lower --learning-rate where that was set"
        )
    return row


def load_predictor(source: ModelSource) -> Predictor:
    """Open a model folder for prediction.

    Raises ModelError, also for a backbone without a classifier yet and for a model that does anything else than choose
    one of several classes.
    """
    config = read_architecture(source)
    labels = _labels_of(source, config)
    processor = load_processor(source)
    processor_size(processor)
    model, missing = load_weights(source, config)
    if missing:
        raise ModelError(
            f"{source.named} cannot predict yet: {len(missing)} of its parameters ({missing[0]}, …) were never "
            "trained; `train --model` gives it a classifier of your classes",
        )
    return Predictor(model, processor, labels)


class PredictorCache:
    """The predictors that were asked last, for several threads.

    A folder whose weights, configuration or processor were replaced is opened anew, as a resumed run's is.
    """

    def __init__(self, kept: int = KEPT_PREDICTORS) -> None:
        self._kept = kept
        self._predictors: OrderedDict[_Contents, Predictor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, source: ModelSource) -> Predictor:
        """As `load_predictor`; a second thread that asks for the same model waits and gets the same predictor."""
        with self._lock:
            contents = _contents_of(source.path)
            predictor = self._predictors.pop(contents, None)
            if predictor is None:
                while len(self._predictors) >= self._kept:  # before loading, so that no more are ever in memory
                    self._predictors.popitem(last=False)
                predictor = load_predictor(source)
            self._predictors[contents] = predictor
            return predictor


# A folder, and the name, time of change and size of each file that a predictor is made from.
_Contents = tuple[Path, tuple[tuple[str, int, int], ...]]
_recalled = PredictorCache()


def recall_predictor(source: ModelSource) -> Predictor:
    """The predictor of a model folder, kept in this process since it was last asked. Raises as `load_predictor`."""
    return _recalled.get(source)


def _contents_of(folder: Path) -> _Contents:
    files = sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")])
    stats = [(file.name, file.stat()) for file in files]
    return folder.resolve(), tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in stats)


def _labels_of(source: ModelSource, config: Any) -> list[str]:
    """Class names in the order of the logits."""
    if config.problem_type in OTHER_PROBLEMS or config.num_labels < 2:
        found = config.problem_type if config.problem_type in OTHER_PROBLEMS else f"{config.num_labels} output"
        raise ModelError(
            f"{source.named} does not choose one of several classes (its config.json says {found}), and nothing else "
            "can be predicted here; `train --model` gives it a classifier of your classes"
        )
    names = config.id2label
    nameless = [index for index in range(len(names)) if index not in names]
    if nameless:
        raise ModelError(
            f"the config.json of {source.named} names {len(names)} classes, but none of them is number {nameless[0]}; "
            "its id2label has to number them from 0 without a gap"
        )
    return [str(names[index]) for index in range(len(names))]


def rank_labels(probabilities: np.ndarray, labels: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The `count` most probable labels of one (C,) row, best first, as {label, score}."""
    best = np.argsort(-probabilities, kind="stable")[:count]
    return [{"label": labels[index], "score": float(probabilities[index])} for index in best]
