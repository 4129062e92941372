"""Ask an image classifier about a picture, in the browser: `python app.py`, or as a Space.

figures.json says which model is asked and how good it was found to be. `python app.py FOLDER`, or the variable MODEL,
asks another one. A private model needs an access token that may read it, in HF_TOKEN.
"""

import contextlib
import json
import os
import sys
from html import escape
from pathlib import Path
from urllib.request import getproxies_environment

import gradio as gr
import numpy as np
import torch
from PIL import Image, ImageOps
from transformers import Pipeline, pipeline

HERE = Path(__file__).resolve().parent
FACTS = json.loads((HERE / "figures.json").read_text(encoding="utf-8"))
EXAMPLES = sorted(str(path) for path in HERE.glob("examples/*.jpg"))
TOP_CLASSES = 5
KINDS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF")  # for some others Pillow starts programs
Image.MAX_IMAGE_PIXELS = 50_000_000  # Pillow refuses pictures of more than twice as many
KEPT = 3600  # seconds that an upload stays here
CAMERA = gr.WebcamOptions(mirror=False, constraints={"video": {"facingMode": "environment"}})
HINT = "Drop a picture, paste one, or take one with the camera."
UNREADABLE = "This cannot be read as a picture: it is damaged, too large or of another kind. Try a smaller JPEG or PNG."


def load(model: str) -> Pipeline:
    """The model in float32, from a folder or the Hub. Ends the program with a sentence where that fails."""
    revision = FACTS["revision"] if model == FACTS["model"] else None
    safe = {"use_safetensors": True}
    try:
        return pipeline("image-classification", model, revision=revision, dtype=torch.float32, model_kwargs=safe)
    except Exception as failure:  # the Hub, the network, weights and settings each fail by errors of their own
        reason = (str(failure).strip() or type(failure).__name__).splitlines()[0].rstrip(".")
        readable = Path(model).is_dir() or "HF_TOKEN" in os.environ
        advice = "" if readable else " If it is private, give this Space a secret HF_TOKEN: a token that may read it."
        sys.exit(f"error: the model {model} cannot be opened: {reason}.{advice}")


def read(path: str) -> Image.Image:
    """The first frame, upright, in 8-bit RGB: transparent parts on white, more than 8 bits scaled down."""
    with open(path, "rb") as file, Image.open(file, formats=KINDS) as image:  # by its path, Pillow turns a TIFF twice
        image.load()
        with contextlib.suppress(Exception):  # broken EXIF costs the orientation, not the picture
            image = ImageOps.exif_transpose(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return reduce(np.asarray(image).astype(np.float32), image.mode)
        if image.has_transparency_data:
            image = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")


def reduce(values: np.ndarray, mode: str) -> Image.Image:
    """Grey of more than 8 bits, by the range that its format means or, where it means none, that its values suggest."""
    values = np.nan_to_num(values, posinf=0.0, neginf=0.0)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 65535:
        values = (values - low) * (255 / ((high - low) or 1))
    elif mode == "F" and high <= 1:
        values = values * 255
    elif mode.startswith("I;16") or high > 255:
        values = values / 257
    return Image.fromarray(np.round(values).astype(np.uint8)).convert("RGB")


def introduction(model: str) -> str:
    """What the model is, how good it was found to be and where it comes from, as markup."""
    low, high = FACTS["interval"]
    right = f"{FACTS['accuracy']:.1%} of {FACTS['images']:,} {FACTS['judged']} (95% interval {low:.1%} to {high:.1%})"
    text = f"It takes every picture for one of {FACTS['classes']:,} classes. It was right on {right}. "
    text += " ".join(FACTS["warnings"])
    if model != FACTS["model"]:
        text += f" Asked here is {model}; the figures are those of {FACTS['model']}."
    links = f"The model: {link(FACTS['model'], FACTS['url'])}. Made with {link(*FACTS['made_with'])}."
    if FACTS["more"]:
        links += f" {link(*FACTS['more'])} on the Hub."
    return f"<h1>{escape(FACTS['title'])}</h1><p>{escape(text)}</p><p>{links}</p>"


def table() -> str:
    """The figures of each class, as markup."""
    head = "".join(f"<th>{escape(name)}</th>" for name in FACTS["columns"])
    rows = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in FACTS["per_class"]]
    return f"<table><tr>{head}</tr><tr>{'</tr><tr>'.join(rows)}</tr></table>"


def link(text: str, url: str | None) -> str:
    return f'<a href="{escape(url)}" target="_blank">{escape(text)}</a>' if url else escape(text)


def build(model: str) -> gr.Blocks:
    """The page; the model is loaded once, for all visitors."""
    classify = load(model)

    def ask(path: str | None) -> tuple[dict[str, float] | None, str]:
        if path is None:
            return None, HINT
        try:
            picture = read(path)
        except Exception:  # Pillow's readers raise whatever their parsing met
            return None, UNREADABLE
        return {row["label"]: row["score"] for row in classify(picture, top_k=TOP_CLASSES)}, ""

    with gr.Blocks(title=FACTS["title"], analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.HTML(introduction(model), elem_classes="intro")
        with gr.Row():
            image = gr.Image(label="Picture", type="filepath", height=340, buttons=[], webcam_options=CAMERA)
            with gr.Column():
                answer = gr.Label(label="Answer", num_top_classes=TOP_CLASSES)
                words = gr.Markdown(HINT)
        if EXAMPLES:
            gr.Examples(EXAMPLES, image, cache_examples=False)
        with gr.Accordion("How good it is, class by class", open=False):
            gr.HTML(table(), elem_classes="classes")
        # The file as it came: Gradio would open it, and for one that cannot be opened it has no sentence.
        image.preprocess = lambda file: file.path if file else None
        image.change(ask, image, [answer, words], api_name="ask")
    return page


if __name__ == "__main__":
    asked = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("MODEL") or FACTS["model"]
    theme = gr.themes.Default(primary_hue="green", font="system-ui", font_mono="system-ui")
    options = {"max_file_size": "100mb", "ssr_mode": False, "run_history": False, "enable_monitoring": False}
    proxies = getproxies_environment()
    if proxies and proxies.get("no") != "*":  # Gradio asks its own page whether it is there, and would ask them for it
        os.environ["no_proxy"] = ",".join(filter(None, [proxies.get("no"), "localhost", "127.0.0.1", "::1"]))
    # With _frontend, it would end where the answer takes three seconds, as it may on a busy machine.
    build(asked).launch(theme=theme, css_paths=HERE / "style.css", _frontend=False, **options)
