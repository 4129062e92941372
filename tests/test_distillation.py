"""A teacher's answers are learnt from, class by class; what is judged, looked at and resumed stays as it was."""

import json
import secrets
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from models import SIDE, edit_config, save_resnet, save_vit
from pictures import make_folder
from safetensors.torch import load_file, save_file
from transformers import TrainingArguments, ViTImageProcessor

import tl_core
from tl_core import api
from tl_core.config import TrainConfig
from tl_core.errors import ConfigError, HubError, ModelError
from tl_core.ml import control, preview, speed
from tl_core.ml.backbone import Backbone, load_backbone
from tl_core.ml.distillation import Teacher, distances, load_teacher
from tl_core.ml.finetuning import Finetuning
from tl_core.ml.inference import load_predictor
from tl_core.ml.precision import Precision
from tl_core.ml.trainer import BackboneTrainer, TrainingLoss
from tl_core.ml.worker import work
from tl_core.parts import recall_parts
from tl_core.runs import Run, create_run
from tl_core.settings import Settings
from tl_core.sources import ModelSource
from tl_core.ui.choices import allowed_model
from tl_core.ui.starting import configure, configure_options, usable_options

CLASSES = ["a", "b", "c"]
PIXELS = torch.randn(6, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
STEPS = {"strategy": "scratch", "batch_size": 16, "precision": "fp32", "patience": 0, "mirror": "no"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "photos", dict.fromkeys(CLASSES, 30))


@pytest.fixture
def student(tmp_path: Path) -> Backbone:
    return load_backbone(save_vit(tmp_path / "student"), CLASSES)


def save_teacher(folder: Path, names: list[str], seed: int = 5, **processor: Any) -> ModelSource:
    """A ResNet that knows classes of these names, far from indifferent between them."""
    source = save_resnet(folder, len(names), seed)
    edit_config(source, id2label=dict(enumerate(names)), label2id={name: place for place, name in enumerate(names)})
    if processor:
        ViTImageProcessor(**processor).save_pretrained(folder)
    return source


def answers_of(source: ModelSource, pixels: torch.Tensor) -> torch.Tensor:
    """Its logits as transformers gives them."""
    with torch.no_grad():
        return load_predictor(source).model(pixel_values=pixels).logits


# ---------------------------------------------------------------- the loss


def test_the_distance_is_the_divergence_from_the_teachers_answer() -> None:
    student, teacher = torch.tensor([[2.0, 0.0, -2.0]]), torch.tensor([[0.0, 4.0, 0.0]])
    p, q = (np.exp(np.array(v)) for v in ([0.0, 4.0, 0.0], [2.0, 0.0, -2.0]))
    p, q = p / p.sum(), q / q.sum()
    assert float(distances(student, teacher)) == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-5)
    assert float(distances(teacher, teacher)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("shares", [False, True], ids=["numbers", "mixed"])
@pytest.mark.parametrize("weights", [None, np.array([0.5, 1.0, 1.5])], ids=["plain", "weighted"])
def test_a_step_in_parts_learns_as_much_as_the_whole(shares: bool, weights: np.ndarray | None) -> None:
    generator = torch.Generator().manual_seed(0)
    logits, answers = (torch.randn(12, 3, generator=generator) for _ in range(2))
    labels = torch.arange(12) % 3
    targets = 0.7 * torch.eye(3)[labels] + 0.3 * torch.eye(3)[(labels + 1) % 3]
    each = distances(logits, answers)
    of_image = torch.ones(3) if weights is None else torch.tensor(weights).float()
    expected = float((each * (targets @ of_image if shares else of_image[labels])).mean())
    loss, given = TrainingLoss(weights, 0.0), targets if shares else labels
    parts = [slice(0, 5), slice(5, 10), slice(10, 12)]
    found = [
        loss.of_teacher(SimpleNamespace(logits=logits[part]), answers[part], given[part], given.numel())
        for part in parts
    ]
    assert float(sum(found)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_labels_and_teacher_share_the_loss_of_a_training_step_alone(
    student: Backbone, tmp_path: Path, share: float
) -> None:
    teacher = load_teacher(save_teacher(tmp_path / "t", CLASSES), student, share)
    loss, labels = TrainingLoss(None, 0.1), torch.arange(6) % 3
    arguments = TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none")
    trainer = BackboneTrainer(model=student.model, args=arguments, loss=loss, teacher=teacher)
    with torch.no_grad():
        outputs = student.model(pixel_values=PIXELS)
        plain = loss(outputs, labels)
        far = loss.of_teacher(outputs, teacher(PIXELS), labels)

    def of_step(*parts: slice) -> float:
        """The loss that Trainer adds up over the micro-batches of a step."""
        batches = [{"pixel_values": PIXELS[part], "labels": labels[part]} for part in parts]
        return sum(trainer.compute_loss(student.model, batch, num_items_in_batch=6).item() for batch in batches)

    student.model.train()  # a ViT without dropout answers alike in both modes
    for parts in ([slice(0, 6)], [slice(0, 4), slice(4, 6)]):
        assert of_step(*parts) == pytest.approx(((1 - share) * plain + share * far).item(), rel=1e-5)
    student.model.eval()
    assert of_step(slice(0, 6)) == pytest.approx(plain.item(), rel=1e-6)


# ---------------------------------------------------------------- the teacher


def test_classes_are_matched_by_name(student: Backbone, tmp_path: Path) -> None:
    source = save_teacher(tmp_path / "t", ["c", "x", "a", "y", "b"])
    teacher = load_teacher(source, student, 0.5)
    torch.testing.assert_close(teacher(PIXELS), answers_of(source, PIXELS)[:, [2, 4, 0]])
    assert not any(parameter.requires_grad for parameter in teacher.model.parameters())
    assert not teacher.model.training and not teacher(PIXELS).requires_grad
    assert "3 classes, of the 5 that it knows" in teacher.description


def test_another_size_and_another_normalisation_are_the_teachers_own(student: Backbone, tmp_path: Path) -> None:
    size = {"height": 48, "width": 40}
    source = save_teacher(
        tmp_path / "t", CLASSES, size=size, image_mean=[0.1, 0.2, 0.3], image_std=[0.9, 0.8, 0.7], do_rescale=True
    )
    teacher = load_teacher(source, student, 0.5)
    grey = PIXELS * 0.5 + 0.5  # as the student's processor has it: mean and deviation of one half
    mean, deviation = torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1), torch.tensor([0.9, 0.8, 0.7]).view(1, 3, 1, 1)
    larger = torch.nn.functional.interpolate(grey, (48, 40), mode="bilinear", antialias=True)
    torch.testing.assert_close(teacher(PIXELS), answers_of(source, (larger - mean) / deviation), rtol=1e-4, atol=1e-4)


def test_the_teacher_computes_as_the_student_does(student: Backbone, tmp_path: Path) -> None:
    teacher = load_teacher(save_teacher(tmp_path / "t", CLASSES), student, 0.5)
    exact = teacher(PIXELS)
    teacher.compute_in(Precision("bf16", True, ""))
    rough = teacher(PIXELS.contiguous(memory_format=torch.channels_last))
    assert rough.dtype == torch.float32
    assert not torch.equal(rough, exact)
    torch.testing.assert_close(rough, exact, rtol=0.1, atol=0.1)


def test_a_teacher_that_does_not_know_a_class_is_refused_before_a_run_begins(
    photos: Path, tmp_path: Path, settings: Settings
) -> None:
    model, teacher = save_vit(tmp_path / "v"), save_teacher(tmp_path / "t", ["a", "x", "y"])
    with pytest.raises(ModelError, match="does not know 'b', 'c'; it knows 'a', 'x', 'y'") as caught:
        tl_core.train(photos, model=str(model.path), teacher=str(teacher.path), strategy="full")
    assert "--teacher" in caught.value.message
    assert not settings.runs_dir.exists()


def test_of_two_classes_of_one_name_none_is_taken(student: Backbone, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="several classes named 'b'"):
        load_teacher(save_teacher(tmp_path / "t", ["a", "b", "c", "b"]), student, 0.5)


@pytest.mark.parametrize(
    ("word", "problem", "said"),
    [
        ("tiny-resnett", ModelError, "did you mean tiny-resnet"),
        ("owner/name", HubError, "cannot be reached"),
        ("headless", ModelError, "cannot predict yet"),
        ("empty", ModelError, "holds no model"),
    ],
)
def test_a_teacher_that_is_none_is_refused_as_a_model_is(
    photos: Path, tmp_path: Path, word: str, problem: type[Exception], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    weights = save_teacher(tmp_path / "headless", CLASSES).path / "model.safetensors"
    _drop_head(weights)
    model = save_vit(tmp_path / "v")
    with pytest.raises(problem, match=said):
        tl_core.train(photos, model=str(model.path), teacher=word, strategy="full")


def _drop_head(weights: Path) -> None:
    kept = {name: value for name, value in load_file(weights).items() if not name.startswith("classifier")}
    save_file(kept, weights, metadata={"format": "pt"})


# ---------------------------------------------------------------- the options


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"strategy": "frozen", "teacher": "x"}, "--teacher cannot be used with --strategy frozen"),
        ({"strategy": "frozen", "head_solver": "trainer", "teacher": "x"}, "--teacher cannot be used"),
        ({"strategy": "full", "teacher_weight": 0.2}, "--teacher-weight has no meaning without --teacher"),
        ({"strategy": "full", "teacher": "x", "teacher_weight": 1.5}, "--teacher-weight is 1.5"),
        ({"strategy": "full", "teacher": ""}, "--teacher is empty"),
    ],
)
def test_a_teacher_where_none_can_be_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        TrainConfig.parse({"data": "x", **values})


def test_the_form_has_a_teacher_where_a_backbone_trains() -> None:
    assert {"teacher", "teacher_weight"} <= usable_options("full", None)
    assert not {"teacher", "teacher_weight"} & usable_options("frozen", "trainer")
    typed = {"strategy": "full", "model": "tiny-resnet", "teacher": " tiny-resnet ", "teacher_weight": 0.9}
    config = configure(typed, "x", "")
    assert (config.teacher, config.teacher_weight) == ("tiny-resnet", 0.9)
    with pytest.raises(ConfigError, match="“Teacher's weight” has no meaning without “Teacher”"):
        configure({**typed, "teacher": ""}, "x", "")


def test_what_is_handed_on_names_no_folder_of_this_computer(tmp_path: Path) -> None:
    config = TrainConfig.parse({"data": "x", "strategy": "full", "teacher": str(tmp_path / "wise")})
    assert config.portable().teacher == "wise"
    assert "--teacher wise" in config.portable().command()


def test_in_shared_mode_nobody_learns_from_a_folder_or_a_run_of_others(
    photos: Path, tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TL_SHARED", "1")
    mine = secrets.token_urlsafe(32)
    others = create_run(TrainConfig.parse({"data": "x"}), settings, "somebody").id
    folder = str(save_teacher(tmp_path / "t", CLASSES).path)
    for word in (folder, others):
        with pytest.raises(ModelError):
            allowed_model(word, mine)
        for asked in (configure_options, configure):
            with pytest.raises(ModelError):
                asked({"strategy": "full", "model": "tiny-resnet", "teacher": word}, "sample:shapes", mine)
    allowed = configure_options({"strategy": "full", "teacher": "tiny-resnet"}, "sample:shapes", mine)
    assert allowed.teacher == "tiny-resnet"


# ---------------------------------------------------------------- trainings


def test_a_batch_leaves_room_for_the_teachers_look(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher of large pictures takes more memory for one than a student of small ones trains with."""
    monkeypatch.setattr("tl_core.ml.finetuning.available_memory", lambda device: 30_000_000)
    teacher = save_teacher(tmp_path / "t", CLASSES, size={"height": 256, "width": 256})
    asked = {**STEPS, "data": str(photos), "model": str(save_vit(tmp_path / "v").path), "max_steps": 1}
    alone, taught = (tl_core.train({**asked, **more})["training"] for more in ({}, {"teacher": str(teacher.path)}))
    assert taught["micro_batch"] < alone["micro_batch"]


def test_who_learns_from_a_teacher_alone_comes_nearer_to_its_answers(photos: Path, tmp_path: Path) -> None:
    model = save_vit(tmp_path / "v")
    teacher = save_teacher(tmp_path / "t", ["b", "c", "a"])  # knows nothing: its answers have little to do with labels
    asked = {**STEPS, "data": str(photos), "model": str(model.path), "max_steps": 40, "learning_rate": 0.01}
    with_teacher = tl_core.train({**asked, "teacher": str(teacher.path), "teacher_weight": 1.0})
    without = tl_core.train(asked)
    told = answers_of(teacher, PIXELS)[:, [2, 0, 1]]
    near, far = (
        float(distances(answers_of(source_of(report), PIXELS), told).mean()) for report in (with_teacher, without)
    )
    assert near < far / 2
    assert with_teacher["teacher"] == {
        "id": "t",
        "kind": "folder",
        "revision": None,
        "weight": 1.0,
    }
    assert without["teacher"] is None
    log = Run(Path(with_teacher["run_dir"])).log_path.read_text(encoding="utf-8")
    assert f"learns from {teacher.path.resolve()}: its answers for 3 classes" in log
    card = (Path(with_teacher["model_dir"]) / "README.md").read_text(encoding="utf-8")
    assert "learnt from the answers of t, which made 100.0 % of the loss" in card
    assert str(tmp_path) not in card


def source_of(report: dict[str, Any]) -> ModelSource:
    return ModelSource(report["run_id"], Path(report["model_dir"]), "run")


def test_a_teacher_without_weight_changes_nothing(photos: Path, tmp_path: Path) -> None:
    """The random numbers and the looks at the validation images are those of a training without one."""
    model, teacher = save_resnet(tmp_path / "m"), save_teacher(tmp_path / "t", CLASSES)
    asked = {**STEPS, "data": str(photos), "model": str(model.path), "max_steps": 12, "mix": "both"}
    with_teacher = tl_core.train({**asked, "teacher": str(teacher.path), "teacher_weight": 0.0})
    without = tl_core.train(asked)
    assert looks_of(with_teacher) == looks_of(without) != []
    ours, theirs = (load_file(Path(report["model_dir"]) / "model.safetensors") for report in (with_teacher, without))
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name])


def looks_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What was said of the validation images."""
    events = Run(Path(report["run_dir"])).events()
    return [
        {key: value for key, value in event.items() if key != "time"}
        for event in events
        if event["kind"] not in ("stage", "status", "note") and "validation" in json.dumps(event)
    ]


@pytest.mark.skipif(torch.accelerator.is_available(), reason="exact on a CPU; sums on an accelerator have no order")
def test_a_run_that_was_stopped_learns_on_as_if_it_had_not_been(
    photos: Path, tmp_path: Path, settings: Settings
) -> None:
    model, teacher = save_resnet(tmp_path / "m"), save_teacher(tmp_path / "t", CLASSES)
    values = {"max_steps": 11, "mix": "both", "label_smoothing": 0.1, "checkpoint_minutes": 1e-9}
    asked = {**STEPS, **values, "data": str(photos), "model": str(model.path), "teacher": str(teacher.path)}
    whole, stopped = (create_run(TrainConfig.parse(asked), settings) for _ in range(2))

    def ask(stage: str, step: int, total: int) -> None:
        if (stage, step) == ("training", 5):
            stopped.request_stop()

    work(whole, settings, echo=None)
    first = work(stopped, settings, echo=None, ticker=ask)
    assert first is not None and first["stopped"]
    work(stopped, settings, echo=None)
    assert "continuing from step 5" in stopped.log_path.read_text(encoding="utf-8")
    ours, theirs = (load_file(run.model_dir / "model.safetensors") for run in (stopped, whole))
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_what_the_teacher_was_taught_is_taught_to_who_learns_from_it(
    photos: Path, tmp_path: Path, settings: Settings
) -> None:
    model = str(save_vit(tmp_path / "v").path)
    asked = {**STEPS, "data": str(photos), "model": model, "max_steps": 2}
    teacher = tl_core.train(asked)
    learner = tl_core.train({**asked, "teacher": "last", "seed": 5})
    known, inherited = (recall_parts(Run(Path(report["run_dir"]))) for report in (teacher, learner))
    assert known is not None and inherited is not None
    assert inherited.inherited == known.fitted
    (sentence,) = learner["warnings"]
    assert "were taught to a run that this one begins or learns from" in sentence
    assert learner["command"].endswith("--seed 5") and f"--teacher {teacher['run_id']}" in learner["command"]
    apart = tl_core.train({**asked, "teacher": teacher["run_id"]})
    assert apart["warnings"] == []
    assert api.evaluate(learner["run_id"], str(photos))["metrics"]["images"] < learner["metrics"]["images"]


def test_a_control_has_no_teacher(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "MIN_SECONDS", 0.2)
    taught_by: list[Teacher | None] = []
    train_backbone = Finetuning.run

    def note(self: Finetuning) -> Any:
        taught_by.append(self.teacher)
        assert (self.config.teacher is None) == (self.teacher is None)
        return train_backbone(self)

    monkeypatch.setattr(Finetuning, "run", note)
    teacher = save_teacher(tmp_path / "t", CLASSES)
    model = save_vit(tmp_path / "v")
    asked = {**STEPS, "strategy": "last-blocks", "data": str(photos), "model": str(model.path), "max_steps": 2}
    report = tl_core.train({**asked, "teacher": str(teacher.path), "control": True})
    assert report["control"]["failed"] is None
    assert [each is not None for each in taught_by] == [True, False]


def test_the_teachers_part_of_a_step_is_foreseen(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one answer was measured to take, for each picture of each step."""
    model, teacher = save_resnet(tmp_path / "m"), save_teacher(tmp_path / "t", CLASSES)
    asked = {**STEPS, "data": str(photos), "model": str(model.path), "max_steps": 1000}
    measured: list[float] = []

    def note(*arguments: Any) -> float:
        measured.append(speed.teacher_speed(*arguments))
        return 1.0  # against which nothing else of this training counts

    monkeypatch.setattr(preview, "teacher_speed", note)
    # Reading is measured for each preview: one that another program interrupts would count a thousand times.
    monkeypatch.setattr(preview, "reading_speed", lambda *_: speed.Reading(0.001, 0.001, 0.001, 0.001))
    more = api.preview({**asked, "teacher": str(teacher.path)})["seconds"] - api.preview(asked)["seconds"]
    assert len(measured) == 1 and measured[0] > 0
    assert more == pytest.approx(1000 * 16, abs=0.2)
    with pytest.raises(HubError, match="owner/name is not on this machine yet"):
        api.preview({**asked, "teacher": "owner/name"})
