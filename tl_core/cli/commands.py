"""The commands about images, models and runs, each a call of `tl_core.api` and what is said of its answer."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tl_core import __version__
from tl_core.cli.answers import answer, json_option
from tl_core.config import TrainConfig, options
from tl_core.ending import INTERRUPTED
from tl_core.errors import printable
from tl_core.options import flag, read_config_file
from tl_core.terminal import (
    Progress,
    lines_of_evaluation,
    lines_of_models,
    lines_of_predictions,
    lines_of_ranking,
    lines_of_runs,
    lines_of_training,
    spoken_place,
)


def _column_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed([option for option in options() if option.name.endswith("_column")]):
        command = click.option(flag(option.name), option.name, metavar="NAME", help=_sentence(option.help))(command)
    return command


def _train_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One flag for each field of TrainConfig. All take text: TrainConfig converts it and reports every problem."""
    for option in reversed(options()):
        if option.kind is bool:
            switch = click.option(
                flag(option.name), option.name, is_flag=True, default=None, help=_sentence(option.help)
            )
            command = switch(command)
            continue
        metavar = "|".join(option.choices) or {int: "N", float: "X"}.get(option.kind, "TEXT")
        default = "  [required]" if option.required else "  [default: auto]" if option.derived else ""
        default = default if option.default is None else f"  [default: {option.default}]"
        command = click.option(flag(option.name), option.name, metavar=metavar, help=_sentence(option.help) + default)(
            command
        )
    return command


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="tl_core")
def cli() -> None:
    """Teach an image classifier: check pictures, train, judge, predict, share."""


@cli.command()
@json_option
def models(as_json: bool) -> None:
    """List backbones to start from, embedded ones first, with what these cost for each image on this machine."""
    from tl_core import api

    found = api.models(measure=True)
    answer(as_json, {"models": found}, lines_of_models(found))


@cli.command()
@click.argument("data")
@_column_options
@json_option
def check(data: str, image_column: str | None, label_column: str | None, as_json: bool) -> None:
    """Look at DATA before training: classes, broken files, duplicates, splits.

    DATA is a folder of class folders, a folder with train/validation/test, a zip of either, a CSV/JSONL/parquet table,
    a Hub dataset id, or sample:NAME.
    """
    from tl_core import api
    from tl_core.images.report import render

    with Progress() as progress:
        report = api.check(data, image_column=image_column, label_column=label_column, ticker=progress.show)
    answer(as_json, report.to_json(), render(report))


@cli.command()
@click.argument("data")
@click.option(
    "--models",
    metavar="MODEL,...",
    help="Backbones to compare, as --model of `train` names them.  [default: the embedded ones, and those of the "
    "catalogue that are on this disk]",
)
@click.option(
    "--images", metavar="N", type=click.IntRange(min=1), help="Most images to look at.  [default: 60 a class, 1,000]"
)
@click.option(
    "--seed",
    metavar="N",
    default=TrainConfig.model_fields["seed"].default,
    show_default=True,
    type=click.IntRange(min=0),
    help="Of the sample and the folds; the images that a training with this seed tests on are left out.",
)
@_column_options
@json_option
def rank(
    data: str,
    models: str | None,
    images: int | None,
    seed: int,
    image_column: str | None,
    label_column: str | None,
    as_json: bool,
) -> None:
    """Find the backbone that suits the images in DATA, before anything is trained.

    Each looks at a sample of them once, frozen; heads on what it sees are judged by cross-validation.
    """
    from tl_core import api

    words = None if models is None else [word.strip() for word in models.split(",") if word.strip()]
    with Progress() as progress:
        value = api.rank(
            data,
            models=words,
            images=images,
            seed=seed,
            image_column=image_column,
            label_column=label_column,
            ticker=progress.show,
        )
    for entry in value["failed"]:
        print(f"left out: {printable(entry['id'])}: {printable(entry['reason'])}", file=sys.stderr)
    answer(as_json, value, lines_of_ranking(value))


@cli.command()
@_train_options
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Options from a JSON file; flags win.")
@click.option(
    "--background", is_flag=True, help="Return at once; a process of its own does the work, when its turn has come."
)
@json_option
def train(config_file: Path | None, background: bool, as_json: bool, **given: str | bool | None) -> int:
    """Train a classifier and measure it on images it has not seen."""
    from tl_core import api

    values = read_config_file(config_file) if config_file else {}
    values |= {name: value for name, value in given.items() if value is not None}
    config = TrainConfig.parse(values)
    if background:
        with Progress() as progress:
            run = api.train_in_background(config, ticker=progress.show)
        return _say_started(run, as_json)
    with Progress() as progress:
        report = api.train(config, echo=progress, ticker=progress.show)
    return _say_ended(report, as_json)


@cli.command()
@click.argument("run")
@click.option(
    "--background", is_flag=True, help="Return at once; a process of its own does the work, when its turn has come."
)
@json_option
def resume(run: str, background: bool, as_json: bool) -> int:
    """Continue RUN from its last checkpoint, after a stop, a crash or a kill."""
    from tl_core import api

    if background:
        return _say_started(api.resume_in_background(run), as_json)
    with Progress() as progress:
        report = api.resume(run, echo=progress, ticker=progress.show)
    return _say_ended(report, as_json)


def _say_started(run: Any, as_json: bool) -> int:
    from tl_core.delivery import wish_of
    from tl_core.jobs import queue_of
    from tl_core.settings import read_settings
    from tl_core.tokens import kept

    view = run.view(queue_of(read_settings()))
    doing = f"waits for its turn, {spoken_place(view.place)}" if view.place else "works in the background"
    line = f"run {run.id} {doing}; `python -m tl_core runs` shows how far it is"
    wish = wish_of(run)
    if wish is not None and kept(run):
        print(
            "the access token is stored nowhere and ends with this command: `hf auth login` keeps it until the run's "
            f"turn has come, or `{wish.command(run)}` publishes the model afterwards",
            file=sys.stderr,
        )
    answer(as_json, {"run_id": run.id, "run_dir": str(run.dir), "place": view.place}, [line])
    return 0


def _say_ended(report: dict[str, Any], as_json: bool) -> int:
    told = {key: value for key, value in report.items() if key != "predictions"}
    answer(as_json, told, lines_of_training(report))
    return INTERRUPTED if report["stopped"] else 0


@cli.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--top", metavar="N", default=5, show_default=True, type=click.IntRange(min=0), help="Labels per image, 0: all."
)
@json_option
def predict(model: str, images: tuple[str, ...], top: int, as_json: bool) -> None:
    """Ask MODEL what each IMAGE shows.

    MODEL is an embedded name, a model folder, a run (an id, the beginning of one, or last) or a Hub id. IMAGE is a
    file or a folder; sample:NAME stands for one image of each class of a sample, of those that the model was not
    trained on.
    """
    from tl_core import api

    value = api.predict(model, images, top=top)
    for entry in value["skipped"]:
        print(f"left out: {printable(entry['file'])}: {entry['reason']}", file=sys.stderr)
    answer(as_json, value, lines_of_predictions(value["predictions"]))


@cli.command()
@click.argument("model")
@click.argument("data")
@click.option("--split", type=click.Choice(["train", "validation", "test", "all"]), help="Part of DATA to judge on.")
@_column_options
@json_option
def evaluate(
    model: str, data: str, split: str | None, image_column: str | None, label_column: str | None, as_json: bool
) -> None:
    """Measure MODEL on the labelled images in DATA.

    A run is judged on the images that it was not fitted on, unless --split says otherwise.
    """
    from tl_core import api

    with Progress() as progress:
        value = api.evaluate(
            model,
            data,
            split=split,
            image_column=image_column,
            label_column=label_column,
            ticker=progress.show,
        )
    answer(as_json, value, lines_of_evaluation(value))


@cli.command()
@json_option
def runs(as_json: bool) -> None:
    """List runs, newest last."""
    from tl_core import api

    views = api.runs()
    answer(as_json, {"runs": views}, lines_of_runs(views))


@cli.command()
@click.argument("run")
@click.option("--now", is_flag=True, help="End the process at once; work since the last checkpoint is lost.")
@json_option
def stop(run: str, now: bool, as_json: bool) -> None:
    """End RUN after its current step, or take it out of the queue; what was reached is kept."""
    from tl_core import api
    from tl_core.runs import RESUMABLE_STATES

    view = api.stop(run, now=now)
    words = "was ended" if view["state"] == "lost" else f"has ended ({view['state']})"
    advice = f"; `python -m tl_core resume {view['run_id']}` continues it" if view["state"] in RESUMABLE_STATES else ""
    line = f"run {view['run_id']} {words}{advice}"
    answer(as_json, view, [line])
