"""Steps of a model on random pictures that leave the model as it was, to see what real ones would take.

Must not know what is measured, time or memory.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.func import functional_call

from tl_core.ml.attention import is_plain, use_attention


def random_pictures(images: int, size: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Pixels (N, 3, H, W), always the same."""
    return torch.rand(images, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)


@contextmanager
def random_state_kept(device: torch.device) -> Iterator[None]:
    """Within, whatever draws at random leaves the process's generators as they were."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        yield


class Rehearsal:
    """A model with copies of its weights and buffers in their place, in one memory layout.

    The model's own modules run, with their hooks, frozen parameters and whatever holds parts of them in eval mode; its
    weights, gradients, batch statistics, modes and attention, and the random state of the process, stay as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        size: tuple[int, int],
        memory_format: torch.memory_format,
        autocast: torch.autocast,
        *,
        plain_attention: bool = False,
    ) -> None:
        """`size` is (height, width) in pixels."""
        self._model = model
        self._size = size
        self._memory_format = memory_format
        self._autocast = autocast
        self._plain_attention = plain_attention
        self.device = next(model.parameters()).device
        self._state: dict[str, torch.Tensor] = {}
        for name, value in (*model.named_parameters(), *model.named_buffers()):
            layout = memory_format if value.ndim == 4 else torch.contiguous_format
            laid_out = value.detach().clone().contiguous(memory_format=layout)
            self._state[name] = laid_out.requires_grad_(value.requires_grad)

    @property
    def trained(self) -> list[torch.Tensor]:
        """The copies of the parameters that train."""
        return [value for value in self._state.values() if value.requires_grad]

    @contextmanager
    def in_training(self) -> Iterator[None]:
        """Training mode for forward and backward; a model that is in it keeps those of its parts that are in eval."""
        with self._borrowed(), torch.enable_grad():
            if not self._model.training:
                self._model.train()
            yield

    @contextmanager
    def in_eval(self) -> Iterator[None]:
        with self._borrowed(), torch.no_grad():
            self._model.eval()
            yield

    def pictures(self, images: int) -> torch.Tensor:
        """Pixels (N, 3, H, W), always the same."""
        return random_pictures(images, self._size, self.device).contiguous(memory_format=self._memory_format)

    def answer(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits (N, C) in float32."""
        with self._autocast:
            return functional_call(self._model, self._state, (), {"pixel_values": pixels}).logits.float()

    def loss(self, pixels: torch.Tensor, classes: int) -> torch.Tensor:
        targets = torch.arange(len(pixels), device=self.device) % classes
        return nn.functional.cross_entropy(self.answer(pixels), targets)

    @contextmanager
    def _borrowed(self) -> Iterator[None]:
        modes = {module: module.training for module in self._model.modules()}
        plain = is_plain(self._model)
        use_attention(self._model, plain=self._plain_attention)
        with random_state_kept(self.device):
            try:
                yield
            finally:
                use_attention(self._model, plain=plain)
                for module, mode in modes.items():
                    module.training = mode
