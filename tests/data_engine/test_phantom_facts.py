# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Sizes, counts, places and grades that phantoms state are true as measured in what they paint."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from data_engine.phantoms import (
    KINDS_OF,
    MODALITIES,
    ct,
    dermoscopy,
    endoscopy,
    fundus,
    generate,
    geometry,
    histopathology,
    mri,
    oct,
    ultrasound,
    xray,
)

GRADES = {
    "X-ray": {"small", "moderate", "large", "mild", "severe"},
    "CT": {f"Lung-RADS {category}" for category in ("2", "3", "4A", "4B")},
    "ultrasound": {"none", "mild", "moderate", "severe"},
    "histopathology": {f"Allred proportion score {score}" for score in (3, 4, 5)},
    "fundus photography": {"grade 0", "grade 2", "grade 3", "low", "high"},
}


@pytest.mark.parametrize("modality", MODALITIES)
def test_facts_say_what_was_counted_measured_and_graded(modality):
    for kind in KINDS_OF[modality]:
        for seed in range(25 if kind == "image" else 4):
            facts = generate(modality, kind, np.random.default_rng([31, seed])).facts
            for fact, thing in (("count", "counted"), ("size", "measured"), ("severity", "graded")):
                assert (fact in facts) == (thing in facts)
            assert int(facts.get("count", "1")) in range(1, 10)
            number, unit = facts.get("size", "1 mm").split(" ")
            assert float(number) > 0
            assert unit == "mm"
            if "severity" in facts and modality in GRADES:
                assert facts["severity"] in GRADES[modality]
            if facts.get("lesion") == "no":
                assert not {"finding", "size", "location"} & set(facts)


@pytest.mark.parametrize(("row", "column", "said"), [
    (-0.2, -0.2, "upper left"), (-0.2, 0.2, "upper right"), (0.3, -0.3, "lower left"), (0.16, 0.16, "lower right"),
    (0.1, 0.3, None), (0.3, -0.1, None), (0.0, 0.0, None), (0.6, 0.3, None),
])  # fmt: skip
def test_a_quadrant_is_named_only_well_off_the_middle_and_inside(row, column, said):
    assert geometry.quadrant(row, column).get("location") == said


@settings(max_examples=30)
@given(
    radii=st.tuples(*[st.floats(5, 20)] * 3),
    angle=st.floats(0, 3.1),
    axis=st.integers(0, 2),
    share=st.floats(-0.7, 0.7),
)
def test_the_cut_through_an_ellipsoid_measures_what_is_computed(radii, angle, axis, share):
    plane = ("sagittal", "coronal", "axial")[axis]
    distance = share * min(radii)
    grid = geometry.patient_grid((140, 140), (70, 70), (0, 0, 0), np.array([distance]), plane)
    scene = geometry.Scene(*grid, 0.0, 0.5)
    inside = scene.coverage((0, 0, 0), radii, angle)[0] > 0.5
    long, short = geometry.cross_section(radii, angle, axis, distance)
    assert dermoscopy.greatest_diameter(inside) * 0.5 == pytest.approx(long, abs=1.5)
    assert inside.sum() * 0.25 == pytest.approx(np.pi / 4 * long * short, rel=0.08)


def test_a_plane_beside_an_ellipsoid_cuts_nothing():
    assert geometry.cross_section((5, 6, 7), 0.3, 2, 7.5) == (0.0, 0.0)


@pytest.mark.parametrize("family", [ct, mri])
@pytest.mark.parametrize("kind", ["image", "volume"])
def test_a_lesion_measures_what_is_said_in_the_slices(family, kind, monkeypatch):
    measured = []

    def spy(cover, scale, diameter):
        facts = geometry.lesion_facts(cover, scale, diameter)
        measured.append((cover, scale, facts))
        return facts

    monkeypatch.setattr(family, "lesion_facts", spy)
    sized = 0
    for seed in range(40 if kind == "image" else 12):
        measured.clear()
        sample = family.generate(kind, np.random.default_rng([32, seed]))
        if sample.facts["lesion"] == "no":
            assert not measured
            continue
        cover, scale, facts = measured[0]
        pixel = sample.pixel_spacing[0] / scale[0]
        largest = cover[int(cover.sum(axis=(1, 2)).argmax())]
        if "size" in facts:
            sized += 1
            said = float(facts["size"].removesuffix(" mm"))
            assert dermoscopy.greatest_diameter(largest > 0.5) * pixel == pytest.approx(said, abs=1 + 2 * pixel)
        if "location" in facts:
            row, column = (c / n for c, n in zip(ndimage.center_of_mass(largest), largest.shape, strict=True))
            assert facts["location"] == f"{'lower' if row > 0.5 else 'upper'} {'right' if column > 0.5 else 'left'}"
    assert sized >= 4


@pytest.mark.parametrize(("long", "short", "category"), [
    (6, 5, "2"), (7, 6, "3"), (8, 8, "4A"), (16, 13, "4A"), (16, 14, "4B"),
])  # fmt: skip
def test_lung_nodules_are_graded_by_their_mean_diameter(long, short, category):
    assert ct.lung_rads(long, short) == f"Lung-RADS {category}"


def _lung_film(effusion: float) -> np.ndarray:
    axis = np.linspace(-1, 1, 160, dtype=np.float32)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    film = xray.Film(u, v)
    xray._chest(film, np.random.default_rng(5), xray.Lesion(0.43, 0.0, effusion, 0.0))
    return film.density


@pytest.mark.parametrize("effusion", [0.2, 0.45, 0.8])
def test_an_effusion_covers_the_share_of_the_lung_that_its_grade_comes_from(effusion):
    bare, wet = _lung_film(1e-6), _lung_film(effusion)
    column = int((0.43 + 1) / 2 * 160)
    rows = np.flatnonzero((wet - bare)[:, column] > 0.2)
    bottom, top = rows.max() / 80 - 1, rows.min() / 80 - 1
    assert (bottom - top) / (bottom + 0.84) == pytest.approx(effusion, abs=0.08)
    assert np.abs(wet - bare)[:, :80].max() == 0, "the other lung is dry"


@pytest.mark.parametrize(("height", "size"), [(0.2, "small"), (0.4, "moderate"), (0.7, "large")])
def test_effusions_are_graded_in_thirds(height, size):
    assert xray.effusion_size(height) == size


@pytest.mark.parametrize("collapse", [0.22, 0.35, 0.55])
def test_a_fractured_vertebra_has_lost_the_share_of_height_that_its_grade_comes_from(collapse):
    # A thin strip down the middle of the vertebral bodies.
    v, u = np.meshgrid(*(np.linspace(-r, r, n, dtype=np.float32) for r, n in ((1, 400), (0.01, 3))), indexing="ij")
    heights = []
    for lesion in (None, xray.Lesion(0.4, 0.0, 0.0, collapse)):
        film = xray.Film(u, v)
        xray._spine(film, np.random.default_rng(3), lesion)
        soft = xray.Film(u, v)
        soft.body((0, 0), (0.9, 1.8), 0.8, flat=0.35)
        bone = (film.density - soft.density)[:, 1] > 0.1
        labels, _ = ndimage.label(bone)
        heights.append(np.count_nonzero(labels == labels[int((1 - 0.14) * 200)]))
    assert 1 - heights[1] / heights[0] == pytest.approx(collapse, abs=0.06)


def test_a_ventricle_ejects_what_its_areas_say():
    probe = ultrasound.Probe("linear", 0.5, 0.0)
    lateral, axial = probe.beam_points()
    checked = 0
    for seed in range(30):
        view = ultrasound._heart(np.random.default_rng(seed), lesion=False, whole_beat=True)
        if view.facts["plane"] != "apical two-chamber":
            continue
        areas = []
        for phase in (0.0, 0.225):
            echo = ultrasound.Echo(lateral, axial, np.random.default_rng(0), 0.2)
            echo.bend[:] = 0
            view.paint(echo, phase)
            dark, _ = ndimage.label((echo.values < 0.1) & (axial < 0.62))
            middle = dark[int(0.41 * ultrasound.DEPTHS), ultrasound.BEAMS // 2]
            areas.append(np.count_nonzero(dark == middle))
        measured = 1 - (areas[1] / areas[0]) ** 1.5  # area squared over length, both shrinking alike
        assert measured == pytest.approx(ultrasound.ejection_fraction(view.contraction), abs=0.1)
        checked += 1
    assert checked >= 4


@pytest.mark.parametrize(("fraction", "grade"), [
    (0.62, "none"), (0.50, "none"), (0.45, "mild"), (0.40, "mild"), (0.33, "moderate"), (0.29, "severe"),
])  # fmt: skip
def test_ejection_fractions_are_graded_by_the_clinical_limits(fraction, grade):
    assert ultrasound.dysfunction(fraction) == grade


def test_a_heart_that_is_called_normal_pumps_normally():
    for seed in range(100):
        view = ultrasound._heart(np.random.default_rng(seed), lesion=False, whole_beat=True)
        if view.contraction:
            assert ultrasound.ejection_fraction(view.contraction) >= 0.5


def test_a_place_under_the_probe_is_found_in_the_picture():
    for probe in (ultrasound.Probe("linear", 0.5, 0.0), ultrasound.Probe("curved", 0.6, 0.4)):
        coordinates, inside = probe.scan_convert(200, 240)
        lateral, axial = probe.beam_points()
        place = (float(lateral[80, 60]), float(axial[80, 60]))
        row, column = (int(c) for c in probe.pixel_of(place, 200, 240))
        assert inside[row, column]
        assert coordinates[:, row, column] == pytest.approx([80, 60], abs=1.5)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_drusen_are_counted_where_they_stand_apart(number):
    x = np.linspace(0, 6, 150)
    profile = sum((0.08 * np.exp(-(((x - 1.2 - 1.7 * k) / 0.25) ** 2)) for k in range(number)), np.zeros(150))
    assert oct.bump_count(profile) == number
    assert oct.bump_count(profile + 0.025 * np.exp(-(((x - 0.3) / 0.1) ** 2))) == 0, "a faint one is no clear case"


def test_fluid_pockets_are_counted_and_the_widest_measured():
    fluid = np.zeros((60, 100), bool)
    fluid[20:30, 10:22] = fluid[22:28, 40:60] = fluid[50, 90] = True
    assert oct.pockets(fluid, 0.05) == (2, pytest.approx(1.0))


def test_few_lesions_of_a_fundus_are_counted_and_graded_by_their_number():
    seen = set()
    for seed in range(60):
        facts = fundus.generate("image", np.random.default_rng([33, seed])).facts
        if facts["lesion"] == "no":
            assert facts["severity"] == "grade 0"
        elif facts["finding"] == "haemorrhages":
            few = "count" in facts and int(facts["count"]) < 5
            assert facts["severity"] == ("grade 2" if few else "grade 3")
            seen.add(facts["severity"])
    assert len(seen) == 2


@pytest.mark.parametrize(("nearest", "risk"), [(0.5, "high"), (1.0, "high"), (1.2, "low")])
def test_the_risk_of_macular_oedema_comes_from_the_nearest_exudate(nearest, risk):
    assert fundus.oedema_risk(nearest) == risk


def test_polyps_lie_apart_and_in_view():
    axis = np.linspace(-1, 1, geometry.SIZE)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    mask = (np.hypot(u - 0.1, v) < 0.85).astype(np.float32)[..., None]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        first = endoscopy._into_view(rng.uniform(-1, 1, 2), 0.2, mask)
        places = endoscopy.more_polyps(first, 0.2, 3, mask, rng)
        assert len(places) == 3
        for k, place in enumerate(places):
            assert np.hypot(place[0] - 0.1, place[1]) + 0.2 < 0.85
            assert all(np.hypot(*(place - other)) > 0.4 for other in places[:k])


def test_mitoses_are_as_many_as_counted():
    for seed in range(12):
        haematoxylin, eosin = np.zeros((2, 112, 112), np.float32)
        found = histopathology._mitoses(haematoxylin, eosin, np.zeros((112, 112)), 5.0, np.random.default_rng(seed))
        _, seen = ndimage.label(ndimage.binary_dilation(haematoxylin > 0.6, iterations=5))
        assert found == seen >= 1


@pytest.mark.parametrize(("share", "score"), [(0.2, 3), (0.5, 4), (0.8, 5)])
def test_stained_nuclei_are_graded_by_their_share(share, score):
    assert histopathology.allred_proportion(share) == f"Allred proportion score {score}"


@settings(max_examples=20)
@given(radius=st.floats(5, 40))
def test_the_greatest_diameter_of_a_disc_is_its_diameter(radius):
    row, column = np.mgrid[0:112, 0:112]
    assert dermoscopy.greatest_diameter(np.hypot(row - 55.5, column - 55.5) < radius) == pytest.approx(
        2 * radius, abs=1.5
    )
