# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Fingerprints: copies of a picture are near, different patients are not, and the search misses no pair."""

from __future__ import annotations

import io
import pickle
import random
import shutil

import av
import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from data_engine.fingerprints import NEAR_BITS, NEAR_CORNER_BITS, distance, fingerprint, near_pairs, perceptual_hash
from data_engine.phantoms import KINDS_OF, MODALITIES, generate

PATIENTS = 8
"""Of each modality."""


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    """One picture each of PATIENTS patients of every modality."""
    return [
        Image.fromarray(generate(modality, "image", np.random.default_rng([17, patient])).frames[0])
        for modality in MODALITIES
        for patient in range(PATIENTS)
    ]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """The picture after lossy compression."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def look(image: Image.Image) -> str | None:
    """The perceptual hash of one picture."""
    return perceptual_hash(np.asarray(image)[None])


COPIES = {
    "compressed": lambda image: jpeg(image, 50),
    "half the size": lambda image: image.resize((56, 56), Image.Resampling.LANCZOS),
    "twice the size": lambda image: image.resize((224, 224), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "all at once": lambda image: jpeg(ImageEnhance.Brightness(image.resize((90, 90))).enhance(1.05), 60),
}


@pytest.mark.parametrize("change", COPIES)
def test_copies_are_near_their_original(images, change):
    near = [distance(look(image), look(COPIES[change](image))) is not None for image in images]
    assert np.mean(near) >= 0.98


def test_different_patients_are_not_near_whatever_the_modality(images):
    hashes = [look(image) for image in images]
    groups = [0] * len(hashes)
    assert [(i, j) for i, j, _ in near_pairs(hashes, hashes, groups, groups) if i != j] == []


@pytest.mark.parametrize(
    ("modality", "kind"), [(m, kind) for m in MODALITIES for kind in KINDS_OF[m] if kind != "image"]
)
def test_clips_of_different_patients_are_not_near(modality, kind):
    hashes = [perceptual_hash(generate(modality, kind, np.random.default_rng([18, i])).frames[::5]) for i in range(3)]
    assert all(distance(hashes[i], hashes[j]) is None for i, j in ((0, 1), (0, 2), (1, 2)))


def test_nearly_empty_pictures_have_no_look():
    noise = np.random.default_rng(0).normal(0, 6, (1, 256, 256, 3)).clip(0, 255).astype(np.uint8)
    marked = np.zeros((1, 512, 512, 3), np.uint8)
    marked[0, 8:20, 480:488] = 255
    for frames in (np.zeros((1, 64, 64, 3), np.uint8), np.full((4, 64, 64, 3), 200, np.uint8), noise, marked):
        assert perceptual_hash(frames) is None


def test_image_files_a_copy_has_the_same_fingerprint_and_a_changed_one_is_near(images, tmp_path):
    images[0].save(tmp_path / "first.png")
    shutil.copy(tmp_path / "first.png", tmp_path / "another name.png")
    images[0].resize((150, 150)).save(tmp_path / "changed.jpg", quality=70)
    images[1].save(tmp_path / "other.png")
    first, copy, changed, other = (
        fingerprint(tmp_path / name, "image") for name in ("first.png", "another name.png", "changed.jpg", "other.png")
    )
    assert first == copy
    assert first.sha256 != changed.sha256
    assert distance(first.perceptual, changed.perceptual) is not None
    assert distance(first.perceptual, other.perceptual) is None


def test_volumes_stored_with_other_numbers_are_near(tmp_path):
    def save(seed: int, name: str, scale: float, kind: type) -> None:
        frames = generate("MRI", "volume", np.random.default_rng(seed)).frames[..., 0]
        volume = (frames.transpose(2, 1, 0) * scale).astype(kind)
        nibabel.Nifti1Image(volume, np.eye(4), dtype=kind).to_filename(tmp_path / name)

    save(1, "first.nii.gz", 1, np.uint8)
    save(1, "scaled.nii", 7.3, np.float32)
    save(2, "other.nii.gz", 1, np.uint8)
    first, scaled, other = (
        fingerprint(tmp_path / name, "volume") for name in ("first.nii.gz", "scaled.nii", "other.nii.gz")
    )
    assert first.sha256 != scaled.sha256
    assert distance(first.perceptual, scaled.perceptual) is not None
    assert distance(first.perceptual, other.perceptual) is None


def test_videos_coded_again_are_near(tmp_path):
    def save(seed: int, name: str, quality: int) -> None:
        frames = generate("endoscopy", "video", np.random.default_rng(seed)).frames
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("libx264", rate=4, options={"crf": str(quality)})
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame)))
            container.mux(stream.encode())

    save(1, "first.mp4", 18)
    save(1, "small.mp4", 30)
    save(2, "other.mp4", 18)
    first, small, other = (fingerprint(tmp_path / name, "video") for name in ("first.mp4", "small.mp4", "other.mp4"))
    assert first.sha256 != small.sha256
    assert distance(first.perceptual, small.perceptual) is not None
    assert distance(first.perceptual, other.perceptual) is None


def test_a_folder_is_known_by_its_files_whatever_they_are_called(images, tmp_path):
    for folder, name, image in (("a", "1.png", 0), ("b/c", "2.png", 0), ("d", "1.png", 1)):
        (tmp_path / folder).mkdir(parents=True)
        images[image].save(tmp_path / folder / name)
    first, renamed, other = (fingerprint(tmp_path / folder, "image") for folder in "abd")
    assert first == renamed
    assert first.sha256 != other.sha256


def test_a_file_that_cannot_be_read_is_a_value_error(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing more")
    for name in ("broken.png", "absent.png"):
        with pytest.raises(ValueError, match=name):
            fingerprint(tmp_path / name, "image")


def test_fingerprints_are_repeatable_and_travel_between_processes(images, tmp_path):
    images[0].save(tmp_path / "first.png")
    first = fingerprint(tmp_path / "first.png", "image")
    assert pickle.loads(pickle.dumps(first)) == first == fingerprint(tmp_path / "first.png", "image")
    assert len(first.sha256) == len(first.perceptual) == 64


LOWEST_FREQUENCIES = 192
"""Bits from here on, of 256, are those of the 64 lowest frequencies."""


def test_near_means_few_bits_of_all_and_of_the_lowest_frequencies():
    def flipped(high: int, low: int) -> int | None:
        return distance("0" * 64, f"{((1 << high) - 1 << LOWEST_FREQUENCIES) | ((1 << low) - 1):064x}")

    assert flipped(NEAR_CORNER_BITS, NEAR_BITS - NEAR_CORNER_BITS) == NEAR_BITS
    assert flipped(NEAR_CORNER_BITS + 1, 0) is None
    assert flipped(0, NEAR_BITS + 1) is None
    assert flipped(0, 0) == 0


def changed(hash: int, corner: list[int], rest: list[int]) -> int:
    """The hash with some bits turned."""
    for bit in corner:
        hash ^= 1 << (LOWEST_FREQUENCIES + bit)
    for bit in rest:
        hash ^= 1 << bit
    return hash


several_hashes = st.lists(
    st.builds(
        changed,
        st.sampled_from([0, (1 << 256) - 1, 0x5A5A << 200, 0x0F << 248]),
        st.lists(st.integers(0, 63), max_size=5),
        st.lists(st.integers(0, LOWEST_FREQUENCIES - 1), max_size=15),
    ).map(lambda hash: f"{hash:064x}"),
    max_size=12,
)


@given(several_hashes, several_hashes, st.data())
def test_the_search_finds_what_comparing_all_finds(left, right, data):
    groups = [data.draw(st.lists(st.integers(0, 1), min_size=len(one), max_size=len(one))) for one in (left, right)]
    assert near_pairs(left, right, *groups) == [
        (i, j, distance(one, other))
        for i, one in enumerate(left)
        for j, other in enumerate(right)
        if groups[0][i] == groups[1][j] and distance(one, other) is not None
    ]


def test_planted_copies_are_found_among_many(one_thread):
    chance = random.Random(3)
    hashes = [chance.getrandbits(256) for _ in range(20_000)]
    copies = [changed(hash, chance.sample(range(64), 6), chance.sample(range(192), 18)) for hash in hashes[::10]]
    found = near_pairs(
        [f"{hash:064x}" for hash in hashes], [f"{hash:064x}" for hash in copies], [0] * len(hashes), [0] * len(copies)
    )
    assert found == [(10 * place, place, NEAR_BITS) for place in range(len(copies))]
