"""The command itself: help, exit statuses, errors, JSON, terminals, odd paths."""

import json
import os
import pty
import subprocess
import sys

import pytest

from tfthaw.cli.main import COMMANDS

WEIGHTS = ("--verify", "weights")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_subcommand_has_help_with_two_examples(command, run):
    status, out, err = run(command, "--help")
    assert (status, err) == (0, "")
    examples = out.partition("examples:\n")[2]
    assert examples.count("tfthaw ") >= 2
    assert "--json" in out
    assert "--verbose" in out


def test_help_without_a_command(run):
    status, out, err = run()
    assert (status, err) == (0, "")
    assert all(command in out for command in COMMANDS)
    assert run("--help")[1] == out


def test_version(run):
    import tfthaw

    assert run("--version") == (0, f"tfthaw {tfthaw.__version__}\n", "")


def test_python_m(spawn, demo):
    done = spawn("inspect", demo / "model.ckpt-1000", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["format"] == "checkpoint"


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("inspect",),
        ("inspect", "a", "--frobnicate"),
        ("convert", "a", "b", "--to", "onnx"),
        ("convert", "a", "b", "--to", "npz", "--ema", "perhaps"),
        ("convert", "a", "b", "--to", "npz", "--set", "x"),
        ("diff", "a"),
    ],
)
def test_bad_usage_is_one_message_and_status_2(arguments, run):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("tfthaw: ")
    assert "usage: tfthaw" in err
    assert "Traceback" not in err


def test_an_error_is_one_message_on_stderr(run, demo):
    status, out, err = run("inspect", demo / "model.ckpt-1001")
    assert (status, out) == (2, "")
    assert err.startswith(f"tfthaw: {demo}")
    assert "model.ckpt-1000" in err, "near names are shown"
    assert err.count("\n") == 1


def test_a_traceback_is_shown_on_demand(run, demo):
    status, out, err = run("inspect", demo / "model.ckpt-1001", "-v")
    assert (status, out) == (2, "")
    assert "Traceback (most recent call last)" in err
    assert err.splitlines()[-1].startswith("tfthaw: ")


def test_an_incomplete_restore_is_status_1(run, demo, tmp_path):
    status, out, err = run(
        "convert",
        demo / "model.ckpt-1000.meta",
        tmp_path / "x.npz",
        "--to",
        "npz",
        "--map",
        write(tmp_path / "map.toml", '"conv1/kernel" = "k"\n'),
    )
    assert (status, out) == (1, "")
    assert "unused: " in err
    assert not (tmp_path / "x.npz").exists()


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


class TestJson:
    def test_one_document_and_nothing_else(self, spawn, demo, tmp_path):
        for arguments in (
            ("inspect", demo / "model.ckpt-1000.meta"),
            ("convert", demo / "model.ckpt-1000", tmp_path / "x.npz", "--to", "npz"),
            (
                "convert",
                demo / "model.ckpt-1000.meta",
                tmp_path / "x.pb",
                "--to",
                "frozen-graph",
                "--outputs",
                "probabilities",
                "--set",
                "is_training=false",
                *WEIGHTS,
            ),
            ("convert", demo / "model.ckpt-1000.meta", "--list-outputs"),
            ("diff", demo / "model.ckpt-1000", demo / "model.ckpt-1000"),
        ):
            done = spawn(*arguments, "--json")
            assert (done.returncode, done.stderr) == (0, ""), arguments
            assert json.loads(done.stdout)

    def test_an_error_leaves_stdout_empty(self, run, demo):
        status, out, err = run("inspect", demo / "nothing", "--json")
        assert (status, out) == (2, "")
        assert err

    def test_non_ascii_names_are_written_as_they_are(self, run, demo):
        path = demo / "modèle-模型"
        for suffix in (".index", ".data-00000-of-00001"):
            os.link(demo / f"model.ckpt-1000{suffix}", f"{path}{suffix}")
        status, out, _ = run("inspect", path, "--json")
        assert status == 0
        assert "modèle-模型" in out


class TestOverwriting:
    def test_what_is_there_stays(self, run, demo, tmp_path):
        target = write(tmp_path / "x.npz", "precious")
        status, out, err = run("convert", demo / "model.ckpt-1000", target, "--to", "npz")
        assert (status, out) == (2, "")
        assert "--overwrite" in err
        assert target.read_text() == "precious"

    def test_unless_it_may_be_replaced(self, run, demo, tmp_path):
        target = write(tmp_path / "x.npz", "precious")
        assert run("convert", demo / "model.ckpt-1000", target, "--to", "npz", "--overwrite")[0] == 0
        assert run("diff", demo / "model.ckpt-1000", target, "--json")[0] in (0, 1)

    def test_a_failure_leaves_what_was_there(self, run, demo, tmp_path):
        target = write(tmp_path / "x.npz", "precious")
        shard = demo / "model.ckpt-1000.data-00000-of-00001"
        shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
        status, _, err = run(
            "convert", demo / "model.ckpt-1000", target, "--to", "npz", "--overwrite", "--optimizer", "keep"
        )
        assert status == 2, err
        assert "checksum" in err
        assert target.read_text() == "precious"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["demo", "x.npz"]


class TestSpellings:
    def document(self, run, path):
        status, out, err = run("inspect", "--json", "--", path)
        assert status == 0, err
        document = json.loads(out)
        del document["path"]
        return document

    @pytest.mark.parametrize(
        "name", ["model.ckpt-1000", "model.ckpt-1000.index", "model.ckpt-1000.data-00000-of-00001", "checkpoint", ""]
    )
    def test_every_spelling_of_a_checkpoint_is_the_same(self, name, run, demo):
        path = os.path.join(demo, name)
        assert self.document(run, path) == self.document(run, demo / "model.ckpt-1000")

    def test_a_directory_with_or_without_slash(self, run, demo):
        assert self.document(run, f"{demo}/") == self.document(run, str(demo))

    @pytest.mark.parametrize(
        "name", ["acc_[200].ckpt", "with space", "ünïcode-模型", "-dash", "*", "a?b", "tab\there", "~"]
    )
    def test_every_character_is_plain(self, name, run, demo, monkeypatch):
        for suffix in (".index", ".data-00000-of-00001"):
            os.rename(demo / f"model.ckpt-1000{suffix}", demo / f"{name}{suffix}")
        monkeypatch.chdir(demo)
        assert self.document(run, name)["format"] == "checkpoint"
        status, _, err = run("convert", "--to", "npz", "--", name, f"{name}.npz")
        assert status == 0, err
        assert self.document(run, f"{name}.npz")["format"] == "npz"

    def test_a_saved_model_and_its_message_are_the_same(self, run, demo, tmp_path):
        target = tmp_path / "saved [1]"
        status, _, err = run(
            "convert",
            demo / "model.ckpt-1000.meta",
            target,
            "--to",
            "saved-model",
            "--outputs",
            "probabilities",
            *WEIGHTS,
        )
        assert status == 0, err
        assert (
            self.document(run, target)
            == self.document(run, target / "saved_model.pb")
            == self.document(run, f"{target}/")
        )


class TestTerminals:
    def test_a_closed_pipe_is_no_error(self, demo):
        command = f"{sys.executable} -m tfthaw inspect {demo}/model.ckpt-1000.meta --all | head -1"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.stderr == ""
        assert len(done.stdout.splitlines()) == 1

    def test_no_colour_in_a_pipe(self, spawn, demo):
        assert "\033" not in spawn("inspect", demo / "model.ckpt-1000").stdout

    @pytest.mark.parametrize(
        ("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
    )
    def test_colour_on_a_terminal(self, demo, environment, coloured):
        terminal, inner = pty.openpty()
        variables = (
            {key: value for key, value in os.environ.items() if key != "NO_COLOR"} | {"TERM": "xterm"} | environment
        )
        child = subprocess.Popen(
            [sys.executable, "-m", "tfthaw", "inspect", str(demo / "model.ckpt-1000")],
            stdout=inner,
            stderr=subprocess.PIPE,
            env=variables,
        )
        os.close(inner)
        said = b""
        while True:
            try:
                part = os.read(terminal, 65536)
            except OSError:  # how Linux says that the other end was closed
                break
            if not part:
                break
            said += part
        os.close(terminal)
        assert child.wait(60) == 0
        assert child.stderr.read() == b""
        child.stderr.close()
        assert (b"\033[" in said) == coloured
