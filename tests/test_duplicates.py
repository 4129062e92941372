"""Copies and near-duplicates: what is found, what is not, and that neither look-alikes nor numbers make it snowball."""

import io
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pictures import picture as draw
from PIL import Image, ImageEnhance
from sklearn.datasets import load_digits

from tl_core.images.collection import Picture
from tl_core.images.duplicates import (
    BRIGHTENING,
    CHAIN_SHARE,
    HASH_DISTANCE,
    NEAR_DIFFERENCE,
    Duplicates,
    find_duplicates,
)
from tl_core.images.looks import describe_looks

# Half the 256 grey values up, half down: adding a multiple changes the difference by it and the brightness not at all.
UP_AND_DOWN = np.where(np.arange(256) % 2 == 0, 1, -1)


def textured(seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(90, 160, 256)


def made(name: str, grey: NDArray[np.int64], phash: int = 0, label: str = "a", digest: str | None = None) -> Picture:
    pixels = np.clip(grey, 0, 255).astype(np.uint8).tobytes()
    return Picture(Path(name), name, label, None, 100, 100, "RGB", digest or name, phash, pixels)


def seen(name: str, image: Image.Image, label: str = "a") -> Picture:
    phash, grey = describe_looks(image.convert("RGB"))
    return Picture(Path(name), name, label, None, *image.size, "RGB", name, phash, grey)


def named(groups: Sequence[Sequence[int]], pictures: Sequence[Picture]) -> list[list[str]]:
    return sorted(sorted(pictures[index].name for index in group) for group in groups)


def pair_names(duplicates: Duplicates, pictures: Sequence[Picture]) -> set[tuple[str, ...]]:
    return {
        tuple(sorted((pictures[first].name, pictures[second].name)))
        for first, second, _ in duplicates.near_pairs.tolist()
    }


def units(duplicates: Duplicates, pictures: Sequence[Picture]) -> list[list[str]]:
    members: dict[int, list[int]] = {}
    for index, group in enumerate(duplicates.groups):
        members.setdefault(group, []).append(index)
    return named(list(members.values()), pictures)


def series(count: int, step: int = 4, label: str = "a") -> list[Picture]:
    """A burst: each frame differs by `step` grey levels from the one before, always in the same direction."""
    middle = step * count // 2
    return [made(f"frame{t:03}", textured() + UP_AND_DOWN * (step * t - middle), 7, label) for t in range(count)]


def fillers(count: int, label: str = "a") -> list[Picture]:
    generator = random.Random(1)
    return [made(f"other{n:03}", textured(n + 1), generator.getrandbits(64), label) for n in range(count)]


def test_files_of_one_digest_are_copies_whatever_their_names() -> None:
    grey = textured()
    pictures = [made("b", grey, digest="1"), made("c", textured(1), 2**40 - 1), made("a", grey, digest="1")]
    found = find_duplicates(pictures)
    assert found.exact_groups == [(2, 0)]
    assert found.near_groups == []
    assert found.groups[0] == found.groups[2] != found.groups[1]


@pytest.mark.parametrize(("levels", "near"), [(NEAR_DIFFERENCE - 1, True), (NEAR_DIFFERENCE, False)])
def test_the_limit_on_pixels(levels: int, near: bool) -> None:
    pictures = [made("a", textured()), made("b", textured() + UP_AND_DOWN * levels)]
    found = find_duplicates(pictures)
    assert len(found.near_pairs) == near
    assert (found.groups[0] == found.groups[1]) == near
    if near:
        assert found.near_pairs["difference"][0] == pytest.approx(levels)


@pytest.mark.parametrize("bits", [0, 1, 7, 10, HASH_DISTANCE, HASH_DISTANCE + 1])
def test_the_limit_on_hashes(bits: int) -> None:
    """Up to 7 bits are found wherever they lie; here they lie in one byte after the other."""
    generator = random.Random(bits)
    phash = generator.getrandbits(64)
    flipped = phash
    for bit in range(bits):
        flipped ^= 1 << (8 * (bit % 7) + bit // 7)
    found = find_duplicates([made("a", textured(), phash), made("b", textured() + UP_AND_DOWN, flipped)])
    assert len(found.near_pairs) == (bits <= HASH_DISTANCE)


@pytest.mark.parametrize(("factor", "near"), [(0.97, True), (1.03, True), (BRIGHTENING, True), (1.12, False)])
def test_brightness_is_evened_out_up_to_its_limit(factor: float, near: bool) -> None:
    bright = np.random.default_rng(0).integers(150, 210, 256)
    for pictures in (
        [made("a", bright), made("b", np.round(bright * factor).astype(int))],
        [made("b", bright), made("a", np.round(bright * factor).astype(int))],
    ):
        assert len(find_duplicates(pictures).near_pairs) == near


def test_every_pair_within_the_limits_is_found_once_and_no_other() -> None:
    generator, noise = random.Random(3), np.random.default_rng(3)
    pictures = []
    for cluster in range(60):
        phash, grey = generator.getrandbits(64), noise.integers(0, 256, 256)
        for member in range(8):
            bits = sum({1 << generator.randrange(64) for _ in range(generator.randrange(5))})
            strength = generator.uniform(0, 8)
            pictures.append(made(f"{cluster}-{member}", grey + noise.normal(0, strength, 256), phash ^ bits))
    greys = np.array([np.frombuffer(picture.grey, np.uint8) for picture in pictures], dtype=np.float64)
    light = greys.mean(axis=1)
    expected, doubtful = set(), set()
    for first in range(len(pictures)):
        for second in range(first + 1, len(pictures)):
            dark, bright = sorted((first, second), key=lambda index: light[index])
            factor = min(light[bright] / light[dark], BRIGHTENING)
            difference = np.abs(greys[dark] * factor - greys[bright]).mean()
            apart = (pictures[first].phash ^ pictures[second].phash).bit_count()
            names = tuple(sorted((pictures[first].name, pictures[second].name)))
            if difference < NEAR_DIFFERENCE and apart <= HASH_DISTANCE:
                (expected if apart <= 7 else doubtful).add(names)
    found = find_duplicates(pictures)
    assert len(expected) > 200
    assert len(found.near_pairs) == len(pair_names(found, pictures))
    assert expected <= pair_names(found, pictures) <= expected | doubtful
    for group in named(found.near_groups, pictures):
        inside = {(one, other) for one in group for other in group if one < other}
        assert inside <= pair_names(found, pictures)


def test_a_series_is_never_a_near_group_beyond_confirmed_pairs() -> None:
    pictures = series(40) + fillers(160)
    found = find_duplicates(pictures)
    assert len(found.near_pairs) == 39
    assert all(len(group) == 2 for group in found.near_groups)


def test_a_series_is_kept_together_up_to_a_share_of_its_class() -> None:
    pictures = series(40) + fillers(160)
    found = find_duplicates(pictures)
    sizes = Counter(found.groups)
    assert max(sizes.values()) == CHAIN_SHARE * len(pictures)
    separated = sum(found.groups[first] != found.groups[second] for first, second, _ in found.near_pairs.tolist())
    assert separated <= 4  # pieces of neighbours, not of every other frame
    short = series(20) + fillers(180)
    assert len(set(find_duplicates(short).groups[:20])) == 1


def test_a_small_class_bounds_the_series_that_touches_it() -> None:
    pictures = series(20, label="a") + fillers(180, "a")
    for place in (5, 15):
        frame = pictures[place]
        pictures[place] = made(frame.name, np.frombuffer(frame.grey, np.uint8).astype(int), 7, "rare")
    assert max(Counter(find_duplicates(pictures).groups).values()) < 20


def test_near_groups_and_copies_are_kept_together_however_large() -> None:
    noise = np.random.default_rng(0)
    pictures = [made(f"burst{n:02}", textured() + noise.normal(0, 1, 256), 7) for n in range(40)]
    pictures += [made(f"copy{n:02}", textured(5), 2**63, digest="same") for n in range(30)]
    found = find_duplicates(pictures)
    assert [len(group) for group in found.near_groups] == [40]
    assert [len(group) for group in found.exact_groups] == [30]
    assert len(set(found.groups[:40])) == len(set(found.groups[40:])) == 1


def test_copies_of_a_near_duplicate_belong_to_its_group() -> None:
    pictures = [
        made("a", textured(), digest="1"),
        made("b", textured() + UP_AND_DOWN, digest="2"),
        made("c", textured(), digest="1"),
    ]
    found = find_duplicates(pictures)
    assert named(found.near_groups, pictures) == [["a", "b", "c"]]
    assert pair_names(found, pictures) == {("a", "b")}
    assert len(set(found.groups)) == 1


def test_one_picture_under_two_labels_is_a_conflict() -> None:
    pictures = [
        made("a1", textured(1), 2**10, "cat", digest="1"),
        made("a2", textured(1), 2**10, "dog", digest="1"),
        made("b1", textured(2), 2**20 - 1, "cat"),
        made("b2", textured(2) + UP_AND_DOWN, 2**20 - 1, "dog"),
        made("c1", textured(3), 2**50 - 1, "cat"),
        made("c2", textured(3) + UP_AND_DOWN, 2**50 - 1, "cat"),
    ]
    conflicts = find_duplicates(pictures).conflicts
    assert [(conflict.exact, conflict.pictures) for conflict in conflicts] == [(True, (0, 1)), (False, (2, 3))]


def test_a_series_that_changes_its_label_is_a_conflict_at_the_seam() -> None:
    pictures = [
        made(frame.name, np.frombuffer(frame.grey, np.uint8).astype(int), 7, "left" if place < 10 else "right")
        for place, frame in enumerate(series(20))
    ]
    conflicts = find_duplicates(pictures).conflicts
    assert [set(conflict.pictures) for conflict in conflicts] == [{9, 10}]


def test_pictures_of_one_colour_are_compared_byte_for_byte_only() -> None:
    blank = np.full(256, 200)
    pictures = [made(f"blank{n:04}", blank + n % 3, phash=0, label=f"{n % 2}") for n in range(3000)]
    pictures += [made("copy", blank, phash=0, label="0", digest="blank0000")]
    found = find_duplicates(pictures)
    assert (len(found.near_pairs), found.near_groups, found.conflicts) == (0, [], [])
    assert [len(group) for group in found.exact_groups] == [2]


def test_thousands_of_look_alikes_cost_a_bounded_number_of_pairs_each() -> None:
    noise = np.random.default_rng(0)
    pictures = [made(f"{n:04}", textured() + noise.normal(0, 1, 256), 7, str(n % 5)) for n in range(4000)]
    found = find_duplicates(pictures)
    assert len(found.near_pairs) <= 64 * len(pictures)
    assert max(len(group) for group in found.near_groups) <= 65
    assert max(Counter(found.groups).values()) <= CHAIN_SHARE * 800


def test_look_alikes_of_different_hashes_cost_no_more_pairs() -> None:
    noise, generator = np.random.default_rng(0), random.Random(0)
    hashes = [1 << generator.randrange(64) | 1 << generator.randrange(64) for _ in range(3000)]
    pictures = [made(f"{n:04}", textured() + noise.normal(0, 1, 256), phash) for n, phash in enumerate(hashes)]
    assert len(find_duplicates(pictures).near_pairs) <= 64 * len(pictures)


def test_the_order_of_the_pictures_does_not_matter() -> None:
    noise = np.random.default_rng(0)
    pictures = series(30) + fillers(70, "b")
    pictures += [made(f"near{n}", textured(n % 9) + noise.normal(0, 3, 256), n % 9, "c") for n in range(60)]
    pictures += [made(f"copy{n}", textured(70 + n % 4), 2**n, "d", digest=f"copy{n % 4}") for n in range(12)]
    first = find_duplicates(pictures)
    for seed in range(3):
        shuffled = random.Random(seed).sample(pictures, len(pictures))
        again = find_duplicates(shuffled)
        assert named(again.near_groups, shuffled) == named(first.near_groups, pictures)
        assert named(again.exact_groups, shuffled) == named(first.exact_groups, pictures)
        assert pair_names(again, shuffled) == pair_names(first, pictures)
        assert units(again, shuffled) == units(first, pictures)
        number = dict(zip((picture.name for picture in pictures), first.groups, strict=True))
        assert [number[picture.name] for picture in shuffled] == again.groups


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_compare(count: int) -> None:
    found = find_duplicates([made("a", textured())][:count])
    assert (found.groups, found.near_groups, found.exact_groups, len(found.near_pairs)) == ([0][:count], [], [], 0)


def saved_as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def with_noise(image: Image.Image, strength: float, seed: int) -> Image.Image:
    pixels = np.asarray(image) + np.random.default_rng(seed).normal(0, strength, (image.height, image.width, 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    "change",
    [
        lambda image: saved_as_jpeg(image, 40),
        lambda image: saved_as_jpeg(image, 95),
        lambda image: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC),
        lambda image: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC),
        lambda image: ImageEnhance.Brightness(image).enhance(0.97),
        lambda image: ImageEnhance.Brightness(image).enhance(1.03),
        lambda image: with_noise(image, 5, 0),
    ],
    ids=["jpeg-40", "jpeg-95", "half-size", "double-size", "darker", "brighter", "noise"],
)
def test_a_changed_copy_is_found_and_nothing_else(change: Callable[[Image.Image], Image.Image]) -> None:
    images = [draw(hue=n / 40, seed=n, size=(128, 96)) for n in range(40)]
    pictures = [seen(f"{n:02}-original", image) for n, image in enumerate(images)]
    pictures += [seen(f"{n:02}-changed", change(image)) for n, image in enumerate(images)]
    found = find_duplicates(pictures)
    assert named(found.near_groups, pictures) == [[f"{n:02}-changed", f"{n:02}-original"] for n in range(40)]


def test_real_handwritten_digits_look_alike_but_are_not_duplicates() -> None:
    digits = load_digits()
    pictures = []
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        grey = Image.fromarray(np.round(image * (255 / 16)).astype(np.uint8))
        pictures.append(seen(f"{label}/{number:04}", grey.resize((32, 32), Image.Resampling.BICUBIC), str(label)))
    found = find_duplicates(pictures)
    assert max(Counter(found.groups).values()) <= 10
    assert len(found.near_pairs) <= 2
