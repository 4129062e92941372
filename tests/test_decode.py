"""Reading one picture: every way of storing colours, every way of being broken."""

import io
import logging
import struct
import threading
import tracemalloc
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import picture
from PIL import Image, ImageOps

from tl_core.errors import DataError
from tl_core.images import decode as decoding
from tl_core.images.decode import DARK, decode, open_upright

LIMIT = 1_000_000


def stored(image: Image.Image, kind: str, **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    stream.seek(0)
    return stream


def plain(stream: io.BytesIO) -> np.ndarray:
    """What transformers' pipeline makes of a file."""
    stream.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(ImageOps.exif_transpose(Image.open(stream)).convert("RGB"))


def ramp(kind: type[np.generic], top: float) -> np.ndarray:
    return np.tile(np.linspace(0, top, 256), (4, 1)).astype(kind)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "CMYK"])
def test_modes_without_surprises_read_as_the_pipeline_reads_them(mode: str) -> None:
    stream = stored(picture(0.3, 1).convert(mode), "TIFF")
    decoded = decode(stream, LIMIT)
    assert decoded.image.mode == "RGB"
    assert decoded.mode == mode
    assert decoded.special == ""
    assert np.array_equal(np.asarray(decoded.image), plain(stream))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparent_parts_become_white(mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    image.putpixel((7, 7), (0, 0, 0, 128))
    stream = stored(image.convert(mode), "TIFF" if mode == "LA" else "PNG") if mode != "PA" else stored(image, "GIF")
    decoded = decode(stream, LIMIT)
    assert decoded.special == "transparent"
    assert decoded.image.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.image.getpixel((6, 0)) == (0, 0, 0)
    if mode != "PA":
        assert decoded.image.getpixel((7, 7)) == (127, 127, 127)


def test_palette_with_alpha_is_composited_without_a_warning() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 1), 1)
    decoded = decode(stored(image, "PNG", transparency=bytes([0, 255])), LIMIT)
    assert decoded.image.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.image.getpixel((1, 1)) == (0, 255, 0)
    assert decoded.special == "transparent"


@pytest.mark.parametrize(("mode", "key"), [("L", 7), ("RGB", (7, 7, 7))])
def test_a_transparent_colour_key_counts_as_transparency(mode: str, key: object) -> None:
    image = Image.new(mode, (4, 4), 7 if mode == "L" else (7, 7, 7))
    decoded = decode(stored(image, "PNG", transparency=key), LIMIT)
    assert decoded.special == "transparent"
    assert decoded.image.getextrema() == ((255, 255),) * 3


def test_an_alpha_channel_that_hides_nothing_reads_the_same() -> None:
    image = picture(0.1, 2).convert("RGBA")
    stream = stored(image, "PNG")
    decoded = decode(stream, LIMIT)
    assert decoded.special == ""
    assert np.array_equal(np.asarray(decoded.image), plain(stream))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_shades(kind: str) -> None:
    stream = stored(Image.fromarray(ramp(np.uint16, 65535)), kind)
    decoded = decode(stream, LIMIT)
    assert decoded.special == "16-bit"
    values = np.asarray(decoded.image)[0, :, 0]
    assert (values[0], values[128], values[255]) == (0, 128, 255)
    assert len(set(values.tolist())) == 256


def test_big_endian_sixteen_bits_read_like_little_endian() -> None:
    values = ramp(np.uint16, 65535)
    image = Image.frombytes("I;16B", (256, 4), values.astype(">u2").tobytes())
    assert np.asarray(decode(stored(image, "TIFF"), LIMIT).image)[0, :, 0].tolist() == list(range(256))


@pytest.mark.parametrize(
    ("values", "special"),
    [
        (ramp(np.int32, 65535), "32-bit"),
        (ramp(np.int32, 255), ""),
        (ramp(np.int32, 2_000_000_000), "32-bit"),
        (ramp(np.float32, 1), "32-bit"),
        (ramp(np.float32, 65535), "32-bit"),
        (ramp(np.float32, 2) - 1, "32-bit"),
        (ramp(np.float32, 255), ""),
    ],
)
def test_wide_grey_is_scaled_and_not_clipped(values: np.ndarray, special: str) -> None:
    decoded = decode(stored(Image.fromarray(values), "TIFF"), LIMIT)
    row = np.asarray(decoded.image)[0, :, 0].astype(int)
    assert np.abs(row - np.arange(256)).max() <= 1
    assert decoded.special == special


def test_not_a_number_is_black() -> None:
    values = ramp(np.float32, 1)
    values[0, 3] = np.nan
    values[0, 4] = np.inf
    row = np.asarray(open_upright(stored(Image.fromarray(values), "TIFF"), LIMIT))[0, :, 0]
    assert (row[3], row[4], row[255]) == (0, 0, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_exif_orientation_is_applied_as_pillow_does(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = stored(picture(0.5, 3, (20, 12)), kind, exif=exif)
    decoded = decode(stream, LIMIT)
    assert decoded.image.size == ((20, 12) if orientation < 5 else (12, 20))
    assert np.array_equal(np.asarray(decoded.image), plain(stream))
    assert decoded.special == ""


def test_a_broken_exif_block_costs_only_the_orientation() -> None:
    stream = stored(picture(0.5, 3, (20, 12)), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff broken")
    assert open_upright(stream, LIMIT).size == (20, 12)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(kind: str) -> None:
    frames = [Image.new("RGB", (6, 6), colour) for colour in ("red", "green", "blue")]
    stream = stored(frames[0], kind, save_all=True, append_images=frames[1:])
    red, green, blue = np.asarray(open_upright(stream, LIMIT))[3, 3].tolist()
    assert red > 240
    assert max(green, blue) < 10


def test_the_picture_outlives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    picture(0.2, 4).save(path)
    image = open_upright(path, LIMIT)
    path.unlink()
    assert image.resize((4, 4)).size == (4, 4)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty file"),
        (b"just some words\n" * 100, "not an image: it is text"),
        ("grüße, 日本語\n".encode() * 100, "not an image: it is text"),
        (b"<!DOCTYPE html><html>", "not an image: it is an HTML page"),
        (b"%PDF-1.7\n%\xe2\xe3", "not an image: it is a PDF document"),
        (b"PK\x03\x04\x14\0", "not an image: it is a zip archive"),
        (b'<?xml version="1.0"?><svg xmlns="x">', "not an image: it is an SVG drawing; save it as PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "not an image: it is a HEIC photo; save it as JPEG"),
        (b"\0\0\0\x18ftypisom\0\0\0\0", "not an image: it is a video"),
        (b"\0" * 5000, "not an image: it is nothing but zero bytes"),
        (b"\x89PNG\r\n\x1a\n broken", "damaged: it begins like an image, but its header cannot be read"),
        (b"\xca\xfe\xba\xbe\x00\x01", "not an image, or of a kind that is not read; save it as JPEG or PNG"),
    ],
)
def test_what_is_not_an_image_is_called_by_its_name(content: bytes, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        open_upright(io.BytesIO(content), LIMIT)
    assert caught.value.message == reason


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"])
@pytest.mark.parametrize("kept", [0.3, 0.7])
def test_a_truncated_file_is_noticed(kind: str, kept: float) -> None:
    whole = stored(picture(0.5, 5, (200, 200)), kind).getvalue()
    with pytest.raises(DataError, match=r"truncated|damaged"):
        open_upright(io.BytesIO(whole[: int(len(whole) * kept)]), LIMIT)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be opened: No such file"):
        open_upright(tmp_path / "gone.png", LIMIT)


def header_only_png(width: int, height: int) -> io.BytesIO:
    """A PNG that claims a size and holds hardly any pixels."""
    stream = stored(Image.new("1", (1, 1)), "PNG").getvalue()
    claim = b"IHDR" + struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return io.BytesIO(stream[:12] + claim + struct.pack(">I", zlib.crc32(claim)) + stream[33:])


@pytest.mark.parametrize(("width", "height"), [(2000, 1000), (40_000, 30_000), (300_000, 300_000)])
def test_too_large_a_picture_is_refused_by_its_header(width: int, height: int) -> None:
    with pytest.raises(DataError, match=r"^too large: .* pixels; at most 1,000,000 are read"):
        open_upright(header_only_png(width, height), LIMIT)


def test_our_limit_counts_and_not_pillows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert open_upright(stored(picture(0.5, 6, (60, 60)), "PNG"), LIMIT).size == (60, 60)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_pillow_prints_nothing(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # as in a program that set up no logging
    content = stored(picture(0.5, 3), "TIFF").getvalue()
    samples = content.index(struct.pack("<HHI", 277, 3, 1))  # SamplesPerPixel, a SHORT, one of them
    with pytest.raises(DataError):
        open_upright(io.BytesIO(content[: samples + 8] + struct.pack("<H", 2048) + content[samples + 10 :]), LIMIT)
    assert capfd.readouterr() == ("", "")


def test_no_warning_leaks_from_odd_files_in_several_threads() -> None:
    image = Image.new("P", (4, 4), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    odd = stored(image, "PNG", transparency=bytes([255, 255])).getvalue()
    broken_tiff = stored(picture(0.5, 3), "TIFF", tiffinfo={270: "x" * 50}).getvalue()
    failures = []

    def read() -> None:
        try:
            for _ in range(20):
                open_upright(io.BytesIO(odd), LIMIT)
                open_upright(io.BytesIO(broken_tiff), LIMIT)
        except Warning as warning:
            failures.append(warning)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        threads = [threading.Thread(target=read) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert warnings.filters[0][0] == "error"
    assert failures == []


def test_a_postscript_file_is_refused_and_no_program_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = tmp_path / "started"
    stub = tmp_path / "gs"
    stub.write_text(f"#!/bin/sh\ntouch {started}\nexit 1\n")
    stub.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(DataError, match="not an image: it is a PostScript drawing"):
        open_upright(io.BytesIO(content), LIMIT)
    assert not started.exists()


@pytest.mark.parametrize("kind", ["TGA", "PCX", "ICO", "SGI"])
def test_kinds_that_are_not_listed_are_not_read(kind: str) -> None:
    with pytest.raises(DataError, match="not an image"):
        open_upright(stored(picture(0.5, 1), kind), LIMIT)


@pytest.mark.parametrize(("top", "special"), [(255, DARK), (4095, DARK), (4096, "16-bit"), (65535, "16-bit")])
def test_sixteen_bits_that_hold_twelve_are_told(top: int, special: str) -> None:
    assert decode(stored(Image.fromarray(ramp(np.uint16, top)), "PNG"), LIMIT).special == special


def test_every_sixteen_bit_value_is_rounded_to_the_nearest_of_eight() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    grey = np.asarray(decode(stored(Image.fromarray(values), "PNG"), LIMIT).image)[:, :, 0]
    assert np.array_equal(grey, np.round(values / 257.0).astype(np.uint8))


def test_sixteen_bits_take_little_memory_beside_the_picture() -> None:
    side = 2000
    image = Image.fromarray(np.full((side, side), 30_000, dtype=np.uint16))
    tracemalloc.start()
    decoding._to_rgb(image)  # numpy's memory is traced, Pillow's own is not
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 7 * side * side


def test_colours_that_cannot_be_converted_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(image: Image.Image, mode: str) -> Image.Image:
        raise ValueError("conversion not supported")

    stream = stored(picture(0.5, 1).convert("CMYK"), "TIFF")
    monkeypatch.setattr(Image.Image, "convert", refuse)
    with pytest.raises(DataError, match=r"its colours \(CMYK\) cannot be read: conversion not supported"):
        open_upright(stream, LIMIT)


def test_a_fault_of_ours_is_not_called_a_damaged_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_to_rgb", lambda image: image.nothing)
    with pytest.raises(AttributeError):
        open_upright(stored(picture(0.5, 1), "PNG"), LIMIT)
