"""How a model computes attention: by torch's fused kernel, or by its matrix products one after the other.

Both give the same but for rounding, and which is faster depends on the processor, the number format and the direction:
in bf16 on a CPU with AVX-512, torch 2.15's fused kernel takes 1.5 to 3 × as long forward and backward, for 64 tokens as
for 785. Must not know why one is wanted.
"""

from torch import nn
from transformers.modeling_utils import PreTrainedModel

FUSED, PLAIN = "sdpa", "eager"  # as transformers names them


def has_choice(model: nn.Module) -> bool:
    """Whether it has attention, and can compute it in either way."""
    return isinstance(model, PreTrainedModel) and model._supports_sdpa and model._can_set_attn_implementation()


def is_plain(model: nn.Module) -> bool:
    return isinstance(model, PreTrainedModel) and model.config._attn_implementation == PLAIN


def use_attention(model: nn.Module, *, plain: bool) -> None:
    """Change it in place; a model without a choice stays as it is."""
    if isinstance(model, PreTrainedModel) and has_choice(model) and is_plain(model) != plain:
        model.set_attn_implementation(PLAIN if plain else FUSED)
