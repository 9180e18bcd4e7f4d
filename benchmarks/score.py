"""Log-odds of yes against no for 71 questions about one page; transformers runs one forward per question."""

from benchmarks.cases import Case


def _case(tiles: int, goals: dict[str, float]) -> Case:
    return Case(
        name=f"71 labels, {tiles} tile{'s' if tiles > 1 else ''}",
        job="Scoring",
        arguments={"tiles": tiles, "n_timed": 8},
        check={"dtype": "float32", "tiles": tiles, "n_labels": 5},
        goals=goals,
        rounds=3,
    )


CASES = [_case(4, {"score": 50}), _case(1, {})]
