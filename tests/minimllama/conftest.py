"""Reference tensors for the parity tests: a committed set, and bigger ones where the optional files are."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.reference.make_golden import GOLDEN, oracle_script
from tests.tools.golden import Reference

REBUILT = {"another seed": ("11", "published"), "other sizes": ("12", "odd")}
REFERENCES = ("committed", "seed 0", *REBUILT)


@pytest.fixture(scope="session")
def rebuilt_references(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """make_oracle.py run now, with a seed and with sizes that nobody has looked at before."""
    if not oracle_script().is_file():
        pytest.skip(f"{oracle_script()} is not there (set MINIMLLAMA_SHARED)")
    folder = tmp_path_factory.mktemp("oracle")
    paths = {name: folder / name for name in REBUILT}
    command = [sys.executable, str(root / "tests/reference/make_golden.py"), "build", *map(str, paths.values())]
    for seed, sizes in REBUILT.values():
        command += ["--seed", seed, "--sizes", sizes]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return paths


@pytest.fixture(scope="session")
def open_reference(request: pytest.FixtureRequest) -> Callable[[str], Reference]:
    """open_reference(name of REFERENCES): skips the test if its files are absent."""
    opened: dict[str, Reference] = {}

    def find(name: str) -> Path:
        if name == "committed":
            return GOLDEN
        if name in REBUILT:
            return request.getfixturevalue("rebuilt_references")[name]
        folder = request.getfixturevalue("shared") / "parity" / "oracle_seed0"
        if not folder.is_dir():
            pytest.skip(f"{folder} is not there")
        return folder

    def get(name: str) -> Reference:
        if name not in opened:
            opened[name] = Reference(find(name))
        return opened[name]

    return get


@pytest.fixture(params=REFERENCES)
def reference(request: pytest.FixtureRequest, open_reference: Callable[[str], Reference]) -> Reference:
    """Every set of reference tensors, the small committed one included."""
    return open_reference(request.param)


@pytest.fixture(params=REFERENCES[1:])
def full_reference(request: pytest.FixtureRequest, open_reference: Callable[[str], Reference]) -> Reference:
    """Only the sets that hold everything: states of every layer, gradients, native checkpoints, images."""
    return open_reference(request.param)
