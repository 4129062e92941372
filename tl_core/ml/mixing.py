"""Mixing the images of a batch with one another, and their labels in the same measure (mixup and cutmix).

What is drawn depends on (seed, epoch, indices of the batch) alone. Must not know files, models or runs.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import one_hot
from torchvision.transforms import v2

from tl_core.ml.augmentation import Mix, stream_seed

# Both parameters of the Beta distribution that a pair's weights are drawn from: small ones leave most pairs nearly as
# they were. Mixup gains on ImageNet between 0.1 and 0.4 and underfits beyond (Zhang et al. 2018, section 3.1); cutmix
# was proposed with 1, every weight alike (Yun et al. 2019, section 3).
MIXUP_ALPHA = 0.2
CUTMIX_ALPHA = 1.0


class Mixing:
    """A batch of images and class numbers -> the images mixed, each with the one before it, and target probabilities.

    One kind and one weight per batch, as in the papers. `classes` is the number of classes.
    """

    def __init__(self, kind: Mix, classes: int, seed: int) -> None:
        self.classes = classes
        self.seed = seed
        made = []
        if kind in ("mixup", "both"):
            made.append(v2.MixUp(alpha=MIXUP_ALPHA, num_classes=classes))
        if kind in ("cutmix", "both"):
            made.append(v2.CutMix(alpha=CUTMIX_ALPHA, num_classes=classes))
        self.mix = v2.RandomChoice(made) if made else None

    def __call__(
        self, pixels: torch.Tensor, labels: torch.Tensor, epoch: int, indices: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, H, W) float and (B,) int64 -> the same shape and memory format, and (B, C) float32 of row sums 1.

        `indices` are those of the batch's images in the data set. A batch of one image is left as it is.
        """
        if self.mix is None or len(labels) < 2:
            return pixels, one_hot(labels, self.classes).float()
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator
            torch.default_generator.manual_seed(stream_seed(self.seed, epoch, indices))
            mixed, targets = self.mix(pixels, labels)
        return mixed, targets
