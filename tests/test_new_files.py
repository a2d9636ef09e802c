"""Writing files that appear whole, checked and on disk, or not at all."""

import errno
import os
import time
from functools import partial

import pytest

from tfthaw import _new_files
from tfthaw._new_files import new_directory, new_file, new_file_set
from tfthaw.errors import OutputExistsError, TfthawError, UsageError, VerificationError

LAYOUT = ("a", "b", "variables")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "weird [200] *é.bin"
    path.write_bytes(b"old")
    return path


def left_over(folder):
    return sorted(entry.name for entry in folder.iterdir())


class TestNewFile:
    def test_appears_when_it_is_whole(self, tmp_path):
        target = tmp_path / "new" / "out.pb"
        with new_file(target) as file:
            file.write(b"abc")
            assert not target.exists()
        assert target.read_bytes() == b"abc"
        assert left_over(target.parent) == ["out.pb"]

    def test_nothing_is_left_of_a_failure(self, tmp_path):
        with pytest.raises(RuntimeError, match="stop"), new_file(tmp_path / "out.pb") as file:  # noqa: PT012
            file.write(b"abc")
            raise RuntimeError("stop")
        assert left_over(tmp_path) == []

    def test_existing_files_are_kept(self, path):
        with pytest.raises(OutputExistsError, match="pass --overwrite"), new_file(path):
            raise AssertionError("the block must not run")
        assert path.read_bytes() == b"old"
        with new_file(path, overwrite=True) as file:
            file.write(b"new")
        assert path.read_bytes() == b"new"

    def test_a_file_that_appears_meanwhile_is_kept(self, tmp_path):
        target = tmp_path / "out.pb"
        with pytest.raises(OutputExistsError), new_file(target):
            target.write_bytes(b"other")
        assert target.read_bytes() == b"other"
        assert left_over(tmp_path) == ["out.pb"]

    def test_links_are_followed(self, tmp_path):
        (tmp_path / "real.pb").write_bytes(b"old")
        (tmp_path / "link.pb").symlink_to("real.pb")
        with pytest.raises(OutputExistsError):
            new_file(tmp_path / "link.pb").__enter__()
        with new_file(tmp_path / "link.pb", overwrite=True) as file:
            file.write(b"new")
        assert (tmp_path / "link.pb").is_symlink()
        assert (tmp_path / "real.pb").read_bytes() == b"new"

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_pipes_and_directories_are_never_replaced(self, tmp_path, overwrite):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(UsageError, match="a file is to be written, and a pipe or a device is there"):
            new_file(tmp_path / "pipe", overwrite=overwrite).__enter__()
        with pytest.raises(UsageError, match="a file is to be written, and a directory is there"):
            new_file(tmp_path, overwrite=overwrite).__enter__()

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("", "is no path to write to"),
            ("a\0b", "is no path to write to"),
            ("/", "a file is to be written|root"),
            ("x" * 300, "cannot write it: File name too long"),
        ],
    )
    def test_impossible_places_are_told(self, name, message, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for made in (new_file(name, overwrite=True), new_directory(name, LAYOUT, overwrite=True)):
            with pytest.raises(TfthawError, match=message), made:
                raise AssertionError("the block must not run")

    def test_a_full_disk_is_named(self, tmp_path):
        message = "cannot write it: No space left on device; free space"
        with pytest.raises(TfthawError, match=message), new_file(tmp_path / "x"):
            raise OSError(errno.ENOSPC, "No space left on device")


class TestNewDirectory:
    def test_appears_when_it_is_whole(self, tmp_path):
        target = tmp_path / "saved"
        with new_directory(target, LAYOUT) as folder:
            (folder / "variables").mkdir()
            (folder / "variables" / "x").write_bytes(b"1")
            assert not target.exists()
        assert (target / "variables" / "x").read_bytes() == b"1"
        assert left_over(tmp_path) == ["saved"]

    def test_an_empty_directory_is_used_a_full_one_kept(self, tmp_path):
        target = tmp_path / "saved"
        target.mkdir()
        with new_directory(target, LAYOUT) as folder:
            (folder / "a").write_bytes(b"1")
        with pytest.raises(OutputExistsError), new_directory(target, LAYOUT):
            raise AssertionError("the block must not run")
        with new_directory(target, LAYOUT, overwrite=True) as folder:
            (folder / "b").write_bytes(b"2")
        assert left_over(target) == ["b"]
        assert left_over(tmp_path) == ["saved"]

    def test_what_else_a_directory_holds_is_never_lost(self, tmp_path):
        target = tmp_path / "project"
        target.mkdir()
        (target / "train.py").write_text("precious")
        with pytest.raises(OutputExistsError, match=r"holds train\.py; give another"), new_directory(target, LAYOUT):
            raise AssertionError("the block must not run")
        with pytest.raises(UsageError, match=r"lost: train\.py"), new_directory(target, LAYOUT, overwrite=True):
            raise AssertionError("the block must not run")
        (target / "train.py").unlink()
        with pytest.raises(UsageError, match="would be lost"), new_directory(target, LAYOUT, overwrite=True):
            (target / "train.py").write_text("written meanwhile")
        assert left_over(target) == ["train.py"]
        assert left_over(tmp_path) == ["project"]

    def test_where_the_caller_stands_is_filled(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "old").write_bytes(b"1")
        with new_directory(".", LAYOUT, overwrite=True) as folder:
            (folder / "variables").mkdir()
            (folder / "a").write_bytes(b"1")
        assert sorted(os.listdir(".")) == ["a", "variables"]

    def test_a_directory_that_cannot_be_renamed_is_filled(self, tmp_path, monkeypatch):
        target = tmp_path / "mounted"
        target.mkdir()
        monkeypatch.setattr(os.path, "ismount", lambda path: os.fspath(path) == os.fspath(target))
        before = target.stat().st_ino
        for content in (b"1", b"2"):
            with new_directory(target, LAYOUT, overwrite=True) as folder:
                (folder / "a").write_bytes(content)
            assert (target / "a").read_bytes() == content
        assert target.stat().st_ino == before
        assert left_over(tmp_path) == ["mounted"]
        assert left_over(target) == ["a"]

    def test_links_are_followed(self, tmp_path):
        (tmp_path / "disk").mkdir()
        (tmp_path / "out").symlink_to("disk")
        with new_directory(tmp_path / "out", LAYOUT) as folder:
            (folder / "a").write_bytes(b"1")
        assert left_over(tmp_path / "disk") == ["a"]
        assert (tmp_path / "out").is_symlink()

    def test_a_file_is_no_directory(self, path):
        with pytest.raises(UsageError, match="a directory is to be written, and a file is there"):
            new_directory(path, LAYOUT, overwrite=True).__enter__()
        assert path.read_bytes() == b"old"

    def test_nothing_is_left_of_a_failure(self, tmp_path):
        with pytest.raises(RuntimeError, match="stop"), new_directory(tmp_path / "saved", LAYOUT) as folder:  # noqa: PT012
            (folder / "a").write_bytes(b"1")
            raise RuntimeError("stop")
        assert left_over(tmp_path) == []


class TestNewFileSet:
    NAMES = ("c.data-00000-of-00001", "c.index")

    def test_all_appear(self, tmp_path):
        with new_file_set(tmp_path / "out", self.NAMES) as folder:
            for name in self.NAMES:
                (folder / name).write_bytes(name.encode())
        assert left_over(tmp_path / "out") == sorted(self.NAMES)

    def test_none_appears_when_one_is_missing(self, tmp_path):
        with pytest.raises(TfthawError), new_file_set(tmp_path, self.NAMES[::-1]) as folder:
            (folder / self.NAMES[0]).write_bytes(b"1")
        assert left_over(tmp_path) == []

    def test_one_existing_file_refuses_all(self, tmp_path):
        (tmp_path / "c.index").write_bytes(b"old")
        with pytest.raises(OutputExistsError), new_file_set(tmp_path, self.NAMES):
            raise AssertionError("the block must not run")
        assert left_over(tmp_path) == ["c.index"]


@pytest.mark.parametrize(
    "make", [new_file, partial(new_directory, layout=LAYOUT), lambda path: new_file_set(path, ["a"])]
)
def test_directories_that_were_made_for_a_failure_go_again(tmp_path, make):
    (tmp_path / "there").mkdir()
    with pytest.raises(RuntimeError, match="stop"), make(tmp_path / "there" / "new" / "deeper" / "a"):
        raise RuntimeError("stop")
    assert left_over(tmp_path / "there") == []


def test_what_was_there_comes_back_when_nothing_can_take_its_place(tmp_path, monkeypatch):
    target = tmp_path / "saved"
    target.mkdir()
    (target / "a").write_bytes(b"old")
    rename = os.rename

    def fails(source, to):
        if os.fspath(to) == os.fspath(target) and ".tfthaw-old-" not in os.fspath(source):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, to)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(TfthawError, match="Input/output"), new_directory(target, LAYOUT, overwrite=True) as folder:
        (folder / "b").write_bytes(b"new")
    assert left_over(tmp_path) == ["saved"]
    assert (target / "a").read_bytes() == b"old"


class TestCheck:
    """What was written is looked at before it appears."""

    def test_it_sees_everything_that_was_written(self, tmp_path):
        seen = []
        with new_file(tmp_path / "a", check=lambda written: seen.append(written.read_bytes())) as file:
            file.write(b"abc")
        with new_directory(tmp_path / "d", LAYOUT, check=lambda written: seen.append(left_over(written))) as folder:
            (folder / "x").write_bytes(b"1")
        with new_file_set(tmp_path, ["p", "q"], check=lambda written: seen.append(left_over(written))) as folder:
            (folder / "p").write_bytes(b"1")
            (folder / "q").write_bytes(b"2")

        assert seen == [b"abc", ["x"], ["p", "q"]]
        assert left_over(tmp_path) == ["a", "d", "p", "q"]

    @pytest.mark.parametrize("make", [new_file, partial(new_directory, layout=LAYOUT)])
    def test_what_it_refuses_never_appears(self, tmp_path, make):
        def refuse(_):
            assert not (tmp_path / "a").exists()
            raise VerificationError("not the same")

        with pytest.raises(VerificationError), make(tmp_path / "a", check=refuse):
            pass
        assert left_over(tmp_path) == []

    def test_an_error_of_the_disk_is_not_lost(self, tmp_path, monkeypatch):
        """A flush that fails while more is being written has to be told in the end."""
        failing = [OSError(errno.EIO, "Input/output error")]
        monkeypatch.setattr(_new_files, "EARLY_SYNC_BYTES", 1)
        monkeypatch.setattr(os, "fsync", lambda _: failing and (_ for _ in ()).throw(failing.pop()))

        def write_slowly():
            with new_file(tmp_path / "a") as file:
                file.write(b"abc")
                file.flush()
                until = time.monotonic() + 5
                while failing and time.monotonic() < until:
                    time.sleep(0.01)

        with pytest.raises(TfthawError, match="cannot write it: Input/output error"):
            write_slowly()
        assert left_over(tmp_path) == []
