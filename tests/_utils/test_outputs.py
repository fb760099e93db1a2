"""Files that commands are told to write."""

import pytest

from lmjax._utils.outputs import check_output


def check(path, ours=lambda path: path.read_text() == "ours"):
    return check_output(path, suffixes=(".txt",), ours=ours, what="one of ours")


def test_new_empty_and_own_files_are_taken(tmp_path):
    path = tmp_path / "a.txt"
    assert check(path) == path
    path.touch()
    assert check(path) == path
    path.write_text("ours")
    assert check(str(path)) == path


def test_what_is_not_ours_is_left_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("mine")
    with pytest.raises(ValueError, match="exists and is not one of ours; it was left as it is"):
        check(path)
    path.write_bytes(b"\xff")  # what cannot be read is not ours either
    with pytest.raises(ValueError, match="exists and is not one of ours"):
        check(path)
    (tmp_path / "b.txt").mkdir()
    for name, message in (
        ("a.csv", r"must end in \.txt; got .*a\.csv"),
        ("no/a.txt", "folder .*no does not exist"),
        ("b.txt", "is a folder"),
        ("x" * 252 + ".txt", r"x\.txt is too long for a file's name; give a shorter one"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            check(tmp_path / name)
    assert path.read_bytes() == b"\xff"
