"""Which number format and memory layout to train in, and to compute features in, on this machine.

What pays depends on the architecture, the processor and the direction (bfloat16 can be 5 × faster or slower than
float32, and often pays forward but not for training), so `auto` measures the model instead of knowing names.
Must not know data or runs.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from tl_core.errors import ConfigError
from tl_core.ml.attention import has_choice, use_attention
from tl_core.ml.folding import copy_sharing, fold_batch_norms, lay_out, round_weights
from tl_core.ml.machine import supports_bfloat16
from tl_core.ml.rehearsal import Rehearsal, random_pictures, random_state_kept

# To be changed with the way of measuring formats, so that one that was chosen in another way is not remembered.
FORMATS_MEASURED = "side by side, batch norms folded, fp32 first"
# A gain below this is within the noise of a busy machine, worth neither fewer bits nor figures that change with it.
WORTHWHILE = 1.15
CLEARLY_SLOWER = 2.0  # more than what else the machine does slows a step by, as a rule
# No step is begun after this; slow models are measured on fewer pictures for it.
MEASURING_SECONDS = 20.0
# Features that take less than this in fp32 are not worth measuring for, nor fewer bits for.
LONG_FORWARD_SECONDS = 20.0
MEASURING_SHARE = 0.04  # of the time that the features would take in fp32; fewer bits take a third of that
# Networks with fewer convolutions (a patch embedding, say) gain nothing from the channels-last layout.
MIN_CONVOLUTIONS = 5
# torch 2.15 on a CPU with AVX-512 writes outside its memory and aborts in the backward pass of 1 × 1 convolutions with
# stride and fewer input channels than this (the lanes of a register) in the channels-last layout, from about 56 px on.
MIN_STRIDED_CHANNELS = 16
_WARM_STEPS, _TIMED_STEPS = 1, 3
_QUICK_SECONDS = 0.5
_FIRST_BATCH, _BATCH = 2, 16  # two, since batch norm cannot take statistics of one

_FEWER_BITS = {"bf16": torch.bfloat16, "fp16": torch.float16}

# Seconds that one step on so many pictures takes.
Step = Callable[[int], float]


@dataclass(frozen=True)
class Precision:
    """`dtype` is fp32, bf16 or fp16: the format of matrix products; the weights of a model that learns stay in float32.

    `plain_attention`: attention without torch's fused kernel.
    """

    dtype: str
    channels_last: bool
    reason: str
    plain_attention: bool = False

    def autocast(self, device: torch.device) -> torch.autocast:
        return torch.autocast(device.type, _FEWER_BITS.get(self.dtype, torch.bfloat16), enabled=self.dtype != "fp32")

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def label(self) -> str:
        layout = " in the channels-last layout" if self.channels_last else ""
        return f"{self.dtype}{layout}" + (" with plain attention" if self.plain_attention else "")


@dataclass
class Remembered:
    """What was found out about how one model answers on one machine; `choose_forward_precision` adds to it."""

    seconds: float | None = None  # in which one thread answers for a picture in fp32
    fastest: Precision | None = None


def prepare(model: nn.Module, precision: Precision) -> None:
    """Give the model the memory layout and the attention of `precision`, in place."""
    model.to(memory_format=precision.memory_format)
    use_attention(model, plain=precision.plain_attention)


def prepare_copy(model: nn.Module, size: tuple[int, int], precision: Precision) -> nn.Module:
    """A copy that answers as the model does when it is prepared for `precision`; the model stays as it is.

    `size` is (height, width) in pixels. The copy shares the weights that it can.
    """
    fewer_bits = _FEWER_BITS.get(precision.dtype)
    copied = round_weights(model, size, fewer_bits, precision.autocast) if fewer_bits else copy_sharing(model)
    return _arrange(copied, precision)


def _arrange(copied: nn.Module, precision: Precision) -> nn.Module:
    """The copy itself, with the memory layout and the attention of `precision`."""
    lay_out(copied, precision.memory_format)
    use_attention(copied, plain=precision.plain_attention)
    return copied


def rehearse(model: nn.Module, size: tuple[int, int], precision: Precision) -> Rehearsal:
    """Steps of the model in `precision`, on the device it is on. `size` is (height, width) in pixels."""
    autocast = precision.autocast(next(model.parameters()).device)
    return Rehearsal(model, size, precision.memory_format, autocast, plain_attention=precision.plain_attention)


PLAIN = Precision("fp32", False, "")


def choose_training_precision(
    wanted: str, model: nn.Module, size: tuple[int, int], classes: int, device: torch.device
) -> Precision:
    """The precision to train `model` in, as it stands: what is frozen or held in eval mode is measured so.

    `size` is (height, width) in pixels. Raises ConfigError for a precision that this device does not have.
    """
    formats = _training_formats(model, device)
    known = _known_precision(wanted, device, formats, has_choice(model))
    if known is not None:
        return known
    timed = measure_formats(
        formats,
        lambda precision: _training_step(model, size, classes, precision),
        MEASURING_SECONDS,
    )
    return choose_fastest(timed, "trains")


def formats_compared(wanted: str, model: nn.Module, device: torch.device, *, training: bool) -> int:
    """In how many formats steps are measured to choose one; 0 where the answer is known. Raises ConfigError."""
    formats = _training_formats(model, device) if training else _forward_formats(model, device)
    return 0 if _known_precision(wanted, device, formats, has_choice(model)) else len(formats)


def choose_forward_precision(
    wanted: str,
    model: nn.Module,
    size: tuple[int, int],
    pictures: int,
    device: torch.device,
    remembered: Remembered | None = None,
) -> Precision:
    """The precision to compute the features of so many pictures in; `auto` on a CPU measures only for a long job.

    `size` is (height, width) in pixels. What is `remembered` is not measured again, and what is measured is added to
    it; but a short job does not depend on whether there was a long one before it. Raises ConfigError for a precision
    that this device does not have.
    """
    formats = _forward_formats(model, device)
    known = _known_precision(wanted, device, formats, has_choice(model))
    if known is not None:
        return known
    first = formats[0]
    folded = cache(lambda: fold_batch_norms(model, size))
    try_first = cache(lambda: _time_few(forward_step(prepare_copy(folded(), size, first), size, first)))
    remembered = remembered or Remembered()
    if remembered.seconds is None:
        remembered.seconds = try_first()[1] / _FIRST_BATCH
    expected = remembered.seconds * pictures
    if expected < LONG_FORWARD_SECONDS:
        reason = f"about {expected:.0f} s of computing, too little to gain from fewer bits"
        return dataclasses.replace(first, reason=reason)
    if remembered.fastest is not None:
        return remembered.fastest
    rounded = cache(lambda dtype: prepare_copy(folded(), size, Precision(dtype, False, "")))  # once for all layouts
    timed = measure_formats(
        formats,
        lambda format_: forward_step(_arrange(copy_sharing(rounded(format_.dtype)), format_), size, format_),
        min(MEASURING_SECONDS, MEASURING_SHARE * expected),
        try_first(),
    )
    chosen = choose_fastest(timed, "computes features")
    if len(timed) > 1:  # a longer job has more time to try others in
        remembered.fastest = chosen
    return chosen


def checked_precision(wanted: str, device: torch.device) -> Precision:
    """The precision that was asked for. Raises ConfigError where the device does not have it."""
    if wanted == "fp16" and device.type == "cpu":
        raise ConfigError("--precision fp16 needs a GPU and this machine has none; use auto, bf16 or fp32")
    return Precision(wanted, False, "as asked")


def measure_formats(
    formats: list[Precision],
    prepare: Callable[[Precision], Step],
    seconds: float,
    first: tuple[Step, float] | None = None,
) -> dict[Precision, float]:
    """Seconds of the fastest of a few steps in each format, all on as many pictures as fit into so many `seconds`.

    Formats for which no time was left are missing; the first is always there. One that was clearly slower than another
    when it was first timed is not timed again. `first` is what `_time_few` says of the first, where that is known.
    """
    ends = time.perf_counter() + seconds
    step, taken = first or _time_few(prepare(formats[0]))
    steps, timed = {formats[0]: step}, {formats[0]: taken}
    per_picture = max(timed[formats[0]] / _FIRST_BATCH, 1e-9)
    batch = min(_BATCH, int(seconds / (len(formats) * (_WARM_STEPS + _TIMED_STEPS)) / per_picture))
    if batch > _FIRST_BATCH:  # in turns, so that what else the machine does slows all formats alike
        timed = {}
        order = formats * (_WARM_STEPS + _TIMED_STEPS)
    else:  # slow: fp32 is known by now, each of the others is worth one step, those that are near each other more
        batch = _FIRST_BATCH
        order = [precision for precision in formats[1:] for _ in range(_WARM_STEPS + 1)]
        order += formats * (_TIMED_STEPS - 1)
    for place, precision in enumerate(order):
        if timed and time.perf_counter() > ends:
            break
        if timed.get(precision, 0.0) > CLEARLY_SLOWER * min(timed.values(), default=0.0):
            continue
        if precision not in steps:
            steps[precision] = prepare(precision)
        taken = steps[precision](batch)
        if order[:place].count(precision) >= _WARM_STEPS:
            timed[precision] = min(taken, timed.get(precision, taken))
    return timed


def _time_few(step: Step) -> tuple[Step, float]:
    """The step, and its seconds for few pictures when it is warm: where that is quick, the fewest of some times."""
    for _ in range(_WARM_STEPS):
        step(_FIRST_BATCH)
    taken = [step(_FIRST_BATCH)]
    while len(taken) < _TIMED_STEPS and sum(taken) < _QUICK_SECONDS:
        taken.append(step(_FIRST_BATCH))
    return step, min(taken)


def choose_fastest(timed: dict[Precision, float], what: str) -> Precision:
    """From seconds in each format, of which the first is fp32: the fastest, where it is so by enough.

    Between two that are worthwhile, fp32 keeps more bits and wins unless bf16 gains by enough over it too; of two of as
    many bits that are nearly as fast, the one that was measured first.
    """
    plain = next(iter(timed))
    best = plain
    for dtype in ("fp32", "bf16"):
        paying = [format_ for format_ in timed if format_.dtype == dtype and timed[best] / timed[format_] >= WORTHWHILE]
        if paying:
            fastest = min(paying, key=timed.__getitem__)
            best = next(format_ for format_ in paying if timed[format_] / timed[fastest] < WORTHWHILE)
    if best != plain:
        reason = f"measured: {what} {timed[plain] / timed[best]:.1f} × as fast as in {plain.label} here"
        return dataclasses.replace(best, reason=reason)
    others = [format_ for format_ in timed if format_ != plain]
    if not others:
        return dataclasses.replace(plain, reason="one step is too slow here to try anything else")
    runner_up = min(others, key=timed.__getitem__)
    gain = timed[plain] / timed[runner_up]
    return dataclasses.replace(plain, reason=f"measured: {runner_up.label} is {gain:.1f} × as fast, which does not pay")


def _known_precision(
    wanted: str, device: torch.device, formats: Sequence[Precision], choice_of_attention: bool
) -> Precision | None:
    """What needs no measuring: an answer asked for, that of any device but a CPU, and the only one there is."""
    channels_last = any(precision.channels_last for precision in formats)
    if wanted != "auto":
        asked = checked_precision(wanted, device)
        return dataclasses.replace(
            asked,
            channels_last=formats[0].channels_last if wanted == "fp32" else channels_last,
            plain_attention=choice_of_attention and wanted == "bf16" and device.type == "cpu",
        )
    if device.type == "cuda":
        dtype = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return Precision(dtype, channels_last, f"what {torch.cuda.get_device_name()} has tensor cores for")
    if device.type != "cpu":
        return Precision("fp32", False, f"the one format known to work on {device.type}")
    if len(formats) == 1:
        return dataclasses.replace(formats[0], reason="fewer bits are no faster on this processor")
    return None


def _training_formats(model: nn.Module, device: torch.device) -> list[Precision]:
    """Plain fp32, with which others are compared, then these, likely gains first."""
    channels_last = gains_from_channels_last(model) and _can_train_channels_last(model, device)
    fp32_too = [Precision("fp32", True, "")] if channels_last else []
    return [PLAIN, *_fewer_bits(model, device, channels_last=channels_last), *fp32_too]


def _forward_formats(model: nn.Module, device: torch.device) -> list[Precision]:
    """fp32 in the layout in which answers come sooner, then fewer bits, likely gains first."""
    fp32 = Precision("fp32", answers_in_channels_last(model, device), "")
    return [fp32, *_fewer_bits(model, device, channels_last=gains_from_channels_last(model))]


def _fewer_bits(model: nn.Module, device: torch.device, *, channels_last: bool) -> list[Precision]:
    if not supports_bfloat16(device):
        return []
    layouts = [True, False] if channels_last else [False]
    ways = [True, False] if has_choice(model) else [False]
    return [Precision("bf16", layout, "", plain) for layout in layouts for plain in ways]


def gains_from_channels_last(model: nn.Module) -> bool:
    return sum(isinstance(module, nn.Conv2d) for module in model.modules()) >= MIN_CONVOLUTIONS


def answers_in_channels_last(model: nn.Module, device: torch.device) -> bool:
    """Whether a model that answers in fp32 does so sooner with its weights in the channels-last layout.

    In the other one, each convolution on a CPU would bring its pictures into this layout and back.
    """
    return device.type == "cpu" and gains_from_channels_last(model)


def _can_train_channels_last(model: nn.Module, device: torch.device) -> bool:
    return device.type != "cpu" or not any(
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and max(module.stride) > 1
        and module.in_channels < MIN_STRIDED_CHANNELS
        for module in model.modules()
    )


def forward_step(prepared: nn.Module, size: tuple[int, int], precision: Precision) -> Step:
    """Answers as the pass of a backbone that does not train computes them, of a copy that is prepared for it."""
    device = next(prepared.parameters()).device

    def step(images: int) -> float:
        pixels = random_pictures(images, size, device).contiguous(memory_format=precision.memory_format)
        with random_state_kept(device), torch.no_grad(), precision.autocast(device):
            begun = time.perf_counter()
            prepared(pixel_values=pixels)
            return time.perf_counter() - begun

    return step


def _training_step(model: nn.Module, size: tuple[int, int], classes: int, precision: Precision) -> Step:
    rehearsal = rehearse(model, size, precision)

    def step(images: int) -> float:
        pixels = rehearsal.pictures(images)
        with rehearsal.in_training():
            begun = time.perf_counter()
            rehearsal.loss(pixels, classes).backward()
            taken = time.perf_counter() - begun
        for copied in rehearsal.trained:
            copied.grad = None
        return taken

    return step
