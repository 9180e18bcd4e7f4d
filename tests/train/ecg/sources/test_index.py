"""Indexes: made once by one of several processes, constant to open, whole or absent."""

import multiprocessing
import sqlite3
from pathlib import Path

import pytest

from train.ecg.sources.index import SPLITS, IndexWriter, find_files, open_index, read_table, split_of_patient


def numbers(n: int, journal: Path | None = None):
    """Fills an index with n records; leaves a line in the journal each time it runs."""

    def build(writer: IndexWriter) -> None:
        if journal:
            with journal.open("a") as file:
                file.write("built\n")
        for i in writer.watch("numbers", range(n), n):
            writer.add("train", f"set:{i}", f"set:p{i // 2}", {"i": i})
            writer.put(f"owner:{i % 3}", i)

    return build


def test_records_are_found_by_split_and_number(tmp_path: Path) -> None:
    index = open_index(tmp_path, "numbers", {}, numbers(10))
    assert (index.count("train"), index.count("test")) == (10, 0)
    assert index.record("train", 7) == ("set:7", {"i": 7})
    assert index.parts("owner:1") == [1, 4, 7]
    assert list(index.names("train"))[:3] == [("set:0", "set:p0"), ("set:1", "set:p0"), ("set:2", "set:p1")]


def test_it_is_made_once_for_one_description(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    for description in ({"a": 1}, {"a": 1}, {"a": 2}, {"a": 1}):
        open_index(tmp_path, "numbers", description, numbers(3, journal))
    assert journal.read_text() == "built\nbuilt\n"


def _open(folder: str) -> int:
    return open_index(Path(folder), "numbers", {}, numbers(300, Path(folder) / "journal")).count("train")


def test_of_several_processes_one_makes_it(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(3) as pool:
        assert pool.map(_open, [str(tmp_path)] * 6) == [300] * 6
    assert (tmp_path / "journal").read_text() == "built\n"


def test_a_failed_index_leaves_nothing_and_is_made_again(tmp_path: Path) -> None:
    def fail(writer: IndexWriter) -> None:
        writer.add("train", "set:0", None, {})
        raise ValueError("line 2 is damaged")

    with pytest.raises(ValueError, match="line 2 is damaged"):
        open_index(tmp_path, "numbers", {}, fail)
    assert not list(tmp_path.glob("*.sqlite")) + list(tmp_path.glob("*.part"))
    assert open_index(tmp_path, "numbers", {}, numbers(2)).count("train") == 2


def test_a_look_up_uses_the_key_not_a_scan(tmp_path: Path) -> None:
    index = open_index(tmp_path, "numbers", {}, numbers(10))
    plans = [
        ("SELECT record, note FROM records WHERE split = ? AND number = ?", ("train", 3)),
        ("SELECT value FROM parts WHERE owner = ? ORDER BY rowid", ("owner:1",)),
    ]
    connection = sqlite3.connect(index.path)
    for query, values in plans:
        (plan,) = connection.execute(f"EXPLAIN QUERY PLAN {query}", values)
        assert plan[3].startswith("SEARCH")


def test_progress_says_how_many_of_how_many(tmp_path: Path) -> None:
    told: list[tuple[str, int, int | None]] = []
    open_index(tmp_path, "numbers", {}, numbers(4500), lambda *said: told.append(said))
    assert told == [("numbers", 2000, 4500), ("numbers", 4000, 4500), ("numbers", 4500, 4500)]


def test_of_many_unmapped_labels_the_most_frequent_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    def build(writer: IndexWriter) -> None:
        writer.unmapped.update({f"label {i}": i for i in range(1, 1501)})

    index = open_index(tmp_path, "numbers", {}, build)
    assert (len(index.unmapped), next(iter(index.unmapped.items()))) == (1000, ("label 1500", 1500))
    assert index.n_unmapped == (1500, 1500 * 1501 // 2)


def test_a_split_is_a_function_of_the_patient_alone() -> None:
    found = [split_of_patient(f"set:{i}") for i in range(5000)]
    assert found == [split_of_patient(f"set:{i}") for i in range(5000)]
    shares = [found.count(split) / 5000 for split in SPLITS]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.02)  # three standard deviations of the smaller ones: 0.013
    assert found != [split_of_patient(f"other:{i}") for i in range(5000)]


@pytest.mark.parametrize("n_bytes", [0, 50, 5000])
def test_a_damaged_index_is_named_and_made_again_once_it_is_deleted(tmp_path: Path, n_bytes: int) -> None:
    path = open_index(tmp_path, "numbers", {}, numbers(400)).path
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(ValueError, match=rf"index {path}: damaged .*; delete it, and it is made again"):
        open_index(tmp_path, "numbers", {}, numbers(400))
    path.unlink()
    assert open_index(tmp_path, "numbers", {}, numbers(400)).count("train") == 400


def test_a_folder_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(PermissionError, match=r"cannot write the index .*; name another folder: index="):
        open_index(tmp_path / "file", "numbers", {}, numbers(2))


def test_a_full_disk_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    def build(writer: IndexWriter) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(OSError, match=r"index .*disk is full\); name another folder: index="):
        open_index(tmp_path, "numbers", {}, build)
    assert not list(tmp_path.glob("*.part"))


def test_files_in_linked_folders_are_found_once_and_circles_end(tmp_path: Path) -> None:
    for name in ("a/1.hea", "a/2.dat", "elsewhere/3.hea"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "circle").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "a" / "lost+found").mkdir()
    (tmp_path / "a" / "lost+found" / "4.hea").touch()
    assert find_files(tmp_path / "a", (".hea",)) == [tmp_path / "a" / "1.hea", tmp_path / "a" / "again" / "3.hea"]


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_a_table_may_have_a_byte_order_mark_and_the_line_ends_of_windows(
    tmp_path: Path, start: bytes, end: bytes
) -> None:
    (tmp_path / "t.csv").write_bytes(start + end.join([b"id,text", b'1,"a, b"', b"2,", b""]))
    assert list(read_table(tmp_path / "t.csv", ["id"])) == [{"id": "1", "text": "a, b"}, {"id": "2", "text": ""}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"id,text\n1,a\n2", "line 3: not as many cells as in the first line"),
        (b"id,text\n1,a,b\n", "line 2: not as many cells"),
        (b"text\na\n", "has no column id"),
        (b"", "has no column id"),
        (b"id,text\n1,\xfc\n", "after line 0: .utf-8. codec"),
    ],
)
def test_a_table_that_is_not_whole_says_where(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"t.csv.*{message}"):
        list(read_table(tmp_path / "t.csv", ["id"]))
