"""Which of several backbones suits these pictures: each looks at the same few, frozen, and the same folds judge.

What a backbone makes of a picture is kept in the feature store, so that a frozen training, or another ranking, does not
ask it again. Must not know how backbones are named or fetched, nor how an answer is shown.
"""

import random
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tl_core.config import TrainConfig
from tl_core.errors import DataError, TLError
from tl_core.images.collection import Collection, Picture, natural_key, targets_of
from tl_core.images.duplicates import find_duplicates
from tl_core.images.splits import divide
from tl_core.images.wording import count, name_some
from tl_core.ml.backbone import Backbone, linear_head, load_backbone
from tl_core.ml.backbone_pass import backbone_features
from tl_core.ml.candidates import OF_ONE_MODEL
from tl_core.ml.cross_validation import Judges
from tl_core.ml.frozen import choose_precision
from tl_core.ml.metrics import paired_difference, wilson_interval
from tl_core.ml.precision import Precision
from tl_core.ml.shards import processes
from tl_core.ml.transferability import log_maximum_evidence, neighbour_accuracy
from tl_core.recorder import Recorder
from tl_core.runs import Run
from tl_core.settings import Settings
from tl_core.sources import ModelSource, Ticker

# A ViT-S takes about 0.1 s for a picture on two cores, so that a thousand take two minutes; their accuracy is known to
# 3 points. Of few classes so many are not needed: the features of 60 of each say what a head can make of them.
MOST_IMAGES, MOST_PER_CLASS = 1000, 60
LEAST_PER_CLASS = 2  # one to learn from, one to judge
# A shorter pass is mostly its beginning, and whatever else the computer does at that moment: it is timed again, on a
# few pictures, and the fastest of some times counts.
TIMED_SECONDS, TIMED_IMAGES, TIMED_AGAIN = 1.0, 32, 4
# What fewer pictures say is hardly a ranking: the interval of an accuracy is nearly 30 points wide.
FEW_JUDGED = 50


@dataclass(frozen=True)
class Ranked:
    """One backbone. `score` is the share of the judged pictures that are right, by heads that had not seen them.

    `difference` is how far the best one's score is above this one's, on the same pictures; `distinguishable` whether
    its 95 % interval leaves out zero. `neighbours` is the share right by nearest neighbours, `logme` the log maximum
    evidence; `seconds_per_image` is reading, preprocessing and the backbone, as a frozen training does it here;
    `parameters` counts a head for these classes; `size` is that of the weights on disk, in bytes; `input_size` is
    (height, width) in pixels, `features` the width of what enters the head.
    """

    id: str
    kind: str
    score: float
    score_ci: tuple[float, float]
    difference: float
    difference_ci: tuple[float, float]
    distinguishable: bool
    neighbours: float
    logme: float
    seconds_per_image: float
    parameters: int
    size: int
    input_size: tuple[int, int]
    features: int


@dataclass(frozen=True)
class Ranking:
    """Backbones, best first; those that failed, with the reason; on what they were judged.

    `sampled` pictures were looked at, `judged` of them could be judged; `baseline` is the share of these that always
    saying the commonest class, `commonest`, has right. `notes` are sentences for the person.
    """

    backbones: list[Ranked]
    failed: dict[str, TLError]
    sampled: int
    judged: int
    commonest: str
    baseline: float
    seed: int
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        values = {name: value for name, value in asdict(replace(self, failed={})).items() if name != "failed"}
        return {**values, "failed": [{"id": name, "reason": error.message} for name, error in self.failed.items()]}


@dataclass(frozen=True)
class _Answers:
    """What is known of one backbone before it is compared; `right` (judged pictures,)."""

    source: ModelSource
    right: NDArray[np.bool_]
    figures: dict[str, Any]


def rank_backbones(
    sources: Sequence[ModelSource],
    collection: Collection,
    settings: Settings,
    *,
    images: int | None = None,
    seed: int = 0,
    ticker: Ticker | None = None,
) -> Ranking:
    """Judge each backbone on a sample of at most `images` pictures; its order is by `score`, then by LogME.

    None for the usual sample: at most MOST_PER_CLASS of a class, MOST_IMAGES in all. What a training with the same
    `seed` tests on is left out, where there are enough others. Raises DataError where the pictures allow no judgement;
    what is wrong with one backbone is listed in `failed`.
    """
    groups = find_duplicates(collection.pictures).groups
    division = divide(collection, groups, seed)
    pool = [*division.train, *division.validation, *(division.test if division.uses_folds else ())]
    sample = choose_sample(collection.pictures, pool, groups, images, seed)
    pictures = [collection.pictures[index] for index in sample]
    judges = Judges(np.asarray(targets_of(pictures, collection.classes)), [groups[index] for index in sample], seed)
    if not judges.rounds:
        raise DataError(
            f"no class of {collection.source} has two images that are not copies of each other, so that no backbone "
            "can be judged; add images, at least two for each class and better twenty"
        )
    answers: list[_Answers] = []
    failed: dict[str, TLError] = {}
    notes: list[str] = []
    for place, source in enumerate(sources, 1):
        title = f"{short_name(source)}, {place} of {len(sources)}"
        try:
            answers.append(_ask(source, collection, pictures, judges, settings, ticker, title, notes))
        except OF_ONE_MODEL as failure:
            failed[source.named] = failure
    judged = judges.targets[judges.judged]
    commonest = int(np.bincount(judged).argmax())
    return Ranking(
        _compared(answers),
        failed,
        len(sample),
        len(judged),
        collection.classes[commonest],
        float((judged == commonest).mean()),
        seed,
        [*_notes(collection, pictures, judges, uses_tested=division.uses_folds), *dict.fromkeys(notes)],
    )


def choose_sample(
    pictures: Sequence[Picture], pool: Sequence[int], groups: Sequence[int], images: int | None, seed: int
) -> list[int]:
    """Indices of `pool`, ascending: as many of each class, of a small class all, about `images` of them at most.

    Every class has LEAST_PER_CLASS where it has as many, whatever `images` says. Of near-duplicates (equal `groups`)
    one is taken before a second of any. The seed, names and contents decide, not the order of the lists.
    """
    by_name = sorted(pool, key=lambda index: (pictures[index].name, pictures[index].digest, pictures[index].label))
    copies: Counter[tuple[str, int]] = Counter()
    by_class: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    for place, index in enumerate(random.Random(seed).sample(by_name, len(by_name))):
        kind = pictures[index].label, groups[index]
        by_class[kind[0]].append((copies[kind], place, index))
        copies[kind] += 1
    counts = [len(members) for members in by_class.values()]
    most, per_class = (MOST_IMAGES, MOST_PER_CLASS) if images is None else (images, max(counts))
    levels = range(1, per_class + 1)
    level = bisect_right(levels, most, key=lambda level: sum(min(number, level) for number in counts))
    level = max(LEAST_PER_CLASS, level)
    return sorted(index for members in by_class.values() for *_, index in sorted(members)[:level])


def short_name(source: ModelSource) -> str:
    return source.path.name if source.kind == "folder" else source.named


def _ask(
    source: ModelSource,
    collection: Collection,
    pictures: Sequence[Picture],
    judges: Judges,
    settings: Settings,
    ticker: Ticker | None,
    title: str,
    notes: list[str],
) -> _Answers:
    if ticker is not None:
        ticker(f"{title}: opening it", 0, 0)
    backbone = load_backbone(source, collection.classes)
    config = TrainConfig.parse({"data": collection.source, "model": source.named})
    # For all pictures: features in another number format than a training's would be of no use to it.
    precision = choose_precision(config, backbone, len(collection.pictures), settings)
    features, seconds = _pass(backbone, pictures, precision, settings, ticker, title, notes)
    if seconds is None:
        seconds = _seconds_per_image(backbone, pictures, precision, settings)
    figures = {
        "neighbours": neighbour_accuracy(features, judges.targets, judges.groups),
        "logme": log_maximum_evidence(features, judges.targets),
        "seconds_per_image": seconds,
        "parameters": backbone.parameters,
        "size": sum(file.stat().st_size for file in source.path.glob("*.safetensors")),
        "input_size": backbone.input_size,
        "features": features.shape[1],
    }
    return _Answers(source, judges.right(features, ticker, f"{title}: judging heads"), figures)


def _pass(
    backbone: Backbone,
    pictures: Sequence[Picture],
    precision: Precision,
    settings: Settings,
    ticker: Ticker | None,
    title: str,
    notes: list[str],
) -> tuple[NDArray[np.float32], float | None]:
    """Features (N, D), and the seconds that each took; None where that cannot be told from so short a pass."""
    heard: list[tuple[int, int, float]] = []

    def hear(stage: str, done: int, total: int) -> None:
        heard.append((done, total, time.perf_counter()))
        if ticker is not None:
            ticker(f"{title}: {stage}", done, total)

    with TemporaryDirectory() as folder:  # a pass tells a run how far it is, and here is none
        run = Run(Path(folder))
        head = linear_head(backbone)
        features = backbone_features(backbone, head, pictures, precision, settings, Recorder(run, ticker=hear))
        notes += [event["text"] for event in run.events() if event["kind"] == "note"]
    (known, total, begun), (*_, ended) = heard[0], heard[-1]
    enough = total > known and ended - begun >= TIMED_SECONDS and processes() == 1
    return features, (ended - begun) / (total - known) if enough else None


def _seconds_per_image(
    backbone: Backbone, pictures: Sequence[Picture], precision: Precision, settings: Settings
) -> float:
    """The fastest of some passes over a few pictures, of which nothing is kept."""
    few = pictures[:: -(-len(pictures) // TIMED_IMAGES)]
    distinct = len({picture.digest for picture in few})
    ends = time.perf_counter() + TIMED_SECONDS
    taken: list[float] = []
    while not taken or (len(taken) < TIMED_AGAIN and time.perf_counter() < ends):
        ticks: list[float] = []
        with TemporaryDirectory() as folder:
            recorder = Recorder(Run(Path(folder)), ticker=lambda *_, ticks=ticks: ticks.append(time.perf_counter()))
            anew = replace(settings, home=Path(folder))
            backbone_features(backbone, linear_head(backbone), few, precision, anew, recorder, divided=False)
        taken.append((ticks[-1] - ticks[0]) / distinct)
    return min(taken)


def _compared(answers: Sequence[_Answers]) -> list[Ranked]:
    """Best first, each against the best on the same pictures."""
    ordered = sorted(answers, key=lambda each: (-each.right.mean(), -each.figures["logme"]))
    ranked = []
    for each in ordered:
        behind = (0.0, 0.0, 0.0) if each is ordered[0] else paired_difference(ordered[0].right, each.right)
        difference, low, high = behind
        ranked.append(
            Ranked(
                id=each.source.named,
                kind=each.source.kind,
                score=float(each.right.mean()),
                score_ci=wilson_interval(int(each.right.sum()), len(each.right)),
                difference=difference,
                difference_ci=(low, high),
                distinguishable=low > 0,
                **each.figures,
            )
        )
    return ranked


def _notes(collection: Collection, pictures: Sequence[Picture], judges: Judges, *, uses_tested: bool) -> list[str]:
    notes = []
    if len(pictures) < len(collection.pictures):
        left_out = "" if uses_tested else "; those that a training tests on are left out"
        everything = count(len(collection.pictures), "image", "images")
        notes.append(f"Judged on a sample: {len(pictures):,} of {everything}{left_out}.")
    judged = {pictures[row].label for row in judges.judged}
    never = sorted({picture.label for picture in pictures} - judged, key=natural_key)
    if never:
        notes.append(
            "Classes without two images that are not copies of each other are learnt but cannot be judged: "
            f"{name_some(never)}."
        )
    unseen = sorted(set(collection.classes) - {picture.label for picture in pictures}, key=natural_key)
    if unseen:
        notes.append(f"Classes that only a given test part has are left out: {name_some(unseen)}.")
    if len(judges.judged) < FEW_JUDGED:
        notes.append(
            f"With only {count(len(judges.judged), 'image', 'images')} to judge by, one more right or wrong moves a "
            f"figure by {count(round(100 / len(judges.judged)), 'point', 'points')}: no more than a large difference "
            "can be seen."
        )
    if uses_tested:
        notes.append(
            "There are too few images to leave any out: the figures of a training on them are a little too good for a "
            "backbone that was chosen by them."
        )
    return notes
