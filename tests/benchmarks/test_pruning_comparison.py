# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The comparison of pruning rules: findings and their contrast, rules at a number of tokens, a folder of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks import pruning
from benchmarks.pruning_clips import Case, build_processor, cases_of
from benchmarks.pruning_figures import OUR_COLOURS, colours_of, draw_examples, draw_survival
from benchmarks.pruning_findings import (
    BODY_LEVEL,
    CONTRASTS,
    DIAMETERS,
    DISPLAY_RANGE,
    boxed,
    outlined,
    pixel_axes,
    plant,
    spheres,
)
from benchmarks.pruning_rules.compared import OF_CLIPS, OF_PICTURES, Subject, medpruner
from benchmarks.pruning_rules.encoder import ClipEncoder, EncoderView
from hub_model.processing_omniv_med import OmniVMedProcessor, ProcessedClip
from hub_model.pruning_noise_omniv_med import estimate_noise
from hub_model.visual_processing_omniv_med import unpatchify

pytestmark = pytest.mark.usefixtures("one_thread")

FRAMES, SIDE, LESION = 24, 32, (slice(10, 14), slice(12, 18), slice(14, 20))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A smooth head of 24 slices, 2 mm apart, with an outlined bright lesion, and pictures with a boxed one."""
    root = tmp_path_factory.mktemp("clips")
    z, y, x = np.meshgrid(np.linspace(-1, 1, FRAMES), np.linspace(-1, 1, SIDE), np.linspace(-1, 1, SIDE), indexing="ij")
    volume = np.where(x**2 + y**2 + z**2 < 0.9, 500 + 200 * np.sin(3 * x + 2 * y), 0).astype(np.float32)
    mask = np.zeros_like(volume)
    mask[LESION] = 1
    volume[LESION] += 300
    for name, values in (("head", volume), ("lesions", mask), ("plain", volume - 300 * mask)):
        image = nibabel.Nifti1Image(values.transpose(2, 1, 0), np.diag([-3.0, -3.0, 2.0, 1.0]))
        nibabel.save(image, root / f"{name}.nii.gz")
    lines = [{"file": "head.nii.gz", "lesions": "lesions.nii.gz"}, {"file": "plain.nii.gz"}]
    (root / "volumes.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    lines = []
    for number in range(3):
        shown = np.full((64, 64, 3), 60, np.uint8)
        shown[16:32, 32:48] = 200
        Image.fromarray(shown).save(root / f"{number}.png")
        lines.append({"file": f"{number}.png", "source": "screen", "boxes": [[0.5, 0.25, 0.75, 0.5]]})
    lines.append({"file": "0.png", "source": "screen", "boxes": []})
    (root / "images.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    return root


@pytest.fixture(scope="module")
def wide(processor: OmniVMedProcessor) -> OmniVMedProcessor:
    """16 tokens of 8 pixels in a frame, the tiny model's patches; nothing is pruned."""
    return OmniVMedProcessor(
        processor.tokenizer, patch_size=4, merge_size=2, min_frame_tokens=16, max_frame_tokens=16, prune_rule="none"
    )


@pytest.fixture(scope="module")
def cases(folder: Path, wide: OmniVMedProcessor) -> list[Case]:
    return list(cases_of(folder, wide, limit=2, seed=0))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory, make_model) -> ClipEncoder:
    """Reads the encoder of a tiny model from its files."""
    root = tmp_path_factory.mktemp("model")
    make_model(temporal_window=2).save_pretrained(root)
    return ClipEncoder(root)


def frames_of(processed: ProcessedClip) -> torch.Tensor:
    return unpatchify(processed.tokens, *processed.grid)


def test_a_folder_gives_its_volumes_with_masks_and_its_boxed_pictures(cases):
    assert [case.name for case in cases[:2]] == ["head.nii.gz", "plain.nii.gz"]
    assert cases[0].mask is not None and cases[1].mask is None
    assert int(cases[0].mask.sum()) == np.prod([side.stop - side.start for side in LESION])
    assert cases[0].mask[LESION].all(), "in the slices, rows and columns of the volume"
    assert [len(case.boxes) for case in cases[2:]] == [1, 1], "the limit holds for the pictures of each source"


@pytest.mark.parametrize(
    ("lines", "words"), [(None, "neither volumes.jsonl nor images.jsonl"), ('{"path": "x"}', "Line 1 .* no 'file'")]
)
def test_a_folder_that_cannot_be_read_says_why(tmp_path, wide, lines, words):
    if lines:
        (tmp_path / "images.jsonl").write_text(lines)
    with pytest.raises(ValueError, match=words):
        list(cases_of(tmp_path, wide, 1, 0))


def test_an_outlined_lesion_is_compared_with_the_ring_around_it(cases):
    frames = frames_of(cases[0].processed)
    (lesion,) = outlined(cases[0].mask, frames)
    assert (lesion.difference(frames) > 0.2).float().mean() > 0.9
    assert not (lesion.inside & lesion.around).any()
    assert outlined(cases[0].mask, torch.zeros_like(frames)) == [], "what does not stand out is no finding"


def test_the_share_of_contrast_left_is_a_projection():
    frames = torch.zeros(1, 3, 64, 64)
    frames[:, :, 16:32, 32:48] = 0.8
    (finding,) = boxed([[0.5, 0.25, 0.75, 0.5]], frames)
    assert finding.share_left(frames, frames) == pytest.approx(1)
    assert finding.share_left(frames, frames + 0.1) == pytest.approx(1, abs=1e-5), "brightness is no contrast"
    assert finding.share_left(frames, frames / 4) == pytest.approx(0.25)
    assert finding.share_left(frames, torch.zeros_like(frames)) == 0
    assert finding.share_left(frames, -frames) == pytest.approx(-1)


def test_a_box_at_the_border_or_of_no_width_has_its_pixels():
    frames = torch.rand(1, 3, 32, 32)
    for box in ([0.0, 0.0, 0.2, 0.2], [0.9, 0.9, 1.0, 1.0], [0.5, 0.5, 0.5, 0.5]):
        for finding in boxed([box], frames):
            assert finding.inside.any() and finding.around.any()


def test_a_sphere_is_a_ball_of_its_diameter_in_millimetres(cases):
    frames = frames_of(cases[1].processed)
    depth, rows, columns = pixel_axes(cases[1].processed, frames)
    voxel = abs((depth[1] - depth[0]) * (rows[1] - rows[0]) * (columns[1] - columns[0]))
    drawn = spheres(cases[1].processed, frames, seed=1)
    volumes = [float(next(drawn).weights.sum()) * voxel for _ in range(50)]
    smallest, largest = (np.pi / 6 * diameter**3 for diameter in DIAMETERS)
    assert max(volumes) <= 1.3 * largest
    assert np.median(volumes) > smallest


def test_spheres_lie_in_the_body_and_are_the_same_for_a_seed(cases):
    frames = frames_of(cases[1].processed)
    first, again, other = (
        [(s.box, s.change) for s, _ in zip(spheres(cases[1].processed, frames, seed), range(5), strict=False)]
        for seed in (3, 3, 4)
    )
    assert first == again != other
    for sphere, _ in zip(spheres(cases[1].processed, frames, seed=5), range(20), strict=False):
        inside = frames.mean(dim=1)[sphere.box][sphere.weights == sphere.weights.amax()]
        assert inside.max() > BODY_LEVEL
        assert CONTRASTS[0] * DISPLAY_RANGE <= abs(sphere.change) <= CONTRASTS[1] * DISPLAY_RANGE


def test_planted_spheres_share_no_token_and_each_has_its_own_contrast(cases):
    processed = cases[1].processed
    frames = frames_of(processed)
    planted = plant(processed, frames, 8, 6, seed=0)
    assert len(planted.spheres) == 6
    touched = [
        {
            (t, row // 8, column // 8)
            for t in range(s.box[0].start, s.box[0].stop)
            for row in range(s.box[1].start, s.box[1].stop)
            for column in range(s.box[2].start, s.box[2].stop)
        }
        for s in planted.spheres
    ]
    assert sum(map(len, touched)) == len(set.union(*touched))
    assert planted.shares_left(planted.difference) == pytest.approx([1.0] * 6)
    halved = planted.difference.clone()
    halved[planted.spheres[2].box[0]] *= 0.5
    assert planted.shares_left(halved)[2] == pytest.approx(0.5)


def test_the_encoder_sees_as_the_model_does(cases, encoder, wide, make_model):
    model = make_model(temporal_window=2)
    processed = cases[1].processed
    view = encoder.view(processed, processed.tokens)
    assert [part.shape[:2] for part in view] == [processed.tokens.shape[:2]] * 3
    inputs = wide.visual_inputs([processed])
    with torch.no_grad():
        expected = model.get_image_features(**inputs).pooler_output[0]
    torch.testing.assert_close(view.embeddings.flatten(0, 1), expected, atol=1e-4, rtol=1e-4)
    # Every query gives one share away, so that a window of 2 frames receives one from each patch.
    assert float(view.received[:2].sum()) == pytest.approx(2 * processed.tokens.shape[1], rel=1e-4)


def test_a_folder_without_weights_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="make model"):
        ClipEncoder(tmp_path)


def subject_of(case: Case, encoder: ClipEncoder) -> Subject:
    tokens = case.processed.tokens
    return Subject(tokens, case.processed.grid, estimate_noise(tokens), encoder.view(case.processed, tokens), 0)


def test_every_rule_keeps_the_number_it_is_given_or_less(cases, encoder):
    for case, rules in ((cases[0], OF_CLIPS), (cases[2], OF_PICTURES)):
        subject = subject_of(case, encoder)
        for rule in rules:
            if rule.at_number is None:
                continue
            for removed in (0.3, 0.6, 0.8):
                kept = subject.kept_at(removed)
                outcome = rule.at_number(subject, kept)
                assert 0 < outcome.kept <= kept, rule.name
                shown = outcome.reconstruct(subject.tokens)
                assert shown.shape == subject.tokens.shape and shown.isfinite().all(), rule.name


def test_ours_is_bounded_at_its_default_and_shows_more_than_chance(cases, encoder):
    rows, examples = pruning.measure_case(cases[0], encoder, 5, seed=0)
    found = {(row.rule, row.setting): row for row in rows}
    for rule in ("ours, anchor", "ours, spatial"):
        assert found[rule, "default"].worst_error <= 0.1 + 1e-6
        assert found[rule, "default"].shares[0] >= 0.5
        for removed in ("60%", "80%", "90%"):
            assert found[rule, removed].mean_error < found["random", removed].mean_error
    assert len(examples["ours, spatial"]) == 1


def test_medpruners_dropped_slices_show_the_last_kept_one():
    tokens = torch.tensor([0.0, 0.0, 1.0]).view(3, 1, 1, 1, 1, 1).expand(3, 4, 1, 3, 2, 2)
    view = EncoderView(torch.rand(3, 4, 8), torch.rand(3, 4), torch.rand(3, 4, 6))
    outcome = medpruner(Subject(tokens, (2, 2), 0.0, view, 0))
    assert outcome.keep_mask[1].tolist() == [True, False, False, False]
    assert outcome.keep_mask[[0, 2]].any(dim=1).all()
    assert torch.allclose(outcome.reconstruct(tokens), tokens)


def test_few_patients_have_the_interval_of_wilson_and_many_their_bootstrap():
    few = pruning.survival([(1.0, "a"), (0.2, "b"), (0.6, "b")])
    assert (few["share"], few["groups"], few["interval"]) == (pytest.approx(2 / 3), 2, "Wilson")
    many = pruning.survival([(float(number % 2), str(number // 2)) for number in range(40)])
    assert (many["share"], many["interval"]) == (0.5, "bootstrap")
    assert many["low"] == many["high"] == 0.5, "every patient has one of two, so patients do not differ"
    assert pruning.survival([(1.0, str(number)) for number in range(40)])["interval"] == "Wilson"


def test_the_table_and_the_figures_have_a_row_for_each_rule(cases, encoder, tmp_path):
    rows, examples = pruning.measure([cases[0], cases[1], cases[2]], encoder, 4, seed=0)
    results = pruning.summary(rows)
    assert pruning.by_volume(rows)["head.nii.gz"]["ours, anchor, default"] == "1 of 1"
    assert {item["kind"] for item in results} == set(pruning.KINDS)
    for kind, rules in (("lesions", OF_CLIPS), ("spheres", OF_CLIPS), ("boxes", OF_PICTURES)):
        lines = pruning.table(results, kind).splitlines()
        assert [line.split(" | ")[0].removeprefix("| ") for line in lines[2:]] == [rule.name for rule in rules]
    draw_survival(results, pruning.KINDS, tmp_path / "survival.png")
    draw_examples(examples["lesions"], "Lost", 0, tmp_path / "lost.png")
    for name in ("survival.png", "lost.png"):
        assert np.asarray(Image.open(tmp_path / name)).std() > 5


def test_more_rules_of_ours_than_colours_are_drawn(tmp_path):
    names = [f"ours, {number}" for number in range(len(OUR_COLOURS) + 1)]
    colours = colours_of([*names, "random"])
    assert len({colours[name] for name in names}) == len(OUR_COLOURS)
    assert colours["random"] not in OUR_COLOURS
    results = [
        {"kind": "lesions", "rule": name, "setting": "default", "removed": 0.5, "survival": {"n": 4, "share": 0.5}}
        for name in names
    ]
    draw_survival(results, pruning.KINDS, tmp_path / "survival.png")
    assert np.asarray(Image.open(tmp_path / "survival.png")).std() > 5


def test_the_processor_of_the_benchmark_keeps_every_token():
    processor = build_processor(16, 4)
    assert (processor.prune_rule, processor.max_frames) == ("none", 4)
