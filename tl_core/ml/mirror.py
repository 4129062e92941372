"""Whether mirror images keep their class, asked of the pictures and of the backbone that is about to be trained.

A head that has only seen pictures as they are is asked about other pictures as they are and mirrored. Digits, letters
and arrows are then taken for something else or for nothing; flowers are still flowers. Mirror images are allowed only
where that is shown: a wrong yes teaches wrong classes, a wrong no only leaves out some variation. Must not know how
training images are made, or what a strategy is.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, ndtri

from tl_core.errors import ModelError
from tl_core.images.collection import Picture, targets_of
from tl_core.images.splits import folds
from tl_core.ml.backbone import Backbone
from tl_core.ml.backbone_pass import backbone_features
from tl_core.ml.heads import fit_exact, refit
from tl_core.ml.logistic_regression import Floats, Integers
from tl_core.ml.precision import Precision
from tl_core.recorder import Recorder
from tl_core.settings import Settings

# Of what the head knows beyond saying the commonest class, the part that may be lost on mirror images. It has seen none
# of them and loses up to 3 % even on photographs of things (measured with tiny-resnet); a quarter on ten letters of
# which four become another one, and 40 % on digits.
MARGIN = 0.1
# … and the part of a single class's pictures. A class that becomes another loses most of them.
CLASS_MARGIN = 0.2
LEVEL = 0.05  # of every one-sided test
# With fewer pictures not even agreement on all of them would show that no more than MARGIN is lost.
MIN_IMAGES = 25
# A head that knows less than this of what there is to know beyond the commonest class has too little to lose.
MIN_KNOWN = 0.2
# Of the pictures, the part that must be of classes for which the sign test could find anything.
MIN_JUDGED = 0.9
# At most so many pictures are asked about, equally many of each class.
MAX_IMAGES = 2_000
FOLDS = 5


@dataclass(frozen=True)
class MirrorVerdict:
    """`keeps`: it is shown that mirror images keep their class. `reason` is a sentence that says what was found.

    `accuracy` and `mirrored_accuracy` are of a head on `images` pictures that it had not seen; `most_lost` is the
    upper 95 % bound of their difference. All are 0 where nothing was measured.
    """

    keeps: bool
    reason: str
    images: int = 0
    accuracy: float = 0.0
    mirrored_accuracy: float = 0.0
    most_lost: float = 0.0


def measure_mirror(
    backbone: Backbone,
    pictures: Sequence[Picture],
    groups: Sequence[int],
    precision: Precision,
    seed: int,
    settings: Settings,
    recorder: Recorder,
) -> MirrorVerdict:
    """Ask whether mirror images of `pictures` keep their class; give it training and validation pictures only.

    `groups` has one number per picture, equal for copies and near-duplicates, of which one is asked about. Features of
    pictures as they are go through the project's store, where a frozen head finds them again. The model is left in eval
    mode, its weights untouched. Raises StopRequested, DataError, ModelError.
    """
    asked = [pictures[index] for index in _choose(pictures, groups, seed)]
    if len(asked) < MIN_IMAGES:
        return _unmeasured(f"{len(asked)} different images are too few to tell whether mirror images keep their class")
    try:
        head = backbone.head
    except ModelError as failure:
        return _unmeasured(f"whether they keep their class cannot be measured: {failure.message}")
    features = backbone_features(backbone, head, asked, precision, settings, recorder)
    mirrored = backbone_features(backbone, head, asked, precision, settings, recorder, mirrored=True)
    targets = np.asarray(targets_of(asked, backbone.labels))
    return judge_mirror(*_ask(features, mirrored, targets, len(backbone.labels), seed), backbone.labels)


def judge_mirror(targets: Integers, as_is: Integers, mirrored: Integers, labels: Sequence[str]) -> MirrorVerdict:
    """The verdict on answers (N,) about the same pictures as they are and mirrored; class numbers into `labels`.

    Mirror images keep their class where the accuracy on them is shown not to be lower by more than MARGIN of what the
    head knows beyond saying the commonest class (a test of non-inferiority on the paired difference, by the interval of
    Bonett & Price 2012, J. Educ. Behav. Stat. 37: 479–488), and where no class loses by a sign test with Bonferroni's
    correction. Where the head recognises too few pictures of a class for that test to find anything, nothing is known
    of the class.
    """
    images = len(targets)
    if not images:
        return _unmeasured("no class has enough different images to tell whether mirror images keep it")
    right, still = as_is == targets, mirrored == targets
    accuracy, kept = float(right.mean()), float(still.mean())
    commonest = int(np.bincount(targets).max()) / images
    least_lost, most_lost = _paired_bounds(int((right & ~still).sum()), int((still & ~right).sum()), images)
    allowed = MARGIN * (accuracy - commonest)
    confusion, judged = _judge_classes(targets, right, still, mirrored, labels)
    figures = f"{_percent(kept)} of {images:,} images are still recognised mirrored, against {_percent(accuracy)}"
    if confusion:
        objection = f"{confusion}; {figures}"
    elif accuracy - commonest < MIN_KNOWN * (1 - commonest):
        objection = (
            f"the backbone, unchanged, recognises {_percent(accuracy)} of {images:,} images as they are, too little "
            "beyond chance to see what mirroring does"
        )
    elif most_lost > allowed:
        objection = f"only {figures}" if least_lost > 0 else f"too few images to be sure: {figures}"
    elif judged < MIN_JUDGED:
        objection = f"too few images of some classes are recognised at all to be sure of them: {figures}"
    else:
        return MirrorVerdict(True, f"mirror images: {figures}", images, accuracy, kept, most_lost)
    return MirrorVerdict(False, f"no mirror images: {objection}", images, accuracy, kept, most_lost)


def _unmeasured(reason: str) -> MirrorVerdict:
    return MirrorVerdict(False, f"no mirror images: {reason}")


def _judge_classes(
    targets: Integers, right: np.ndarray, still: np.ndarray, mirrored: Integers, labels: Sequence[str]
) -> tuple[str, float]:
    """In words what the class that loses most is taken for, "" if none loses; the part of pictures that was judged."""
    classes = len(labels)
    sizes, known = (np.bincount(chosen, minlength=classes) for chosen in (targets, targets[right]))
    lost = np.bincount(targets[right & ~still], minlength=classes)
    gained = np.bincount(targets[still & ~right], minlength=classes)
    level = LEVEL / int(np.count_nonzero(sizes))
    # Of lost + gained tosses of a coin, the probability of at least so many lost.
    chance = np.where(lost > 0, betainc(np.maximum(lost, 1), gained + 1, 0.5), 1.0)
    loses = (chance < level) & (lost - gained > CLASS_MARGIN * sizes)
    judged = float(sizes[0.5**known < level].sum() / len(targets))
    if not loses.any():
        return "", judged
    worst = int(np.where(loses, (lost - gained) / np.maximum(sizes, 1), 0).argmax())
    answers = Counter(mirrored[right & ~still & (targets == worst)].tolist())
    taken_for, _ = min(answers.items(), key=lambda item: (-item[1], item[0]))
    return f"mirrored {labels[worst]!r} is taken for {labels[taken_for]!r}", judged


def _paired_bounds(lost: int, gained: int, images: int) -> tuple[float, float]:
    """One-sided bounds, at LEVEL each, of the difference of two accuracies on the same pictures."""
    down, up = (lost + 1) / (images + 2), (gained + 1) / (images + 2)
    width = float(-ndtri(LEVEL)) * np.sqrt((down + up - (down - up) ** 2) / (images + 2))
    return float(down - up - width), float(down - up + width)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _choose(pictures: Sequence[Picture], groups: Sequence[int], seed: int) -> list[int]:
    """Places of at most MAX_IMAGES pictures, ascending: one of each group, as many of each class as there are."""
    firsts = {group: index for index, group in reversed(list(enumerate(groups)))}
    of_class: dict[str, list[int]] = {}
    for index in np.random.default_rng(seed).permutation(sorted(firsts.values())).tolist():
        of_class.setdefault(pictures[index].label, []).append(index)
    share = MAX_IMAGES // max(1, len(of_class))
    return sorted(index for members in of_class.values() for index in members[:share])


def _ask(
    features: Floats, mirrored: Floats, targets: Integers, classes: int, seed: int
) -> tuple[Integers, Integers, Integers]:
    """Targets, answers to pictures as they are and mirrored, each by a head fitted on other pictures as they are."""
    parts = folds(targets.tolist(), range(len(targets)), FOLDS, seed)
    asked, as_is, as_mirrored = [], [], []
    strength = None
    for train, held in parts:
        if strength is None:
            fitted = fit_exact(features[train], targets[train], classes, validation=(features[held], targets[held]))
            strength = fitted.strength
        else:
            fitted = refit(features[train], targets[train], classes, strength)
        asked.append(targets[held])
        as_is.append(fitted.logits(features[held]).argmax(axis=1))
        as_mirrored.append(fitted.logits(mirrored[held]).argmax(axis=1))
    if not parts:
        return targets[:0], targets[:0], targets[:0]
    return np.concatenate(asked), np.concatenate(as_is), np.concatenate(as_mirrored)
