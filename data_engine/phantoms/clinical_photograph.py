# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Clinical photograph phantoms: a body part with a wound, rash, ulcer, burn or swelling, and a ruler beside it or not.

Findings absorb light in the skin, so that redness shows as it does on every tone. All lengths of the anatomy are
millimetres, so a ruler laid in the picture and the size of a finding agree.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .geometry import SIZE, lesion_map, photograph, quadrant, smooth_noise
from .photographed_body import Photo, Point, back, eye, face, foot, forearm, hand, lower_leg
from .sample import Sample

PRESSURE_STAGES = ("stage 1", "stage 2", "stage 3", "stage 4")
"""NPIAP 2016: reddened intact skin; open dermis; fat and slough in the wound; bone, tendon or muscle laid open."""
BURN_DEPTHS = ("superficial", "partial thickness", "full thickness")
"""Redness alone; blisters on red; white and charred leathery skin."""
MEASURED = ("pressure ulcer", "venous ulcer", "diabetic ulcer", "laceration", "sutured wound", "burn")
"""Findings with a clear outline, whose size a ruler beside them tells."""
LARGEST_COUNT = 9
"""More things than this are not asked to be counted."""


def outline(photo: Photo, centre: Point, radii: Point, ragged: float) -> np.ndarray:
    """Normalised distance (SIZE, SIZE) from a finding's centre, 1 on an ellipse of `radii` (mm) made uneven.

    The unevenness only ever cuts into the ellipse and touches it in its long axis, so the greatest diameter stays
    twice the greater radius.
    """
    rng = photo.rng
    turn = rng.uniform(0, np.pi)
    x, y = photo.x - np.float32(centre[0]), photo.y - np.float32(centre[1])
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    u, v = (u, v) if radii[0] >= radii[1] else (v, u)
    a, b = max(radii), min(radii)
    angle = np.arctan2(v / b, u / a)
    notches = sum(rng.uniform(0, 1) * (1 + np.cos(k * angle + rng.uniform(0, 6))) for k in (3, 5, 7)) / 3
    return (np.hypot(u / a, v / b) * (1 + ragged * notches * np.sin(angle) ** 2)).astype(np.float32)


def _wound_bed(photo: Photo, distance: np.ndarray, slough: float) -> None:
    """Beefy red granulation tissue, with a share of yellow slough, inside distance 1; a dark overhanging edge."""
    rng = photo.rng
    inside = np.clip((1 - distance) * 8 + 0.5, 0, 1)
    grain = smooth_noise((SIZE, SIZE), rng, 2.5)[..., None]
    photo.paint(inside, np.array([0.62, 0.12, 0.12], np.float32) * (1 + 0.22 * grain))
    yellow = np.clip((smooth_noise((SIZE, SIZE), rng, 6) + 2.4 * slough - 1.2) * 2, 0, 1)
    yellow *= np.clip((0.9 - distance) * 6, 0, 1)
    photo.paint(0.85 * yellow, np.array([0.80, 0.70, 0.42], np.float32) * (1 + 0.1 * grain))
    photo.absorb(np.exp(-(((distance - 1) / 0.12) ** 2)), (0.55, 0.35, 0.35))


def _pressure_ulcer(photo: Photo, centre: Point, radii: Point, stage: str) -> None:
    """A pressure injury whose look tells its stage (PRESSURE_STAGES)."""
    distance = outline(photo, centre, radii, 0.25)
    inside = np.clip((1 - distance) * 6 + 0.5, 0, 1)
    photo.mark(inside)
    if stage == "stage 1":
        photo.absorb(2.0 * inside)
        return
    photo.absorb(0.8 * np.exp(-np.clip(distance - 0.9, 0, None) / 0.3))
    if stage == "stage 2":
        photo.paint(0.85 * inside, (0.80, 0.36, 0.34))
        photo.absorb(np.exp(-(((distance - 1) / 0.1) ** 2)), (0.75, 0.6, 0.6))
    else:
        _wound_bed(photo, distance, 0.75 if stage == "stage 3" else 0.3)
        if stage == "stage 4":
            bone = photo.soft(0.42 - distance * (1 + 0.2 * smooth_noise((SIZE, SIZE), photo.rng, 6)), 1 / min(radii))
            photo.paint(bone, (0.93, 0.89, 0.78))
            dead = np.clip((distance - 0.55) * 8, 0, 1) * np.clip((0.98 - distance) * 8, 0, 1)
            dead = dead * np.clip(smooth_noise((SIZE, SIZE), photo.rng, 9) * 2, 0, 1)
            photo.paint(0.9 * dead, (0.06, 0.05, 0.04))


def _burn(photo: Photo, centre: Point, radii: Point, depth: str) -> None:
    """A burn whose look tells its depth (BURN_DEPTHS)."""
    rng = photo.rng
    distance = outline(photo, centre, radii, 0.5)
    inside = np.clip((1 - distance) * 5 + 0.5, 0, 1)
    photo.mark(inside)
    photo.absorb((1.0 if depth == "superficial" else 1.5) * inside)
    if depth == "partial thickness":
        for _ in range(int(rng.integers(3, 7))):
            blister = (centre[0] + rng.uniform(-0.45, 0.45) * radii[0], centre[1] + rng.uniform(-0.45, 0.45) * radii[1])
            _blister(photo, blister, min(radii) * rng.uniform(0.16, 0.3))
    elif depth == "full thickness":
        leather = np.clip((0.78 - distance) * 6, 0, 1)
        grain = 1 + 0.06 * smooth_noise((SIZE, SIZE), rng, 4)[..., None]
        photo.paint(0.9 * leather, np.array([0.86, 0.80, 0.68]) * grain)
        char = leather * np.clip(smooth_noise((SIZE, SIZE), rng, 10) * 2.5 - 0.2, 0, 1)
        photo.paint(0.92 * char, (0.10, 0.07, 0.05))


def _blister(photo: Photo, centre: Point, radius: float) -> None:
    """A tense clear blister: a dark rim on one side, a reflection on the other."""
    distance = photo.near(centre) / np.float32(radius)
    dome = 0.14 * np.clip((1 - distance) * 3, 0, 1) * photo.skin
    photo.picture += dome[..., None] * np.array([1, 0.85, 0.6], np.float32)
    photo.absorb(0.9 * np.exp(-(((distance - 1) / 0.25) ** 2)))
    spot = photo.near((centre[0] - 0.35 * radius, centre[1] - 0.35 * radius)) / np.float32(radius)
    photo.paint(0.8 * np.exp(-((spot / 0.28) ** 2)), (1.0, 0.98, 0.95))


def _laceration(photo: Photo, centre: Point, length: float, sutures: int) -> None:
    """A cut of a length in mm, gaping and bleeding, or closed with a number of stitches."""
    rng = photo.rng
    turn = rng.uniform(0, np.pi)
    x, y = photo.x - np.float32(centre[0]), photo.y - np.float32(centre[1])
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    along = np.clip(1 - (2 * u / length) ** 2, 0, 1)
    v = v - rng.uniform(-0.12, 0.12) * length * along  # a slight bow that leaves the ends where they are
    width = max(length * (0.035 if sutures else rng.uniform(0.06, 0.13)), 0.8 * photo.pixel)
    photo.absorb(1.1 * np.exp(-((v / (2.6 * width)) ** 2)) * np.clip(1.2 - (2 * u / length) ** 4, 0, 1))
    cut = photo.soft(width * np.sqrt(along) - np.abs(v)) * (np.abs(u) <= length / 2)
    photo.paint(0.95 * cut, (0.42, 0.04, 0.05))
    photo.mark(photo.soft(2 * width - np.abs(v)) * (np.abs(u) <= length / 2))  # the cut and its red margin
    for k in range(sutures):
        at = length * ((k + 0.5) / sutures - 0.5)
        thread = photo.soft(0.55 * photo.pixel - np.abs(u - at)) * (np.abs(v) < max(0.09 * length, 2.6 * photo.pixel))
        photo.paint(thread, (0.05, 0.05, 0.10))


def _rash(photo: Photo, centre: Point, spread: float, wanted: int) -> int:
    """Raised red spots strewn around a centre (spread in mm), none touching another; returns how many found room."""
    rng = photo.rng
    size = max(spread * rng.uniform(0.09, 0.14), 1.6 * photo.pixel)
    placed: list[Point] = []
    for _ in range(40 * wanted):
        spot = (centre[0] + rng.uniform(-1, 1) * spread, centre[1] + rng.uniform(-1, 1) * spread)
        apart = all(np.hypot(spot[0] - p[0], spot[1] - p[1]) > 3.2 * size for p in placed)
        if len(placed) < wanted and apart and photo.shows(spot, 1.5 * size):
            placed.append(spot)
    for spot in placed:
        distance = photo.near(spot) / np.float32(size * rng.uniform(0.85, 1.15))
        photo.absorb(0.5 * np.exp(-((distance / 1.9) ** 2)) + 1.7 * np.clip((1.1 - distance) * 2.5, 0, 1))
        photo.mark(np.clip((1.5 - distance) * 2, 0, 1))
        photo.picture += (0.05 * np.exp(-(((distance - 0.3) / 0.4) ** 2)) * photo.skin)[..., None].astype(np.float32)
    return len(placed)


def _bruise(photo: Photo, centre: Point, radii: Point) -> None:
    """A bruise: violet in its middle, yellow-green as it fades."""
    distance = outline(photo, centre, radii, 0.3)
    photo.mark(np.clip((1.05 - distance) * 2, 0, 1))
    patches = 1 + 0.35 * smooth_noise((SIZE, SIZE), photo.rng, 8)
    photo.absorb(0.8 * np.clip((1.05 - distance) * 2, 0, 1), (0.90, 0.82, 0.50))
    photo.absorb(np.clip((0.95 - distance) * 1.6, 0, 1) * np.clip(patches, 0.2, 1.6), (0.66, 0.52, 0.84))


def _ruler(photo: Photo, row: float, column: float, reach: float) -> bool:
    """Lays a white paper ruler above or below a place, `reach` away (shares of the side); False where none fits.

    It has a tick every millimetre where they can be told apart, else every 5 or 10, and longer ones every 10 and 50.
    """
    rng = photo.rng
    side = -1 if row > 0 else 1
    height = rng.uniform(0.06, 0.10)
    near = row + side * (reach + rng.uniform(0.03, 0.06))
    if abs(near + side * height) > 0.5:
        return False
    share = (np.arange(SIZE) + 0.5) / SIZE - 0.5
    v = ((share - near) * side / height)[:, None]
    mm = ((share - column) * SIZE * photo.pixel)[None, :]
    paper = (v > 0) & (v < 1) & (np.abs(share - column) < rng.uniform(0.25, 0.45))
    photo.picture[paper] = rng.uniform(0.85, 0.97)
    photo.ill[paper] = 0
    step = 1 if photo.pixel < 0.35 else 5 if photo.pixel < 1.7 else 10
    for every, tall in ((step, 0.35), (10, 0.6), (50, 0.8)):
        tick = np.abs((mm / every + 0.5) % 1 - 0.5) * every < 0.5 * photo.pixel
        photo.picture[paper & tick & (v < tall)] = 0.05
    return True


@dataclass(frozen=True)
class BodyPart:
    """How a body part is photographed.

    Attributes:
        paint: lays it on the picture, with a further height of its surface (mm).
        width: mm across a picture that shows all of it.
        middle: the patient's point in the middle of that picture, mm.
        sites: places for a finding, mm.
        room: least and greatest radius of a finding, mm.
        findings: what may be found on it.
        unmirrored: the patient's side it shows as painted, or nothing where no side can be told.
    """

    paint: Callable[[Photo, np.ndarray | float], None]
    width: float
    middle: Point
    sites: tuple[Point, ...]
    room: tuple[float, float]
    findings: tuple[str, ...]
    unmirrored: str = ""


SKIN_FINDINGS = ("laceration", "sutured wound", "rash", "burn", "swelling", "bruise")
PARTS: dict[str, BodyPart] = {
    "hand": BodyPart(
        hand, 230, (0, -8), ((0, 0), (-14, 12), (12, -8), (0, 70), (2, 40)), (7, 16), SKIN_FINDINGS, "left"
    ),
    "forearm": BodyPart(
        forearm, 200, (0, 0), ((0, 0), (-40, 8), (40, -6), (-15, -10), (20, 9)), (8, 20), SKIN_FINDINGS
    ),
    "leg": BodyPart(
        lower_leg, 330, (-10, 20), ((6, 40), (4, 70), (0, -20), (2, 10)), (9, 22),
        ("venous ulcer", "venous ulcer", *SKIN_FINDINGS),
    ),
    "foot": BodyPart(
        foot, 250, (0, 0), ((0, 82), (12, -44), (-8, -30), (-2, 30)), (8, 16),
        ("pressure ulcer", "diabetic ulcer", "laceration", "sutured wound", "burn"), "right",
    ),
    "back": BodyPart(
        back, 560, (0, -40), ((0, 200), (-70, -20), (75, 30), (60, 120), (-60, 130), (20, -110)), (20, 48),
        ("pressure ulcer", "pressure ulcer", "laceration", "sutured wound", "rash", "burn", "bruise"),
    ),
    "face": BodyPart(face, 270, (0, 0), ((-14, 16), (-4, 4), (-26, -58), (6, 30)), (7, 15), SKIN_FINDINGS),
}  # fmt: skip
EYE_FINDINGS = ("jaundice", "red eye")


def _find(photo: Photo, finding: str, centre: Point, radius: float, number: int) -> dict[str, str]:
    """Paints a finding of a greatest radius in mm, and tells what is exact about it: severity, and things counted."""
    rng = photo.rng
    radii = (radius, radius * rng.uniform(0.6, 1.0))
    if finding == "pressure ulcer":
        stage = PRESSURE_STAGES[int(rng.integers(len(PRESSURE_STAGES)))]
        _pressure_ulcer(photo, centre, radii, stage)
        return {"severity": stage, "graded": "the pressure ulcer"}
    if finding == "burn":
        depth = BURN_DEPTHS[int(rng.integers(len(BURN_DEPTHS)))]
        _burn(photo, centre, radii, depth)
        return {"severity": depth, "graded": "the burn"}
    if finding in ("venous ulcer", "diabetic ulcer"):
        distance = outline(photo, centre, radii, 0.4 if finding == "venous ulcer" else 0.1)
        around = np.exp(-np.clip(distance - 0.9, 0, None) / 0.35)
        # Blood pigment browns the skin around a venous ulcer; a diabetic one has a rim of pale callus.
        photo.absorb(0.9 * around, (0.72, 0.55, 0.45) if finding == "venous ulcer" else (1.05, 1.02, 0.90))
        _wound_bed(photo, distance, rng.uniform(0.2, 0.7))
        photo.mark(np.clip((1 - distance) * 8 + 0.5, 0, 1))
    elif finding in ("laceration", "sutured wound"):
        _laceration(photo, centre, 2 * radius, number)
    elif finding == "rash":
        number = _rash(photo, centre, radius, number)
    elif finding == "bruise":
        _bruise(photo, centre, radii)
    else:
        photo.absorb(0.7 * np.exp(-((photo.near(centre) / radius) ** 2)).astype(np.float32))
        photo.mark(photo.soft(radius - photo.near(centre)))
    if 0 < number <= LARGEST_COUNT and (finding == "rash" or photo.shows(centre, radius)):
        return {"count": str(number), "counted": "stitches" if finding == "sutured wound" else "spots of the rash"}
    return {}


def _skin_photograph(rng: np.random.Generator, lesion: bool) -> tuple[Photo, dict[str, str]]:
    """A body part with or without a finding, and the facts about it."""
    region = tuple(PARTS)[int(rng.integers(len(PARTS)))]
    part = PARTS[region]
    finding = part.findings[int(rng.integers(len(part.findings)))]
    radius = float(rng.uniform(*part.room))
    site = part.sites[int(rng.integers(len(part.sites)))]
    centre = (site[0] + float(rng.uniform(-0.2, 0.2)) * radius, site[1] + float(rng.uniform(-0.2, 0.2)) * radius)
    number = 0
    if finding == "sutured wound":
        number = int(rng.integers(3, LARGEST_COUNT + 1))
    elif finding == "rash":
        number = int(rng.integers(3, LARGEST_COUNT + 1) if rng.random() < 0.6 else rng.integers(12, 40))
    # The camera is near enough that the finding, and each thing counted in it, spans some pixels.
    pixels = {"bruise": 10.0, "sutured wound": 2.2 * number, "rash": 6.0 + 0.7 * min(number, LARGEST_COUNT)}
    nearest, farthest = 5 * radius, SIZE * radius / pixels.get(finding, 5.5)
    width = float(np.clip(part.width * rng.uniform(0.5, 1.1), nearest, farthest))
    share = float(np.clip(2 - 2 * width / part.width, 0, 1))  # the nearer the camera, the closer it aims
    aim = np.asarray(part.middle) + share * (np.asarray(centre) - part.middle) + rng.normal(0, 0.1, 2) * width
    away = aim - centre
    aim = centre + away * min(1.0, (0.44 * width - radius) / max(float(np.hypot(*away)), 1e-6))
    upright = region in ("back", "face", "leg")
    angle = float(rng.normal(0, 0.12) if upright else rng.choice([0, 0, 0.5, 1, 1.5]) * np.pi + rng.normal(0, 0.25))
    photo = Photo(rng, width, (float(aim[0]), float(aim[1])), angle, bool(rng.random() < 0.5))
    bump: float | np.ndarray = 0.0
    if lesion and finding == "swelling":
        bump = 0.75 * radius * np.exp(-((photo.near(centre) / (0.85 * radius)) ** 2))
    part.paint(photo, bump)

    facts = {"lesion": "yes" if lesion else "no"}
    if width > 0.4 * part.width:  # nearer, it is only skin
        facts["region"] = region
    row, column = photo.place(centre)
    if lesion:
        facts["finding"] = finding
        facts |= _find(photo, finding, centre, radius, number)
        facts |= quadrant(row, column)
        if part.unmirrored and width > 0.75 * part.width:
            other = {"left": "right", "right": "left"}[part.unmirrored]
            facts["side"] = other if photo.mirrored else part.unmirrored
    # Rulers lie in pictures without a finding too, so that one does not give the answer away.
    measured = rng.random() < 0.3 and _ruler(photo, row, column, radius / width)
    if lesion and measured and finding in MEASURED and photo.shows(centre, radius):
        facts |= {"size": f"{2 * radius:.0f} mm", "measured": f"the {finding}"}
    return photo, facts


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One photograph by a phone or a ward camera."""
    lesion = bool(rng.random() < 0.5)
    if rng.random() < 0.1:
        finding = EYE_FINDINGS[int(rng.integers(2))] if lesion else ""
        photo = Photo(rng, float(rng.uniform(38, 60)), (0.0, -3.0), float(rng.normal(0, 0.1)), bool(rng.random() < 0.5))
        eye(photo, finding)
        facts = {"region": "eye", "lesion": "yes" if lesion else "no"} | ({"finding": finding} if lesion else {})
    else:
        photo, facts = _skin_photograph(rng, lesion)
    frames = (np.clip(photo.picture * _room_light(rng), 0, 1) * 255).astype(np.uint8)[None]
    frames = photograph(frames, rng, coarsest=80 if "count" in facts else 40)
    lesions = lesion_map(photo.ill[None]) if lesion else None
    return Sample(frames, kind, np.zeros(1), (0.0, 0.0), {"modality": "clinical photograph"} | facts, lesions)


def _room_light(rng: np.random.Generator) -> np.ndarray:
    """Uneven light of a room or a phone's flash (SIZE, SIZE, 3), warm or cold."""
    axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    tilt = rng.uniform(-0.25, 0.25, 2)
    level = 1.05 + tilt[0] * u + tilt[1] * v
    if rng.random() < 0.4:
        beam = np.hypot(u - rng.uniform(-0.3, 0.3), v - rng.uniform(-0.3, 0.3))
        level = level * (1.1 - rng.uniform(0.1, 0.35) * beam)
    warmth = rng.uniform(-0.1, 0.12)
    return level[..., None] * np.array([1 + warmth, 1.0, 1 - warmth], np.float32)
