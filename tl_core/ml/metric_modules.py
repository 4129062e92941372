"""The project's metrics as `evaluate.Metric` modules over scikit-learn and numpy.

Instantiated directly, `Accuracy(keep_in_memory=True, cache_dir=…)`: `evaluate.load` would fetch and run code from the
network. Importing this module imports `evaluate` and with it transformers (6 s), so import it where a figure is needed.
Must not know: reports, models, files.
"""

from typing import Any, ClassVar

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, precision_recall_fscore_support

BINS = 15  # as in Guo et al. 2017


class _Bundled(evaluate.Metric):
    """What all modules share: one prediction and one class number per image, handed to `_compute` as lists."""

    predictions: ClassVar[Any] = datasets.Value("int64")
    about: ClassVar[str]
    source: ClassVar[str] = ""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.about,
            citation=self.source,
            inputs_description="",
            features=datasets.Features({"predictions": self.predictions, "references": datasets.Value("int64")}),
        )


class Accuracy(_Bundled):
    about = "The part of the images whose predicted class is the true one."

    def _compute(self, predictions: list[Any], references: list[int]) -> dict[str, Any]:
        return {"accuracy": float(accuracy_score(references, predictions))}


class MacroF1(_Bundled):
    about = "F1 per class, averaged over the classes that occur among the true or the predicted ones."

    def _compute(self, predictions: list[Any], references: list[int]) -> dict[str, Any]:
        return {"macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0))}


class TopKAccuracy(_Bundled):
    """`predictions` are each image's k likeliest classes, (N, k)."""

    about = "The part of the images whose true class is among the k likeliest."
    predictions = datasets.Sequence(datasets.Value("int64"))

    def _compute(self, predictions: list[Any], references: list[int]) -> dict[str, Any]:
        return {
            "top_k_accuracy": float(
                np.mean([true in likeliest for true, likeliest in zip(references, predictions, strict=True)])
            )
        }


class CalibrationError(_Bundled):
    """`predictions` are the confidences in the predicted classes, `references` 1 where one is right, else 0."""

    about = "Expected calibration error: how far confidence is from accuracy, over 15 equally wide bins of confidence."
    source = "Guo et al. 2017, On Calibration of Modern Neural Networks, arXiv 1706.04599, equation 3"
    predictions = datasets.Value("float64")

    def _compute(self, predictions: list[Any], references: list[int]) -> dict[str, Any]:
        bins = np.digitize(predictions, np.linspace(0, 1, BINS + 1)[1:-1], right=True)
        # Summed over a bin, confidence − rightness is (mean confidence − accuracy) · images of the bin.
        surplus = np.bincount(bins, weights=np.subtract(predictions, references), minlength=BINS)
        return {"calibration_error": float(np.abs(surplus).sum() / len(references))}


class PerClassScores(_Bundled):
    about = "Precision, recall, F1 and number of images of every class; 0 where nothing defines them."

    def _compute(self, predictions: list[Any], references: list[int], classes: int) -> dict[str, Any]:
        precision, recall, f1, support = precision_recall_fscore_support(
            references, predictions, labels=range(classes), zero_division=0
        )
        return {
            "precision": precision.tolist(),
            "recall": recall.tolist(),
            "f1": f1.tolist(),
            "support": support.tolist(),
        }


class ConfusionMatrix(_Bundled):
    about = "How many images of each true class (rows) were taken for each class (columns)."

    def _compute(self, predictions: list[Any], references: list[int], classes: int) -> dict[str, Any]:
        return {"confusion_matrix": confusion_matrix(references, predictions, labels=range(classes)).tolist()}
