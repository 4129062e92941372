"""What a strategy leaves behind besides the trained backbone: what the report is made from."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tl_core.images.collection import Picture
from tl_core.ml.precision import Precision


@dataclass
class Outcome:
    """`tested` are indices of the pictures that the reported figures come from, none of which this model was fitted on;
    `probabilities` (len(tested), C) are its answers, None where the saved model itself is to be asked.

    `exactly` gives probabilities (N, C) of pictures by what will be saved, computed as `predict` computes them, some of
    them known from before; None where `probabilities` are no less exact."""

    tested: list[int]
    probabilities: np.ndarray | None
    method: Literal["held-out", "k-fold"]
    shipped: str  # a sentence: on which pictures the model that is saved was fitted
    trained: list[str]  # names of the layer groups that were trained; none where all were, without groups
    precision: Precision
    seconds: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    stopped: bool = False
    exactly: Callable[[Sequence[Picture]], np.ndarray] | None = None
