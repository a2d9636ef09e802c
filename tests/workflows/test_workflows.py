"""Each export workflow, through the command line and through Python, in fresh processes, under both Keras."""

import numpy as np
import pytest

from workflows.conversions import Conversion
from workflows.table import KERAS, WORKFLOWS
from workflows.use import counted, use

pytestmark = pytest.mark.tf


KINDS_FOR_THE_COMMAND_LINE = {
    "keras3": ("model", "fitted", "other", "root", "weights", "other-fitted", "slots"),
    "tf_keras": ("names", "optimizer", "fitted", "names", "root", "weights", "version1"),
}
"""For each workflow, in the order of the table."""


def through_the_command_line():
    """Every workflow under each Keras, and every kind of checkpoint somewhere."""
    return [Conversion(keras, "cli", position, kind)
            for keras, kinds in KINDS_FOR_THE_COMMAND_LINE.items() for position, kind in enumerate(kinds)]  # fmt: skip


def through_python():
    """Every workflow, Keras and kind of checkpoint from live objects; from code in a process of its own, some."""
    for number, keras in enumerate(KERAS):
        for position, workflow in enumerate(WORKFLOWS):
            kinds = workflow.kinds_under(keras)
            if workflow.is_graph and keras == "keras3":  # `tf.layers` needs the other one
                yield Conversion(keras, "code", position, kinds[0])
                continue
            for kind in kinds:
                yield Conversion(keras, "live", position, kind)
            if (position + number) % 2:
                yield Conversion(keras, "code", position, kinds[position % len(kinds)])


def examples():
    """Every example, one of them under `tf_keras` too."""
    every = [Conversion("keras3", "example", position, "") for position in range(len(WORKFLOWS))]
    return [*every, Conversion("tf_keras", "example", 1, "")]


@pytest.mark.parametrize("conversion", [*through_python(), *through_the_command_line()], ids=str)
def test_what_users_load_is_the_trained_model(conversion, lab, tf):
    answer = lab.answer(conversion)
    assert answer.status == 0, answer.message
    feed, expected, trained = lab.facts(conversion)
    document, workflow = answer.document, conversion.table

    assert document["verified"]["weights"]["different"] == 0
    if conversion.proves_outputs:
        assert document["verified"]["outputs"]["done"], document["verified"]["outputs"]
    used = use(tf, document, feed, style=workflow.options.get("style", "v2"))
    if workflow.to == "frozen-graph":
        assert not set(counted(trained)) - set(counted(used.values))
    else:
        assert counted(used.values) == counted(trained)
    output = used.outputs[workflow.output] if workflow.output else next(iter(used.outputs.values()))
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_every_kind_of_checkpoint_goes_through_the_command_line():
    chosen = {item.kind for item in through_the_command_line()}
    assert chosen == {kind for workflow in WORKFLOWS for kind in workflow.kinds}


@pytest.mark.parametrize("conversion", examples(), ids=str)
def test_examples_run_and_print_the_proof(conversion, lab):
    answer = lab.answer(conversion)
    assert answer.status == 0, answer.message
    assert "largest difference" in answer.document["printed"]


SCOPES = {4: {"hidden", "norm", "logits"}, 5: {"dense", "dense_1"}, 6: {"encoder", "head", "hidden", "logits"}}
FOR_TENSORBOARD = [
    item for item in through_python() if item.workflow in SCOPES and item.kind == item.table.kinds[0]
]  # fmt: skip


@pytest.mark.parametrize("conversion", FOR_TENSORBOARD, ids=str)
def test_meta_graphs_keep_their_scopes(conversion, lab, tf):
    """TensorBoard draws what stands before the slashes."""
    nodes = use(tf, lab.answer(conversion).document, lab.facts(conversion)[0]).nodes
    scopes = {part for node in nodes for part in node.split("/")[:-1]}
    assert scopes >= SCOPES[conversion.workflow]


WITH_AVERAGES = [item for item in through_python() if item.workflow == 2 and item.way == "live"]


@pytest.mark.parametrize("conversion", WITH_AVERAGES, ids=str)
def test_moving_averages_are_not_trained(conversion, lab, tf):
    """Those who train on find six variables of eight, as in the model."""
    loaded = tf.saved_model.load(lab.answer(conversion).document["path"])
    names = {variable.name for variable in loaded.variables} - {item.name for item in loaded.trainable_variables}
    assert {name.rpartition("/")[2] for name in names} == {"moving_mean:0", "moving_variance:0"}
