"""Pages that are drawn once and kept on disk: a record's tiles and what is known about it, in one SQLite file.

Drawing a page costs more than a small model needs to learn from it, and every epoch asks new questions about the
same page. Several processes may read and fill one file.

Shapes: n tiles in use, S tile side.
"""

import json
import os
import sqlite3
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from train.ecg import EcgRecord
from train.ecg.record import record_from_note, record_note

_TABLES = """
CREATE TABLE IF NOT EXISTS about (description TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS pages (number INTEGER PRIMARY KEY, ratio INTEGER NOT NULL, side INTEGER NOT NULL,
                                  tiles BLOB NOT NULL, hz REAL NOT NULL, record TEXT NOT NULL);
"""


class PageCache:
    """Tiles of the pages of one component, by the number of the record.

    Args:
        path: of the file; made if it is not there.
        description: of everything that decides the pixels (source, style, tiles, seed).

    Raises:
        ValueError: if the file was filled under another description.
    """

    def __init__(self, path: str | Path, description: dict[str, Any]) -> None:
        self.path, self.description = Path(path), json.dumps(description, sort_keys=True)
        self._connection: sqlite3.Connection | None = None
        self._owner = -1
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = self._open()
        with connection:
            connection.executescript(_TABLES)
            stated = connection.execute("SELECT description FROM about").fetchone()
            if stated is None:
                connection.execute("INSERT INTO about VALUES (?)", (self.description,))
            elif stated[0] != self.description:
                raise ValueError(f"{path} holds pages of {stated[0]}, not of {self.description}; name another file")

    def _open(self) -> sqlite3.Connection:
        """A connection of this process: SQLite's must not cross a fork."""
        if self._connection is None or self._owner != os.getpid():
            self._connection, self._owner = sqlite3.connect(self.path, timeout=60), os.getpid()
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = OFF")  # a lost page is drawn again
        return self._connection

    def __getstate__(self) -> dict[str, Any]:
        """Without the connection, so that the cache can go to a worker."""
        return {**self.__dict__, "_connection": None}

    def read(self, number: int) -> tuple[np.ndarray, int, EcgRecord] | None:
        """uint8 tiles [n, 3, S, S], aspect ratio id, and the record without its signal; None if it is not there."""
        columns = "ratio, side, tiles, hz, record"
        row = self._open().execute(f"SELECT {columns} FROM pages WHERE number = ?", (number,)).fetchone()
        if row is None:
            return None
        ratio, side, packed, hz, note = row
        tiles = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(-1, 3, side, side)
        return tiles, ratio, record_from_note(json.loads(note), np.empty((12, 0), np.float32), hz)

    def write(self, number: int, tiles: np.ndarray, ratio: int, record: EcgRecord) -> None:
        """Keep a page; the first one written stays."""
        note = json.dumps(record_note(replace(record, signal=record.signal[:, :0])))
        packed = zlib.compress(np.ascontiguousarray(tiles).tobytes(), 1)
        with self._open() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO pages VALUES (?, ?, ?, ?, ?, ?)",
                (number, ratio, tiles.shape[-1], packed, record.hz, note),
            )
