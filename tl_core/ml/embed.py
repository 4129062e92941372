"""Turn a finished run into an embedded backbone: half the bytes, the recipe, and a card with measured figures.

    python -m tl_core.ml.embed RUN NAME --family FAMILY --summary "When to take it." --data "What it learnt from."

For the people who make this project's backbones; whoever only uses them needs none of it.
"""

import argparse
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoImageProcessor

from tl_core.catalogue import BACKBONES_DIR, count_parameters
from tl_core.config import TrainConfig
from tl_core.errors import ModelError, TLError
from tl_core.files import write_atomically, write_json
from tl_core.ml.evaluation import choose_pictures, evaluate_model
from tl_core.ml.inference import load_predictor
from tl_core.ml.libraries import load_libraries
from tl_core.runs import Run, find_run
from tl_core.settings import Settings, read_settings
from tl_core.sources import ModelSource, open_data

WORDS = {"family": "of architectures", "summary": "when to take it, one sentence", "data": "what it learnt from"}


def embed(run: Run, name: str, words: dict[str, str], settings: Settings, folder: Path = BACKBONES_DIR) -> Path:
    """Write `folder`/`name` from a run's model and measure what is stored on the pictures that judged the run.

    `words` are what cannot be measured: family, summary (when to take it), data (what it is, in a sentence). Raises
    ModelError for an unfinished run.
    """
    report = run.report()
    if report is None:
        raise ModelError(f"run {run.id} has no report; `python -m tl_core resume {run.id}` finishes it")
    config = run.config()
    target = folder / name
    target.mkdir(parents=True, exist_ok=True)
    store_half(run.model_dir, target)
    recipe = {**config.portable().changed(), "data": Path(config.data).name, "model": name, "name": name}
    write_json(target / "recipe.json", {**TrainConfig.parse(recipe).changed(), "model": name, "seed": config.seed})

    collection = open_data(config.data, settings, image_column=config.image_column, label_column=config.label_column)
    source = ModelSource(run.id, run.model_dir, "run")
    _, pictures, _ = choose_pictures(source, collection)
    stored = evaluate_model(
        load_predictor(ModelSource(name, target, "folder")), pictures, report["metrics"]["split"], settings.max_pixels
    )
    write_atomically(target / "README.md", _render(name, words, report, stored, target))
    return target


def store_half(model_dir: Path, target: Path) -> None:
    """Copy a model folder with its weights in float16; its config says float32, so that it is computed in that."""
    weights = load_file(model_dir / "model.safetensors")
    half = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(half, target / "model.safetensors", metadata={"format": "pt"})
    config = AutoConfig.from_pretrained(model_dir)
    config.dtype = torch.float32
    config.save_pretrained(target)
    AutoImageProcessor.from_pretrained(model_dir).save_pretrained(target)


def _render(name: str, words: dict[str, str], report: dict[str, Any], stored: dict[str, Any], target: Path) -> str:
    template = resources.files("tl_core").joinpath("templates/backbone_card.md").read_text(encoding="utf-8")
    environment = jinja2.Environment(
        trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False
    )
    return environment.from_string(template).render(
        **words,
        name=name,
        report=report,
        stored=stored,
        report_data=Path(report["data"]["source"]).name,
        parameters=count_parameters(target / "model.safetensors"),
        megabytes=(target / "model.safetensors").stat().st_size / 1e6,
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tl_core.ml.embed", description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("name")
    for word, meaning in WORDS.items():
        parser.add_argument(f"--{word}", required=True, help=meaning)
    words = parser.parse_args(arguments)
    load_libraries()
    settings = read_settings()
    try:
        told = {word: getattr(words, word) for word in WORDS}
        print(embed(find_run(words.run, settings), words.name, told, settings))
    except TLError as failure:
        print(f"error: {failure.message}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
