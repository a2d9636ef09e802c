"""The input of an inference graph: a placeholder of the asked type in the place of the training run's input pipeline.

    image_tensor                  uint8[?, ?, ?, 3] ─────────────────────────────┐
    float_image_tensor            float32[?, ?, ?, 3] ───────────────────────────┤
    encoded_image_string_tensor   string[?] ─ decode ─ uint8[?, ?, ?, 3] ────────┼─ Cast, where it takes floats ─ model
    tf_example                    string[?] ─ parse ─ decode ─ uint8[?, ?, ?, 3] ┘

Source: exporter.py of the object detection API (input_placeholder_fn_map).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tfthaw.drop_ins.inference_options import ENCODED, EXAMPLE, IMAGES, INPUT_TYPES, InferenceOptions
from tfthaw.drop_ins.inference_outputs import InferenceOutputs
from tfthaw.dtypes import DType
from tfthaw.errors import UsageError
from tfthaw.ir.attrs import Attr, Shape
from tfthaw.ir.graph import GraphIndex, Node, TensorName
from tfthaw.ir.model import Model
from tfthaw.ir.structured_text import shape_text
from tfthaw.passes.cut_inputs import cut_input
from tfthaw.passes.decode_images import decode_images, parse_examples
from tfthaw.passes.input_boundary import (
    Boundary,
    boundary_at,
    find_boundaries,
    is_in_loop,
    known_shape,
    pipeline_nodes,
)
from tfthaw.passes.pixel_origins import pixel_changes
from tfthaw.passes.prune import PLACEHOLDER_OPS, require_tensors
from tfthaw.passes.written_sizes import arrays_of_batch, has_functions_on, nodes_of_batch, takes_any_size

_MOST_CANDIDATES = 8
_MOST_NODES = 5


@dataclass(frozen=True)
class Fed:
    """A model that takes what an export is fed.

    Attributes:
        model: The model.
        placeholder: The tensor that is fed now.
        at: The tensor of the source that it stands for.
        shape: The shape of the images that are fed.
        notes: What was found and cut.
    """

    model: Model
    placeholder: TensorName
    at: Boundary
    shape: Shape
    notes: list[str] = field(default_factory=list)


def feed_model(outputs: InferenceOutputs, options: InferenceOptions) -> Fed:
    """Cut the input pipeline off and put a placeholder in its place.

    Args:
        outputs: The model, and what comes out of it.
        options: What the user asked for.

    Raises:
        UsageError: Nothing says where images go in, or what goes in there cannot be the asked input.
        NotFoundError: The tensor that the user named is not there.
    """
    model = outputs.model
    index = GraphIndex(model.graph.nodes)
    at, notes = _find(model, index, outputs.tensors, options)
    _refuse_misfits(at, options)
    if is_in_loop(index, at.tensor.node):
        raise UsageError(
            f"{at.tensor} is computed anew in each turn of a loop, and nothing can be fed there",
            where="--input_tensor", hint=_candidates(index, outputs.tensors, options),
        )  # fmt: skip
    shape, said = _fed_shape(at, index, outputs, options)
    placeholder, nodes, given = _nodes(at, index, options, shape)
    cut = cut_input(model.graph, at.tensor, given, nodes, outputs.tensors)
    if cut.waits:
        notes.append(f"nothing waits for the input pipeline any more ({_listed(cut.waits)})")
    _refuse_pipelines(GraphIndex(cut.graph.nodes), outputs)
    return Fed(replace(model, graph=cut.graph), placeholder, at, shape, [*notes, *said])


def _fed_shape(
    at: Boundary, index: GraphIndex, outputs: InferenceOutputs, options: InferenceOptions
) -> tuple[Shape, list[str]]:
    """Return the shape of the images that are fed: what was asked for, as far as the graph takes it.

    A graph that was built for images of one size may have been simplified for it (a resize to that very size is not in
    it), so that size stays unless the graph resizes all that it takes; and so does the size of the batch where the
    graph has it written in.

    Raises:
        UsageError: Other sizes were asked for than those that the graph has written in.
    """
    asked, built = options.image_shape.dims, at.shape.dims
    if asked is None or built is None or at.dtype is DType.string:
        return options.image_shape, []
    if at.op in PLACEHOLDER_OPS:  # its own shape is a promise of those who built the graph
        if any(one is not None and other not in (None, one) for one, other in zip(asked, built, strict=True)):
            raise UsageError(f"the model takes {_described(at)}, and {shape_text(options.image_shape)} is to be fed",
                             hint=f"give --input_shape {_size_texts(built)}")  # fmt: skip
        return Shape(_narrowed(asked, built)), []
    written: list[str] = []
    arrays: list[str] = []
    if built[0] is not None and asked[0] != built[0]:
        written = nodes_of_batch(index, at.tensor, outputs.tensors, built[0])
        arrays = arrays_of_batch(index, at.tensor, outputs.tensors, built[0])
    is_free = takes_any_size(index, at.tensor, outputs.tensors)
    dims = (built[0] if written else asked[0], *(asked[1:] if is_free else _narrowed(asked[1:], built[1:])))
    if options.input_shape is None:
        notes = []
        if arrays and not written:
            notes.append(f"it runs with batches of {built[0]} alone: loops have that written in ({_listed(arrays)})")
        if dims != asked:
            because = f"has it written in ({_listed(written)})" if written else "was built for it"
            notes.append(f"what is fed has the shape {shape_text(Shape(dims))}: the graph {because}")
        return Shape(dims), notes
    written += arrays
    written += has_functions_on(index, at.tensor, outputs.tensors) if dims != tuple(asked) else []
    if written:
        sizes = _size_texts((built[0], *_narrowed(asked[1:], built[1:])))
        raise UsageError(
            f"the graph has the sizes that it was built for written in ({_listed(written)})", where="--input_shape",
            hint=f"give --input_shape {sizes}",
        )  # fmt: skip
    if dims == tuple(asked):
        return options.image_shape, []
    return options.image_shape, [
        f"the graph was built for images of {shape_text(at.shape)} and may have been simplified for them; other sizes "
        f"were asked for, and what it makes of them is not known"
    ]


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - _MOST_NODES
    return ", ".join(names[:_MOST_NODES]) + (f" and {rest} more" if rest > 0 else "")


def _size_texts(sizes: Sequence[int | None]) -> str:
    """Return sizes as --input_shape takes them."""
    return ",".join("-1" if size is None else str(size) for size in sizes)


def _narrowed(asked: Sequence[int | None], built: Sequence[int | None]) -> tuple[int | None, ...]:
    return tuple(other if one is None else one for one, other in zip(asked, built, strict=True))


def _find(
    model: Model, index: GraphIndex, outputs: Sequence[TensorName], options: InferenceOptions
) -> tuple[Boundary, list[str]]:
    """Return where images go in, and how it was found."""
    if options.input_tensor is not None:
        tensor = TensorName.parse(options.input_tensor)
        require_tensors(index, [tensor], what="--input_tensor")
        at = boundary_at(index, tensor)
        if tensor.node not in index.reach([name.node for name in outputs]):
            raise UsageError(f"the outputs do not need {tensor}", where="--input_tensor",
                             hint=_candidates(index, outputs, options))  # fmt: skip
        changed = [] if at.op in PLACEHOLDER_OPS else pixel_changes(model.graph, index, tensor)
        return at, [f"the graph was cut at {tensor}, as asked", *_told(changed)]
    reached = index.reach([name.node for name in outputs])
    for name in (options.input_type, *INPUT_TYPES):
        if name in reached and index.nodes[name].op in PLACEHOLDER_OPS:
            at = boundary_at(index, TensorName(name, 0))
            if at.dtype is not DType.string or name == options.input_type:
                return at, _scale_notes(at, options)
    found = [item for item in find_boundaries(index, outputs) if item.may_be_images and _fits(item, options)]
    images = [item for item in found if item.shape.dims is not None] or found
    if len(images) != 1:
        what = "several tensors could be" if images else "no tensor looks like"
        raise UsageError(
            f"{what} the batch of images that the model takes", hint=_candidates(index, outputs, options)
        )
    at = images[0]
    if at.op in PLACEHOLDER_OPS:
        return at, [f"{_described(at)} is where images go in", *_scale_notes(at, options)]
    changed = pixel_changes(model.graph, index, at.tensor)
    if changed and at.dtype is not DType.uint8:
        raise UsageError(
            f"the input pipeline changes the values of pixels in front of {at.tensor}, or nothing says that it does "
            f"not ({', '.join(changed)}); images that are fed there would get none of it",
            hint=f"give --input_tensor {at.tensor} if what is fed shall be prepared like that, or name a tensor behind "
                 f"which all of it happens",
        )  # fmt: skip
    return at, [f"{_described(at)} ({at.op}) is where the input pipeline feeds the model; it was cut there",
                *_told(changed)]  # fmt: skip


def _told(changed: Sequence[str]) -> list[str]:
    if not changed:
        return []
    return [f"what the input pipeline did to pixels ({', '.join(changed)}) is not done to what is fed now"]


def _scale_notes(at: Boundary, options: InferenceOptions) -> list[str]:
    """Return the guess that is made where pixels go into a placeholder of floats."""
    if at.dtype is None or not at.dtype.is_float or options.fed_dtype.is_float:
        return []
    return [f"{at.tensor} takes floats, and nothing says that the training run fed pixels from 0 to 255 as they are; "
            f"what is fed now is cast, and nothing else"]  # fmt: skip


def _candidates(index: GraphIndex, outputs: Sequence[TensorName], options: InferenceOptions) -> str:
    """Return the sentence that names the tensors at which the graph could be cut."""
    found = [item for item in find_boundaries(index, outputs) if item.may_be_images]
    channels = (options.image_shape.dims or (3,))[-1]
    reached = index.reach([name.node for name in outputs])
    for node in index.nodes.values():
        dims = known_shape(node, 0).dims
        is_batch = node.name in reached and dims is not None and len(dims) == 4 and dims[-1] == channels
        if is_batch and not is_in_loop(index, node.name):
            found.append(boundary_at(index, TensorName(node.name, 0)))
    names = list(dict.fromkeys(_described(item) for item in found if item.dtype is not None))
    listed = ", ".join(names[:_MOST_CANDIDATES]) or "none found"
    return f"name the tensor with --input_tensor; candidates: {listed}"


def _described(at: Boundary) -> str:
    return f"{at.tensor} ({at.dtype.name if at.dtype else '?'}{shape_text(at.shape)})"


def _fits(at: Boundary, options: InferenceOptions) -> bool:
    """Whether images of the asked shape may be what a tensor holds, whatever their number."""
    ours, theirs = options.image_shape.dims, at.shape.dims
    if ours is None or theirs is None:
        return True
    return len(ours) == len(theirs) and all(
        one is None or other is None or one == other for one, other in zip(ours[1:], theirs[1:], strict=True)
    )


def _refuse_misfits(at: Boundary, options: InferenceOptions) -> None:
    """Refuse a place at which images cannot go in."""
    if options.input_type in (ENCODED, EXAMPLE) and at.dtype is DType.string and at.op in PLACEHOLDER_OPS:
        return
    if at.dtype is None or not (at.dtype.is_numeric or at.dtype.is_float) or at.dtype is DType.bool:
        raise UsageError(
            f"{_described(at)} takes no images", where="--input_tensor",
            hint="cut the graph at a tensor of numbers: the batch of images, decoded",
        )  # fmt: skip
    if not _fits(at, options):
        raise UsageError(
            f"the model takes {_described(at)}, and images of shape {shape_text(options.image_shape)} are to be fed",
            hint="say the shape with --input_shape, or another place with --input_tensor",
        )  # fmt: skip


def _nodes(
    at: Boundary, index: GraphIndex, options: InferenceOptions, images: Shape
) -> tuple[TensorName, list[Node], TensorName]:
    """Return what is fed, the nodes between it and the model with the placeholder first, and what the model takes."""
    kind = options.input_type
    if at.dtype is DType.string:
        return at.tensor, [index.nodes[at.tensor.node]], at.tensor
    shape = Shape((images.dims or (None,))[:1]) if options.fed_dtype is DType.string else images
    nodes = [Node(kind, "Placeholder", [], "", {"dtype": options.fed_dtype, "shape": shape})]
    given, dtype = TensorName(kind, 0), options.fed_dtype
    if kind == EXAMPLE:
        made, given = parse_examples(given.as_input(), "parse_examples")
        nodes += made
    if dtype is DType.string:
        made, given = decode_images(given.as_input(), "decode_images")
        nodes += made
        dtype = DType.uint8
        if images.dims is not None and images.dims[1:] != (IMAGES.dims or ())[1:]:
            attrs: dict[str, Attr] = {"T": dtype, "shape": images}
            nodes.append(Node("decode_images/ensure_shape", "EnsureShape", [given.as_input()], "", attrs))
            given = TensorName(nodes[-1].name, 0)
    if at.dtype is not None and dtype is not at.dtype:
        nodes.append(
            Node(f"{kind}/cast", "Cast", [given.as_input()], "",
                 {"SrcT": dtype, "DstT": at.dtype.base, "Truncate": False})
        )  # fmt: skip
        given = TensorName(nodes[-1].name, 0)
    return TensorName(kind, 0), nodes, given


def _refuse_pipelines(index: GraphIndex, outputs: InferenceOutputs) -> None:
    """Refuse outputs that need the training run's data all the same."""
    problems = []
    additional = {str(tensor): tensor for tensor in outputs.additional}
    for name, tensor in (outputs.named | additional).items():
        needed = pipeline_nodes(index, [tensor.node], through_control=True)
        if needed:
            problems.append(f"{name} needs {_listed(needed)}")
    if problems:
        raise UsageError(
            f"outputs need the input pipeline of training, cut or not: {'; '.join(problems)}",
            hint="leave them out with --output_tensors, or cut the graph further behind with --input_tensor",
        )  # fmt: skip
