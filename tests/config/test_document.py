"""The configuration file's form: what is read, what is refused and where, how a new one is written."""

from __future__ import annotations

import codecs
import os
import re
import stat
from pathlib import Path

import pytest

from lightkeeper.config import document
from lightkeeper.errors import ConfigFileExists, ConfigUnreadable, ConfigUnwritable
from lightkeeper.system import HAS_MODES
from tests.support.systems import posix_only


def written(folder: Path, data: bytes) -> Path:
    """Return a file with these bytes."""
    file = folder / "config.json"
    file.write_bytes(data)
    return file


@pytest.mark.parametrize(
    "data",
    [
        b'{"key": "\xc3\xa4"}',
        codecs.BOM_UTF8 + b'{"key": "\xc3\xa4"}',
        codecs.BOM_UTF16_LE + '{"key": "ä"}'.encode("utf-16-le"),
        '{"key": "ä"}'.encode("utf-16-be"),
        codecs.BOM_UTF32_LE + '{"key": "ä"}'.encode("utf-32-le"),
        b'\r\n{"key"\t:\r\n"\\u00e4"}\r\n',
    ],
    ids=["utf-8", "utf-8 mark", "utf-16 mark", "utf-16", "utf-32 mark", "white space"],
)
def test_an_object_is_read_in_every_encoding_of_json(tmp_path: Path, data: bytes) -> None:
    """Editors add byte order marks, and those of Windows write UTF-16."""
    assert document.read(written(tmp_path, data)) == (("key", "ä"),)


def test_members_keep_their_order_and_repeats(tmp_path: Path) -> None:
    """Whoever judges the members must see that one is there twice."""
    file = written(tmp_path, b'{"b": 1, "a": [2], "b": {"c": null}}')
    assert document.read(file) == (("b", 1), ("a", [2]), ("b", (("c", None),)))


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [
        (b'{"a": 1,\n "b": }', "2", "7"),
        (b"{'a': 1}", "1", "2"),
        (b'{"a": 1} x', "1", "10"),
        (b'// {"a": 1}', "1", "1"),
        (b'{\n"a": "x', "2", "6"),
        (b'{"a": "line\nend"}', "1", "12"),
        (b"", "1", "1"),
    ],
)
def test_a_fault_in_the_json_is_refused_with_its_place(tmp_path: Path, data: bytes, line: str, column: str) -> None:
    """Line and column lead to the place."""
    with pytest.raises(ConfigUnreadable, match=r"is not JSON|is empty") as caught:
        document.read(written(tmp_path, data))
    assert (caught.value.facts["line"], caught.value.facts["column"]) == (line, column)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b" \n", "is empty"),
        (codecs.BOM_UTF8, "is empty"),
        (b"[]", "holds an array"),
        (b"7", "holds a number"),
        (b"true", "holds a boolean"),
        (b"null", "holds null"),
        (b'"{}"', "holds a string"),
        (b'{"a": "\xff"}', "is not text in utf-8: byte 7"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": ' + b"1" * 5000 + b"}", "a number too long"),
        (b'{"a": "' + b"x" * document.MAX_FILE_BYTES + b'"}', "larger than a configuration"),
    ],
    ids=lambda value: repr(value[:12]),
)
def test_what_is_not_one_object_is_refused(tmp_path: Path, data: bytes, problem: str) -> None:
    """Each says what the file is instead."""
    with pytest.raises(ConfigUnreadable, match=problem):
        document.read(written(tmp_path, data))


def test_a_file_of_the_largest_size_is_read(tmp_path: Path) -> None:
    """The limit itself is within the limit."""
    data = b'{"a": "' + b"x" * (document.MAX_FILE_BYTES - 9) + b'"}'
    assert len(data) == document.MAX_FILE_BYTES
    assert document.read(written(tmp_path, data))[0][0] == "a"


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """The path and the system's reason are named."""
    with pytest.raises(ConfigUnreadable, match=r"absent\.json cannot be read: No such file"):
        document.read(tmp_path / "absent.json")


@posix_only
def test_a_folder_is_refused(tmp_path: Path) -> None:
    """A folder has no content to read."""
    with pytest.raises(ConfigUnreadable, match=r"is not a regular file|Is a directory"):
        document.read(tmp_path)


@posix_only
@pytest.mark.timeout(10)
def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """Opening a pipe that nobody writes to must not hang the agent."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigUnreadable, match="is not a regular file"):
        document.read(tmp_path / "pipe")


@posix_only
def test_an_endless_device_is_refused() -> None:
    """A device is no file, however much it gives."""
    with pytest.raises(ConfigUnreadable, match="is not a regular file"):
        document.read(Path("/dev/zero"))


@pytest.mark.parametrize("path", ["nul\0byte", "surrogate\ud800"] if HAS_MODES else ["nul\0byte"])
def test_a_path_that_no_system_takes_is_refused(path: str) -> None:
    """It is printed in a form that can be printed."""
    with pytest.raises(ConfigUnreadable, match="is not a path") as caught:
        document.read(Path(path))
    assert caught.value.message.isprintable()


def test_a_new_file_is_private_and_reads_back(tmp_path: Path) -> None:
    """What is written is what is read, and only the owner may read it."""
    file = tmp_path / "new.json"
    document.write(file, {"key": "ä"}, replace=False)
    assert not HAS_MODES or stat.S_IMODE(file.stat().st_mode) == 0o600
    assert document.read(file) == (("key", "ä"),)
    assert [path.name for path in tmp_path.iterdir()] == ["new.json"]


def test_an_existing_file_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    """Nothing is overwritten by mistake."""
    file = written(tmp_path, b"old")
    with pytest.raises(ConfigFileExists):
        document.refuse_to_replace(file)
    with pytest.raises(ConfigFileExists):
        document.write(file, {"key": 1}, replace=False)
    assert file.read_bytes() == b"old"
    document.write(file, {"key": 1}, replace=True)
    assert document.read(file) == (("key", 1),)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@posix_only
def test_a_link_that_leads_nowhere_is_not_written_through(tmp_path: Path) -> None:
    """A dangling link is something that lies there."""
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ConfigFileExists):
        document.refuse_to_replace(link)
    with pytest.raises(ConfigFileExists):
        document.write(link, {}, replace=False)
    assert not (tmp_path / "elsewhere.json").exists()


@pytest.mark.parametrize("replace", [False, True])
def test_a_file_in_a_missing_folder_is_refused(tmp_path: Path, replace: bool) -> None:
    """Folders are not made on the way."""
    with pytest.raises(ConfigUnwritable, match="No such file"):
        document.write(tmp_path / "absent" / "new.json", {}, replace=replace)


def test_a_folder_is_never_replaced(tmp_path: Path) -> None:
    """Even --force replaces a file only, and leaves nothing behind."""
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigUnwritable, match=re.escape(str(tmp_path / "folder"))):
        document.write(tmp_path / "folder", {}, replace=True)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
