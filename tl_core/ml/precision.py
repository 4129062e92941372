"""Which number format and memory layout to train in on this machine.

What pays depends on the architecture and the processor (bfloat16 can be 5 × faster or slower than float32), so `auto`
measures a few training steps of a copy of the model instead of knowing names. Must not know data or runs.
"""

import copy
import dataclasses
import time
from dataclasses import dataclass

import torch
from torch import nn

from tl_core.errors import ConfigError

# A gain below this is within the noise of a busy machine and not worth fewer bits.
WORTHWHILE = 1.15
_WARM_STEPS, _TIMED_STEPS, _BATCH = 1, 3, 16
# Networks with fewer convolutions (a patch embedding, say) gain nothing from the channels-last layout.
_MIN_CONVOLUTIONS = 5


@dataclass(frozen=True)
class Precision:
    """`dtype` is fp32, bf16 or fp16: the format of matrix products; weights stay in float32."""

    dtype: str
    channels_last: bool
    reason: str

    def autocast(self, device: torch.device) -> torch.autocast:
        kinds = {"fp32": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}
        return torch.autocast(device.type, kinds[self.dtype], enabled=self.dtype != "fp32")

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


def choose_training_precision(
    wanted: str, model: nn.Module, size: tuple[int, int], classes: int, device: torch.device
) -> Precision:
    """The precision to train `model` in. Raises ConfigError for one that this device does not have."""
    convolutional = sum(isinstance(module, nn.Conv2d) for module in model.modules()) >= _MIN_CONVOLUTIONS
    if wanted != "auto":
        asked = checked_precision(wanted, device)
        return dataclasses.replace(asked, channels_last=convolutional and wanted != "fp32")
    if device.type == "cuda":
        dtype = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return Precision(dtype, convolutional, f"what {torch.cuda.get_device_name()} has tensor cores for")
    if device.type != "cpu":
        return Precision("fp32", False, f"the one format known to work on {device.type}")
    plain = _seconds_per_step(model, size, classes, Precision("fp32", False, ""))
    layouts = [False, True] if convolutional else [False]
    timed = {layout: _seconds_per_step(model, size, classes, Precision("bf16", layout, "")) for layout in layouts}
    best = min(layouts, key=lambda layout: timed[layout])
    gain = plain / timed[best]
    if gain < WORTHWHILE:
        return Precision("fp32", False, f"measured: bf16 is {gain:.1f} × as fast here, which does not pay")
    return Precision("bf16", best, f"measured: {gain:.1f} × as fast as fp32 here")


def checked_precision(wanted: str, device: torch.device) -> Precision:
    """The precision that was asked for. Raises ConfigError where the device does not have it."""
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError("--precision fp16 needs a GPU and this machine has none; use auto, bf16 or fp32")
    return Precision(wanted, False, "as asked")


def _seconds_per_step(model: nn.Module, size: tuple[int, int], classes: int, precision: Precision) -> float:
    """The fastest of a few training steps on random pictures; the model itself is not touched."""
    twin = copy.deepcopy(model).train().to(memory_format=precision.memory_format)
    pixels = torch.rand(_BATCH, 3, *size).contiguous(memory_format=precision.memory_format)
    targets = torch.arange(_BATCH) % classes
    seconds = []
    for _ in range(_WARM_STEPS + _TIMED_STEPS):
        begun = time.perf_counter()
        with precision.autocast(torch.device("cpu")):
            loss = nn.functional.cross_entropy(twin(pixel_values=pixels).logits.float(), targets)
        loss.backward()
        twin.zero_grad()
        seconds.append(time.perf_counter() - begun)
    return min(seconds[_WARM_STEPS:])
