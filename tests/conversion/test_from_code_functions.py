"""Functions of modules, traced and written: a user who loads them gets what the live module gives."""

import functools
import types
from pathlib import Path

import numpy as np
import pytest

from live_exports import KINDS, assert_close, compute, export, scrambled
from tfthaw.conversion.converting import convert
from tfthaw.errors import NotFoundError, RestoreError, UnsupportedError, UsageError

pytestmark = pytest.mark.tf

X = np.array([[1.0, -2.0, 3.0, 0.5], [0.25, 4.0, -1.0, 2.0]], np.float32)


@pytest.fixture(scope="module")
def few(tf):
    """The class of a module with functions of one tensor, float32[?, 4]."""
    spec = tf.TensorSpec((None, 4), tf.float32, name="x")

    class Few(tf.Module):
        def __init__(self):
            self.w = tf.Variable(tf.ones((4, 4)), name="w")
            self.named_like_an_input = tf.Variable(tf.ones((4,)), name="x")
            self.wide = tf.Variable(tf.ones((4,), tf.float64))
            self.half = tf.Variable(tf.ones((4,), tf.bfloat16))
            self.listed = [tf.Variable(1.0), {"b": tf.Variable(2.0)}]
            self.rows = tf.Variable(tf.ones((9, 4)), name="w")
            self.table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a", "b"], [1.0, 2.0]), 0.0)

        @tf.function(input_signature=[spec])
        def loop(self, x):
            for _ in tf.range(3):
                x = x @ self.w if tf.reduce_sum(x) > 0 else x - self.listed[0]
            return x

        @tf.function(input_signature=[spec])
        def rows_of_array(self, x):
            array = tf.TensorArray(tf.float32, size=0, dynamic_size=True)
            for index in tf.range(tf.shape(x)[0]):
                array = array.write(index, x[index] * self.named_like_an_input)
            return array.stack()

        @tf.function(input_signature=[spec], jit_compile=True)
        def compiled(self, x):
            return tf.nn.silu(x @ self.w)

        @tf.function(input_signature=[spec])
        def calls_others(self, x):
            return {"sum": self.compiled(x) + self.loop(x)}

        @tf.function(input_signature=[spec])
        def given_back(self, x):
            return {"x": x, "w": self.w, "constant": tf.constant(3.0)}

        @tf.function(input_signature=[spec])
        def custom_gradient(self, x):
            @tf.custom_gradient
            def doubled(value):
                return value * 2.0, lambda upstream: upstream

            return doubled(x) @ self.w

    return Few


@pytest.fixture(scope="module")
def kind_of(tf, few):
    """The class of a module with a function for every special thing."""
    spec = tf.TensorSpec((None, 4), tf.float32, name="x")
    words = tf.TensorSpec((None,), tf.string, name="k")

    class Many(few):
        @tf.function(input_signature=[tf.TensorSpec((None,), tf.int32, name="i")])
        def gathered(self, i):
            return tf.gather(self.rows, i)

        @tf.function(input_signature=[tf.RaggedTensorSpec((None, None), tf.float32)])
        def ragged(self, r):
            return tf.reduce_sum(r, 1) * self.listed[1]["b"]

        @tf.function(input_signature=[tf.SparseTensorSpec((None, 4), tf.float32)])
        def sparse(self, s):
            return tf.sparse.sparse_dense_matmul(s, self.w)

        @tf.function(input_signature=[spec])
        def sparse_result(self, x):
            return tf.sparse.from_dense(x * self.listed[0])

        @tf.function(input_signature=[])
        def of_nothing(self):
            return self.w * 2.0

        @tf.function(input_signature=[tf.TensorSpec(None, tf.float32, name="x")])
        def of_any_rank(self, x):
            return x * self.listed[0]

        @tf.function(input_signature=[words])
        def looked_up(self, k):
            return {"value": self.table.lookup(k) * self.listed[0], "text": tf.strings.join([k, "!"])}

        @tf.function(input_signature=[spec])
        def of_other_types(self, x):
            return {"half": tf.cast(tf.cast(x, tf.bfloat16) * self.half, tf.float32),
                    "wide": tf.cast(x, tf.float64) * self.wide}  # fmt: skip

        @tf.function(input_signature=[tf.TensorSpec((4, 4), tf.float32, name="w")])
        def named_like_a_variable(self, w):
            return w @ self.w

        @tf.function(input_signature=[spec])
        def of_python(self, x):
            return tf.numpy_function(lambda value: value + 1, [x], tf.float32) @ self.w

        @tf.function
        def without_signature(self, x):
            return x @ self.w

        def plain(self, x):
            return x @ self.w

    return Many


@pytest.fixture(scope="module")
def trained(tf, kind_of, tmp_path_factory):
    module = scrambled(kind_of())
    return module, tf.train.Checkpoint(model=module).write(str(tmp_path_factory.mktemp("trained") / "ckpt"))


FEEDS = {
    "loop": {"x": X}, "rows_of_array": {"x": X}, "compiled": {"x": X}, "calls_others": {"x": X}, "given_back": {"x": X},
    "gathered": {"i": np.array([1, 8], np.int32)}, "of_nothing": {}, "of_any_rank": {"x": X[None]},
    "looked_up": {"k": np.array([b"a", b"zz"], object)}, "of_other_types": {"x": X},
    "named_like_a_variable": {"w": X[[0, 1, 0, 1]]}, "custom_gradient": {"x": X},
}  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), [
    *[(name, KINDS[position % len(KINDS)]) for position, name in enumerate(FEEDS)],
    *[(name, kind) for name in ("calls_others", "looked_up", "given_back") for kind in KINDS],
])  # fmt: skip
def test_what_a_function_gives(tf, kind_of, trained, tmp_path, name, kind):
    module, checkpoint = trained
    expected = getattr(module, name)(*map(tf.constant, FEEDS[name].values()))
    expected = expected if isinstance(expected, dict) else {"output_0": expected}
    result = export(kind_of, tmp_path, kind, checkpoint=checkpoint, signature=f"serving_default={name}")
    found = compute(tf, result, kind, FEEDS[name])
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert_close(found[key], value.numpy())


def test_composite_inputs_are_fed_by_their_parts(tf, kind_of, trained, tmp_path):
    module, checkpoint = trained
    values, splits = X[0], np.array([0, 1, 4], np.int64)
    ragged = tf.RaggedTensor.from_row_splits(values, splits)
    result = export(kind_of, tmp_path, "frozen-graph", checkpoint=checkpoint, signature="serving_default=ragged")
    fed = {name: splits if name.endswith("_row_splits_0") else values for name in result.inputs}
    found = compute(tf, result, "frozen-graph", fed)
    assert_close(found["output_0"], module.ragged(ragged).numpy())

    sparse = tf.SparseTensor(np.array([[0, 1], [1, 3]], np.int64), X[0, :2], np.array([2, 4], np.int64))
    result = export(kind_of, tmp_path, "frozen-graph", checkpoint=checkpoint, signature="serving_default=sparse")
    parts = {name: getattr(sparse, part).numpy() for part in ("indices", "values", "dense_shape")
             for name in result.inputs if name.endswith(f"_{part}")}  # fmt: skip
    assert len(parts) == 3
    found = compute(tf, result, "frozen-graph", parts)
    assert_close(found["output_0"], module.sparse(sparse).numpy())


def test_a_composite_output_is_given_by_its_parts(tf, kind_of, trained, tmp_path):
    module, checkpoint = trained
    result = export(kind_of, tmp_path, "frozen-graph", checkpoint=checkpoint, signature="serving_default=sparse_result")
    found = compute(tf, result, "frozen-graph", {"x": X})
    expected = module.sparse_result(tf.constant(X))
    assert found.keys() == {"output_0_indices", "output_0_values", "output_0_dense_shape"}
    for part in ("indices", "values", "dense_shape"):
        assert_close(found[f"output_0_{part}"], getattr(expected, part).numpy())


@pytest.mark.parametrize("kind", KINDS[1:])
def test_signatures_share_variables_and_tables(tf, kind_of, trained, tmp_path, kind):
    module, checkpoint = trained
    chosen = ("serving_default=loop", "words=looked_up", "others=calls_others", "same=looked_up")
    result = export(kind_of, tmp_path, kind, checkpoint=checkpoint, signature=chosen)
    expected = module.loop(tf.constant(X)).numpy()
    words = np.array([b"b", b"?"], object)
    if kind == "meta-graph":
        with tf.Graph().as_default() as graph, tf.compat.v1.Session() as session:
            tf.compat.v1.train.import_meta_graph(result.path).restore(session, result.path.removesuffix(".meta"))
            signatures = tf.compat.v1.MetaGraphDef.FromString(Path(result.path).read_bytes()).signature_def
            output = signatures["same"].outputs["value"].name
            found = session.run(output, {signatures["same"].inputs["k"].name: words})
            handles = [item for item in graph.get_operations() if item.type == "VarHandleOp" and item.name == "w"]
        assert len(handles) <= 1
    else:
        assert_close(compute(tf, result, kind, {"x": X})["output_0"], expected)
        found = compute(tf, result, kind, {"k": words}, key="same")["value"]
    assert_close(found, module.looked_up(tf.constant(words))["value"].numpy())


@pytest.mark.parametrize("name", ["without_signature", "plain"])
def test_inputs_are_declared_for_functions_that_do_not_say_theirs(tf, kind_of, trained, tmp_path, name):
    module, checkpoint = trained
    signature = f"serving_default={name}"
    result = export(
        kind_of, tmp_path, "frozen-graph", checkpoint=checkpoint, signature=signature, input=["x:float32[?,4]"]
    )
    assert_close(compute(tf, result, "frozen-graph", {"x": X})["output_0"], module.plain(X).numpy())
    with pytest.raises(UsageError, match="nothing says what it takes"):
        export(kind_of, tmp_path, "frozen-graph", checkpoint=checkpoint, signature=signature)
    with pytest.raises(UsageError, match=r"plain takes x|without_signature takes x"):
        export(kind_of, tmp_path, "frozen-graph", checkpoint=checkpoint, signature=signature,
               input=["a:float32[?,4]", "b:float32[?,4]"])  # fmt: skip


def test_functions_that_call_python_are_refused(kind_of, trained, tmp_path):
    with pytest.raises(UnsupportedError, match="calls back into Python"):
        export(kind_of, tmp_path, "saved-model", checkpoint=trained[1], signature="serving_default=of_python")
    assert not list(tmp_path.iterdir())


def test_a_function_that_is_not_there_is_named_with_those_near(kind_of, trained, tmp_path):
    with pytest.raises(NotFoundError, match="loop"):
        export(kind_of, tmp_path, "saved-model", checkpoint=trained[1], signature="serving_default=lop")


def test_the_live_module_keeps_its_values(tf, kind_of, trained, tmp_path):
    module, checkpoint = trained
    other = scrambled(kind_of(), seed=7)
    before = [variable.numpy() for variable in other.variables]
    result = export(other, tmp_path, "frozen-graph", checkpoint=checkpoint, signature="serving_default=loop")
    assert_close(compute(tf, result, "frozen-graph", {"x": X})["output_0"], module.loop(tf.constant(X)).numpy())
    for variable, values in zip(other.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), values)


def _small(tf):
    class Small(tf.Module):
        def __init__(self):
            self.one = tf.Variable(tf.ones((4, 4)), name="w")
            self.two = tf.Variable(tf.ones((4, 4)), name="w")

        def __call__(self, x):
            return x @ self.one @ self.two @ self.two

    return Small


@pytest.mark.parametrize("shape", ["closure", "lambda", "concrete", "partial", "bound method", "dict", "object"])
def test_whatever_holds_the_function(tf, tmp_path, shape):
    small = scrambled(_small(tf)())
    checkpoint = tf.train.Checkpoint(small).write(str(tmp_path / "ckpt"))
    expected = small(X).numpy()
    scrambled(small, seed=3)  # what is live is not what was trained
    declared = {"input": ["x:float32[?,4]"]}
    spec = tf.TensorSpec((None, 4), tf.float32, name="x")
    if shape == "closure":
        source, declared = tf.function(lambda x: small(x), input_signature=[spec]), {}
    elif shape == "lambda":
        source = lambda x: small(x)  # noqa: E731
    elif shape == "concrete":
        source, declared = tf.function(lambda x: small(x)).get_concrete_function(spec), {}
    elif shape == "partial":
        source = functools.partial(lambda model, x: model(x), small)
    elif shape == "bound method":
        source = small.__call__
    elif shape == "dict":
        source, declared = {"model": small, "serving_default": tf.function(small, input_signature=[spec])}, {}
    else:
        source = type("Server", (), {"__call__": lambda self, x: self.net(x)})()
        source.net = small
    result = export(source, tmp_path, "frozen-graph", checkpoint=checkpoint, **declared)
    found = compute(tf, result, "frozen-graph", {"x": X})
    assert_close(next(iter(found.values())), expected)


def test_variables_that_no_object_holds_have_no_value(tf, tmp_path):
    class Hiding(tf.Module):
        def __init__(self):
            self.hidden = types.SimpleNamespace(w=tf.Variable(tf.ones((4, 4)), name="hidden"))
            self.seen = tf.Variable(tf.ones((4, 4)), name="seen")

        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32)])
        def __call__(self, x):
            return x @ self.hidden.w @ self.seen

    checkpoint = tf.train.Checkpoint(Hiding()).write(str(tmp_path / "ckpt"))
    with pytest.raises(RestoreError, match="hidden"):
        export(Hiding, tmp_path, "frozen-graph", checkpoint=checkpoint)


def test_a_function_whose_variables_are_gone_is_refused(tf, tmp_path):
    class Stale(tf.Module):
        def __init__(self):
            self.w = tf.Variable(tf.ones((4, 4)))
            self.serve = tf.function(lambda x: x @ self.w)
            self.serve(tf.zeros((1, 4)))
            self.w = tf.Variable(tf.ones((4, 4)))

    checkpoint = tf.train.Checkpoint(Stale()).write(str(tmp_path / "ckpt"))
    with pytest.raises(UsageError, match="variables that are gone"):
        export(Stale, tmp_path, "frozen-graph", checkpoint=checkpoint, signature="serving_default=serve")


def test_outputs_that_are_none_are_no_outputs(tf, tmp_path):
    class Module(tf.Module):
        def __init__(self):
            self.w = tf.Variable(tf.ones((4, 2)), name="w")

        @tf.function(input_signature=[tf.TensorSpec((None, 4), tf.float32, name="x")])
        def __call__(self, x):
            return x @ self.w, None, {"k": x, "none": None}

    model = scrambled(Module())
    checkpoint = tf.train.Checkpoint(model).write(str(tmp_path / "ckpt"))
    result = export(model, tmp_path, "saved-model", checkpoint=checkpoint, verify="outputs")
    assert result.verified.outputs.done
    found = compute(tf, result, "saved-model", {"x": X})
    assert_close(found["output_0"], model(X)[0])
    assert len(found) == 2


def test_strings_that_are_cast_to_numbers_never_run(tf, tmp_path):
    """A declared type that the function can never take is told, and nothing is written."""
    module = tf.Module()
    module.w = tf.Variable(2.0)
    module.serve = tf.function(lambda x: tf.cast(x, tf.float32) * module.w)
    checkpoint = tf.train.Checkpoint(model=module).write(str(tmp_path / "ckpt"))
    with pytest.raises(UsageError, match="never runs: what comes in is string, and is cast to float") as caught:
        convert(module, tmp_path / "new.pb", to="frozen-graph", checkpoint=checkpoint, input=["x:string[?]"])
    assert "--input" in caught.value.hint
    assert not (tmp_path / "new.pb").exists()
    convert(module, tmp_path / "new.pb", to="frozen-graph", checkpoint=checkpoint, input=["x:int32[?]"])


def test_a_checkpoint_that_would_give_nothing_is_refused(tf, kind_of, trained, tmp_path):
    _, checkpoint = trained
    plain = tf.function(lambda x: x * 2.0, input_signature=[tf.TensorSpec([2])])
    with pytest.raises(UsageError, match=r"has no variables, and the .* values of the checkpoint would go nowhere"):
        convert(plain, tmp_path / "new.pb", to="frozen-graph", checkpoint=checkpoint)
    assert convert(plain, tmp_path / "new.pb", to="frozen-graph").variables == 0
    with pytest.raises(UsageError, match="--checkpoint-root says where"):
        convert(checkpoint, tmp_path / "new.npz", to="npz", checkpoint_root="model")


def test_a_single_string_is_compared(tf, tmp_path):
    """What TensorFlow gives of a scalar of strings is bytes, and no array."""
    module = tf.Module()
    module.ending = tf.Variable("!")
    module.serve = tf.function(
        lambda text: tf.strings.join([text, module.ending]), input_signature=[tf.TensorSpec([], tf.string, name="text")]
    )
    checkpoint = tf.train.Checkpoint(model=module).write(str(tmp_path / "ckpt"))
    result = convert(module, tmp_path / "new", to="saved-model", checkpoint=checkpoint)
    assert result.verified.outputs.done
