"""An index of a data set: made once, then any of a million records is found with one look-up.

One SQLite file beside the data. Its name holds a hash of what it was made from (files with size and time, options
that decide what is in it), so a changed data set gets a new one. Several processes may open it; one makes it.
"""

import csv
import fcntl
import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SPLITS = ("train", "validate", "test")
Progress = Callable[[str, int, int | None], None]  # what is read, how many so far, of how many if that is known
_TABLES = """
CREATE TABLE records (split TEXT, number INTEGER, record TEXT, patient TEXT, note TEXT, PRIMARY KEY (split, number));
CREATE TABLE parts (owner TEXT, value TEXT);
CREATE INDEX parts_of ON parts (owner);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT);
"""
_REPORT_EVERY = 2000
_KEPT_UNMAPPED = 1000


def split_of_patient(patient: str) -> str:
    """80 % train, 10 % validate, 10 % test: a function of the patient alone, for sets that publish no split.

    Args:
        patient: qualified by the data set, such as "mimic_iv_ecg:10000032".
    """
    share = int.from_bytes(hashlib.sha256(patient.encode()).digest()[:8]) / 2**64
    return SPLITS[(share >= 0.8) + (share >= 0.9)]


def file_stamp(path: Path) -> list[Any]:
    """Name, size and time of a file, for an index's description.

    Raises:
        FileNotFoundError: if it is not there.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path}")
    stat = path.stat()
    return [path.name, stat.st_size, stat.st_mtime_ns]


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Put the record in front of what goes wrong while it is read."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{where}: {error}") from error
    except (ValueError, OSError, KeyError, SyntaxError) as error:
        raise ValueError(f"{where}: {error}") from error


def find_files(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """All files below a folder whose names end so, in order of their paths; linked folders are entered, each once."""
    found: list[Path] = []
    seen: set[str] = set()
    own, linked = [(str(folder), os.path.realpath(folder))], []  # how a folder was reached, and where it is
    while own or linked:
        here, real = own.pop() if own else linked.pop(linked.index(min(linked)))
        if real in seen:
            continue
        seen.add(real)
        with os.scandir(here) as entries:
            for entry in entries:
                if not entry.is_dir():
                    found += [Path(entry.path)] if entry.name.endswith(endings) else []
                elif entry.is_symlink():
                    linked.append((entry.path, os.path.realpath(entry.path)))
                elif entry.name != "lost+found":  # of the file system, and not for us to read
                    own.append((entry.path, f"{real}/{entry.name}"))
    return sorted(found)


def read_table(path: Path, needed: Iterable[str]) -> Iterator[dict[str, str]]:
    """Rows of a CSV file, with or without a byte order mark.

    Raises:
        ValueError: if a needed column is missing, the file is not UTF-8, or a row has more or fewer cells than the
            first line, as where a download stopped; it says where.
    """
    with path.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines)
        try:
            if missing := sorted(set(needed) - set(rows.fieldnames or ())):
                raise ValueError(f"{path} has no column {', '.join(missing)}")
            for row in rows:
                if None in row or None in row.values():
                    raise ValueError(f"{path}, line {rows.line_num}: not as many cells as in the first line")
                yield row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}, after line {rows.line_num}: {error}") from error


class IndexWriter:
    """What fills an index.

    Args:
        connection: to a new database.
        progress: told how many records were read.
    """

    def __init__(self, connection: sqlite3.Connection, progress: Progress | None) -> None:
        self._connection, self._progress = connection, progress
        self._counts: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.unmapped: Counter[str] = Counter()

    def add(self, split: str, record: str, patient: str | None, note: Mapping[str, Any]) -> None:
        """Append a record to a split. `record` and `patient` are unique over all data sets ("ptbxl:17")."""
        row = (split, self._counts[split], record, patient, json.dumps(note))
        self._connection.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?)", row)
        self._counts[split] += 1

    def put(self, owner: str, value: Any) -> None:
        """Append something to what is known about an owner."""
        self._connection.execute("INSERT INTO parts VALUES (?, ?)", (owner, json.dumps(value)))

    def get(self, owner: str) -> list[Any]:
        """All that was put there."""
        rows = self._connection.execute("SELECT value FROM parts WHERE owner = ? ORDER BY rowid", (owner,))
        return [json.loads(value) for (value,) in rows]

    def owners(self) -> Iterator[str]:
        """Everything that something was put to, in the order of the first time."""
        query = "SELECT owner FROM parts GROUP BY owner ORDER BY MIN(rowid)"
        return (owner for (owner,) in self._connection.execute(query))

    def notes(self) -> Iterator[dict[str, Any]]:
        """What is noted about each record that was added."""
        return (json.loads(note) for (note,) in self._connection.execute("SELECT note FROM records"))

    def forget(self) -> None:
        """Drop all that was put: it was only needed to make the index."""
        self._connection.execute("DELETE FROM parts")

    def watch(self, what: str, values: Iterable[Any], total: int | None = None) -> Iterator[Any]:
        """The values, while progress is reported."""
        done = 0
        for value in values:
            yield value
            done += 1
            if self._progress and done % _REPORT_EVERY == 0:
                self._progress(what, done, total)
        if self._progress:
            self._progress(what, done, done)

    def finish(self) -> None:
        """Write what was counted."""
        most = dict(self.unmapped.most_common(_KEPT_UNMAPPED))
        sizes = [len(self.unmapped), self.unmapped.total()]
        facts = {"counts": self._counts, "left_out": self.left_out, "unmapped": most, "n_unmapped": sizes}
        rows = [(name, json.dumps(value)) for name, value in facts.items()]
        self._connection.executemany("INSERT INTO facts VALUES (?, ?)", rows)


class RecordIndex:
    """A finished index; see `open_index`.

    Attributes:
        left_out: records of the data set that are not in the index, by reason.
        unmapped: labels that could not be mapped, with their number: the 1000 most frequent ones.
        n_unmapped: how many there are, and how often they came, all of them.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection: sqlite3.Connection | None = None
        self._owner = -1
        try:
            rows = self._open().execute("SELECT name, value FROM facts").fetchall()
        except sqlite3.DatabaseError as error:
            raise ValueError(f"index {path}: damaged ({error}); delete it, and it is made again") from error
        facts = {name: json.loads(value) for name, value in rows}
        self._counts: dict[str, int] = facts["counts"]
        self.left_out: dict[str, int] = facts["left_out"]
        self.unmapped: dict[str, int] = facts["unmapped"]
        self.n_unmapped: tuple[int, int] = tuple(facts["n_unmapped"])

    def _open(self) -> sqlite3.Connection:
        """A connection of this process: SQLite's must not cross a fork."""
        if self._connection is None or self._owner != os.getpid():
            uri = f"{self.path.resolve().as_uri()}?mode=ro&immutable=1"
            self._connection, self._owner = sqlite3.connect(uri, uri=True), os.getpid()
        return self._connection

    def __getstate__(self) -> dict[str, Any]:
        """Without the connection, so that it can go to a worker."""
        return {**self.__dict__, "_connection": None}

    def count(self, split: str) -> int:
        """Records of a split."""
        return self._counts.get(split, 0)

    def record(self, split: str, number: int) -> tuple[str, dict[str, Any]]:
        """A record's unique name, and what is noted about it."""
        query = "SELECT record, note FROM records WHERE split = ? AND number = ?"
        name, note = self._open().execute(query, (split, number)).fetchone()
        return name, json.loads(note)

    def parts(self, owner: str) -> list[Any]:
        """What was put to an owner."""
        rows = self._open().execute("SELECT value FROM parts WHERE owner = ? ORDER BY rowid", (owner,))
        return [json.loads(value) for (value,) in rows]

    def names(self, split: str) -> Iterator[tuple[str, str | None]]:
        """(record, patient) of all records of a split, in order."""
        query = "SELECT record, patient FROM records WHERE split = ? ORDER BY number"
        yield from self._open().execute(query, (split,))


def open_index(
    folder: Path,
    name: str,
    description: Any,
    build: Callable[[IndexWriter], None],
    progress: Progress | None = None,
) -> RecordIndex:
    """Open an index, made first if it is not there.

    Args:
        folder: where it stands.
        name: of the source.
        description: of all that decides what is in it, as JSON types.
        build: fills it.
        progress: told how far it is.

    Raises:
        OSError: if it has to be made and the folder cannot be written to, or is full; it says what to do.
    """
    digest = hashlib.sha256(json.dumps([2, description], sort_keys=True).encode()).hexdigest()[:12]
    path = folder / f"minimllama-{name}-{digest}.sqlite"
    if path.exists():
        return RecordIndex(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(path.with_suffix(".lock"), "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise PermissionError(f"cannot write the index {path} ({error}); name another folder: index=...") from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes one builds, the others wait and find it
        if not path.exists():
            _build(path, build, progress)
    path.with_suffix(".lock").unlink(missing_ok=True)
    return RecordIndex(path)


def _build(path: Path, build: Callable[[IndexWriter], None], progress: Progress | None) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    connection = sqlite3.connect(unfinished)
    connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLES)
    writer = IndexWriter(connection, progress)
    try:
        build(writer)
        writer.finish()
        connection.commit()
        connection.execute("VACUUM")  # what was only needed on the way
    except BaseException as error:
        connection.close()
        unfinished.unlink(missing_ok=True)
        if isinstance(error, sqlite3.OperationalError):  # such as a full disk
            raise OSError(f"cannot write the index {path} ({error}); name another folder: index=...") from error
        raise
    connection.close()
    unfinished.rename(path)
