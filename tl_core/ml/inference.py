"""A trained model that answers: load once, predict many. Used by `predict`, `evaluate`, the parity check and the page.

Must not know runs or training.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from tl_core.errors import DataError, ModelError
from tl_core.images.decode import open_upright
from tl_core.ml.backbone import load_processor, load_weights, read_architecture
from tl_core.ml.machine import current_device
from tl_core.sources import ModelSource

BATCH_SIZE = 32


class Predictor:
    """A model folder, its processor and its class names, in float32 on this process's device."""

    def __init__(self, model: Any, processor: Any, labels: Sequence[str]) -> None:
        self.device = current_device()
        self.model = model.to(self.device).eval()
        self.processor = processor
        self.labels = list(labels)

    def read(
        self,
        files: Sequence[Path],
        max_pixels: int,
        progress: Callable[[int, int], None] | None = None,
    ) -> np.ndarray:
        """(N, C) float32 softmax probabilities of image files, by the checkpoint's own processor.

        No more than a batch is in memory at a time. Raises DataError for a file that cannot be read.
        """
        parts = [np.zeros((0, len(self.labels)), np.float32)]
        for begin in range(0, len(files), BATCH_SIZE):
            batch = files[begin : begin + BATCH_SIZE]
            parts.append(self._judge([_open(file, max_pixels) for file in batch]))
            if progress is not None:
                progress(begin + len(batch), len(files))
        return np.concatenate(parts)

    def _judge(self, pictures: Sequence[Image]) -> np.ndarray:
        with torch.inference_mode():
            pixels = self.processor(images=list(pictures), return_tensors="pt")["pixel_values"].to(self.device)
            return self.model(pixel_values=pixels).logits.float().softmax(-1).cpu().numpy()


def _open(file: Path, max_pixels: int) -> Image:
    try:
        return open_upright(file, max_pixels)
    except DataError as failure:
        raise DataError(f"{file}: {failure.message}") from failure


def load_predictor(source: ModelSource) -> Predictor:
    """Open a model folder for prediction. Raises ModelError, also for a backbone without a classifier yet."""
    config = read_architecture(source)
    processor = load_processor(source)
    model, missing = load_weights(source, config)
    if missing:
        raise ModelError(
            f"{source.named} cannot predict yet: {len(missing)} of its parameters ({missing[0]}, …) were never "
            "trained; `train --model` gives it a classifier of your classes",
        )
    labels = [str(model.config.id2label[index]) for index in range(model.config.num_labels)]
    return Predictor(model, processor, labels)


def rank_labels(probabilities: np.ndarray, labels: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The `count` most probable labels of one (C,) row, best first, as {label, score}."""
    best = np.argsort(-probabilities, kind="stable")[:count]
    return [{"label": labels[index], "score": float(probabilities[index])} for index in best]
