"""The demo Space of a model: what is in it, that it reads pictures as the project does, that it starts and answers."""

import ast
import importlib.util
import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import metadata, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from gradio_client import Client, handle_file
from hub_server import Person, Repo, commit, serve
from huggingface_hub import RepoCard
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from page import HOSTILE, NAMES
from pictures import picture
from PIL import Image, ImageCms, PngImagePlugin
from transformers import pipeline

from tl_core.demo_space import EXAMPLE_SIDE, TEMPLATES, demo_files
from tl_core.errors import ConfigError, DataError
from tl_core.images.decode import open_upright
from tl_core.runs import Run
from tl_core.settings import Settings

NAME = "owner/leaves"
TOKEN = "hf_may_read_the_leaves"
MAX_PIXELS = 1_000_000
PATIENCE = 120.0  # seconds for what takes ten; only a failing test waits so long
PROJECT = TEMPLATES.parent.parent


def make_demo(report: dict[str, Any], settings: Settings, **more: Any) -> dict[str, bytes]:
    return demo_files(**{"repo_id": NAME, "title": "Leaves", "report": report, "settings": settings, **more})


def front_matter(files: dict[str, bytes]) -> dict[str, Any]:
    return dict(yaml.safe_load(files["README.md"].decode().split("---\n")[1]))


def requirements(text: str) -> dict[str, Requirement]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {required.name: required for required in map(Requirement, lines)}


def stored(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def put_down(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


# What is in it


def test_the_front_matter_starts_a_space_that_fits(report: dict[str, Any], settings: Settings) -> None:
    files = make_demo(report, settings)
    matter = front_matter(files)
    assert matter["sdk"] == "gradio" and matter["app_file"] in files
    assert matter["sdk_version"] == version("gradio")
    ours = requirements((PROJECT / "requirements.txt").read_text())
    assert matter["sdk_version"] in ours["gradio"].specifier
    for library in ("transformers", "torch", "gradio"):
        assert f"{matter['python_version']}.0" in SpecifierSet(metadata(library)["Requires-Python"])
    assert (matter["models"], matter["title"], matter["suggested_hardware"]) == ([NAME], "Leaves", "cpu-basic")
    assert {matter["colorFrom"], matter["colorTo"]} <= {
        "red",
        "yellow",
        "green",
        "blue",
        "indigo",
        "purple",
        "pink",
        "gray",
    }
    assert len(matter["emoji"]) == 1 and matter["license"] == "apache-2.0" and "image-classification" in matter["tags"]
    assert len(matter["short_description"]) <= 60  # the Hub's limit
    assert RepoCard(files["README.md"].decode()).data.to_dict() == matter


@pytest.mark.parametrize(
    "title", ["no: 'this' \"is\" #1\n---\nsdk: docker", "\u2028猫 \x85 \x00🙂", "[x](http://y) {{ 1 }}"]
)
def test_a_title_may_have_any_characters(title: str, report: dict[str, Any], settings: Settings) -> None:
    files = make_demo(report, settings, title=title)
    matter = front_matter(files)
    assert matter["sdk"] == "gradio" and matter["models"] == [NAME]
    assert matter["title"] == json.loads(files["figures.json"])["title"]
    assert [letter for letter in matter["title"] if letter.isalnum()] == [c for c in title if c.isalnum()]
    assert "[x]" not in files["README.md"].decode().split("---\n")[2]  # no link


def test_it_needs_what_the_project_does_and_no_more(report: dict[str, Any], settings: Settings) -> None:
    ours = requirements((PROJECT / "requirements.txt").read_text())
    plain = requirements(make_demo(report, settings)["requirements.txt"].decode())
    assert set(plain) == {"gradio", "transformers", "torch", "pillow"}
    backbone = {**report["backbone"], "architecture": "TimmWrapperForImageClassification"}
    more = requirements(make_demo({**report, "backbone": backbone}, settings)["requirements.txt"].decode())
    assert set(more) - set(plain) == {"timm", "torchvision"}
    assert all(ours[name] == required for name, required in more.items())


def test_its_program_is_a_plain_file_that_knows_nothing_of_this_project(
    report: dict[str, Any], settings: Settings
) -> None:
    program = make_demo(report, settings)["app.py"]
    assert program == (TEMPLATES / "app.py").read_bytes()
    imported = set()
    for node in ast.walk(ast.parse(program)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert {str(name).split(".")[0] for name in imported} - sys.stdlib_module_names == {
        *("gradio", "numpy", "torch", "PIL", "transformers")
    }


def test_the_figures_are_those_of_the_report(report: dict[str, Any], settings: Settings) -> None:
    files = make_demo(report, settings, revision="c0ffee", project_url="https://example.org/teach")
    facts, metrics = json.loads(files["figures.json"]), report["metrics"]
    assert (facts["model"], facts["revision"], facts["url"]) == (NAME, "c0ffee", f"https://huggingface.co/{NAME}")
    assert (facts["accuracy"], facts["interval"]) == (metrics["accuracy"], metrics["accuracy_ci"])
    assert (facts["images"], facts["classes"]) == (72, 3)
    assert facts["judged"] == "pictures, each judged by a model that had not seen it"  # so few that folds were made
    assert {row[0] for row in facts["per_class"]} == set(NAMES)
    rows = {row["label"]: row for row in metrics["per_class"]}
    for label, precision, recall, images in facts["per_class"]:
        row = rows[label]
        assert (precision / 100, recall / 100) == pytest.approx((row["precision"], row["recall"]), abs=5e-4)
        assert images == row["support"]
    told = files["README.md"].decode()
    assert f"{100 * metrics['accuracy']:.1f} % of 72 pictures" in told
    assert f"](https://huggingface.co/{NAME})" in told and "](https://example.org/teach)" in told
    assert "HF_TOKEN" in told


def test_on_a_space_it_links_to_the_space_that_made_it(
    report: dict[str, Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_ID", "owner/teach")
    made_with = json.loads(make_demo(report, replace(settings, on_space=True))["figures.json"])["made_with"]
    assert made_with[1] == "https://huggingface.co/spaces/owner/teach"
    assert json.loads(make_demo(report, settings)["figures.json"])["made_with"][1] is None


def test_examples_are_pixels_and_nothing_else(report: dict[str, Any], settings: Settings) -> None:
    large, exif = Image.new("RGB", (1600, 800), "blue"), Image.Exif()
    large.paste("red", (0, 0, 400, 800))
    exif[0x0112] = 6  # turn it clockwise
    exif[0x010E] = "Anna's garden"
    exif.get_ifd(0x8825)[1] = "N"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo = stored(large, "JPEG", exif=exif, icc_profile=profile, comment=b"secret", xmp=b"<x:secret/>")
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "secret")
    drawing = stored(Image.new("RGBA", (40, 30)), "PNG", pnginfo=text)
    files = make_demo(report, settings, examples={"Anna/IMG 1.jpg": photo, "b.png": drawing})
    shown = {name: content for name, content in files.items() if name.startswith("examples/")}
    assert list(shown) == ["examples/001.jpg", "examples/002.jpg"]
    assert not any(word in content for content in files.values() for word in (b"Anna", b"secret"))
    for content in shown.values():
        with Image.open(io.BytesIO(content)) as image:
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"} and not image.getexif()
    with Image.open(io.BytesIO(shown["examples/001.jpg"])) as image:
        assert image.size == (EXAMPLE_SIDE // 2, EXAMPLE_SIDE)
        upper, lower = image.getpixel((100, 10)), image.getpixel((100, 500))
        assert upper[0] > 200 > 50 > upper[2] and lower[2] > 200 > 50 > lower[0]
    with Image.open(io.BytesIO(shown["examples/002.jpg"])) as image:
        assert image.size == (40, 30) and image.getpixel((1, 1)) == (255, 255, 255)


def test_an_example_that_cannot_be_read_is_named(report: dict[str, Any], settings: Settings) -> None:
    with pytest.raises(DataError, match=r"^the example 'oak\.jpg' cannot be shown: not an image: it is text$"):
        make_demo(report, settings, examples={"oak.jpg": b"an oak"})


def test_without_its_templates_nothing_is_made(
    report: dict[str, Any], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tl_core.demo_space.TEMPLATES", tmp_path / "gone")
    with pytest.raises(ConfigError, match=r"gone.*run this from the project's own folder"):
        make_demo(report, settings)


# How it reads pictures


@pytest.fixture(scope="module")
def demo(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The program of a demo, imported."""
    folder = tmp_path_factory.mktemp("demo")
    report = Run(trained[0] / "runs" / trained[1]).report()
    assert report is not None
    put_down(make_demo(report, Settings(home=folder)), folder)
    spec = importlib.util.spec_from_file_location("demo_app", folder / "app.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # the program's own limit ends with the block
        spec.loader.exec_module(module)
    return module


def half_clear(mode: str) -> Image.Image:
    image = picture(0.1, 3).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 12, 32))
    image.paste((200, 0, 0, 90), (12, 0, 20, 32))
    return image.convert(mode)


def ramp(kind: type[np.generic], low: float, high: float) -> Image.Image:
    return Image.fromarray(np.tile(np.linspace(low, high, 300), (4, 1)).astype(kind))


def turned(tag: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return stored(picture(0.5, 2, (48, 32)), "JPEG", exif=exif)


def odd_pictures() -> dict[str, bytes]:
    rgb = picture(0.3, 1, (48, 32))
    return {
        **{mode: stored(rgb.convert(mode), "TIFF") for mode in ("RGB", "L", "P", "1", "CMYK", "YCbCr", "LAB")},
        **{f"clear {mode}": stored(half_clear(mode)) for mode in ("RGBA", "LA")},
        "clear GIF": stored(half_clear("RGBA"), "GIF"),
        "clear colour": stored(Image.new("RGB", (9, 9), "red"), transparency=(255, 0, 0)),
        "CMYK JPEG": stored(rgb.convert("CMYK"), "JPEG"),
        "animated": stored(rgb, "GIF", save_all=True, append_images=[picture(0.8, 4, (48, 32))]),
        **{f"turn {tag}": turned(tag) for tag in range(9)},
        "16 bits": stored(ramp(np.uint16, 0, 65535)),
        "12 bits": stored(ramp(np.uint16, 0, 4095)),
        "16 bits, turned": stored(ramp(np.uint16, 0, 65535), "TIFF", tiffinfo={0x0112: 6}),
        **{f"integers to {top}": stored(ramp(np.int32, 0, top), "TIFF") for top in (200, 60_000, 10**6)},
        **{f"floats to {top}": stored(ramp(np.float32, 0, top), "TIFF") for top in (1, 255, 65_535)},
        "floats around zero": stored(ramp(np.float32, -3, 3), "TIFF"),
        "no numbers": stored(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"),
    }


@pytest.mark.parametrize("kind", odd_pictures())
def test_pictures_are_read_as_the_project_reads_them(kind: str, demo: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "picture"
    file.write_bytes(odd_pictures()[kind])
    theirs = demo.read(str(file))
    assert theirs.mode == "RGB"
    assert np.array_equal(np.asarray(theirs), np.asarray(open_upright(file, MAX_PIXELS)))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_exif_costs_the_orientation_only(demo: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "picture.jpg"
    file.write_bytes(stored(picture(0.5, 2), "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01\x03"))
    assert np.array_equal(np.asarray(demo.read(str(file))), np.asarray(open_upright(file, MAX_PIXELS)))


@pytest.mark.parametrize("content", [b"", b"text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"])
def test_what_is_no_picture_is_refused(content: bytes, demo: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(content)
    with pytest.raises(OSError, match="cannot identify"):
        demo.read(str(tmp_path / "picture.png"))


def test_what_is_shown_is_markup_for_nobody(demo: ModuleType) -> None:
    assert HOSTILE not in demo.table() and "&lt;img" in demo.table()
    words = demo.introduction("/a <b>/model")
    assert "Asked here is /a &lt;b&gt;/model; the figures are those of owner/leaves." in words
    assert "Asked here" not in demo.introduction(NAME)


# That it starts and answers


@dataclass(frozen=True)
class Page:
    """A demo that is served, of a private model at an earlier revision than its newest."""

    address: str
    model: Path
    requests: list[str]
    strangers: socket.socket  # listens where every other computer would be asked for


@contextmanager
def started(folder: Path, *arguments: str, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python app.py` in isolated mode: this project is not on its path, though it may be installed."""
    given = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TL_", "GRADIO_"))},
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "GRADIO_TEMP_DIR": str(folder / "gradio"),
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-I", "-u", "app.py", *arguments],
            cwd=folder,
            env=given,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def told(process: subprocess.Popen[bytes], folder: Path) -> str:
    """What it said by the time that it told its address, or ended."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        said = (folder / "output.txt").read_text(errors="replace")
        if re.search(r"http://127\.0\.0\.1:\d+", said) or process.poll() is not None:
            return (folder / "output.txt").read_text(errors="replace")
        time.sleep(0.1)  # between two looks
    raise AssertionError(f"neither an address nor an end: {said}")


@pytest.fixture(scope="module")
def page(trained: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder, run = tmp_path_factory.mktemp("space"), Run(trained[0] / "runs" / trained[1])
    report = run.report()
    assert report is not None
    model = {path.name: path.read_bytes() for path in run.model_dir.iterdir()}
    newest = {**model, "config.json": b"{}"}  # which could not be opened
    repo = Repo(newest, private=True, readers=frozenset({TOKEN}), history=[model])
    examples = {"one": stored(picture(0.4, 7, (700, 500))), "two": stored(picture(0.9, 8, (60, 60)))}
    settings = Settings(home=folder)
    put_down(make_demo(report, settings, revision=commit(model), examples=examples), folder)
    with serve({NAME: repo}) as hub, socket.create_server(("127.0.0.1", 0)) as strangers:
        hub.people["hf_of_somebody_else"] = Person("somebody")
        proxy = f"http://127.0.0.1:{strangers.getsockname()[1]}"
        given = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HTTPS_PROXY": proxy, "GRADIO_SERVER_PORT": free_port()}
        with started(folder, **given) as process:
            said = told(process, folder)
            address = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert address is not None, said
            yield Page(address.group(), run.model_dir, hub.requests, strangers)
        assert "Traceback" not in (folder / "output.txt").read_text(errors="replace")
        assert TOKEN not in (folder / "output.txt").read_text(errors="replace")


def free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


@pytest.fixture
def client(page: Page, tmp_path: Path) -> Iterator[Client]:
    client = Client(page.address, verbose=False, analytics_enabled=False, download_files=tmp_path)
    yield client
    client.close()


@pytest.mark.slow
def test_it_answers_as_transformers_does_with_the_weights_of_its_revision(
    page: Page, client: Client, tmp_path: Path
) -> None:
    picture(0.35, 5, (90, 70)).save(tmp_path / "mine.png")
    answer, words = client.predict(handle_file(tmp_path / "mine.png"), api_name="/ask")
    with Image.open(tmp_path / "mine.png") as image:
        expected = pipeline("image-classification", str(page.model))(image)
    assert [row["label"] for row in answer["confidences"]] == [row["label"] for row in expected]
    for row, theirs in zip(answer["confidences"], expected, strict=True):
        assert row["confidence"] == pytest.approx(theirs["score"], abs=1e-6)
    assert (answer["label"], words) == (expected[0]["label"], "")
    assert len([asked for asked in page.requests if "GET" in asked and asked.endswith("model.safetensors")]) == 1


@pytest.mark.slow
def test_a_bad_file_gives_a_sentence_and_the_next_one_an_answer(page: Page, client: Client, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    Image.new("1", (11_000, 10_000)).save(tmp_path / "huge.png")  # 110 million pixels in some kilobytes
    for name in ("bad.jpg", "huge.png"):
        answer, words = client.predict(handle_file(tmp_path / name), api_name="/ask")
        assert not answer and words.startswith("This cannot be read as a picture") and str(tmp_path) not in words
    assert client.predict(None, api_name="/ask")[1].startswith("Drop a picture")
    (tmp_path / "good.gif").write_bytes(stored(half_clear("RGBA"), "GIF"))
    answer, words = client.predict(handle_file(tmp_path / "good.gif"), api_name="/ask")
    assert answer["label"] in NAMES and not words


@pytest.mark.slow
def test_the_page_shows_its_examples_and_asks_nobody_else(page: Page, client: Client) -> None:
    parts = client.config["components"]
    samples = next(part["props"]["samples"] for part in parts if part["type"] == "dataset")
    assert [Path(sample[0]["path"]).name for sample in samples] == ["001.jpg", "002.jpg"]
    image = next(part["props"] for part in parts if part["type"] == "image")
    assert set(image["sources"]) == {"upload", "webcam", "clipboard"}
    assert not image["webcam_options"]["mirror"]
    page.strangers.setblocking(False)
    with pytest.raises(BlockingIOError):
        page.strangers.accept()


@pytest.mark.slow
def test_a_private_model_without_a_token_ends_the_start_with_a_sentence(
    report: dict[str, Any], settings: Settings, tmp_path: Path
) -> None:
    put_down(make_demo(report, settings), tmp_path)
    with serve({"owner/other": Repo({}, private=True)}) as hub:
        with started(tmp_path, HF_ENDPOINT=hub.url, MODEL="owner/other") as process:
            said = told(process, tmp_path).strip()
            assert process.wait() == 1
    assert said.splitlines()[-1].startswith("error: the model owner/other cannot be opened: ")
    assert "give this Space a secret HF_TOKEN" in said and "Traceback" not in said


def test_a_folder_without_a_model_is_said_and_no_token_asked_for(demo: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: the model .* cannot be opened: [^\n]*$") as ended:
        demo.load(str(tmp_path))
    assert "HF_TOKEN" not in str(ended.value)


def test_a_local_folder_is_opened_in_full_precision(demo: ModuleType, run: Run) -> None:
    weights = demo.load(str(run.model_dir)).model.parameters()
    assert {str(parameter.dtype) for parameter in weights} == {"torch.float32"}
