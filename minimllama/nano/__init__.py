"""The packaged small checkpoint, in the published file layout, and how checkpoints are named on command lines."""

from pathlib import Path

FOLDER = Path(__file__).parent
NAME = "nano"


def resolve_model(name: str) -> Path:
    """The packaged checkpoint for "nano"; anything else is a folder.

    Raises:
        FileNotFoundError: if there is no such folder.
    """
    if name == NAME:
        return FOLDER
    path = Path(name)
    if not path.is_dir():
        raise FileNotFoundError(f"model={name!r} is neither {NAME!r} nor a folder")
    return path
