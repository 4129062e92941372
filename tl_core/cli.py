"""The command line: words in, one answer out. Everything a command does is done elsewhere.

With --json exactly one JSON object goes to stdout; progress, notes and errors go to stderr. Exit codes: 0 done, 2 the
person can mend it, 130 interrupted, 1 our fault. torch and its family are imported inside the commands that need them.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tl_core import __version__
from tl_core.config import TrainConfig, flag, options, read_config_file
from tl_core.errors import DataError, TLError
from tl_core.settings import read_settings
from tl_core.terminal import Progress, lines_of_evaluation, lines_of_models, lines_of_runs, lines_of_training

INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    try:
        result = cli.main(args=arguments, prog_name="python -m tl_core", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except TLError as failure:
        return _fail(failure.message, failure.details)
    except click.ClickException as failure:
        return _fail(" ".join(failure.format_message().split()), ())
    except (KeyboardInterrupt, click.Abort):
        print("interrupted", file=sys.stderr)
        return INTERRUPTED


def _fail(message: str, details: tuple[str, ...]) -> int:
    print(f"error: {message}", file=sys.stderr)
    for line in details:
        print(f"  {line}", file=sys.stderr)
    return 2


def _answer(as_json: bool, value: dict[str, Any], lines: list[str]) -> None:
    if as_json:
        click.echo(json.dumps(value, ensure_ascii=False))
    else:
        for line in lines:
            click.echo(line)


def _json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def _column_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed([option for option in options() if option.name.endswith("_column")]):
        command = click.option(flag(option.name), option.name, metavar="NAME", help=_sentence(option.help))(command)
    return command


def _train_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One flag for each field of TrainConfig. All take text: TrainConfig converts it and reports every problem."""
    for option in reversed(options()):
        metavar = "|".join(option.choices) or {int: "N", float: "X"}.get(option.kind, "TEXT")
        default = "" if option.default is None else f"  [default: {option.default}]"
        command = click.option(flag(option.name), option.name, metavar=metavar, help=_sentence(option.help) + default)(
            command
        )
    return command


def _accept(config: dict[str, Any]) -> None:
    from tl_core.ml.backbone import accept_architecture

    accept_architecture(config)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="tl_core")
def cli() -> None:
    """Teach an image classifier: check pictures, train, judge, predict."""


@cli.command()
@_json_option
def models(as_json: bool) -> None:
    """List backbones to start from, embedded ones first."""
    from tl_core.catalogue import list_backbones

    found = [backbone.to_json() for backbone in list_backbones()]
    _answer(as_json, {"models": found}, lines_of_models(found))


@cli.command()
@click.argument("data")
@_column_options
@_json_option
def check(data: str, image_column: str | None, label_column: str | None, as_json: bool) -> None:
    """Look at DATA before training: classes, broken files, duplicates, splits.

    DATA is a folder of class folders, a folder with train/validation/test, a zip of either, a CSV/JSONL/parquet table,
    a Hub dataset id, or sample:NAME.
    """
    from tl_core.images.duplicates import find_duplicates
    from tl_core.images.report import make_report, render
    from tl_core.images.splits import divide
    from tl_core.sources import open_data

    settings = read_settings()
    with Progress("checking the images") as progress:
        collection = open_data(
            data, settings, image_column=image_column, label_column=label_column, progress=progress.update
        )
    duplicates = find_duplicates(collection.pictures)
    default_seed = TrainConfig.model_fields["seed"].default
    report = make_report(collection, duplicates, divide(collection, duplicates.groups, default_seed))
    _answer(as_json, report.to_json(), render(report))


@cli.command()
@_train_options
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="Options from a JSON file; flags win.")
@click.option("--background", is_flag=True, help="Return at once; a process of its own does the work.")
@_json_option
def train(config_file: Path | None, background: bool, as_json: bool, **given: str | None) -> int:
    """Train a classifier on your images and measure it on images it has not seen."""
    from tl_core.runs import create_run

    values = read_config_file(config_file) if config_file else {}
    values |= {name: value for name, value in given.items() if value is not None}
    config = TrainConfig.parse(values).with_absolute_paths()
    settings = read_settings()
    from tl_core.sources import open_data, open_model

    # Whatever is wrong with the words is said here: before torch is imported, before anything is written.
    source = open_model(config.model, settings, weights=config.strategy != "scratch", accept=_accept)
    if background:
        return _start(create_run(config, settings), as_json)
    with Progress("checking the images") as progress:
        collection = open_data(
            config.data,
            settings,
            image_column=config.image_column,
            label_column=config.label_column,
            progress=progress.update,
        )
    from tl_core.ml.training import make_inputs

    inputs = make_inputs(config, source, collection)
    return _work(create_run(config, settings), as_json, inputs)


def _start(run: Any, as_json: bool) -> int:
    from tl_core.jobs import start_worker

    start_worker(run)
    line = f"run {run.id} works in the background; `python -m tl_core runs` shows how far it is"
    _answer(as_json, {"run_id": run.id, "run_dir": str(run.dir)}, [line])
    return 0


def _work(run: Any, as_json: bool, inputs: Any = None) -> int:
    from tl_core.ml.worker import work

    with Progress("") as progress:
        report = work(run, read_settings(), echo=progress, ticker=progress.show, inputs=inputs)
    if report is None:
        print(f"stopped; `python -m tl_core resume {run.id}` continues", file=sys.stderr)
        if as_json:
            _answer(True, {"run_id": run.id, "run_dir": str(run.dir), "state": "stopped"}, [])
        return INTERRUPTED
    answer = {key: value for key, value in report.items() if key != "predictions"}
    _answer(as_json, {**answer, "state": run.view().state}, lines_of_training(report))
    return INTERRUPTED if report["stopped"] else 0


@cli.command()
@click.argument("model")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--top", metavar="N", default=5, show_default=True, type=click.IntRange(min=0), help="Labels per image, 0: all."
)
@_json_option
def predict(model: str, images: tuple[str, ...], top: int, as_json: bool) -> None:
    """Ask MODEL what each IMAGE shows.

    MODEL is an embedded name, a model folder, a run (an id, the beginning of one, or last) or a Hub id. IMAGE is a
    file; sample:NAME stands for one image of each class of a sample, of those that the model was not trained on.
    """
    from tl_core.images.decode import open_upright
    from tl_core.sources import open_model

    settings = read_settings()
    source = open_model(model, settings, accept=_accept)
    files = [file for image in images for file in _image_files(image, source)]
    pictures = []
    for file in files:
        try:
            pictures.append(open_upright(file, settings.max_pixels))
        except DataError as failure:
            raise DataError(f"{file}: {failure.message}") from failure
    from tl_core.ml.inference import load_predictor, rank_labels
    from tl_core.ml.libraries import quieten

    quieten()
    predictor = load_predictor(source)
    answers, lines = [], []
    for file, row in zip(files, predictor.judge(pictures), strict=True):
        labels = rank_labels(row, predictor.labels, top or len(predictor.labels))
        answers.append({"file": str(file), "labels": labels})
        lines += [str(file), *(f"  {entry['score']:7.2%}  {entry['label']}" for entry in labels)]
    _answer(as_json, {"predictions": answers}, lines)


def _image_files(word: str, source: Any) -> list[Path]:
    """The file that a word names, or one file of each class of a sample."""
    if not word.startswith("sample:"):
        if not Path(word).is_file():
            raise DataError(f"there is no image file {word!r}")
        return [Path(word)]
    from tl_core.ml.evaluation import choose_pictures
    from tl_core.sources import open_data

    _, pictures = choose_pictures(source, open_data(word, read_settings()), None)
    return list({picture.label: picture.path for picture in reversed(pictures)}.values())[::-1]


@cli.command()
@click.argument("model")
@click.argument("data")
@click.option(
    "--split", type=click.Choice(["train", "validation", "test", "all"]), help="Which part of DATA to judge on."
)
@_column_options
@_json_option
def evaluate(
    model: str, data: str, split: str | None, image_column: str | None, label_column: str | None, as_json: bool
) -> None:
    """Measure MODEL on the labelled images in DATA.

    For the data a model was trained on, the test part of its own split is used unless --split says otherwise.
    """
    from tl_core.sources import open_data, open_model

    settings = read_settings()
    source = open_model(model, settings, accept=_accept)
    with Progress("checking the images") as progress:
        collection = open_data(
            data, settings, image_column=image_column, label_column=label_column, progress=progress.update
        )
    from tl_core.ml.evaluation import choose_pictures, evaluate_model
    from tl_core.ml.inference import load_predictor
    from tl_core.ml.libraries import quieten

    quieten()
    name, pictures = choose_pictures(source, collection, split)
    predictor = load_predictor(source)
    with Progress("judging") as progress:
        figures = evaluate_model(predictor, pictures, name, settings.max_pixels, progress.update)
    per_class, matrix = figures.pop("per_class"), figures.pop("confusion_matrix")
    labels = figures.pop("labels")
    value = {"metrics": figures, "per_class": per_class, "confusion_matrix": matrix, "labels": labels}
    _answer(as_json, value, lines_of_evaluation(value))


@cli.command()
@_json_option
def runs(as_json: bool) -> None:
    """List runs, newest last."""
    from tl_core.runs import list_runs

    views = [run.view().to_json() for run in list_runs(read_settings())]
    _answer(as_json, {"runs": views}, lines_of_runs(views))


@cli.command()
@click.argument("run")
@click.option("--now", is_flag=True, help="End the process at once; work since the last checkpoint is lost.")
@_json_option
def stop(run: str, now: bool, as_json: bool) -> None:
    """End RUN after its current step; what was reached is kept."""
    from tl_core.jobs import kill_run, stop_run
    from tl_core.runs import find_run

    found = find_run(run, read_settings())
    if now:
        kill_run(found)
    else:
        with Progress("finishing the step") as progress:
            progress.update(0, 0)
            stop_run(found)
    state = found.view().state
    _answer(as_json, {"run_id": found.id, "state": state}, [f"run {found.id} is {state}"])


@cli.command()
@click.argument("run")
@click.option("--background", is_flag=True, help="Return at once; a process of its own does the work.")
@_json_option
def resume(run: str, background: bool, as_json: bool) -> int:
    """Continue RUN from its last checkpoint, after a stop, a crash or a kill."""
    from tl_core.jobs import check_resumable
    from tl_core.runs import find_run

    found = find_run(run, read_settings())
    check_resumable(found)
    return _start(found, as_json) if background else _work(found, as_json)
