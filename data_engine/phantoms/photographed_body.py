# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Body parts as a camera sees them, for the clinical photograph phantoms: skin of any tone on a cloth, lit from a side.

A body part is an outline of joined capsules, rounded like flesh. All lengths are millimetres.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from .geometry import SIZE, smooth_noise

Point = tuple[float, float]
Colour = tuple[float, float, float]

SKIN_TONES = np.array(
    [(0.96, 0.80, 0.72), (0.91, 0.71, 0.59), (0.80, 0.58, 0.44), (0.64, 0.43, 0.31), (0.45, 0.29, 0.20),
     (0.30, 0.19, 0.14)]
)  # fmt: skip
"""Mean colours of the six Fitzpatrick skin types, mixed between neighbours."""
BLOOD: Colour = (0.92, 0.52, 0.52)
"""Share of light that one layer of dilated vessels lets through: redness on light skin, a violet dusk on dark skin."""


class Photo:
    """A picture being painted (SIZE, SIZE, 3) in 0 to 1 on patient coordinates.

    Attributes:
        x, y: mm to the right of and below the middle of the picture, turned with the body part, float32 (SIZE, SIZE).
        pixel: mm per pixel.
        skin: share of each pixel that is skin, set by `flesh`.
        depth: mm from the nearest edge of the body part, positive inside.
        ill: share of each pixel that findings cover.
    """

    def __init__(self, rng: np.random.Generator, width: float, centre: Point, angle: float, mirrored: bool) -> None:
        self.rng, self.pixel = rng, width / SIZE
        self.centre, self.angle, self.mirrored = centre, angle, mirrored
        axis = (np.arange(SIZE, dtype=np.float32) + np.float32(0.5 - SIZE / 2)) * np.float32(self.pixel)
        down, right = np.meshgrid(axis, axis, indexing="ij")
        c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        x, y = right * c + down * s, down * c - right * s
        self.x, self.y = (-x if mirrored else x) + np.float32(centre[0]), y + np.float32(centre[1])
        self.picture = _background(rng)
        self.skin = np.zeros((SIZE, SIZE), np.float32)
        self.depth = np.full((SIZE, SIZE), -1e3, np.float32)
        self.ill = np.zeros((SIZE, SIZE), np.float32)

    def place(self, point: Point) -> tuple[float, float]:
        """Row and column in the picture of a point of the patient (mm), both from -0.5 to 0.5 inside the picture."""
        x, y = point[0] - self.centre[0], point[1] - self.centre[1]
        x = -x if self.mirrored else x
        c, s = np.cos(self.angle), np.sin(self.angle)
        return float((y * c + x * s) / self.pixel / SIZE), float((x * c - y * s) / self.pixel / SIZE)

    def shows(self, point: Point, radius: float) -> bool:
        """Whether all within `radius` (mm) of a point lies on skin inside the picture."""
        row, column = self.place(point)
        if max(abs(row), abs(column)) + radius / self.pixel / SIZE >= 0.5:
            return False
        down, right = (int((share + 0.5) * SIZE) for share in (row, column))
        return bool(self.depth[down, right] > radius)

    def near(self, point: Point) -> np.ndarray:
        """Distance in mm of every pixel from a point of the patient."""
        return np.hypot(self.x - np.float32(point[0]), self.y - np.float32(point[1]))

    def soft(self, distance: np.ndarray, edge: float = 1.0) -> np.ndarray:
        """Coverage 0 to 1 of what lies at positive `distance` (mm) from its outline, soft over `edge` pixels."""
        return np.clip(distance / np.float32(self.pixel * edge) + 0.5, 0, 1)

    def paint(self, cover: np.ndarray, colour: Colour | np.ndarray) -> None:
        """Covers skin with an opaque colour, which the light falls on as on the skin."""
        self.picture += (cover * self.skin)[..., None] * (np.asarray(colour, np.float32) - self.picture)

    def absorb(self, cover: np.ndarray, colour: Colour = BLOOD) -> None:
        """Multiplies skin by `colour` where the layer is full, by its powers where it is thinner or thicker."""
        self.picture *= np.exp((cover * self.skin)[..., None] * np.log(np.asarray(colour, np.float32)))

    def mark(self, cover: np.ndarray) -> None:
        """Notes that a finding covers skin by `cover`, 0 to 1 or bool."""
        self.ill = np.maximum(self.ill, cover * self.skin)

    def capsule(self, start: Point, end: Point, first: float, last: float) -> np.ndarray:
        """Distance inside (mm) of a limb between two points whose radius changes from `first` to `last`."""
        dx, dy = end[0] - start[0], end[1] - start[1]
        px, py = self.x - np.float32(start[0]), self.y - np.float32(start[1])
        along = np.clip((px * np.float32(dx) + py * np.float32(dy)) / np.float32(dx * dx + dy * dy), 0, 1)
        return first + (last - first) * along - np.hypot(px - along * np.float32(dx), py - along * np.float32(dy))


def join(parts: Sequence[np.ndarray], softness: float) -> np.ndarray:
    """Union of distances inside (mm), with corners between parts filled over `softness` mm like skin webs."""
    result = parts[0]
    for part in parts[1:]:
        blend = np.clip(0.5 + 0.5 * (part - result) / softness, 0, 1)
        result = result + blend * (part - result) + softness * blend * (1 - blend)
    return result.astype(np.float32)


def _background(rng: np.random.Generator) -> np.ndarray:
    """Surgical drape, bed sheet, table or wall, with weave, folds and uneven light (SIZE, SIZE, 3)."""
    colours = ((0.20, 0.45, 0.42), (0.25, 0.42, 0.62), (0.88, 0.88, 0.86), (0.55, 0.58, 0.62), (0.12, 0.12, 0.13),
               (0.62, 0.46, 0.32), (0.55, 0.72, 0.80), (0.75, 0.70, 0.62))  # fmt: skip
    colour = np.asarray(colours[int(rng.integers(len(colours)))]) * rng.uniform(0.8, 1.1) * rng.uniform(0.95, 1.05, 3)
    row, column = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    level = 1 + rng.uniform(0, 0.10) * smooth_noise((SIZE, SIZE), rng, 25)
    if rng.random() < 0.6:
        turn, pitch = rng.uniform(0, np.pi), rng.uniform(2.1, 3.5)
        u, v = row * np.cos(turn) + column * np.sin(turn), column * np.cos(turn) - row * np.sin(turn)
        level += rng.uniform(0.01, 0.05) * (np.sin(2 * np.pi * u / pitch) + np.sin(2 * np.pi * v / pitch))
    if rng.random() < 0.6:
        # Folds of a cloth: bright on one flank, dark on the other.
        creases = smooth_noise((SIZE, SIZE), rng, (rng.uniform(18, 60), rng.uniform(18, 60)))
        level += rng.uniform(0.4, 1.2) * np.gradient(creases, axis=int(rng.integers(2)))
    return (colour * level[..., None]).astype(np.float32)


def flesh(photo: Photo, depth: np.ndarray, roundness: float, bump: np.ndarray | float = 0.0) -> None:
    """Lays a body part with its shadow on the background: tone, mottling, creases, and light on its round surface.

    Args:
        photo: the picture.
        depth: mm from the edge of the body part, positive inside (SIZE, SIZE).
        roundness: mm from the edge over which the surface rises to its full height.
        bump: further height of the surface in mm (SIZE, SIZE).
    """
    rng = photo.rng
    tone = rng.uniform(0, len(SKIN_TONES) - 1)
    lower = min(int(tone), len(SKIN_TONES) - 2)
    colour = SKIN_TONES[lower] + (tone - lower) * (SKIN_TONES[lower + 1] - SKIN_TONES[lower])
    photo.depth, photo.skin = depth, photo.soft(depth)
    shadow = ndimage.shift(photo.skin, rng.uniform(-6, 6, 2), order=0, mode="nearest")
    shadow = ndimage.gaussian_filter(shadow, rng.uniform(2, 5))
    photo.picture *= 1 - np.float32(rng.uniform(0.2, 0.6)) * shadow[..., None]

    rise = 1 - np.clip(depth / roundness, 0, 1)
    height = roundness * rng.uniform(0.5, 0.9) * np.sqrt(1 - rise**2) + bump
    height = ndimage.gaussian_filter(height, 1.2)
    down, right = np.gradient(height / np.float32(photo.pixel))
    direction, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 1.8)
    facing = (elevation - np.cos(direction) * right - np.sin(direction) * down) / np.sqrt(1 + right**2 + down**2)
    facing = np.clip(facing / np.hypot(elevation, 1), 0, 1.1)
    ambient = rng.uniform(0.35, 0.6)
    light = ambient + (1 - ambient) * facing
    mottled = 1 + 0.035 * smooth_noise((SIZE, SIZE), rng, 12) + 0.018 * smooth_noise((SIZE, SIZE), rng, 2.5)
    skin = (colour * (light * mottled)[..., None]).astype(np.float32)
    # Light that enters flesh leaves it redder, most visibly where the light fades.
    skin *= 1 - (1 - facing)[..., None] * np.array([0.0, 0.14, 0.20], np.float32)
    gloss = rng.uniform(0, 0.22) * np.clip(facing, 0, 1) ** 24
    skin += gloss[..., None].astype(np.float32)
    photo.picture += photo.skin[..., None] * (skin - photo.picture)


def _nail(photo: Photo, tip: Point, angle: float, size: float) -> None:
    """A pale glossy nail near the tip of a finger or toe that points along `angle`."""
    x, y = photo.x - np.float32(tip[0]), photo.y - np.float32(tip[1])
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    distance = 1 - ((np.abs(along) / (size * 1.15)) ** 3 + (np.abs(across) / size * 1.15) ** 3)
    cover = np.clip(distance * size / photo.pixel * 0.5 + 0.5, 0, 1).astype(np.float32)
    photo.picture *= 1 + 0.16 * (cover * photo.skin)[..., None] * np.array([0.9, 0.8, 0.9], np.float32)
    rim = np.exp(-((distance / 0.3) ** 2)) * photo.skin
    photo.picture *= 1 - 0.13 * rim[..., None].astype(np.float32)


def _crease(photo: Photo, middle: Point, angle: float, length: float, depth: float = 0.2) -> None:
    """A fine dark skin fold of a length in mm through a point, along `angle`."""
    x, y = photo.x - np.float32(middle[0]), photo.y - np.float32(middle[1])
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    line = np.exp(-((across / (0.8 * photo.pixel)) ** 2) - (along / length) ** 4)
    photo.absorb((depth * line).astype(np.float32), (0.3, 0.2, 0.2))


def hand(photo: Photo, bump: np.ndarray | float) -> None:
    """The back of a hand with its fingers up; unmirrored it is a left hand, whose thumb lies on the picture's right."""
    rng = photo.rng
    spread, bulk = rng.uniform(0.5, 1.3), rng.uniform(0.9, 1.12)
    roots = ((-30.0, -28.0), (-11.0, -36.0), (9.0, -36.0), (28.0, -30.0), (34.0, 22.0))
    angles = np.array([-0.20, -0.06, 0.05, 0.19, 0.75]) * spread - np.pi / 2 + np.array([0, 0, 0, 0, 0.12])
    lengths, widths = (52, 72, 78, 70, 58), (6.8, 7.8, 8.2, 8.0, 9.2)
    palm = join(
        [photo.capsule((-20, -26), (-16, 34), 19, 20), photo.capsule((20, -26), (14, 34), 20, 20),
         photo.capsule((0, 30), (0, 190), 25, 34), photo.capsule((0, -24), (0, 30), 22, 22)], 12.0
    )  # fmt: skip
    fingers, tips = [palm], []
    for root, angle, length, width in zip(roots, angles, lengths, widths, strict=True):
        bend = rng.normal(0, 0.07)
        middle = (root[0] + 0.55 * length * np.cos(angle), root[1] + 0.55 * length * np.sin(angle))
        tip = (middle[0] + 0.4 * length * np.cos(angle + bend), middle[1] + 0.4 * length * np.sin(angle + bend))
        fingers += [
            photo.capsule(root, middle, width * bulk * 1.12, width * bulk),
            photo.capsule(middle, tip, width * bulk, width * bulk * 0.78),
        ]
        tips.append((tip, middle, float(angle + bend), width * bulk))
    flesh(photo, join(fingers, 3.0), 11.0, bump)
    for tip, middle, angle, width in tips:
        _nail(photo, tip, angle, width * 0.58)
        for shift in (-2.2, 0.0, 2.2):
            crease = (middle[0] + shift * np.cos(angle), middle[1] + shift * np.sin(angle))
            _crease(photo, crease, angle + np.pi / 2, width * 0.7, 0.14)
    tendons = sum(np.exp(-(((photo.x - 0.55 * x + 0.2 * (photo.y + 20) * x / 60) / 2.2) ** 2)) for x, _ in roots[:4])
    photo.absorb((0.06 * tendons * (np.abs(photo.y) < 30)).astype(np.float32), (0.4, 0.4, 0.4))


def forearm(photo: Photo, bump: np.ndarray | float) -> None:
    """A forearm that crosses the picture."""
    rng = photo.rng
    wide = rng.uniform(32, 48)
    depth = photo.capsule((-170, rng.uniform(-8, 8)), (170, rng.uniform(-8, 8)), wide, wide * rng.uniform(0.6, 0.9))
    flesh(photo, depth.astype(np.float32), wide * 0.9, bump)
    _hairs(photo, int(rng.integers(0, 60)))


def lower_leg(photo: Photo, bump: np.ndarray | float) -> None:
    """A lower leg from the side, calf above and ankle with heel and foot below."""
    rng = photo.rng
    wide = rng.uniform(44, 58)
    depth = join(
        [photo.capsule((0, -210), (4, -60), wide, wide * 0.95), photo.capsule((4, -60), (10, 85), wide * 0.9, 31),
         photo.capsule((10, 85), (14, 130), 30, 32), photo.capsule((14, 128), (-95, 150), 30, 14)], 16.0
    )  # fmt: skip
    flesh(photo, depth, 30.0, bump)
    ankle = np.exp(-((photo.near((4.0, 105.0)) / 11) ** 2))
    photo.picture *= 1 + 0.10 * (ankle * photo.skin)[..., None].astype(np.float32)
    _hairs(photo, int(rng.integers(0, 50)))


def foot(photo: Photo, bump: np.ndarray | float) -> None:
    """The sole of a foot with its toes up; unmirrored a right one, whose great toe lies on the picture's right."""
    rng = photo.rng
    parts = [
        photo.capsule((0, 88), (-4, 45), 31, 30), photo.capsule((-7, 50), (-12, -30), 30, 31),
        photo.capsule((18, -42), (-18, -28), 29, 27),
    ]  # fmt: skip
    toes = ((30, -90, 14.5), (7, -95, 9.5), (-12, -88, 9.0), (-28, -77, 8.4), (-42, -61, 8.0))
    rounds = [photo.capsule((x * 0.9, y + 24), (x, y), r * 0.7, r * rng.uniform(0.95, 1.05)) for x, y, r in toes]
    flesh(photo, join([join(parts, 16.0), *rounds], 1.5), 17.0, bump)
    # Thicker skin over heel, ball and toes is paler and rounder, the arch is darker.
    for x, y, size in ((0, 85, 24), (20, -45, 20), (-16, -32, 18), *toes):
        pad = np.exp(-((photo.near((x, y)) / (0.9 * size)) ** 4)) * photo.skin
        photo.picture *= 1 + np.float32(0.09) * pad[..., None]
    arch = np.exp(-(((photo.x - 16) / 14) ** 2) - ((photo.y - 20) / 38) ** 2)
    photo.absorb((0.5 * arch).astype(np.float32), (0.8, 0.7, 0.66))
    for _ in range(3):
        _crease(photo, (rng.uniform(-12, 4), rng.uniform(-10, 40)), rng.uniform(1.2, 1.9), rng.uniform(10, 22), 0.1)


def back(photo: Photo, bump: np.ndarray | float) -> None:
    """The back from neck to sacrum with the furrow of the spine and shoulder blades."""
    rng = photo.rng
    wide = rng.uniform(150, 175)
    depth = join(
        [photo.capsule((0, -190), (0, -330), 62, 55), photo.capsule((-105, -140), (105, -140), 62, 62),
         photo.capsule((0, -110), (0, 40), wide * 0.95, wide * 0.82),
         photo.capsule((0, 60), (0, 260), wide * 0.82, wide),
         photo.capsule((-165, -135), (-215, 180), 48, 42), photo.capsule((165, -135), (215, 180), 48, 42)], 18.0
    )  # fmt: skip
    flesh(photo, depth, 75.0, bump)
    x, y = photo.x, photo.y
    spine = np.exp(-((x / 9) ** 2)) * np.clip((y + 190) / 60, 0, 1) * np.clip((300 - y) / 60, 0, 1)
    spine = spine * (1 + 0.25 * np.cos(2 * np.pi * y / 34))
    photo.absorb((0.55 * spine).astype(np.float32), (0.62, 0.55, 0.52))
    for side in (-1, 1):
        blade = np.abs(photo.near((side * 92.0, -95.0)) - 55) / 8
        photo.absorb((0.30 * np.exp(-(blade**2)) * (side * x < 92)).astype(np.float32), (0.62, 0.55, 0.52))
        dimple = np.exp(-((photo.near((side * 42.0, 190.0)) / 9) ** 2))
        photo.absorb((0.4 * dimple).astype(np.float32), (0.62, 0.55, 0.52))
    if rng.random() < 0.7:
        hair = np.clip((-250 - y + 12 * smooth_noise((SIZE, SIZE), rng, 6)) / 20, 0, 1)
        photo.paint(hair.astype(np.float32), between((0.03, 0.02, 0.02), (0.30, 0.22, 0.15), rng))
    for _ in range(int(rng.integers(0, 7))):
        mole = photo.soft(rng.uniform(1.5, 3) - photo.near((rng.uniform(-120, 120), rng.uniform(-120, 220))))
        photo.absorb(mole * 0.8, (0.35, 0.25, 0.2))


def face(photo: Photo, bump: np.ndarray | float) -> None:
    """A head in profile with a bar over the eye, as photographs of patients are made unrecognisable."""
    rng = photo.rng
    parts = [
        photo.capsule((12, -52), (22, -44), 72, 74), photo.capsule((-18, 0), (-12, 30), 46, 40),
        photo.capsule((-28, 52), (10, 40), 20, 30), photo.capsule((24, 40), (40, 190), 50, 58),
        photo.capsule((-62, -18), (-75, 8), 6, 10), photo.capsule((-56, 26), (-60, 36), 9, 8),
    ]  # fmt: skip
    flesh(photo, join(parts, 13.0), 40.0, bump)
    if rng.random() < 0.85:
        # Hair grows behind a line from the forehead round the ear to the nape.
        line = np.maximum(-0.55 * (photo.x + 52) - photo.y - 58, photo.x - 22 - 0.0022 * (photo.y + 8) ** 2)
        hair = np.clip(line / 7, 0, 1) * np.clip((66 - photo.y - 0.3 * photo.x) / 14, 0, 1)
        strands = 1 + 0.3 * smooth_noise((SIZE, SIZE), rng, (1.3, 7))[..., None]
        photo.paint(hair.astype(np.float32), between((0.03, 0.02, 0.02), (0.50, 0.38, 0.28), rng) * strands)
    x, y = photo.x, photo.y
    ear = np.hypot((x - 36 - 0.12 * y) / 13, (y + 2) / 23)
    tone = photo.picture[np.unravel_index(int(np.argmin(photo.near((4.0, 0.0)))), ear.shape)]
    photo.paint(photo.soft((1 - ear) * 13), tone * np.float32(1.05))
    shade = np.exp(-(((ear - 1) / 0.14) ** 2)) + 0.7 * np.exp(-(((ear - 0.55) / 0.14) ** 2)) * (x > 32)
    shade = 0.7 * shade + 0.8 * np.exp(-((photo.near((31.0, 2.0)) / 4) ** 2))
    photo.absorb(shade.astype(np.float32), (0.7, 0.5, 0.45))
    mouth = np.clip(6 - np.abs(y - 30 + 0.1 * (x + 60)), 0, 6) / 6
    mouth *= np.clip((x + 76) / 4, 0, 1) * np.clip((-44 - x) / 6, 0, 1)
    photo.absorb((1.2 * mouth).astype(np.float32), (0.75, 0.45, 0.45))
    bar = (np.abs(y + 24) < 9) & (x < -22) & (x > -95)
    photo.picture[bar] = 0.02


def eye(photo: Photo, finding: str) -> None:
    """An eye near by between its lids: white sclera with fine vessels, iris, pupil, lashes, a reflection."""
    rng = photo.rng
    red, yellow = finding == "red eye", finding == "jaundice"
    flesh(photo, np.full((SIZE, SIZE), 100.0, np.float32), 60.0, 1.5 * smooth_noise((SIZE, SIZE), rng, 40))
    x, y = photo.x, photo.y
    upper, lower = rng.uniform(6.5, 8.5), rng.uniform(4.5, 6)
    arch = np.clip(1 - (x / 15.5) ** 2, 0, None)
    gap = np.minimum(y + upper * arch**0.8 - 0.3, lower * arch**0.9 - y)
    gap = np.where(np.abs(x) < 15.5, gap, -9).astype(np.float32)
    fold = np.exp(-(((y + upper * arch**0.7 + 3.5) / 0.7) ** 2)) * np.clip(1 - (x / 19) ** 2, 0, 1)
    photo.absorb((0.9 * fold).astype(np.float32), (0.55, 0.45, 0.42))
    bag = np.exp(-(((y - lower * arch - 4.5) / 1.6) ** 2)) * np.clip(1 - (x / 17) ** 2, 0, 1)
    photo.absorb((0.35 * bag).astype(np.float32), (0.62, 0.52, 0.5))
    opening = photo.soft(gap, 1.6)
    shade = 1 - 0.35 * np.exp(-np.clip(gap, 0, None) / 2.2)
    sclera = np.array([0.93, 0.92, 0.90]) if not yellow else np.array([0.95, 0.78, rng.uniform(0.24, 0.42)])
    photo.paint(opening, sclera * (shade * rng.uniform(0.8, 1.0))[..., None])
    branches = np.clip(1 - np.abs(smooth_noise((SIZE, SIZE), rng, (9, 14))) * 6, 0, 1) + 0.4
    fading = np.clip((np.abs(x) - 4) / 8, 0, 1) if not red else np.clip(np.hypot(x, y) / 9, 0.3, 1)
    vessels = opening * branches * fading * (rng.uniform(1.0, 1.8) if red else rng.uniform(0.05, 0.2))
    photo.absorb(vessels.astype(np.float32), (0.90, 0.45, 0.45))
    look = (rng.uniform(-2.5, 2.5), rng.uniform(-0.6, 0.8))
    colour = between((0.16, 0.08, 0.04), (0.42, 0.26, 0.13) if rng.random() < 0.6 else (0.40, 0.50, 0.58), rng)
    iris = colour * (0.85 + 0.3 * smooth_noise((SIZE, SIZE), rng, 2))[..., None]
    radius = photo.near(look)
    photo.paint(opening * photo.soft(5.8 - radius, 1.8), iris)
    if finding:
        photo.mark(opening * photo.soft(radius - 5.8, 1.8))
    photo.absorb(opening * np.exp(-(((radius - 5.7) / 0.6) ** 2)), (0.4, 0.4, 0.4))
    photo.paint(opening * photo.soft(rng.uniform(1.5, 2.8) - radius), (0.02, 0.02, 0.02))
    photo.paint(opening * photo.soft(0.9 - photo.near((look[0] - 1.8, look[1] - 1.8))), (1.0, 1.0, 1.0))
    photo.absorb(opening * photo.soft(1.8 - photo.near((-14.5, 0.8)), 3), (0.95, 0.6, 0.6))
    for lash in np.linspace(-14, 14, int(rng.integers(16, 28))):
        edge = -upper * max(1 - (lash / 15.5) ** 2, 0) ** 0.8
        _crease(photo, (lash * 1.1, edge - 1.3), -np.pi / 2 + lash / 22, 1.5, 0.4)
    brow = np.abs(y + 17.5 - 0.012 * x**2) / 2.6 + np.abs(smooth_noise((SIZE, SIZE), rng, 2)) * 0.4
    photo.absorb(
        (np.clip(1.3 - brow, 0, 1) * np.clip((21 - np.abs(x)) / 5, 0, 1)).astype(np.float32), (0.2, 0.17, 0.15)
    )


def between(first: Colour, second: Colour, rng: np.random.Generator) -> np.ndarray:
    """A random colour (3,) on the line between two."""
    share = rng.random()
    return (1 - share) * np.asarray(first) + share * np.asarray(second)


def _hairs(photo: Photo, count: int) -> None:
    """Short fine hairs strewn over the skin."""
    canvas = Image.new("L", (2 * SIZE, 2 * SIZE))
    draw = ImageDraw.Draw(canvas)
    for x, y in photo.rng.uniform(0, 2 * SIZE, (count, 2)):
        dx, dy = photo.rng.normal(0, 4, 2)
        draw.line([x, y, x + dx, y + dy + 4], fill=110)
    hair = np.asarray(canvas.resize((SIZE, SIZE), Image.Resampling.BOX), np.float32) / 255
    photo.absorb(hair, (0.2, 0.16, 0.14))
