"""Two kinds of tokenizer.model behind one interface: Meta's tiktoken ranks and SentencePiece models.

Source: llama-models, models/llama3/tokenizer.py. Ordinary text never becomes a special token: whoever writes
"<|eot_id|>" into a question gets the characters. Each library is imported when a file of its kind is opened, so the
model alone runs where neither is installed.
"""

import base64
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
PAD, EOM, EOT = "<|finetune_right_pad_id|>", "<|eom_id|>", "<|eot_id|>"
START_HEADER, END_HEADER = "<|start_header_id|>", "<|end_header_id|>"
IMAGE = "<|image|>"
SPECIAL = (BOS, EOS, PAD, START_HEADER, END_HEADER, EOM, EOT)

# Meta's own numbering after the 128,000 ranks. Its <|image|> (128011) is replaced by 128256 before the model.
_LLAMA_SPECIAL = {
    BOS: 128000,
    EOS: 128001,
    PAD: 128004,
    START_HEADER: 128006,
    END_HEADER: 128007,
    EOM: 128008,
    EOT: 128009,
}
_LLAMA_RANKS, _LLAMA_VOCABULARY = 128000, 128256
_LLAMA_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)


class Tokenizer(Protocol):
    """What the rest of the project uses of a tokenizer.

    Attributes:
        special: ids of SPECIAL and of IMAGE. The image token is the first id after the vocabulary: it has an
            embedding and can never be predicted.
        vocabulary: number of ids that can be predicted.
    """

    special: dict[str, int]
    vocabulary: int

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text, without any special token."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are left out."""
        ...


def stop_ids(tokenizer: Tokenizer) -> tuple[int, ...]:
    """Ids that end an answer."""
    return tuple(tokenizer.special[name] for name in (EOT, EOM, EOS))


class TiktokenTokenizer:
    """Meta's tokenizer.model: one line per token, base64 and rank.

    Raises:
        ValueError: if the file is damaged or does not hold Llama 3's 128,000 ranks.
    """

    def __init__(self, path: str | Path) -> None:
        import tiktoken

        ranks: dict[bytes, int] = {}
        for number, line in enumerate(Path(path).read_bytes().splitlines(), start=1):
            try:
                token, rank = line.split()
                ranks[base64.b64decode(token)] = int(rank)
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: not a token and its rank: {line[:40]!r}") from error
        if len(ranks) != _LLAMA_RANKS or set(ranks.values()) != set(range(_LLAMA_RANKS)):
            raise ValueError(f"{path} holds {len(ranks)} ranks, not Llama 3's {_LLAMA_RANKS}")
        self.vocabulary = _LLAMA_VOCABULARY
        self.special = {**_LLAMA_SPECIAL, IMAGE: _LLAMA_VOCABULARY}
        self._encoding = tiktoken.Encoding(
            "llama3", pat_str=_LLAMA_PATTERN, mergeable_ranks=ranks, special_tokens=_LLAMA_SPECIAL
        )

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text, without any special token."""
        return self._encoding.encode_ordinary(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are left out."""
        return self._encoding.decode([i for i in ids if i < _LLAMA_RANKS])


class SentencePieceTokenizer:
    """A SentencePiece model whose control symbols are named like Llama's special tokens.

    Raises:
        ValueError: if the file is damaged or lacks one of them.
    """

    def __init__(self, path: str | Path) -> None:
        import sentencepiece

        try:
            self._model = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except RuntimeError as error:
            raise ValueError(f"{path} is not a SentencePiece model: {error}") from error
        self.vocabulary = self._model.get_piece_size()
        self.special = {name: self._model.piece_to_id(name) for name in SPECIAL}
        if missing := [name for name, i in self.special.items() if i == self._model.unk_id()]:
            raise ValueError(f"{path} has no pieces named {', '.join(missing)}")
        self.special[IMAGE] = self.vocabulary

    def encode(self, text: str) -> list[int]:
        """Ids of ordinary text, without any special token."""
        return self._model.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens are left out."""
        named = set(self.special.values())
        return self._model.decode([i for i in ids if i not in named])


def find_tokenizer(folder: str | Path) -> Path:
    """The tokenizer.model in a checkpoint's folder, or in its `original/`.

    Raises:
        FileNotFoundError: if there is none.
    """
    for path in (Path(folder) / "tokenizer.model", Path(folder) / "original" / "tokenizer.model"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"no tokenizer.model in {folder} or its original/; Meta's file ships beside the published weights"
    )


def copy_tokenizer(source: str | Path, target: str | Path) -> None:
    """Put a checkpoint's tokenizer.model beside a rewritten one; nothing happens if the source has none."""
    try:
        path = find_tokenizer(source)
    except FileNotFoundError:
        return
    shutil.copyfile(path, Path(target) / "tokenizer.model")


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Open a tokenizer.model, or the one in a checkpoint's folder (also in its `original/`).

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is neither kind.
    """
    path = find_tokenizer(path) if Path(path).is_dir() else Path(path)
    with path.open("rb") as file:
        first_line = file.readline(200).split()
    is_ranks = len(first_line) == 2 and first_line[1].isdigit()
    return TiktokenTokenizer(path) if is_ranks else SentencePieceTokenizer(path)
