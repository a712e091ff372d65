# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What the viewing half of the page sends to the browser: slices, kept tokens, volume, evidence."""

from __future__ import annotations

import base64
import gzip
import io
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
import torch
from PIL import Image, ImageColor

from demo.panels.components import FOLDER
from demo.panels.example_cards import SIDE
from demo.panels.facts import facts
from demo.panels.viewer import (
    DEPENDED,
    HIGHEST_SCORE,
    KEPT,
    LARGEST_SHEET,
    LARGEST_SQUARE,
    MOST_THUMBNAILS,
    REMOVED,
    SCALE,
    THUMBNAIL,
    TINT,
    encoder_slices,
    evidence,
    first_to_show,
    orientation,
    photographs,
    pruning,
    rows_and_columns,
    show,
    show_pruning,
    slices,
)
from demo.panels.volume_view import KEPT as KEPT_VOXEL
from demo.panels.volume_view import LARGEST_SIDE, NIIVUE, background, mask, show_mask, show_volume, space, why_not
from demo.panels.volume_view import REMOVED as REMOVED_VOXEL
from demo.service.evidence import SIDE as SIDE_OF_GROUP
from demo.service.evidence import groups_of, occlusion_evidence
from demo.service.samples import examples
from demo.service.windows import PRESETS
from hub_model.media_omniv_med import PLANES, load_clip


@pytest.fixture(scope="module", autouse=True)
def in_one_thread(one_thread):
    """All models here are tiny."""


def picture_of(uri: str, mode: str = "RGBA") -> np.ndarray:
    """The pixels of a data URI, also of one in the `url()` of a style."""
    encoded = uri.removeprefix("url(").removesuffix(")").split(",")[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded))).convert(mode))


def frames_of(uri: str, count: int, mode: str = "RGBA") -> np.ndarray:
    """The slices of a sheet (T, H, W, …), from where the browser finds them."""
    picture, (rows, columns) = picture_of(uri, mode), rows_and_columns(count)
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    places = [(index // columns * height, index % columns * width) for index in range(count)]
    return np.stack([picture[top : top + height, left : left + width] for top, left in places])


def shades_of(uri: str, count: int) -> np.ndarray:
    """From 0 to 255 how much each square of a sheet in the colours of the scale shows."""
    steps = {colour: shade for shade, colour in enumerate(SCALE)}
    pixels = frames_of(uri, count, "RGB")
    return np.array([steps[tuple(pixel)] for pixel in pixels.reshape(-1, 3).tolist()]).reshape(pixels.shape[:3])


def volume_of(text: str) -> nibabel.Nifti1Image:
    return nibabel.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


# The viewer's messages


@pytest.mark.parametrize("count", [1, 2, 7, 9])
def test_every_frame_lies_in_the_sheet_where_the_browser_looks(count):
    frames = np.stack([np.full((10, 20, 3), 28 * index, np.uint8) for index in range(count)])
    found = frames_of(photographs(frames, (40, 24)), count, "RGB")
    assert found.shape == (count, 24, 40, 3)
    assert np.abs(found.astype(int) - 28 * np.arange(count).reshape(-1, 1, 1, 1)).max() <= 3


def test_a_long_clip_of_large_frames_is_sent_small_and_in_the_shape_of_the_body():
    clip = load_clip(np.zeros((128, 400, 400), np.uint8), kind="volume", spacing=(1.0, 2.0, 1.0), max_frames=128)
    message = slices(clip)
    assert (message["frames"], message["rows"], message["columns"]) == (128, *rows_and_columns(128))
    height, width = picture_of(message["sheets"]["original"]).shape[:2]
    assert height * width <= 1.1 * LARGEST_SHEET, "a few places of the sheet may stay empty"
    height, width = height / message["rows"], width / message["columns"]
    assert height / width == pytest.approx(2, rel=0.02)
    assert float(message["style"]["--shape"]) == pytest.approx(0.5, rel=0.02)
    assert max(picture_of(message["sheets"]["original"]).shape) <= 16383, "WebP takes no more"


@pytest.mark.parametrize("count", [1, 5, 200])
def test_the_strip_holds_evenly_spaced_frames_from_the_first_to_the_last(count):
    frames = np.stack([np.full((8, 8, 3), 250 * index // max(count - 1, 1), np.uint8) for index in range(count)])
    message = slices(load_clip(frames, kind="video", spacing=1.0, max_frames=count))
    number = int(message["style"]["--thumbnails"])
    assert number == min(count, MOST_THUMBNAILS)
    picture = picture_of(message["style"]["--strip"], "L")
    assert picture.shape == (THUMBNAIL, number * THUMBNAIL)
    levels = picture[THUMBNAIL // 2, THUMBNAIL // 2 :: THUMBNAIL].astype(int)
    assert np.abs(levels - np.linspace(0, frames[-1].max(), number)).max() < 6


def test_places_are_written_only_where_the_file_has_them(processor, film_clip, picture):
    words = pruning(processor.process_clip(film_clip))["captions"].split("\n")
    assert words[0].startswith("Frame 1 of 6 · 0.0 s · 6 of 6 tokens kept") and "Frame 2 of 6 · 0.5 s · " in words[1]
    no_spacing = processor.process_clip(load_clip(np.zeros((3, 16, 16), np.uint8), kind="volume"))
    assert pruning(no_spacing)["captions"].split("\n")[0] == "Slice 1 of 3 · 4 of 4 tokens kept"
    (words,) = pruning(processor.process_clip(load_clip(picture())))["captions"].split("\n")
    assert words.endswith("tokens kept") and "1 of 1 ·" not in words


def test_stand_ins_rebuild_the_reconstruction(processed):
    """As the browser does: a token of another slice, counted over the whole clip."""
    stand_in = np.array([line.split() for line in pruning(processed)["stand_ins"].split("\n")], dtype=int)
    tokens = processed.shown_frames()
    rows, columns = processed.grid
    split = (
        tokens.reshape(len(tokens), rows, 8, columns, 8, 3)
        .transpose(0, 1, 3, 2, 4, 5)
        .reshape(len(tokens), -1, 8, 8, 3)
    )
    drawn = split.reshape(-1, 8, 8, 3)[stand_in]
    drawn = drawn.reshape(len(tokens), rows, columns, 8, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(tokens.shape)
    assert (drawn == processed.reconstructed_frames()).all()
    assert encoder_slices(processed)["grid"] == [rows, columns]


def test_kept_regions_are_outlined_and_removed_tokens_tinted(processed):
    keep, (rows, columns) = processed.pruned.keep_mask.numpy(), processed.grid
    overlay = frames_of(pruning(processed)["sheets"]["kept"], len(keep))
    side = LARGEST_SQUARE
    assert overlay.shape == (len(keep), rows * side, columns * side, 4)
    squares = (
        overlay.reshape(len(keep), rows, side, columns, side, 4).swapaxes(2, 3).reshape(*keep.shape, side, side, 4)
    )
    assert (squares[~keep] == [*ImageColor.getrgb(REMOVED), TINT]).all()
    assert (squares[keep][:, 1:-1, 1:-1, 3] == 0).all(), "inside one sees the picture"
    line, grid = (overlay == [*ImageColor.getrgb(KEPT), 255]).all(axis=-1), keep.reshape(-1, rows, columns)
    for row in range(rows):
        for column in range(columns - 1):
            left, right = grid[:, row, column], grid[:, row, column + 1]
            border = line[:, row * side + 1 : (row + 1) * side - 1, (column + 1) * side - 1]
            assert (border.all(axis=1) == (left & ~right)).all(), "no line between two kept tokens"


def test_bars_are_as_long_as_the_share_of_kept_tokens(processed):
    share = processed.pruned.keep_mask.numpy().mean(axis=1)
    drawn = picture_of(pruning(processed)["style"]["--bars"])[0, :, 3].reshape(len(share), THUMBNAIL) > 0
    assert drawn.sum(axis=1) == pytest.approx(share * (THUMBNAIL - 2), abs=1)


def test_scores_tell_kept_from_removed(processor, film_clip):
    processed = processor.process_clip(film_clip, prune_rule="previous")  # ours removes known background above 1, too
    shades = shades_of(pruning(processed)["sheets"]["score"], 6).reshape(6, -1)
    kept = processed.pruned.keep_mask.numpy()
    threshold = 255 / HIGHEST_SCORE
    assert shades[kept].min() >= round(threshold) > shades[~kept].max()


@pytest.mark.parametrize(("plane", "letters"), [("axial", "APRL"), ("coronal", "HFRL"), ("sagittal", "HFAP")])
def test_letters_say_where_the_patient_lies_if_the_file_does(tmp_path, plane, letters):
    """The bright block lies at the patient's left, front and head."""
    asymmetric_volume(tmp_path / "scan.nii.gz")
    clip = load_clip(tmp_path / "scan.nii.gz", plane=plane)
    assert orientation(clip) == letters
    top, bottom, left, right = letters
    bright = np.argwhere(clip.frames.max(axis=0)[..., 0] > 128).mean(axis=0) / clip.frames.shape[1:3] - 0.5
    assert (top if bright[0] < 0 else bottom) in "AHL" and (left if bright[1] < 0 else right) in "AHL"
    assert orientation(replace(clip, notes=("The header gives no orientation; it is taken for LPS.",))) == ""
    assert orientation(load_clip(np.zeros((3, 16, 16), np.uint8), kind="volume")) == ""


def test_values_and_lengths_are_sent_where_the_file_has_them(tmp_path, film_clip, picture):
    asymmetric_volume(tmp_path / "scan.nii.gz")
    clip = load_clip(tmp_path / "scan.nii.gz")
    message = slices(clip)
    assert message["millimetres"] == pytest.approx([24 * 2, 20 * 3])
    assert slices(load_clip(picture()))["millimetres"] is None and not slices(load_clip(picture()))["grey"]
    assert message["grey"] and message["scale"] == {"low": 0.0, "width": 255.0, "unit": ""}
    window = PRESETS["lung"]
    message = slices(clip, window, clip.frames[..., 0])
    assert message["scale"] == {"low": -1350.0, "width": 1500.0, "unit": "HU"} and message["window"] == window.name
    assert window.name in [each["name"] for each in message["windows"]]


def test_a_clip_of_many_tokens_has_a_small_message(processor):
    frames = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8), 300, axis=0)
    frames[290:] = 255 - frames[290:]
    clip = load_clip(frames, kind="video", spacing=1.0, max_frames=300)
    message = pruning(processor.process_clip(clip))
    tokens = len(message["stand_ins"].split("\n")[0].split())
    assert max(map(int, message["stand_ins"].split())) == 290 * tokens + tokens - 1
    assert len(json.dumps(message)) < 100_000


def test_first_is_shown_what_says_most_near_the_middle():
    keep = np.zeros((9, 4), bool)
    keep[0] = True
    assert first_to_show(keep) == 4, "nothing is mixed"
    keep[7, 0] = keep[1, :2] = True
    assert first_to_show(keep) in (1, 7)
    keep[6, 0] = True
    assert first_to_show(keep) == 6
    assert first_to_show(np.ones((1, 4), bool)) == 0


def test_an_empty_viewer_has_no_message_left():
    update = show(None)
    assert (update["value"], update["model"], update["pruning"]) == (None, None, None)
    assert update["evidence"]["sheets"] == {"weight": ""}


def test_other_settings_send_no_slice_again(processed):
    assert {"value", "model"}.isdisjoint(show_pruning(processed))
    assert "model" in show_pruning(processed, resized=True)


def test_facts_name_kind_size_and_notes_and_escape_them(processed):
    odd = replace(processed, notes=("<b>odd</b> & more",))
    words = facts(odd)
    assert "video" in words and "6 of 6 video frames" in words and "16 × 24 pixels" in words
    assert "&lt;b&gt;odd&lt;/b&gt; &amp; more" in words


# Planes and 3D


def asymmetric_volume(path: Path) -> np.ndarray:
    """Writes a scan with one bright block at the patient's left, front and head; returns its centre in LPS mm."""
    values = np.zeros((12, 20, 24), np.int16)  # z, y, x in LPS
    values[9:12, 0:5, 18:24] = 400
    image = sitk.GetImageFromArray(values)
    image.SetSpacing((2.0, 3.0, 4.0))
    sitk.WriteImage(image, str(path))
    return np.array([21.0, 2.0, 10.0]) * (2, 3, 4) - np.array([11.5, 9.5, 5.5]) * (2, 3, 4)


@pytest.mark.parametrize("plane", PLANES)
def test_the_volume_stands_as_the_patient_does_whatever_its_plane(tmp_path, processor, plane):
    centre = asymmetric_volume(tmp_path / "scan.nii.gz")
    processed = processor.process_clip(load_clip(tmp_path / "scan.nii.gz", plane=plane))
    image = volume_of(background(processed.clip))
    values = np.asarray(image.dataobj)
    found = nibabel.affines.apply_affine(image.affine, np.argwhere(values > 128).mean(axis=0))
    assert found == pytest.approx(centre * (-1, -1, 1), abs=1.0), "NIfTI counts to the right and to the front"
    assert image.header.get_zooms() == pytest.approx((2, 3, 4)) and values.shape == (24, 20, 12)
    assert nibabel.aff2axcodes(image.affine) == ("R", "A", "S")


@pytest.mark.parametrize("plane", PLANES)
def test_the_crosshair_stands_where_the_volume_has_its_slices(tmp_path, processor, plane):
    """The browser finds a point of a slice in millimetres as here (`crosshair.js`)."""
    centre = asymmetric_volume(tmp_path / "scan.nii.gz")
    clip = load_clip(tmp_path / "scan.nii.gz", plane=plane)
    where = space(clip)
    frame, row, column = np.argwhere(clip.frames[..., 0] > 128).mean(axis=0)
    depths = np.interp(frame, np.arange(len(clip.frames)), [float(place) for place in where["places"].split()])
    height, width = where["size"]
    down = ((row + 0.5) / clip.frames.shape[1] - 0.5) * height
    right = ((column + 0.5) / clip.frames.shape[2] - 0.5) * width
    found = np.array([depths, down, right]) @ np.array(where["directions"])
    assert found == pytest.approx(centre * (-1, -1, 1), abs=1.0)


@pytest.mark.parametrize("plane", PLANES)
def test_the_mask_covers_the_volume_and_holds_the_kept_tokens(tmp_path, processor, plane):
    centre = asymmetric_volume(tmp_path / "scan.nii.gz")
    processed = processor.process_clip(load_clip(tmp_path / "scan.nii.gz", plane=plane))
    rows, columns = processed.grid
    shown = processed.shown_frames()
    squares = shown.reshape(len(shown), rows, shown.shape[1] // rows, columns, -1, 3).mean(axis=(2, 4, 5))
    bright = torch.from_numpy((squares > squares.max() / 2).reshape(len(shown), -1))
    processed = replace(processed, pruned=replace(processed.pruned, keep_mask=bright))
    scan, tokens = volume_of(background(processed.clip)), volume_of(mask(processed))
    values = np.asarray(tokens.dataobj)
    assert (values == KEPT_VOXEL).sum() == int(bright.sum()) > 0
    assert set(np.unique(values)) == {KEPT_VOXEL, REMOVED_VOXEL}
    corners = [
        nibabel.affines.apply_affine(image.affine, [[-0.5] * 3, np.array(image.shape) - 0.5])
        for image in (scan, tokens)
    ]
    assert corners[0] == pytest.approx(corners[1])
    found = nibabel.affines.apply_affine(tokens.affine, np.argwhere(values == KEPT_VOXEL).mean(axis=0))
    assert (np.abs(found - centre * (-1, -1, 1)) < tokens.header.get_zooms()).all()


def test_unevenly_spaced_slices_stand_where_they_lie(processor):
    frames = np.zeros((5, 16, 16), np.uint8)
    frames[3] = 255
    even = load_clip(frames, kind="volume", spacing=(2.0, 1.0, 1.0))
    clip = replace(even, positions=np.array([0.0, 2.0, 4.0, 10.0, 12.0]))
    image = volume_of(background(clip))
    values = np.asarray(image.dataobj)
    assert values.shape[2] == 7 and image.header.get_zooms()[2] == pytest.approx(2)
    assert (values[0, 0] == [0, 0, 0, 0, 255, 255, 0]).all() or (values[0, 0] == [0, 0, 0, 255, 255, 255, 0]).all()
    assert volume_of(mask(processor.process_clip(clip))).shape[2] == 7


def test_large_volumes_are_thinned_out(processor):
    clip = load_clip(np.zeros((140, 300, 140), np.uint8), kind="volume", spacing=(1.0, 1.0, 1.0), max_frames=140)
    image = volume_of(background(clip))
    assert image.shape == (LARGEST_SIDE, LARGEST_SIDE, LARGEST_SIDE)
    assert image.header.get_zooms() == pytest.approx((140 / 128, 300 / 128, 139 / 127))
    assert volume_of(mask(processor.process_clip(clip))).shape[2] == LARGEST_SIDE


def test_what_has_no_planes_says_why(processor, processed, picture):
    no_spacing = processor.process_clip(load_clip(np.zeros((3, 16, 16), np.uint8), kind="volume"))
    image = processor.process_clip(load_clip(picture()))
    for item, words in (
        (None, "appear here"),
        (processed, "a video"),
        (image, "an image"),
        (no_spacing, "millimetres"),
    ):
        assert words in why_not(item) and why_not(item).count(".") == 1
        assert show_volume(item)["value"] == {"problem": why_not(item)} and "mask" not in show_volume(item)
        assert "mask" not in show_mask(item)


def test_niivue_comes_with_an_installed_package():
    assert NIIVUE.is_file() and b"Niivue" in NIIVUE.read_bytes()


# Evidence


@pytest.fixture(scope="module")
def question(processor, processed):
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": "Which organ is this?"}]}]
    prompt = processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    return processor(text=prompt, clips=[processed])


@pytest.fixture(scope="module")
def answer_ids(processor):
    return processor.tokenizer(" a beating heart", add_special_tokens=False).input_ids


def log_probability(model, inputs, answer_ids, features) -> float:
    """Of an answer in one pass over everything, with these visual tokens."""
    ids = torch.cat([inputs["input_ids"], torch.tensor([answer_ids])], dim=1)
    embeddings = model.get_input_embeddings()(ids).clone()
    embeddings[ids == model.config.image_token_id] = features
    with torch.no_grad():
        logits = model(inputs_embeds=embeddings).logits[0, inputs["input_ids"].shape[1] - 1 : -1]
    return logits.log_softmax(dim=-1)[range(len(answer_ids)), answer_ids].sum().item()


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("stage", ["language", "encoder"])
@pytest.mark.parametrize("at_once", [16, 1])
def test_falls_are_those_of_whole_passes_with_one_group_covered(
    make_model, processed, question, answer_ids, stage, at_once, context, monkeypatch
):
    """Covered before the projector, which may tell other tokens of what is covered."""
    monkeypatch.setattr("demo.service.evidence.MOST_AT_ONCE", at_once)
    model = make_model(projector_context=context)
    found = occlusion_evidence(model, question, [processed], answer_ids, stage)
    visual = {name: value for name, value in question.items() if name not in ("input_ids", "attention_mask")}
    with torch.no_grad():
        encoded = model.get_image_features(**visual, prune_stage=stage, return_dict=True)
    hidden, (features,) = encoded.last_hidden_state, encoded.pooler_output
    grids = visual["grid_thw"], visual["merge_sizes"], processed.pruned.keep_mask.flatten()
    whole = log_probability(model, question, answer_ids, features)
    order = processed.pruned.keep_mask.flatten().nonzero().squeeze(1).tolist()
    for group, fall in zip(found.groups, found.falls, strict=True):
        covered = hidden.clone()
        covered[[order.index(place) for place in group.places]] = hidden.mean(dim=0)
        with torch.no_grad():
            covered = model.model.projector(covered, *grids)
        assert fall == pytest.approx(whole - log_probability(model, question, answer_ids, covered), abs=1e-4)
    tokens = processed.pruned.keep_mask.shape[1]
    assert found.frame in {place // tokens for place in found.strongest.places}


def test_groups_are_neighbours_without_background_and_few(processor, picture, film_clip):
    frame = picture(seed=3).copy()
    frame[:, :8] = 0  # the first column of tokens is air
    clip = processor.process_clip(load_clip(frame))
    rows, columns = clip.grid
    groups = groups_of([clip])
    covered = sorted(place for group in groups for place in group.places)
    assert covered == [place for place in range(rows * columns) if place % columns > 0]
    for group in groups:
        at = np.array([divmod(place, columns) for place in group.places])
        assert (at.max(axis=0) // SIDE_OF_GROUP == at.min(axis=0) // SIDE_OF_GROUP).all()
    film = processor.process_clip(film_clip, prune_rule="none")
    few, many = groups_of([film], most=3), groups_of([film, clip], most=100)
    assert len(few) <= 3 and {group.medium for group in many} == {0, 1}
    assert sorted(place for group in few for place in group.places) == sorted(
        place for group in many if group.medium == 0 for place in group.places
    )


def test_removed_tokens_have_the_weight_of_their_stand_in_and_nothing_is_below_zero(
    model, processed, question, answer_ids
):
    found = occlusion_evidence(model, question, [processed], answer_ids)
    weights = found.on_tokens(0, processed)
    assert weights.shape == (6, *processed.grid) and weights.min() >= 0
    flat = weights.ravel()
    assert (flat == flat[processed.pruned.stand_in.numpy().ravel()]).all()
    for group, fall in zip(found.groups, found.falls, strict=True):
        assert flat[list(group.places)] == pytest.approx(max(fall, 0))
    assert not found.on_tokens(1, processed).any(), "another medium has its own"


def test_evidence_without_an_answer_a_medium_or_anything_to_see_is_a_sentence(
    processor, model, processed, question, answer_ids
):
    with pytest.raises(ValueError, match="no answer yet"):
        occlusion_evidence(model, question, [processed], [])
    with pytest.raises(ValueError, match="load one"):
        occlusion_evidence(model, processor(text="Hello?"), [], answer_ids)
    black = processor.process_clip(load_clip(np.zeros((16, 16, 3), np.uint8)))
    inputs = processor(text=processor.image_token, clips=[black])
    with pytest.raises(ValueError, match="nothing but empty background"):
        occlusion_evidence(model, inputs, [black], answer_ids)


def test_evidence_message_is_relative_to_the_strongest_and_begins_where_it_is_told():
    weights = np.random.default_rng(0).random((4, 5, 5)).astype(np.float32)
    weights[2] *= 10
    message = evidence(weights, 1)
    shades = shades_of(message["sheets"]["weight"], 4)
    assert shades.shape == weights.shape
    assert shades == pytest.approx(weights / weights.max() * 255, abs=1)
    bars = picture_of(message["style"]["--evidence-bars"])[0].reshape(4, THUMBNAIL, 4)
    lengths = (bars[..., 3] > 0).sum(axis=1)
    assert lengths.argmax() == 2 and lengths[2] == THUMBNAIL - 2
    assert tuple(bars[2, 0, :3]) == ImageColor.getrgb(DEPENDED)
    assert message["first"] == 1
    assert not picture_of(evidence(np.zeros((2, 1, 1), np.float32), 0)["style"]["--evidence-bars"])[..., 3].any()


# Files


def test_every_example_has_a_file_a_thumbnail_and_a_question():
    found = list(examples())
    assert len(found) == 5
    for example in found:
        assert example.path.is_file() and example.question.endswith("?")
        assert Image.open(FOLDER / f"{example.name}.webp").size == (SIDE, SIDE)
