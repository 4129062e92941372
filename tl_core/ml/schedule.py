"""The learning rate over a training: up to its peak, then down to nothing at the last step or when the time is up.

Must not know models, optimisers or runs.
"""

import math


class WarmupCosine:
    """A factor of the peak rate for each step: linear warm-up, then half a cosine (Loshchilov and Hutter 2017).

    With `limit_seconds` it follows whichever is further, steps or time (Li et al. 2020, "Budgeted Training"): a
    training that runs out of time has then been at its peak and come to rest as well. `elapsed_seconds` is kept up to
    date from outside; without a limit the factor is a function of the step alone.
    """

    def __init__(self, steps: int, warmup_steps: int, limit_seconds: float | None = None) -> None:
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.limit_seconds = limit_seconds
        self.elapsed_seconds = 0.0

    def __call__(self, step: int) -> float:
        done = step / self.steps
        if self.limit_seconds:
            done = max(done, self.elapsed_seconds / self.limit_seconds)
        warm = self.warmup_steps / self.steps
        rise = max(done, (step + 1) / self.steps) / max(warm, 1 / self.steps)
        done = (done - warm) / max(1 - warm, 1 / self.steps)
        return min(rise, 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, done)))))
