"""Pictures in tar shards: where each begins, so that one is read without the others.

In a compressed shard nothing can be found without unpacking all that stands before it. Such shards are unpacked once,
one after the other, into a folder beside the index; the published files are left as they are.
"""

import fcntl
import gzip
import os
import shutil
import tarfile
import zlib
from pathlib import Path

from train.ecg.sources.index import IndexWriter, Progress, RecordIndex, find_files

UNPACKED = "minimllama-unpacked"  # folder beside the index
_PACKED = (".tar.gz", ".tgz")
_CHUNK = 1 << 22  # bytes
_SAMPLE = 1 << 24  # bytes that are looked at to tell how large a compressed shard becomes
_REPORT_EVERY = 50 * 10**6  # bytes


class Shards:
    """All .tar, .tar.gz and .tgz files below a folder; a compressed one that lies beside its own .tar is passed over.

    Args:
        images: the folder.
        index_folder: where compressed ones are unpacked to, into a folder of its own.

    Attributes:
        plain, packed: the files.
    """

    def __init__(self, images: Path, index_folder: Path) -> None:
        self.images, self.index_folder = images, index_folder
        found = [path for path in find_files(images, (".tar", *_PACKED)) if UNPACKED not in path.parts]
        self.plain = sorted(path for path in found if path.suffix == ".tar")
        packed = sorted(path for path in found if path.name.endswith(_PACKED))
        self.packed = [path for path in packed if _without_suffix(path).with_suffix(".tar") not in self.plain]

    def place_of(self, shard: Path) -> Path:
        """Where a compressed shard is unpacked to."""
        relative = shard.relative_to(self.images)
        return self.index_folder / UNPACKED / relative.with_name(f"{relative.name}.tar")

    def add(self, writer: IndexWriter, *, packed: bool) -> None:
        """Note where each picture begins, of the compressed shards (which must be unpacked) or of the others.

        Raises:
            ValueError: if a shard is damaged; it is named.
        """
        for shard in self.packed if packed else self.plain:
            path = self.place_of(shard) if packed else shard
            relative = path.relative_to(self.index_folder if packed else self.images)
            try:
                with tarfile.open(path, "r:") as file:
                    for member in writer.watch(f"index of {shard}", file):
                        if member.isfile():
                            name = member.name.removeprefix("./")
                            writer.put(f"picture:{name}", [str(relative), member.offset_data, member.size])
            except tarfile.TarError as error:
                raise ValueError(f"{shard}: damaged ({error})") from error

    def find(self, index: RecordIndex, name: str) -> tuple[Path, int, int] | None:
        """The tar with a picture, the byte where it begins, and its size; None if it is in no shard."""
        places = index.parts(f"picture:{name}")
        if not places:
            return None
        relative, start, size = places[0]
        is_unpacked = Path(relative).parts[0] == UNPACKED
        return (self.index_folder if is_unpacked else self.images) / relative, start, size

    def unpack(self, progress: Progress | None = None) -> None:
        """Unpack the compressed shards that are not unpacked yet; a stopped run goes on with the shard it was at.

        Raises:
            OSError: if there is no room for all of them; it says how to do without.
            ValueError: if a shard is damaged; it is named.
        """
        folder = self.index_folder / UNPACKED
        if all(_is_unpacked(shard, self.place_of(shard)) for shard in self.packed):
            return
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of several processes one unpacks, the others wait and find all done
            missing = [shard for shard in self.packed if not _is_unpacked(shard, self.place_of(shard))]
            self._need_room(missing, folder)
            for shard in missing:
                _unpack(shard, self.place_of(shard), progress)

    def _need_room(self, shards: list[Path], folder: Path) -> None:
        needed, free = sum(unpacked_size(shard) for shard in shards), shutil.disk_usage(folder).free
        if needed > free:
            command = f"find '{self.images}' \\( -name '*.tar.gz' -o -name '*.tgz' \\) -exec gunzip {{}} \\;"
            raise OSError(
                f"{len(shards)} compressed shards below {self.images} need about {needed / 1e9:.1f} GB in {folder}, "
                f"where {free / 1e9:.1f} GB are free. Name a folder with room, index=..., or replace each of them by "
                f"its .tar, which needs room for one at a time: {command}"
            )


def _without_suffix(path: Path) -> Path:
    return path.with_name(next(path.name.removesuffix(suffix) for suffix in _PACKED if path.name.endswith(suffix)))


def _is_unpacked(shard: Path, place: Path) -> bool:
    """The unpacked file carries the time of the shard that it was made from."""
    return place.is_file() and place.stat().st_mtime_ns == shard.stat().st_mtime_ns


def unpacked_size(shard: Path) -> int:
    """Bytes that a compressed shard becomes; of a large one an estimate from its first 16 MB.

    Raises:
        ValueError: if it is damaged.
    """
    n, size = 0, shard.stat().st_size
    try:
        with shard.open("rb") as raw, gzip.GzipFile(fileobj=raw) as packed:
            while chunk := packed.read(_CHUNK):
                n += len(chunk)
                if _SAMPLE <= raw.tell() < size:
                    return round(n * size / raw.tell())
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{shard}: damaged ({error})") from error
    return n


def _unpack(shard: Path, place: Path, progress: Progress | None) -> None:
    """Whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    unfinished = place.with_name(f"{place.name}.part")
    what, status, told = f"unpacking {shard} to {place}, MB", shard.stat(), 0
    total = status.st_size // 10**6
    try:
        with shard.open("rb") as raw, gzip.GzipFile(fileobj=raw) as packed, unfinished.open("wb") as out:
            while chunk := _read(packed, shard):
                out.write(chunk)
                done = raw.tell()
                if progress and done - told >= _REPORT_EVERY and done // 10**6 < total:
                    progress(what, done // 10**6, total)
                    told = done
        os.utime(unfinished, ns=(status.st_mtime_ns, status.st_mtime_ns))
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    unfinished.rename(place)
    if progress:
        progress(what, total, total)


def _read(packed: gzip.GzipFile, shard: Path) -> bytes:
    try:
        return packed.read(_CHUNK)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{shard}: damaged ({error})") from error
