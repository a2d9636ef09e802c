"""Small TensorFlow 1 models, saved every way that `freeze_graph` takes them, and TensorFlow's own script as oracle."""

import contextlib
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from v1_sessions import plain_config, v1_control_flow

X = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)

_NEEDED = {
    "input_graph": "", "input_saver": "", "input_binary": True, "input_checkpoint": "", "output_node_names": "",
    "restore_op_name": "save/restore_all", "filename_tensor_name": "save/Const:0", "output_graph": "",
    "clear_devices": True, "initializer_nodes": "",
}  # fmt: skip


def variable(tf, name, shape, use_resource, **options):
    return tf.compat.v1.get_variable(
        name, shape, initializer=tf.compat.v1.random_normal_initializer(), use_resource=use_resource, **options
    )


def placeholder(tf, name="x", shape=(None, 4)):
    return tf.compat.v1.placeholder("float32", shape, name=name)


def dense(tf, use_resource):
    x = placeholder(tf)
    with tf.device("/cpu:0"):
        kernel, bias = variable(tf, "w", [4, 3], use_resource), variable(tf, "b", [3], use_resource)
    tf.nn.softmax(tf.nn.bias_add(tf.matmul(x, kernel), bias), name="out")
    tf.group(kernel.initializer, name="set_w")


def batch_norm(tf, use_resource):
    x = placeholder(tf)
    scale, offset, mean, variance = (variable(tf, name, [4], use_resource) for name in ("g", "b", "mean", "variance"))
    y = tf.nn.batch_normalization(x, mean, variance * variance, offset, scale, 1e-3)
    tf.identity(tf.reduce_sum(y, name="sum") + y, name="out")


def control_flow(tf, use_resource):
    x, kernel = placeholder(tf), variable(tf, "w", [4, 4], use_resource)
    y = tf.compat.v1.cond(tf.reduce_sum(x) > 0, lambda: tf.matmul(x, kernel), lambda: x + 1.0)
    y = tf.compat.v1.while_loop(
        lambda i, y: i < 3, lambda i, y: (i + 1, tf.tanh(tf.matmul(y, kernel))), [0, y]
    )[1]  # fmt: skip
    tf.identity(y, name="out")


def embedding(tf, use_resource):
    x, table = placeholder(tf), variable(tf, "table", [6, 2], use_resource)
    ids = tf.cast(tf.abs(x) * 1.5, tf.int32) % 6
    tf.identity(tf.compat.v1.nn.embedding_lookup(table, ids), name="out")


def partitioned(tf, use_resource):
    x = placeholder(tf)
    kernel = variable(tf, "w", [4, 6], use_resource, partitioner=tf.compat.v1.fixed_size_partitioner(2))
    tf.matmul(x, tf.convert_to_tensor(kernel), name="out")


def training(tf, use_resource):
    x, kernel = placeholder(tf), variable(tf, "w", [4, 2], use_resource)
    out = tf.matmul(x, kernel, name="out")
    step = tf.compat.v1.get_variable("global_step", [], "int64", tf.compat.v1.zeros_initializer(), trainable=False,
                                     use_resource=use_resource)  # fmt: skip
    loss = tf.reduce_sum(tf.square(out - 1.0), name="loss")
    tf.compat.v1.train.AdamOptimizer(0.1).minimize(loss, global_step=step, name="train")


def outputs_of_several_kinds(tf, use_resource):
    x, kernel = placeholder(tf), variable(tf, "w", [4, 4], use_resource)
    y = tf.matmul(x, kernel, name="out")
    tf.split(y, 2, axis=1, name="halves")
    tf.math.top_k(y, 2, name="best")
    tf.group(y, name="done")


BUILDERS = {
    each.__name__: each
    for each in (dense, batch_norm, control_flow, embedding, partitioned, training, outputs_of_several_kinds)
}


@dataclass
class Files:
    """One model in every form.

    Attributes:
        folder: Where it is.
        values: variable's node -> its value.
    """

    folder: Path
    values: dict

    @property
    def checkpoint(self):
        return str(self.folder / "model.ckpt")

    def flags(self, source):
        """Return the flags that name graph and values."""
        at = lambda name: str(self.folder / name)  # noqa: E731
        return {
            "graph": {"input_graph": at("graph.pb"), "input_checkpoint": self.checkpoint},
            "text": {"input_graph": at("graph.pbtxt"), "input_binary": False, "input_checkpoint": self.checkpoint},
            "meta": {"input_meta_graph": self.checkpoint + ".meta", "input_checkpoint": self.checkpoint},
            "saver": {"input_graph": at("graph.pb"), "input_saver": at("saver.pb"),
                      "input_checkpoint": self.checkpoint},
            "sharded": {"input_meta_graph": at("sharded.meta"), "input_checkpoint": at("sharded")},
            "version 1": {"input_graph": at("graph.pb"), "input_checkpoint": at("old.ckpt"), "checkpoint_version": 1},
            "saved model": {"input_saved_model_dir": at("saved")},
        }[source]  # fmt: skip


def save_everywhere(tf, folder, name, use_resource):
    """Build a model and save it in every form."""
    v1 = tf.compat.v1
    flow = v1_control_flow(tf) if name == "control_flow" else contextlib.nullcontext()
    with tf.Graph().as_default() as graph, flow, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph.seed = 5
        BUILDERS[name](tf, use_resource)
        saver, old, sharded = v1.train.Saver(), v1.train.Saver(write_version=1), v1.train.Saver(sharded=True)
        with v1.Session(config=plain_config(tf), graph=graph) as session:
            session.run(v1.global_variables_initializer())
            saver.save(session, str(folder / "model.ckpt"))
            old.save(session, str(folder / "old.ckpt"))
            sharded.save(session, str(folder / "sharded"))
            values = {each.op.name: session.run(each) for each in v1.global_variables()}
            builder = v1.saved_model.Builder(str(folder / "saved"))
            builder.add_meta_graph_and_variables(session, ["serve"])
            builder.save()
        tf.io.write_graph(graph, str(folder), "graph.pb", as_text=False)
        tf.io.write_graph(graph, str(folder), "graph.pbtxt", as_text=True)
        (folder / "saver.pb").write_bytes(saver.saver_def.SerializeToString())
        (folder / "saver.pbtxt").write_text(str(saver.saver_def), encoding="utf-8")
    return Files(folder, values)


def script(tf, folder, **flags):
    """Run TensorFlow's script and return the GraphDef that it writes."""
    from tensorflow.python.tools.freeze_graph import freeze_graph

    path = folder / "theirs.pb"
    with tf.Graph().as_default(), warnings.catch_warnings(), contextlib.redirect_stdout(None):
        warnings.simplefilter("ignore")
        freeze_graph(**{**_NEEDED, **flags, "output_graph": str(path)})
    return tf.compat.v1.GraphDef.FromString(path.read_bytes())


def spelled(flags):
    """Return flags as arguments of a command."""
    return [f"--{name}={value}" for name, value in flags.items()]


def fetch(tf, message, names, feeds):
    """Import a GraphDef and return what its tensors are."""
    with tf.Graph().as_default() as graph:
        tf.import_graph_def(message, name="")
        present = {name: value for name, value in feeds.items() if name.partition(":")[0] in graph._nodes_by_name}
        with tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
            return session.run(list(names), present)


def described(tf, message):
    """Return what a GraphDef says: node -> its op, inputs, device, and value where it is a constant.

    The script forgets the devices and control inputs of the nodes that it makes of variables and their reads.
    """
    found = {}
    for node in message.node:
        is_plain = node.op in ("Const", "Identity")
        value = tf.make_ndarray(node.attr["value"].tensor) if node.op == "Const" else None
        found[node.name] = (
            node.op,
            [text for text in node.input if not (is_plain and text.startswith("^"))],
            "" if is_plain else node.device,
            None if value is None else (value.dtype, value.shape, value.tolist()),
        )
    return found
