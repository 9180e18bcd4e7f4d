"""torchrun itself: a rank that dies, restarts, two agents, other launchers' variables. Real processes, so slow."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
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


def launch(
    config: RunConfig, root: Path, *options: str, inside: Sequence[str] = (), **variables: str
) -> subprocess.Popen[str]:
    """torchrun, started by the words `inside`, with these variables in its environment."""
    path = Path(config.out) / "recipe.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(to_toml(config))
    torchrun = [*inside, sys.executable, "-m", "torch.distributed.run"]
    command = [*torchrun, *options, "-m", "train", "run", "--recipe", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    return subprocess.Popen(
        command, cwd=root, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def alone(config: RunConfig, out: Path, n_ranks: int = 2) -> list[float]:
    """The losses of one process that does the work of n_ranks."""
    batch = replace(config.batch, accumulate=n_ranks)
    folder = run(replace(config, out=str(out), batch=batch, shard=ShardConfig(strategy="none")))
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
    waiting, dying = workers_of(agent.pid)
    os.kill(dying, signal.SIGKILL)
    killed = time.monotonic()
    while waiting in workers_of(agent.pid) and time.monotonic() - killed < 60:
        time.sleep(0.1)
    assert time.monotonic() - killed < 35  # torchrun gives the others thirty seconds
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


def two_steps(config: RunConfig) -> RunConfig:
    return replace(config, optim=replace(config.optim, steps=2))


def test_two_agents_train_together(tmp_path: Path, checkpoint: Path, root: Path) -> None:
    """Two nodes of one rank each under hsdp, which meet on loopback."""
    config, port = two_steps(recipe(tmp_path / "runs", checkpoint, "hsdp", group=1)), free_port()
    options = ["--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "test"]
    agents = [launch(config, root, *options, "--rdzv-endpoint", f"127.0.0.1:{port}") for _ in range(2)]
    ends = [agent.communicate(timeout=500) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], ends
    losses = [line["loss"] for line in read_log(config.folder)]
    assert losses == pytest.approx(alone(config, tmp_path / "alone"), rel=1e-5)


ADDRESSES = ("10.213.7.1", "10.213.7.2")  # known inside the two namespaces only


def ip(*words: str) -> str:
    """What `ip` prints; skips the test, with its reason, if it refuses."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"network namespaces cannot be made here: ip {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


@pytest.fixture
def two_nodes() -> Iterator[list[str]]:
    """Names of two network namespaces, joined by a cable; nothing else is reachable from them. They are removed."""
    if shutil.which("ip") is None:
        pytest.skip("network namespaces cannot be made here: there is no program `ip`")
    names = [f"minimllama-{os.getpid()}-{letter}" for letter in "ab"]
    made = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", "cable")
            for device in ("cable", "lo"):
                ip("-n", name, "link", "set", device, "up")
            ip("netns", "exec", name, "true")
        yield names
    finally:
        for name in made:  # the cable goes with its ends
            for process in ip("netns", "pids", name).split():
                os.kill(int(process), signal.SIGKILL)
            ip("netns", "delete", name)


def test_two_agents_in_two_network_namespaces_train_together(
    two_nodes: list[str], tmp_path: Path, checkpoint: Path, root: Path
) -> None:
    """Two nodes of two ranks under hsdp: weights spread inside a node, gradients summed over the cable."""
    config = two_steps(recipe(tmp_path / "runs", checkpoint, "hsdp", group=2))
    options = ["--nnodes", "2", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-id", "test"]
    options += ["--rdzv-endpoint", f"{ADDRESSES[0]}:29500"]
    agents = []
    for name, address in zip(two_nodes, ADDRESSES, strict=True):
        own = ["--local-addr", address, "--rdzv-conf", f"is_host={int(address == ADDRESSES[0])}"]
        inside = ("ip", "netns", "exec", name)
        agents.append(launch(config, root, *options, *own, inside=inside, GLOO_SOCKET_IFNAME="cable"))
    ends = [agent.communicate(timeout=500) for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], ends
    assert "on each of 4 ranks, hsdp" in "".join(out for out, _ in ends)
    for name in two_nodes:  # most of what they sent each other went over the cable: each received the other's gradients
        received = int(ip("netns", "exec", name, "cat", "/sys/class/net/cable/statistics/rx_bytes"))
        assert received > 100_000
    losses = [line["loss"] for line in read_log(config.folder)]
    assert losses == pytest.approx(alone(config, tmp_path / "alone", n_ranks=4), rel=1e-5)
