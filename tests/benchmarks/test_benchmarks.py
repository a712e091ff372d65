# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""That the benchmarks measure what they say: lesions, survival, random removal, memory, taking turns."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
import torch

from benchmarks import encoder as encoder_benchmark
from benchmarks import pruning as pruning_benchmark
from benchmarks.report import share_with_interval
from hub_model.token_pruning_omniv_med import PrunedTokens, prune_tokens

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def scan(tmp_path_factory) -> str:
    """A smooth head of 24 slices, 2 mm apart, in air."""
    z, y, x = np.meshgrid(np.linspace(-1, 1, 24), np.linspace(-1, 1, 32), np.linspace(-1, 1, 32), indexing="ij")
    volume = np.where(x**2 + y**2 + z**2 < 0.9, 500 + 200 * np.sin(3 * x + 2 * y), 0).astype(np.float32)
    path = tmp_path_factory.mktemp("scan") / "head.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume.transpose(2, 1, 0), np.diag([3.0, 3.0, 2.0, 1.0])), path)
    return str(path)


def test_a_lesion_is_a_ball_of_its_diameter_in_millimetres(processor, scan):
    processed = processor.process_clip(processor.load(scan))
    frames = pruning_benchmark.unpatchify(processed.tokens, *processed.grid)
    depth, rows, columns = pruning_benchmark.pixel_axes(processed, frames)
    voxel = abs((depth[1] - depth[0]) * (rows[1] - rows[0]) * (columns[1] - columns[0]))
    volumes = [
        float(sphere.weights.sum()) * voxel for sphere in pruning_benchmark.lesions(processed, frames, 50, seed=1)
    ]
    smallest, largest = (np.pi / 6 * diameter**3 for diameter in pruning_benchmark.DIAMETERS)
    assert max(volumes) <= 1.3 * largest
    assert np.median(volumes) > smallest


def test_lesions_lie_in_the_body_and_are_the_same_for_a_seed(processor, scan):
    processed = processor.process_clip(processor.load(scan))
    frames = pruning_benchmark.unpatchify(processed.tokens, *processed.grid)
    first, again, other = (
        [(float(s.weights.sum()), s.change) for s in pruning_benchmark.lesions(processed, frames, 5, seed)]
        for seed in (3, 3, 4)
    )
    assert first == again != other
    for sphere in pruning_benchmark.lesions(processed, frames, 20, seed=5):
        centre = (sphere.weights == sphere.weights.amax()).nonzero()[0]
        assert frames[centre[0], :, centre[1], centre[2]].mean() > pruning_benchmark.BODY_LEVEL


def test_contrast_survives_in_the_share_of_it_that_is_kept():
    difference = torch.zeros(3, 2, 1, 3, 4, 4)
    difference[1, 0] = 0.2
    difference[2, 0] = 0.6
    keep = torch.tensor([[True, True], [True, False], [False, False]])
    stand_in = torch.tensor([[0, 0], [1, 0], [1, 0]])
    pruned = PrunedTokens(keep, stand_in, torch.zeros(3, 2), torch.zeros(3, 2), 0.1)
    assert pruning_benchmark.surviving_contrast(difference, pruned) == pytest.approx((0.2 + 0.2) / 0.8)


def test_random_removal_keeps_the_first_frame_and_exactly_as_many_tokens():
    keep_mask = torch.rand(9, 7, generator=torch.Generator().manual_seed(0)) < 0.4
    drawn = pruning_benchmark.random_pruning(keep_mask, 30, torch.Generator().manual_seed(1))
    assert int(drawn.keep_mask.sum()) == 30
    assert drawn.keep_mask[0].all()
    assert drawn.keep_mask.gather(0, drawn.stand_in).all()


def test_ours_loses_fewer_lesions_than_chance_on_a_smooth_scan(processor, scan):
    figures = pruning_benchmark.measure_clip(processor, scan, pruning_benchmark.RULES["ours"], 20, seed=0)
    assert figures["survival"]["share"] > figures["random"]["survival"]["share"]
    assert figures["worst_error"] <= figures["threshold"] + 1e-6


def test_a_share_has_the_interval_of_wilson():
    figure = share_with_interval(81, 263)  # Newcombe, Statistics in Medicine 17 (1998), table I
    assert figure["share"] == pytest.approx(0.3080, abs=1e-4)
    assert (figure["low"], figure["high"]) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_peak_memory_is_what_lives_at_one_time():
    def call() -> torch.Tensor:
        first = torch.ones(1000, 1000) * 2
        del first
        return torch.ones(1500, 1000) * 2

    assert encoder_benchmark.peak_memory(call) == pytest.approx(2 * 1500 * 1000 * 4, rel=0.01)


def test_calls_take_turns_and_the_first_round_is_not_counted():
    order = []
    times = encoder_benchmark.take_turns({name: lambda name=name: order.append(name) for name in "ab"}, repeats=2)
    assert order == list("ababab")
    assert [len(elapsed) for elapsed in times.values()] == [2, 2]


def test_the_pair_of_encoders_computes_the_same_on_real_slices():
    ours, theirs = encoder_benchmark.build_pair()
    tokens = encoder_benchmark.slices(3, 8)
    inputs = encoder_benchmark.encoder_inputs(tokens, 8)
    assert prune_tokens(tokens, **encoder_benchmark.PRUNING).keep_mask.float().mean() < 1
    with torch.no_grad():
        difference = ours(**inputs).last_hidden_state - theirs(**inputs).last_hidden_state
    assert difference.abs().max() < 1e-4
