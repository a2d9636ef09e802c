"""Small artifacts for tests of comparing: written by our writers or as text, opened by nobody yet."""

import numpy as np

from tfthaw.formats.npz import write_npz
from tfthaw.formats.safetensors import write_safetensors
from tfthaw.formats.tensor_bundle import BundleWriter
from tfthaw.tensors import ArrayTensor, Tensor


def as_tensors(arrays):
    return {name: item if isinstance(item, Tensor) else ArrayTensor(np.asarray(item)) for name, item in arrays.items()}


def checkpoint(folder, name, arrays):
    """Write a checkpoint; return its prefix."""
    with BundleWriter(folder, name) as writer:
        for key, tensor in sorted(as_tensors(arrays).items()):
            writer.add(key, tensor)
    return str(folder / name)


def safetensors(path, arrays):
    with open(path, "wb") as file:
        write_safetensors(file, as_tensors(arrays))
    return str(path)


def npz(path, arrays):
    with open(path, "wb") as file:
        write_npz(file, as_tensors(arrays))
    return str(path)


def const(name, values):
    """Return a float32 constant in text form."""
    values = np.asarray(values, np.float32)
    dims = " ".join(f"dim {{ size: {size} }}" for size in values.shape)
    stored = " ".join(f"float_val: {value}" for value in values.reshape(-1))
    return f"""
        node {{ name: "{name}" op: "Const"
          attr {{ key: "dtype" value {{ type: DT_FLOAT }} }}
          attr {{ key: "value" value {{ tensor {{ dtype: DT_FLOAT tensor_shape {{ {dims} }} {stored} }} }} }} }}"""


def node(name, op, *inputs, device="", **attrs):
    """Return a node in text form; attrs are texts of AttrValues."""
    fed = " ".join(f'input: "{text}"' for text in inputs)
    said = " ".join(f'attr {{ key: "{key}" value {{ {value} }} }}' for key, value in attrs.items())
    return f'\nnode {{ name: "{name}" op: "{op}" {fed} device: "{device}" {said} }}'


PLACEHOLDER = node("x", "Placeholder", dtype="type: DT_FLOAT")


def graph(path, *nodes, versions="producer: 27"):
    """Write nodes and functions as a GraphDef in text form."""
    library = "".join(text for text in nodes if text.startswith("function"))
    body = "".join(text for text in nodes if not text.startswith("function"))
    path.write_text(f"{body}\nlibrary {{ {library} }}\nversions {{ {versions} }}\n")
    return str(path)


def meta_graph(path, *nodes, signatures=""):
    """Write a MetaGraphDef as text."""
    body = "".join(nodes)
    path.write_text(f'meta_info_def {{ tensorflow_version: "1.15.0" }}\ngraph_def {{ {body} }}\n{signatures}\n')
    return str(path)
