"""Copies of a model that only answer, in which nothing is computed again for every batch that could be computed once.

A batch norm in eval mode is a scale and a shift for each channel, which the convolution before it can take into its
weights; and weights that autocast would round for each batch can be rounded beforehand. Nothing goes by names: what
feeds what is found by watching random pictures pass, and whether a copy answers as the model does is tried. Must not
know which number format is wanted, what answers are for, or what training is.
"""

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.utils.weak import WeakTensorKeyDictionary

from tl_core.ml.rehearsal import random_pictures, random_state_kept

# Of the largest feature. Folding changes roundings: the 9 architectures with batch norms that the tests hold it against
# differ by 5e-7 at most, a ResNet-18 by 2e-7, and by 8e-2 without any one of its 20 norms. Where a GPU convolves in
# TF32, roundings can be larger than this: then norms stay.
LARGEST_CHANGE = 1e-4
_PICTURES = 2
# What computes with weight and bias in one operation that autocast knows, and does nothing else with them.
_CAST_BY_AUTOCAST = (nn.Linear.forward, nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)

Autocast = Callable[[torch.device], torch.autocast]


def copy_sharing(model: nn.Module) -> nn.Module:
    """A copy in eval mode that has the weights and buffers of `model` itself, for as long as they are not replaced."""
    shared = {id(value): value for value in (*model.parameters(), *model.buffers())}
    for module in model.modules():  # some keep what they computed, which cannot be copied where gradients were recorded
        for held in vars(module).values():
            values = held.values() if isinstance(held, dict) else held if isinstance(held, list | tuple) else [held]
            for value in values:
                if isinstance(value, torch.Tensor) and value.grad_fn is not None:
                    shared[id(value)] = value.detach()
    return copy.deepcopy(model, shared).eval()


def fold_batch_norms(model: nn.Module, size: tuple[int, int]) -> nn.Module:
    """A copy that answers the same but for rounding, without the batch norms that a convolution before them can take.

    `size` is (height, width) of a picture. Where the copy would answer anything else, it has all of them.
    """
    folded = copy_sharing(model)
    convolutions, norms = _foldable(folded)
    if not convolutions or not norms:
        return folded
    device = next(model.parameters()).device
    pixels = random_pictures(_PICTURES, size, device)
    with random_state_kept(device):
        before, pairs = _watch(folded, pixels, convolutions, norms)
        for convolution, norm in pairs:
            for name, value in fuse_conv_bn_eval(convolution, norm).named_parameters():
                _replace(convolution, name, value)
        _take_out({norm for _, norm in pairs}, folded)
        try:
            after = _features(folded, pixels)
        except Exception:  # a model of any making may ask its norms, in its own way, for what an Identity has not
            after = None
    return folded if _agree(before, after) else copy_sharing(model)


def round_weights(model: nn.Module, size: tuple[int, int], dtype: torch.dtype, autocast: Autocast) -> nn.Module:
    """A copy that answers the same, bit for bit, in `autocast`, which finds nothing to cast to `dtype` any more.

    A model that does other things with its weights, or is not in `autocast` everywhere, keeps them.
    """
    rounded = copy_sharing(model)
    cast = [module for module in rounded.modules() if type(module).forward in _CAST_BY_AUTOCAST and _is_plain(module)]
    if all(module.weight.dtype == dtype for module in cast):
        return rounded
    for module in cast:
        # Whoever shares them with this module keeps its own: a copy that only answers needs no ties.
        for name in ("weight", "bias"):
            value = getattr(module, name)
            if value is not None:
                _replace(module, name, value.to(dtype))
    device = next(model.parameters()).device
    pixels = random_pictures(_PICTURES, size, device)
    with random_state_kept(device), autocast(device):
        before = _features(copy_sharing(model), pixels)
        try:
            after = _features(rounded, pixels)
        except RuntimeError:  # torch's word for operands of two number formats
            after = None
    same = before is not None and after is not None and torch.equal(before, after)
    return rounded if same else copy_sharing(model)


def lay_out(copied: nn.Module, memory_format: torch.memory_format) -> None:
    """Have the weights of a copy lie so; those that it shares with the model stay as they are there."""
    for module in copied.modules():
        for name, value in list(module.named_parameters(recurse=False)):
            if value.ndim == 4 and not value.is_contiguous(memory_format=memory_format):
                _replace(module, name, value.detach().contiguous(memory_format=memory_format))


def _foldable(model: nn.Module) -> tuple[set[nn.Conv2d], set[nn.BatchNorm2d]]:
    """Subclasses that compute in a way of their own (with an activation, with standardised weights) are not."""
    ways = nn.Conv2d.forward, nn.Conv2d._conv_forward
    alone = [module for module in model.modules() if _is_plain(module)]
    return (
        {
            each
            for each in alone
            if isinstance(each, nn.Conv2d) and (type(each).forward, type(each)._conv_forward) == ways
        },
        {each for each in alone if type(each) is nn.BatchNorm2d and each.running_mean is not None},
    )


def _is_plain(module: nn.Module) -> bool:
    """Whether it computes with what it holds and nothing else: no hooks, no parametrization of its weights."""
    hooks = module._forward_hooks or module._forward_pre_hooks
    return not hooks and getattr(module, "weight", None) is module._parameters.get("weight")


def _watch(
    model: nn.Module, pixels: torch.Tensor, convolutions: set[nn.Conv2d], norms: set[nn.BatchNorm2d]
) -> tuple[torch.Tensor | None, list[tuple[nn.Conv2d, nn.BatchNorm2d]]]:
    """The features, and which convolution, called once, gives what it makes to which norm, called once."""
    makers = WeakTensorKeyDictionary()
    called: list[nn.Module] = []
    fed: list[tuple[nn.Conv2d, nn.BatchNorm2d]] = []

    def made(module: nn.Module, _: object, output: torch.Tensor) -> None:
        called.append(module)
        makers[output] = module

    def given(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        called.append(module)
        if inputs and inputs[0] in makers:
            fed.append((makers[inputs[0]], module))  # type: ignore[arg-type]

    hooks = [module.register_forward_hook(made) for module in convolutions]
    hooks += [module.register_forward_pre_hook(given) for module in norms]
    try:
        features = _features(model, pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return features, [pair for pair in fed if all(called.count(module) == 1 for module in pair)]


def _features(model: nn.Module, pixels: torch.Tensor) -> torch.Tensor | None:
    """What enters the last linear layer, a classifier, whose random weights might hide what becomes of it."""
    entered: list[torch.Tensor] = []

    def enter(_: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        if given:
            entered[:] = [given[0].clone()]

    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]
    hooks = [module.register_forward_pre_hook(enter) for module in linears]
    try:
        with torch.no_grad():
            model(pixel_values=pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return entered[0] if entered else None


def _agree(before: torch.Tensor | None, after: torch.Tensor | None) -> bool:
    if before is None or after is None or before.shape != after.shape:
        return False
    return bool((before - after).abs().max() <= LARGEST_CHANGE * before.abs().max())


def _replace(module: nn.Module, name: str, value: torch.Tensor) -> None:
    setattr(module, name, nn.Parameter(value.detach(), requires_grad=False))


def _take_out(norms: set[nn.BatchNorm2d], model: nn.Module) -> None:
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in norms:
                parent._modules[name] = nn.Identity()
