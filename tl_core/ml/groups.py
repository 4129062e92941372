"""Layer groups: a backbone's parameters in the order in which a picture passes them, stem, blocks, head.

They are found by watching one picture pass through the model, with the graph that autograd draws of it. Where every
path from the picture to the logits goes through one value, the model can be cut; a residual, transformer or inception
block is what lies between two such places. Nothing here goes by the names of models, classes or attributes, and this
module must not know which groups a strategy trains.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.autograd.graph import Node

from tl_core.ml.backbone import CHANNELS, Backbone

LISTS = (nn.Sequential, nn.ModuleList)


@dataclass(frozen=True, eq=False)
class LayerGroup:
    """Layers that train or stay as they are together.

    Each of `modules` is a group's as a whole, with its buffers, and none lies in another. `parameters` also has those
    that a parent of the modules uses directly (class token, position embeddings).
    """

    name: str
    modules: tuple[nn.Module, ...]
    parameters: tuple[nn.Parameter, ...]


def layer_groups(backbone: Backbone) -> list[LayerGroup]:
    """The groups "stem", "block 1" … "block N", "head", from input to output; each parameter is in exactly one.

    A block is one residual, transformer or inception block, one entry of the model's list of blocks, or, in a network
    of plain layers, one layer with its norm. What leads from one block to the next (downsampling) goes with the next.
    The head is the classifier alone, so that training only the head is the linear probe of the frozen strategy; what
    lies between the last block and the classifier (final norm, pooler, last convolution) goes with the last block, and
    so is trained by whatever trains more than the head. A parameter that several groups share goes with the first of
    them: training a late group must not change a frozen earlier one. Raises ModelError for a model without a single
    linear classifier, or that refuses the processor's picture size.
    """
    head = backbone.head
    passage = _watch(backbone, head)
    units = list(_unfold(backbone.model, passage, listed=False))
    at_head = next(place for place, unit in enumerate(units) if head in unit.modules)
    body = _divide(units[:at_head])
    names = ["stem", *(f"block {number}" for number in range(1, len(body))), "head"]
    seen: set[nn.Module | nn.Parameter] = set()
    return [_group(name, units, seen) for name, units in zip(names, [*body, units[at_head:]], strict=True)]


def train_only(
    model: nn.Module, groups: Sequence[LayerGroup], trained: Collection[LayerGroup]
) -> tuple[nn.Module, ...]:
    """Let gradients reach the parameters of `trained`, some of the `groups` of `model`, and no others.

    Returns the modules of the other groups, which must be in eval mode whenever the model trains: `model.train()`
    switches them back, and their batch norms would then move and their dropout act. Raises ValueError when `trained`
    has groups that are not among `groups`.
    """
    strangers = [group.name for group in trained if group not in groups]
    if strangers:
        raise ValueError(f"not groups of this model: {', '.join(strangers)}")
    model.requires_grad_(False)
    for group in trained:
        for parameter in group.parameters:
            parameter.requires_grad_(True)
    return tuple(module for group in groups if group not in trained for module in group.modules)


@dataclass(eq=False)
class _Unit:
    """A stretch of the model that is not divided further; `parameters` are those of no module in it."""

    modules: list[nn.Module]
    listed: bool  # an entry of a list of modules
    branches: bool  # has a skip, or paths side by side
    parameters: list[nn.Parameter] = field(default_factory=list)

    @property
    def mixes(self) -> bool:
        return any(_mixes_channels(module) for module in self.modules)

    @property
    def is_depthwise(self) -> bool:
        return not self.mixes and any(_is_depthwise(part) for module in self.modules for part in module.modules())


@dataclass
class _Passage:
    """One picture's way through a model.

    `outputs` has, for each module that was called, in the order of the first calls, the places of what each call gave:
    places count the operations from the picture to the logits, and None is for what does not depend on the picture.
    `cuts` are the places that every path goes through.
    """

    outputs: dict[nn.Module, list[int | None]]
    cuts: set[int]
    head: nn.Linear

    def branches(self, module: nn.Module) -> bool:
        places = (place for part in module.modules() for place in self.outputs.get(part, ()))
        return any(place is not None and place not in self.cuts for place in places)

    def in_order(self, modules: Collection[nn.Module]) -> list[nn.Module]:
        return [module for module in self.outputs if module in modules]


def _watch(backbone: Backbone, head: nn.Linear) -> _Passage:
    model = backbone.model
    began: dict[nn.Module, list[list[Node]]] = {}

    def begin(module: nn.Module, _: Any) -> None:
        began.setdefault(module, [])

    def remember(module: nn.Module, _: Any, output: Any) -> None:
        began[module].append([tensor.grad_fn for tensor in _tensors(output) if tensor.grad_fn is not None])

    hooks = [module.register_forward_pre_hook(begin) for module in model.modules()]
    hooks += [module.register_forward_hook(remember) for module in model.modules()]
    was_training = {module: module.training for module in model.modules()}
    first = next(model.parameters())
    noise = torch.randn(1, CHANNELS, *backbone.input_size, generator=torch.Generator().manual_seed(0))
    try:
        model.eval()
        with torch.enable_grad():
            picture = noise.to(first).requires_grad_().clone()  # a copy has a node, which the leaf itself has not
            source = picture.grad_fn
            logits = model(pixel_values=picture).logits
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in was_training.items():
            module.training = training
    places, cuts = _find_cuts(source, logits.grad_fn)
    outputs = {
        module: [max((places[node] for node in nodes if node in places), default=None) for nodes in calls]
        for module, calls in began.items()
    }
    return _Passage(outputs, cuts, head)


def _find_cuts(source: Node | None, sink: Node | None) -> tuple[dict[Node, int], set[int]]:
    """The operations on paths from `source` to `sink`, numbered so that each comes after what it uses, and the cuts."""
    assert source is not None and sink is not None
    places: dict[Node, int] = {source: 0}
    visited: set[Node] = {source}
    last_use = [0]
    stack: list[tuple[Node, bool]] = [(sink, False)]
    while stack:
        node, inputs_done = stack.pop()
        inputs = [used for used, _ in node.next_functions if used is not None]
        if not inputs_done:
            if node not in visited:
                visited.add(node)
                stack.append((node, True))
                stack.extend((used, False) for used in inputs)
        elif on_path := [places[used] for used in inputs if used in places]:
            places[node] = len(last_use)
            for place in on_path:
                last_use[place] = places[node]
            last_use.append(places[node])
    cuts = set()
    reach = 0
    for place, use in enumerate(last_use):
        if reach <= place:  # nothing from before is used after
            cuts.add(place)
        reach = max(reach, use)
    return places, cuts


def _unfold(module: nn.Module, passage: _Passage, listed: bool) -> Iterator[_Unit]:
    """The units of a module that was called, in the order of their first calls."""
    parts, rest, parameters = _open(module, passage)
    stretches = _stretches(passage.in_order(parts), passage)
    if not _is_container(module, stretches, passage, listed):
        yield _Unit([module], listed, passage.branches(module))
        return
    units: list[_Unit] = []
    for stretch in stretches:
        if len(stretch) == 1:
            units.extend(_unfold(stretch[0], passage, parts[stretch[0]]))
        else:
            units.append(_Unit(stretch, listed=False, branches=True))
    # What a container uses itself goes with its first unit, which is where tokens and position embeddings enter.
    units[0].modules.extend(rest)
    units[0].parameters.extend(parameters)
    yield from units


def _is_container(module: nn.Module, stretches: list[list[nn.Module]], passage: _Passage, listed: bool) -> bool:
    """Whether a module is a way through blocks (a model, an encoder, a stage), not a block or a layer itself."""
    if passage.head in module.modules():
        return module is not passage.head
    straight = bool(stretches) and all(len(stretch) == 1 for stretch in stretches)
    if isinstance(module, LISTS):
        return straight
    holds_blocks = any(
        isinstance(part, LISTS) and any(_is_composite(entry) for entry in part) for part in module.modules()
    )
    if listed:
        return straight and holds_blocks
    has_state = any(True for _ in (*module.parameters(recurse=False), *module.buffers(recurse=False)))
    return (straight and not has_state) or (len(stretches) > 1 and holds_blocks)


def _open(module: nn.Module, passage: _Passage) -> tuple[dict[nn.Module, bool], list[nn.Module], list[nn.Parameter]]:
    """What a module is made of: parts that were called and whether a list has them, the other modules, parameters.

    Lists are mostly not called, only their entries are: one looks through whatever was not called itself.
    """
    parts: dict[nn.Module, bool] = {}
    rest: list[nn.Module] = []
    parameters = list(module.parameters(recurse=False))
    for child in module.children():
        if child in passage.outputs:
            parts[child] = isinstance(module, LISTS)
        elif any(part in passage.outputs for part in child.modules()):
            inner_parts, inner_rest, inner_parameters = _open(child, passage)
            parts.update(inner_parts)
            rest.extend(inner_rest)
            parameters.extend(inner_parameters)
        else:
            rest.append(child)
    return parts, rest, parameters


def _stretches(parts: Sequence[nn.Module], passage: _Passage) -> list[list[nn.Module]]:
    """Divide parts, in the order of their calls, wherever all that follows depends on one value only."""
    stretches: list[list[nn.Module]] = []
    current: list[nn.Module] = []
    furthest = -1
    for part in parts:
        places = [place for place in passage.outputs[part] if place is not None]
        has_head = passage.head in part.modules()
        if has_head and current:
            stretches.append(current)
            current = []
        current.append(part)
        furthest = max([furthest, *places[:1]])
        beside = not places and len(current) == 1  # not on the way: an attention bias, a mask
        at_cut = bool(places) and places[0] == furthest and all(place in passage.cuts for place in places)
        if has_head or beside or at_cut:
            stretches.append(current)
            current = []
    return [*stretches, current] if current else stretches


def _divide(units: list[_Unit]) -> list[list[_Unit]]:
    """Units before the classifier as stem and blocks."""
    kinds = {type(unit.modules[0]) for unit in units if unit.branches} - set(LISTS)
    blocks = [
        unit
        for unit in units
        if unit.branches
        or type(unit.modules[0]) in kinds
        or (unit.listed and unit.mixes and _is_composite(unit.modules[0]))
    ]
    if not blocks:  # plain layers in a row: each layer begins a group, which its norm and activation follow
        begins = {unit for unit in units if unit.mixes}
        return _split(units, [place for place, unit in enumerate(units) if unit in begins][1:])
    ends = [place for place, unit in enumerate(units) if unit in blocks]
    begins_at = [end + 1 for end in ends[:-1]]
    first = ends[0]
    while first and units[first - 1].is_depthwise:  # half of a separable convolution that is listed as two layers
        first -= 1
    has_stem = any(unit.mixes for unit in units[:first])
    return _split(units, [first, *begins_at] if has_stem else begins_at)


def _split(units: list[_Unit], begins: list[int]) -> list[list[_Unit]]:
    return [units[begin:end] for begin, end in zip([0, *begins], [*begins, len(units)], strict=True)]


def _group(name: str, units: list[_Unit], seen: set[nn.Module | nn.Parameter]) -> LayerGroup:
    """A group of `units`, without what earlier groups have, which is `seen`."""
    modules = tuple(dict.fromkeys(module for unit in units for module in unit.modules if module not in seen))
    owned = [parameter for unit in units for parameter in unit.parameters]
    owned += [parameter for module in modules for parameter in module.parameters()]
    parameters = tuple(parameter for parameter in dict.fromkeys(owned) if parameter not in seen)
    seen.update(modules, parameters)
    return LayerGroup(name, modules, parameters)


def _is_composite(module: nn.Module) -> bool:
    """Whether a module has layers of its own, at least one of which combines channels."""
    return any(True for _ in module.children()) and _mixes_channels(module)


def _mixes_channels(module: nn.Module) -> bool:
    """Whether there is a weight that combines channels, as norms and depthwise convolutions do not."""
    for part in module.modules():
        if not _is_depthwise(part) and any(parameter.ndim > 1 for parameter in part.parameters(recurse=False)):
            return True
    return False


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):
        for value in output.values():
            yield from _tensors(value)
    elif isinstance(output, list | tuple):
        for value in output:
            yield from _tensors(value)
