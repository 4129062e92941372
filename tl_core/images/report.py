"""What a person should know of their pictures before training: what was found, what is odd about it, what to do.

Must not know: how duplicates are found or splits are drawn; models.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from tl_core.images.collection import SPLITS, TEST, TRAIN, VALIDATION, Collection, Picture
from tl_core.images.splits import KFOLD_BELOW, Division
from tl_core.images.wording import count, name_some, printable, shorten

if TYPE_CHECKING:
    from tl_core.images.duplicates import Duplicates

# Below this a class's recall moves by ten points or more with a single image.
FEW_IN_CLASS = 10
# The largest class against the smallest: beyond it a model that never names the small one still looks good.
IMBALANCE = 10
# Shorter side in pixels: what the usual backbones enlarge sevenfold, to their 224.
SMALL_SIDE = 32
# Of all files; a stray file or two is below it.
MANY_SKIPPED = 0.05
# Images per class between which the reason for the recommendation changes.
_FEW_PER_CLASS, _MANY_PER_CLASS = 100, 1000

_CLASSES_SHOWN = 20
_EXTREMES_SHOWN = 5
_SKIPPED_SHOWN = 10
# Groups, pairs and conflicts that are named one by one; look-alikes can have a million.
_LISTED = 1000


@dataclass
class Report:
    """Plain values, ready for JSON. Files go by the names shown to the person; warnings and notes are sentences."""

    source: str
    images: int
    classes: dict[str, int]
    skipped: list[dict[str, str]]
    sizes: dict[str, dict[str, float]]
    balance: dict[str, Any]
    duplicates: dict[str, Any]
    leakage: dict[str, Any]
    splits: dict[str, Any]
    recommendation: dict[str, str]
    warnings: list[str]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def make_report(collection: Collection, duplicates: "Duplicates", division: Division) -> Report:
    """Describe a collection of at least one picture; `duplicates` and `division` are those of its pictures."""
    pictures = collection.pictures
    sizes = Counter(picture.label for picture in pictures)
    classes = {name: sizes[name] for name in collection.classes}
    largest, smallest = max(classes, key=classes.__getitem__), min(classes, key=classes.__getitem__)
    report = Report(
        source=collection.source,
        images=len(pictures),
        classes=classes,
        skipped=[{"file": skipped.name, "reason": skipped.reason} for skipped in collection.skipped],
        sizes={
            "width": _spread([picture.width for picture in pictures]),
            "height": _spread([picture.height for picture in pictures]),
        },
        balance={"largest": largest, "smallest": smallest, "ratio": classes[largest] / classes[smallest]},
        duplicates=_describe_duplicates(pictures, duplicates),
        leakage=_describe_leakage(pictures, duplicates, division),
        splits={
            TRAIN: len(division.train),
            VALIDATION: len(division.validation),
            TEST: len(division.test),
            "reported": division.reported,
            "given": division.given,
            "folds": division.uses_folds,
        },
        recommendation=_recommend(len(pictures) / len(classes)),
        warnings=[],
        notes=[*collection.notes, *division.notes],
    )
    small = sum(min(picture.width, picture.height) < SMALL_SIDE for picture in pictures)
    report.warnings = [
        *_warn_of_counts(report),
        *_warn_of_files(report, small, sum(not skipped.expected for skipped in collection.skipped)),
        *_warn_of_duplicates(report, _count_separated(duplicates, division)),
        *_warn_of_labels(report),
    ]
    return report


def _spread(values: Sequence[int]) -> dict[str, float]:
    return {"min": min(values), "median": median(values), "max": max(values)}


def _describe_duplicates(pictures: Sequence[Picture], duplicates: "Duplicates") -> dict[str, Any]:
    """Of groups and conflicts the first _LISTED are named; `groups` and `conflicting` count all."""
    # One file in two rows of a table is no copy: deleting one would delete both.
    copies = [group for group in duplicates.exact_groups if len({pictures[index].path for index in group}) > 1]
    return {
        "exact": _describe_groups(pictures, copies),
        "near": _describe_groups(pictures, duplicates.near_groups),
        "conflicting": len({index for conflict in duplicates.conflicts for index in conflict.pictures}),
        "conflicts": [
            {
                "kind": "exact" if conflict.exact else "near",
                "files": [{"file": pictures[i].name, "label": pictures[i].label} for i in conflict.pictures],
            }
            for conflict in duplicates.conflicts[:_LISTED]
        ],
    }


def _describe_groups(pictures: Sequence[Picture], groups: Sequence[Sequence[int]]) -> dict[str, Any]:
    return {
        "groups": len(groups),
        "images": sum(map(len, groups)),
        "largest": max(map(len, groups), default=0),
        "files": [[pictures[index].name for index in group] for group in groups[:_LISTED]],
    }


def _describe_leakage(pictures: Sequence[Picture], duplicates: "Duplicates", division: Division) -> dict[str, Any]:
    """Copies and near-duplicates in two given parts; `images` of the parts other than train are concerned.

    Of each kind the first _LISTED are named, and `more` counts the others.
    """
    if not division.given:
        return {"images": 0, "exact": [], "near": [], "more": 0}
    part = [picture.split or TRAIN for picture in pictures]
    exact = [group for group in duplicates.exact_groups if len({part[index] for index in group}) > 1]
    near = duplicates.pairs_across([SPLITS.index(name) for name in part])
    concerned = {*(index for group in exact for index in group), *near["first"].tolist(), *near["second"].tolist()}

    def named(groups: Sequence[Sequence[int]]) -> list[list[dict[str, str]]]:
        return [[{"file": pictures[index].name, "split": part[index]} for index in group] for group in groups]

    return {
        "images": sum(part[index] != TRAIN for index in concerned),
        "exact": named(exact[:_LISTED]),
        "near": named([(first, second) for first, second, _ in near[:_LISTED].tolist()]),
        "more": max(0, len(exact) - _LISTED) + max(0, len(near) - _LISTED),
    }


def _count_separated(duplicates: "Duplicates", division: Division) -> int:
    """Confirmed pairs of near-duplicates that our own division puts on two sides."""
    if division.given:
        return 0
    sides = [0] * len(duplicates.groups)
    for number, part in enumerate((division.train, division.validation, division.test)):
        for index in part:
            sides[index] = number
    return len(duplicates.pairs_across(sides))


def _recommend(per_class: float) -> dict[str, str]:
    about = f"With about {count(round(per_class), 'image', 'images')} per class"
    if per_class < _FEW_PER_CLASS:
        reason = (
            f"{about}, training the backbone itself would mostly learn them by heart; "
            "a new head on its features has little to get wrong."
        )
    elif per_class < _MANY_PER_CLASS:
        reason = f"{about}, a new head on the backbone's features is quick and sets the figure that others must beat."
    else:
        reason = (
            f"{about}, training the backbone too can pay off, but takes far longer; "
            "a new head on its features comes first and sets the figure to beat."
        )
    return {"strategy": "frozen", "reason": reason}


def _warn_of_counts(report: Report) -> list[str]:
    warnings = []
    classes = report.classes
    single = [name for name, count in classes.items() if count == 1]
    few = [name for name, count in classes.items() if 1 < count < FEW_IN_CLASS]
    if not report.splits["test"]:
        warnings.append("Nothing is left to test on, so `train` refuses these images. Add some to every class.")
    if single:
        warnings.append(
            f"{count(len(single), 'class has', 'classes have')} a single image ({name_some(single)}): it is used for "
            "training, and nothing is left to test. Add images, or leave the class out."
        )
    if few:
        warnings.append(
            f"{count(len(few), 'class has', 'classes have')} fewer than {FEW_IN_CLASS} images ({name_some(few)}): "
            "the figures of such a class mean little. Add images there first."
        )
    if report.images < KFOLD_BELOW:
        warnings.append(
            f"There are only {report.images:,} images: the accuracy will be rough, as the interval beside it says. "
            f"Add images, {KFOLD_BELOW} or more in all."
        )
    largest, smallest = report.balance["largest"], report.balance["smallest"]
    if report.balance["ratio"] > IMBALANCE:
        warnings.append(
            f"The classes are unbalanced: {classes[largest]:,} images of {name_some([largest])}, {classes[smallest]:,} "
            f"of {name_some([smallest])}. Go by macro-F1 rather than accuracy, or train with --class-weights balanced."
        )
    return warnings


def _warn_of_files(report: Report, small: int, lost: int) -> list[str]:
    """`lost` files claimed to be images and were left out."""
    warnings = []
    if small:
        warnings.append(
            f"{count(small, 'image is', 'images are')} less than {SMALL_SIDE} pixels wide or high, too small to show "
            "much. Use larger originals if there are any."
        )
    files = report.images + lost
    if lost > MANY_SKIPPED * files:
        warnings.append(
            f"{lost:,} of {count(files, 'image', 'images')} {'was' if lost == 1 else 'were'} left out. Read the "
            "reasons: something may have gone wrong in copying or saving."
        )
    return warnings


def _warn_of_duplicates(report: Report, separated: int) -> list[str]:
    warnings = []
    exact, near, leakage = report.duplicates["exact"], report.duplicates["near"], report.leakage
    if exact["groups"]:
        warnings.append(
            f"{exact['images']:,} files are copies of one another ({count(exact['groups'], 'group', 'groups')}). "
            "Keep one of each group."
        )
    if near["groups"]:
        warnings.append(
            f"{near['images']:,} images are nearly the same as others ({count(near['groups'], 'group', 'groups')}): "
            "they teach less than their number suggests. Keep one of each group, or add images that differ."
        )
    if separated:
        warnings.append(
            f"{count(separated, 'pair', 'pairs')} of nearly the same images had to be divided between the parts, "
            "being of series too long to be kept together: the figures are too good. Add a test part from other series."
        )
    if leakage["images"]:
        first = (leakage["exact"] or leakage["near"])[0]
        warnings.append(
            f"{count(leakage['images'], 'image', 'images')} outside train can be found in another part too, the same "
            f"or nearly so (such as {name_some([file['file'] for file in first])}): the figures will be too good. "
            "Remove one of each."
        )
    return warnings


def _warn_of_labels(report: Report) -> list[str]:
    conflicts = report.duplicates["conflicts"]
    if not conflicts:
        return []
    first = conflicts[0]["files"]
    other = next(file for file in first if file["label"] != first[0]["label"])
    return [
        f"{report.duplicates['conflicting']:,} images have a copy or near-duplicate with another label (such as "
        f"{name_some([first[0]['file']])} and {name_some([other['file']])}): no model can be right about both. "
        "Delete the wrong ones, or their rows in the table."
    ]


def render(report: Report) -> list[str]:
    """Lines for a terminal, few whatever the size of the collection; nothing in a name can steer the terminal."""
    sizes = " × ".join(_range(report.sizes[side]) for side in ("width", "height"))
    splits = report.splits
    parts = ", ".join(f"{name} {splits[name]:,}" for name in SPLITS)
    how = "as given" if splits["given"] else "drawn by class"
    figures = "from folds over all images" if splits["folds"] else f"from {splits['reported']}"
    lines = [
        f"{count(report.images, 'image', 'images')} in {count(len(report.classes), 'class', 'classes')}, {sizes} pixels"
    ]
    lines += _class_lines(report.classes)
    lines += [f"split     {parts} ({how}); figures {figures}"]
    lines += _duplicate_lines(report)
    lines += _skipped_lines(report.skipped)
    lines += [f"note      {note}" for note in report.notes]
    lines += [f"warning   {warning}" for warning in report.warnings]
    lines += [f"strategy  {report.recommendation['strategy']}. {report.recommendation['reason']}"]
    return [printable(line) for line in lines]


def _class_lines(classes: dict[str, int]) -> list[str]:
    width = len(f"{max(classes.values()):,}")

    def line(name: str) -> str:
        return f"  {classes[name]:>{width},}  {shorten(name)}"

    if len(classes) <= _CLASSES_SHOWN:
        return [line(name) for name in classes]
    by_size = sorted(classes, key=lambda name: -classes[name])
    between = len(classes) - 2 * _EXTREMES_SHOWN
    return [
        *map(line, by_size[:_EXTREMES_SHOWN]),
        f"  {'…':>{width}}  {between:,} classes between",
        *map(line, by_size[-_EXTREMES_SHOWN:]),
    ]


def _duplicate_lines(report: Report) -> list[str]:
    found = report.duplicates
    kinds = (("exact", "copies"), ("near", "alike"))
    return [
        f"{title:10}{found[kind]['images']:,} images in {count(found[kind]['groups'], 'group', 'groups')}, "
        f"the largest of {found[kind]['largest']:,}"
        for kind, title in kinds
        if found[kind]["groups"]
    ]


def _skipped_lines(skipped: list[dict[str, str]]) -> list[str]:
    if not skipped:
        return []
    lines = [f"left out  {count(len(skipped), 'file', 'files')}"]
    lines += [f"  {shorten(entry['file'])}: {entry['reason']}" for entry in skipped[:_SKIPPED_SHOWN]]
    if len(skipped) > _SKIPPED_SHOWN:
        lines.append(f"  and {len(skipped) - _SKIPPED_SHOWN:,} more; --json lists them all")
    return lines


def _range(spread: dict[str, float]) -> str:
    low, high = spread["min"], spread["max"]
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
