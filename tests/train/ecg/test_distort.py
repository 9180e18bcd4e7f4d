"""Distortions: boxes and scale follow the pixels, chance comes from the generator, strength 0 changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from train.ecg import DISTORTIONS, LEADS, PRESETS, STYLES, Page, distort, draw_page, simulate_ecg
from train.ecg.distort import _draw_steps, moves

MOVES = list(moves.MOVES)
MARKS = [name for name in DISTORTIONS if name not in MOVES]
SIZE = (420, 300)
SEEDS = range(6)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def marked(size: tuple[int, int] = SIZE) -> Page:
    """White paper with twelve black squares of 9 px, each in the box of a lead, in the inner half of the sheet."""
    pixels = np.full((size[1], size[0], 3), 255, np.uint8)
    boxes = {}
    for i, lead in enumerate(LEADS):
        x, y = round(size[0] * (0.3 + 0.4 * (i % 4) / 3)), round(size[1] * (0.3 + 0.4 * (i // 4) / 2))
        pixels[y - 4 : y + 5, x - 4 : x + 5] = 0
        boxes[lead] = (x - 4.0, y - 4.0, x + 5.0, y + 5.0)
    return Page(image=Image.fromarray(pixels), px_per_mm=4.0, lead_boxes=boxes, style=STYLES["square"])


def squares(page: Page) -> dict[str, tuple[float, float, float, float]]:
    """Where the dark pixels near each box are: x0, y0, x1, y1."""
    dark = np.asarray(page.image.convert("L")) < 110
    found = {}
    for lead, box in page.lead_boxes.items():
        x0, y0, x1, y1 = (round(v + d) for v, d in zip(box, (-8, -8, 8, 8), strict=True))
        rows, columns = np.nonzero(dark[max(y0, 0) : y1, max(x0, 0) : x1])
        left, top = max(x0, 0), max(y0, 0)
        found[lead] = (left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1)
    return found


@pytest.fixture(scope="module")
def page() -> Page:
    return draw_page(simulate_ecg(["LVH"], rng(1), hz=250), replace(STYLES["tile448"], width=456, height=224))


# equation


@pytest.mark.parametrize(
    ("turns", "box"),
    [(1, (270.0, 20.0, 290.0, 50.0)), (2, (370.0, 270.0, 400.0, 290.0)), (3, (10.0, 370.0, 30.0, 400.0))],
)
def test_quarter_turns_by_hand(turns: int, box: tuple[float, ...]) -> None:
    """A box at (20, 10)-(50, 30) of a sheet of 420 x 300."""
    linear = np.linalg.matrix_power(np.array([[0.0, -1.0], [1.0, 0.0]]), turns)
    turn = moves._about_centre(linear, SIZE, SIZE[::-1] if turns % 2 else SIZE)
    assert moves.move_box((20, 10, 50, 30), [turn]) == pytest.approx(box)


def test_four_corners_make_a_homography() -> None:
    before = np.array([[0, 0], [420, 0], [420, 300], [0, 300]], float)
    after = np.array([[17, 5], [400, 22], [411, 280], [3, 291]], float)
    made = moves.Homography(moves._from_corners(before, after), SIZE)
    assert np.abs(made.forward(before) - after).max() < 1e-9
    assert np.abs(made.backward(after) - before).max() < 1e-9


# property: pixels, boxes and scale move together


@pytest.mark.parametrize("name", [*MOVES, "all"])
@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_are_where_the_marks_are(name: str, seed: int) -> None:
    names = ["curl", "tilt", "skew", "perspective", "crop"] if name == "all" else [name]
    moved = distort(marked(), rng(seed), names, strength=0.6 if name == "all" else 1.0)
    assert moved.lead_boxes.keys() == set(LEADS)
    for lead, found in squares(moved).items():
        stated = np.array(moved.lead_boxes[lead])
        assert np.abs(stated - found).max() < 1.6, lead  # a corner of less than half a pixel counts as paper
        centres = (stated[:2] + stated[2:]) / 2 - (np.array(found[:2]) + found[2:]) / 2
        assert np.abs(centres).max() < 1.0, lead


@pytest.mark.parametrize("name", MOVES)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_scale_is_that_of_the_pixels_in_the_middle(name: str, seed: int) -> None:
    before = marked()
    after = distort(before, rng(seed), name)

    def area(page: Page) -> float:
        """Of the quadrilateral between four marks around the middle."""
        at = {lead: (np.array(b[:2]) + b[2:]) / 2 for lead, b in squares(page).items()}
        a, b, c, d = at["II"], at["III"], at["V5"], at["V4"]
        return 0.5 * abs(float(np.cross(np.append(c - a, 0), np.append(d - b, 0))[2]))

    measured = (area(after) / area(before)) ** 0.5
    assert after.px_per_mm / before.px_per_mm == pytest.approx(measured, rel=0.02)  # marks are found to half a pixel


@pytest.mark.parametrize("name", MOVES)
def test_going_back_is_the_inverse_of_going_forward(name: str) -> None:
    points = rng(3).uniform(0, 1, (50, 2)) * SIZE
    for seed in SEEDS:
        one = moves.MOVES[name](SIZE, rng(seed), 1.0)
        assert np.abs(one.backward(one.forward(points)) - points).max() < 1e-6


def test_joined_moves_are_the_same_points_as_one_after_the_other_and_sharper_pixels() -> None:
    first, second = moves.tilt(SIZE, rng(1), 1.0), moves.perspective(SIZE, rng(2), 1.0)
    points = rng(3).uniform(0, 1, (50, 2)) * SIZE
    joined = moves.move_points(points, [first, second])
    assert np.allclose(joined, second.forward(first.forward(points)))
    image, white = marked().image, (255, 255, 255)
    twice = moves.move_image(moves.move_image(image, [first], white), [second], white)
    once = moves.move_image(image, [first, second], white)
    assert np.asarray(once, float).std() > np.asarray(twice, float).std()


def test_a_lead_that_leaves_the_page_has_no_box_and_the_others_are_cut_at_its_edges() -> None:
    page = replace(marked(), lead_boxes={"I": (-3.0, 100.0, 60.0, 140.0), "V6": (0.5, 0.5, 1.5, 1.5)})
    enlarged = moves.Homography(np.array([[2.0, 0, -210], [0, 2.0, -150], [0, 0, 1]]), SIZE)
    assert moves.move_box(page.lead_boxes["V6"], [enlarged]) is None
    assert moves.move_box((90.0, 60.0, 300.0, 200.0), [enlarged]) == (0.0, 0.0, 390.0, 250.0)


# property: every distortion


@pytest.mark.parametrize("name", [*DISTORTIONS, *PRESETS])
def test_strength_0_changes_nothing(name: str, page: Page) -> None:
    same = distort(page, rng(), name, strength=0)
    assert same is page


@pytest.mark.parametrize("name", [name for name in DISTORTIONS if name != "quarter"])
def test_next_to_no_strength_changes_next_to_nothing(name: str, page: Page) -> None:
    faint = np.asarray(distort(page, rng(2), name, strength=1e-6).image, float)
    if name == "handwriting":  # it has at least one mark, which is a mark
        assert (np.abs(faint - np.asarray(page.image, float)).max(-1) > 3).mean() < 0.02
    elif name == "jpeg":  # its best quality still rounds
        assert np.abs(faint - np.asarray(page.image, float)).mean() < 4
    else:
        assert np.abs(faint - np.asarray(page.image, float)).max() <= 2


@pytest.mark.parametrize("name", DISTORTIONS)
def test_full_strength_can_be_seen_and_leaves_the_size(name: str, page: Page) -> None:
    for seed in range(4):
        changed = distort(page, rng(seed), name)
        if changed.image.size == page.image.size:
            difference = np.abs(np.asarray(changed.image, float) - np.asarray(page.image, float))
            assert (difference.max(-1) > 8).mean() > 0.0005
        else:
            assert name == "quarter"
            assert changed.image.size == page.image.size[::-1]
        assert changed.image.mode == "RGB"
        assert changed.distortions == ((name, 1.0),)


@pytest.mark.parametrize("name", MARKS)
def test_marks_leave_boxes_and_scale_alone(name: str, page: Page) -> None:
    changed = distort(page, rng(4), name)
    assert changed.lead_boxes == page.lead_boxes
    assert changed.px_per_mm == page.px_per_mm


@pytest.mark.parametrize("name", [*DISTORTIONS, *PRESETS])
def test_the_same_generator_state_gives_the_same_bytes(name: str, page: Page) -> None:
    before = page.image.tobytes()
    first, again = distort(page, rng(7), name), distort(page, rng(7), name)
    assert first.image.tobytes() == again.image.tobytes()
    assert (first.lead_boxes, first.px_per_mm, first.distortions) == (
        again.lead_boxes,
        again.px_per_mm,
        again.distortions,
    )
    assert page.image.tobytes() == before
    if name not in ("clean", "quarter"):
        assert len({distort(page, rng(seed), name).image.tobytes() for seed in range(4)}) > 1


def test_a_distortion_does_not_change_the_chance_of_the_others() -> None:
    page = marked()
    alone = distort(page, rng(5), ["tilt"])
    with_more = distort(page, rng(5), ["jpeg", "tilt", "stain"])
    assert with_more.lead_boxes == alone.lead_boxes
    assert [name for name, _ in with_more.distortions] == ["stain", "tilt", "jpeg"]  # nature's order, not the list's


def test_one_number_is_taken_from_the_generator() -> None:
    one, other = rng(9), rng(9)
    distort(marked(), one, "phone")
    distort(marked(), other, ["blur"])
    assert one.bit_generator.state == other.bit_generator.state


# property: presets


@pytest.mark.parametrize("name", [name for name in PRESETS if name != "clean"])
def test_a_preset_draws_what_it_lists_as_often_and_as_strong_as_it_says(name: str) -> None:
    n, steps = 400, PRESETS[name].steps
    drawn = [_draw_steps(name, 1.0, rng(seed))[0] for seed in range(n)]
    for step, (chance, largest) in steps.items():
        strengths = [one[step] for one in drawn if step in one]
        assert abs(len(strengths) - n * chance) < 5 * (n * chance * (1 - chance) + 1) ** 0.5
        assert all(0.3 * largest <= s <= largest for s in strengths)
    assert all(one.keys() <= steps.keys() for one in drawn)


@pytest.mark.parametrize("name", ["scan", "phone", "paper"])
def test_leads_stay_on_the_page(name: str, page: Page) -> None:
    for seed in range(8):
        moved = distort(page, rng(seed), name)
        assert moved.lead_boxes.keys() == page.lead_boxes.keys()
        assert 0.6 * page.px_per_mm < moved.px_per_mm < 1.2 * page.px_per_mm


def test_no_names_means_the_papers_distortions(page: Page) -> None:
    assert distort(page, rng(3)).image.tobytes() == distort(page, rng(3), "paper").image.tobytes()


def test_what_the_paper_names_is_in_its_preset() -> None:
    assert {"creases", "wrinkles", "skew", "perspective", "gaussian_noise", "salt_and_pepper"} <= set(
        PRESETS["paper"].steps
    )


def test_distorting_twice_remembers_both(page: Page) -> None:
    twice = distort(distort(page, rng(1), "fade"), rng(2), "tilt", strength=0.5)
    assert twice.distortions == (("fade", 1.0), ("tilt", 0.5))


# refusal


def test_unknown_names_and_negative_strengths_are_refused(page: Page) -> None:
    with pytest.raises(ValueError, match="distort='photo' is not one of clean, scan, phone, paper, handwriting"):
        distort(page, rng(), "photo")
    with pytest.raises(ValueError, match="distortion 'scan' is not one of handwriting"):
        distort(page, rng(), ["blur", "scan"])
    with pytest.raises(ValueError, match="strength=-1 must not be negative"):
        distort(page, rng(), "blur", strength=-1)
