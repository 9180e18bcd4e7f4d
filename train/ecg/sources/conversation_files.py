"""Items of .json, .jsonl and .parquet files: read once from the start, or one by one at a place.

A place is (start, size) in bytes, or (row group, row) in a parquet file.
"""

import codecs
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from train.ecg.record import need_package
from train.ecg.sources.index import find_files

Place = tuple[int, int]
_CHUNK = 1 << 22  # bytes
_LONGEST_ITEM = 1 << 26  # characters
_SUFFIXES = (".json", ".jsonl", ".parquet")


def read_files(root: Path) -> list[Path]:
    """The files with items at or below a path.

    Raises:
        FileNotFoundError: if there is none.
    """
    files = find_files(root, _SUFFIXES) if root.is_dir() else [root]
    ours = (".manifest.jsonl", "render.json")  # what `train.ecg render` writes beside the items
    files = [path for path in files if not path.name.endswith(ours)]
    if not files:
        raise FileNotFoundError(f"no {', '.join(_SUFFIXES)} below {root}")
    if wrong := [path for path in files if path.suffix not in _SUFFIXES]:
        raise ValueError(f"{wrong[0]} is not one of {', '.join(_SUFFIXES)}")
    return files


def read_items(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """All items of a file with their places; never more than one piece of the file in memory.

    Raises:
        ValueError: if the file is damaged; it says where.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path)
    return _read_lines(path) if path.suffix == ".jsonl" else _read_array(path)


def item_at(path: Path, place: Sequence[int], parquet: "ParquetRows") -> dict[str, Any]:
    """The item at a place.

    Raises:
        FileNotFoundError: if the file is gone.
        ValueError: if there is no item at this place.
    """
    if path.suffix == ".parquet":
        return parquet.row(path, place[0], place[1])
    with path.open("rb") as file:
        file.seek(place[0])
        try:
            return json.loads(file.read(place[1]))
        except ValueError as error:
            raise ValueError(f"{path}, byte {place[0]}: damaged ({error})") from error


def _read_lines(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    start = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    item = json.loads(line)
                except ValueError as error:
                    raise ValueError(f"{path}, line {number}: damaged ({error})") from error
                if not isinstance(item, dict):
                    raise ValueError(f"{path}, line {number}: {str(item)[:40]} is no item")
                yield (start, len(line)), item
            start += len(line)


class _Text:
    """A UTF-8 file as a window of text that knows its place in bytes."""

    def __init__(self, path: Path) -> None:
        self.path, self._file = path, path.open("rb")
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.text, self.start, self.ended = "", 0, False

    def more(self) -> None:
        """Read on."""
        chunk = self._file.read(_CHUNK)
        self.ended = not chunk
        try:
            self.text += self._decoder.decode(chunk, final=self.ended)
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}, before byte {self._file.tell()}: not UTF-8 ({error})") from error

    def skip(self, n: int) -> None:
        """Drop n characters."""
        self.start += len(self.text[:n].encode())
        self.text = self.text[n:]

    def skip_blank(self, separators: str = "") -> None:
        """Drop white space, and separators among it."""
        while True:
            rest = self.text.lstrip(" \t\r\n" + separators)
            if rest or self.ended:
                return self.skip(len(self.text) - len(rest))
            self.skip(len(self.text))
            self.more()


def _read_array(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Items of one JSON array, without reading it as a whole: ECGInstruct.json has 1.34 GB."""
    decoder, window = json.JSONDecoder(), _Text(path)
    window.more()
    window.skip_blank("\ufeff")
    if not window.text.startswith("["):
        raise ValueError(f"{path} must hold one JSON array of items")
    window.skip(1)
    while True:
        window.skip_blank(",")
        if window.text.startswith("]"):
            return
        used, byte = 0, window.start
        for item, begin, end in _complete_items(decoder, window.text):
            byte += len(window.text[used:begin].encode())
            size = len(window.text[begin:end].encode())
            yield (byte, size), item
            used, byte = end, byte + size
        window.skip(used)
        if not used:
            if window.ended or len(window.text) > _LONGEST_ITEM:
                raise ValueError(f"{path}, byte {window.start}: damaged, an item does not end")
            window.more()


def _complete_items(decoder: json.JSONDecoder, text: str) -> Iterator[tuple[Any, int, int]]:
    """Items that stand as a whole in the text, with their first and last characters."""
    at = 0
    while at < len(text) and text[at] == "{":
        try:
            item, end = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            return  # the rest of it is not read yet
        yield item, at, end
        at = end
        while at < len(text) and text[at] in ", \t\r\n":
            at += 1


def _read_parquet(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    file = _open_parquet(path)
    columns = [name for name in file.schema_arrow.names if name != "image"]  # the bytes are not needed here
    for group in range(file.num_row_groups):
        rows = file.read_row_group(group, columns=columns).to_pylist()
        for row, item in enumerate(rows):
            yield (group, row), _plain(item)


def has_pictures(path: Path) -> bool:
    """Whether a file holds its pictures itself."""
    return path.suffix == ".parquet" and "image" in _open_parquet(path).schema_arrow.names


def _plain(item: dict[str, Any]) -> dict[str, Any]:
    """Dialogs may be stored as JSON text."""
    return {key: json.loads(value) if _is_json(key, value) else value for key, value in item.items()}


def _is_json(key: str, value: Any) -> bool:
    return key in ("conversations", "conversation", "messages") and isinstance(value, str)


def _open_parquet(path: Path) -> Any:
    parquet = need_package("pyarrow.parquet", "parquet", f"reading {path}")
    try:
        return parquet.ParquetFile(path)
    except ValueError as error:  # pyarrow.ArrowInvalid
        raise ValueError(f"{path}: damaged ({error})") from error


class ParquetRows:
    """Single rows of parquet files. A row group is read as a whole and kept, so rows in order cost one read each."""

    def __init__(self) -> None:
        self._kept: tuple[tuple[Path, int], list[dict[str, Any]]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the rows, so that it can go to a worker."""
        return {"_kept": None}

    def row(self, path: Path, group: int, row: int) -> dict[str, Any]:
        """One row.

        Raises:
            FileNotFoundError, ValueError: if the file is gone or damaged.
        """
        if self._kept is None or self._kept[0] != (path, group):
            if not path.is_file():
                raise FileNotFoundError(f"no {path}")
            self._kept = ((path, group), _open_parquet(path).read_row_group(group).to_pylist())
        return _plain(self._kept[1][row])
