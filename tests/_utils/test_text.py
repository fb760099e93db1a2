"""Names from outside: what is shown of them, cells of tables, names of files."""

import pytest

from lmjax._utils.text import cell, file_stems, one_line, printable, read_text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("cat", "cat"),
        ("été 猫 🐈", "été 猫 🐈"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2Jcat", "\\x1b[2Jcat"),
        ("\x9b31m", "\\x9b31m"),
        ("a\udcffb", "a\\udcffb"),
        ("\u202etac", "\\u202etac"),
        ("a\rb\x00", "a\\rb\\x00"),
        (3, "3"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    assert printable(text) == shown
    printable(text).encode()


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@a", "\t=1"])
def test_no_cell_is_a_formula(text):
    assert cell(text).startswith("'")


@pytest.mark.parametrize("value", [-1, -0.5, None, True, "cat", "a=b", ""])
def test_numbers_and_names_stay_as_they_are(value):
    assert cell(value) is value


def test_different_names_are_different_files():
    names = ["a b", "a:b", "A-b", "plain", "é", "ü", "x" * 400, "x" * 401, "../../etc"]
    stems = file_stems(names)
    assert len({stem.casefold() for stem in stems.values()}) == len(names)
    assert all(len(stem) < 200 and "/" not in stem for stem in stems.values())
    assert stems["plain"] == "plain"
    assert file_stems(["a b"]) == {"a b": "a-b"}


def test_errors_of_libraries_are_one_line():
    assert one_line(ValueError("a\n  b\tc\n")) == "a b c"


def test_text_of_another_encoding_is_named(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffKäse\n".encode())
    assert read_text(path, "classes") == "Käse\n"
    path.write_bytes("Käse".encode("latin-1"))
    with pytest.raises(ValueError, match=r"classes .*a\.txt is no text in UTF-8: inv"):
        read_text(path, "classes")
    with pytest.raises(OSError, match=r"classes .*b\.txt cannot be read: No such file"):
        read_text(tmp_path / "b.txt", "classes")
