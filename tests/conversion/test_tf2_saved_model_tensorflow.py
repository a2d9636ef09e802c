"""SavedModels in the style of TensorFlow 2, made of graphs: what TensorFlow 2 does with them."""


import numpy as np
import pytest

from tfthaw.conversion.converting import convert
from tfthaw.errors import NotFoundError, UnsupportedError, UsageError, VerificationError
from tfthaw.serde.artifacts import open_artifact
from tfthaw.tensors import ArrayTensor
from v1_sessions import plain_config, v1_control_flow

pytestmark = [pytest.mark.tf, pytest.mark.usefixtures("quiet")]

X = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)


class Source:
    """A SavedModel of TensorFlow 1 that was built by a function, and what its signatures answer."""

    def __init__(self, tf, folder, build, feeds, **saved):
        self.path = folder / "source"
        self.feeds = feeds
        self.answers = {}
        with tf.Graph().as_default() as graph, v1_control_flow(tf):
            graph.seed = 4
            signatures = build(tf.compat.v1)
            with tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
                session.run(tf.compat.v1.global_variables_initializer())
                main_op = saved.get("main_op", lambda: None)()
                define = tf.compat.v1.saved_model.predict_signature_def
                builder = tf.compat.v1.saved_model.Builder(str(self.path))
                builder.add_meta_graph_and_variables(
                    session, ["serve"], {key: define(*parts) for key, parts in signatures.items()}, main_op=main_op
                )
                builder.save()
                if main_op is not None:
                    session.run(main_op)
                for key, (inputs, outputs) in signatures.items():
                    fed = {tensor: feeds[name] for name, tensor in inputs.items()}
                    self.answers[key] = session.run(outputs, fed)


def call(tf, function, feeds):
    """Call a signature with what it takes of the feeds."""
    specs = function.structured_input_signature[1]
    return {name: value.numpy() for name, value in function(**{key: tf.constant(feeds[key]) for key in specs}).items()}


def assert_answers(tf, loaded, source, names=None):
    """Hold the signatures of a loaded model to the answers of its source."""
    for key, expected in source.answers.items():
        found = call(tf, loaded.signatures[(names or {}).get(key, key)], source.feeds)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert (found[name].dtype, found[name].shape) == (value.dtype, value.shape)
            if value.dtype.kind == "f":
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
            else:
                assert found[name].tolist() == value.tolist()


def paths(variables):
    return [variable.name.removesuffix(":0") for variable in variables]


def test_a_graph_of_reference_variables_trains_in_tensorflow_2(tf, v1, tmp_path):
    result = convert(v1.sources["saved-model"], tmp_path / "new", to="saved-model", verify="weights")
    loaded = tf.saved_model.load(str(tmp_path / "new"))
    function = loaded.signatures["serving_default"]

    assert result.variables == 2
    assert sorted(paths(loaded.variables)) == ["dense/bias", "dense/kernel"]
    assert sorted(paths(loaded.trainable_variables)) == ["dense/bias", "dense/kernel"]
    assert loaded.dense.kernel.shape == [4, 3]
    np.testing.assert_array_equal(loaded.dense.kernel.numpy(), v1.weights["dense/kernel"])
    spec = function.structured_input_signature[1]["image"]
    assert (spec.shape.as_list(), spec.dtype) == ([None, 4], tf.float32)
    with tf.GradientTape() as tape:
        scores = function(image=tf.constant(v1.feed))["scores"]
        loss = tf.reduce_sum(scores[:, 0])
    np.testing.assert_allclose(scores, v1.out, rtol=1e-5)
    gradients = tape.gradient(loss, list(loaded.trainable_variables))
    assert all(float(tf.reduce_max(tf.abs(gradient))) > 0 for gradient in gradients)
    for variable, gradient in zip(loaded.trainable_variables, gradients, strict=True):
        variable.assign_sub(gradient)
    trained = function(image=tf.constant(v1.feed))["scores"].numpy()
    assert np.abs(trained - v1.out).max() > 1e-3

    tf.saved_model.save(loaded, str(tmp_path / "again"))
    again = tf.saved_model.load(str(tmp_path / "again"))
    assert list(again.signatures) == ["serving_default"]
    assert len(again.variables) == 2
    np.testing.assert_array_equal(call(tf, again.signatures["serving_default"], {"image": v1.feed})["scores"], trained)


def test_what_is_loaded_can_be_called(tf, v1, tmp_path):
    """By position or by name, through gradients, and after TensorFlow saved it again."""
    convert(v1.sources["saved-model"], tmp_path / "new", to="saved-model", verify="weights")
    loaded = tf.saved_model.load(str(tmp_path / "new"))
    np.testing.assert_allclose(loaded(tf.constant(v1.feed))["scores"], v1.out, rtol=1e-5)
    np.testing.assert_allclose(loaded(image=v1.feed)["scores"], v1.out, rtol=1e-5)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(loaded(v1.feed[:1])["scores"][:, 0])
    assert all(gradient is not None for gradient in tape.gradient(total, list(loaded.trainable_variables)))
    tf.saved_model.save(loaded, str(tmp_path / "again"))
    np.testing.assert_allclose(tf.saved_model.load(str(tmp_path / "again"))(v1.feed)["scores"], v1.out, rtol=1e-5)


def test_several_inputs_are_called_by_their_names(tf, tmp_path):
    def build(v1):
        a, b = v1.placeholder(tf.float32, [None, 4], name="a"), v1.placeholder(tf.float32, [4], name="b")
        total = a + b * v1.get_variable("w", [4])
        return {"serving_default": ({"x": a, "y": b}, {"sum": total}), "other": ({"x": a}, {"y": -a})}

    source = Source(tf, tmp_path, build, {"x": X, "y": X[0]})
    convert(source.path, tmp_path / "new", to="saved-model")
    found = tf.saved_model.load(str(tmp_path / "new"))(y=X[0], x=X)
    np.testing.assert_allclose(found["sum"], source.answers["serving_default"]["sum"], rtol=1e-6)


@pytest.mark.parametrize("name", ["self", "a-b"])
def test_names_that_no_function_of_python_takes(tf, tmp_path, name):
    def build(v1):
        a, b = v1.placeholder(tf.float32, [None, 4], name="a"), v1.placeholder(tf.float32, [4], name="b")
        return {"serving_default": ({name: a, "y": b}, {"sum": a + b})}

    source = Source(tf, tmp_path, build, {name: X, "y": X[0]})
    convert(source.path, tmp_path / "new", to="saved-model")
    assert not callable(tf.saved_model.load(str(tmp_path / "new")))


def test_several_signatures_without_default_are_not_called(tf, shared, tmp_path):
    convert(shared.path, tmp_path / "new", to="saved-model", signature=[f"{key}={key}" for key in shared.answers])
    assert len(shared.answers) > 1
    assert not callable(tf.saved_model.load(str(tmp_path / "new")))


def test_keras_takes_it_as_a_layer(tf, v1, tmp_path):
    import keras

    convert(v1.sources["saved-model"], tmp_path / "new", to="saved-model", verify="weights")
    layer = keras.layers.TFSMLayer(str(tmp_path / "new"), call_endpoint="serving_default")
    np.testing.assert_allclose(layer(v1.feed)["scores"], v1.out, rtol=1e-5)
    assert len(layer.trainable_weights) == 2


def test_sessions_take_it_as_they_took_the_source(tf, v1, tmp_path):
    """Names of inputs, outputs and variables stay; what a session saves, TensorFlow 2 restores."""
    convert(v1.sources["saved-model"], tmp_path / "new", to="saved-model", verify="weights")
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(config=plain_config(tf), graph=graph) as session:
        message = tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "new"))
        np.testing.assert_array_equal(session.run("out:0", {"x:0": v1.feed}), v1.out)
        signature = message.signature_def["serving_default"]
        assert signature.inputs["image"].name == "x:0"
        assert signature.outputs["scores"].name == "out:0"
        assert sorted(item.op.name for item in tf.compat.v1.trainable_variables()) == ["dense/bias", "dense/kernel"]
        saver = message.saver_def
        session.run(saver.save_tensor_name, {saver.filename_tensor_name: str(tmp_path / "saved")})
    loaded = tf.saved_model.load(str(tmp_path / "new"))
    loaded.dense.kernel.assign(tf.zeros([4, 3]))
    tf.train.Checkpoint(loaded).read(str(tmp_path / "saved")).assert_existing_objects_matched()
    np.testing.assert_array_equal(loaded.dense.kernel.numpy(), v1.weights["dense/kernel"])


@pytest.mark.parametrize("source", ["meta-graph", "graph-def", "frozen-graph"])
def test_every_source(tf, v1, tmp_path, source):
    options = {"checkpoint": str(v1.sources["checkpoint"])} if source == "graph-def" else {}
    convert(v1.sources[source], tmp_path / "new", to="saved-model", outputs=["out"], verify="weights", **options)

    loaded = tf.saved_model.load(str(tmp_path / "new"))
    np.testing.assert_allclose(loaded.signatures["serving_default"](x=tf.constant(v1.feed))["out"], v1.out, rtol=1e-5)
    assert len(loaded.variables) == (0 if source == "frozen-graph" else 2)


def test_a_model_without_variables_loads_everywhere(tf, v1, tmp_path):
    convert(v1.sources["frozen-graph"], tmp_path / "new", to="saved-model", outputs=["out"], verify="weights")

    with tf.Graph().as_default(), tf.compat.v1.Session(config=plain_config(tf)) as session:
        tf.compat.v1.saved_model.load(session, ["serve"], str(tmp_path / "new"))
        np.testing.assert_array_equal(session.run("out:0", {"x:0": v1.feed}), v1.out)
    tf.saved_model.save(tf.saved_model.load(str(tmp_path / "new")), str(tmp_path / "again"))
    again = tf.saved_model.load(str(tmp_path / "again")).signatures["serving_default"]
    np.testing.assert_allclose(again(x=tf.constant(v1.feed))["out"], v1.out, rtol=1e-5)


def two_signatures(v1):
    """Return signatures that share a variable and an input, one of which feeds a tensor that the other computes."""
    x = v1.placeholder("float32", [None, 4], name="in/x")
    rate = v1.placeholder_with_default(v1.constant(2.0), [], name="rate")
    w = v1.get_variable("shared/w", [4, 4], initializer=v1.random_normal_initializer(), use_resource=False)
    b = v1.get_variable("b", [4], initializer=v1.random_normal_initializer(), use_resource=True, trainable=False)
    hidden = v1.tanh(v1.matmul(x, w), name="hidden")
    out = v1.add(v1.matmul(hidden, w), b, name="out") * rate
    unused = v1.placeholder("float32", [None], name="unused")
    return {
        "whole": ({"Input-1": x, "rate": rate}, {"scores/0": out, "again": out, "x": x}),
        "tail": ({"h": hidden, "not used": unused}, {"scores": v1.get_default_graph().get_tensor_by_name("out:0")}),
    }


FEEDS = {
    "Input-1": X, "rate": np.float32(3), "not used": np.zeros(2, np.float32),
    "h": np.random.default_rng(3).normal(size=(2, 4)).astype(np.float32),
}  # fmt: skip


@pytest.fixture(scope="module")
def shared(tf, tmp_path_factory):
    return Source(tf, tmp_path_factory.mktemp("shared"), two_signatures, FEEDS)


def test_several_signatures_share_their_variables(tf, shared, tmp_path):
    result = convert(shared.path, tmp_path / "new", to="saved-model", verify="outputs")
    loaded = tf.saved_model.load(str(tmp_path / "new"))

    assert_answers(tf, loaded, shared)
    assert sorted(paths(loaded.variables)) == ["b", "shared/w"]
    assert paths(loaded.trainable_variables) == ["shared/w"]
    assert result.inputs["Input-1"] == "in/x:0"
    assert result.inputs["h"] == "hidden:0"
    loaded.shared.w.assign(tf.zeros([4, 4]))
    for key in ("whole", "tail"):
        name = "scores/0" if key == "whole" else "scores"
        changed = call(tf, loaded.signatures[key], FEEDS)[name]
        assert np.abs(changed - shared.answers[key][name]).max() > 0.01


def test_signatures_are_chosen_and_renamed(tf, shared, tmp_path):
    convert(shared.path, tmp_path / "new", to="saved-model", signature=["serving_default=tail", "whole"],
            verify="weights")  # fmt: skip
    loaded = tf.saved_model.load(str(tmp_path / "new"))
    assert sorted(loaded.signatures) == ["serving_default", "whole"]
    assert_answers(tf, loaded, shared, {"tail": "serving_default"})

    convert(shared.path, tmp_path / "one", to="saved-model", signature="tail", verify="weights")
    assert list(tf.saved_model.load(str(tmp_path / "one")).signatures) == ["tail"]


def test_what_cannot_be_chosen(shared, tmp_path):
    with pytest.raises(NotFoundError, match="no signature 'nothing'"):
        convert(shared.path, tmp_path / "new", to="saved-model", signature=["whole", "a=nothing"])
    with pytest.raises(UsageError, match="two would be called whole"):
        convert(shared.path, tmp_path / "new", to="saved-model", signature=["whole", "whole=tail"])
    with pytest.raises(UsageError, match="it needs a name"):
        convert(shared.path, tmp_path / "new", to="saved-model", signature="=tail")
    with pytest.raises(UsageError, match="room for one signature"):
        convert(shared.path, tmp_path / "new", to="frozen-graph", signature=["whole", "tail"])


def test_v1_control_flow_becomes_part_of_functions(tf, tmp_path):
    def build(v1):
        x = v1.placeholder("float32", [None, 4], name="x")
        flag = v1.placeholder("bool", [], name="flag")
        w = v1.get_variable("w", [4, 4], initializer=v1.random_normal_initializer(), use_resource=False)
        loop = v1.while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, v1.tanh(v1.matmul(y, w))), [0, x])[1]
        return {"serving_default": ({"x": x, "flag": flag}, {"y": v1.cond(flag, lambda: loop * 2, lambda: x @ w)})}

    source = Source(tf, tmp_path, build, {"x": X, "flag": np.bool_(True)})
    result = convert(source.path, tmp_path / "new", to="saved-model", verify="weights")

    assert_answers(tf, tf.saved_model.load(str(tmp_path / "new")), source)
    assert any("no gradients through loops of TensorFlow 1: while/Enter" in note for note in result.notes)


def test_gradients_go_through_conds_of_tensorflow_1(tf, tmp_path):
    def build(v1):
        x = v1.placeholder("float32", [None, 4], name="x")
        w = v1.get_variable("w", [4, 2], initializer=v1.random_normal_initializer(), use_resource=False)
        flag = v1.reduce_sum(x) > -100.0
        return {"serving_default": ({"x": x}, {"y": v1.cond(flag, lambda: x @ w, lambda: x[:, :2])})}

    source = Source(tf, tmp_path, build, {"x": X})
    result = convert(source.path, tmp_path / "new", to="saved-model", verify="weights")
    loaded = tf.saved_model.load(str(tmp_path / "new"))

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded.signatures["serving_default"](x=tf.constant(X))["y"])
    np.testing.assert_allclose(tape.gradient(loss, loaded.w)[:, 1], X.sum(0), rtol=1e-5)
    assert not any("gradients" in note for note in result.notes)


def test_state_that_signatures_shared(tf, tmp_path):
    def build(v1):
        x = v1.placeholder("float32", [], name="x")
        queue = tf.queue.FIFOQueue(5, ["float32"], [[]], name="queue")
        with v1.control_dependencies([queue.enqueue(x)]):
            both = queue.dequeue()
        return {"one": ({"x": x}, {"y": both}), "other": ({"x": x}, {"z": both + 1.0})}

    source = Source(tf, tmp_path, build, {"x": np.float32(3)})
    result = convert(source.path, tmp_path / "new", to="saved-model", verify="weights")

    assert_answers(tf, tf.saved_model.load(str(tmp_path / "new")), source)
    assert any("queue (FIFOQueueV2) keeps state; of the signatures one, other" in note for note in result.notes)


def test_local_variables_have_the_value_that_loading_gives_them(tf, tmp_path):
    def build(v1):
        x = v1.placeholder("float32", [None, 4], name="x")
        scale = v1.get_local_variable("scale", initializer=v1.constant(2.5), use_resource=False)
        return {"serving_default": ({"x": x}, {"y": x * scale})}

    source = Source(tf, tmp_path, build, {"x": X}, main_op=tf.compat.v1.local_variables_initializer)
    result = convert(source.path, tmp_path / "new", to="saved-model", verify="weights")
    loaded = tf.saved_model.load(str(tmp_path / "new"))

    assert_answers(tf, loaded, source)
    assert loaded.scale.numpy() == 2.5
    assert (len(loaded.variables), len(loaded.trainable_variables)) == (1, 0)
    assert any("scale is in no checkpoint" in note for note in result.notes)


@pytest.mark.parametrize("use_resource", [False, True], ids=["ref", "resource"])
def test_an_init_op_that_adds_to_what_was_restored_is_refused(tf, tmp_path, use_resource):
    def build(v1):
        x = v1.placeholder("float32", [None, 4], name="x")
        w = v1.get_variable("w", [4], use_resource=use_resource)
        return {"serving_default": ({"x": x}, {"y": x * w})}

    def main_op():
        w = tf.compat.v1.global_variables()[0]
        return tf.group(tf.compat.v1.assign_add(w, [1.0] * 4))

    source = Source(tf, tmp_path, build, {"x": X}, main_op=main_op)
    with pytest.raises(UnsupportedError, match=r"--style v1(?s:.*)AssignAdd"):
        convert(source.path, tmp_path / "new", to="saved-model")


def test_an_init_op_that_undoes_the_restore_leaves_the_values_of_the_checkpoint(tf, tmp_path):
    def build(v1):
        x = v1.placeholder("float32", [None, 4], name="x")
        w = v1.get_variable("w", [4], initializer=v1.random_normal_initializer(), use_resource=False)
        return {"serving_default": ({"x": x}, {"y": x * w})}

    source = Source(tf, tmp_path, build, {"x": X}, main_op=tf.compat.v1.global_variables_initializer)
    result = convert(source.path, tmp_path / "new", to="saved-model", verify="weights")

    with open_artifact(source.path) as artifact:
        kept = artifact.variables["w"].numpy()
    np.testing.assert_array_equal(tf.saved_model.load(str(tmp_path / "new")).w.numpy(), kept)
    assert any("sets w anew after each restore" in note for note in result.notes)


def test_an_init_op_that_does_more_is_refused(tf, tmp_path):
    def build(v1):
        x = v1.placeholder("float32", [None, 4], name="x")
        return {"serving_default": ({"x": x}, {"y": -x})}

    def main_op():
        return tf.group(tf.raw_ops.Print(input=tf.constant(1), data=[tf.constant(2)], message="hello").op)

    source = Source(tf, tmp_path, build, {"x": X}, main_op=main_op)
    with pytest.raises(UnsupportedError, match=r"--style v1(?s:.*)Print \(Print\)"):
        convert(source.path, tmp_path / "new", to="saved-model")
    assert not (tmp_path / "new").exists()
    convert(source.path, tmp_path / "new", to="saved-model", style="v1", verify="weights")


def test_large_constants_become_variables_when_asked(tf, tmp_path):
    def build(v1):
        x = v1.placeholder("float32", [None, 4], name="x")
        values = np.random.default_rng(0).normal(size=(4, 300)).astype(np.float32)
        small = v1.constant(np.arange(300, dtype=np.float32), name="small")
        return {"serving_default": ({"x": x}, {"y": v1.matmul(x, v1.constant(values, name="block/w")) + small})}

    source = Source(tf, tmp_path, build, {"x": X})
    result = convert(source.path, tmp_path / "new", to="saved-model", unfreeze=True, verify="weights")
    loaded = tf.saved_model.load(str(tmp_path / "new"))

    assert_answers(tf, loaded, source)
    assert paths(loaded.trainable_variables) == ["block/w"]
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(loaded.signatures["serving_default"](x=tf.constant(X))["y"])
    np.testing.assert_allclose(tape.gradient(loss, loaded.block.w)[:, 0], X.sum(0), rtol=1e-5)
    assert any("1 floating constants of 1024 elements" in note for note in result.notes)
    assert any("nothing says which variables train" in note for note in result.notes)
    with pytest.raises(UsageError, match="--unfreeze"):
        convert(source.path, tmp_path / "frozen.pb", to="frozen-graph", unfreeze=True)


def test_one_variable_of_two_handles(tf, tmp_path):
    def build(v1):
        x = v1.placeholder("float32", [None, 4], name="x")
        w = v1.get_variable("w", [4], initializer=v1.random_normal_initializer(), use_resource=True)
        other = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[4], shared_name="w", name="alias")
        return {"serving_default": ({"x": x}, {"y": x * w + tf.raw_ops.ReadVariableOp(resource=other, dtype="float")})}

    source = Source(tf, tmp_path, build, {"x": X})
    convert(source.path, tmp_path / "new", to="saved-model", verify="weights")
    loaded = tf.saved_model.load(str(tmp_path / "new"))

    assert_answers(tf, loaded, source)
    assert paths(loaded.variables) == ["w"]


def test_names_that_meet_in_the_object_graph(tf, tmp_path):
    def build(v1):
        x = v1.placeholder("float32", [None, 4], name="x")
        y = x
        for name in ("w", "w/inside", "variables", "signatures/w", "layer/_kernel", "a.b/c"):
            y = y * v1.get_variable(name, [4], initializer=v1.random_normal_initializer(), use_resource=True)
        return {"serving_default": ({"x": x}, {"y": y})}

    source = Source(tf, tmp_path, build, {"x": X})
    convert(source.path, tmp_path / "new", to="saved-model", verify="weights")
    loaded = tf.saved_model.load(str(tmp_path / "new"))

    assert_answers(tf, loaded, source)
    assert len(loaded.variables) == len(loaded.trainable_variables) == 6
    assert {key for key, _ in tf.train.list_variables(str(tmp_path / "new/variables/variables"))} == {
        "_CHECKPOINTABLE_OBJECT_GRAPH", "w/.ATTRIBUTES/VARIABLE_VALUE", "w_inside/.ATTRIBUTES/VARIABLE_VALUE",
        "variables_1/.ATTRIBUTES/VARIABLE_VALUE", "signatures_1/w/.ATTRIBUTES/VARIABLE_VALUE",
        "layer/v_kernel/.ATTRIBUTES/VARIABLE_VALUE", "a..b/c/.ATTRIBUTES/VARIABLE_VALUE",
    }  # fmt: skip
    assert loaded.layer.v_kernel.shape == [4]


def test_constants_of_functions_are_proved(v1, tmp_path, monkeypatch):
    """What is written is read anew: a constant that differs there is found, whichever function it is in."""
    from tfthaw.conversion import converting

    original = converting.graph_constants

    def another(graph):
        found = original(graph)
        name = next(name for name in found if name.endswith(":dense/kernel"))
        return {**found, name: ArrayTensor(found[name].numpy() + 1)}

    monkeypatch.setattr(converting, "graph_constants", lambda graph: another(graph) if not seen else original(graph))
    seen: list[object] = []
    written = converting.write_saved_model
    monkeypatch.setattr(converting, "write_saved_model", lambda *args: (seen.append(args), written(*args))[1])
    with pytest.raises(VerificationError, match=r"1 of \d+ tensors(?s:.*):dense/kernel: the first different byte"):
        convert(v1.sources["frozen-graph"], tmp_path / "new", to="saved-model", outputs=["out"], verify="weights")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("run", [[0], [1], [0, 1]], ids=["first", "second", "both"])
def test_the_init_op_says_what_fills_a_table(tf, tmp_path, run):
    fillers = []

    def build(v1):
        words = v1.placeholder("string", [None], name="words")
        table = tf.raw_ops.HashTableV2(key_dtype="string", value_dtype="int64", shared_name="t", name="t")
        for number in (1, 3):
            keys, values = v1.constant(["a", "b"]), v1.constant([number, number + 1], "int64")
            fillers.append(tf.raw_ops.LookupTableImportV2(table_handle=table, keys=keys, values=values))
        default = v1.constant(-1, "int64")
        found = tf.raw_ops.LookupTableFindV2(table_handle=table, keys=words, default_value=default)
        return {"serving_default": ({"words": words}, {"ids": found})}

    def main_op():
        return tf.group(*(fillers[place] for place in run), name="begin")

    feeds = {"words": np.array([b"b", b"z"], object)}
    source = Source(tf, tmp_path, build, feeds, main_op=main_op)
    if len(run) > 1:  # which one comes last, nothing says
        with pytest.raises(UnsupportedError, match=r"--style v1(?s:.*)t may be filled by any of"):
            convert(source.path, tmp_path / "new", to="saved-model")
        return
    convert(source.path, tmp_path / "new", to="saved-model", verify="weights")
    assert_answers(tf, tf.saved_model.load(str(tmp_path / "new")), source)
