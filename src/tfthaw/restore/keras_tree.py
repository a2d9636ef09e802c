"""The layers of a Keras model, as its configuration tells them: which variables each has, and in which order.

A configuration names classes and arguments; what variables a class makes of them is a table here. `keras_tree` joins
the two to a tree of layers. Where each layout (HDF5 files, object graphs) keeps a variable is in `keras_layouts`.

A class that is not in the table is none of Keras's own, or has no variables; nothing is guessed about it: it is marked,
and what files show under its name decides.

Source: `build` of the layers of Keras 3 and tf_keras, `__setattr__` order of their sublayers, and `get_config`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tfthaw.errors import StructureError

Config: TypeAlias = "Mapping[str, Any]"
Path: TypeAlias = "tuple[str, ...]"

_MAX_DEPTH = 100  # layers in layers; Python's own limit comes soon after


@dataclass(frozen=True, slots=True)
class KerasWeight:
    """A variable that a layer makes.

    Attributes:
        name: What Keras calls it.
        attributes: The layer's attributes that may hold it, the present one first.
        is_trainable: Whether it is made to be trained.
    """

    name: str
    attributes: tuple[str, ...]
    is_trainable: bool = True


@dataclass(slots=True)
class KerasLayer:
    """A layer, with all that is in it.

    Attributes:
        class_name: Its class.
        name: Its name in the model.
        is_trainable: Whether it may be trained.
        is_known: Whether the table tells all of its variables; if not, it has neither weights nor sublayers here.
        weights: Its own variables, trained ones first.
        sublayers: The layers in it, in the order in which Keras counts them.
    """

    class_name: str
    name: str
    is_trainable: bool = True
    is_known: bool = True
    weights: tuple[KerasWeight, ...] = ()
    sublayers: list[Sublayer] = field(default_factory=list)


@dataclass(slots=True)
class Sublayer:
    """A layer in another one.

    Attributes:
        layer: The layer.
        saved: Where it is below its parent in HDF5 files of the layout of Keras 3; the first is the one to write.
        objects: Paths that lead to it in object graphs, the shortest first; empty where they do not hold it.
        prefix: What Keras puts in front of its name in names of variables.
    """

    layer: KerasLayer
    saved: tuple[str, ...]
    objects: tuple[Path, ...]
    prefix: str = ""


def keras_tree(config: Config, generation: int) -> KerasLayer:
    """Return the layers of a model.

    Args:
        config: The model's configuration, `class_name` and `config`.
        generation: 3 for Keras 3, 2 for Keras 2 and tf_keras: what the paths are for.

    Raises:
        StructureError: The configuration contradicts itself.
    """
    return _Reader(generation).layer(config, 0)


def is_functional(config: Config) -> bool:
    """Whether the configuration of a model lists its layers, so that it tells all of them."""
    settings = config.get("config")
    if config.get("class_name") == "Sequential":
        return True
    return isinstance(settings, Mapping) and "layers" in settings and "output_layers" in settings


class _Reader:
    def __init__(self, generation: int) -> None:
        self.is_new = generation >= 3

    def layer(self, document: Any, depth: int) -> KerasLayer:
        """Read one layer of a configuration."""
        if depth > _MAX_DEPTH:
            raise StructureError(f"the configuration nests layers deeper than {_MAX_DEPTH}")
        if not isinstance(document, Mapping) or not isinstance(document.get("class_name"), str):
            raise StructureError("the configuration has an object that is no layer")
        name, settings = document["class_name"], document.get("config")
        if name == "Sequential" and isinstance(settings, list):  # Keras 1 and early Keras 2
            settings = {"name": "sequential", "layers": settings}
        if not isinstance(settings, Mapping):
            raise StructureError(f"the layer {name!r} has no configuration")
        result = KerasLayer(name, str(settings.get("name", name)), settings.get("trainable", True) is not False)
        if name == "Sequential":
            self._sequential(result, settings, depth)
        elif is_functional(document):
            self._functional(result, settings, depth)
        elif _is_custom(document) or name not in _KNOWN:
            result.is_known = False
        else:
            _KNOWN[name](self, result, settings, depth)
        return result

    def _layers(self, settings: Config, depth: int) -> list[tuple[KerasLayer, bool]]:
        """Return the layers of a model, and whether each is one: operations like `x + y` are listed too."""
        documents = settings.get("layers")
        if not isinstance(documents, Sequence) or isinstance(documents, str):
            raise StructureError("the configuration of a model has no list of layers")
        found = [self.layer(document, depth + 1) for document in documents]
        return [(layer, not self.is_new or layer.is_known or _has_policy(document))
                for layer, document in zip(found, documents, strict=True)]  # fmt: skip

    def _sequential(self, result: KerasLayer, settings: Config, depth: int) -> None:
        layers = [layer for layer, _ in self._layers(settings, depth) if layer.class_name != "InputLayer"]
        saved = _container_names(layers)
        if self.is_new:  # a built Sequential is a Functional inside, whose first operation is its input
            places: list[tuple[Path, ...]] = [
                (("_functional", "_operations", str(position)),) for position in range(1, len(layers) + 1)
            ]
        else:
            places = _numbered(layers)
        self._fill(result, layers, saved, places)

    def _functional(self, result: KerasLayer, settings: Config, depth: int) -> None:
        every = self._layers(settings, depth)
        layers = [layer for layer, is_layer in every if is_layer]
        saved = _container_names(layers)
        if self.is_new:
            positions = [position for position, (_, is_layer) in enumerate(every) if is_layer]
            places: list[tuple[Path, ...]] = [(("_operations", str(position)),) for position in positions]
        else:
            places = _numbered(layers)
        self._fill(result, layers, saved, places)

    def _fill(self, result: KerasLayer, layers: list[KerasLayer], saved: list[str],
              places: Sequence[tuple[Path, ...]]) -> None:  # fmt: skip
        for layer, name, objects in zip(layers, saved, places, strict=True):
            # Keras 2.12 and 2.13 called the list of layers by another name
            names = (f"layers/{name}", f"_layer_checkpoint_dependencies/{name}")
            result.sublayers.append(Sublayer(layer, names, objects))

    def one(self, result: KerasLayer, attribute: str, layer: KerasLayer, prefix: str = "") -> None:
        """Add a sublayer that an attribute holds."""
        plain = attribute.lstrip("_")
        saved = (plain, attribute) if self.is_new else (attribute, plain)
        result.sublayers.append(Sublayer(layer, tuple(dict.fromkeys(saved)), ((attribute,),), prefix))


def _is_custom(document: Config) -> bool:
    """Whether a class is the user's own, though its name may be one of Keras's."""
    registered, module = document.get("registered_name"), document.get("module")
    is_keras = isinstance(module, str) and module.split(".")[0] in ("keras", "tf_keras")
    return registered is not None and not is_keras


def _has_policy(document: Config) -> bool:
    """Whether a configuration is that of a layer, which has a dtype, and not of a plain operation of Keras 3."""
    settings = document.get("config")
    return isinstance(settings, Mapping) and ("dtype" in settings or "trainable" in settings)


def snake_case(class_name: str) -> str:
    """Return the name that Keras makes of a class: `BatchNormalization` becomes `batch_normalization`."""
    name = re.sub(r"\W+", "", class_name.rpartition(">")[2])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _container_names(layers: Sequence[KerasLayer]) -> list[str]:
    """Return the names of layers in a list of the HDF5 layout: their class, numbered where it comes again."""
    seen: dict[str, int] = {}
    names = []
    for layer in layers:
        base = snake_case(layer.class_name)
        number = seen[base] = seen.get(base, -1) + 1
        names.append(f"{base}_{number}" if number else base)
    return names


def _numbered(layers: Sequence[KerasLayer]) -> list[tuple[Path, ...]]:
    """Return what Keras 2 calls layers in object graphs: numbered among all, and among those with variables.

    A layer that the table does not know may have variables or not; it and those after it go by the first number only.
    """
    places: list[tuple[Path, ...]] = []
    count: int | None = 0
    for position, layer in enumerate(layers):
        plain = (f"layer-{position}",)
        if count is None or not is_wholly_known(layer):
            count = None
            places.append((plain,))
        elif has_weights(layer):
            places.append(((f"layer_with_weights-{count}",), plain))
            count += 1
        else:
            places.append((plain,))
    return places


def has_weights(layer: KerasLayer) -> bool:
    """Whether a layer or one in it has variables that the table tells."""
    return bool(layer.weights) or any(has_weights(item.layer) for item in layer.sublayers)


def is_wholly_known(layer: KerasLayer) -> bool:
    """Whether the table tells all variables of a layer and of those in it."""
    return layer.is_known and all(is_wholly_known(item.layer) for item in layer.sublayers)


_Describe: TypeAlias = "Callable[[_Reader, KerasLayer, Config, int], None]"


def _weight(name: str, *attributes: str, trainable: bool = True) -> KerasWeight:
    return KerasWeight(name, (*attributes, name), trainable)


def _plain(*names: str) -> _Describe:
    """Describe a layer that makes variables, each unless a setting `use_<name>` turns it off."""

    def describe(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
        result.weights = tuple(_weight(name) for name in names if settings.get(f"use_{name}", True))

    return describe


def _private(first: str, *others: str) -> _Describe:
    """Describe a layer whose first variable has a private attribute in Keras 3, for the sake of LoRA."""

    def describe(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
        _plain(first, *others)(reader, result, settings, depth)
        if reader.is_new:
            result.weights = (_weight(first, f"_{first}"), *result.weights[1:])
        if settings.get("quantization_config") or settings.get("lora_rank"):
            result.is_known, result.weights = False, ()

    return describe


def _einsum(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
    _private("kernel", "bias")(reader, result, {**settings, "use_bias": settings.get("bias_axes") is not None}, depth)


def _depthwise(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
    names = ("kernel" if reader.is_new else "depthwise_kernel", "bias")
    _plain(*names)(reader, result, settings, depth)


def _normalized(*moving: str) -> _Describe:
    """Describe a normalisation with gain and offset, and with what it moves along."""

    def describe(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
        gains = [name for name, setting in (("gamma", "scale"), ("beta", "center")) if settings.get(setting, True)]
        if settings.get("rms_scaling"):
            gains = ["gamma"]
        result.weights = (*map(_weight, gains), *(_weight(name, trainable=False) for name in moving))
        if settings.get("renorm") or settings.get("virtual_batch_size"):
            result.is_known, result.weights = False, ()

    return describe


def _adapted(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
    if settings.get("mean") is None:  # else the values are in the configuration
        result.weights = (
            _weight("mean", "adapt_mean", trainable=False), _weight("variance", "adapt_variance", trainable=False),
            _weight("count", trainable=False),
        )  # fmt: skip


def _attention(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
    names = [("scale", settings.get("use_scale", False)),
             ("concat_score_weight", settings.get("score_mode") == "concat")]  # fmt: skip
    result.weights = tuple(_weight(name) for name, is_there in names if is_there)


def _multi_head(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
    bias = {"use_bias": settings.get("use_bias", True)}
    for name in ("query", "key", "value", "output"):
        layer = KerasLayer("EinsumDense", "attention_output" if name == "output" else name, result.is_trainable)
        _private("kernel", "bias")(reader, layer, bias, depth)
        reader.one(result, f"_{name}_dense", layer)
    for attribute in ("_softmax", "_dropout_layer"):
        reader.one(result, attribute, KerasLayer("Layer", attribute))


def _recurrent(cell: str) -> _Describe:
    def describe(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
        layer = KerasLayer(cell, snake_case(cell), result.is_trainable)
        _CELL(reader, layer, settings, depth)
        reader.one(result, "cell", layer)

    return describe


def _with_cell(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
    reader.one(result, "cell", reader.layer(settings.get("cell"), depth + 1))


def _stacked(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
    cells = settings.get("cells")
    layers = [reader.layer(cell, depth + 1) for cell in cells] if isinstance(cells, list) else []
    for position, (layer, name) in enumerate(zip(layers, _container_names(layers), strict=True)):
        # the object graphs of Keras 3 have no lists of layers
        objects: tuple[Path, ...] = () if reader.is_new else (("cells", str(position)),)
        result.sublayers.append(Sublayer(layer, (f"cells/{name}",), objects))


def _wrapped(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
    reader.one(result, "layer", reader.layer(settings.get("layer"), depth + 1))


def _both_ways(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
    forward = settings.get("layer")
    for direction, document in (("forward", forward), ("backward", settings.get("backward_layer") or forward)):
        reader.one(result, f"{direction}_layer", reader.layer(document, depth + 1), f"{direction}_")


def _nothing(reader: _Reader, result: KerasLayer, settings: Config, depth: int) -> None:
    """Describe a layer without variables."""


_CELL = _plain("kernel", "recurrent_kernel", "bias")

_WITHOUT_VARIABLES = """
    Activation ActivityRegularization Add AlphaDropout Average AveragePooling1D AveragePooling2D AveragePooling3D
    CategoryEncoding CenterCrop Concatenate Cropping1D Cropping2D Cropping3D Dot Dropout ELU Flatten GaussianDropout
    GaussianNoise GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D InputLayer Lambda LeakyReLU Masking MaxPooling1D MaxPooling2D MaxPooling3D
    Maximum Minimum Multiply Permute ReLU RepeatVector Rescaling Reshape Resizing Softmax SpatialDropout1D
    SpatialDropout2D SpatialDropout3D Subtract ThresholdedReLU UnitNormalization UpSampling1D UpSampling2D UpSampling3D
    ZeroPadding1D ZeroPadding2D ZeroPadding3D TFOpLambda SlicingOpLambda TensorFlowOpLayer
"""

_KNOWN: dict[str, _Describe] = {
    "Dense": _private("kernel", "bias"),
    "EinsumDense": _einsum,
    "Embedding": _private("embeddings"),
    "ReversibleEmbedding": _private("embeddings"),
    **{f"{kind}{rank}D": _private("kernel", "bias") for kind in ("Conv", "Convolution") for rank in (1, 2, 3)},
    **{f"Conv{rank}DTranspose": _plain("kernel", "bias") for rank in (1, 2, 3)},
    **{f"DepthwiseConv{rank}D": _depthwise for rank in (1, 2)},
    **{f"Separable{kind}{rank}D": _plain("depthwise_kernel", "pointwise_kernel", "bias")
       for kind in ("Conv", "Convolution") for rank in (1, 2)},
    **{f"LocallyConnected{rank}D": _plain("kernel", "bias") for rank in (1, 2)},
    "BatchNormalization": _normalized("moving_mean", "moving_variance"),
    "LayerNormalization": _normalized(),
    "GroupNormalization": _normalized(),
    "RMSNormalization": _plain("scale"),
    "Normalization": _adapted,
    "PReLU": _plain("alpha"),
    "Attention": _attention,
    "AdditiveAttention": _plain("scale"),
    "MultiHeadAttention": _multi_head,
    "GroupedQueryAttention": _multi_head,
    "GroupQueryAttention": _multi_head,
    **{f"{kind}{part}": _CELL if part else _recurrent(f"{kind}Cell")
       for kind in ("LSTM", "GRU", "SimpleRNN") for part in ("", "Cell")},
    **{f"ConvLSTM{rank}D": _recurrent("ConvLSTMCell") for rank in (1, 2, 3)},
    "RNN": _with_cell,
    "StackedRNNCells": _stacked,
    "Bidirectional": _both_ways,
    "TimeDistributed": _wrapped,
    **dict.fromkeys(_WITHOUT_VARIABLES.split(), _nothing),
}  # fmt: skip
