"""The `checkpoint` file: its paths, also after its directory has moved."""

import os

import pytest

from tfthaw.errors import FormatError, LimitError, NotFoundError
from tfthaw.formats.checkpoint_state import checkpoint_state_bytes, read_checkpoint_state
from tfthaw.limits import Limits


def state_file(folder, text):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoint").write_text(text)
    return folder / "checkpoint"


def test_read(tmp_path):
    path = state_file(tmp_path, 'model_checkpoint_path: "b"\nall_model_checkpoint_paths: "a"\n'
                                'all_model_checkpoint_paths: "b"\nall_model_checkpoint_timestamps: 1.5\n'
                                "all_model_checkpoint_timestamps: 2.5\nlast_preserved_timestamp: 0.5\n")  # fmt: skip

    state = read_checkpoint_state(path)

    assert (state.path, state.latest, state.all, state.timestamps) == (str(path), "b", ("a", "b"), (1.5, 2.5))


def test_write():
    assert checkpoint_state_bytes("m-2", ["m-1", "m-2"]) == (
        b'model_checkpoint_path: "m-2"\nall_model_checkpoint_paths: "m-1"\nall_model_checkpoint_paths: "m-2"\n'
    )
    assert checkpoint_state_bytes("é") == (
        b'model_checkpoint_path: "\\303\\251"\nall_model_checkpoint_paths: "\\303\\251"\n'
    )


@pytest.mark.parametrize("name", ["m-1", "acc_[200].ckpt", "two words", "größe", ".hidden", "a'\"b", "line\nbreak"])
def test_any_name_survives(tmp_path, name):
    (tmp_path / "checkpoint").write_bytes(checkpoint_state_bytes(name))
    (tmp_path / f"{name}.index").touch()

    state = read_checkpoint_state(tmp_path / "checkpoint")

    assert state.latest == name
    assert state.resolve(state.latest) == str(tmp_path / name)


@pytest.mark.parametrize(
    ("written", "there", "found"),
    [
        ("m-1", "m-1.index", "m-1"),
        ("./m-1", "m-1.index", "m-1"),
        ("sub/m-1", "sub/m-1.index", "sub/m-1"),
        ("/home/somebody/run/m-1", "m-1.index", "m-1"),
        ("/home/somebody/run/sub/m-1", "sub/m-1.index", "sub/m-1"),
        ("/home/somebody/run/sub/m-1", "m-1.index", "m-1"),
        ("../run/m-1", "m-1.index", "m-1"),
        ("../elsewhere/m-1", "m-1.index", "m-1"),
        ("C:\\Users\\me\\run\\m-1", "m-1.index", "m-1"),
        ("run/m-1", "m-1.index", "m-1"),
        ("m-1", "m-1", "m-1"),
        ("/tmp/00000123/export-00000-of-00001", "export-00000-of-00001", "export-00000-of-00001"),
        ("export", "export-00000-of-00002", "export"),
        ("/gone/", ".index", ""),
        ("m-1", "m-10.index", None),
        ("m-[1]", "m-1.index", None),
        ("export", "export-0000-of-00002", None),
        ("export", "my-export-00000-of-00001", None),
        ("checkpoint", "other", None),
        ("..", "m-1.index", None),
        (".", "m-1.index", None),
        ("/", "m-1.index", None),
    ],
)
def test_resolve(tmp_path, written, there, found):
    path = state_file(tmp_path / "run", "")
    (path.parent / there).parent.mkdir(exist_ok=True)
    (path.parent / there).touch()
    path.write_bytes(checkpoint_state_bytes(written))

    prefix = read_checkpoint_state(path).resolve(written)

    assert prefix == (None if found is None else os.path.join(path.parent, found))


def test_nothing_outside_is_followed(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "secret.index").touch()
    path = state_file(tmp_path / "run", 'model_checkpoint_path: "x"')
    state = read_checkpoint_state(path)

    assert state.resolve("../out/secret") is None
    assert state.resolve(str(tmp_path / "out" / "secret")) is None


def test_an_absolute_path_inside_is_taken_as_it_is(tmp_path):
    path = state_file(tmp_path / "run", 'model_checkpoint_path: "x"')
    for name in ("a/m-1.index", "m-1.index"):
        (path.parent / name).parent.mkdir(exist_ok=True)
        (path.parent / name).touch()

    assert read_checkpoint_state(path).resolve(str(path.parent / "a" / "m-1")) == str(path.parent / "a" / "m-1")


def test_a_relative_spelling_of_the_directory(tmp_path, monkeypatch):
    path = state_file(tmp_path / "run", 'model_checkpoint_path: "m-1"')
    (path.parent / "m-1.index").touch()
    monkeypatch.chdir(path.parent)

    assert read_checkpoint_state("checkpoint").resolve("m-1") == "m-1"
    monkeypatch.chdir(tmp_path)
    assert read_checkpoint_state("run/checkpoint").resolve("m-1") == "run/m-1"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no checkpoint"),
        ("  \n", "names no checkpoint"),
        ("node { }", "the text is no CheckpointState"),
        ("model_checkpoint_path: 3", "the text is no CheckpointState"),
        ('model_checkpoint_path: "a', "the text is no CheckpointState"),
        ("\0\0\0\0", "the text is no CheckpointState"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = state_file(tmp_path, text)

    with pytest.raises(FormatError, match=message) as caught:
        read_checkpoint_state(path)
    assert caught.value.path == str(path)


def test_missing_and_huge_files_are_refused(tmp_path):
    with pytest.raises(NotFoundError):
        read_checkpoint_state(tmp_path / "checkpoint")
    with pytest.raises(LimitError):
        read_checkpoint_state(state_file(tmp_path, "#" * 100), Limits(max_block_bytes=99))


@pytest.mark.tf
def test_tensorflow_agrees(tmp_path):
    import tensorflow as tf

    checkpoint = tf.train.Checkpoint(w=tf.Variable(1.0))
    manager = tf.train.CheckpointManager(checkpoint, str(tmp_path / "a"), max_to_keep=2)
    for _ in range(3):
        manager.save()
    (tmp_path / "a").rename(tmp_path / "moved")

    state = read_checkpoint_state(tmp_path / "moved" / "checkpoint")

    assert state.resolve(state.latest) == tf.train.latest_checkpoint(str(tmp_path / "moved"))
    assert [state.resolve(name) for name in state.all] == [str(tmp_path / "moved" / f"ckpt-{step}") for step in (2, 3)]
    (tmp_path / "moved" / "checkpoint").write_bytes(checkpoint_state_bytes("ckpt-2", ["ckpt-2"]))
    assert tf.train.latest_checkpoint(str(tmp_path / "moved")) == str(tmp_path / "moved" / "ckpt-2")
