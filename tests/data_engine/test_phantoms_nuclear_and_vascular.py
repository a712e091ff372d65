# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""PET, angiography and mammography phantoms: reproducible, physically sane, and true to the facts they state."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.distance import pdist

from data_engine.phantoms import angiography, geometry, mammography, pet

FAMILIES = {"PET": pet, "angiography": angiography, "mammography": mammography}
PAIRS = [
    ("PET", "image"),
    ("PET", "volume"),
    ("angiography", "image"),
    ("angiography", "video"),
    ("mammography", "image"),
]
IMAGES_EACH = 120
QUADRANTS = {"upper left", "upper right", "lower left", "lower right"}


@pytest.fixture(scope="module")
def images():
    """IMAGES_EACH images of every modality."""
    return {
        name: [family.generate("image", np.random.default_rng([17, i])) for i in range(IMAGES_EACH)]
        for name, family in FAMILIES.items()
    }


# What every family promises.


@pytest.mark.parametrize(("modality", "kind"), PAIRS)
def test_same_seed_gives_the_same_bytes_and_another_seed_others(modality, kind):
    make = FAMILIES[modality].generate
    first, again, other = (make(kind, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.facts == again.facts
    assert first.pixel_spacing == again.pixel_spacing
    assert first.frames.tobytes() == again.frames.tobytes()
    assert first.positions.tobytes() == again.positions.tobytes()
    assert first.frames.tobytes() != other.frames.tobytes()


@pytest.mark.parametrize(("modality", "kind"), PAIRS)
@pytest.mark.parametrize("seed", range(5))
def test_samples_are_well_formed(modality, kind, seed):
    sample = FAMILIES[modality].generate(kind, np.random.default_rng([11, seed]))
    assert sample.frames.dtype == np.uint8
    assert sample.frames.shape[1:] == (geometry.SIZE, geometry.SIZE, 3)
    assert sample.kind == kind
    assert sample.positions.dtype == np.float64
    assert sample.positions.shape == (len(sample.frames),)
    assert sample.positions[0] == 0
    assert sample.frames.std() > 1, "the picture is blank"
    if kind == "image":
        assert len(sample.frames) == 1
    else:
        assert 8 <= len(sample.frames) <= 16
        assert (np.diff(sample.positions) > 0).all()
    assert all(value > 0 for value in sample.pixel_spacing) == (modality != "angiography")


def test_facts_have_known_names_and_belong_together(images):
    for modality, samples in images.items():
        for facts in (sample.facts for sample in samples):
            assert facts["modality"] == modality
            assert all(isinstance(value, str) and value for value in facts.values())
            assert facts["lesion"] in ("yes", "no")
            assert ("finding" in facts) == (facts["lesion"] == "yes")
            for value, about in (("count", "counted"), ("size", "measured"), ("severity", "graded")):
                assert (value in facts) == (about in facts)
            assert facts.get("location", "upper left") in QUADRANTS
            if facts["lesion"] == "no":
                assert not {"location", "count", "size"} & facts.keys()
                assert "side" not in facts or modality == "mammography"
            assert "motion" not in facts, "an image does not move"


def test_lesions_sides_views_and_grades_are_balanced(images):
    for modality, samples in images.items():
        for fact, one, other in (("lesion", "yes", "no"), ("side", "left", "right")):
            count = Counter(sample.facts[fact] for sample in samples if fact in sample.facts)
            # Three standard deviations of a fair coin.
            assert abs(count[one] - count[other]) < 3 * np.sqrt(count.total()), (modality, fact, count)
    views = Counter(sample.facts["plane"] for sample in images["mammography"])
    assert min(views.values()) > 0.3 * IMAGES_EACH
    assert {sample.facts["severity"] for sample in images["mammography"]} == set("abcd")
    grades = {sample.facts.get("severity") for sample in images["angiography"]}
    assert grades == {None, "mild", "moderate", "severe"}


# PET


def painted(x: np.ndarray, y: np.ndarray, z: np.ndarray, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    body = pet.Body((x, y, z), 4.0, False, rng)
    pet.paint_body(body, rng)
    return body.suv


def test_a_sphere_holds_its_volume():
    line = np.arange(-30.0, 31.0, 2.0)
    body = pet.Body((line, line, line), 2.0, False, np.random.default_rng(0))
    body.hot_spot((0, 0, 0), (15, 15, 15), 1.02)
    assert (body.suv - 0.02).sum() * 2**3 == pytest.approx(4 / 3 * np.pi * 15**3, rel=0.05)


def test_uptake_lies_where_fdg_goes():
    line, up = np.arange(-200.0, 201.0, 5.0), np.arange(-600.0, 600.0, 6.0)
    projection = painted(line, np.linspace(-100, 100, 14), up).max(axis=1)

    def near(x: float, z: float) -> float:
        return float(projection[np.abs(up - z) < 15][:, np.abs(line - x) < 12].max())

    brain, liver, bladder, thigh = near(0, 450), near(-70, -20), near(0, -395), near(-90, -520)
    assert brain > 5
    assert bladder > 5
    assert brain > 2 * liver > 2 * thigh
    axial = painted(line, line, np.array([-30.0]))[0]
    assert axial[:, line < -30].sum() > axial[:, line > 30].sum(), "the liver is on the patient's right, image left"


def test_the_point_spread_is_four_to_seven_mm():
    for seed in range(5):
        point = np.zeros((1, 61, 61), np.float32)
        point[0, 30, 30] = 1e7
        seen = pet.acquire(point, 1.0, np.random.default_rng(seed))[0]
        away = np.arange(61) - 30
        variance = (seen.sum(axis=0) * away**2).sum() / seen.sum()
        # Resampling to 1 mm pixels leaves a small error, and the tails end at four standard deviations.
        assert 3.8 < np.sqrt(variance) / pet.FWHM_TO_SIGMA < 7.2


def test_counting_noise_grows_with_the_square_root_of_uptake():
    suv = np.ones((1, 100, 200), np.float32)
    suv[..., 100:] = 9
    seen = pet.acquire(suv, 4.0, np.random.default_rng(0))[0]
    assert seen[10:90, 110:190].std() / seen[10:90, 10:90].std() == pytest.approx(3, rel=0.15)


def test_hot_spots_take_up_more_than_their_surroundings_and_cold_ones_less():
    ratios = {"hot spot": [], "cold spot": []}
    for seed in range(60):
        rng = np.random.default_rng([21, seed])
        view = pet._brain_view("image", rng) if seed % 2 else pet._body_view("image", "axial", False, rng)
        if view.centre is None:
            continue
        rows, columns = view.suv.shape[1:]
        row, column = np.ogrid[:rows, :columns]
        at = (rows / 2 + view.centre[0] / view.pixel - 0.5, columns / 2 + view.centre[1] / view.pixel - 0.5)
        away = np.hypot(row - at[0], column - at[1]) * view.pixel
        around = view.suv[0][(away > 18) & (away < 30)]
        ratios[view.facts["finding"]].append(view.suv[0][away < 5].mean() / around.mean())
    assert len(ratios["hot spot"]) > 15
    assert min(ratios["hot spot"]) > 1.3
    assert ratios["cold spot"]
    assert max(ratios["cold spot"]) < 0.7


@settings(max_examples=30)
@given(st.integers(1, 5), st.integers(0, 1000))
def test_hot_spots_can_be_counted_from_the_front(count, seed):
    pixel = 10.0
    spots = pet.draw_hot_spots(np.random.default_rng(seed), count, pet.EXTENTS["whole body"], pixel)
    assert 1 <= len(spots) <= count
    x, z = np.meshgrid(np.arange(-200, 200, pixel), np.arange(-600, 600, pixel))
    shown = np.zeros(x.shape, bool)
    for spot in spots:
        shown |= np.hypot(x - spot.centre[0], z - spot.centre[2]) < spot.radius + 0.3 * pixel
    assert ndimage.label(shown, np.ones((3, 3)))[1] == len(spots)


def test_most_body_pet_is_inverted_grey(images):
    body = [s.frames[0] for s in images["PET"] if s.facts["region"] != "brain"]
    bright = [(frame.max(axis=-1) > 180).mean() > 0.2 and (frame == frame[..., :1]).all() for frame in body]
    assert np.mean(bright) > 0.3


# Angiography

FIELD = angiography.Field(128, (0.0, 0.0), 1.0)


def straight(radius: float) -> angiography.Vessel:
    v = np.arange(-1, 1, angiography.STEP)
    return angiography.Vessel(np.stack([0 * v, v], axis=1), np.full(len(v), radius), v + 1)


@pytest.mark.parametrize("radius", [0.03, 0.06, 0.12])
def test_a_projected_vessel_has_its_diameter_and_cross_section(radius):
    thickness, arrival = angiography.project([straight(radius)], FIELD)
    across = thickness[40:90].mean(axis=0)
    assert across.max() == pytest.approx(2 * radius, rel=0.1)
    assert across.sum() * 2 / FIELD.pixels == pytest.approx(np.pi * radius**2, rel=0.1)
    assert arrival[90, 64] > arrival[40, 64]


def test_the_bolus_arrives_fills_and_leaves():
    bolus = angiography.Bolus(duration=2.0, speed=1.0, spread=0.3)
    root, end = (bolus.concentration(np.float32(length), 0.0) for length in (0.0, 1.0))
    assert root > 0.4 > 0.05 > end
    assert bolus.concentration(np.array([0.0, 1.0], np.float32), 1.5).min() > 0.8
    assert bolus.concentration(np.array([0.0, 1.0], np.float32), 5.0).max() < 0.05


TREES = [
    angiography.coronary_tree,
    lambda rng: angiography.cerebral_tree(rng, "frontal", 1),
    lambda rng: angiography.cerebral_tree(rng, "lateral", 1),
    lambda rng: angiography.leg_tree(rng, True),
]


@pytest.mark.parametrize("make", TREES)
@pytest.mark.parametrize("seed", range(4))
def test_a_stenosis_narrows_one_vessel_by_its_grade(make, seed):
    rng = np.random.default_rng(seed)
    healthy = make(rng)
    ill, lesion = angiography.place_lesion(healthy, "stenosis", rng)
    lost = [1 - (a.radii / b.radii).min() for a, b in zip(ill.mains, healthy.mains, strict=True)]
    assert sum(share > 0.01 for share in lost) == 1
    low, high = {"mild": (0, 0.5), "moderate": (0.5, 0.7), "severe": (0.7, 1)}[lesion.grade]
    assert low < max(lost) < high
    column, row = np.round(FIELD.pixel_of(np.array([lesion.place]))[0]).astype(int)
    before, after = (
        angiography.project([tree.mains[int(np.argmax(lost))]], FIELD)[0][row - 1 : row + 2, column - 1 : column + 2]
        for tree in (healthy, ill)
    )
    assert after.max() < 0.95 * before.max()


@pytest.mark.parametrize("seed", range(6))
def test_an_aneurysm_is_wider_than_its_vessel(seed):
    rng = np.random.default_rng(seed)
    healthy = angiography.cerebral_tree(rng, "lateral", 1)
    ill, lesion = angiography.place_lesion(healthy, "aneurysm", rng)
    assert lesion.grade is None
    column, row = np.round(FIELD.pixel_of(np.array([lesion.place]))[0]).astype(int)
    before, after = (angiography.project(tree.mains + tree.branches, FIELD)[0] for tree in (healthy, ill))
    assert after[row, column] > 1.15 * before[row, column]
    assert (after > 0).sum() > (before > 0).sum()


def test_the_artery_of_the_left_half_lies_on_the_image_right():
    for side in (-1, 1):
        tree = angiography.cerebral_tree(np.random.default_rng(0), "frontal", side)
        assert side * tree.mains[1].points[:, 0].mean() > 0.2


@pytest.mark.parametrize("seed", range(8))
def test_the_motion_is_what_the_contrast_does(seed):
    rng = np.random.default_rng(seed)
    bolus = angiography.Bolus(1.8, 1.5, 0.3)
    seconds, motion = angiography._times("video", bolus, 1.0, rng)
    filled = [float(bolus.concentration(np.linspace(0, 1.5, 20, dtype=np.float32), t).mean()) for t in seconds]
    assert (filled[0] < 0.1) == ("arriving" in motion)
    assert (filled[-1] < 0.1) == ("out" in motion)
    assert max(filled) > 0.8


def test_contrast_darkens_vessels_and_subtraction_removes_the_anatomy():
    rng = np.random.default_rng(0)
    thickness, arrival = angiography.project([straight(0.06)], FIELD)
    background = np.zeros((128, 128), np.float32)
    background[:, 80:] = 2.0
    bolus = angiography.Bolus(1.8, 1.5, 0.3)
    ill = np.zeros_like(thickness)
    plain, subtracted = (
        angiography.acquire(background, thickness, arrival, bolus, np.array([1.4]), rng, flag, False, ill)[0][0]
        for flag in (False, True)
    )
    vessel = thickness > 0.08
    for logs in (plain, subtracted):
        assert logs[vessel].mean() > logs[:, :50].mean() + 0.3
    assert plain[:, 90:].mean() - plain[:, :40].mean() > 1.5
    assert abs(subtracted[:, 90:].mean() - subtracted[:, :40].mean()) < 0.15
    assert subtracted[:, 90:].std() > 1.5 * subtracted[:, :40].std(), "fewer counts behind bone: more noise"


def test_videos_change_most_while_the_contrast_runs():
    near, far = 0.0, 0.0
    for seed in range(6):
        frames = angiography.generate("video", np.random.default_rng([5, seed])).frames.astype(np.float32)
        near += np.abs(np.diff(frames, axis=0)).mean()
        far += np.abs(frames[len(frames) // 2 :] - frames[: len(frames) - len(frames) // 2]).mean()
    assert near < far


# Mammography


@pytest.mark.parametrize("density", "abcd")
def test_the_dense_share_of_the_breast_is_that_of_its_density(density):
    rng = np.random.default_rng(0)
    for _ in range(3):
        breast = mammography.shape_breast("craniocaudal", 1.2, rng)
        wanted = rng.uniform(*mammography.DENSITIES[density])
        gland = mammography.glandular(breast, wanted, rng)
        assert (gland[breast.inside > 0.5] > 0.5).mean() == pytest.approx(wanted, abs=0.01)
    low, high = mammography.DENSITIES[density]
    quarter = "abcd".index(density) / 4
    assert quarter < low < high < quarter + 0.25


def test_denser_breasts_absorb_more():
    rng = np.random.default_rng(1)
    breast = mammography.shape_breast("craniocaudal", 1.2, rng)
    absorbed = []
    for density in "abcd":
        share = mammography.glandular(breast, float(np.mean(mammography.DENSITIES[density])), rng)
        logs = mammography.expose(breast, 25 * share, np.zeros_like(share), 50, np.random.default_rng(2))
        absorbed.append(logs[breast.inside > 0.9].mean())
    assert absorbed == sorted(absorbed)


def test_a_right_breast_has_its_chest_wall_on_the_image_right(images):
    wide = []
    for sample in images["mammography"]:
        lit = sample.frames[0, ..., 0] > 60
        columns = np.flatnonzero(lit.sum(axis=0) > 12)
        third = max(1, len(columns) // 4)
        left, right = lit[:, columns[:third]].mean(), lit[:, columns[-third:]].mean()
        wide.append((right > left) == (sample.facts["side"] == "right"))
    assert np.mean(wide) > 0.95


def test_only_an_oblique_view_shows_the_pectoral_muscle():
    rng = np.random.default_rng(3)
    assert mammography.shape_breast("craniocaudal", 1.2, rng).muscle.max() == 0
    oblique = mammography.shape_breast("mediolateral oblique", 1.2, rng).muscle
    rows, columns = oblique.shape
    corner = oblique[: rows // 4, : columns // 4]
    assert corner.mean() > 0.5, "at the top, on the chest wall"
    assert oblique[3 * rows // 4 :].max() < 0.05


@settings(max_examples=25)
@given(st.floats(6, 14), st.booleans(), st.integers(0, 1000))
def test_a_mass_has_the_size_that_is_stated(radius, spiculated, seed):
    pixel = 0.5
    gland = np.zeros((160, 160), np.float32)
    core = mammography.add_mass(gland, (80, 80), radius, pixel, spiculated, np.random.default_rng(seed))
    assert pdist(np.argwhere(core) * pixel).max() == pytest.approx(2 * radius, abs=2)
    assert gland[core].mean() > 2 * gland[~core].mean()
    assert (gland[~core].max() > 3) == spiculated


def test_calcifications_are_a_cluster_of_bright_grains():
    calcium = np.zeros((100, 100), np.float32)
    mammography.add_calcifications(calcium, (50, 40), 1.0, np.random.default_rng(0))
    found = np.argwhere(calcium > 0)
    assert len(found) > 10
    assert np.abs(found - (50, 40)).max() < 16
    assert mammography.CALCIUM * calcium.max() > 0.2, "brighter than gland against fat over 5 mm"


def test_places_keep_their_distance_from_border_muscle_and_each_other():
    rng = np.random.default_rng(4)
    breast = mammography.shape_breast("mediolateral oblique", 1.2, rng)
    taken: list[tuple[float, float]] = []
    for _ in range(3):
        at = mammography.free_place(breast, 8, rng, taken)
        assert at is not None
        row, column = int(at[0]), int(at[1])
        assert breast.depth[row, column] > 8
        assert breast.muscle[row, column] < 0.05
        assert all(np.hypot(row - r, column - c) * breast.pixel > 16 for r, c in taken)
        taken.append(at)
    assert mammography.free_place(breast, 80, rng, []) is None


def test_the_location_is_where_the_lesion_is_displayed(monkeypatch):
    monkeypatch.setattr(mammography, "CALCIUM", 500.0)  # grains so dense that nothing else is as bright
    right = []
    for seed in range(400):
        sample = mammography.generate("image", np.random.default_rng([41, seed]))
        if sample.facts.get("finding") == "microcalcifications" and "location" in sample.facts:
            grains = ndimage.gaussian_filter(sample.frames[0, ..., 0].astype(float), 1.5)[10:-10]
            row, column = np.unravel_index(grains.argmax(), grains.shape)
            shown = f"{'lower' if row + 10 > 55.5 else 'upper'} {'right' if column > 55.5 else 'left'}"
            right.append(shown == sample.facts["location"])
    assert len(right) >= 8, "too few to judge"
    assert np.mean(right) > 0.85
