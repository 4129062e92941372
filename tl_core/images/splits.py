"""Which pictures train, which steer, which test: one seeded division, or folds where there are too few for one.

Pictures of one group (copies, near-duplicates) always stay on one side. A division depends on the seed, the pictures'
names and digests, the groups and nothing else. Must not know: how groups were found, what is trained.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

from tl_core.images.collection import SPLITS, TEST, TRAIN, VALIDATION, Collection, natural_key
from tl_core.images.wording import count, name_some

# Of 100 pictures of a class.
SHARES = {TRAIN: 70, VALIDATION: 15, TEST: 15}
# With fewer pictures a test part of 15 % holds under 30: its 95 % interval would be nearly 30 points wide.
KFOLD_BELOW = 200


@dataclass
class Division:
    """Indices of the collection's pictures by what they are for, each list ascending, no picture in two of them.

    `test` holds what the reported figures come from; `reported` is the person's own name for it ("validation" where
    they gave that one beside train). `given` tells that the data came divided. With `uses_folds` there are too few
    pictures for one division: whoever can, reports `folds` over all of them. `notes` are sentences for the person.
    """

    train: list[int]
    validation: list[int]
    test: list[int]
    reported: str = TEST
    given: bool = False
    uses_folds: bool = False
    notes: list[str] = field(default_factory=list)


def divide(collection: Collection, groups: Sequence[int], seed: int, *, folds_allowed: bool = True) -> Division:
    """Divide a collection; `groups` has one number per picture, equal for those that belong on one side.

    Train, validation and test are taken as given. Train and one other: the other is tested, and validation is 15 % of
    train. Anything else is divided 70/15/15 by class: a class with three groups of pictures or more is on every side,
    with two in train and test, with one in train only. Where no class has two groups, pictures are divided one by one,
    with a note; where no class has two pictures, `test` is empty. Few pictures without folds are told by a note.
    """
    given = set(collection.given_splits)
    if given == set(SPLITS) or (TRAIN in given and len(given) == 2):
        division = _divide_as_given(collection, groups, seed, given - {TRAIN})
    else:
        division = _divide_anew(collection, groups, seed, folds_allowed)
        if given - {TRAIN}:
            parts = " and ".join(sorted(given))
            division.notes.append(f"There is no train part beside {parts}, so that all images were divided anew.")
    _note_gaps(collection, division)
    return division


def _divide_anew(collection: Collection, groups: Sequence[int], seed: int, folds_allowed: bool) -> Division:
    served = (TRAIN, TEST, VALIDATION)
    everything = range(len(collection.pictures))
    parts = _draw(collection, everything, groups, SHARES, served, seed)
    uses_folds = folds_allowed and bool(parts[TEST]) and len(everything) < KFOLD_BELOW
    notes = []
    if uses_folds:
        notes.append(
            f"With fewer than {KFOLD_BELOW} images a test part says little: the figures come from k-fold "
            "cross-validation, in which each image is judged once by a model that has not seen it."
        )
    if not parts[TEST]:
        parts = _draw(collection, everything, everything, SHARES, served, seed)
        if parts[TEST]:
            notes.append(
                "In every class all images are copies or near-duplicates of one another. They were divided all the "
                "same: on other images the model will do worse than the figures say."
            )
    if parts[TEST] and not uses_folds and len(everything) < KFOLD_BELOW:
        tested = len(parts[TEST])
        notes.append(
            f"The figures rest on only {count(tested, 'test image', 'test images')}: one more right or wrong moves the "
            f"accuracy by {count(round(100 / tested), 'point', 'points')}."
        )
    return Division(parts[TRAIN], parts[VALIDATION], parts[TEST], uses_folds=uses_folds, notes=notes)


def _divide_as_given(collection: Collection, groups: Sequence[int], seed: int, others: set[str]) -> Division:
    notes = []
    parts: dict[str, list[int]] = {name: [] for name in SPLITS}
    unnamed = 0
    for index, picture in enumerate(collection.pictures):
        parts[picture.split or TRAIN].append(index)
        unnamed += picture.split is None
    if unnamed:
        who = count(unnamed, "image belongs to no given part; it was", "images belong to no given part; they were")
        notes.append(f"{who} added to train.")
    if len(others) == 2:
        return Division(parts[TRAIN], parts[VALIDATION], parts[TEST], given=True, notes=notes)
    (reported,) = others
    shares = {TRAIN: SHARES[TRAIN] + SHARES[TEST], VALIDATION: SHARES[VALIDATION]}
    drawn = _draw(collection, parts[TRAIN], groups, shares, (TRAIN, VALIDATION), seed)
    notes.append(
        f"The figures come from the given {reported} part; "
        f"{count(len(drawn[VALIDATION]), 'image of the train part was', 'images of the train part were')} "
        "set aside to steer the training."
    )
    return Division(drawn[TRAIN], drawn[VALIDATION], parts[reported], reported, given=True, notes=notes)


def folds(labels: Sequence[Hashable], groups: Sequence[int], k: int, seed: int) -> list[tuple[list[int], list[int]]]:
    """Stratified grouped k-fold: (training indices, test indices) for each fold, both ascending.

    There are as many folds as the smallest class of more than one group has groups, at most `k`, at least 2. Every
    class is in the training part of every fold. So a class with one group is never tested; every other picture is
    tested once, but for groups of several classes that one of them cannot spare. No folds if no class has two groups.
    The numbers in `groups` decide, not the order of the lists. For nested folds call again with a training part.
    """
    units = _gather(groups, sorted(range(len(groups)), key=lambda index: groups[index]))
    holders = Counter(label for unit in units for label in {labels[index] for index in unit})
    repeated = [count for count in holders.values() if count > 1]
    if not repeated:
        return []
    count = max(2, min(k, *repeated))
    tested: list[list[int]] = []
    spared: list[list[int]] = []
    for unit in units:
        (tested if all(holders[labels[index]] > 1 for index in unit) else spared).append(unit)
    fold_of = _place(tested, labels, [1] * count, (), seed)

    always = {labels[index] for unit in spared for index in unit}  # classes in training whatever the fold
    spread: dict[Hashable, set[int]] = defaultdict(set)
    for unit, fold in zip(tested, fold_of, strict=True):
        for index in unit:
            spread[labels[index]].add(fold)
    test: list[list[int]] = [[] for _ in range(count)]
    for unit, fold in zip(tested, fold_of, strict=True):
        if any(len(spread[labels[index]]) == 1 and labels[index] not in always for index in unit):
            always |= {labels[index] for index in unit}
        else:
            test[fold] += unit
    everything = range(len(labels))
    return [(sorted(set(everything) - set(part)), sorted(part)) for part in test if part]


def _note_gaps(collection: Collection, division: Division) -> None:
    """Say which classes are not learnt or not measured."""
    labels = [picture.label for picture in collection.pictures]
    learnt = {labels[index] for index in division.train}
    measured = {labels[index] for index in division.test}
    never_learnt = sorted(set(labels) - learnt, key=natural_key)
    never_measured = sorted(learnt - measured, key=natural_key)
    if never_learnt:
        names = name_some(never_learnt)
        division.notes.append(
            f"Classes without an image in train cannot be learnt: {names}. Add some, or leave them out."
        )
    if never_measured:
        names = name_some(never_measured)
        division.notes.append(f"Classes without an image in {division.reported} are learnt but not measured: {names}.")


def _gather(groups: Sequence[int], indices: Sequence[int]) -> list[list[int]]:
    """`indices` by group, groups in the order of their first member."""
    units: dict[int, list[int]] = {}
    for index in indices:
        units.setdefault(groups[index], []).append(index)
    return list(units.values())


def _draw(
    collection: Collection,
    indices: Sequence[int],
    groups: Sequence[int],
    shares: dict[str, int],
    served: Sequence[str],
    seed: int,
) -> dict[str, list[int]]:
    """`indices` on the sides of `shares`, every class in train, one of few groups on the first sides of `served`."""
    pictures = collection.pictures
    labels = [picture.label for picture in pictures]
    by_name = sorted(indices, key=lambda i: (pictures[i].name, pictures[i].digest, pictures[i].label))
    units = _gather(groups, by_name)
    names = list(shares)
    sides = _place(units, labels, list(shares.values()), [names.index(name) for name in served], seed)
    train = names.index(TRAIN)
    learnt = {labels[index] for unit, side in zip(units, sides, strict=True) if side == train for index in unit}
    for place in sorted(range(len(units)), key=lambda place: len(units[place])):
        if any(labels[index] not in learnt for index in units[place]):
            sides[place] = train
            learnt |= {labels[index] for index in units[place]}
    parts: dict[str, list[int]] = {name: [] for name in names}
    for unit, side in zip(units, sides, strict=True):
        parts[names[side]] += unit
    return {name: sorted(part) for name, part in parts.items()}


def _place(
    units: Sequence[Sequence[int]], labels: Sequence[Hashable], shares: Sequence[int], served: Sequence[int], seed: int
) -> list[int]:
    """The side of each unit, so that every class is on every side in proportion to `shares`, as nearly as units allow.

    Class by class, those of fewest units first; in a class the largest units first, else in random order; each unit to
    the side that lacks most of the class, and of equals to the one that lacks most of everything. When only as many
    units are left as there are sides of `served` without the class, these get one each, in their order.
    """
    counts = [Counter(labels[index] for index in unit) for unit in units]
    holders: dict[Hashable, list[int]] = defaultdict(list)
    for unit in random.Random(seed).sample(range(len(units)), len(units)):
        for label in counts[unit]:
            holders[label].append(unit)
    whole, total = sum(shares), sum(len(unit) for unit in units)
    side_of: dict[int, int] = {}
    have: dict[Hashable, list[int]] = {label: [0] * len(shares) for label in holders}
    filled = [0] * len(shares)
    for label in sorted(holders, key=lambda label: (len(holders[label]), str(label))):
        size = sum(counts[unit][label] for unit in holders[label])
        mine = have[label]
        waiting = [unit for unit in holders[label] if unit not in side_of]
        waiting.sort(key=lambda unit: -counts[unit][label])
        for place, unit in enumerate(waiting):
            empty = [side for side in served[: len(holders[label])] if not mine[side]]
            if len(waiting) - place <= len(empty):
                side = empty[0]
            else:
                lacking = [
                    (share * size - whole * mine[side], share * total - whole * filled[side])
                    for side, share in enumerate(shares)
                ]
                side = lacking.index(max(lacking))
            side_of[unit] = side
            filled[side] += len(units[unit])
            for other, number in counts[unit].items():
                have[other][side] += number
    return [side_of[unit] for unit in range(len(units))]
