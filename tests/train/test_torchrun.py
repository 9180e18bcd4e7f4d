"""torchrun itself: a rank that dies, restarts, two agents, other launchers' variables. Real processes, so slow."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tools.gloo import free_port
from tests.train.conftest import tiny_recipe
from train.checkpoint import latest_checkpoint, verify
from train.config import RunConfig, to_toml
from train.log import read_log
from train.loop import run
from train.shard import ShardConfig

pytestmark = pytest.mark.slow


def recipe(out: Path, model: Path, strategy: str, **shard: int) -> RunConfig:
    """Eight steps of two pages on two ranks, saved after every second."""
    config = tiny_recipe(out, model)
    return replace(
        config,
        optim=replace(config.optim, steps=8),
        tuning=replace(config.tuning, dropout=0.0),
        batch=replace(config.batch, images_per_forward=1, accumulate=1),
        shard=ShardConfig(strategy=strategy, timeout_seconds=60, **shard),
        save=replace(config.save, every=2),
    )


def launch(config: RunConfig, root: Path, *options: str) -> subprocess.Popen[str]:
    path = Path(config.out) / "recipe.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_toml(config))
    command = [sys.executable, "-m", "torch.distributed.run", *options, "-m", "train", "run", "--recipe", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=root, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def alone(config: RunConfig, out: Path) -> list[float]:
    """The losses of one process."""
    folder = run(
        replace(config, out=str(out), batch=replace(config.batch, accumulate=2), shard=ShardConfig(strategy="none"))
    )
    return [line["loss"] for line in read_log(folder)]


def workers_of(agent: int) -> list[int]:
    """Processes that an agent has started, oldest first; the order of the local ranks."""
    listing = subprocess.run(["ps", "-o", "pid=,args=", "--ppid", str(agent)], capture_output=True, text=True).stdout
    return sorted(int(line.split()[0]) for line in listing.splitlines() if "train" in line)


def wait_for_steps(config: RunConfig, n: int, seconds: float = 300) -> None:
    log, ends = config.folder / "log.jsonl", time.monotonic() + seconds
    while time.monotonic() < ends and not (log.exists() and len(log.read_text().splitlines()) >= n):
        time.sleep(0.01)
    assert log.exists(), "the ranks have not begun"


def test_a_rank_that_dies_is_named_and_the_job_starts_again_by_itself(
    tmp_path: Path, checkpoint: Path, root: Path
) -> None:
    config = recipe(tmp_path / "runs", checkpoint, "zero2")
    agent = launch(config, root, "--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    wait_for_steps(config, 3)
    os.kill(workers_of(agent.pid)[1], signal.SIGKILL)
    out, errors = agent.communicate(timeout=500)
    assert agent.returncode == 0, errors
    assert "local_rank: 1" in errors
    assert "exitcode: -9" in errors
    assert "going on from checkpoint-" in out
    losses = [line["loss"] for line in read_log(config.folder)]
    assert losses == pytest.approx(alone(config, tmp_path / "alone"), rel=1e-5)


def test_a_rank_that_hangs_ends_the_job_in_time(tmp_path: Path, checkpoint: Path, root: Path) -> None:
    """The other rank gives up after `timeout_seconds`; torchrun would wait 30 s for the hanging one to end."""
    config = recipe(tmp_path / "runs", checkpoint, "zero2")
    config = replace(config, optim=replace(config.optim, steps=500), shard=replace(config.shard, timeout_seconds=5))
    agent = launch(config, root, "--standalone", "--nproc-per-node", "2")
    wait_for_steps(config, 3)  # the second is saved then
    waiting, hanging = workers_of(agent.pid)
    os.kill(hanging, signal.SIGSTOP)
    stopped = time.monotonic()
    while waiting in workers_of(agent.pid) and time.monotonic() - stopped < 60:
        time.sleep(0.1)
    assert 5 <= time.monotonic() - stopped < 5 + 30
    os.kill(hanging, signal.SIGKILL)
    _, errors = agent.communicate(timeout=60)
    assert agent.returncode != 0
    assert "Timed out waiting 5000ms" in errors
    latest = latest_checkpoint(config.folder)
    assert latest is not None
    verify(latest)
    assert 3 <= read_log(config.folder)[-1]["step"] < 500


def test_two_agents_train_together(tmp_path: Path, checkpoint: Path, root: Path) -> None:
    """Two nodes of one rank each under hsdp, which meet on loopback."""
    config, port = recipe(tmp_path / "runs", checkpoint, "hsdp", group=1), free_port()
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test"]
    agents = [launch(config, root, *options, "--rdzv-endpoint", f"127.0.0.1:{port}") for _ in range(2)]
    ends = [agent.communicate(timeout=500) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], ends
    losses = [line["loss"] for line in read_log(config.folder)]
    assert losses == pytest.approx(alone(config, tmp_path / "alone"), rel=1e-5)
