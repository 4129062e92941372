"""What a backbone that does not train makes of pictures: one pass over those that the feature store does not know.

`backbone_features` and `view_features` are asked; a `BackbonePass` is the work itself, as it can be sent to another
process. Must not know strategies, heads' training or runs' folders.
"""

import io
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from threading import get_ident
from typing import Any

import numpy as np
import torch
from torch import nn

from tl_core.images.collection import Picture
from tl_core.ml.allocation import give_back_freed_memory
from tl_core.ml.backbone import Backbone, fingerprint, linear_head
from tl_core.ml.feature_store import FeatureStore
from tl_core.ml.features import Encoded, Encoder, compute_features, encode_reading_ahead, undivided
from tl_core.ml.folding import fold_batch_norms
from tl_core.ml.machine import current_device, map_side_by_side, pictures_at_a_time, threads_side_by_side
from tl_core.ml.pixels import VERSION, PixelReader
from tl_core.ml.precision import Precision, answers_in_channels_last, prepare_copy
from tl_core.ml.shards import division
from tl_core.ml.views import VERSION as VIEWS_VERSION
from tl_core.ml.views import View, ViewReader, views_of
from tl_core.recorder import Recorder, StopRequested
from tl_core.settings import Settings


def backbone_features(
    backbone: Backbone,
    head: nn.Linear,
    pictures: Sequence[Picture],
    precision: Precision,
    settings: Settings,
    recorder: Recorder,
    *,
    mirrored: bool = False,
    divided: bool = True,
) -> np.ndarray:
    """(N, D) float32: what enters `head`, the model's own classifier, from the store where it is known.

    With `mirrored`, of the mirror images of the pictures. `divided`: where there are several processes, among them.
    Raises StopRequested, DataError, ModelError, JobError.
    """
    work = BackbonePass(backbone.model, head, backbone.processor, backbone.input_size, precision, settings, mirrored)
    recorder.stage("asking about mirror images" if mirrored else "computing features", len(pictures))
    return _computed(work, pictures, features_key(backbone, precision, mirrored=mirrored), recorder, divided=divided)


def view_features(
    backbone: Backbone,
    head: nn.Linear,
    pictures: Sequence[Picture],
    views: int,
    precision: Precision,
    settings: Settings,
    recorder: Recorder,
    *,
    mirror: bool,
) -> np.ndarray:
    """(N, views, D) float32: the same of varied versions of the pictures; with `mirror` half of them left for right."""
    work = BackbonePass(
        backbone.model, head, backbone.processor, backbone.input_size, precision, settings, mirror, varied=True
    )
    wanted = views_of(pictures, views)
    recorder.stage("computing features of varied versions", len(wanted))
    features = _computed(work, wanted, views_key(backbone, precision, mirror=mirror), recorder)
    return features.reshape(len(pictures), views, -1)


def exact_features(
    backbone: Backbone, head: nn.Linear, pictures: Sequence[Picture], settings: Settings, recorder: Recorder
) -> np.ndarray:
    """(N, D) float32: as `predict` has them, of whole pictures by the checkpoint's own processor in fp32.

    What `backbone_features` is held against; from the store where it is known. It is not divided among processes, and
    nobody can stop it. Raises DataError, ModelError, JobError.
    """
    precision = Precision("fp32", answers_in_channels_last(backbone.model, current_device()), "")
    work = BackbonePass(
        backbone.model, head, backbone.processor, backbone.input_size, precision, settings, False, exact=True
    )
    return _computed(work, pictures, exact_key(backbone), recorder, divided=False, can_stop=False)


def seconds_of_pass(backbone: Backbone, pictures: Sequence[Picture], precision: Precision, settings: Settings) -> float:
    """About how long features of all `pictures` take, from those of a few; rather too long than too short."""
    head, size = linear_head(backbone), backbone.input_size
    encode = BackbonePass(backbone.model, head, backbone.processor, size, precision, settings, False).encoder()
    batch = pictures_at_a_time(size)
    few = pictures[: batch * threads_side_by_side()]
    begun = time.perf_counter()
    computed = sum(len(encoded) for _, encoded in encode([few[at : at + batch] for at in range(0, len(few), batch)]))
    return (time.perf_counter() - begun) / computed * len(pictures)


def pictures_read_at_a_time(settings: Settings) -> int:
    """In how many threads pictures are read while others pass the backbone."""
    threads = threads_side_by_side()
    return threads if threads > 1 else settings.workers


def features_key(backbone: Backbone, precision: Precision, *, mirrored: bool = False) -> str:
    """Names the store of features that are computed so.

    What changes them only within the roundings of the number format is not in it: the memory layout, the way of
    attention, batch norms that are folded.
    """
    return f"{fingerprint(backbone)}-{precision.dtype}-{VERSION}" + ("-mirrored" if mirrored else "")


def views_key(backbone: Backbone, precision: Precision, *, mirror: bool) -> str:
    """The same for varied versions, of which with `mirror` half are left for right."""
    return f"{fingerprint(backbone)}-{precision.dtype}-{VIEWS_VERSION}" + ("-mirror" if mirror else "")


def exact_key(backbone: Backbone) -> str:
    """The same for what `predict` computes, which these libraries may change."""
    makers = "-".join(version(library) for library in ("transformers", "torchvision", "pillow"))
    return f"{fingerprint(backbone)}-exact-{makers}"


@dataclass(frozen=True)
class BackbonePass:
    """All that makes features of files, as it can be sent to another process, which has another device.

    `size` is (height, width) of the backbone's input. `varied`: of varied versions, which are Views, not of pictures.
    `exact`: of whole pictures, by the processor itself.
    """

    model: nn.Module
    head: nn.Linear
    processor: Any
    size: tuple[int, int]
    precision: Precision
    settings: Settings
    mirrored: bool
    varied: bool = False
    exact: bool = False

    def encoding(self, batch: Callable[[list[Any]], torch.Tensor]) -> Callable[[list[Any]], np.ndarray]:
        """Put the model where it computes; what encodes pictures of which `batch` makes one tensor, in any thread.

        A copy of it computes, which is gone with what encodes; one that is to be exact keeps its norms, as `predict`'s.
        """
        device = current_device()
        model = self.model.to(device)
        copied = prepare_copy(model if self.exact else fold_batch_norms(model, self.size), self.size, self.precision)
        head = copied.get_submodule(next(name for name, module in model.named_modules() if module is self.head))
        assert isinstance(head, nn.Linear)

        def encode(some: list[Any]) -> np.ndarray:
            pixels = batch(some).to(device, memory_format=self.precision.memory_format)
            return encode_batch(copied, head, pixels, self.precision)

        return encode

    def encoder(self) -> Encoder[Any]:
        """What computes batches, ready to begin."""
        load, batch_up = self._reading()
        encode = self.encoding(batch_up)

        def work(batch: Sequence[Any]) -> np.ndarray:
            return encode([load(picture) for picture in batch])

        def encode_batches(batches: Sequence[Sequence[Any]]) -> Encoded[Any]:
            threads = min(threads_side_by_side(), len(batches))
            if threads < 2:
                yield from encode_reading_ahead(batches, load, encode, self.settings.workers)
                return
            with closing(map_side_by_side(work, batches, threads)) as computed:
                yield from zip(batches, computed, strict=True)

        return encode_batches

    def _reading(self) -> tuple[Callable[[Any], Any], Callable[[list[Any]], torch.Tensor]]:
        limit = self.settings.max_pixels
        if self.varied:
            views = ViewReader(self.processor, self.size, limit, mirror=self.mirrored)
            return views.read, views.vary
        reader = PixelReader(self.processor, limit, mirrored=self.mirrored, exact=self.exact)
        return (lambda picture: reader.read(picture.path)), reader.batch

    def __reduce__(self) -> tuple[Callable[[bytes], "BackbonePass"], tuple[bytes]]:
        packed = io.BytesIO()
        torch.save(list(vars(self).values()), packed)
        return _unpack, (packed.getvalue(),)


def _unpack(packed: bytes) -> BackbonePass:
    """Of what another process of the same command has sent, and nobody else."""
    return BackbonePass(*torch.load(io.BytesIO(packed), map_location="cpu", weights_only=False))


def _computed(
    work: BackbonePass,
    pictures: Sequence[Picture | View],
    key: str,
    recorder: Recorder,
    *,
    divided: bool = True,
    can_stop: bool = True,
) -> np.ndarray:
    """(N, D) float32, computed where the store named by `key` does not know it."""
    settings = work.settings
    with FeatureStore(settings.features_dir, key, recorder.note, settings.features_bytes) as store:
        features = compute_features(
            pictures,
            work.encoder,
            store,
            batch_size=pictures_at_a_time(work.size),
            least_batches=threads_side_by_side(),
            progress=recorder.progress,
            should_stop=recorder.run.stop_requested if can_stop else lambda: False,
            divide=division(work, recorder.say) if divided else undivided,
        )
    give_back_freed_memory()
    if features is None:
        raise StopRequested
    return features


def encode_batch(model: nn.Module, head: nn.Linear, pixels: torch.Tensor, precision: Precision) -> np.ndarray:
    """(B, 3, H, W) -> (B, D) float32, read off the input of `head` while the model runs in eval mode.

    Other threads may do the same meanwhile.
    """
    seen: list[torch.Tensor] = []
    here = get_ident()

    def see(_: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if get_ident() == here:
            seen.append(inputs[0])

    hook = head.register_forward_pre_hook(see)
    try:
        with torch.no_grad(), precision.autocast(pixels.device):
            model(pixel_values=pixels)
    finally:
        hook.remove()
    return seen[-1].float().reshape(len(pixels), -1).cpu().numpy()
