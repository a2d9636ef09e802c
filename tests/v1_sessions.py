"""TensorFlow 1 graphs for differential tests: build, save, convert, and run before and after."""

import contextlib
import warnings

import numpy as np

from tfthaw.conversion.converting import convert


def plain_config(tf):
    """Return the config of a session that runs graphs as they are: no optimizer may round in another order."""
    config = tf.compat.v1.ConfigProto(intra_op_parallelism_threads=1, inter_op_parallelism_threads=1)
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    config.graph_options.optimizer_options.opt_level = tf.compat.v1.OptimizerOptions.L0
    return config


@contextlib.contextmanager
def v1_control_flow(tf):
    """Build loops and conds of Switch, Merge and Enter, as TensorFlow 1 did, and not of functions."""
    tf.compat.v1.disable_control_flow_v2()
    try:
        yield
    finally:
        tf.compat.v1.enable_control_flow_v2()


class Original:
    """A graph with values, saved as `model.ckpt` with its `.meta`, that can still be run."""

    def __init__(self, tf, folder, build, *, control_flow="v1", savers=None):
        self.tf = tf
        self.folder = folder
        self.prefix = str(folder / "model.ckpt")
        self.graph = tf.Graph()
        self.graph.seed = 7
        flow = v1_control_flow(tf) if control_flow == "v1" else contextlib.nullcontext()
        with self.graph.as_default(), flow, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            build(tf)
            variables = tf.compat.v1.global_variables()
            init = tf.group(
                tf.compat.v1.global_variables_initializer(), tf.compat.v1.local_variables_initializer(),
                tf.compat.v1.tables_initializer(),
            )  # fmt: skip
            self.session = tf.compat.v1.Session(config=plain_config(tf), graph=self.graph)
            self.session.run(init)
            if variables or savers:
                saver = savers(tf) if savers else tf.compat.v1.train.Saver()
                saver.save(self.session, self.prefix)
            else:
                tf.compat.v1.train.export_meta_graph(self.prefix + ".meta")

    def run(self, outputs, feeds):
        """Return the outputs as the original graph computes them."""
        return self.session.run(list(outputs), dict(feeds))

    def frozen(self, outputs, **options):
        """Convert to a frozen graph; return its path and the result."""
        path = str(self.folder / "frozen.pb")
        options = {"verify": "weights", "overwrite": True} | options  # the outputs are compared by the tests themselves
        return path, convert(self.prefix + ".meta", path, to="frozen-graph", outputs=list(outputs), **options)

    def assert_freezes(self, outputs, *feeds, **options):
        """Check that the frozen graph gives bit for bit what the original gives, on each feed in one session."""
        path, result = self.frozen(outputs, **options)
        with FrozenSession(self.tf, path) as frozen:
            for feed in feeds or ({},):
                before = self.run(outputs, feed)
                fed = {result.inputs.get(name, name): value for name, value in feed.items() if name in result.inputs}
                after = frozen.run([result.outputs[name] for name in outputs], fed)
                for name, one, other in zip(outputs, before, after, strict=True):
                    one, other = np.asarray(one), np.asarray(other)
                    assert (one.dtype, one.shape) == (other.dtype, other.shape), name
                    assert (
                        one.tobytes() == other.tobytes() if one.dtype != object else one.tolist() == other.tolist()
                    ), name
        return result


class FrozenSession:
    """A graph that stands alone, loaded from a file."""

    def __init__(self, tf, path):
        message = tf.compat.v1.GraphDef()
        with open(path, "rb") as file:
            message.ParseFromString(file.read())
        self.message = message
        self.graph = tf.Graph()
        with self.graph.as_default():
            tf.import_graph_def(message, name="")
        self.session = tf.compat.v1.Session(config=plain_config(tf), graph=self.graph)

    def run(self, outputs, feeds=None):
        """Return what the graph computes; nothing was initialised first."""
        return self.session.run(outputs, feeds or {})

    def ops(self):
        """Return the ops of the main graph, each once."""
        return {node.op for node in self.message.node}

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.session.close()
