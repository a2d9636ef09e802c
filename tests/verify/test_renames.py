"""Tensors under other names: what content proves, what names tell, and what stays open."""

import numpy as np

from tfthaw.tensors import ArrayTensor
from tfthaw.verify.renames import find_renames
from tfthaw.verify.tensor_differences import Named

KERNEL = np.random.default_rng(1).standard_normal((4, 5)).astype(np.float32)
OTHER = np.random.default_rng(2).standard_normal((4, 5)).astype(np.float32)


def find(a, b):
    sides = [
        {name: Named(name, ArrayTensor(np.asarray(v)), side) for name, v in x.items()}
        for side, x in (("A", a), ("B", b))
    ]
    renamed, undecided = find_renames(*sides)
    return {pair.a: pair.b for pair in renamed}, undecided


def test_particular_content_is_proof():
    renamed, undecided = find({"x/kernel": KERNEL, "y": OTHER}, {"1": OTHER, "2": KERNEL, "3": KERNEL + 1})
    assert renamed == {"x/kernel": "2", "y": "1"}
    assert not undecided


def test_type_and_shape_must_be_equal():
    assert find({"x": KERNEL}, {"y": KERNEL.astype(np.float64), "z": KERNEL.reshape(5, 4)}) == ({}, [])


def test_zeros_scalars_and_few_elements_prove_nothing():
    a = {"bias": np.zeros(64, np.float32), "step": np.int64(1000), "pair": np.array([1.0, 2.0])}
    b = {"b0": np.zeros(64, np.float32), "s0": np.int64(1000), "p0": np.array([1.0, 2.0])}
    renamed, undecided = find(a, b)
    assert renamed == {}
    assert {(group.a, group.b) for group in undecided} == {
        (("bias",), ("b0",)),
        (("step",), ("s0",)),
        (("pair",), ("p0",)),
    }
    assert {group.reason for group in undecided} == {"a scalar", "one value throughout, or too few elements"}


def test_content_that_occurs_twice_proves_nothing():
    renamed, undecided = find({"x": KERNEL}, {"y": KERNEL, "z": KERNEL})
    assert renamed == {}
    assert (undecided[0].a, undecided[0].b) == (("x",), ("y", "z"))
    assert undecided[0].reason == "1 in A and 2 in B have this content"


def test_weak_content_goes_with_its_name():
    a = {"dense/bias:0": np.zeros(3), "dense_1/bias:0": np.zeros(3)}
    b = {"dense/bias": np.zeros(3), "dense_1/bias/.ATTRIBUTES/VARIABLE_VALUE": np.zeros(3), "more": np.zeros(3)}
    renamed, undecided = find(a, b)
    assert renamed == {"dense/bias:0": "dense/bias", "dense_1/bias:0": "dense_1/bias/.ATTRIBUTES/VARIABLE_VALUE"}
    assert not undecided


def test_weak_content_goes_with_its_scope():
    a = {"dense/kernel": KERNEL, "dense/bias": np.zeros(5), "out/kernel": OTHER, "out/bias": np.zeros(5)}
    b = {"layer-0/kernel": KERNEL, "layer-0/bias": np.zeros(5), "layer-1/kernel": OTHER, "layer-1/bias": np.zeros(5)}
    renamed, _ = find(a, b)
    assert renamed["dense/bias"] == "layer-0/bias"
    assert renamed["out/bias"] == "layer-1/bias"


def test_the_only_weak_one_of_a_scope_needs_no_name():
    a = {"dense/kernel": KERNEL, "dense/bias": np.zeros(5), "out/kernel": OTHER, "out/bias": np.zeros(5)}
    b = {"l/0/vars/0": KERNEL, "l/0/vars/1": np.zeros(5), "l/1/vars/0": OTHER, "l/1/vars/1": np.zeros(5)}
    renamed, _ = find(a, b)
    assert renamed["dense/bias"] == "l/0/vars/1"
    assert renamed["out/bias"] == "l/1/vars/1"


def test_two_weak_ones_of_a_scope_stay_open():
    a = {"bn/gamma": KERNEL, "bn/beta": np.zeros(5), "bn/mean": np.zeros(5)}
    b = {"v/0": KERNEL, "v/1": np.zeros(5), "v/2": np.zeros(5)}
    renamed, undecided = find(a, b)
    assert renamed == {"bn/gamma": "v/0"}
    assert (undecided[0].a, undecided[0].b) == (("bn/beta", "bn/mean"), ("v/1", "v/2"))


def test_strings_are_known_by_their_content():
    words = np.array([b"the", b"quick", b"brown fox"], object)
    assert find({"vocab": words}, {"words": words})[0] == {"vocab": "words"}
    assert find({"name": np.array(b"x", object)}, {"label": np.array(b"x", object)})[0] == {}


def test_equal_beginnings_are_not_equal_contents():
    long = np.arange(5000, dtype=np.float32)
    other = long.copy()
    other[-1] = 0
    assert find({"a": long}, {"b": other}) == ({}, [])
    assert find({"a": long}, {"b": other, "c": long})[0] == {"a": "c"}


def test_empty_tensors_stay_open():
    renamed, undecided = find({"a": np.zeros((0, 3))}, {"b": np.zeros((0, 3))})
    assert renamed == {}
    assert len(undecided) == 1
