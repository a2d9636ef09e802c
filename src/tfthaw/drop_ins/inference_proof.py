"""The outputs of exported inference graphs, compared with each other and, where that can be, with their source's.

All of them run on the same images in one process of its own. Where the export has other values than the source by
intention (moving averages, batch normalisation switched to inference), the MetaGraph that was written stands for the
source: its values were proved bit for bit, and TensorFlow's own Saver restores them.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from tfthaw.conversion.from_code import CodeSource
from tfthaw.dtypes import DType
from tfthaw.errors import MissingDependencyError, RuntimeFailure, VerificationError
from tfthaw.formats.varint import encode_varint
from tfthaw.ir.attrs import Shape
from tfthaw.passes.decode_images import ENCODED_KEY
from tfthaw.runtime.isolated import Run, run_isolated
from tfthaw.runtime.tensorflow_runner import LOADING, is_installed
from tfthaw.tensors import Array, Tensor
from tfthaw.verify.inputs import SIZES
from tfthaw.verify.outputs import TOLERANCES, compare
from tfthaw.verify.proofs import OutputProof

_MOST_LETTERS = 300
_UNKNOWN = ("not registered", "mentions attr")  # what a TensorFlow says of ops and attrs that it does not have
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Side:
    """An artifact that is run.

    Attributes:
        path: The artifact.
        input: The tensor to feed.
        outputs: result name -> its tensor.
        takes: `images`, `encoded` images or serialized `examples`.
        fixed: Further tensors to feed.
        dtype: The element type of images.
    """

    path: str
    input: str
    outputs: Mapping[str, str]
    takes: str
    fixed: Mapping[str, Array] = field(default_factory=dict)
    dtype: DType = DType.uint8

    def feeds(self, images: Array) -> dict[str, Array]:
        """Return what to feed for a batch of images, `uint8[N, H, W, 3]`."""
        if self.takes == "images":
            return {**self.fixed, self.input: images.astype(self.dtype.numpy)}
        encoded = [png_image(image) for image in images]
        texts = encoded if self.takes == "encoded" else [_example(data) for data in encoded]
        return {**self.fixed, self.input: np.array(texts, object)}


def prove_inference(
    reference: Side, written: Sequence[Side], shapes: Sequence[Shape], *, required: bool
) -> OutputProof:
    """Run artifacts on the same images and compare what comes out.

    Args:
        reference: What the others are compared with.
        written: The others.
        shapes: What shapes a batch of images may have, as far as they are known; they are tried one after the other.
        required: Whether it is an error when they cannot be run.

    Raises:
        VerificationError: Outputs differ, or one does not run where the reference does.
        RuntimeFailure: The reference does not run, and that was required.
        MissingDependencyError: There is no runtime, and one was required.
    """
    if not is_installed() and not required:
        return OutputProof(why_not='no runtime is installed; pip install "tfthaw[tf]" brings one')
    sides = [reference, reference, *written]
    attempts = [
        [Run(side.path, side.feeds(images), list(side.outputs.values())) for side in sides]
        for images in _batches(shapes)
    ]
    try:
        answer = run_isolated(attempts)
        if isinstance(answer.outputs[0], str):
            _refuse_unloadable(answer.outputs[0], reference)
            raise RuntimeFailure(answer.outputs[0], path=reference.path)
    except (RuntimeFailure, MissingDependencyError) as error:
        if required:
            raise
        return OutputProof(why_not=f"it does not run on generated images: {_short(error.message)}")
    return _judged(answer.runtime, answer.outputs, sides)


def prove_live_inference(
    code: CodeSource, values: Mapping[str, Tensor], reference: Side, written: Sequence[Side], shapes: Sequence[Shape],
    *, required: bool,
) -> OutputProof:  # fmt: skip
    """Run a live model and what was written of it on the same images, and compare what comes out.

    Args:
        code: The live model.
        values: variable's node -> its value.
        reference: What to feed and fetch of it.
        written: What was written.
        shapes: As in `prove_inference`.
        required: Whether it is an error when the model cannot be run.

    Raises:
        VerificationError: Outputs differ, or what was written does not run.
        RuntimeFailure: The live model does not run, and that was required.
    """
    failed = None
    for images in _batches(shapes):
        try:
            outputs = list(reference.outputs.values())
            found: list[dict[str, Array] | str] = [
                code.live.run(reference.feeds(images), outputs, values) for _ in range(2)
            ]  # fmt: skip
        except RuntimeFailure as error:
            failed = failed or error
            continue
        answer = code.live.run_artifacts([
            [Run(side.path, side.feeds(images), list(side.outputs.values())) for side in written]
        ])  # fmt: skip
        if len(answer.outputs) < len(written):
            found += [str(answer.outputs[0])] * len(written)
        return _judged(answer.runtime, [*found, *answer.outputs][: 2 + len(written)], [reference, reference, *written])
    if failed is not None and required:
        raise failed
    said = _short(failed.message) if failed is not None else ""
    return OutputProof(why_not=f"the live model does not run on generated images: {said}")


def _refuse_unloadable(message: str, side: Side) -> None:
    """Refuse what was written where TensorFlow knows all of its ops and cannot load it.

    Raises:
        VerificationError: That is so.
    """
    if f"cannot {LOADING} it" in message and not any(said in message for said in _UNKNOWN):
        raise VerificationError(f"{Path(side.path).name} does not load: {_short(message)}",
                                hint="nothing was written; please report this")  # fmt: skip


def _short(text: str) -> str:
    """Return the beginning of a message in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _MOST_LETTERS else f"{line[:_MOST_LETTERS]} ..."


def _judged(runtime: str, found: Sequence[dict[str, Array] | str], sides: Sequence[Side]) -> OutputProof:
    by_name = []
    for values, side in zip(found, sides, strict=True):
        if isinstance(values, str):
            raise VerificationError(f"{Path(side.path).name} does not run, and {Path(sides[0].path).name} does: "
                                    f"{values}")  # fmt: skip
        by_name.append({name: values[tensor] for name, tensor in side.outputs.items()})
    names = {name: name for name in by_name[0]}
    if compare(by_name[0], by_name[1], names)[2]:
        return OutputProof(why_not="it gives other outputs each time it runs")
    max_abs = max_rel = 0.0
    for values, side in zip(by_name[2:], sides[2:], strict=True):
        absolute, relative, problems = compare(by_name[0], values, names)
        if problems:
            raise VerificationError(
                f"{len(problems)} of {len(names)} outputs of {Path(side.path).name} differ from those of "
                f"{Path(sides[0].path).name}", report=problems, hint="nothing was written; please report this",
            )  # fmt: skip
        max_abs, max_rel = max(max_abs, absolute), max(max_rel, relative)
    return OutputProof(True, None, runtime, max_abs, max_rel, TOLERANCES["float32"])


def _sizes(shape: Shape, size: int) -> tuple[int, ...]:
    """Return the sizes of a batch of images, with one image and pictures of `size` where the shape leaves it open."""
    dims = shape.dims if shape.dims is not None else (None, None, None, 3)
    open_sizes = [1, *([size] * (len(dims) - 2)), 3]
    return tuple(wanted if dim is None else dim for dim, wanted in zip(dims, open_sizes, strict=False))


def _batches(shapes: Sequence[Shape]) -> Iterator[Array]:
    """Yield batches of seeded images, of the sizes to try."""
    for sizes in dict.fromkeys(_sizes(shape, size) for shape in shapes for size in SIZES[1:]):
        yield np.random.default_rng(0).integers(0, 256, sizes).astype(np.uint8)


def png_image(image: Array) -> bytes:
    """Return an image as PNG.

    Args:
        image: `uint8[height, width, 3]`.
    """
    height, width, _ = image.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)  # 8 bits, RGB
    rows = b"".join(b"\0" + row.tobytes() for row in image)  # each row unfiltered
    return _PNG + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _example(encoded: bytes) -> bytes:
    """Return a serialized `tf.train.Example` that holds an encoded image."""
    feature = _field(_field(encoded))  # Feature.bytes_list, BytesList.value
    entry = _field(ENCODED_KEY) + _field(feature, 2)
    return _field(_field(entry))  # Example.features, Features.feature


def _field(content: bytes, number: int = 1) -> bytes:
    return encode_varint(number << 3 | 2) + encode_varint(len(content)) + content
