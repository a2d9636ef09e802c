"""Object graphs that lie, through the real commands: each ends right or as one message, soon and in little memory."""

import pytest
from judge import Judge
from object_lies import damaged_objects, lying_objects

from object_artifacts import write_checkpoint


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("objects")


@pytest.fixture(scope="module")
def judge(place):
    judge = Judge(str(write_checkpoint(place / "good")), place / "scratch")
    yield judge
    judge.close()


@pytest.mark.parametrize("cases", [lying_objects, damaged_objects])
def test_every_lying_object_graph_ends_right_or_as_one_message(cases, judge, place):
    problems = [problem for case in cases(place / cases.__name__) for problem in judge.problems(case)]
    assert not problems, "\n".join(problems[:40])
