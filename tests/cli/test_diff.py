"""`tfthaw diff` on the command line."""

import json

import numpy as np
import pytest

from tfthaw.cli.main import main
from verify.artifacts import PLACEHOLDER, checkpoint, const, graph, meta_graph, node

RANDOM = np.random.default_rng(3)
BEFORE = {
    "dense/kernel": RANDOM.standard_normal((6, 4)).astype(np.float32), "dense/bias": np.ones(4, np.float32),
    "dense/kernel/Adam": RANDOM.standard_normal((6, 4)).astype(np.float32), "global_step": np.int64(100),
}  # fmt: skip
AFTER = BEFORE | {
    "dense/kernel": BEFORE["dense/kernel"] * np.float32(1.5), "dense/kernel/Adam": BEFORE["dense/kernel"],
    "global_step": np.int64(200),
}  # fmt: skip


@pytest.fixture
def run_pair(tmp_path):
    return checkpoint(tmp_path, "ck-100", BEFORE), checkpoint(tmp_path, "ck-200", AFTER)


def test_the_same_exits_with_0(tmp_path, capsys):
    a, b = checkpoint(tmp_path, "a", BEFORE), checkpoint(tmp_path, "b", BEFORE)
    assert main(["diff", a, b]) == 0
    screen = capsys.readouterr().out
    assert "They are the same." in screen
    assert "same, 4 tensors, 216 B, bit for bit" in screen


def test_a_difference_exits_with_1_and_shows_weights_before_the_optimizer(run_pair, capsys):
    assert main(["diff", *run_pair]) == 1
    screen = capsys.readouterr().out
    assert "They differ." in screen
    assert "3 differ, 1 equal" in screen
    assert screen.index("tensors that differ: 2") < screen.index("optimizer's state that differs: 1")
    row = next(line.split() for line in screen.splitlines() if line.startswith("  dense/kernel  "))
    assert row[:4] == ["dense/kernel", "float32[6,", "4]", "all"]
    assert row[-2:] == ["0.333", "50.00%"]


def test_json_is_one_document(run_pair, capsys):
    assert main(["diff", *run_pair, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [item["name"] for item in document["tensors"]["changed"]] == [
        "dense/kernel",
        "dense/kernel/Adam",
        "global_step",
    ]
    step = document["tensors"]["changed"][2]
    assert (step["max_abs"], step["max_rel"], step["change"]) == (100, 0.5, 1.0)


def test_what_cannot_be_done_exits_with_2(tmp_path, capsys):
    here = checkpoint(tmp_path, "a", BEFORE)
    assert main(["diff", here, str(tmp_path / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert main(["diff", here, here, "--tags", "serve"]) == 2
    assert "tags choose a MetaGraph of a SavedModel" in capsys.readouterr().err


def test_graphs_show_what_differs_alike_together(tmp_path, capsys):
    def nodes(op, version):
        layers = [node(f"l{number}", op, "x", T="type: DT_FLOAT") for number in range(30)]
        return graph(tmp_path / f"{op}.pbtxt", PLACEHOLDER, const("c", version), *layers, node(f"only{op}", op, "x"))

    assert main(["diff", nodes("Relu", 1.0), nodes("Elu", 2.0)]) == 1
    screen = capsys.readouterr().out
    assert "nodes: 30 differ, 1 only in A, 1 only in B, 2 equal; 1 constant with another value" in screen
    assert "  op    Relu  Elu  l0 and 29 more" in screen
    assert "nodes only in A: 1" in screen
    assert "onlyRelu  Relu" in screen
    assert "constants that differ: 1" in screen


def test_renames_signatures_and_open_questions_are_shown(tmp_path, capsys):
    a = checkpoint(tmp_path, "a", BEFORE | {"ones": np.ones((9, 9)), "half": np.zeros(3, np.float16)})
    renamed = {"d/kernel": BEFORE["dense/kernel"], "unit": np.ones((9, 9)), "half": np.zeros(4, np.float32)}
    assert main(["diff", a, checkpoint(tmp_path, "b", renamed)]) == 1
    screen = capsys.readouterr().out
    assert "renamed, with equal content: 1" in screen
    assert "dense/kernel  d/kernel  float32[6, 4]" in screen
    assert "ones  unit  one value throughout, or too few elements" in screen
    assert "float16[3] -> float32[4]" in screen
    key = 'signature_def { key: "serving_default" value { method_name: "m" } }'
    c = meta_graph(tmp_path / "c.meta", PLACEHOLDER, const("k", [1.0, 2.0]), signatures=key)
    d = meta_graph(tmp_path / "d.meta", PLACEHOLDER, const("k", [1.0, 2.0]))
    assert main(["diff", c, d]) == 1
    screen = capsys.readouterr().out
    assert "signatures only in A: 1" in screen
    assert "serving_default" in screen


def test_long_lists_are_cut_unless_all_is_asked_for(tmp_path, capsys):
    a = checkpoint(tmp_path, "a", {f"w{number:02}": np.zeros(3) for number in range(50)})
    b = checkpoint(tmp_path, "b", {f"w{number:02}": np.ones(3) for number in range(50)})
    main(["diff", a, b])
    assert "... and 30 more" in capsys.readouterr().out
    main(["diff", a, b, "--all"])
    screen = capsys.readouterr().out
    assert "more" not in screen
    assert all(f"w{number:02}" in screen for number in range(50))
