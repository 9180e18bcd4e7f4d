"""The order of a run: every record as often as its weight says, shuffled, and the same from any position on."""

from collections import Counter

import pytest

from train.mixture import ComponentConfig, Mixture


def epoch(mixture: Mixture, number: int) -> list[tuple[int, int]]:
    n = mixture.epoch_length
    items = [mixture.item(position) for position in range(number * n, (number + 1) * n)]
    return [(item.component, item.index) for item in items]


# equation


def test_weights_say_how_often_a_record_comes_per_epoch() -> None:
    mixture = Mixture([6, 10, 3], [1.0, 0.5, 2.0], seed=1)
    counts = Counter(epoch(mixture, 0))
    assert mixture.epoch_length == 6 + 5 + 6
    assert [counts[0, i] for i in range(6)] == [1] * 6
    assert sorted(counts[1, i] for i in range(10)) == [0] * 5 + [1] * 5
    assert [counts[2, i] for i in range(3)] == [2] * 3


def test_a_fraction_of_rounds_is_spread_evenly() -> None:
    counts = Counter(epoch(Mixture([4], [2.5], seed=1), 0))
    assert sorted(counts.values()) == [2, 2, 3, 3]


def test_a_tiny_weight_still_gives_one_item() -> None:
    assert Mixture([3, 2], [1.0, 0.01], seed=1).counts == [3, 1]


# property


def test_the_order_is_a_function_of_the_seed() -> None:
    assert epoch(Mixture([9, 5], [1, 1], 1), 0) == epoch(Mixture([9, 5], [1, 1], 1), 0)
    assert epoch(Mixture([9, 5], [1, 1], 1), 0) != epoch(Mixture([9, 5], [1, 1], 2), 0)


def test_epochs_hold_the_same_records_in_another_order() -> None:
    mixture = Mixture([9, 5], [1, 1], 1)
    assert sorted(epoch(mixture, 0)) == sorted(epoch(mixture, 3))
    assert epoch(mixture, 0) != epoch(mixture, 3)


def test_half_a_weight_takes_other_halves_in_other_epochs() -> None:
    mixture = Mixture([40], [0.5], 1)
    assert len({frozenset(epoch(mixture, number)) for number in range(4)}) == 4


def test_components_are_mixed_not_appended() -> None:
    components = [component for component, _ in epoch(Mixture([50, 50], [1, 1], 1), 0)]
    assert 15 < sum(components[:50]) < 35


@pytest.mark.parametrize("start", [0, 1, 13, 14, 30])
def test_starting_in_the_middle_gives_the_rest(start: int) -> None:
    straight = [Mixture([9, 5], [1, 1], 1).item(position) for position in range(40)]
    later = Mixture([9, 5], [1, 1], 1)
    assert [later.item(position) for position in range(start, 40)] == straight[start:]


def test_no_two_items_of_a_run_share_a_seed() -> None:
    mixture = Mixture([9, 5], [1, 2], 1)
    assert len({mixture.item(position).seed for position in range(5 * mixture.epoch_length)}) == 5 * 19


@pytest.mark.parametrize(
    ("start", "stop", "size", "lengths"), [(0, 12, 4, [4, 4, 4]), (5, 12, 3, [3, 3, 1]), (3, 3, 2, [])]
)
def test_batches_are_consecutive_items(start: int, stop: int, size: int, lengths: list[int]) -> None:
    mixture = Mixture([9, 5], [1, 1], 1)
    batches = list(mixture.batches(start, stop, size))
    assert [len(batch) for batch in batches] == lengths
    assert [item for batch in batches for item in batch] == [mixture.item(p) for p in range(start, stop)]


# refusal


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"weight": 0}, "component simulated: weight=0 must be positive; leave it out instead"),
        ({"tasks": ()}, "component simulated: tasks must name at least one task"),
        ({"tasks": ("report", "reports")}, "component simulated: tasks reports are not in superclass, statements"),
        ({"label_set": "scp"}, "component simulated: label_set='scp' is not one of superclass, statements"),
    ],
)
def test_an_impossible_component_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ComponentConfig(source="simulated", **fields)
