"""How much memory a training takes, and so how many images can be in one batch.

Counted on the real model, since no rule by parameters holds for both convolutions and attention. Must not know data,
runs or options: it turns bytes into batch sizes, and switches on what trades time for bytes.
"""

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.modeling_utils import PreTrainedModel

from tl_core.errors import JobError
from tl_core.ml.precision import Precision, rehearse

# What training steps took over what is counted here, since kernels have workspaces of their own and allocators keep
# gaps: the growth of peak resident memory on a CPU was 1.03 to 1.30 of the count (ResNet-18, ConvNeXt and ViT of 7 to
# 11 M parameters, 160 to 224 px, batch 8 and 32, fp32 and bf16, with and without channels-last).
OVERHEAD = 1.35
# The rest is for the processes that decode images, validation, checkpoints, and whatever else the machine does.
USABLE_SHARE = 0.75
# A batch this near to the wanted one trains alike; more accumulation for the exact number would only cost time.
BATCH_TOLERANCE = 0.05
MIN_BATCH = 2  # batch norm cannot take statistics of one image
LESS_MEMORY = (
    "use a smaller --image-size, a smaller backbone, or a strategy that trains less (--strategy frozen or last-blocks)"
)
_SMALL = 64  # up to here there is a batch that leaves no single image over, for any count below 10^27
_NO_LIMIT = 1 << 60  # cgroup v1 has no word for "none", it gives a huge number


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes of a training with AdamW: `fixed` whatever the batch, and `per_image` more for each image in it."""

    fixed: int
    per_image: int


def training_bytes(model: nn.Module, size: tuple[int, int], classes: int, precision: Precision) -> TrainingMemory:
    """Count the memory of a training step of `model`, as it stands, on pictures of `size` = (height, width) pixels.

    `fixed` has weights, gradients, two moments of whatever has `requires_grad`, and the copies of weights that autocast
    makes; `per_image` is the growth of the peak from a step of two images to a step of three. What is frozen, held in
    eval mode or checkpointed is counted so. A model in eval mode is counted in training mode. The model, its batch
    statistics and the random state stay as they were.
    """
    two, three = (_count_step(model, size, classes, precision, images) for images in (2, 3))
    saved = three.saved - two.saved
    casts = max(0, two.saved - 2 * saved)
    weights = sum(value.nbytes for value in (*model.parameters(), *model.buffers()))
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    return TrainingMemory(weights + 3 * trained + casts, max(saved, three.peak - two.peak))


def available_memory(device: torch.device) -> int:
    """Bytes that a training on `device` can still take; on a CPU also within the limit of this container."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    limits = [psutil.virtual_memory().available, cgroup_memory()]
    return min(limit for limit in limits if limit is not None)


def cgroup_memory(groups: Path = Path("/sys/fs/cgroup"), process: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes left to this process under Linux control groups, version 1 or 2; None where there is no limit.

    Every group above the process's own limits it too. In a container, the path that `process` gives may be the
    host's, and the group that counts is then the root that is mounted.
    """
    try:
        lines = process.read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return None
    left: list[int] = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controllers == "":
            files, root = ("memory.max", "memory.current", "inactive_file"), groups
        elif "memory" in controllers.split(","):
            files = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            root = groups / "memory"
        else:
            continue
        own = root / path.lstrip("/")
        for group in [own, *(parent for parent in own.parents if parent.is_relative_to(root))]:
            bytes_left = _left_in(group, *files)
            if bytes_left is not None:
                left.append(bytes_left)
    return min(left, default=None)


def largest_batch(memory: TrainingMemory, available: int) -> int:
    """How many images fit into one batch; 0 where not even the weights do."""
    usable = available * USABLE_SHARE - memory.fixed * OVERHEAD
    return max(0, int(usable / max(1.0, memory.per_image * OVERHEAD)))


def fit_batch(wanted: int, images: int, limit: int) -> tuple[int, int, int]:
    """(effective, micro, accumulation): a batch near `wanted` made of equal micro-batches of at most `limit` images.

    Passes over `images` images never end with a micro-batch of one image. Among batches within `BATCH_TOLERANCE` of
    `wanted`, the one with the fewest micro-batches is taken. Raises JobError when no micro-batch within the limit
    divides the images so, and when the limit is below two.
    """
    if limit < MIN_BATCH:
        raise JobError(f"there is too little free memory to train this backbone; {LESS_MEMORY}")
    batches = []
    for micro in range(MIN_BATCH, min(limit, max(2 * wanted, _SMALL)) + 1):
        if images > 1 and images % micro == 1:
            continue
        for accumulation in {max(1, wanted // micro), wanted // micro + 1}:
            distance = abs(micro * accumulation - wanted)
            beyond = max(0.0, distance - BATCH_TOLERANCE * wanted)
            batches.append((beyond, accumulation, distance, -micro))
    if not batches:
        raise JobError(
            f"there is free memory for {limit} images at a time, which divides {images:,} training images with one "
            f"left over, and batch norm cannot be taught with one; add an image, or {LESS_MEMORY}"
        )
    _, accumulation, _, negative = min(batches)
    return -negative * accumulation, -negative, accumulation


def probe_cuda_batch(model: nn.Module, size: tuple[int, int], classes: int, precision: Precision, micro: int) -> int:
    """The micro-batch, `micro` or it halved some times, at which a training step fits into the GPU that `model` is on.

    Tried on a copy of the model with random pictures. Raises JobError when not even two images fit.
    """
    while not _step_fits(model, size, classes, precision, micro):
        torch.cuda.empty_cache()
        if micro <= MIN_BATCH:
            raise JobError(
                f"the GPU has too little free memory to train this backbone on {MIN_BATCH} pictures of {size[1]} × "
                f"{size[0]} pixels at a time; end what else uses it, or {LESS_MEMORY}"
            )
        micro = max(MIN_BATCH, micro // 2)
    torch.cuda.empty_cache()
    return micro


def checkpoint_activations(model: nn.Module) -> bool:
    """Keep only the inputs of blocks and compute the rest again in the backward pass (Chen et al. 2016).

    Gradients stay the same, dropout included, for a third more time. Returns whether it was switched on: not where the
    architecture has no support for it, nor with batch norms, whose running statistics would move twice in each step.
    """
    if not isinstance(model, PreTrainedModel) or not model.supports_gradient_checkpointing:
        return False
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        return False
    # The reentrant kind finds no gradients behind a frozen stem.
    model.activation_checkpointing_enable({"use_reentrant": False})
    return True


@dataclass(frozen=True)
class _StepBytes:
    """Bytes beside weights and their gradients: alive between forward and backward, and at the most."""

    saved: int
    peak: int


class _Allocations(TorchDispatchMode):
    """Keeps account of the storages that are made while it is on: (key, bytes), and (key, -bytes) when one goes."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[int, int]] = []
        self._keys: dict[int, int] = {}

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        inputs = {_address(value) for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        result = operation(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, torch.Tensor) and _address(value) not in inputs:
                self._note(value)
        return result

    def key(self, tensor: torch.Tensor) -> int | None:
        return self._keys.get(_address(tensor))

    def _note(self, tensor: torch.Tensor) -> None:
        address = _address(tensor)
        if address not in self._keys:
            storage = tensor.untyped_storage()
            self._keys[address] = len(self.events)
            self.events.append((self._keys[address], storage.nbytes()))
            weakref.finalize(storage, self._forget, address, storage.nbytes())

    def _forget(self, address: int, freed: int) -> None:
        self.events.append((self._keys.pop(address), -freed))


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _count_step(model: nn.Module, size: tuple[int, int], classes: int, precision: Precision, images: int) -> _StepBytes:
    rehearsal = rehearse(model, size, precision)
    with rehearsal.in_training(), _Allocations() as allocations:
        loss = rehearsal.loss(rehearsal.pictures(images), classes)
        forward = len(allocations.events)
        trained = rehearsal.trained
        gradients = torch.autograd.grad(loss, trained, allow_unused=True) if trained else ()
        of_parameters = {allocations.key(gradient) for gradient in gradients if gradient is not None}
    alive = [0]
    for key, change in allocations.events:
        alive.append(alive[-1] + (0 if key in of_parameters else change))
    return _StepBytes(alive[forward], max(alive))


def _step_fits(model: nn.Module, size: tuple[int, int], classes: int, precision: Precision, images: int) -> bool:
    try:
        rehearsal = rehearse(model, size, precision)
        optimizer = torch.optim.AdamW(rehearsal.trained, fused=True)
        with rehearsal.in_training():
            rehearsal.loss(rehearsal.pictures(images), classes).backward()
        optimizer.step()
    except torch.OutOfMemoryError:
        return False
    return True


def _left_in(group: Path, limit_file: str, usage_file: str, cache_name: str) -> int | None:
    """Bytes left in one control group; file pages that the kernel can drop at once count as left."""
    try:
        limit = (group / limit_file).read_text(encoding="ascii").strip()
        if limit == "max" or int(limit) >= _NO_LIMIT:
            return None
        used = int((group / usage_file).read_text(encoding="ascii"))
        counted = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
    except OSError:  # this group is not mounted here, or is the root, which has no limit
        return None
    return max(0, int(limit) - used + int(counted.get(cache_name, 0)))
