"""Pictures with dialogs: ECGInstruct, ECGBench, and whatever has their layout (LLaVA's), in folders, tar or parquet.

A record is one picture with all dialogs about it. The pictures are used as they are; nothing is drawn.
https://huggingface.co/datasets/PULSE-ECG/ECGInstruct, https://huggingface.co/datasets/PULSE-ECG/ECGBench.
"""

import io
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from train.ecg.sources.conversation_files import ParquetRows, has_pictures, item_at, read_files, read_items
from train.ecg.sources.index import SPLITS, IndexWriter, Progress, file_stamp, open_index
from train.ecg.sources.indexed import IndexedSource, choose, need_root
from train.ecg.sources.shards import Shards

ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "model": "assistant",
    "system": "system",
}  # fmt: skip
TURN_KEYS = (("from", "value"), ("role", "content"))
DIALOG_KEYS = ("conversations", "conversation", "messages")
IMAGE_KEYS = ("image", "image_path", "images")

Turn = tuple[str, str]  # (role, text); roles are system, user, assistant


@dataclass(frozen=True, kw_only=True)
class Dialog:
    """Turns about a picture; the first user turn shows it.

    Attributes:
        record_id: the picture.
        turns: (role, text), the last one by the assistant.
        task: for logs and tables.
    """

    record_id: str
    turns: tuple[Turn, ...]
    task: str = "conversation"


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A page that is a picture already, and what is said about it.

    Attributes:
        image: PIL RGB.
        record_id: the picture's path without its suffix.
        dialogs: at least one.
        patient_id: where the path tells.
        split: "train", "validate" or "test".
        meta: the ids of the items.
    """

    image: Image.Image
    record_id: str
    dialogs: tuple[Dialog, ...]
    patient_id: str | None = None
    split: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


def read_turns(item: dict[str, Any]) -> tuple[Turn, ...]:
    """The turns of an item in any of the published spellings, `<image>` taken out.

    Raises:
        ValueError: for a role, a key or an order of turns that is none of them.
    """
    key = next((key for key in DIALOG_KEYS if item.get(key)), None)
    if key is None:
        raise ValueError(f"no {' or '.join(DIALOG_KEYS)}; there are {', '.join(item)}")
    turns: list[Turn] = []
    for turn in item[key]:
        if "question" in turn and "answer" in turn:  # ECGBench's arena
            turns += [("user", _text(turn["question"])), ("assistant", _text(turn["answer"]))]
            continue
        names = next((names for names in TURN_KEYS if names[0] in turn and names[1] in turn), None)
        if names is None:
            raise ValueError(f"a turn has keys {', '.join(turn)}, not from/value, role/content or question/answer")
        role = ROLES.get(str(turn[names[0]]).lower())
        if role is None:
            raise ValueError(f"role {turn[names[0]]!r} is not one of {', '.join(ROLES)}")
        turns.append((role, _text(turn[names[1]])))
    spoken = [role for role, _ in turns if role != "system"]
    if not spoken or len(spoken) % 2 or spoken != ["user", "assistant"] * (len(spoken) // 2):
        raise ValueError(f"turns are {', '.join(role for role, _ in turns)}; expected user and assistant in turn")
    return tuple(turns)


def _text(value: Any) -> str:
    """A turn's text; a list (ECG-QA's answers) is joined, and so are parts with a "type", but for pictures."""
    if isinstance(value, (list, tuple)):
        parts = [part for part in value if not (isinstance(part, dict) and part.get("type") in ("image", "image_url"))]
        texts = [_text(part.get("text")) if isinstance(part, dict) else _text(part) for part in parts]
        return ("\n" if any(isinstance(part, dict) for part in value) else ", ").join(texts)
    if not isinstance(value, str | int | float):
        raise ValueError(f"a turn says {value!r}, which is no text")
    return re.sub(r"\s*<image>\s*", "\n", str(value)).strip()


def image_name(item: dict[str, Any]) -> tuple[str | None, int]:
    """Path of an item's picture, and how many pictures it has."""
    for key in ("image_path", *IMAGE_KEYS):
        value = item.get(key)
        values = value if isinstance(value, (list, tuple)) else [value]
        paths = [entry.get("path") if isinstance(entry, dict) else entry for entry in values if entry]
        if paths and paths[0]:
            return str(paths[0]), len(paths)
    return None, 0


def as_seen(image: Image.Image) -> Image.Image:
    """RGB as a viewer shows it: turned as its EXIF tag says, transparency on white, the upper eight bits of sixteen.

    The same as minimllama.image makes of a file, which this room does without torch.

    Raises:
        ValueError: if the picture's numbers have no known range.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode!r} does not say which number is white; save it in 8 or 16 bits")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        if rgba.getchannel("A").getextrema() != (255, 255):
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, (255, 255, 255, 255)), rgba)
    return image.convert("RGB")


def origin(path: str) -> tuple[str, str | None]:
    """Which record a picture was drawn from, by its path, and its patient where the path tells: unique names."""
    stem = re.sub(r"-\d+$", "", Path(path).stem)
    if match := re.search(r"p\d+/p(\d+)/s\d+/", path):
        return f"mimic_iv_ecg:{stem}", f"mimic_iv_ecg:{match.group(1)}"
    if match := re.fullmatch(r"(\d{5})_[hl]r", stem):
        return f"ptbxl:{int(match.group(1))}", None
    if re.search(r"cod(e)?15", path) and stem.isdigit():
        return f"code15:{int(stem)}", None
    return f"conversations:{stem}", None


class ConversationsSource(IndexedSource[Conversation]):
    """Items from .json (one array), .jsonl and .parquet files; pictures in folders, .tar shards or parquet bytes.

    Args:
        root: the folder, or one file.
        split: which items: those whose "split" field names it, or that lie in a file called "test-...".
        split_of_all: put items that name no split into this one.
        images: folder of the pictures and shards (.tar, .tar.gz, .tgz); the root if empty. If pictures are missing in
            folders and .tar files, the compressed shards are unpacked once, beside the index.
        index: folder of the index; the root if empty.
        progress: told how far the index is.

    Raises:
        ValueError: if an item is not understood (with its file and id) or names no split, or a shard is damaged.
        OSError: if there is no room to unpack the compressed shards; it says what to do.
    """

    name = "conversations"

    def __init__(
        self,
        root: str | Path | None = None,
        split: str = "train",
        split_of_all: str = "",
        images: str = "",
        index: str = "",
        progress: Progress | None = None,
    ) -> None:
        given = need_root(self.name, root)
        choose(self.name, "split_of_all", split_of_all, ("", *SPLITS))
        folder = given if given.is_dir() else given.parent
        self.images = Path(images) if images else folder
        files = read_files(given)
        place = Path(index) if index else folder
        self.shards = Shards(self.images, place)

        def build(writer: IndexWriter) -> None:
            for file in files:
                _add_items(writer, file, folder, split_of_all)
            _add_pictures(writer)
            writer.forget()
            self.shards.add(writer, packed=False)
            whole = {str(file.relative_to(folder)) for file in files if has_pictures(file)}
            if self.shards.packed and _lacks_pictures(writer, self.images, whole):
                self.shards.unpack(progress)
                self.shards.add(writer, packed=True)
                writer.put("unpacked", True)

        stamps = [file_stamp(path) for path in (*files, *self.shards.plain, *self.shards.packed)]
        description = [split_of_all, str(self.images.resolve()), stamps]
        made = open_index(place, self.name, description, build, progress)
        if made.parts("unpacked"):
            self.shards.unpack(progress)  # again, if somebody has removed them
        self._parquet = ParquetRows()
        super().__init__(made, folder, split)

    def _open(self, note: dict[str, Any]) -> Conversation:
        items = [item_at(self.root / file, place, self._parquet) for file, *place in note["items"]]
        record_id = re.sub(r"\.\w+$", "", note["image"])
        return Conversation(
            image=self._picture(note["image"], items[0]),
            record_id=record_id,
            dialogs=tuple(Dialog(record_id=record_id, turns=read_turns(item)) for item in items),
            patient_id=note["patient"] and note["patient"].split(":", 1)[1],
            split=self.split,
            meta={"ids": [item.get("id") for item in items], "image": note["image"], "origin": note["origin"]},
        )

    def _picture(self, name: str, item: dict[str, Any]) -> Image.Image:
        stored = next((item[key]["bytes"] for key in IMAGE_KEYS if isinstance(item.get(key), dict)), None)
        where = f"picture {name}"
        if stored is None:
            path = self.images / name
            if path.is_file():
                stored = path.read_bytes()
            elif inside := self.shards.find(self.index, name):
                shard, start, size = inside
                where = f"picture {name} in {shard}"
                with shard.open("rb") as file:
                    file.seek(start)
                    stored = file.read(size)
            else:
                raise FileNotFoundError(f"no picture {path}, and none of that name in a shard below {self.images}")
        try:
            return as_seen(Image.open(io.BytesIO(stored)))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"{where}: damaged ({error})") from error


def _add_items(writer: IndexWriter, file: Path, folder: Path, split_of_all: str) -> None:
    """Note every item of a file under its split and picture."""
    of_file = re.match(r"(train|validation|validate|test)\b", file.name)
    relative, holds_pictures = file.relative_to(folder), has_pictures(file)
    for at, item in writer.watch(f"index of {file}", read_items(file)):
        name, n_images = image_name(item)
        own = f"{relative.with_suffix('')}/{at[0]}-{at[1]}" if name is None and holds_pictures else None
        if own is not None:  # a picture without a path is told apart by its place
            name, n_images = own, 1
        if name is None or n_images != 1:
            writer.left_out["no picture" if not n_images else "several pictures"] += 1
            continue
        split = item.get("split") or (of_file and of_file.group(1)) or split_of_all
        split = {"validation": "validate", "val": "validate"}.get(split, split)
        try:
            read_turns(item)
            if split not in SPLITS:
                raise ValueError("it names no split; say split_of_all=... for the whole file")
        except ValueError as error:
            raise ValueError(f"{file}, item {item.get('id')!r}: {error}") from error
        of_name = origin(name) if own is None else (f"conversations:{own}", None)
        names = (item["record"], item.get("patient")) if item.get("record") else of_name  # of train.ecg render
        writer.put(f"{split} {name}", {"at": [str(relative), *at], "names": names})


def _add_pictures(writer: IndexWriter) -> None:
    """One record per split and picture, with the places of its items."""
    for owner in writer.owners():
        split, name = owner.split(" ", 1)
        items = writer.get(owner)
        record, patient = items[0]["names"]
        note = {"image": name, "items": [item["at"] for item in items], "patient": patient, "origin": record}
        writer.add(split, record, patient, note)


def _lacks_pictures(writer: IndexWriter, images: Path, whole: set[str]) -> bool:
    """Whether a picture is neither in a folder, nor in a .tar, nor in one of the files that hold their own."""
    for note in writer.watch(f"pictures below {images}", writer.notes()):
        is_inside = any(file in whole for file, *_ in note["items"]) or writer.get(f"picture:{note['image']}")
        if not is_inside and not (images / note["image"]).is_file():
            return True
    return False
