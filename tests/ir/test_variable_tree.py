"""Places in an object graph for flat names."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfthaw.ir.variable_tree import places

PARTS = st.sampled_from(["a", "b", "w", "_w", "vw", "a_b", "a_1", "w_1", "variables", "0"])
NAMES = st.lists(st.lists(PARTS, max_size=4).map("/".join), max_size=12)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["dense/kernel", "dense/bias", "step"], ["dense.kernel", "dense.bias", "step"]),
        (["w", "w/Adam", "w/Adam_1"], ["w", "w_Adam", "w_Adam_1"]),
        (["w/Adam", "w"], ["w_Adam", "w"]),
        (["a", "a/b", "a/b/c"], ["a", "a_b", "a_b_c"]),
        (["w", "w"], ["w", "w_1"]),
        (["w", "w", "w_1"], ["w", "w_2", "w_1"]),
        (["a_b", "a", "a/b"], ["a_b", "a", "a_b_1"]),
        (["variables", "variables/w"], ["variables_1", "variables_1_w"]),
        (["layer/variables"], ["layer.variables"]),
        (["dense/_kernel", "_w"], ["dense.v_kernel", "v_w"]),
        (["", "//"], ["variable", "variable_1"]),
        (["a//b/"], ["a.b"]),
    ],
)
def test_a_place_for_each_name(names, expected):
    assert [".".join(place) for place in places(names, ["variables", "signatures"])] == expected


@settings(deadline=None, max_examples=300)
@given(NAMES)
def test_no_place_is_taken_twice_or_inside_of_another(names):
    found = places(names, ["variables", "signatures"])

    assert len(found) == len(names) == len(set(found))
    taken = set(found)
    for place in found:
        assert place
        assert place[0] not in ("variables", "signatures")
        assert not any(part.startswith("_") for part in place)
        assert not any(place[:length] in taken for length in range(1, len(place)))


@settings(deadline=None, max_examples=50)
@given(NAMES)
def test_names_without_conflict_keep_their_place(names):
    plain = [name for name in names if name == "/".join(part for part in name.split("/") if part) and name]
    plain = [name for name in plain if not any(part.startswith("_") for part in name.split("/"))]
    plain = [name for name in dict.fromkeys(plain) if name.split("/")[0] != "variables"]
    alone = [name for name in plain if not any(name.startswith(f"{other}/") for other in plain)]

    found = dict(zip(plain, places(plain, ["variables"]), strict=True))

    assert all("/".join(found[name]) == name for name in alone)
