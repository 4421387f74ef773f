"""Image files of all formats become intensities or classes, and others raise errors that say why."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets import formats
from datasets.formats import intensities, read_label_map
from utils.errors import UserError

RAMP = np.arange(6 * 5, dtype=np.uint8).reshape(6, 5) * 8
WIDE = (RAMP.astype(np.uint16) + 7) * 100


def saved(path: Path, values: Any, **options: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        (values if isinstance(values, Image.Image) else Image.fromarray(values)).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("x.png", RAMP, RAMP / 255), ("x.tif", RAMP, RAMP / 255), ("x.TIFF", RAMP, RAMP / 255),
        ("wide.png", WIDE, RAMP / RAMP.max()), ("wide.tif", WIDE, RAMP / RAMP.max()),
        ("unit.npy", np.array([[0.25, 0.5]]), [[0.25, 0.5]]),
        ("floats.npy", np.array([[-1.0, 0.0, 3.0]]), [[0, 0.25, 1]]),
        ("integers.npy", np.array([[-1000, 0, 1000]]), [[0, 0.5, 1]]),
        ("bits.npy", np.array([[True, False]]), [[1, 0]]),
        ("constant.npy", np.full((1, 2), 9.0), [[0, 0]]),
    ],
)  # fmt: skip
def test_values_become_intensities(tmp_path: Path, name: str, values: np.ndarray, expected: Any) -> None:
    assert np.allclose(intensities(saved(tmp_path / name, values))[..., 0], expected)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1"])
def test_transparency_palettes_and_single_bits_are_supported(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(np.where(RAMP > 100, 255, 0).astype(np.uint8)).convert(mode, dither=Image.Dither.NONE)
    if mode in ("RGBA", "LA"):
        picture.putalpha(0)
    assert np.array_equal(intensities(saved(tmp_path / "x.png", picture))[..., 0], RAMP > 100)


def test_colours_of_16_bits_are_refused_rather_than_cut(tmp_path: Path) -> None:
    channels = np.stack([WIDE, WIDE // 2, WIDE // 3, WIDE])
    for name, colour_type, written in (("rgb.png", 2, channels[:3]), ("rgba.png", 6, channels)):
        rows = [row.astype(">u2").tobytes() for row in np.moveaxis(written, 0, -1)]
        (tmp_path / name).write_bytes(png(WIDE.shape, 16, colour_type, rows))
        assert "16 bits per colour" in refusal(tmp_path / name)
    content = bytearray(saved(tmp_path / "x.tif", Image.new("RGB", (4, 4))).read_bytes())
    assert intensities(tmp_path / "x.tif").shape == (4, 4, 3)
    place = content.find((8).to_bytes(2, "little") * 3)
    content[place : place + 6] = (16).to_bytes(2, "little") * 3
    (tmp_path / "x.tif").write_bytes(bytes(content) + bytes(48))
    assert "16 bits per colour" in refusal(tmp_path / "x.tif")


def png(size: tuple[int, int], bits: int, colour_type: int, rows: list[bytes]) -> bytes:
    """A PNG (height x width) of packed rows, for the forms that Pillow cannot write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", size[1], size[0], bits, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_window_replaces_the_scale_of_the_file(tmp_path: Path) -> None:
    for name, values in (("x.npy", [[-1000.0, 400.0, 2000.0, -300.0]]), ("y.npy", [[-300, 400]])):
        np.save(tmp_path / name, np.array(values))
    assert np.allclose(intensities(tmp_path / "x.npy", (-1000, 400))[..., 0], [[0, 1, 1, 0.5]])
    assert np.allclose(intensities(tmp_path / "y.npy", (-1000, 400))[..., 0], [[0.5, 1]])
    assert np.allclose(intensities(saved(tmp_path / "x.png", RAMP), (0, 128))[..., 0], (RAMP / 128).clip(0, 1))


def test_programs_are_not_started_for_files_that_pillow_would_give_them(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n")
    assert "cannot identify" in refusal(tmp_path / "x.png")


def test_pictures_are_rotated_as_their_exif_data_say(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees
    assert intensities(saved(tmp_path / "x.jpg", Image.new("RGB", (20, 10)), exif=exif)).shape == (20, 10, 3)


def refusal(path: Path, read: Callable[[Path], Any] = intensities) -> str:
    with pytest.raises(UserError) as error:
        read(path)
    assert str(path) in str(error.value)
    return str(error.value)


CLASSES = np.array([[0, 1, 2], [3, 250, 255]], dtype=np.uint8)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("x.png", CLASSES), ("x.tif", CLASSES), ("x.bmp", CLASSES), ("x.npy", CLASSES.astype(np.float32)),
        ("x.npy", CLASSES.astype(np.int64)), ("wide.png", CLASSES.astype(np.uint16)),
        ("wide.tif", CLASSES.astype(np.int32)), ("colours.png", CLASSES[..., None].repeat(3, axis=-1)),
        ("transparent.png", np.stack([CLASSES, 255 - CLASSES], axis=-1)),
    ],
)  # fmt: skip
def test_classes_are_the_values_of_the_file(tmp_path: Path, name: str, values: np.ndarray) -> None:
    read = read_label_map(saved(tmp_path / name, values))
    assert np.array_equal(read, CLASSES)
    assert read.dtype == np.uint8


def test_classes_are_the_indices_of_a_palette(tmp_path: Path) -> None:
    for name, highest in (("x.png", 255), ("few.png", 3), ("x.tif", 255)):
        classes = CLASSES.clip(max=highest)
        picture = Image.fromarray(classes)
        picture.putpalette(np.random.default_rng(0).integers(256, size=768, dtype=np.uint8).tobytes())
        assert np.array_equal(read_label_map(saved(tmp_path / name, picture)), classes), name


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_classes_of_few_bits_are_not_spread(tmp_path: Path, bits: int) -> None:
    classes = np.arange(8) % 2**bits
    row = int("".join(f"{value:0{bits}b}" for value in classes), 2).to_bytes(bits, "big")
    (tmp_path / "x.png").write_bytes(png((1, 8), bits, 0, [row]))
    assert read_label_map(tmp_path / "x.png").tolist() == [classes.tolist()]
    assert np.allclose(intensities(tmp_path / "x.png")[0, :, 0], classes / (2**bits - 1))


def test_what_is_no_label_map_raises_errors(tmp_path: Path) -> None:
    for name, values, message in (
        ("x.jpg", CLASSES, "compressed as JPEG, which may change values; expected PNG"),
        ("x.webp", Image.fromarray(CLASSES).convert("RGB"), "compressed as WEBP"),
        ("colours.png", np.stack([CLASSES, CLASSES, 255 - CLASSES], -1), "expected one class per pixel"),
        ("wide.png", CLASSES.astype(np.uint16) * 100, "values from 0 to 25500; expected integers of 0 .. 255"),
        ("negative.npy", np.array([[-1, 0]]), "values from -1 to 0"),
        ("fractions.npy", np.array([[0.5, 1]]), "values from 0.5 to 1"),
        ("nan.npy", np.array([[np.nan, 1]]), "expected integers"),
    ):
        assert message in refusal(saved(tmp_path / name, values), read_label_map)
    (tmp_path / "disguised.png").write_bytes((tmp_path / "x.jpg").read_bytes())
    saved(tmp_path / "x.tif", Image.fromarray(CLASSES), compression="jpeg")
    assert "compressed as JPEG" in refusal(tmp_path / "disguised.png", read_label_map)
    assert "compressed as TIFF" in refusal(tmp_path / "x.tif", read_label_map)


def test_files_that_are_not_pictures_raise_errors(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("this is no picture")
    (tmp_path / "empty.jpg").touch()
    whole = saved(tmp_path / "whole.jpg", np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8))
    (tmp_path / "cut.jpg").write_bytes(whole.read_bytes()[:1500])
    saved(tmp_path / "pages.tif", Image.fromarray(RAMP), save_all=True, append_images=[Image.fromarray(RAMP)] * 2)
    assert "cannot be read; it may be damaged" in refusal(tmp_path / "text.png")
    assert "is empty" in refusal(tmp_path / "empty.jpg")
    assert "truncated" in refusal(tmp_path / "cut.jpg")
    assert "has 3 pages; expected one" in refusal(tmp_path / "pages.tif")
    assert "there is no file" in refusal(tmp_path / "nowhere.png")


def test_decompression_bombs_raise_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "MAX_PIXELS", 1000)
    for limit in (1000, 100):  # Pillow warns of the one and refuses the other
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert "pixels, the limit" in refusal(saved(tmp_path / "x.png", np.zeros((40, 40), np.uint8)))
    assert "more than 1,000 pixels" in refusal(saved(tmp_path / "x.npy", np.zeros((40, 40))))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(7), "shape (7,); expected H x W or H x W x channels"),
        (np.zeros((0, 4)), "shape (0, 4)"),
        (np.array([[0.0, np.nan]]), "not finite"),
        (np.array([[0.0, np.inf]]), "not finite"),
        (np.array([["a"]]), "expected one array of numbers"),
        (np.array([[1j]]), "expected one array of numbers"),
        (np.array([[{}]]), "Python objects in dtype"),
    ],
)
def test_arrays_that_are_not_images_raise_errors(tmp_path: Path, values: np.ndarray, message: str) -> None:
    assert message in refusal(saved(tmp_path / "x.npy", values))


def test_files_that_are_not_one_array_raise_errors(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.npy", np.zeros((40, 40)))
    (tmp_path / "cut.npy").write_bytes(whole.read_bytes()[:300])
    (tmp_path / "text.npy").write_text("no array")
    with (tmp_path / "several.npy").open("wb") as file:
        np.savez(file, a=np.zeros((4, 4)))
    assert "several arrays" in refusal(tmp_path / "several.npy")
    for name in ("cut", "text"):
        assert "may be damaged" in refusal(tmp_path / f"{name}.npy")
