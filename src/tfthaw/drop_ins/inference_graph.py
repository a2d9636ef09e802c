"""Export a detection model for inference, as `export_inference_graph.py` of TensorFlow 1 lays it out.

    frozen_inference_graph.pb                            the graph, its variables constants
    model.ckpt.meta, .index, .data-00000-of-00001        the graph with its variables
    checkpoint                                           says that model.ckpt is the latest
    saved_model/saved_model.pb                           the frozen graph with the signature `serving_default`
    pipeline.config                                      the config; the values need no moving averages any more
    inference_graph.pbtxt                                on request: the graph as text

The graph is the training run's own, pruned to the outputs, its input pipeline cut off. TensorFlow is not needed.

Source: exporter.py and export_inference_graph.py of the object detection API.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tfthaw._new_files import new_directory
from tfthaw.conversion.code_values import CheckpointValues
from tfthaw.conversion.from_code import code_model, open_code, with_values
from tfthaw.conversion.options import Options
from tfthaw.conversion.result import Verified
from tfthaw.drop_ins.inference_directory import LAYOUT_V1, read_pipeline, require_own_directory
from tfthaw.drop_ins.inference_input import feed_model
from tfthaw.drop_ins.inference_options import InferenceOptions
from tfthaw.drop_ins.inference_outputs import choose_outputs
from tfthaw.drop_ins.inference_result import InferenceExport
from tfthaw.drop_ins.inference_values import averaged_values, unused_averages
from tfthaw.drop_ins.inference_writing import InferenceModel, Writing
from tfthaw.errors import UnsupportedError, UsageError, naming
from tfthaw.formats.names import CHECKPOINT_FORMATS
from tfthaw.serde.artifacts import Artifact, open_artifact


def export_inference_graph(options: InferenceOptions) -> InferenceExport:
    """Export a detection model for inference in the layout of TensorFlow 1.

    Args:
        options: The graph, the checkpoint, the config, and what is asked of them.

    Returns:
        What was written and what was proved.

    Raises:
        TfthawError: Any of its kinds; nothing is left at the destination.
    """
    began = time.perf_counter()
    prefix = str(options.trained_checkpoint_prefix)
    pipeline = read_pipeline(options, keeps_averages=False)
    sources = [prefix, options.meta_graph, options.pipeline_config_path]
    require_own_directory(options.output_directory, LAYOUT_V1, sources, options.overwrite)
    with ExitStack() as opened:
        checkpoint = opened.enter_context(_opened_checkpoint(prefix, options))
        inference = _inference_model(options, checkpoint, pipeline.uses_moving_averages, opened)
        writing = Writing(inference, options)
        with new_directory(options.output_directory, LAYOUT_V1, overwrite=options.overwrite) as folder:
            writing.write(folder, pipeline.text)
            outputs = writing.prove_outputs(folder)
    target = Path(options.output_directory)
    files = sorted(path for path in target.rglob("*") if path.is_file())
    return InferenceExport(
        layout="export_inference_graph", path=options.output_directory,
        files=tuple(path.relative_to(target).as_posix() for path in files),
        bytes=sum(path.stat().st_size for path in files), variables=writing.proof.compared,
        seconds=round(time.perf_counter() - began, 3), inputs=writing.inputs, outputs=writing.outputs,
        moving_averages=pipeline.uses_moving_averages, verified=Verified(writing.proof, outputs),
        notes=tuple(dict.fromkeys(writing.notes)),
    )  # fmt: skip


def _opened_checkpoint(prefix: str, options: InferenceOptions) -> Artifact:
    """Open the checkpoint, which holds values by names unless code says how objects are called.

    Raises:
        UsageError: It is no checkpoint.
        UnsupportedError: It is one of objects, and there is only a graph.
    """
    artifact = open_artifact(prefix, is_checkpoint=True)
    if artifact.checkpoint is None or artifact.located.format not in (*CHECKPOINT_FORMATS, "meta-graph"):
        raise UsageError(f"a checkpoint is expected, this is {artifact.located.format}", path=prefix,
                         where="--trained_checkpoint_prefix")  # fmt: skip
    if artifact.checkpoint.is_object_based and options.code is None:
        artifact.close()
        raise UnsupportedError(
            "the checkpoint is one of objects (tf.train.Checkpoint), and graphs of TensorFlow 1 restore by names",
            path=prefix, hint="give the code that builds the model with --code MODULE:CALLABLE; with "
                              "--trained_checkpoint_dir, that writes the layout of exporter_main_v2",
        )  # fmt: skip
    return artifact


def _inference_model(
    options: InferenceOptions, checkpoint: Artifact, moving_averages: bool, opened: ExitStack
) -> InferenceModel:
    """Choose what comes out and what goes in, and say what the values are.

    Args:
        options: What the user asked for.
        checkpoint: The values.
        moving_averages: Whether variables take their moving averages as values.
        opened: Closes what is opened for it.

    Raises:
        UsageError: Nothing says what the outputs are, or where images go in.
        RestoreError: There are no moving averages.
    """
    own = dict(checkpoint.tensors)
    values = averaged_values(own, path=checkpoint.path) if moving_averages else own
    notes = [] if moving_averages else unused_averages(own)
    code, traced = None, None
    if options.code is not None:
        chosen = Options(to="meta-graph", code=options.code, input=options.input, checkpoint=checkpoint.path,
                         ema="use" if moving_averages else "keep")  # fmt: skip
        code = opened.enter_context(open_code(None, chosen))
        traced = CheckpointValues(checkpoint, chosen)
        model = with_values(code, code_model(code), traced)
        path: str | None = code.name
    else:
        source = opened.enter_context(open_artifact(options.meta_graph)) if options.meta_graph else checkpoint
        if not source.has_graph:
            raise UsageError(
                "there is no .meta beside the checkpoint, so nothing says what the graph is", path=checkpoint.path,
                hint="give the graph with --meta_graph FILE, or the code that builds it with --code MODULE:CALLABLE",
            )  # fmt: skip
        path = source.path if source is checkpoint else None
        model = replace(source.model(), values=values)
        opened.enter_context(naming(source.path))
    bare = replace(model, notes=[])
    outputs = choose_outputs(bare, options.output_tensors, options.additional_output_tensor_names)
    fed = feed_model(outputs, options)
    said = [*model.notes, *notes, *(code.notes if code is not None else ()), *outputs.notes, *fed.notes]
    return InferenceModel(
        source=model, path=path, checkpoint=checkpoint.path, outputs=outputs, fed=fed, code=code, values=traced,
        moving_averages=own if moving_averages else None, notes=said,
    )  # fmt: skip
