# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Microscopy and clinical photographs: reproducible, balanced, and every fact true as measured in the picture."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from data_engine.phantoms import clinical_photograph, geometry, microscopy
from data_engine.phantoms.dermoscopy import greatest_diameter

FAMILIES = {"microscopy": microscopy, "clinical photograph": clinical_photograph}
IMAGES_EACH = 120
LOCATIONS = {"upper left", "upper right", "lower left", "lower right"}


@pytest.fixture(scope="module", params=FAMILIES)
def samples(request):
    """IMAGES_EACH images of one family."""
    return [FAMILIES[request.param].generate("image", np.random.default_rng([21, seed])) for seed in range(IMAGES_EACH)]


@pytest.mark.parametrize("family", FAMILIES.values())
def test_same_seed_gives_the_same_bytes_and_another_seed_others(family):
    first, again, other = (family.generate("image", np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert first.facts == again.facts
    assert first.frames.tobytes() == again.frames.tobytes()
    assert first.frames.tobytes() != other.frames.tobytes()


def test_samples_are_single_colour_frames_without_a_spacing(samples):
    for sample in samples:
        assert sample.kind == "image"
        assert sample.frames.dtype == np.uint8
        assert sample.frames.shape == (1, geometry.SIZE, geometry.SIZE, 3)
        assert sample.frames.std() > 4, "the picture is blank"
        assert sample.positions.tolist() == [0.0]
        assert sample.pixel_spacing == (0.0, 0.0)
        assert FAMILIES[sample.facts["modality"]]


def test_lesions_are_balanced_and_named_only_where_there_is_one(samples):
    lesions = Counter(sample.facts["lesion"] for sample in samples)
    assert 0.38 < lesions["yes"] / IMAGES_EACH < 0.62
    for sample in samples:
        assert ("finding" in sample.facts) == (sample.facts["lesion"] == "yes")
        if sample.facts["lesion"] == "no":
            assert not {"side", "location", "size", "severity"} & set(sample.facts)


def test_counts_sizes_and_grades_say_what_they_are_about(samples):
    pairs = (("count", "counted"), ("size", "measured"), ("severity", "graded"))
    for sample in samples:
        for fact, thing in pairs:
            assert (fact in sample.facts) == (thing in sample.facts)
        assert int(sample.facts.get("count", 1)) in range(1, 10)
        assert sample.facts.get("size", "1 mm").endswith(" mm")
        assert sample.facts.get("location", "upper left") in LOCATIONS
    assert len({sample.facts.get("count") for sample in samples}) >= 4
    assert len({sample.facts.get("finding") for sample in samples}) >= 4
    assert len({sample.facts.get("severity") for sample in samples}) >= 4


def test_every_preparation_is_named_by_its_stain_or_contrast():
    shown = Counter()
    for seed in range(60):
        facts = microscopy.generate("image", np.random.default_rng([22, seed])).facts
        shown[facts.get("stain") or facts["contrast"]] += 1
    assert set(shown) == {"Giemsa", "Gram", "fluorescence", "phase contrast"}


def test_fluorescent_nuclei_are_as_many_as_counted():
    right = asked = 0
    for seed in range(40):
        light, facts, _ = microscopy._fluorescence(np.random.default_rng([23, seed]), lesion=False)
        if "count" in facts:
            blue = ndimage.gaussian_filter(light[..., 2], 1.5)
            labels, _ = ndimage.label(blue > 0.45 * blue.max())
            areas = np.bincount(labels.ravel())[1:]
            right += int((areas > 40).sum() == int(facts["count"]))
            asked += 1
    assert asked >= 15
    assert right >= 0.85 * asked


def test_germs_take_the_colour_of_their_gram_reaction():
    """Gram-positive germs are violet: they take more red than blue from the lamp. Gram-negative ones are pink."""
    seen = set()
    for seed in range(60):
        light, facts, _ = microscopy._gram(np.random.default_rng([24, seed]), lesion=True)
        if facts["severity"] == "4+":
            brightness = light.sum(axis=-1)
            darkest = light[brightness < np.percentile(brightness, 1)].mean(axis=0)
            red, _, blue = darkest / np.median(light, axis=(0, 1))
            assert (blue > red) == facts["finding"].startswith("Gram-positive")
            seen.add(facts["finding"])
    assert {name.split()[0] for name in seen} == {"Gram-positive", "Gram-negative"}


@pytest.mark.parametrize(("infected", "cells", "grade"), [
    (1, 50, "mild"), (2, 50, "moderate"), (5, 50, "moderate"), (6, 50, "severe"),
])  # fmt: skip
def test_parasitaemia_is_graded_by_the_share_of_infected_cells(infected, cells, grade):
    assert microscopy.parasitaemia(infected, cells) == grade


@pytest.mark.parametrize(("germs", "load"), [(1, "2+"), (4, "2+"), (5, "3+"), (30, "3+"), (31, "4+")])
def test_germs_are_graded_by_their_number_in_a_field(germs, load):
    assert microscopy.germ_load(germs) == load


def test_counted_cells_lie_whole_in_the_eyepiece():
    slide = microscopy.Slide((1.0, 1.0, 1.0), seen=40.0)
    rng = np.random.default_rng(0)
    taken = []
    while slide.room(rng, 8.0, taken) is not None:
        pass
    assert len(taken) >= 4
    for k, (centre, radius) in enumerate(taken):
        assert np.hypot(*(centre - geometry.SIZE / 2)) + radius <= 40
        assert all(np.hypot(*(centre - other)) > radius + size for other, size in taken[:k])


def _bare_skin(width: float, centre=(0.0, 0.0), angle=0.0, mirrored=False) -> clinical_photograph.Photo:
    """A picture `width` mm wide that is all even skin."""
    photo = clinical_photograph.Photo(np.random.default_rng(0), width, centre, angle, mirrored)
    photo.picture = np.full((geometry.SIZE, geometry.SIZE, 3), 0.7, np.float32)
    photo.skin = np.ones((geometry.SIZE, geometry.SIZE), np.float32)
    photo.depth = np.full((geometry.SIZE, geometry.SIZE), 1e3, np.float32)
    return photo


views = st.fixed_dictionaries({
    "width": st.floats(40, 500), "centre": st.tuples(st.floats(-80, 80), st.floats(-80, 80)),
    "angle": st.floats(-3.2, 3.2), "mirrored": st.booleans(),
})  # fmt: skip


@settings(max_examples=25)
@given(view=views, right=st.floats(-0.4, 0.4), down=st.floats(-0.4, 0.4))
def test_a_place_on_the_patient_is_found_in_the_picture(view, right, down):
    photo = _bare_skin(**view)
    row, column = (int((share + 0.5) * geometry.SIZE) for share in (down, right))
    shown = photo.place((float(photo.x[row, column]), float(photo.y[row, column])))
    assert shown == pytest.approx(((row + 0.5) / geometry.SIZE - 0.5, (column + 0.5) / geometry.SIZE - 0.5), abs=1e-3)


@settings(max_examples=25)
@given(view=views, share=st.floats(0.1, 0.3), narrow=st.floats(0.6, 1.0), ragged=st.floats(0, 0.5))
def test_a_finding_measures_what_is_said_of_it(view, share, narrow, ragged):
    photo = _bare_skin(**view)
    radius = share * view["width"]
    distance = clinical_photograph.outline(photo, view["centre"], (radius, narrow * radius), ragged)
    assert greatest_diameter(distance <= 1) * photo.pixel == pytest.approx(2 * radius, abs=2.5 * photo.pixel)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("length", [20.0, 40.0])
def test_a_cut_is_as_long_as_said(length, mirrored):
    photo = _bare_skin(80.0, mirrored=mirrored)
    clinical_photograph._laceration(photo, (0.0, 0.0), length, sutures=0)
    cut = photo.picture[..., 1] < 0.2
    assert greatest_diameter(cut) * photo.pixel == pytest.approx(length, abs=3 * photo.pixel)


@pytest.mark.parametrize("sutures", range(3, 10))
def test_a_sutured_wound_has_as_many_stitches_as_said(sutures):
    photo = _bare_skin(100.0)
    clinical_photograph._laceration(photo, (0.0, 0.0), 70.0, sutures)
    threads = ndimage.binary_closing(photo.picture[..., 0] < 0.38, np.ones((3, 3)))
    _, found = ndimage.label(threads, np.ones((3, 3)))
    assert found == sutures


@pytest.mark.parametrize("wanted", [3, 6, 9])
def test_a_rash_has_as_many_spots_as_said(wanted):
    photo = _bare_skin(100.0)
    placed = clinical_photograph._rash(photo, (5.0, -5.0), 20.0, wanted)
    _, found = ndimage.label(photo.picture[..., 1] < 0.4 * 0.7)
    assert placed == found == wanted


def test_spots_off_the_skin_are_not_counted():
    photo = _bare_skin(100.0)
    photo.depth[:] = -1.0
    assert clinical_photograph._rash(photo, (0.0, 0.0), 20.0, 5) == 0


@pytest.mark.parametrize("mirrored", [False, True])
def test_thumb_and_great_toe_tell_the_side(mirrored):
    """The back of a left hand has its thumb on the right; the sole of a right foot its great toe on the right."""
    for region, upper, lower in (("hand", -40, 25), ("foot", -120, -60)):
        part = clinical_photograph.PARTS[region]
        photo = clinical_photograph.Photo(np.random.default_rng(1), part.width, part.middle, 0.0, mirrored)
        part.paint(photo, 0.0)
        x = photo.x if not mirrored else -photo.x
        band = (photo.skin > 0.5) & (photo.y > upper) & (photo.y < lower)
        reach_right, reach_left = float(x[band].max()), float(-x[band].min())
        side = part.unmirrored if not mirrored else {"left": "right", "right": "left"}[part.unmirrored]
        if region == "hand":
            assert (reach_right > reach_left) == (side == "left")
        else:
            top = photo.y[band].min()
            great = x[(photo.skin > 0.5) & (photo.y < top + 12)].mean()
            assert (great > 0) == (side == "right")


def test_ruler_ticks_stand_ten_millimetres_apart():
    photo = _bare_skin(100.0)
    assert clinical_photograph._ruler(photo, 0.0, 0.0, 0.1)
    paper = np.argwhere((photo.picture > 0.8).all(axis=-1))
    top = paper[:, 0].min()
    rows = photo.picture[top : paper[:, 0].max() + 1, :, 0]
    height = len(rows)
    inked = [np.flatnonzero(row < 0.1) for row in (rows[int(0.48 * height)], rows[::-1][int(0.48 * height)])]
    long = max((np.unique(np.diff(i)[np.diff(i) > 2]) * photo.pixel for i in inked if len(i) > 2), key=np.min)
    assert long == pytest.approx(np.full(len(long), 10.0), abs=1.5 * photo.pixel)


def test_skin_is_shown_in_every_tone():
    light = [
        np.median(clinical_photograph.generate("image", np.random.default_rng([25, seed])).frames) for seed in range(60)
    ]
    assert np.percentile(light, 90) > 1.8 * np.percentile(light, 10)


@pytest.mark.parametrize(("finding", "stages"), [
    ("pressure ulcer", clinical_photograph.PRESSURE_STAGES), ("burn", clinical_photograph.BURN_DEPTHS),
])  # fmt: skip
def test_stages_look_different_from_each_other(finding, stages):
    paint = {"pressure ulcer": clinical_photograph._pressure_ulcer, "burn": clinical_photograph._burn}[finding]
    looks = []
    for stage in stages:
        photo = _bare_skin(100.0)
        paint(photo, (0.0, 0.0), (20.0, 18.0), stage)
        inside = photo.picture[photo.near((0.0, 0.0)) < 15]
        looks.append((*inside.mean(axis=0), *inside.std(axis=0)))
    for k, look in enumerate(looks):
        for other in looks[:k]:
            assert np.abs(np.subtract(look, other)).max() > 0.04
