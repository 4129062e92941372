"""What the words DATA and MODEL mean: from what a person typed to a verified collection or a model folder on disk.

Everything that can be said about a wrong word is said here, before torch is imported.
"""

import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from tl_core import catalogue, hub
from tl_core.config import TrainConfig
from tl_core.errors import HubError, JobError, ModelError
from tl_core.files import existing_path
from tl_core.hub.repository import RepositoryMissing, RevisionMissing
from tl_core.images.collection import Collection
from tl_core.pins import NO_PINS, Pins
from tl_core.runs import RESUMABLE_STATES, Run, find_run
from tl_core.settings import Settings

if TYPE_CHECKING:  # it decodes, which not every word needs
    from tl_core.images.scan import Invitation

Ticker = Callable[[str, int, int], None]  # (what is being done, steps done, steps in all)
CHECKING = "checking the images"
UNPACKING = "unpacking, MB"
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class ModelSource:
    """A model folder on this disk and where it came from. `revision` is a commit, for Hub models only.

    `named` means the same tomorrow and from any working directory: a name, an id, an absolute path.
    """

    named: str
    path: Path
    kind: Literal["embedded", "folder", "run", "hub"]
    revision: str | None = None


def open_data(
    data: str,
    settings: Settings,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    ticker: Ticker | None = None,
    invite: "Invitation | None" = None,
) -> Collection:
    """List and verify DATA, telling `ticker` how far it is; `invite` is asked who looks on while files are decoded.

    Raises DataError or HubError, and what who looks on raises; nothing is half-written.
    """
    from tl_core.images.intake import open_collection

    local, notes = data, []
    if means_the_hub(data):
        fetched = hub.fetch_dataset(data, settings)
        local, notes = str(fetched.path), list(fetched.notes)
    collection = open_collection(
        local,
        settings,
        image_column=image_column,
        label_column=label_column,
        progress=ticker and functools.partial(ticker, CHECKING),
        invite=invite,
        unpacking=ticker and (lambda done, total: ticker(UNPACKING, done // MEGABYTE, total // MEGABYTE)),
    )
    path = existing_path(data)
    collection.source = data if path is None else str(path.absolute())
    collection.notes[:0] = notes
    return collection


class Named(NamedTuple):
    """What a configuration names: the backbone, the images, and the model to learn from where there is one."""

    source: ModelSource
    collection: Collection
    teacher: ModelSource | None

    @property
    def pins(self) -> Pins:
        return Pins(self.source.revision, self.teacher.revision if self.teacher else None)


def open_configured(
    config: TrainConfig,
    settings: Settings,
    ticker: Ticker | None = None,
    accept: Callable[[dict[str, Any]], None] | None = None,
    pins: Pins = NO_PINS,
    invite: "Callable[[ModelSource], Invitation | None] | None" = None,
) -> Named:
    """Whatever a configuration names, the models first and at their `pins`. Raises as `open_model` and `open_data`.

    `invite` says for the backbone who looks on while files are decoded.
    """
    source = open_model(config.model, settings, weights=config.needs_weights, accept=accept, revision=pins.model)
    teacher = open_model(config.teacher, settings, accept=accept, revision=pins.teacher) if config.teacher else None
    collection = open_data(
        config.data,
        settings,
        image_column=config.image_column,
        label_column=config.label_column,
        ticker=ticker,
        invite=invite and invite(source),
    )
    return Named(source, collection, teacher)


def means_the_hub(data: str) -> bool:
    """owner/name, unless something here is called so, or `owner` is a folder here and `name` a slip of the pen."""
    return (
        "/" in data
        and hub.is_hub_id(data)
        and existing_path(data) is None
        and existing_path(data.split("/", maxsplit=1)[0]) is None
    )


def open_model(
    text: str,
    settings: Settings,
    *,
    weights: bool = True,
    accept: Callable[[dict[str, Any]], None] | None = None,
    revision: str | None = None,
) -> ModelSource:
    """Find MODEL: an embedded name, a folder, a run, else a Hub id; `weights=False` where the architecture is enough.

    `accept` is shown the config.json of a Hub model before its weights are fetched, and may raise ModelError.
    With the `revision` that a run is pinned to it is the Hub's model, whatever is called so here by now.
    Raises ModelError, JobError or HubError.
    """
    if revision is not None:
        return _pinned_model(text, revision, settings, weights, accept)
    if "/" not in text and existing_path(str(catalogue.BACKBONES_DIR / text / "config.json")) is not None:
        return _checked(ModelSource(text, catalogue.BACKBONES_DIR / text, "embedded"), weights)
    folder = existing_path(text)
    if folder is not None and folder.is_dir():
        folder = folder.resolve()
        for run_dir in (folder, folder.parent):
            if (run_dir / "owner.json").is_file() and folder in (run_dir, Run(run_dir).model_dir):
                return _run_model(Run(run_dir), settings, weights)
        return _checked(ModelSource(str(folder), folder, "folder"), weights)
    if "/" not in text:
        try:
            return _run_model(find_run(text, settings), settings, weights)
        except JobError as failure:
            if "could mean" in failure.message:
                raise
            raise ModelError(_unknown_model(text), failure.details) from failure
    if not hub.is_hub_id(text):
        raise ModelError(f"there is no folder {text!r}, and it cannot be a Hub id either, which looks like owner/name")
    fetched = hub.fetch_model(text, settings, weights=weights, accept=accept)
    return _checked(ModelSource(text, fetched.path, "hub", fetched.revision), weights)


def _pinned_model(
    text: str, revision: str, settings: Settings, weights: bool, accept: Callable[[dict[str, Any]], None] | None
) -> ModelSource:
    try:
        fetched = hub.fetch_model(text, settings, revision, weights=weights, accept=accept)
    except (RevisionMissing, RepositoryMissing) as failure:
        raise HubError(
            f"this run began with {text} at revision {revision}, which is neither on the Hub nor on this machine any "
            "more; start a new run, which takes the model as it is now, or ask its owner to bring that revision back",
            [failure.message, *failure.details],
        ) from failure
    return _checked(ModelSource(text, fetched.path, "hub", fetched.revision), weights)


def _run_model(run: Run, settings: Settings, weights: bool) -> ModelSource:
    if not (run.model_dir / "config.json").is_file():
        state = run.view().state
        advice = {
            True: "its model comes when it ends; `python -m tl_core runs` shows how far it is",
            state in RESUMABLE_STATES: f"`python -m tl_core resume {run.id}` continues it",
            state == "succeeded": "its model folder was removed; train again",
        }[True]
        raise ModelError(f"run {run.id} is {state} and has no model: {advice}")
    named = run.id if run.dir.parent == settings.runs_dir.resolve() else str(run.dir)
    return _checked(ModelSource(named, run.model_dir, "run"), weights)


def _checked(source: ModelSource, weights: bool) -> ModelSource:
    if not (source.path / "config.json").is_file():
        raise ModelError(f"the folder {source.named} holds no model: it has no config.json")
    if weights and not any(source.path.glob("*.safetensors")):
        pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth") for file in source.path.glob(pattern))
        if pickled:
            raise ModelError(
                f"{source.named} has its weights as a pickle ({pickled[0]}), which can run code when it is opened "
                "and is never loaded here; convert it to model.safetensors (transformers' `save_pretrained` writes it)"
            )
        raise ModelError(f"{source.named} holds no weights: it has no *.safetensors file")
    return source


def _unknown_model(text: str) -> str:
    names = [backbone.id for backbone in catalogue.embedded()]
    near = difflib.get_close_matches(text, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"embedded: {', '.join(names)}; a Hub id looks like owner/name"
    return f"there is no embedded backbone, folder or run {text!r}; {hint}"
