import hashlib
import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path

import pytest

from model_training import trees
from model_training.errors import OutputNotFound
from model_training.outputs import list_outputs, open_output, sha256_of


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "model.json").write_text("{}")
    (folder / "deep" / "er" / "weights.bin").write_bytes(b"\0" * 1000)
    (tmp_path / "secret").write_text("secret")
    return folder


def test_files_are_listed_by_path_with_size(output: Path):
    listed = list_outputs(output)

    assert [(file.path, file.size) for file in listed] == [
        ("deep/er/weights.bin", 1000),
        ("model.json", 2),
    ]


def test_a_job_without_an_output_folder_kept_nothing(tmp_path: Path):
    assert list_outputs(tmp_path / "absent") == []


def test_links_and_devices_are_neither_listed_nor_given_out(output: Path, tmp_path: Path):
    (output / "link").symlink_to(tmp_path / "secret")
    (output / "folder").symlink_to(tmp_path)
    os.mkfifo(output / "pipe")

    assert [file.path for file in list_outputs(output)] == ["deep/er/weights.bin", "model.json"]
    for path in ("link", "folder/secret", "pipe", "deep"):
        with pytest.raises(OutputNotFound):
            open_output(output, path)


def test_an_output_folder_that_is_itself_a_link_is_not_followed(tmp_path: Path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "file").write_text("x")
    (tmp_path / "output").symlink_to(tmp_path / "real")

    assert list_outputs(tmp_path / "output") == []
    with pytest.raises(OutputNotFound):
        open_output(tmp_path / "output", "file")


@pytest.mark.parametrize(
    "path",
    [
        "",
        ".",
        "..",
        "../secret",
        "deep/../../secret",
        "/etc/passwd",
        "deep//er",
        "a\0b",
        "\ud800",
        "x" * 5000,
    ],
)
def test_paths_that_climb_out_or_are_none_are_not_found(output: Path, path: str):
    with pytest.raises(OutputNotFound):
        open_output(output, path)


def test_names_that_are_no_text_are_not_listed(output: Path):
    Path(os.fsdecode(os.fsencode(output) + b"/\xff")).write_text("x")

    assert [file.path for file in list_outputs(output)] == ["deep/er/weights.bin", "model.json"]


def test_an_open_file_is_read_by_range_and_digested(output: Path):
    held = open_output(output, "deep/er/weights.bin")
    try:
        (output / "deep" / "er" / "weights.bin").unlink()

        assert b"".join(held.blocks(10, 30)) == b"\0" * 20
        assert (
            sha256_of(held.blocks(0, held.file.size))
            == b64encode(hashlib.sha256(b"\0" * 1000).digest()).decode()
        )
    finally:
        held.close()


def test_files_below_more_folders_than_python_can_recurse_are_listed(output: Path):
    place = os.open(output, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=place)
        inner = os.open("d", os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=place))
    os.close(place)

    try:
        assert "d/" * 1500 + "file" in [file.path for file in list_outputs(output)]
    finally:
        trees.remove(output)  # else pytest must, which cannot
    assert not output.exists()


def test_a_folder_that_cannot_be_searched_hides_only_what_is_in_it(output: Path):
    (output / "deep" / "file").touch()
    (output / "deep").chmod(0o400)
    code = (
        "import sys; from pathlib import Path; from model_training.outputs import list_outputs;"
        "print([file.path for file in list_outputs(Path(sys.argv[1]))])"
    )
    # Root may do everything; without these two capabilities it may do what an owner may.
    as_owner = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    prefix = as_owner if os.getuid() == 0 else []
    told = subprocess.check_output([*prefix, sys.executable, "-c", code, str(output)], text=True)
    assert told == "['model.json']\n"


def test_a_file_closed_under_a_reader_gives_nothing_more(output: Path):
    held = open_output(output, "deep/er/weights.bin")
    blocks = held.blocks(0, 1000)
    held.close()
    held.close()

    assert list(blocks) == []


def test_a_file_of_a_year_that_no_calendar_has_is_listed(output: Path):
    try:
        os.utime(output / "model.json", (1e12, 1e12))
    except (OSError, OverflowError):
        pytest.skip("this file system keeps no such time")

    assert [file.path for file in list_outputs(output)] == ["deep/er/weights.bin", "model.json"]


def test_a_file_written_anew_with_its_old_size_and_date_is_another(output: Path):
    path = output / "model.json"
    found = path.stat()
    held = open_output(output, "model.json")
    while path.stat().st_ctime_ns == found.st_ctime_ns:  # the file system's clock must tick
        path.write_text("[]")
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    again = open_output(output, "model.json")
    try:
        assert again.identity != held.identity
        assert not held.is_unchanged()
    finally:
        held.close()
        again.close()


def test_a_file_being_written_is_not_taken_for_unchanged(output: Path):
    def is_unchanged_after_writing() -> bool:
        (output / "model.json").write_text("[]")
        held = open_output(output, "model.json")
        try:
            return held.is_unchanged()
        finally:
            held.close()

    # More than once, as a busy machine may pause between the writing and the opening.
    assert not all(is_unchanged_after_writing() for _ in range(20))
