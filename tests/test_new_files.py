"""Writing files that appear whole, checked and on disk, or not at all."""

import errno
import os
import time

import pytest

from tfthaw import _new_files
from tfthaw._new_files import new_directory, new_file, new_file_set
from tfthaw.errors import OutputExistsError, TfthawError, VerificationError


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

    def test_a_full_disk_is_named(self, tmp_path):
        message = "cannot write it: No space left on device; free space"
        with pytest.raises(TfthawError, match=message), new_file(tmp_path / "x"):
            raise OSError(errno.ENOSPC, "No space left on device")


class TestNewDirectory:
    def test_appears_when_it_is_whole(self, tmp_path):
        target = tmp_path / "saved"
        with new_directory(target) as folder:
            (folder / "variables").mkdir()
            (folder / "variables" / "x").write_bytes(b"1")
            assert not target.exists()
        assert (target / "variables" / "x").read_bytes() == b"1"
        assert left_over(tmp_path) == ["saved"]

    def test_an_empty_directory_is_used_a_full_one_kept(self, tmp_path):
        target = tmp_path / "saved"
        target.mkdir()
        with new_directory(target) as folder:
            (folder / "a").write_bytes(b"1")
        with pytest.raises(OutputExistsError), new_directory(target):
            raise AssertionError("the block must not run")
        with new_directory(target, overwrite=True) as folder:
            (folder / "b").write_bytes(b"2")
        assert left_over(target) == ["b"]
        assert left_over(tmp_path) == ["saved"]

    def test_nothing_is_left_of_a_failure(self, tmp_path):
        with pytest.raises(RuntimeError, match="stop"), new_directory(tmp_path / "saved") as folder:  # noqa: PT012
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


class TestCheck:
    """What was written is looked at before it appears."""

    def test_it_sees_everything_that_was_written(self, tmp_path):
        seen = []
        with new_file(tmp_path / "a", check=lambda written: seen.append(written.read_bytes())) as file:
            file.write(b"abc")
        with new_directory(tmp_path / "d", check=lambda written: seen.append(left_over(written))) as folder:
            (folder / "x").write_bytes(b"1")
        with new_file_set(tmp_path, ["p", "q"], check=lambda written: seen.append(left_over(written))) as folder:
            (folder / "p").write_bytes(b"1")
            (folder / "q").write_bytes(b"2")

        assert seen == [b"abc", ["x"], ["p", "q"]]
        assert left_over(tmp_path) == ["a", "d", "p", "q"]

    @pytest.mark.parametrize("make", [new_file, new_directory])
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
