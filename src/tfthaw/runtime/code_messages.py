"""What passes between tfthaw and the process that runs the user's code, as JSON and plain arrays.

Requests go down the child's stdin and answers come up its stdout, one JSON document a line; nothing is ever pickled.

    request   {"do": "trace", "code": SPEC, "request": {...}, "folder": DIR, "paths": [...], "way": null | ...,
               "settled": false, "eager_off": false, "second": false}
    answer    {"traced": {"path", "objects", "assets", "notes", "runtime", "constants"}}
              or {"error": null | {...}, "needs": null | ...}

    request   {"do": "run", "arrays": NPZ, "inputs": {tensor: array}, "outputs": [tensor], "values": {node: place},
               "to": NPZ}
    answer    {"outputs": {tensor: array}} or {"error": {...}}

    request   {"do": "run artifacts", "folder": DIR}     the directory is that of `tfthaw.runtime.isolated`
    answer    {"done": true} or {"error": {...}}

Values of variables are mostly ranges of the checkpoint's files: then only the range is passed (a *place*), and the
child maps the file by itself. What is no range of a file is in the arrays.

    place     {"file", "offset", "length", "crc32c", "dtype", "shape", "name"}     a range of a file
              {"parts": [{"starts", "place"}], "dtype", "shape", "name"}           a partitioned tensor
              {"array": NAME, "dtype"}                                             an array
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfthaw import errors
from tfthaw._files import SourceFile
from tfthaw.dtypes import DType
from tfthaw.errors import RuntimeFailure, TfthawError
from tfthaw.ir.attrs import Shape
from tfthaw.ir.input_specs import InputDeclaration
from tfthaw.ir.live_objects import LiveObjects
from tfthaw.runtime.endpoints import Request
from tfthaw.runtime.isolated import packed, unpacked
from tfthaw.runtime.live_model import Traced
from tfthaw.tensors import Array, ArrayTensor, FileTensor, JoinedTensor, Tensor, TensorPart

_ERROR_LISTS = ("problems", "missing", "unused", "mismatched", "report")
_ERROR_CLASSES = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, TfthawError)
}


def request_json(request: Request) -> dict[str, Any]:
    """Return a request as JSON takes it, without `functions`: the child loads them by itself."""
    return {
        "inputs": [
            {"name": item.name, "dtype": item.dtype.name,
             "dims": None if item.shape.dims is None else list(item.shape.dims)}
            for item in request.inputs
        ],
        "signatures": dict(request.signatures), "graph_inputs": list(request.graph_inputs),
        "graph_outputs": list(request.graph_outputs), "code": request.code,
    }  # fmt: skip


def request_from_json(document: Mapping[str, Any], functions: Mapping[str, Any]) -> Request:
    """Return the request that `request_json` took apart, with the functions that it names."""
    inputs = [
        InputDeclaration(
            item["name"], DType[item["dtype"]], Shape(None if item["dims"] is None else tuple(item["dims"]))
        )
        for item in document["inputs"]
    ]
    return Request(
        inputs, document["signatures"], document["graph_inputs"], document["graph_outputs"], document["code"], functions
    )


def traced_json(traced: Traced) -> dict[str, Any]:
    """Return what was traced as JSON takes it."""
    return {
        "path": str(traced.path), "objects": traced.objects.as_json(), "assets": traced.assets,
        "notes": traced.notes, "runtime": traced.runtime, "constants": traced.constants,
    }  # fmt: skip


def traced_from_json(document: Mapping[str, Any]) -> Traced:
    """Return what `traced_json` took apart."""
    return Traced(
        Path(document["path"]), LiveObjects.from_json(document["objects"]), document["assets"], document["notes"],
        document["runtime"], document["constants"],
    )  # fmt: skip


def error_json(error: TfthawError, traceback: str = "") -> dict[str, Any]:
    """Return an error as JSON takes it.

    Args:
        error: The error.
        traceback: Its traceback, which `-v` shows.
    """
    lists = {name: list(getattr(error, name)) for name in _ERROR_LISTS if hasattr(error, name)}
    return {
        "class": type(error).__name__, "message": error.message, "path": error.path, "where": error.where,
        "hint": error.hint, "lists": lists, "traceback": traceback,
    }  # fmt: skip


def error_from_json(document: Mapping[str, Any]) -> TfthawError:
    """Return the error that `error_json` took apart, of the same class."""
    kind = _ERROR_CLASSES.get(document["class"], RuntimeFailure)
    error = kind(document["message"], path=document["path"], where=document["where"], hint=document["hint"])
    for name, values in document["lists"].items():
        setattr(error, name, tuple(values))
    if document.get("traceback"):
        error.__cause__ = _Elsewhere(f"\n{document['traceback']}")
    return error


class _Elsewhere(Exception):  # noqa: N818  # it is no error of its own: it shows one that was raised in the child
    """The traceback of the process in which an error was raised."""


def place_json(name: str, tensor: Tensor, arrays: dict[str, Array]) -> dict[str, Any]:
    """Return where the values of a tensor are; those that are no range of a file are added to the arrays.

    Args:
        name: What to call an array.
        tensor: The tensor.
        arrays: The arrays to be sent along.
    """
    if isinstance(tensor, FileTensor) and tensor.dtype.is_numeric:
        return {
            "file": os.path.abspath(tensor.slice.file.path), "offset": tensor.slice.offset,
            "length": tensor.slice.length, "crc32c": tensor.crc32c, "dtype": tensor.dtype.name,
            "shape": list(tensor.shape), "name": tensor.name,
        }  # fmt: skip
    if isinstance(tensor, JoinedTensor):
        parts = [
            {"starts": list(part.starts), "place": place_json(f"{name}/{number}", part.tensor, arrays)}
            for number, part in enumerate(tensor.parts)
        ]
        return {"parts": parts, "dtype": tensor.dtype.name, "shape": list(tensor.shape), "name": tensor.name}
    arrays |= packed(name, tensor.numpy())
    return {"array": name, "dtype": tensor.dtype.name}


def tensor_at(place: Mapping[str, Any], arrays: Any, files: dict[str, SourceFile]) -> Tensor:
    """Return the tensor at a place.

    Args:
        place: What `place_json` gave.
        arrays: The arrays that were sent along.
        files: Files that are open already; added to.
    """
    dtype = DType[place["dtype"]]
    if "array" in place:
        return ArrayTensor(unpacked(arrays, place["array"]), dtype)
    if "parts" in place:
        parts = [TensorPart(tuple(part["starts"]), tensor_at(part["place"], arrays, files)) for part in place["parts"]]
        return JoinedTensor(dtype, place["shape"], parts, name=place["name"])
    path = place["file"]
    if path not in files:
        files[path] = SourceFile(path)
    part = files[path].slice(place["offset"], place["length"])
    return FileTensor(dtype, place["shape"], part, crc32c=place["crc32c"], name=place["name"])
