"""Predicting in parts: part i of n takes records i, i + n, i + 2n, ...; each part is a file of its own that resumes.

Parts are joined in the order of the records, so the joined file does not depend on how many there were.
"""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def parse_shard(text: str) -> tuple[int, int]:
    """Read "1/4" as (1, 4): part 1 of the parts 0 to 3.

    Raises:
        ValueError: if it is not a part of a whole.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or int(match.group(1)) >= int(match.group(2)):
        raise ValueError(f"shard={text!r} must be part/parts, counted from 0, such as 0/4")
    return int(match.group(1)), int(match.group(2))


def shard_path(out: Path, part: int, parts: int) -> Path:
    """The file of a part: predictions.jsonl -> predictions.0-of-4.jsonl; `out` itself if it is whole."""
    return out if parts == 1 else out.with_name(f"{out.stem}.{part}-of-{parts}{out.suffix}")


def missing(source: Any, done: set[str], size: int, part: int = 0, parts: int = 1) -> Iterator[list[Any]]:
    """Batches of the records of a part that are not done yet.

    Raises:
        ValueError: if two records have one name: a run that goes on would take them for the same.
    """
    batch: list[Any] = []
    seen: set[str] = set()
    for index in range(part, len(source), parts):
        record = source[index]
        if record.record_id in seen:
            raise ValueError(f"two records are called {record.record_id!r}; predictions need names of their own")
        seen.add(record.record_id)
        if record.record_id in done:
            continue
        batch.append(record)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def join_shards(out: Path, parts: int) -> Path:
    """Put the parts of a predictions file together, in the order of the records. Done again, it changes nothing.

    Raises:
        FileExistsError: if a file of that name is there and is not these parts joined.
        FileNotFoundError: naming the parts that are not there.
        ValueError: if parts were made with other settings, their sizes are not those of finished parts, or two of them
            have a record of the same name.
    """
    paths = [shard_path(out, part, parts) for part in range(parts)]
    if absent := [path.name for path in paths if not path.is_file()]:
        raise FileNotFoundError(f"{out.parent} lacks {', '.join(absent)}")
    settings = [path.with_suffix(".config.json").read_text() for path in paths]
    if len({json.dumps(json.loads(text), sort_keys=True) for text in settings}) > 1:
        raise ValueError(f"the parts of {out.name} were made with different settings")
    rows = [path.read_text().splitlines() for path in paths]
    sizes = [len(row) for row in rows]
    if sizes != [len(range(part, sum(sizes), parts)) for part in range(parts)]:
        raise ValueError(f"the parts of {out.name} have {sizes} lines: one of them is not finished")
    names = [json.loads(line)["id"] for row in rows for line in row]
    if len(set(names)) < len(names):
        raise ValueError(f"two parts of {out.name} have records of the same name; predictions need names of their own")
    text = "".join(rows[i % parts][i // parts] + "\n" for i in range(sum(sizes)))
    if out.exists() and out.read_text() != text:
        raise FileExistsError(f"{out} exists and is not its {parts} parts joined; name another file, or move it away")
    partial = out.with_suffix(".partial")
    partial.write_text(text)
    out.with_suffix(".config.json").write_text(settings[0])
    os.replace(partial, out)
    return out
