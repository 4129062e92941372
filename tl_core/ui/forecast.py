"""What a training will do and how long it will take, as the page shows it before anything is started.

Takes the plain values of `api.preview` and of a report on the images. Must not know how they were found.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tl_core.images.wording import count, name_some
from tl_core.terminal import spoken_seconds
from tl_core.ui.explanations import DERIVED, PARTS_IN_FOLDS, PARTS_OF_IMAGES
from tl_core.ui.form import in_labels
from tl_core.ui.markup import as_sentence, facts, hint, notice, paragraph, sentences, table

NO_IMAGES = "First bring some images: the tab “Your images” has three ways to."
TO_MEND = "What will happen is shown here once what is said beside “Start” is mended."


def spoken_images(classes: Mapping[str, int]) -> str:
    """How many images of which classes there are to teach from."""
    images = count(sum(classes.values()), "image", "images")
    return f"Taught from {images} in {count(len(classes), 'class', 'classes')}: {name_some(list(classes))}."


def images_line(classes: Mapping[str, int], warnings: Sequence[str]) -> str:
    """The images that will be taught from; how many warnings there were, which are shown where they can be mended."""
    line = notice(spoken_images(classes))
    if warnings:
        told = f"{count(len(warnings), 'thing', 'things')} to look at before training: see the tab “Your images”."
        line += sentences([told])
    return line


def no_images() -> str:
    return hint(NO_IMAGES)


def spoken_time(forecast: Mapping[str, Any]) -> str:
    """About how long it takes, with how far that may be off."""
    about, low, high = (spoken_seconds(forecast[key]) for key in ("seconds", "seconds_low", "seconds_high"))
    return f"About {about}" + (f" ({low} to {high})" if low != high else "")


def foretold(forecast: Mapping[str, Any]) -> str:
    """How long it takes, what was measured for that, and what each part of the images is for."""
    images = forecast["images"]
    height, width = forecast["image_size"]
    if images["folds"]:
        counts = [("Images, judged in folds", f"{images['train'] + images['validation'] + images['test']:,}")]
    else:
        named = {"train": "Training images", "validation": "Validation images", "test": "Test images"}
        counts = [(words, f"{images[part]:,}") for part, words in named.items()]
    return (
        paragraph(spoken_time(forecast), "tl-lead")
        + paragraph(as_sentence(forecast["seconds_reason"]), "tl-quiet")
        + facts([*counts, ("The backbone sees", f"{width} × {height} pixels")])
        + paragraph(PARTS_IN_FOLDS if images["folds"] else PARTS_OF_IMAGES, "tl-quiet")
    )


def reasoned(forecast: Mapping[str, Any]) -> str:
    """Every derived figure with its reason."""
    rows = [(figure["label"], figure["spoken"], in_labels(figure["reason"])) for figure in forecast["figures"]]
    return paragraph(DERIVED, "tl-quiet") + table(("What", "Derived", "Why"), rows, "What is derived, and why")
