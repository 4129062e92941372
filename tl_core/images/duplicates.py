"""Which pictures of a collection are the same picture: byte for byte, or nearly.

Two files with one digest are exact duplicates. Two pictures are near-duplicates, a *confirmed pair*, when their
perceptual hashes differ in at most HASH_DISTANCE bits and their small grey copies, brought to one brightness, by less
than NEAR_DIFFERENCE on average.

What is promised:

- Any two pictures of a near group are a confirmed pair (or copies of two that are): a group is never a chain.
- Copies and near groups are never separated by `groups`, the units that a split has to keep on one side.
- Confirmed pairs between near groups (the frames of a video: each like the next, the first unlike the last) are joined
  into one unit too, closest first, as long as it holds no more than CHAIN_SHARE of the smallest class it touches.
  Look-alikes therefore cannot snowball, and a chain is cut into few long pieces, which separates few pairs.
- Cost and memory grow linearly with the number of pictures, whatever they show.

Must not know: files, how a split is drawn, what a report says.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tl_core.images.collection import Picture

# Mean absolute difference of two grey copies, in grey levels of 0 to 255. Measured on photographs of hands (100 px),
# of objects (64 px) and on handwritten digits (32 px): 20,000 copies of them, saved as JPEG of quality 40 to 95,
# resized to ½ up to 2 times, brightened by ±3 % or given sensor noise, differ by 3.9 at most; of 3.7 million pairs of
# different hands or digits with like hashes, one pair by 3.8 and all others by 5.4 or more.
NEAR_DIFFERENCE = 5
# Of 64 bits. The same copies differ in 8 at most, copies of smooth drawings in 16; unrelated pictures in 32 ± 4.
HASH_DISTANCE = 16
# The darker of two pictures may be brightened by this factor before they are compared: ±3 % of light, and rounding.
BRIGHTENING = 1.05
# A unit larger than this share of a class would not fit the smaller sides of a 70/15/15 split.
CHAIN_SHARE = 0.15

# Multi-index hashing (Norouzi, Punjani, Fleet 2012): two 64-bit hashes at most 7 bits apart agree in one of 8 bytes.
_BANDS, _BAND_BITS = 8, 8
# Pictures with one byte in common are ordered by brightness; each is compared with this many of its successors at most,
# and with no more once this many partners were found from it. Thousands of look-alikes meet these bounds, and so do a
# few of very many pictures of one scene: of noisy copies of shaded discs, all much alike, 100 % are found among 5,000
# pictures, 99.8 % among 20,000 and 99.3 % among 40,000.
_COMPARED, _PARTNERS = 128, 64
_ROWS_AT_ONCE = 16_384

PAIR = np.dtype([("first", np.int32), ("second", np.int32), ("difference", np.float32)])


@dataclass(frozen=True)
class Conflict:
    """One picture under two labels: `pictures` are indices of copies (`exact`) or of near-duplicates of one another."""

    pictures: tuple[int, ...]
    exact: bool


@dataclass(frozen=True, eq=False)
class Duplicates:
    """What `find_duplicates` found; every number but `difference` is an index into the pictures it was given.

    `near_pairs` is an array of PAIR, each confirmed pair once; the first of several copies stands for all of them.
    `difference` is in grey levels of 0 to 255, below NEAR_DIFFERENCE.
    `groups` holds one number per picture; pictures with the same number belong on one side of a split. The numbers
    follow the pictures' names, so they do not depend on the order in which the pictures came.
    """

    exact_groups: list[tuple[int, ...]]
    near_groups: list[tuple[int, ...]]
    near_pairs: NDArray[np.void]
    conflicts: list[Conflict]
    groups: list[int]

    def pairs_across(self, sides: Sequence[int]) -> NDArray[np.void]:
        """The near pairs whose pictures lie on different sides; `sides` has a number for each picture."""
        side = np.array(sides, dtype=np.int64)
        across: NDArray[np.void] = self.near_pairs[side[self.near_pairs["first"]] != side[self.near_pairs["second"]]]
        return across


def find_duplicates(pictures: Sequence[Picture]) -> Duplicates:
    """Group copies and near-duplicates of `pictures`, in time and memory linear in their number.

    Pictures of practically one colour are compared byte for byte only: their hash is made of rounding errors and any
    two of one brightness would be confirmed. The result is the same for any order of `pictures`, up to the indices.
    """
    by_name = sorted(range(len(pictures)), key=lambda i: (pictures[i].name, pictures[i].digest, pictures[i].label))
    by_digest: dict[str, list[int]] = {}
    for index in by_name:
        by_digest.setdefault(pictures[index].digest, []).append(index)
    copies = list(by_digest.values())  # from here on a "content" is a position in this list
    labels = [picture.label for picture in pictures]

    pairs = _find_pairs([pictures[indices[0]] for indices in copies])
    cliques = _grow_cliques(len(copies), pairs)
    units = _join_chains(cliques, pairs, copies, labels)
    numbers: dict[int, int] = {}
    groups = [0] * len(pictures)
    for content, unit in enumerate(units):
        for index in copies[content]:
            groups[index] = numbers.setdefault(unit, len(numbers))

    contents: dict[int, list[int]] = {}
    for content, clique in enumerate(cliques):
        contents.setdefault(clique, []).append(content)
    exact_groups = [tuple(indices) for indices in copies if len(indices) > 1]
    near_groups = [_spell_out(members, copies) for members in contents.values() if len(members) > 1]
    bridges = [_spell_out(pair, copies) for pair in _find_bridges(cliques, pairs, copies, labels)]
    conflicts = [
        Conflict(group, exact)
        for found, exact in ((exact_groups, True), (near_groups, False), (bridges, False))
        for group in found
        if len({labels[index] for index in group}) > 1
    ]
    first_copy = np.array([indices[0] for indices in copies], dtype=np.int32)
    near_pairs = pairs.copy()
    near_pairs["first"], near_pairs["second"] = first_copy[pairs["first"]], first_copy[pairs["second"]]
    return Duplicates(exact_groups, near_groups, near_pairs, conflicts, groups)


def _spell_out(contents: Sequence[int], copies: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(index for content in contents for index in copies[content])


def _find_pairs(pictures: Sequence[Picture]) -> NDArray[np.void]:
    """Confirmed pairs among pictures of different content, as PAIR with first < second, in that order.

    Candidates agree in one byte of the hash and lie close in brightness: the difference of two means is never more than
    the mean difference, so nothing that could be confirmed lies further away.
    """
    if len(pictures) < 2:
        return np.empty(0, dtype=PAIR)
    hashes = np.array([picture.phash for picture in pictures], dtype=np.uint64)
    greys = np.frombuffer(b"".join(picture.grey for picture in pictures), dtype=np.uint8).reshape(len(pictures), -1)
    light = greys.mean(axis=1)
    lightest = light * BRIGHTENING + NEAR_DIFFERENCE
    textured = np.flatnonzero(greys.max(axis=1) - greys.min(axis=1) >= NEAR_DIFFERENCE)
    found = []
    partners = np.zeros(len(pictures), dtype=np.int32)
    earlier: list[_Ordering] = []
    for band in range(_BANDS):
        byte = (hashes >> np.uint64(band * _BAND_BITS)) & np.uint64(2**_BAND_BITS - 1)
        start = byte.astype(np.float64) * 512.0  # one sorting key for both: `lightest` never reaches the next byte's
        place = start + light
        order = textured[np.argsort(place[textured], kind="stable")]
        rank = np.zeros(len(pictures), dtype=np.int32)
        rank[order] = np.arange(len(order), dtype=np.int32)
        end = np.searchsorted(place[order], (start + lightest)[order])
        found.append(_compare_neighbours(order, end, partners, earlier, hashes, greys, light))
        earlier.append(_Ordering(byte.astype(np.uint8), rank))
    pairs = np.concatenate(found)
    return pairs[np.lexsort((pairs["second"], pairs["first"]))]


@dataclass(frozen=True)
class _Ordering:
    """One byte of each hash, and each picture's place in the order of that byte and brightness."""

    byte: NDArray[np.uint8]
    rank: NDArray[np.int32]

    def compared(self, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.bool_]:
        within_reach = np.abs(self.rank[first] - self.rank[second]) <= _COMPARED
        compared: NDArray[np.bool_] = within_reach & (self.byte[first] == self.byte[second])
        return compared


def _compare_neighbours(
    order: NDArray[np.int64],
    end: NDArray[np.int64],
    partners: NDArray[np.int32],
    earlier: Sequence[_Ordering],
    hashes: NDArray[np.uint64],
    greys: NDArray[np.uint8],
    light: NDArray[np.float64],
) -> NDArray[np.void]:
    """Confirmed pairs of picture `order[i]` and one before place `end[i]`, but for those compared `earlier`.

    `partners` counts the pairs found from each picture, over all bytes.
    """
    ordered_hashes = hashes[order]
    active = np.arange(len(order))
    found = [np.empty(0, dtype=PAIR)]
    for step in range(1, _COMPARED + 1):
        active = active[(active + step < end[active]) & (partners[order[active]] < _PARTNERS)]
        if not len(active):
            break
        bits_apart = np.bitwise_count(ordered_hashes[active] ^ ordered_hashes[active + step])
        alike = active[bits_apart <= HASH_DISTANCE]
        for ordering in earlier:
            alike = alike[~ordering.compared(order[alike], order[alike + step])]
        difference = _measure_differences(greys, light, order[alike], order[alike + step])
        confirmed = difference < NEAR_DIFFERENCE
        alike = alike[confirmed]
        partners[order[alike]] += 1
        pairs = np.empty(len(alike), dtype=PAIR)
        pairs["first"] = np.minimum(order[alike], order[alike + step])
        pairs["second"] = np.maximum(order[alike], order[alike + step])
        pairs["difference"] = difference[confirmed]
        found.append(pairs)
    return np.concatenate(found)


def _measure_differences(
    greys: NDArray[np.uint8], light: NDArray[np.float64], darker: NDArray[np.int64], lighter: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Mean absolute difference of rows `darker` and `lighter` of `greys` at one brightness, in grey levels."""
    factor = np.minimum(light[lighter] / light[darker], BRIGHTENING).astype(np.float32)[:, None]
    differences = np.empty(len(darker), dtype=np.float32)
    for start in range(0, len(darker), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        apart = greys[darker[rows]] * factor[rows] - greys[lighter[rows]]
        differences[rows] = np.abs(apart).mean(axis=1)
    return differences


def _grow_cliques(count: int, pairs: NDArray[np.void]) -> list[int]:
    """A clique number for each of `count` contents, pairs confirmed between all members of one.

    In order, each content joins the largest clique that it pairs with as a whole, or starts its own.
    """
    cliques = list(range(count))
    sizes = [1] * count
    by_second = pairs[np.argsort(pairs["second"], kind="stable")]
    seconds, starts = np.unique(by_second["second"], return_index=True)
    firsts = np.split(by_second["first"], starts[1:])
    for content, partners in zip(seconds.tolist(), firsts, strict=False):
        links = Counter(cliques[partner] for partner in partners.tolist())
        whole = [clique for clique, number in links.items() if number == sizes[clique]]
        if whole:
            clique = max(whole, key=lambda clique: (sizes[clique], -clique))
            cliques[content] = clique
            sizes[clique] += 1
    return cliques


def _join_chains(
    cliques: list[int], pairs: NDArray[np.void], copies: Sequence[Sequence[int]], labels: Sequence[str]
) -> list[int]:
    """A unit number for each content: cliques joined along the pairs between them, closest first, up to CHAIN_SHARE."""
    class_sizes = Counter(labels)
    parent = list(range(len(cliques)))
    size = [0] * len(cliques)
    room = [float(len(labels))] * len(cliques)
    for clique, indices in zip(cliques, copies, strict=True):
        size[clique] += len(indices)
        room[clique] = min(room[clique], *(CHAIN_SHARE * class_sizes[labels[index]] for index in indices))

    def find(clique: int) -> int:
        while parent[clique] != clique:
            parent[clique] = parent[parent[clique]]
            clique = parent[clique]
        return clique

    for first, second, _ in _take_closest(cliques, pairs).tolist():
        one, other = sorted((find(cliques[first]), find(cliques[second])))
        if one != other and size[one] + size[other] <= min(room[one], room[other]):
            parent[other] = one
            size[one] += size[other]
            room[one] = min(room[one], room[other])
    return [find(clique) for clique in cliques]


def _find_bridges(
    cliques: list[int], pairs: NDArray[np.void], copies: Sequence[Sequence[int]], labels: Sequence[str]
) -> list[tuple[int, int]]:
    """The closest pair of different label between each two cliques that have one."""
    known = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    label_of = np.array([known[labels[indices[0]]] for indices in copies], dtype=np.int64)
    differ = label_of[pairs["first"]] != label_of[pairs["second"]]
    return [(first, second) for first, second, _ in _take_closest(cliques, pairs[differ]).tolist()]


def _take_closest(cliques: list[int], pairs: NDArray[np.void]) -> NDArray[np.void]:
    """Of the pairs between each two cliques the one of least difference; of all these, the closest first."""
    numbers = np.array(cliques, dtype=np.int64)
    pairs = pairs[numbers[pairs["first"]] != numbers[pairs["second"]]]
    pairs = pairs[np.argsort(pairs["difference"], kind="stable")]
    one, other = numbers[pairs["first"]], numbers[pairs["second"]]
    _, closest = np.unique(np.minimum(one, other) * len(cliques) + np.maximum(one, other), return_index=True)
    return pairs[np.sort(closest)]
