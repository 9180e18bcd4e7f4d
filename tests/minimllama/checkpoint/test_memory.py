"""Loading holds one copy of the weights and one tensor."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.measure_loading import LAYOUTS

CONSTANT = 20 * 10**6  # bytes that do not grow with the model: headers, allocator, code imported on the way


@pytest.fixture(scope="module")
def measured(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Bytes; one process writes 300 MB of random weights in all layouts and loads them."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("the peak of the resident memory is measured in /proc, which is not here")
    folder = tmp_path_factory.mktemp("weights")
    command = [sys.executable, str(root / "tests/tools/measure_loading.py"), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=False)
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_peak_while_loading_is_the_weights_and_one_tensor(measured: dict[str, int], layout: str) -> None:
    assert measured["weights"] > 300 * 10**6 > 8 * measured["largest"]
    assert measured[layout] < measured["weights"] + measured["largest"] + CONSTANT
