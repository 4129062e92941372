"""The demo Space of a model: what is in it, and that its program reads pictures as the project does."""

import ast
import importlib.util
import io
import json
import os
import sys
from dataclasses import replace
from importlib.metadata import metadata, version
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from demos import NAME, half_clear, make_demo, put_down, stored
from huggingface_hub import RepoCard
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from page import HOSTILE, NAMES
from pictures import picture
from PIL import Image, ImageCms, PngImagePlugin

from tl_core import __version__, card_metadata
from tl_core.demo_space import EXAMPLE_SIDE, TEMPLATES
from tl_core.demo_space import PROJECT as CALLED
from tl_core.errors import ConfigError, DataError
from tl_core.images.decode import open_upright
from tl_core.runs import Run
from tl_core.settings import Settings, read_settings

MAX_PIXELS = 1_000_000
PROJECT = TEMPLATES.parent.parent


def front_matter(files: dict[str, bytes]) -> dict[str, Any]:
    return dict(yaml.safe_load(files["README.md"].decode().split("---\n")[1]))


def requirements(text: str) -> dict[str, Requirement]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {required.name: required for required in map(Requirement, lines)}


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
    assert all(ours[name].specifier == required.specifier for name, required in more.items())


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
    hub = os.environ["HF_ENDPOINT"]
    files = make_demo(report, replace(settings, project_url="https://example.org/teach"), revision="c0ffee")
    facts, metrics = json.loads(files["figures.json"]), report["metrics"]
    assert (facts["model"], facts["revision"], facts["url"]) == (NAME, "c0ffee", f"{hub}/{NAME}")
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
    assert f"]({hub}/{NAME})" in told and "](https://example.org/teach)" in told
    assert "HF_TOKEN" in told


def test_on_a_space_it_links_to_the_space_that_made_it(
    report: dict[str, Any], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACE_ID", "owner/teach")
    made_with = json.loads(make_demo(report, replace(settings, on_space=True))["figures.json"])["made_with"]
    assert made_with[1] == f"{os.environ['HF_ENDPOINT']}/spaces/owner/teach"
    theirs = replace(settings, on_space=True, project_url="https://example.org/teach")
    assert json.loads(make_demo(report, theirs)["figures.json"])["made_with"][1] == "https://example.org/teach"


def test_without_an_address_it_links_to_the_models_with_the_tag_that_the_card_gives(
    report: dict[str, Any], settings: Settings
) -> None:
    files = make_demo(report, settings)
    facts = json.loads(files["figures.json"])
    assert facts["made_with"][1] is None  # the list is none of the project
    tag = yaml.safe_load(card_metadata.front_matter(report, {}, "Leaves"))["tags"][-1]
    address = f"{os.environ['HF_ENDPOINT']}/models?other={tag}"
    assert facts["more"] == [f"Models tagged {tag}", address]
    assert f"{CALLED} {__version__}. [Models tagged {tag}]({address}) on the Hub." in files["README.md"].decode()
    known = make_demo(report, replace(settings, project_url="https://example.org/teach"))
    assert json.loads(known["figures.json"])["more"] is None
    assert "models?other" not in known["README.md"].decode()


def test_an_address_of_the_project_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TL_PROJECT_URL", "https://example.org/teach")
    assert read_settings().project_url == "https://example.org/teach"
    for word in ("example.org/teach", "javascript:alert(1)", "https://", "https://a b"):
        monkeypatch.setenv("TL_PROJECT_URL", word)
        with pytest.raises(ConfigError, match=r"TL_PROJECT_URL is .*must be an address"):
            read_settings()


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
    assert not any(b"Anna" in content for content in files.values())
    for content in shown.values():
        assert b"secret" not in content
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


def ramp(kind: type[np.generic], low: float, high: float) -> Image.Image:
    return Image.fromarray(np.tile(np.linspace(low, high, 300), (4, 1)).astype(kind))


def turned(tag: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return stored(picture(0.5, 2, (48, 32)), "JPEG", exif=exif)


def odd_pictures() -> dict[str, bytes]:
    rgb = picture(0.3, 1, (48, 32))
    return {
        **{mode: stored(rgb.convert(mode), "TIFF") for mode in ("RGB", "L", "P", "1", "CMYK", "LAB")},
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


def test_a_folder_without_a_model_is_said_and_no_token_asked_for(demo: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"^error: the model .* cannot be opened: [^\n]*$") as ended:
        demo.load(str(tmp_path))
    assert "HF_TOKEN" not in str(ended.value)


def test_a_local_folder_is_opened_in_full_precision(demo: ModuleType, run: Run) -> None:
    weights = demo.load(str(run.model_dir)).model.parameters()
    assert {str(parameter.dtype) for parameter in weights} == {"torch.float32"}
