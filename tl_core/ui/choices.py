"""Which models and images a person can name here, and which of the words they may use.

On a computer of one's own every folder can be named. In shared mode a word that means a folder or somebody else's run
is refused, whatever control it came through. Must not know panels.
"""

from tl_core import catalogue, hub
from tl_core.errors import DataError, JobError, ModelError
from tl_core.files import existing_path
from tl_core.images.samples import SAMPLE_PREFIX
from tl_core.runs import RunView
from tl_core.settings import read_settings
from tl_core.ui.markup import paragraph, spoken_number
from tl_core.ui.session import own_run, own_runs

RUNS_OFFERED = 30
Choices = list[tuple[str, str]]


def model_choices(token: str | None, *, with_head: bool) -> Choices:
    """(what is shown, the word for it): embedded backbones, the asker's trained runs, the catalogue.

    `with_head` leaves out backbones that cannot answer before they are taught.
    """
    choices = []
    for backbone in catalogue.list_backbones():
        if backbone.has_head or not with_head:
            where = "comes with this app" if backbone.embedded else "from the Hugging Face Hub"
            choices.append(
                (
                    f"{backbone.id} · {backbone.family}, {spoken_number(backbone.parameters)} parameters, {where}",
                    backbone.id,
                )
            )
    embedded = len(catalogue.embedded())
    trained = [run for run in own_runs(token) if (run.model_dir / "config.json").is_file()][:RUNS_OFFERED]
    choices[embedded:embedded] = [(f"yours: {describe_run(run.view())}", run.id) for run in trained]
    return choices


def about_model(word: str | None) -> str:
    """What the catalogue says of a model; nothing for one that it does not know."""
    backbone = catalogue.find((word or "").strip())
    return paragraph(backbone.summary, "tl-quiet") if backbone is not None else ""


def describe_run(view: RunView) -> str:
    """A run in a few words, for a list of choices."""
    figures = f", {view.metrics['accuracy']:.1%} right" if view.metrics else ""
    named = f"{view.name} ({view.run_id})" if view.name else view.run_id
    return f"{named}{figures}"


def allowed_model(word: str | None, token: str | None) -> str:
    """The word for a model, if the asker may use it. Raises ModelError, JobError."""
    word = (word or "").strip()
    if not word:
        raise ModelError("no model is chosen; choose one from the list, or type a Hugging Face id")
    if not read_settings().shared or any(word == backbone.id for backbone in catalogue.list_backbones()):
        return word
    if "/" in word:
        if hub.is_hub_id(word) and existing_path(word) is None:
            return word
        raise ModelError(f"{word!r} cannot be used here: choose a model from the list, or type a Hugging Face id")
    try:
        return own_run(word, token).id
    except JobError as failure:
        raise ModelError(
            f"there is no model {word!r}; choose one from the list, or type a Hugging Face id"
        ) from failure


def allowed_data(word: str | None) -> str:
    """The word for images that are not uploaded, if it may be used here. Raises DataError."""
    word = (word or "").strip()
    if not word:
        raise DataError("nothing is named yet; choose a sample, or type a Hugging Face dataset id")
    if not read_settings().shared or word.startswith(SAMPLE_PREFIX):
        return word
    if "/" in word and hub.is_hub_id(word) and existing_path(word) is None:
        return word
    raise DataError(f"{word!r} cannot be used here: choose a sample, type a Hugging Face dataset id, or upload a zip")
