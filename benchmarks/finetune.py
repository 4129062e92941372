"""Images per second of full fine-tuning, against a bare loop that does nothing else, and against Trainer's defaults.

    python -m benchmarks.finetune [--images 600] [--steps 60] [--models resnet-18,vit-s]

The pictures are generated JPEGs, the backbones have random weights at 224 px. The bare loop has its pictures decoded in
memory, and takes the same steps: the number format, layout, augmentation and batch that the run chose, AdamW, clipped
gradients. The product keeps what it has decoded, so that its pace from the second pass on is the one to compare; from
files, its whole training counts, with the first pass. Looks at validation images are left out. Goals are ratios of
medians within one run; nothing is asserted.
"""

import argparse
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageClassification

import tl_core
from benchmarks.frozen import CLASSES, MODELS, make_model, make_pictures
from benchmarks.machine import describe
from benchmarks.plain_trainer import answer_apart, divide, make_trainer
from tl_core.ml.augmentation import Augmentation
from tl_core.ml.libraries import load_libraries
from tl_core.ml.machine import current_device
from tl_core.ml.picture_cache import read_reduced
from tl_core.ml.precision import Precision, prepare
from tl_core.ml.transforms import Normalisation, TrainTransform
from tl_core.settings import read_settings

GOALS = {"in memory": 0.97, "from files": 0.85}
WARM_STEPS = 5
MAX_GRAD_NORM = 1.0
TRAINER_BATCH = 8  # its default


def train_full(data: Path, model_dir: Path, steps: int) -> dict[str, Any]:
    """A run of the product: of given parts, so that everything else goes into training."""
    return tl_core.train(data=str(data), model=str(model_dir), strategy="full", max_steps=steps, mirror="no")


def pace_of_run(report: dict[str, Any]) -> tuple[float, float]:
    """Images per second after the first pass, and over the whole training."""
    lines = (Path(report["run_dir"]) / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    begun = next(event["time"] for event in events if event["kind"] == "stage" and event["name"] == "training")
    batch, images = report["training"]["batch_size"], report["data"]["splits"]["train"]
    spans, before, looked = [], (begun, 0), False
    for event in events:
        looked = looked or event["kind"] == "validation"
        if event["kind"] == "training":
            if not looked:
                spans.append((before[1], event["step"], event["time"] - before[0]))
            before, looked = (event["time"], event["step"]), False
    first_pass = -(-images // batch)
    later = [(end - start) * batch / taken for start, end, taken in spans if start >= first_pass]
    if not later:
        raise SystemExit("error: no step after the first pass was timed; give more --steps or fewer --images")
    return statistics.median(later), sum(end - start for start, end, _ in spans) * batch / sum(s[2] for s in spans)


def pace_of_bare_loop(files: Sequence[Path], model_dir: Path, training: dict[str, Any], steps: int) -> float:
    """Images per second: pictures in memory, a loop, and nothing else."""
    device, batch = current_device(), training["batch_size"]
    precision = Precision(**training["precision"])
    processor = AutoImageProcessor.from_pretrained(model_dir)
    model = AutoModelForImageClassification.from_pretrained(model_dir).to(device).train()
    prepare(model, precision)
    size = processor.size["height"], processor.size["width"]
    pictures = [read_reduced(path, size, read_settings().max_pixels) for path in files]
    labels = torch.tensor([int(path.parent.name[6:]) for path in files])
    vary, normalise = TrainTransform(processor, Augmentation(**training["augmentation"]), 0), Normalisation(processor)
    loss = nn.CrossEntropyLoss(label_smoothing=training["label_smoothing"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    generator, taken = random.Random(0), []
    for step in range(WARM_STEPS + steps):
        begun = time.perf_counter()
        chosen = generator.sample(range(len(files)), batch)
        pixels = normalise(torch.stack(vary([pictures[i] for i in chosen], step, chosen)))
        pixels = pixels.contiguous(memory_format=precision.memory_format).to(device)
        with precision.autocast(device):
            logits = model(pixel_values=pixels).logits
        loss(logits.float(), labels[chosen].to(device)).backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        optimizer.zero_grad()
        if device.type != "cpu":
            torch.accelerator.synchronize()
        if step >= WARM_STEPS:
            taken.append(time.perf_counter() - begun)
    return batch / statistics.median(taken)


def pace_of_trainer(files: Sequence[Path], model_dir: Path, images: int, folder: Path) -> float:
    """Images per second of transformers' own example; its first steps, which load things, count as well."""
    steps = max(1, images // TRAINER_BATCH)
    trainer = make_trainer(model_dir, files, folder, frozen=False, max_steps=steps)
    begun = time.perf_counter()
    trainer.train()
    return steps * TRAINER_BATCH / (time.perf_counter() - begun)


def lay_out(data: Path, parts: dict[str, Sequence[Path]], folder: Path) -> None:
    for part, files in parts.items():
        for file in files:
            place = folder / part / file.parent.name / file.name
            place.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, place)


def measure(name: str, data: Path, folder: Path, steps: int) -> None:
    make_model(name, folder / name)
    taught, held = divide(data, CLASSES)
    parts = folder / f"parts for {name}"
    half = len(held) // 2
    lay_out(data, {"train": taught, "validation": held[:half], "test": held[half:]}, parts)
    os.environ["TL_HOME"] = str(folder / f"home of {name}")
    before = pace_of_bare_loop(taught, folder / name, _plan_of(name, parts, folder), steps // 2)
    report = train_full(parts, folder / name, steps)
    in_memory, from_files = pace_of_run(report)
    training = report["training"]
    bare = statistics.mean([before, pace_of_bare_loop(taught, folder / name, training, steps // 2)])
    by_trainer = answer_apart(pace_of_trainer, taught, folder / name, len(taught) // 2, folder / "trainer")
    print(
        f"\n{name}, {len(taught):,} images, {steps} steps of {training['batch_size']}, "
        f"{Precision(**training['precision']).label}\n"
        f"  bare loop, decoded in memory {bare:.1f} images/s\n"
        f"  this project, decoded before {in_memory:.1f}: {_told('in memory', in_memory / bare)}\n"
        f"  this project, from files {from_files:.1f}: {_told('from files', from_files / bare)}\n"
        f"  Trainer with its defaults {by_trainer:.1f}: this project is {from_files / by_trainer:.1f} × as fast",
        flush=True,
    )


def _plan_of(name: str, parts: Path, folder: Path) -> dict[str, Any]:
    """What a run chooses here, known before it is measured: the bare loop is timed before it and after it."""
    training: dict[str, Any] = train_full(parts, folder / name, 1)["training"]
    return training


def _told(goal: str, ratio: float) -> str:
    reached = "reached" if ratio >= GOALS[goal] else f"missed by {GOALS[goal] - ratio:.2f}"
    return f"{ratio:.2f} of it, goal ≥ {GOALS[goal]} ({reached})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--models", type=lambda text: text.split(","), default=["resnet-18", "vit-s"])
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.models) - set(MODELS))
    if unknown:
        parser.error(f"there is no model {unknown[0]!r}; there are {', '.join(MODELS)}")
    load_libraries()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "pictures"
        make_pictures(data, range(arguments.images))
        for name in arguments.models:
            measure(name, data, Path(folder), arguments.steps)


if __name__ == "__main__":
    main()
