"""Several GPUs on paper: the formulas of benchmarks/scaling.py by hand, on numbers that can be checked."""

from types import SimpleNamespace

import pytest

from benchmarks.scaling import CLUSTERS, Cluster, Counted, count, memory_gib, traffic_seconds
from train.plan import Kept, Sizes

SIZES = Sizes(
    frozen=1_000,
    trained=100,
    trained_text=60,
    unit=10,
    on_the_way=40,
    rest=5,
    once=20,
    bytes=2,
    trained_in_float32=True,
)
NOTHING = Kept(activations=0.0, logits=0.0, in_vision=0.0, in_block=0.0)
COUNTED = Counted(sizes=SIZES, executed=1.0, kept=NOTHING, recipe=SimpleNamespace())
TWO_NODES = Cluster(n=8, node=4, inside=10.0, between=2.0)


def test_inside_one_node_traffic_is_bytes_over_its_link() -> None:
    """ddp on 4: a ring receives 2 x 3/4 of 4 bytes per trained weight."""
    assert traffic_seconds(COUNTED, "ddp", Cluster(n=4, node=4, inside=10.0)) == pytest.approx(2 * 0.75 * 400 / 10)


def test_over_several_nodes_a_ring_is_as_slow_as_its_slowest_link() -> None:
    """zero3 on 8: 7/8 of twice all weights in bfloat16, 20 of them once, and of float32 gradients."""
    bytes_ = 7 / 8 * (2 * (2 * 1_100 - 20) + 4 * 100)
    assert traffic_seconds(COUNTED, "zero3", TWO_NODES) == pytest.approx(bytes_ / 2.0)


def test_hsdp_keeps_weights_inside_a_node_and_shares_the_network_for_gradients() -> None:
    inside = 3 / 4 * (2 * (2 * 1_100 - 20) + 4 * 100)
    between = 2 * 0.5 * 400 / 4  # of one GPU; the node's four share its network
    expected = inside / 10.0 + 4 * between / 2.0
    assert traffic_seconds(COUNTED, "hsdp", TWO_NODES) == pytest.approx(expected)
    assert expected < traffic_seconds(COUNTED, "zero3", TWO_NODES)


def test_the_published_model_with_lora() -> None:
    """68.72 TFLOP per page if all 512 positions have a vocabulary; here 64 do. 21 GiB before activations on 8."""
    counted = count("11b", "lora")
    without = 3 * 2 * 4096 * 128_256 * (512 - 64)  # forward, recomputed as counted, and the gradient of its input
    assert counted.executed == pytest.approx(4 * (68.72e12 - without), rel=1e-3)
    eight = CLUSTERS["8 NVLink"]
    assert 21 < memory_gib(counted, "zero2", eight) < 28
    assert memory_gib(counted, "zero3", eight) < 12
