"""The frozen strategy: every picture passes the backbone once, and a head is trained on what came out.

The head's weights then go into the model's own classifier, so that the result is an ordinary checkpoint. Must not know
how data was found or how a result is reported.
"""

import hashlib
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
from tl_core.ml.features import compute_features
from tl_core.ml.head_fitting import HeadFitting
from tl_core.ml.heads import LinearHead
from tl_core.ml.machine import current_device, describe_machine
from tl_core.ml.outcome import Outcome
from tl_core.ml.pixels import VERSION, PixelReader
from tl_core.ml.precision import MEASURED, PLAIN, Precision, choose_forward_precision, prepare
from tl_core.ml.views import VERSION as VIEWS_VERSION
from tl_core.ml.views import View, ViewReader, views_of
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
    varied = None
    if config.views:
        taught = taught_by(division)
        pictures, mirror = [collection.pictures[i] for i in taught], config.mirror == "yes"
        varied = np.zeros((len(features), config.views, features.shape[1]), np.float32)
        varied[taught] = view_features(
            backbone, head, pictures, config.views, precision, settings, recorder, mirror=mirror
        )
    featured = time.perf_counter()
    targets = np.asarray(targets_of(collection.pictures, backbone.labels))
    recorder.stage("fitting the head")
    fitting = HeadFitting(features, targets, groups, len(backbone.labels), config, recorder, varied)
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


def taught_by(division: Division) -> list[int]:
    """Indices of the pictures that a head may be fitted on, with folds all of them."""
    return [*division.train, *division.validation, *(division.test if division.uses_folds else ())]


def backbone_features(
    backbone: Backbone,
    head: nn.Linear,
    pictures: Sequence[Picture],
    precision: Precision,
    settings: Settings,
    recorder: Recorder,
    *,
    mirrored: bool = False,
) -> np.ndarray:
    """(N, D) float32: what enters `head`, the model's own classifier, from the store where it is known.

    With `mirrored`, of the mirror images of the pictures. Raises StopRequested, DataError, ModelError.
    """
    reader = PixelReader(backbone.processor, settings.max_pixels, mirrored=mirrored)
    recorder.stage("asking about mirror images" if mirrored else "computing features", len(pictures))
    key = features_key(backbone, precision, mirrored=mirrored)
    way = _Way(key, lambda picture: reader.read(picture.path), reader.batch)
    return _pass(backbone, head, pictures, way, precision, settings, recorder)


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
    """(N, views, D) float32: what enters `head` where it is shown varied versions of the pictures, from the store where
    it is known. Raises StopRequested, DataError, ModelError."""
    reader = ViewReader(backbone.processor, backbone.input_size, settings.max_pixels, mirror=mirror)
    wanted = views_of(pictures, views)
    recorder.stage("computing features of varied versions", len(wanted))
    way = _Way(views_key(backbone, precision, mirror=mirror), reader.read, reader.vary)
    features = _pass(backbone, head, wanted, way, precision, settings, recorder)
    return features.reshape(len(pictures), views, -1)


@dataclass(frozen=True)
class _Way:
    """How files become what a backbone sees, and the store for what comes out: `read` one in any thread, then `batch`
    some to (B, 3, H, W)."""

    key: str
    read: Callable[[Any], Any]
    batch: Callable[[list[Any]], torch.Tensor]


def _pass(
    backbone: Backbone,
    head: nn.Linear,
    pictures: Sequence[Picture | View],
    way: _Way,
    precision: Precision,
    settings: Settings,
    recorder: Recorder,
) -> np.ndarray:
    """(N, D) float32, computed where it is not stored."""
    device = current_device()
    model = backbone.model.to(device).eval()
    prepare(model, precision)

    def encode(read: list[Any]) -> np.ndarray:
        pixels = way.batch(read).to(device, memory_format=precision.memory_format)
        return encode_batch(model, head, pixels, precision)

    with FeatureStore(settings.features_dir, way.key, recorder.note, settings.features_bytes) as store:
        features = compute_features(
            pictures,
            way.read,
            encode,
            store,
            batch_size=FEATURE_BATCH if device.type == "cpu" else ACCELERATOR_FEATURE_BATCH,
            workers=settings.workers,
            progress=recorder.progress,
            should_stop=recorder.run.stop_requested,
        )
    prepare(model, PLAIN)
    if features is None:
        raise StopRequested
    return features


def features_key(backbone: Backbone, precision: Precision, *, mirrored: bool = False) -> str:
    """Names the store of features that are computed so."""
    return f"{fingerprint(backbone)}-{precision.dtype}-{VERSION}" + ("-mirrored" if mirrored else "")


def views_key(backbone: Backbone, precision: Precision, *, mirror: bool) -> str:
    """The same for varied versions, of which with `mirror` half are left for right."""
    return f"{fingerprint(backbone)}-{precision.dtype}-{VIEWS_VERSION}" + ("-mirror" if mirror else "")


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
