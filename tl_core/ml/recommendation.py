"""What may be concluded from a ranking of backbones: which one for accuracy, which one for speed, and why.

Must not know how a figure came about.
"""

from collections.abc import Sequence
from typing import Any

from tl_core.images.wording import count, spoken_pace
from tl_core.ml.ranking import Ranked, Ranking

# Two timings of one pass, on a computer that does other things too, differ by so much.
FASTER_BY = 1.25


def recommend(ranking: Ranking) -> dict[str, Any]:
    """{accuracy: {id, reason}, speed: {id, reason}} of a ranking with a backbone or more."""
    best = ranking.backbones[0]
    quick = fastest_alike(ranking.backbones)
    return {
        "accuracy": {"id": best.id, "reason": _why_accurate(ranking)},
        "speed": {"id": quick.id, "reason": _why_quick(ranking.backbones, quick)},
    }


def fastest_alike(backbones: Sequence[Ranked]) -> Ranked:
    """Of those that are not distinguishable from the best the fastest, the best itself where that gains little."""
    best = backbones[0]
    quick = min(
        (each for each in backbones if not each.distinguishable), key=lambda each: each.seconds_per_image, default=best
    )
    return quick if quick.seconds_per_image * FASTER_BY <= best.seconds_per_image else best


def spoken_points(difference: float, interval: tuple[float, float]) -> str:
    """How far something is behind, with its interval, in points of a hundred."""
    low, high = (100 * bound for bound in interval)
    return f"{100 * difference:.1f} points (95 % interval {low:+.1f} to {high:+.1f})"


def _why_accurate(ranking: Ranking) -> str:
    best, *others = ranking.backbones
    low, high = best.score_ci
    images = count(ranking.judged, "image", "images")
    said = f"{best.id} has {best.score:.1%} of {images} right (95 % interval {low:.1%} to {high:.1%})."
    if low <= ranking.baseline:
        return (
            f"{said} Nothing here is shown to be better than always saying {ranking.commonest!r}, which is right on "
            f"{ranking.baseline:.1%}: bring more images, or other backbones."
        )
    alike = [each.id for each in others if not each.distinguishable]
    if alike:
        return f"{said} Not distinguishable from it on these images: {', '.join(alike)}."
    if others:
        second = others[0]
        return f"{said} The next, {second.id}, is {spoken_points(second.difference, second.difference_ci)} behind."
    return f"{said} There is no other to compare it with."


def _why_quick(backbones: Sequence[Ranked], quick: Ranked) -> str:
    best = backbones[0]
    pace = f"{quick.id} takes {spoken_pace(quick.seconds_per_image)} for an image here"
    if quick is not best:
        times = best.seconds_per_image / quick.seconds_per_image
        return (
            f"{pace}, {times:.1f} times as fast as {best.id}, and is not distinguishable from it: "
            f"{spoken_points(quick.difference, quick.difference_ci)} behind."
        )
    quicker = [each for each in backbones[1:] if each.seconds_per_image * FASTER_BY <= best.seconds_per_image]
    if quicker:
        other = max(quicker, key=lambda each: each.score)
        return (
            f"{pace}; nothing faster is as good. {other.id} takes {spoken_pace(other.seconds_per_image)} and is "
            f"{spoken_points(other.difference, other.difference_ci)} behind."
        )
    return f"{pace}, and none of the others is faster by much." if len(backbones) > 1 else f"{pace}."
