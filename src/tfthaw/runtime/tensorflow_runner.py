"""Run artifacts with TensorFlow: feed tensors, fetch tensors.

TensorFlow reads the files itself, with its own loaders; nothing of tfthaw's readers stands between, so what comes out
is TensorFlow's word on the artifact. Everything happens in a graph and a session of its own: the caller's process stays
as it is, eager execution, log levels and default graph included. Devices that nodes ask for are not honoured.

TensorFlow's chatter on stderr is kept off the screen, unless the environment sets TF_CPP_MIN_LOG_LEVEL below 3, which
says what the user wants to see of it: at 3 TensorFlow itself would still tell of processors while it is imported.
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tfthaw._optional import require
from tfthaw.errors import MissingDependencyError, RuntimeFailure, UnsupportedError, UsageError
from tfthaw.formats.names import CHECKPOINT_FORMATS
from tfthaw.proto.text import first_field
from tfthaw.serde.artifacts import Artifact, open_artifact
from tfthaw.tensors import Array

_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # read once, when TensorFlow's library is loaded
_ERRORS_ONLY = "3"
_ONE_AT_A_TIME = threading.RLock()  # what it changes belongs to the process
_STDERR = 2
LOADING = "load"
"""What failures to load an artifact say that TensorFlow cannot do, before anything of it runs."""

_MESSAGE_LENGTH = 500  # TensorFlow's messages can carry the whole traceback of a node


def is_installed() -> bool:
    """Whether TensorFlow is installed, found out without importing it; an import may still fail."""
    try:
        return importlib.util.find_spec("tensorflow") is not None
    except ValueError:  # a module that stands in sys.modules without a spec
        return "tensorflow" in sys.modules


def import_tensorflow(purpose: str) -> Any:
    """Import TensorFlow without its chatter.

    Args:
        purpose: What it is needed for, as the end of the sentence "needed to ...".

    Raises:
        MissingDependencyError: It is not installed, or its import fails.
    """
    try:
        with quiet():
            return require("tensorflow", extra="tf", purpose=purpose)
    except MissingDependencyError:
        raise
    except Exception as error:  # a broken installation raises whatever it trips over
        raise MissingDependencyError(
            f"tensorflow is needed to {purpose}; it is installed, but importing it fails: {_shortened(error)}",
            hint='install it anew with: pip install --force-reinstall "tfthaw[tf]"',
        ) from error


def runtime_name() -> str:
    """Return what runs here, such as `tensorflow 2.21.0`.

    Raises:
        MissingDependencyError: TensorFlow is not installed, or its import fails.
    """
    return f"tensorflow {import_tensorflow('run a model').__version__}"


def run_graph(
    source: str | os.PathLike[str] | Artifact,
    inputs: Mapping[str, Array],
    outputs: Sequence[str],
    *,
    tags: Sequence[str] | None = None,
) -> dict[str, Array]:
    """Run an artifact that carries a graph.

    Args:
        source: A frozen graph, a MetaGraph with its checkpoint beside it, a checkpoint with its `.meta`, or a
            SavedModel.
        inputs: tensor name (`x:0`) -> the values to feed.
        outputs: The names of the tensors to compute.
        tags: The tag set to load from a SavedModel that has several.

    Returns:
        output -> its values, under the names of `outputs`.

    Raises:
        MissingDependencyError: TensorFlow cannot be imported.
        UnsupportedError: The artifact carries no graph.
        UsageError: Several tag sets could be meant.
        RuntimeFailure: TensorFlow raised; its exception is the cause.
    """
    if isinstance(source, Artifact):
        return _run(source, inputs, list(outputs), tags)
    with open_artifact(source) as artifact:
        return _run(artifact, inputs, list(outputs), tags)


def _run(
    artifact: Artifact, inputs: Mapping[str, Array], outputs: list[str], tags: Sequence[str] | None
) -> dict[str, Array]:
    if not artifact.has_graph:
        raise UnsupportedError(f"{artifact.format} carries no graph that could be run", path=artifact.path)
    chosen = _tags(artifact, tags) if artifact.located.format == "saved-model" else []
    tf = import_tensorflow("run a model")
    doing = LOADING
    try:
        with (
            quiet(),
            tf.Graph().as_default() as graph,
            tf.compat.v1.Session(graph=graph, config=_configuration(tf)) as session,
        ):
            _load(tf, session, artifact, chosen)
            doing = "run"
            values = session.run(outputs, dict(inputs))
    except Exception as error:  # besides its own errors, TensorFlow raises ValueError, TypeError and more
        raise RuntimeFailure(f"TensorFlow cannot {doing} it: {_shortened(error)}", path=artifact.path) from error
    return dict(zip(outputs, values, strict=True))


def _configuration(tf: Any) -> Any:
    """Return the configuration of a session that runs a graph once and as it is written.

    TensorFlow would rewrite the graph before its first run: Grappler, whose passes copy every constant, and the folding
    of constants. For a frozen graph of 500 MB that takes six times as long as all the rest, and twice the memory.
    """
    configuration = tf.compat.v1.ConfigProto(allow_soft_placement=True)
    configuration.graph_options.rewrite_options.disable_meta_optimizer = True
    configuration.graph_options.optimizer_options.opt_level = tf.compat.v1.OptimizerOptions.L0
    return configuration


def _shortened(error: Exception) -> str:
    text = f"{type(error).__name__}: {error}".strip()
    return text if len(text) <= _MESSAGE_LENGTH else f"{text[:_MESSAGE_LENGTH]} ..."


def _tags(artifact: Artifact, tags: Sequence[str] | None) -> list[str]:
    """Return the tag set to load: the one that was asked for, else the only one, else that of serving."""
    sets = artifact.tag_sets
    if tags is not None:
        return list(tags)
    if len(sets) == 1:
        return sets[0]
    if ["serve"] in sets:
        return ["serve"]
    known = "; ".join(",".join(each) for each in sets)
    raise UsageError(f"several tag sets could be meant: {known}", path=artifact.path, hint="choose one of them")


def _load(tf: Any, session: Any, artifact: Artifact, tags: list[str]) -> None:
    """Load an artifact into the session's graph, with its values."""
    located = artifact.located
    if located.format == "saved-model":
        tf.compat.v1.saved_model.load(session, tags, located.path, clear_devices=True)
    elif located.format == "graph-def":
        tf.import_graph_def(_graph_def(tf, located.path), name="")
    else:
        is_checkpoint = located.format in CHECKPOINT_FORMATS
        message, prefix = (located.meta_graph, located.path) if is_checkpoint else (located.path, located.checkpoint)
        saver = tf.compat.v1.train.import_meta_graph(message, clear_devices=True)
        # what no checkpoint holds: counters of local variables, and the contents of lookup tables
        session.run([tf.compat.v1.local_variables_initializer(), tf.compat.v1.tables_initializer()])
        if saver is not None and prefix is not None:
            saver.restore(session, prefix)


def _graph_def(tf: Any, path: str) -> Any:
    """Return a GraphDef in TensorFlow's own message class, from the binary or the text form."""
    data = Path(path).read_bytes()
    message = tf.compat.v1.GraphDef()
    if first_field(data[:4096]) is None:
        message.ParseFromString(data)
    else:
        from google.protobuf import text_format

        text_format.Merge(data, message)
    for node in message.node:
        node.device = ""
    return message


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what TensorFlow tells of itself off the screen while the block runs; one thread does so at a time."""
    logger = logging.getLogger("tensorflow")
    with _ONE_AT_A_TIME:
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if os.environ.get(_LOG_LEVEL, _ERRORS_ONLY) == _ERRORS_ONLY:
                    with _no_stderr():
                        yield
                else:
                    yield
        finally:
            logger.setLevel(level)


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Send what is written to the process's stderr nowhere: the C++ side logs there before any level counts."""
    try:
        kept = os.dup(_STDERR)
    except OSError:  # it is closed, as in a service: there is nowhere to write to already
        yield
        return
    _flush_stderr()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, _STDERR)
    os.close(nowhere)
    is_set = _LOG_LEVEL in os.environ
    os.environ[_LOG_LEVEL] = _ERRORS_ONLY
    try:
        yield
    finally:
        if not is_set:
            del os.environ[_LOG_LEVEL]
        _flush_stderr()
        os.dup2(kept, _STDERR)
        os.close(kept)


def _flush_stderr() -> None:
    if sys.stderr is not None:
        sys.stderr.flush()
