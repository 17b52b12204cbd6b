"""Samples in a folder of images. Law: only the images that are taken are opened, and what was done to them is told.

Subfolders, one for each class as a rule, are walked through. Pixels are 0 to 255: of 16 bits the upper eight count.
Cameras' turns (EXIF) are undone, palettes looked up, and transparency is dropped where the input has no channel for it,
as training pipelines do. What Pillow cannot read is left out and counted.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from onnxprune.data.fit import dims_of
from onnxprune.data.hints import hints
from onnxprune.data.listing import files
from onnxprune.data.preprocess import CHANNELS, Preprocess, parse, resolve
from onnxprune.data.samples import Samples, room
from onnxprune.data.spread import mixed, spread
from onnxprune.errors import DataError, described
from onnxprune.model import Array, Model
from onnxprune.progress import Observer, silent

ENDINGS = ".jpg .jpeg .jpe .png .bmp .webp .tif .tiff .gif .ppm .pgm .pbm .pnm .avif .jp2 .heic .tga".split()
SIXTEEN = 257  # 65,535 / 255


def read_images(
    model: Model, folder: Path, limit: int, seed: int, said: str | None, observe: Observer = silent
) -> Samples:
    """Read as many images as are wanted, spread over all, in a seeded random order.

    Args:
        model: It has one input, of images.
        folder: The folder.
        limit: Images wanted, at most, rounded up to whole batches where the model's batch is fixed.
        seed: Of which are taken and of their order.
        said: The text of `--preprocess`.
        observe: Called with a stage's name and the share of it that is done.

    Raises:
        DataError: Pillow is not installed, the input is not of images, or not enough of them can be read.
    """
    pillow()
    info = only_input(model, folder)
    left, origin = hints(model, info)
    how = resolve(info, parse(said) if said else {}, left, origin)
    found, step = files(folder, ENDINGS), (dims_of(info) or [None])[0] or 1
    chosen = [found[n] for n in mixed(spread(len(found), -(-limit // step) * step, seed), seed)]
    array, failed = collected(chosen, how, observe)
    count = len(array) // step * step
    if not count:
        why = failed[0] if failed else f"{len(array)} images, the model takes {step} at a time"
        raise DataError(f"not enough images can be read ({why})", where=str(folder), remedy="give more, or others")
    about: dict[str, Any] = {"samples": count, "of": len(found), "preprocess": how.text, "preprocess_from": how.origin}
    about |= {"unreadable": len(failed), "first_unreadable": failed[0]} if failed else {}
    return Samples(({info.name: array[:count]},), about)


def pillow() -> Any:
    """Pillow's module of images, imported when first needed: it is an extra.

    Raises:
        DataError: It is not installed.
    """
    try:
        return import_module("PIL.Image")
    except ImportError as error:
        what = f"images are read with Pillow, which cannot be imported ({error})"
        raise DataError(what, remedy="pip install 'onnxprune[images]'") from error


def only_input(model: Model, folder: Path) -> onnx.ValueInfoProto:
    """The input that images are for."""
    if len(model.inputs) != 1:
        listed = ", ".join(f"'{info.name}'" for info in model.inputs) or "none"
        what = f"images are for one input, the model has {listed}"
        raise DataError(what, where=str(folder), remedy="give all inputs: --data X.npz, or a script")
    return model.inputs[0]


def collected(paths: Sequence[Path], how: Preprocess, observe: Observer) -> tuple[Array, list[str]]:
    """The images that can be read, and why the others cannot."""
    failed: list[str] = []
    held, count = None, 0
    for value in read(paths, how, failed, observe):
        if held is None:
            held = room((len(paths), *value.shape), value.dtype)
        held[count] = value
        count += 1
    return held[:count] if held is not None else np.zeros(0), failed


def read(paths: Sequence[Path], how: Preprocess, failed: list[str], observe: Observer) -> Iterator[Array]:
    """Inputs, one after the other; `failed` gets the reason for what is left out."""
    for n, path in enumerate(paths):
        observe("read images", n / len(paths))
        try:
            with warnings.catch_warnings(action="ignore"):  # of large images, and of what is odd in their metadata
                pixels = decoded(path, how)
        except MemoryError:
            raise
        except Exception as error:  # decoders of damaged files raise nearly anything
            reason = error.what if isinstance(error, DataError) else described(error)
            failed.append(f"{path}: {reason}")
            continue
        yield how.values(pixels)


def decoded(path: Path, how: Preprocess) -> Array:
    """Pixels of the size that the input takes: uint8, height x width x channels."""
    with pillow().open(path) as image:
        turned = import_module("PIL.ImageOps").exif_transpose(image)
        sized = resized(coloured(turned, CHANNELS[how.channels]), how)
        pixels = np.asarray(sized)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def coloured(image: Any, mode: str) -> Any:
    """The image in a mode of 8 bits a channel.

    Raises:
        DataError: Its pixels have no known range.
    """
    if image.mode[0] in "IF":
        values = np.asarray(image)
        top = float(values.max(initial=0))
        if image.mode == "F" or values.min(initial=0) < 0 or top > 65535:
            raise DataError(f"its pixels (mode {image.mode}) have no known range")
        image = pillow().fromarray((values // SIXTEEN).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == mode else image.convert(mode)


def resized(image: Any, how: Preprocess) -> Any:
    """Resized and cropped as torchvision's Resize and CenterCrop do it; what has the size already is left as it is."""
    height, width = how.size
    now = (image.height, image.width)
    wanted = how.size if how.crop == "none" else scaled(now, how)
    if wanted != now:
        image = image.resize(wanted[::-1], getattr(pillow().Resampling, how.interpolation.upper()))
    top, left = round((image.height - height) / 2), round((image.width - width) / 2)
    if (image.height, image.width) == how.size:
        return image
    return image.crop((left, top, left + width, top + height))


def scaled(now: tuple[int, int], how: Preprocess) -> tuple[int, int]:
    """Height and width before the crop."""
    if isinstance(how.resize, tuple):
        return how.resize
    if how.resize is None:  # as little as covers it
        share = max(s / n for s, n in zip(how.size, now, strict=True))
        return tuple(max(s, int(n * share)) for s, n in zip(how.size, now, strict=True))  # type: ignore[return-value]
    short, long = min(now), max(now)
    other = int(how.resize * long / short)
    return (how.resize, other) if now[0] <= now[1] else (other, how.resize)
