"""What a visitor must know of a machine that is not theirs, before it matters: what is lost when, and what is allowed.

Nothing is said on a computer of one's own. Must not know components.
"""

from collections.abc import Sequence

from tl_core.errors import JobError
from tl_core.images.wording import count
from tl_core.limits import surplus_runs
from tl_core.runs import Run
from tl_core.settings import Settings
from tl_core.ui.choices import describe_run
from tl_core.ui.markup import as_sentence, notice, paragraph

_LOST = (
    "What you neither push (“Share”) nor download (“Results”) is lost when this Space restarts, and it does so without "
    "asking. “Push when done”, in “Train”, keeps a model by itself; a duplicate of this Space with a volume of its own "
    "keeps everything."
)


def what_is_lost(settings: Settings) -> str:
    """The banner of a machine that forgets; nothing where what is kept stays."""
    return notice(_LOST, "warn") if settings.on_space and not settings.persistent else ""


def what_is_allowed(settings: Settings) -> str:
    """The caps of one person as a line; nothing where there are none."""
    if not settings.shared:
        return ""
    caps = [
        f"{settings.max_images:,} images in one training" if settings.max_images else "",
        f"{settings.max_run_minutes:,} minutes for a training" if settings.max_run_minutes else "",
        f"{settings.kept_runs:,} runs kept of each visitor" if settings.kept_runs else "",
    ]
    told = [cap for cap in caps if cap]
    return paragraph(f"Others use this machine too. Up to {'; up to '.join(told)}.", "tl-quiet") if told else ""


def too_many_images(images: int, settings: Settings) -> str:
    """A sentence where these are more than one training may have; else nothing."""
    if not settings.shared or settings.max_images is None or images <= settings.max_images:
        return ""
    return notice(
        f"These are {count(images, 'image', 'images')}, and one training may have {settings.max_images:,} here. Take "
        "some away under “Your images”, or train on hardware of your own.",
        "bad",
    )


def who_makes_room(runs: Sequence[Run], settings: Settings) -> str:
    """Which of somebody's runs go when the next one is started; nothing where there is room."""
    try:
        going = surplus_runs(runs, settings, more=1)
    except JobError as refusal:
        return notice(as_sentence(refusal.message), "warn")
    if not going:
        return ""
    named = ", ".join(f"“{describe_run(run.view())}”" for run in going)
    return notice(
        f"You have {count(len(runs), 'run', 'runs')}, as many as are kept here. When the next one is started, {named} "
        f"{'is' if len(going) == 1 else 'are'} removed to make room: first push (“Share”) or download (“Results”) "
        "what you want to keep.",
        "warn",
    )
