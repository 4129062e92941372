"""Dividing: shares, small classes, groups on one side, given parts, folds, and that only seed and pictures decide."""

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pytest

from tl_core.images.collection import TEST, TRAIN, VALIDATION, Collection, Picture
from tl_core.images.splits import KFOLD_BELOW, Division, divide, folds

SEEDS = range(25)


def made(name: str, label: str, split: str | None = None) -> Picture:
    return Picture(Path(name), name, label, split, 100, 100, "RGB", name, 0, bytes(256))


def collected(counts: Mapping[str, int], split: str | None = None) -> list[Picture]:
    return [
        made(f"{split or 'all'}/{label}/{number:03}", label, split)
        for label, count in counts.items()
        for number in range(count)
    ]


def split(pictures: list[Picture], groups: Sequence[int] | None = None, seed: int = 0) -> Division:
    return divide(Collection("data", pictures), range(len(pictures)) if groups is None else groups, seed)


def labels_of(pictures: Sequence[Picture], indices: Iterable[int]) -> Counter[str]:
    return Counter(pictures[index].label for index in indices)


def parts(division: Division) -> list[list[int]]:
    return [division.train, division.validation, division.test]


def random_case(seed: int) -> tuple[list[Picture], list[int]]:
    """A few classes of uneven size, in groups of uneven size, some of which hold several classes."""
    generator = random.Random(seed)
    pictures = collected({f"class {n}": generator.choice([1, 2, 3, 5, 20, 80]) for n in range(generator.randint(2, 9))})
    groups, number = [0] * len(pictures), 0
    order = list(range(len(pictures)))
    if generator.random() < 0.5:
        generator.shuffle(order)
    while order:
        size = generator.choice([1, 1, 1, 2, 3, 12])
        for index in order[:size]:
            groups[index] = number
        del order[:size]
        number += 1
    return pictures, groups


def test_shares_are_70_15_15_in_every_class() -> None:
    pictures = collected({"a": 1000, "b": 200, "c": 20})
    division = split(pictures)
    found = [labels_of(pictures, part) for part in parts(division)]
    assert [[part[label] for part in found] for label in "abc"] == [[700, 150, 150], [140, 30, 30], [14, 3, 3]]
    assert (division.reported, division.given, division.uses_folds, division.notes) == (TEST, False, False, [])


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (4, (2, 1, 1)), (5, (3, 1, 1)), (7, (5, 1, 1)), (20, (14, 3, 3))],
)
def test_a_small_class_is_trained_first_then_tested_then_validated(count: int, expected: tuple[int, ...]) -> None:
    pictures = collected({"large": 300, "small": count})
    for seed in SEEDS:
        division = split(pictures, seed=seed)
        assert tuple(labels_of(pictures, part)["small"] for part in parts(division)) == expected


def test_rounding_does_not_favour_one_side() -> None:
    division = split(collected({f"{n}": 10 for n in range(100)}))
    assert [len(part) for part in parts(division)] == [700, 150, 150]


def test_a_thousand_classes_of_five_are_all_on_every_side() -> None:
    pictures = collected({f"{n}": 5 for n in range(1000)})
    division = split(pictures)
    assert [len(part) for part in parts(division)] == [3000, 1000, 1000]
    assert all(len(labels_of(pictures, part)) == 1000 for part in parts(division))


@pytest.mark.parametrize("seed", SEEDS)
def test_groups_stay_on_one_side_and_every_class_is_trained(seed: int) -> None:
    pictures, groups = random_case(seed)
    division = split(pictures, groups, seed)
    assert sorted(index for part in parts(division) for index in part) == list(range(len(pictures)))
    assert all(part == sorted(part) for part in parts(division))
    if division.test and "all the same" not in " ".join(division.notes):
        sides = [{groups[index] for index in part} for part in parts(division)]
        assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert set(labels_of(pictures, division.train)) == {picture.label for picture in pictures}


def test_groups_barely_disturb_the_shares() -> None:
    pictures = collected({"a": 400, "b": 400})
    generator = random.Random(0)
    groups = [index if generator.random() < 0.5 else 10_000 + index // 8 for index in range(len(pictures))]
    for seed in SEEDS:
        division = split(pictures, groups, seed)
        for part, share in zip(parts(division), (0.7, 0.15, 0.15), strict=True):
            for label, count in labels_of(pictures, part).items():
                assert count == pytest.approx(400 * share, abs=8), label


def test_a_group_too_large_for_the_small_sides_trains() -> None:
    pictures = collected({"a": 100, "b": 100})
    division = split(pictures, [0] * 60 + list(range(1, 141)))
    assert set(range(60)) <= set(division.train)
    assert labels_of(pictures, division.test)["a"] == 15


def test_another_seed_gives_another_division_and_the_same_seed_the_same() -> None:
    pictures = collected({"a": 150, "b": 150})
    assert split(pictures, seed=3) == split(pictures, seed=3)
    assert len({tuple(split(pictures, seed=seed).test) for seed in SEEDS}) == len(SEEDS)


def test_the_order_of_the_pictures_does_not_matter() -> None:
    pictures, groups = random_case(7)
    number = {picture.name: group for picture, group in zip(pictures, groups, strict=True)}
    expected = [{pictures[index].name for index in part} for part in parts(split(pictures, groups, 1))]
    for seed in range(3):
        shuffled = random.Random(seed).sample(pictures, len(pictures))
        renumbered = [1000 - number[picture.name] for picture in shuffled]
        division = split(shuffled, renumbered, 1)
        assert [{shuffled[index].name for index in part} for part in parts(division)] == expected


def test_three_given_parts_are_taken_as_they_are() -> None:
    pictures = collected({"a": 9, "b": 9}, TEST) + collected({"a": 3, "b": 3}, TRAIN) + collected({"a": 1}, VALIDATION)
    division = split(pictures, [0] * len(pictures))
    assert [[pictures[index].split for index in part] for part in parts(division)] == [
        [TRAIN] * 6,
        [VALIDATION],
        [TEST] * 18,
    ]
    assert (division.reported, division.given, division.uses_folds) == (TEST, True, False)


@pytest.mark.parametrize("other", [VALIDATION, TEST])
def test_of_two_given_parts_the_other_is_reported_and_validation_comes_from_train(other: str) -> None:
    pictures = collected({"a": 100, "b": 40}, TRAIN) + collected({"a": 30, "b": 30}, other)
    groups = [index // 4 for index in range(len(pictures))]
    division = split(pictures, groups)
    assert (division.reported, division.given, division.uses_folds) == (other, True, False)
    assert division.test == list(range(140, 200))
    assert labels_of(pictures, division.validation) == pytest.approx({"a": 15, "b": 6}, abs=2)
    assert not {groups[index] for index in division.train} & {groups[index] for index in division.validation}
    assert f"given {other} part" in division.notes[0]


def test_a_lone_train_part_is_divided_like_undivided_data() -> None:
    given, plain = collected({"a": 150, "b": 150}, TRAIN), collected({"a": 150, "b": 150})
    assert parts(split(given)) == parts(split(plain))
    assert not split(given).given


def test_parts_without_train_are_divided_anew_and_that_is_said() -> None:
    pictures = collected({"a": 150, "b": 150}, TEST) + collected({"a": 50, "b": 50}, VALIDATION)
    division = split(pictures)
    assert (len(division.train), division.given) == (280, False)
    assert "no train part" in division.notes[0]


def test_pictures_of_no_given_part_train_and_that_is_said() -> None:
    pictures = collected({"a": 20, "b": 20}, TRAIN) + collected({"a": 5, "b": 5}, TEST) + collected({"a": 3, "b": 0})
    division = split(pictures)
    assert {50, 51, 52} <= {*division.train, *division.validation}
    assert "3 images belong to no given part" in division.notes[0]


def test_classes_that_are_not_learnt_or_not_measured_are_named() -> None:
    pictures = collected({"a": 9, "b": 9}, TRAIN) + collected({"a": 9, "c": 9}, TEST) + collected({"a": 2}, VALIDATION)
    notes = split(pictures).notes
    assert any("cannot be learnt: 'c'" in note for note in notes)
    assert any("not measured: 'b'" in note for note in notes)
    many = split(collected({"large": 300} | {f"{n}": 1 for n in range(50)})).notes
    assert "'0', '1', '2', '3', '4' and 45 more" in many[0]


def test_near_duplicates_alone_are_divided_only_when_nothing_else_is_left() -> None:
    pictures = collected({"a": 30, "b": 30})
    division = split(pictures, [0] * 30 + [1] * 30)
    assert sorted(labels_of(pictures, division.test).values()) == [4, 5]
    assert not division.uses_folds
    assert "all the same" in division.notes[0]
    kept = split(pictures, [0] * 30 + list(range(1, 31)))
    assert set(range(30)) <= set(kept.train)
    assert any("not measured: 'a'" in note for note in kept.notes)


def test_nothing_can_be_tested_with_one_picture_of_each_class() -> None:
    division = split(collected({"a": 1, "b": 1}))
    assert (division.train, division.test, division.uses_folds) == ([0, 1], [], False)


def test_folds_are_used_below_their_limit_and_where_allowed() -> None:
    few, enough = collected({"a": KFOLD_BELOW - 100, "b": 99}), collected({"a": KFOLD_BELOW - 100, "b": 100})
    assert split(few).uses_folds
    assert "k-fold" in split(few).notes[0]
    assert not split(enough).uses_folds
    assert not divide(Collection("data", few), range(len(few)), 0, folds_allowed=False).uses_folds
    assert parts(split(few)) == parts(divide(Collection("data", few), range(len(few)), 0, folds_allowed=False))


def test_few_pictures_without_folds_are_said_to_say_little() -> None:
    def notes(count: int) -> list[str]:
        pictures = collected({"a": count, "b": count})
        return divide(Collection("data", pictures), range(len(pictures)), 0, folds_allowed=False).notes

    assert "rest on only 30 test images: one more right or wrong moves the accuracy by 3 points" in notes(99)[0]
    assert notes(KFOLD_BELOW // 2) == []
    assert not any("rest on" in note for note in notes(1))  # nothing is tested
    pairs = collected({"a": 2, "b": 1})
    (note, _) = divide(Collection("data", pairs), range(3), 0, folds_allowed=False).notes
    assert "only 1 test image: one more right or wrong moves the accuracy by 100 points" in note


def test_one_picture_is_said_in_the_singular() -> None:
    pictures = collected({"a": 3, "b": 3}, TRAIN) + collected({"a": 2, "b": 2}, TEST) + collected({"a": 1})
    first, second = split(pictures, [0, 1, 2, 3, 3, 3, 4, 5, 6, 7, 8]).notes[:2]
    assert first == "1 image belongs to no given part; it was added to train."
    assert "1 image of the train part was set aside" in second


@pytest.mark.parametrize("seed", SEEDS)
def test_folds_keep_groups_together_and_every_class_in_training(seed: int) -> None:
    pictures, groups = random_case(seed)
    labels = [picture.label for picture in pictures]
    made_folds = folds(labels, groups, 5, seed)
    tested = [index for _, test in made_folds for index in test]
    assert len(tested) == len(set(tested))
    for train, test in made_folds:
        assert sorted(train + test) == list(range(len(labels)))
        assert not {groups[index] for index in train} & {groups[index] for index in test}
        assert {labels[index] for index in train} == set(labels)


def test_folds_without_shared_groups_test_every_picture_of_every_class_of_two_or_more() -> None:
    labels = ["a"] * 40 + ["b"] * 23 + ["single"]
    made_folds = folds(labels, range(len(labels)), 5, 0)
    assert sorted(index for _, test in made_folds for index in test) == list(range(63))
    for _, test in made_folds:
        counts = Counter(labels[index] for index in test)
        assert counts["a"] == 8
        assert counts["b"] in (4, 5)


@pytest.mark.parametrize(("smallest", "count"), [(2, 2), (3, 3), (5, 5), (50, 5)])
def test_there_are_as_many_folds_as_the_smallest_class_allows(smallest: int, count: int) -> None:
    labels = ["a"] * 60 + ["b"] * smallest + ["single"]
    assert len(folds(labels, range(len(labels)), 5, 0)) == count


def test_no_folds_where_no_class_has_two_groups() -> None:
    assert folds(["a", "a", "b"], [0, 0, 1], 5, 0) == []


def test_folds_nest() -> None:
    labels = ["a"] * 30 + ["b"] * 30
    for train, _ in folds(labels, range(60), 5, 0):
        inner = folds([labels[index] for index in train], train, 5, 0)
        assert len(inner) == 5
        assert all(len(test) in (9, 10) for _, test in inner)


def test_folds_depend_on_seed_and_groups_and_not_on_order() -> None:
    pictures, groups = random_case(11)
    labels = [picture.label for picture in pictures]
    order = random.Random(0).sample(range(len(labels)), len(labels))
    expected = [set(test) for _, test in folds(labels, groups, 5, 1)]
    shuffled = folds([labels[index] for index in order], [groups[index] for index in order], 5, 1)
    assert [{order[index] for index in test} for _, test in shuffled] == expected
    assert len({str(folds(labels, groups, 5, seed)) for seed in SEEDS}) > 1


def test_folds_take_numbers_for_labels() -> None:
    assert len(folds([0, 1] * 10, range(20), 5, 0)) == 5
