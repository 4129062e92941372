"""The strategies of transfer learning on a backbone's layer groups: which of them train, and at which learning rate.

| name | what trains |
| --- | --- |
| frozen | the head alone |
| last-blocks | the head and the blocks next to it |
| full, lp-ft | everything, earlier groups more slowly |
| scratch | everything, all at one rate |

Must not know data, runs, or how gradient steps are taken.
"""

from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.hooks import RemovableHandle

from tl_core.ml.groups import LayerGroup


def choose_trained(strategy: str, groups: Sequence[LayerGroup], unfreeze_blocks: int | None = None) -> list[LayerGroup]:
    """The groups, from input to output, that `strategy` trains; `unfreeze_blocks` belongs to last-blocks.

    The stem is trained only by strategies that train everything.
    """
    if strategy == "frozen":
        return list(groups[-1:])
    if strategy == "last-blocks":
        return list(groups[max(1, len(groups) - 1 - (unfreeze_blocks or 0)) :])
    return list(groups)


def hold_frozen(model: nn.Module, frozen: Sequence[nn.Module]) -> RemovableHandle:
    """Keep `frozen`, modules of `model`, in eval mode whenever the model is called, until the handle is removed.

    `model.train()`, which transformers' Trainer calls at every step, switches them back: their batch norms would move
    and their dropout would act.
    """

    def rest(module: nn.Module, _: Any) -> None:
        if module.training:
            for part in frozen:
                part.eval()

    return model.register_forward_pre_hook(rest)


def parameter_groups(
    model: nn.Module, groups: Sequence[LayerGroup], learning_rate: float, layer_decay: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Groups for a torch optimizer: every trainable parameter of `model` once, with its learning rate and weight decay.

    The last of `groups` (the head) takes `learning_rate`, each earlier one `layer_decay` times that of the next (Howard
    and Ruder 2018, section 3.2; Clark et al. 2020, appendix A). Without `groups` all parameters take `learning_rate`.

    Only the weights of linear layers and convolutions are pulled towards zero: not norms, biases, tokens, position
    embeddings and tables. Shapes do not tell these apart: the bias of ConvNeXt V2's norm is (1, 1, 1, C), Swin's table
    of biases (positions, heads).
    """
    decaying = {module.weight for module in model.modules() if isinstance(module, nn.Linear | _ConvNd)}
    rates = {
        parameter: learning_rate * layer_decay ** (len(groups) - 1 - place)
        for place, group in enumerate(groups)
        for parameter in group.parameters
    }
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            decay = weight_decay if parameter in decaying else 0.0
            found.setdefault((rates.get(parameter, learning_rate), decay), []).append(parameter)
    return [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in found.items()]
