"""Every hostile artifact, through the real commands, ends right or as one message: nothing else may happen."""

import pytest
from byte_damage import options_of
from corpus import make_corpus
from judge import Case, Judge
from seeds import write_seeds

KINDS = (
    "damage",
    "wrong-files",
    "places",
    "folders",
    "assets",
    "unreadable",
    "graphs",
    "libraries",
    "messages",
    "indexes",
    "safetensors",
    "archives",
    "hdf5",
)
EVERY_FORMAT = ("frozen-graph", "saved-model", "meta-graph", "graph-def", "checkpoint", "safetensors", "npz")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def seeds(place):
    return write_seeds(place / "seeds")


@pytest.fixture(scope="module")
def corpus(place, seeds):
    return make_corpus(place / "corpus", seeds)


@pytest.fixture(scope="module")
def judge(place, seeds):
    judge = Judge(seeds["checkpoint"], place / "scratch")
    yield judge
    judge.close()


def test_the_seeds_themselves_are_sound(judge, seeds):
    for kind, path in seeds.items():
        case = Case(kind, path, options=options_of(kind, seeds), formats=EVERY_FORMAT)
        assert judge.problems(case) == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_hostile_artifact_ends_right_or_as_one_message(kind, corpus, judge):
    problems = [problem for case in corpus[kind] for problem in judge.problems(case)]
    assert not problems, "\n".join(problems[:40])


def test_every_kind_is_judged(corpus):
    assert tuple(corpus) == KINDS
    assert all(corpus.values())


class TestTheJudge:
    """The judge itself finds what it is there to find."""

    def judged(self, judge, seeds, monkeypatch=None, **changes):
        return judge.problems(Case("sound", seeds["npz"], **changes))

    def test_success_that_must_not_be(self, judge, seeds):
        assert any("must not" in problem for problem in self.judged(judge, seeds, must_fail=True))

    def test_an_unknown_option_is_more_than_one_message(self, judge, seeds):
        found = judge.problems(
            Case("bad-option", seeds["frozen-graph"], options=("--nonsense",), formats=("graph-def",))
        )
        assert any("exception" in problem for problem in found)  # argparse leaves by SystemExit

    @pytest.mark.parametrize(
        ("work", "found"),
        [
            ("raise ValueError('foreign')", "an exception came out"),
            ("import os; os.abort()", "died of SIGABRT"),
            ("x = bytearray(300 << 20)", "MB of memory"),
            ("sum(i * i for i in range(4_000_000))", "s of CPU"),
            ("import os, sys; print('tfthaw: a'); return 2", "expected one message"),
        ],
    )
    def test_bad_ends(self, place, seeds, monkeypatch, work, found):
        folder = place / f"broken-{abs(hash(work))}"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(
            f"import tfthaw.cli.inspect as target\ndef run(options):\n    {work}\n    return 0\ntarget.run = run\n"
        )
        monkeypatch.setenv("PYTHONPATH", str(folder))
        broken = Judge(seeds["checkpoint"], place / "scratch-broken", max_cpu_seconds=0.1)
        problems = broken.problems(Case("sound", seeds["npz"], formats=()))
        broken.close()
        assert any(found in problem for problem in problems), problems
