"""Which value is the moving average of which variable, and what becomes of them."""

import warnings

import numpy as np
import pytest
from test_live_variables import stored

import live_models
import tfthaw
from tfthaw.errors import RestoreError
from tfthaw.ir.object_graph import VALUE_KEY
from tfthaw.restore.averages import averages_of_optimizers, choose_averages
from tfthaw.tensors import ArrayTensor


@pytest.mark.parametrize(
    ("mode", "keys", "value"),
    [("keep", {"a", "a/ExponentialMovingAverage", "b"}, 1), ("drop", {"a", "b"}, 1), ("use", {"a", "b"}, 2)],
)
def test_shadow_variables(mode, keys, value):
    values = {
        "a": ArrayTensor(np.float32(1)),
        "a/ExponentialMovingAverage": ArrayTensor(np.float32(2)),
        "b": ArrayTensor(np.float32(3)),
    }
    found, notes = choose_averages(values, mode)

    assert set(found) == keys
    assert found["a"].numpy() == value
    assert len(notes) == (mode != "keep")
    assert set(values) == {"a", "a/ExponentialMovingAverage", "b"}


def test_where_there_are_none_to_use_it_is_refused():
    values = {"a": ArrayTensor(np.float32(1))}
    with pytest.raises(RestoreError, match="--ema use: the checkpoint holds no moving averages; leave --ema out"):
        choose_averages(values, "use")
    assert choose_averages(values, "drop") == (values, ["0 moving averages were left out"])


class TestOptimizers:
    def averages(self, **parts):
        tree = {"model": {"w": ("net/w", 2), "v": ("net/v", 2)}, "optimizer": parts}
        return averages_of_optimizers(stored(tree)[0])

    def test_of_keras_3_by_place(self):
        lists = {"_trainable_variables": {"0": ("net/w", 2), "1": ("net/v", 2)},
                 "_model_variables_moving_average": {"0": ("x", 2), "1": ("y", 2)}}  # fmt: skip
        name = "optimizer/_model_variables_moving_average/"
        trained = "optimizer/_trainable_variables/"
        assert self.averages(**lists) == {
            f"{name}{number}{VALUE_KEY}": f"{trained}{number}{VALUE_KEY}" for number in (0, 1)
        }  # fmt: skip
        del lists["_trainable_variables"]["1"]
        with pytest.raises(RestoreError, match="nothing says whose they are"):
            self.averages(**lists)

    def test_of_keras_2_by_name(self):
        found = self.averages(_model_variables_moving_average={"0": ("Adam/average/net/v", 2)})
        assert list(found.values()) == [f"model/v{VALUE_KEY}"]
        for name in ("Adam/average/net/z", "Adam/other/net/v"):
            with pytest.raises(RestoreError, match="nothing says whose they are"):
                self.averages(_model_variables_moving_average={"0": (name, 2)})


@pytest.mark.tf
@pytest.mark.parametrize("generation", [3, 2])
def test_a_model_is_exported_with_its_averages(tf, tmp_path, generation):
    keras = live_models.keras_of(generation)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)])
    model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(3):
            model.train_on_batch(np.ones((8, 4), "float32"), np.ones((8, 2), "float32"))
    checkpoint = tf.train.Checkpoint(model=model).write(str(tmp_path / "ckpt"))
    averages = [value.numpy() for value in model.optimizer._model_variables_moving_average]
    assert not any(np.allclose(mine, now) for mine, now in zip(averages, model.get_weights(), strict=True))
    for ema, expected in (("use", averages), ("drop", model.get_weights())):
        for to, options in (("npz", {}), ("checkpoint", {"keys": "names"})):
            out = tmp_path / f"{ema}.{to}"
            tfthaw.convert(model, out, to=to, checkpoint=checkpoint, ema=ema, **options)
            with tfthaw.open(out) as written:
                found = sorted(tensor.numpy().tobytes() for tensor in written.variables.values())
            assert found == sorted(value.tobytes() for value in expected)
    tfthaw.convert(checkpoint, tmp_path / "weights.npz", to="npz", ema="use")
    with np.load(tmp_path / "weights.npz") as written:
        values = {written[name].tobytes() for name in written.files}
    assert {value.tobytes() for value in averages} <= values
