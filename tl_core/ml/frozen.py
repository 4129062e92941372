"""The frozen strategy: every picture passes the backbone once, and a head is trained on what came out.

The head's weights then go into the model's own classifier, so that the result is an ordinary checkpoint. Must not know
how data was found or how a result is reported.
"""

import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tl_core.config import TrainConfig
from tl_core.files import read_json, write_json
from tl_core.images.collection import Collection, Picture
from tl_core.images.splits import Division
from tl_core.ml.backbone import Backbone, fingerprint, linear_head, write_head
from tl_core.ml.data import targets_of
from tl_core.ml.feature_store import FeatureStore
from tl_core.ml.features import Encoded, compute_features, encode_batches, undivided
from tl_core.ml.head_fitting import HeadFitting
from tl_core.ml.heads import LinearHead
from tl_core.ml.machine import current_device, describe_machine
from tl_core.ml.outcome import Outcome
from tl_core.ml.pixels import VERSION, PixelReader
from tl_core.ml.precision import MEASURED, PLAIN, Precision, choose_forward_precision, prepare
from tl_core.ml.shards import division
from tl_core.recorder import Recorder, StopRequested
from tl_core.settings import Settings

# What a core's cache holds decides: on two cores in bf16 at 224 px a ResNet-18 takes 5.6, 5.0, 6.4 and 7.0 ms for a
# picture in batches of 8, 16, 32 and 64, a ViT-S 17, 17, 26 and 32 ms.
FEATURE_BATCH = 16
ACCELERATOR_FEATURE_BATCH = 32


def train_frozen(
    backbone: Backbone,
    collection: Collection,
    groups: Sequence[int],
    division: Division,
    config: TrainConfig,
    settings: Settings,
    recorder: Recorder,
) -> Outcome:
    """Compute features, fit a head, write it into `backbone.model`. Raises StopRequested, ModelError, DataError."""
    begun = time.perf_counter()
    precision = choose_precision(config, backbone, len(collection.pictures), settings, recorder.run.dir)
    head = linear_head(backbone)
    features = backbone_features(backbone, head, collection.pictures, precision, settings, recorder)
    featured = time.perf_counter()
    targets = np.asarray(targets_of(collection.pictures, backbone.labels))
    recorder.stage("fitting the head")
    fitting = HeadFitting(features, targets, groups, len(backbone.labels), config, recorder)
    fitted = fitting.cross_validate(division) if division.uses_folds else fitting.hold_out(division)
    write_head(head, fitted.head)
    recorder.note(_describe_head(backbone, head, fitted.head))
    return Outcome(
        tested=fitted.tested,
        probabilities=fitted.probabilities,
        method="k-fold" if division.uses_folds else "held-out",
        shipped=f"The head that is shipped was fitted on {fitted.shipped_on}.",
        trained=["head"],
        precision=precision,
        seconds={"features": featured - begun, "training": time.perf_counter() - featured},
        details={
            "head_strength": fitted.head.strength,
            "head_converged": fitted.head.converged,
            "head_scores": [asdict(score) for score in fitted.head.scores],
        },
    )


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
    work = BackbonePass(backbone.model, head, backbone.processor, precision, settings, mirrored)
    load, encode = work.begin()
    recorder.stage("asking about mirror images" if mirrored else "computing features", len(pictures))
    key = features_key(backbone, precision, mirrored=mirrored)
    with FeatureStore(settings.features_dir, key, recorder.note, settings.features_bytes) as store:
        features = compute_features(
            pictures,
            load,
            encode,
            store,
            batch_size=FEATURE_BATCH if current_device().type == "cpu" else ACCELERATOR_FEATURE_BATCH,
            workers=settings.workers,
            progress=recorder.progress,
            should_stop=recorder.run.stop_requested,
            divide=division(work, recorder.say) if divided else undivided,
        )
    prepare(backbone.model, PLAIN)
    if features is None:
        raise StopRequested
    return features


@dataclass(frozen=True)
class BackbonePass:
    """All that makes features of files, as it can be sent to another process, which has another device."""

    model: nn.Module
    head: nn.Linear
    processor: Any
    precision: Precision
    settings: Settings
    mirrored: bool

    def begin(self) -> tuple[Callable[[Picture], torch.Tensor], Callable[[Sequence[torch.Tensor]], np.ndarray]]:
        """Put the model where it computes; what reads a picture, in any thread, and what encodes those that were."""
        device = current_device()
        model = self.model.to(device).eval()
        prepare(model, self.precision)
        reader = PixelReader(self.processor, self.settings.max_pixels, mirrored=self.mirrored)

        def encode(batch: Sequence[torch.Tensor]) -> np.ndarray:
            pixels = reader.batch(batch).to(device, memory_format=self.precision.memory_format)
            return encode_batch(model, self.head, pixels, self.precision)

        return (lambda picture: reader.read(picture.path)), encode

    def encode_batches(self, batches: Sequence[Sequence[Picture]]) -> Encoded[Picture]:
        yield from encode_batches(batches, *self.begin(), self.settings.workers)

    def __reduce__(self) -> tuple[Callable[[bytes], "BackbonePass"], tuple[bytes]]:
        packed = io.BytesIO()
        torch.save(list(vars(self).values()), packed)
        return _unpack, (packed.getvalue(),)


def _unpack(packed: bytes) -> BackbonePass:
    return BackbonePass(*torch.load(io.BytesIO(packed), map_location="cpu", weights_only=False))


def features_key(backbone: Backbone, precision: Precision, *, mirrored: bool = False) -> str:
    """Names the store of features that are computed so."""
    return f"{fingerprint(backbone)}-{precision.dtype}-{VERSION}" + ("-mirrored" if mirrored else "")


def _describe_head(backbone: Backbone, head: nn.Linear, fitted: LinearHead) -> str:
    """What was trained, and how strongly it was regularised, in a line."""
    learnt = sum(parameter.numel() for parameter in head.parameters())
    line = f"trained the head: {learnt:,} of {backbone.parameters / 1e6:.2g} M parameters"
    if fitted.strength is None:
        return line
    return f"{line}; L2 strength {fitted.strength:.2g} validates best" if fitted.scores else line


def seconds_of_pass(backbone: Backbone, pictures: Sequence[Picture], precision: Precision, settings: Settings) -> float:
    """About how long features of all `pictures` take, from those of a few; rather too long than too short."""
    head = linear_head(backbone)
    reader = PixelReader(backbone.processor, settings.max_pixels)
    few = pictures[:FEATURE_BATCH]
    begun = time.perf_counter()
    pixels = reader.batch([reader.read(picture.path) for picture in few])
    encode_batch(backbone.model, head, pixels.to(current_device()), precision)
    return (time.perf_counter() - begun) / len(few) * len(pictures)


def choose_precision(
    config: TrainConfig, backbone: Backbone, pictures: int, settings: Settings, run_dir: Path | None = None
) -> Precision:
    """The precision to compute features of so many pictures in. Raises ConfigError.

    What is measured is remembered for this backbone on this machine: measuring again could choose another number
    format, in which the stored features are of no use. What was chosen for the run in `run_dir` stays with it: whether
    a job is long enough to measure for is a matter of time as well.
    """
    device = current_device()
    model = backbone.model.to(device)
    here = _circumstances(backbone)
    remembered = settings.cache_dir / f"precision-{here}.json"
    kept = run_dir / "precision.json" if run_dir is not None else None
    if config.precision != "auto":
        return choose_forward_precision(config.precision, model, backbone.input_size, pictures, device)
    chosen = _recall(kept, here) if kept is not None else None
    if chosen is None:
        known = _recall(remembered, here)
        chosen = choose_forward_precision("auto", model, backbone.input_size, pictures, device, known)
        if chosen != known and chosen.reason.startswith(MEASURED):
            with suppress(OSError):  # then it is measured again
                remembered.parent.mkdir(parents=True, exist_ok=True)
                write_json(remembered, {**asdict(chosen), "circumstances": here})
        if kept is not None:
            write_json(kept, {**asdict(chosen), "circumstances": here})
    return chosen


def _recall(path: Path, circumstances: str) -> Precision | None:
    """The precision in a file, None where it says none for these circumstances."""
    values = read_json(path) or {}
    if values.pop("circumstances", None) != circumstances or values.keys() != {each.name for each in fields(Precision)}:
        return None
    return Precision(**values)


def _circumstances(backbone: Backbone) -> str:
    """Identifies what decides which precision is fastest: the backbone, the machine, torch."""
    circumstances = [fingerprint(backbone), describe_machine(), torch.__version__]
    return hashlib.blake2b(json.dumps(circumstances, default=str).encode(), digest_size=16).hexdigest()


def encode_batch(model: nn.Module, head: nn.Linear, pixels: torch.Tensor, precision: Precision) -> np.ndarray:
    """(B, 3, H, W) -> (B, D) float32, read off the input of `head` while the model runs in eval mode."""
    seen: list[torch.Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        with torch.no_grad(), precision.autocast(pixels.device):
            model(pixel_values=pixels)
    finally:
        hook.remove()
    return seen[-1].float().reshape(len(pixels), -1).cpu().numpy()
