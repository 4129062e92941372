"""What looks at the validation images decide: whose weights are kept, and when a training that gains nothing ends.

Must not know models, files or how an accuracy came about.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# Weights that a training has destroyed may still get as many right of few images by chance. But their loss is this and
# more above the lowest, where the true classes are on average e times less probable, and above that of guessing.
MAX_LOSS_RISE = 1.0


@dataclass(frozen=True)
class Look:
    """A look at the validation images: their accuracy and mean loss at an optimiser step."""

    step: int
    accuracy: float
    loss: float


@dataclass
class Steering:
    """The looks of one training so far, at `images` validation images of `classes` classes.

    Of the looks whose accuracy is within one standard error of the best, the latest is kept: towards the end of a
    schedule weights come to rest, and a look that is higher by less than chance is no reason to prefer restless ones
    (the one-standard-error rule: Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3). On few
    images that is nearly always the last look, on many the best.
    """

    images: int
    classes: int
    patience_steps: int  # without a higher accuracy or a lower loss, after which the training ends; 0: never
    looks: list[Look] = field(default_factory=list)

    def add(self, look: Look) -> bool:
        """Whether the weights at this look are to be kept, in place of those kept before."""
        self.looks.append(look)
        return self.would_keep(look)

    def would_keep(self, look: Look) -> bool:
        sound = [each for each in self.looks if math.isfinite(each.loss)]
        lowest = min((each.loss for each in sound), default=math.inf)
        if not math.isfinite(look.loss) or look.loss > max(lowest + MAX_LOSS_RISE, math.log(self.classes)):
            return False
        best = max((each.accuracy for each in sound), default=0.0)
        return look.accuracy >= best - self._error(best)

    def is_in_vain(self) -> bool:
        """Whether the training has gained nothing for so long that it should end."""
        if not self.patience_steps or not self.looks:
            return False
        return self.looks[-1].step - _last_gain(self.looks) >= self.patience_steps

    def _error(self, best: float) -> float:
        """Standard error of the best accuracy, by Laplace's estimate: all right of thirty is not certainty."""
        share = (best * self.images + 1) / (self.images + 2)
        return math.sqrt(share * (1 - share) / self.images)


def _last_gain(looks: Sequence[Look]) -> int:
    """The step of the last look with a higher accuracy or a lower loss than all before."""
    gained, accuracy, loss = 0, -1.0, math.inf
    for look in looks:
        if look.accuracy > accuracy or look.loss < loss:
            gained = look.step
        accuracy, loss = max(accuracy, look.accuracy), min(loss, look.loss)
    return gained
