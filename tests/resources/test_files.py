"""Tests replacing files: killed writers, full disks and unwritable folders leave the old files."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from upath import UPath

from ledgerline.dagster.failures import PermanentFailure
from ledgerline.dagster.storage.files import (
    STAGING_LEFTOVER_SECONDS,
    STAGING_PREFIX,
    refuse_one_file_for_two,
    replace_all,
)

NAMES = [f"2013-01-{day:02}.parquet" for day in range(1, 31)]
OLD = b"old" * 1000

# Reports on its standard output when it is about to write, then writes for longer than a moment.
WRITE_BIG_FILES = """
    import sys
    from upath import UPath
    from ledgerline.dagster.storage.files import replace_all

    content = b"new" * 4_000_000
    contents = {UPath(sys.argv[1], name): content for name in sys.argv[2:]}
    print("writing", flush=True)
    replace_all(contents)
"""

WRITE_PAST_THE_FILE_SIZE_LIMIT = """
    import resource, signal, sys
    from upath import UPath
    from ledgerline.dagster.failures import PermanentFailure
    from ledgerline.dagster.storage.files import replace_all

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the limit is then an error of write()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    contents = {UPath(sys.argv[1], name): b"new" * 10_000 for name in sys.argv[2:]}
    try:
        replace_all(contents)
    except PermanentFailure as failure:
        print(failure)
"""

WRITE_AS_NOBODY = """
    import os, sys
    from upath import UPath
    from ledgerline.dagster.failures import PermanentFailure
    from ledgerline.dagster.storage.files import replace_all

    contents = {UPath(sys.argv[1], name): b"new" for name in sys.argv[2:]}
    if os.geteuid() == 0:  # who may write everywhere
        os.seteuid(65534)
    try:
        replace_all(contents)
    except PermanentFailure as failure:
        print(failure)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of a table, with a file for each day."""
    folder = tmp_path / "flights"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(OLD)
    return folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder whose parents everybody may enter, which those of `tmp_path` are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            yield folder
        finally:
            folder.chmod(0o755)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let root mount a disk")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def staging_in(folder: Path) -> list[Path]:
    return list(folder.glob(f"{STAGING_PREFIX}*"))


def child(code: str, folder: Path, names: list[str]) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code), str(folder), *names]


def test_files_are_replaced_together(folder: Path):
    replace_all({UPath(folder, name): name.encode() for name in NAMES})

    assert {file.name: file.read_bytes() for file in folder.iterdir()} == {
        name: name.encode() for name in NAMES
    }


def test_files_that_end_alike_do_not_meet(tmp_path: Path):
    replace_all({UPath(tmp_path, folder, "x.parquet"): folder.encode() for folder in ("a", "b")})

    assert (tmp_path / "a" / "x.parquet").read_bytes() == b"a"
    assert (tmp_path / "b" / "x.parquet").read_bytes() == b"b"


def test_a_folder_where_a_file_should_be_is_named_before_anything_is_replaced(folder: Path):
    (folder / "z.parquet").mkdir()

    with pytest.raises(PermanentFailure) as failure:
        replace_all({UPath(folder, name): b"new" for name in [*NAMES, "z.parquet"]})

    assert f"cannot be written: Is a directory ({folder / 'z.parquet'})" in failure.value.problem
    assert failure.value.remedy.endswith("The existing files are unchanged.")
    assert {(folder / name).read_bytes() for name in NAMES} == {OLD}
    assert staging_in(folder) == []


def test_a_too_long_path_is_not_reported_as_a_full_disk(tmp_path: Path):
    folder = tmp_path.joinpath(*["n" * 250] * 20)

    with pytest.raises(PermanentFailure) as failure:
        replace_all({UPath(folder, "x.parquet"): b"new"})

    assert "cannot be written: File name too long" in failure.value.problem
    assert "Give the asset a shorter key" in failure.value.remedy
    assert "space" not in failure.value.remedy
    assert len(str(failure.value)) < 1500


REPLACE_A_FILE_OF_ANOTHER = """
    import os, sys
    from upath import UPath
    from ledgerline.dagster.failures import PermanentFailure
    from ledgerline.dagster.storage.files import replace_all

    os.seteuid(65534)
    try:
        replace_all({UPath(sys.argv[1], name): b"new" for name in sys.argv[2:]})
    except PermanentFailure as failure:
        print(failure)
"""


def test_a_file_that_cannot_be_replaced_after_others_is_not_called_unchanged(open_folder: Path):
    if os.geteuid() != 0:
        pytest.skip("only root can own the files of others")
    # Every user may write files in such a folder, and replace only their own.
    open_folder.chmod(0o1777)
    for name, owner in zip(NAMES[:3], (65534, 65534, 65533), strict=True):
        (open_folder / name).write_bytes(OLD)
        os.chown(open_folder / name, owner, owner)

    command = child(REPLACE_A_FILE_OF_ANOTHER, open_folder, NAMES[:3])
    writer = subprocess.run(command, capture_output=True, text=True, check=True)

    assert [(open_folder / name).read_bytes() for name in NAMES[:3]] == [b"new", b"new", OLD]
    assert "2 of 3 files had been replaced: materialise all of them again." in writer.stdout
    assert "unchanged" not in writer.stdout


@pytest.fixture
def staging_without_capitals(folder: Path) -> Path:
    """A fake of a disk that takes `A` and `a` for one name: the staging folder is there by both."""
    for name in (f"{STAGING_PREFIX}x", f"{STAGING_PREFIX}x".swapcase()):
        (folder / name).mkdir()
    return folder / f"{STAGING_PREFIX}x"


@pytest.mark.parametrize(("names", "existing"), [(["A", "a"], []), (["A"], ["b", "a"])])
def test_two_names_that_are_equal_on_a_disk_are_refused(
    staging_without_capitals: Path, names: list[str], existing: list[str]
):
    with pytest.raises(
        PermanentFailure, match=r"(A|a) and (a|A) would be the same file: the disk of .*flights ignores case"
    ):
        refuse_one_file_for_two(staging_without_capitals, names, existing)

    refuse_one_file_for_two(staging_without_capitals, ["a", "b"], ["a", "c"])


def test_names_that_differ_by_a_capital_are_separate_files_on_a_case_sensitive_disk(folder: Path):
    replace_all({UPath(folder, name): name.encode() for name in ("A", "a")})

    assert [(folder / name).read_bytes() for name in ("A", "a")] == [b"A", b"a"]


def test_a_missing_folder_is_created(tmp_path: Path):
    replace_all({UPath(tmp_path, "a", "b", "c.json"): b"{}"})

    assert (tmp_path / "a" / "b" / "c.json").read_bytes() == b"{}"


def killed_during_write(folder: Path) -> int:
    """Kill a process that writes big files, and return its status.

    The loop has no pauses: the files are written within milliseconds.
    """
    with subprocess.Popen(child(WRITE_BIG_FILES, folder, NAMES), stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"writing\n"
        while not any(path.stat().st_size for path in folder.glob(f"{STAGING_PREFIX}*/*")):
            assert writer.poll() is None
        writer.kill()
        return writer.wait()


def test_a_killed_write_leaves_the_old_files(folder: Path):
    assert killed_during_write(folder) == -signal.SIGKILL
    assert {(folder / name).read_bytes() for name in NAMES} == {OLD}
    assert sorted(set(folder.iterdir()) - set(staging_in(folder))) == [folder / name for name in NAMES]
    assert len(staging_in(folder)) == 1


def test_a_killed_first_write_leaves_no_file(tmp_path: Path):
    killed_during_write(tmp_path)

    assert list(tmp_path.iterdir()) == staging_in(tmp_path)


def test_files_of_a_killed_write_are_removed_after_a_day(folder: Path):
    yesterdays, todays = folder / f"{STAGING_PREFIX}old", folder / f"{STAGING_PREFIX}new"
    for staging in (yesterdays, todays):
        staging.mkdir()
        (staging / NAMES[0]).write_bytes(b"half")
    long_ago = time.time() - STAGING_LEFTOVER_SECONDS - 60
    os.utime(yesterdays, (long_ago, long_ago))

    replace_all({UPath(folder, NAMES[0]): b"new"})

    assert staging_in(folder) == [todays]
    assert (folder / NAMES[0]).read_bytes() == b"new"


def test_a_full_disk_leaves_the_old_files_and_is_reported(tiny_disk: Path):
    for name in NAMES[:3]:
        (tiny_disk / name).write_bytes(OLD)

    with pytest.raises(PermanentFailure) as failure:
        replace_all({UPath(tiny_disk, name): b"new" * 50_000 for name in NAMES[:3]})

    assert str(failure.value).startswith(f"{tiny_disk} cannot be written: No space left on device (")
    assert "MB free on its disk). Free some space" in str(failure.value)
    assert "LEDGERLINE_DATA" in failure.value.remedy
    assert not failure.value.allow_retries
    assert {file.name: file.read_bytes() for file in tiny_disk.iterdir()} == dict.fromkeys(NAMES[:3], OLD)


def test_a_write_that_the_system_cuts_off_leaves_the_old_files(folder: Path):
    command = child(WRITE_PAST_THE_FILE_SIZE_LIMIT, folder, NAMES)
    writer = subprocess.run(command, capture_output=True, text=True, check=True)

    assert writer.stdout.startswith(f"{folder} cannot be written: File too large (")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == dict.fromkeys(NAMES, OLD)


@pytest.mark.parametrize("below", [(), ("a",), ("a", "b")], ids=["itself", "its parent", "above"])
def test_a_file_where_the_folder_should_be_is_named(tmp_path: Path, below: tuple[str, ...]):
    file = tmp_path / "data"
    file.write_bytes(OLD)
    folder = file.joinpath(*below)

    with pytest.raises(PermanentFailure, match="cannot be written") as failure:
        replace_all({UPath(folder, NAMES[0]): b"new"})

    assert str(folder) in failure.value.problem
    assert file.read_bytes() == OLD


def test_a_folder_without_permission_is_named(open_folder: Path):
    (open_folder / NAMES[0]).write_bytes(OLD)
    open_folder.chmod(0o555)
    command = child(WRITE_AS_NOBODY, open_folder, NAMES[:1])
    writer = subprocess.run(command, capture_output=True, text=True, check=True)

    assert writer.stdout.startswith(f"{open_folder} cannot be written: Permission denied (")
    assert "give it the right permissions" in writer.stdout
    assert [file.read_bytes() for file in open_folder.iterdir()] == [OLD]


def test_two_writers_of_one_folder_do_not_disturb_each_other(folder: Path):
    def write(writer: int) -> None:
        for number in range(100):
            replace_all({UPath(folder / f"{writer}-{number}.parquet"): b"whole"})

    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(write, writer) for writer in range(2)]:
            done.result()

    assert len(list(folder.glob("?-*.parquet"))) == 200
    assert staging_in(folder) == []
