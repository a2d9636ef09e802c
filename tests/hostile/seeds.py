"""Tiny valid artifacts of every format, for the hostile corpus to damage.

The graph is `softmax(x @ w + b)` with a Saver as TensorFlow 1 writes it.
"""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tfthaw import convert, proto
from tfthaw.dtypes import DType
from tfthaw.formats.ordered_code import encode_slice_key
from tfthaw.formats.table import TableWriter
from tfthaw.formats.tensor_bundle import BundleWriter
from tfthaw.proto.text import to_text
from tfthaw.tensors import ArrayTensor

W = np.arange(12, dtype=np.float32).reshape(4, 3) - 5
B = np.array([0.5, -0.0, np.nan], np.float32)
OUTPUTS = ("--outputs", "softmax")


def attr_value(value: Any) -> Any:
    """Return an AttrValue for a type, a shape (tuple), an array, bytes, a bool, a number or a list of types."""
    if isinstance(value, DType):
        return proto.AttrValue(type=int(value))
    if isinstance(value, bool):
        return proto.AttrValue(b=value)
    if isinstance(value, int):
        return proto.AttrValue(i=value)
    if isinstance(value, bytes):
        return proto.AttrValue(s=value)
    result = proto.AttrValue()
    if isinstance(value, tuple):
        result.shape.SetInParent()
        for size in value:
            result.shape.dim.add(size=size)
    elif isinstance(value, list):
        result.list.type.extend(map(int, value))
    elif isinstance(value, str):
        result.func.name = value
    else:
        result.tensor.CopyFrom(tensor_proto(value))
    return result


def tensor_proto(value: Any) -> Any:
    """Return the TensorProto of an array of floats, integers, bools or bytes."""
    array = np.asarray(value)
    result = proto.TensorProto()
    result.tensor_shape.SetInParent()
    for size in array.shape:
        result.tensor_shape.dim.add(size=size)
    if array.dtype.kind in "OS":
        result.dtype = int(DType.string)
        result.string_val.extend(bytes(item) for item in array.reshape(-1))
    else:
        result.dtype = int(DType[array.dtype.name])
        result.tensor_content = array.tobytes()
    return result


def add(graph: Any, name: str, op: str, *inputs: str, **attrs: Any) -> Any:
    """Add a node to a GraphDef (or FunctionDef) and return it."""
    nodes = graph.node_def if hasattr(graph, "node_def") else graph.node
    node = nodes.add(name=name, op=op, input=inputs)
    for key, value in attrs.items():
        node.attr[key].CopyFrom(attr_value(value))
    return node


F, I32, R, S = DType.float32, DType.int32, DType.resource, DType.string


def frozen_graph() -> Any:
    """Return a GraphDef without variables."""
    graph = proto.GraphDef()
    graph.versions.producer = 134
    add(graph, "x", "Placeholder", dtype=F, shape=(-1, 4))
    add(graph, "w", "Const", dtype=F, value=W)
    add(graph, "b", "Const", dtype=F, value=B)
    _forward(graph)
    return graph


def _forward(graph: Any, w: str = "w", b: str = "b") -> None:
    add(graph, "MatMul", "MatMul", "x", w, T=F, transpose_a=False, transpose_b=False)
    add(graph, "logits", "BiasAdd", "MatMul", b, T=F)
    add(graph, "softmax", "Softmax", "logits", T=F)


def variable_graph() -> Any:
    """Return a GraphDef with two variables and a Saver."""
    graph = proto.GraphDef()
    graph.versions.producer = 134
    add(graph, "x", "Placeholder", dtype=F, shape=(-1, 4))
    for name, value in (("w", W), ("b", B)):
        add(graph, name, "VariableV2", dtype=F, shape=value.shape, container=b"", shared_name=b"")
        add(graph, f"{name}/read", "Identity", name, T=F)
    _forward(graph, "w/read", "b/read")
    add_saver_nodes(graph, {"w": b"w", "b": b"b"})
    return graph


def library_graph() -> Any:
    """Return a GraphDef that computes the same in functions: a call, a choice, a loop and a call for several types."""
    graph = proto.GraphDef()
    graph.versions.producer = 134
    add(graph, "x", "Placeholder", dtype=F, shape=(-1, 4))
    for name, value in (("w", W), ("b", B)):
        add(graph, name, "VarHandleOp", dtype=F, shape=value.shape, container=b"", shared_name=name.encode())
    taken, given = [F, R, R], [F]
    add(graph, "logits", "StatefulPartitionedCall", "x", "w", "b", Tin=taken, Tout=given, f="forward")
    add(graph, "softmax", "Softmax", "logits", T=F)
    forward = add_function(graph, "forward", {"x": F, "w": R, "b": R}, {"y": F}, y="choice:output:0")
    add(forward, "yes", "Const", dtype=DType.bool, value=np.array(True))
    types = {"Tcond": DType.bool, "Tin": taken, "Tout": given}
    add(forward, "choice", "If", "yes:output:0", "x", "w", "b", then_branch="dense", else_branch="loop", **types)
    dense = add_function(graph, "dense", {"x": F, "w": R, "b": R}, {"y": F}, y="add:r:0")
    add(dense, "kernel", "ReadVariableOp", "w", dtype=F)
    add(dense, "bias", "ReadVariableOp", "b", dtype=F)
    add(dense, "MatMul", "MatMul", "x", "kernel:value:0", T=F, transpose_a=False, transpose_b=False)
    add(dense, "add", "sum", "MatMul:product:0", "bias:value:0", "^kernel", T=F)
    _loop(graph)
    total = add_function(graph, "sum", {"one": F, "other": F}, {"r": F}, r="add:z:0")
    total.signature.attr.add(name="T", type="type")
    for argument in (*total.signature.input_arg, *total.signature.output_arg):
        argument.ClearField("type")
        argument.type_attr = "T"
    add(total, "add", "AddV2", "one", "other").attr["T"].placeholder = "T"
    return graph


def _loop(graph: Any) -> None:
    taken = {"x": F, "w": R, "b": R}
    loop = add_function(graph, "loop", taken, {"y": F}, y="while:output:3")
    add(loop, "zero", "Const", dtype=I32, value=np.array(0, np.int32))
    add(loop, "start", "ReadVariableOp", "b", dtype=F)
    inputs = ("zero:output:0", "w", "b", "start:value:0")
    add(loop, "while", "While", *inputs, T=[I32, R, R, F], cond="again", body="step")
    carried = {"i": I32, "w": R, "b": R, "y": F}
    again = add_function(graph, "again", carried, {"more": DType.bool}, more="less:z:0")
    add(again, "limit", "Const", dtype=I32, value=np.array(3, np.int32))
    add(again, "less", "Less", "i", "limit:output:0", T=I32)
    step = add_function(graph, "step", carried, carried, i="add:z:0", w="w", b="b", y="next:z:0")
    add(step, "one", "Const", dtype=I32, value=np.array(1, np.int32))
    add(step, "add", "AddV2", "i", "one:output:0", T=I32)
    add(step, "bias", "ReadVariableOp", "b", dtype=F)
    add(step, "next", "AddV2", "y", "bias:value:0", T=F)


def add_function(graph: Any, name: str, takes: dict[str, DType], gives: dict[str, DType], **returns: str) -> Any:
    """Add a function to the library of a GraphDef and return it."""
    function = graph.library.function.add()
    function.signature.name = name
    for arguments, stored in ((takes, function.signature.input_arg), (gives, function.signature.output_arg)):
        for argument, dtype in arguments.items():
            stored.add(name=argument, type=int(dtype))
    for result, tensor in returns.items():
        function.ret[result] = tensor
    return function


def add_saver_nodes(graph: Any, keys: dict[str, bytes]) -> None:
    """Add the nodes that restore variables from checkpoint keys."""
    names = np.array(list(keys.values()), object)
    add(graph, "save/Const", "Const", dtype=S, value=np.array(b"model", object))
    add(graph, "save/tensor_names", "Const", dtype=S, value=names)
    add(graph, "save/slices", "Const", dtype=S, value=np.array([b""] * len(keys), object))
    add(graph, "save/SaveV2", "SaveV2", "save/Const", "save/tensor_names", "save/slices", *keys, dtypes=[F] * len(keys))
    add(graph, "save/control_dependency", "Identity", "save/Const", "^save/SaveV2", T=S)
    add(graph, "save/RestoreV2", "RestoreV2", "save/Const", "save/tensor_names", "save/slices", dtypes=[F] * len(keys))
    assigns = []
    for position, name in enumerate(keys):
        assigns.append(f"save/Assign_{position}")
        add(graph, assigns[-1], "Assign", name, f"save/RestoreV2:{position}", T=F)
    add(graph, "save/restore_all", "NoOp", *(f"^{name}" for name in assigns))


def meta_graph(graph: Any = None) -> Any:
    """Return a MetaGraphDef of a graph with a Saver."""
    meta = proto.MetaGraphDef()
    meta.meta_info_def.tensorflow_version = "1.15.0"
    meta.meta_info_def.tags.append("serve")
    meta.graph_def.CopyFrom(variable_graph() if graph is None else graph)
    meta.saver_def.filename_tensor_name = "save/Const:0"
    meta.saver_def.save_tensor_name = "save/control_dependency:0"
    meta.saver_def.restore_op_name = "save/restore_all"
    meta.saver_def.version = 2
    return meta


def signed(meta: Any, **outputs: str) -> Any:
    """Give a MetaGraphDef the signature `serving_default` and return it."""
    signature = meta.signature_def["serving_default"]
    signature.method_name = "tensorflow/serving/predict"
    signature.inputs["x"].name, signature.inputs["x"].dtype = "x:0", int(F)
    for name, tensor in (outputs or {"y": "softmax:0"}).items():
        signature.outputs[name].name, signature.outputs[name].dtype = tensor, int(F)
    return meta


def write_checkpoint(folder: Path, name: str = "model", tensors: dict[str, Any] | None = None) -> str:
    """Write a V2 checkpoint and return its prefix."""
    folder.mkdir(parents=True, exist_ok=True)
    with BundleWriter(folder, name) as writer:
        for key, value in sorted((tensors or {"w": W, "b": B}).items()):
            writer.add(key, ArrayTensor(np.asarray(value)))
    return str(folder / name)


def write_checkpoint_v1(path: Path) -> str:
    """Write a V1 checkpoint and return its path."""
    message = proto.SavedTensorSlices()
    message.meta.versions.producer = 1
    rows = {}
    for name, value in (("b", B), ("w", W)):
        entry = message.meta.tensor.add(name=name, type=int(F))
        part = entry.slice.add()
        for size in value.shape:
            entry.shape.dim.add(size=size)
            part.extent.add()
        saved = proto.SavedTensorSlices()
        saved.data.data.float_val.extend(value.reshape(-1).tolist())
        rows[encode_slice_key(name.encode(), [(0, -1)] * value.ndim)] = saved.SerializeToString()
    rows[b""] = message.SerializeToString()
    with open(path, "wb") as file:
        table = TableWriter(file)
        for key, data in sorted(rows.items()):
            table.add(key, data)
        table.finish()
    return str(path)


def keras_h5_bytes() -> bytes:
    """Return a Keras HDF5 model."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.attrs["keras_version"] = "2.10.0"
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"name": "net", "layers": []}})
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"dense"]
        weights["dense/dense/kernel:0"] = W
        weights["dense/dense/bias:0"] = B
        weights["dense"].attrs["weight_names"] = [b"dense/kernel:0", b"dense/bias:0"]
    return buffer.getvalue()


def weights_h5_bytes() -> bytes:
    """Return Keras 3 weights."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file["layers/dense/vars/0"] = W
    return buffer.getvalue()


def zip_bytes(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)
    return buffer.getvalue()


def keras_members() -> dict[str, bytes]:
    """Return the members of a `.keras` archive."""
    return {
        "metadata.json": json.dumps({"keras_version": "3.9.2"}).encode(),
        "config.json": json.dumps({"class_name": "Sequential", "config": {"name": "net", "layers": []}}).encode(),
        "model.weights.h5": weights_h5_bytes(),
    }


def npz_bytes(compressed: bool = False) -> bytes:
    """Return an `.npz` archive."""
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, w=W, b=B)
    return buffer.getvalue()


def write_seeds(folder: Path) -> dict[str, str]:
    """Write one artifact of each format, each in a folder of its own; returns format -> path."""

    def place(name: str, data: bytes) -> str:
        path = folder / name.partition(".")[0] / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
        return str(path)

    prefix = write_checkpoint(folder / "meta")
    meta = folder / "meta" / "model.meta"
    meta.write_bytes(meta_graph().SerializeToString(deterministic=True))
    saved = folder / "saved" / "model"
    convert(meta, saved, to="saved-model", outputs=["softmax"])
    (folder / "v1").mkdir()
    found = {
        "checkpoint": write_checkpoint(folder / "checkpoint"),
        "checkpoint-v1": write_checkpoint_v1(folder / "v1" / "model.ckpt"),
        "meta-graph": str(meta),
        "saved-model": str(saved),
        "frozen-graph": place("frozen.pb", frozen_graph().SerializeToString(deterministic=True)),
        "graph-text": place("text.pbtxt", to_text(frozen_graph()).encode()),
        "library": place("library.pb", library_graph().SerializeToString(deterministic=True)),
        "graph-def": place("graph.pb", variable_graph().SerializeToString(deterministic=True)),
        "keras-h5": place("keras.h5", keras_h5_bytes()),
        "keras-weights": place("weights.h5", weights_h5_bytes()),
        "keras-zip": place("archive.keras", zip_bytes(keras_members())),
        "npz": place("stored.npz", npz_bytes()),
        "npz-deflated": place("deflated.npz", npz_bytes(compressed=True)),
    }
    safetensors = folder / "safetensors" / "model.safetensors"
    safetensors.parent.mkdir()
    convert(prefix, safetensors, to="safetensors")
    return found | {"safetensors": str(safetensors)}
