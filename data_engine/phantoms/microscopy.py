# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Microscopy phantoms: single cells and germs on a slide or in a dish, as four common preparations show them.

Blood smears and Gram stains absorb the lamp's light (Beer-Lambert law), fluorescent dyes shine on black, and unstained
cultured cells are seen by phase contrast. Every cell that an answer counts lies whole inside the visible field.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from .geometry import SIZE, jpeg, lesion_map, smooth_noise
from .sample import Sample

Facts = dict[str, str]
Preparation = tuple[np.ndarray, Facts, np.ndarray]
"""Light (SIZE, SIZE, 3), what is true of it, and the share of each pixel (SIZE, SIZE) that is a sick cell or a germ."""
Colour = tuple[float, float, float]

RED_CELL = (0.86, 0.64, 0.62)
CYTOPLASM = {"neutrophil": (0.93, 0.83, 0.87), "lymphocyte": (0.68, 0.76, 0.92), "monocyte": (0.76, 0.78, 0.87),
             "eosinophil": (0.95, 0.72, 0.58), "blast": (0.60, 0.64, 0.88)}  # fmt: skip
NUCLEUS = (0.42, 0.22, 0.55)
GRAM_POSITIVE, GRAM_NEGATIVE = (0.26, 0.14, 0.48), (0.86, 0.30, 0.48)
"""Share of the light that a full layer lets through in red, green and blue."""

GERMS: dict[str, tuple[Colour, bool]] = {
    "Gram-positive cocci": (GRAM_POSITIVE, False),
    "Gram-negative rods": (GRAM_NEGATIVE, True),
    "Gram-positive rods": (GRAM_POSITIVE, True),
    "Gram-negative cocci": (GRAM_NEGATIVE, False),
}
"""Finding of a Gram stain -> colour of its germs, and whether they are rods."""
LARGEST_COUNT = 9
"""More things than this are not asked to be counted."""


def parasitaemia(infected: int, cells: int) -> str:
    """Grade of the share of infected red cells: hyperparasitaemia from 4 %, severe malaria above 10 % (WHO 2015)."""
    share = infected / cells
    return "severe" if share > 0.1 else "moderate" if share >= 0.04 else "mild"


def germ_load(germs: int) -> str:
    """Quantity of germs in an oil immersion field: 1 to 4 is 2+, 5 to 30 is 3+, more is 4+ (Nugent et al. 1991)."""
    return "2+" if germs < 5 else "3+" if germs <= 30 else "4+"


class Slide:
    """A field of view, painted cell by cell.

    Points are (x, y) in pixels. `seen` is the radius of a round eyepiece around the middle, or infinite. `lesions` is
    the share of each pixel, 0 to 1, that sick cells or germs cover.
    """

    def __init__(self, background: Colour | np.ndarray, seen: float = np.inf) -> None:
        self.picture = np.ones((SIZE, SIZE, 3), np.float32) * np.asarray(background, np.float32)
        self.lesions = np.zeros((SIZE, SIZE), np.float32)
        self.seen = seen

    def window(self, centre: np.ndarray, reach: float) -> tuple[slice, slice]:
        """Rows and columns of the picture within `reach` of a point."""
        left, top = (int(np.clip(np.floor(c - reach - 2), 0, SIZE)) for c in centre)
        right, bottom = (int(np.clip(np.ceil(c + reach + 3), 0, SIZE)) for c in centre)
        return slice(top, bottom), slice(left, right)

    def near(self, centre: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The part of the picture (h, w, 3) within `reach` of a point, and x, y (1, w), (h, 1) relative to it."""
        rows, columns = self.window(centre, reach)
        x = np.arange(columns.start, columns.stop, dtype=np.float32)[None] - np.float32(centre[0])
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(centre[1])
        return self.picture[rows, columns], x, y

    def mark(self, centre: np.ndarray, reach: float, cover: np.ndarray) -> None:
        """Adds what a sick cell or a germ covers (h, w) of the part that `near` gives for this point and reach."""
        part = self.lesions[self.window(centre, reach)]
        np.maximum(part, cover, out=part)

    def dye(self, centre: np.ndarray, radii: tuple[float, float], colour: Colour, angle: float = 0.0) -> np.ndarray:
        """A stained ellipse (radii in pixels): light is multiplied by `colour` where the layer is full.

        Returns what it covers, for `mark` with the larger radius as the reach.
        """
        part, x, y = self.near(centre, max(radii))
        cover = soft_ellipse(x, y, radii, angle)
        part *= np.exp(cover[..., None] * np.log(np.asarray(colour, np.float32)))
        return cover

    def whole(self, centre: np.ndarray, radius: float) -> bool:
        """Whether a round cell lies inside the picture and the eyepiece."""
        inside = radius <= centre.min() and centre.max() <= SIZE - 1 - radius
        return bool(inside and np.hypot(*(centre - SIZE / 2)) + radius <= self.seen)

    def room(self, rng: np.random.Generator, radius: float, taken: list[tuple[np.ndarray, float]]) -> np.ndarray | None:
        """A free place for a whole cell of `radius`, which it adds to `taken`, or None where none is left."""
        for _ in range(40):
            centre = rng.uniform(radius, SIZE - 1 - radius, 2)
            if self.whole(centre, radius) and all(np.hypot(*(centre - c)) > radius + r for c, r in taken):
                taken.append((centre, radius))
                return centre
        return None


def soft_ellipse(x: np.ndarray, y: np.ndarray, radii: tuple[float, float], angle: float = 0.0) -> np.ndarray:
    """Share of each pixel, 0 to 1, inside an ellipse around the origin of x and y (pixels)."""
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    distance = np.hypot((x * c + y * s) / np.float32(radii[0]), (y * c - x * s) / np.float32(radii[1]))
    return np.clip((1 - distance) * np.float32(min(radii)) + 0.5, 0, 1)


def _rod(x: np.ndarray, y: np.ndarray, half_length: float, radius: float, angle: float) -> np.ndarray:
    """Share of each pixel inside a round-ended rod around the origin of x and y (pixels)."""
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return np.clip(radius - np.hypot(np.maximum(np.abs(along) - half_length, 0), across) + 0.5, 0, 1)


def _red_cell(slide: Slide, rng: np.random.Generator, centre: np.ndarray, radius: float, pallor: float) -> None:
    """A biconcave disc: thinnest in its middle, so palest there."""
    radii = radius * rng.uniform(0.88, 1.08, 2)
    part, x, y = slide.near(centre, float(radii.max()))
    thickness = soft_ellipse(x, y, (radii[0], radii[1]), rng.uniform(0, 3))
    thickness = thickness * (1 - pallor * np.exp(-(x**2 + y**2) / (0.42 * radius) ** 2))
    part *= np.exp(thickness[..., None] * np.log(np.asarray(RED_CELL, np.float32)) * np.float32(rng.uniform(0.8, 1.1)))


def _sickle_cell(slide: Slide, rng: np.random.Generator, centre: np.ndarray, radius: float) -> None:
    """A crescent: an ellipse bent into a bow, with no pale middle."""
    part, x, y = slide.near(centre, 1.4 * radius)
    angle, bend = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.6)
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    bowed = across - bend * (along**2 / radius - 0.4 * radius)
    thickness = soft_ellipse(along, bowed, (1.35 * radius, 0.37 * radius))
    slide.mark(centre, 1.4 * radius, thickness)
    part *= np.exp(1.35 * thickness[..., None] * np.log(np.asarray(RED_CELL, np.float32)))


def _white_cell(slide: Slide, rng: np.random.Generator, centre: np.ndarray, radius: float, name: str) -> None:
    """A white blood cell: stained cytoplasm, granules, and the nucleus that its kind is known by."""
    part, x, y = slide.near(centre, radius)
    body = soft_ellipse(x, y, (radius, radius * rng.uniform(0.9, 1)), rng.uniform(0, 3))
    if name == "blast":
        slide.mark(centre, radius, body)
    grain = 1 + (0.5 if name in ("neutrophil", "eosinophil") else 0.15) * rng.standard_normal(body.shape).clip(
        -1.5, 1.5
    )
    part *= np.exp((body * grain)[..., None].astype(np.float32) * np.log(np.asarray(CYTOPLASM[name], np.float32)))
    turn = rng.uniform(0, 2 * np.pi)
    if name == "neutrophil":
        lobes = int(rng.integers(3, 6))
        angles, size, away = turn + np.arange(lobes) * rng.uniform(0.9, 1.15), 0.30, 0.48
    elif name == "eosinophil":
        angles, size, away = turn + np.array([0.0, 2.2]), 0.38, 0.45
    elif name == "monocyte":
        angles, size, away = turn + np.array([0.0, 0.7, 1.4, 2.1]), 0.42, 0.38
    else:
        angles, size, away = np.array([turn]), 0.84 if name == "blast" else 0.80, 0.08
    nucleus = np.zeros_like(body)
    for angle in angles:
        u, v = x - away * radius * np.cos(angle), y - away * radius * np.sin(angle)
        nucleus = np.maximum(nucleus, soft_ellipse(u, v, (size * radius, size * radius * 0.85), angle))
    nucleus = nucleus * (1 + 0.18 * smooth_noise(body.shape, rng, 2.0 if name == "blast" else 3.5))
    if name == "blast":
        for _ in range(2):
            u, v = x - rng.uniform(-0.4, 0.4) * radius, y - rng.uniform(-0.4, 0.4) * radius
            nucleus -= 0.45 * soft_ellipse(u, v, (0.18 * radius, 0.18 * radius))
    part *= np.exp(nucleus[..., None].clip(0, 1.4).astype(np.float32) * np.log(np.asarray(NUCLEUS, np.float32)))


def _parasite(slide: Slide, rng: np.random.Generator, centre: np.ndarray, radius: float) -> None:
    """A ring stage of Plasmodium in a red cell: a blue ring of cytoplasm with a red chromatin dot on it."""
    _, x, y = slide.near(centre, radius)
    slide.mark(centre, radius, soft_ellipse(x, y, (radius, radius)))  # all of the infected cell is sick
    ring = radius * rng.uniform(0.36, 0.46)
    angle = rng.uniform(0, 2 * np.pi)
    middle = centre + 0.35 * radius * rng.uniform(-1, 1, 2)
    part, x, y = slide.near(middle, radius)
    band = np.exp(-(((np.hypot(x, y) - ring) / (0.14 * radius)) ** 2))
    part *= np.exp(band[..., None] * np.log(np.array([0.42, 0.40, 0.72], np.float32)))
    dot = middle + ring * np.array([np.cos(angle), np.sin(angle)])
    slide.dye(dot, (max(1.2, 0.2 * radius),) * 2, (0.38, 0.05, 0.28))


def _blood(rng: np.random.Generator, lesion: bool) -> Preparation:
    """A thin Giemsa-stained blood film: red and white cells, platelets; malaria, sickle cells or leukaemic blasts."""
    finding = ("malaria parasites", "sickle cells", "leukaemic blasts")[int(rng.choice(3, p=[0.5, 0.25, 0.25]))]
    radius = rng.uniform(6.0, 8.5)
    slide = Slide(rng.uniform((0.86, 0.84, 0.80), (0.99, 0.96, 0.95)))
    if rng.random() < 0.2:
        slide.seen = SIZE * rng.uniform(0.44, 0.54)
    taken: list[tuple[np.ndarray, float]] = []
    white: list[tuple[np.ndarray, float, str]] = []
    blasts = int(rng.integers(2, 5)) if lesion and finding == "leukaemic blasts" else 0
    for k in range(blasts + int(rng.choice(4, p=[0.35, 0.35, 0.2, 0.1]))):
        name = "blast" if k < blasts else ("neutrophil", "lymphocyte", "monocyte", "eosinophil")[
            int(rng.choice(4, p=[0.5, 0.3, 0.12, 0.08]))]  # fmt: skip
        size = radius * {"lymphocyte": 1.2, "blast": 1.8, "monocyte": 1.95}.get(name, 1.65) * rng.uniform(0.93, 1.07)
        centre = slide.room(rng, size, taken)
        if centre is not None:
            white.append((centre, size, name))

    pitch = radius * rng.uniform(2.0, 2.9)
    lattice = np.mgrid[-1 : SIZE / pitch + 1, -1 : SIZE / (0.87 * pitch) + 1].reshape(2, -1).T
    centres = np.stack([(lattice[:, 0] + 0.5 * (lattice[:, 1] % 2)) * pitch, lattice[:, 1] * 0.87 * pitch], 1)
    centres = centres + rng.uniform(-0.28, 0.28, centres.shape) * pitch
    centres = centres[rng.random(len(centres)) < rng.uniform(0.7, 1.0)]
    red = [c for c in centres if all(np.hypot(*(c - w)) > size + 0.8 * radius for w, size, _ in white)]
    pallor = rng.uniform(0.35, 0.85)
    whole = [k for k, c in enumerate(red) if slide.whole(c, radius)]
    # Few sick cells are the rule; a single one is half of the cases, so that every grade occurs.
    sick = int(rng.integers(1, LARGEST_COUNT + 1) if rng.random() < 0.5 else 1) if lesion and not blasts else 0
    chosen = set(rng.permutation(whole)[:sick].tolist())
    for k, centre in enumerate(red):
        if k in chosen and finding == "sickle cells":
            _sickle_cell(slide, rng, centre, radius)
        else:
            _red_cell(slide, rng, centre, radius, pallor)
    for k in sorted(chosen):
        if finding == "malaria parasites":
            _parasite(slide, rng, red[k], radius)
    for centre, size, name in white:
        _white_cell(slide, rng, centre, size, name)
    for _ in range(int(rng.integers(0, 9))):
        centre, size = rng.uniform(0, SIZE, 2), radius * rng.uniform(0.2, 0.34)
        if any(np.hypot(*(centre - c)) < 1.2 * radius for c in red):
            continue  # on a red cell it would pass for a parasite
        slide.dye(centre, (size, size * rng.uniform(0.7, 1)), (0.62, 0.42, 0.70), rng.uniform(0, 3))

    facts = {"stain": "Giemsa", "region": "blood", "lesion": "yes" if lesion else "no"}
    counted, number = "white blood cells", len(white)
    if lesion:
        facts["finding"] = finding
        counted, number = {
            "malaria parasites": ("infected red cells", len(chosen)),
            "sickle cells": ("sickle cells", len(chosen)),
            "leukaemic blasts": ("leukaemic blasts", sum(name == "blast" for *_, name in white)),
        }[finding]
    if number:
        facts |= {"count": str(number), "counted": counted}
    if lesion and finding == "malaria parasites":
        facts |= {"severity": parasitaemia(len(chosen), len(whole)), "graded": "the parasitaemia"}
    return _brightfield(slide, rng), facts, slide.lesions


def _gram(rng: np.random.Generator, lesion: bool) -> Preparation:
    """A Gram-stained smear: pus cells and mucus, and in half of them cocci or rods, purple or pink."""
    slide = Slide(rng.uniform((0.90, 0.84, 0.82), (0.99, 0.97, 0.95)))
    haze = np.clip(smooth_noise((SIZE, SIZE), rng, 18) * rng.uniform(0.3, 1.0), 0, 2)
    slide.picture *= np.exp(haze[..., None] * np.log(np.array([0.97, 0.84, 0.88], np.float32)))
    taken: list[tuple[np.ndarray, float]] = []
    radius = rng.uniform(9, 15)
    cells = 0
    for _ in range(int(rng.integers(1, 6))):
        centre = slide.room(rng, radius, taken)
        if centre is None:
            continue
        cells += 1
        slide.dye(centre, (radius, radius * rng.uniform(0.8, 1)), (0.96, 0.78, 0.82), rng.uniform(0, 3))
        turn = rng.uniform(0, 2 * np.pi)
        for k in range(int(rng.integers(2, 5))):
            lobe = centre + 0.45 * radius * np.array([np.cos(turn + 1.2 * k), np.sin(turn + 1.2 * k)])
            slide.dye(lobe, (0.36 * radius, 0.27 * radius), (0.82, 0.36, 0.50), turn + 1.2 * k)
    facts = {"stain": "Gram", "lesion": "yes" if lesion else "no"}
    if not lesion:
        return _brightfield(slide, rng), facts | {"count": str(cells), "counted": "pus cells"}, slide.lesions

    finding = tuple(GERMS)[int(rng.choice(4, p=[0.4, 0.35, 0.15, 0.1]))]
    colour, rods = GERMS[finding]
    size = rng.uniform(1.2, 1.8) if rods else rng.uniform(1.6, 2.4)
    wanted = int((rng.integers(1, 5), rng.integers(5, 31), rng.integers(31, 80))[int(rng.integers(3))])
    germs = 0
    grouping = int(rng.integers(3))  # clusters, chains, pairs or single ones
    while germs < wanted:
        many = min(wanted - germs, int((rng.integers(4, 16), rng.integers(3, 9), rng.integers(1, 3))[grouping]))
        places = _rod_places(rng, many, size) if rods else _coccus_places(rng, many, size, grouping)
        reach = float(np.abs(places[:, :2]).max() + (3.5 if rods else 1) * size)
        middle = slide.room(rng, reach, taken)
        if middle is None:
            break
        for x, y, angle in places:
            centre = middle + np.array([x, y])
            part, u, v = slide.near(centre, 4 * size)
            cover = _rod(u, v, 2 * size, size, angle) if rods else soft_ellipse(u, v, (size, size))
            slide.mark(centre, 4 * size, cover)
            part *= np.exp(cover[..., None].astype(np.float32) * np.log(np.asarray(colour, np.float32)))
        germs += many
    if not germs:  # no free place: a single one in the corner of the field
        centre = np.array([4 * size, 4 * size])
        radii = ((2.5 if rods else 1) * size, size)
        slide.mark(centre, radii[0], slide.dye(centre, radii, colour))
        germs = 1
    facts |= {"finding": finding, "severity": germ_load(germs), "graded": "the amount of bacteria"}
    if germs <= LARGEST_COUNT:
        facts |= {"count": str(germs), "counted": "bacteria"}
    return _brightfield(slide, rng), facts, slide.lesions


def _coccus_places(rng: np.random.Generator, many: int, size: float, grouping: int) -> np.ndarray:
    """(many, 3) x, y (pixels) and angle of round germs that touch: a grape-like cluster, a bent chain, or a pair."""
    step = 2.15 * size
    if grouping == 0:
        k = np.arange(many)
        hexagon = np.stack([(k % 4 + 0.5 * (k // 4 % 2)) * step, k // 4 * 0.87 * step], 1)
        places = hexagon + rng.normal(0, 0.05 * step, hexagon.shape)
    else:
        headings = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.3, many))
        places = np.cumsum(step * np.stack([np.cos(headings), np.sin(headings)], 1), axis=0)
    return np.column_stack([places - places.mean(axis=0), np.zeros(many)])


def _rod_places(rng: np.random.Generator, many: int, size: float) -> np.ndarray:
    """(many, 3) x, y (pixels) and angle of rods side by side or strewn, none on top of another."""
    side = int(np.ceil(np.sqrt(many)))
    k = rng.permutation(side * side)[:many]
    places = np.stack([k % side, k // side], 1) * 7.5 * size + rng.uniform(-0.4, 0.4, (many, 2)) * size
    return np.column_stack([places - places.mean(axis=0), rng.uniform(0, np.pi, many)])


def _fluorescence(rng: np.random.Generator, lesion: bool) -> Preparation:
    """Cultured cells on black: nuclei, fibres of the cell body and mitochondria in colours or grey; some nuclei broken.

    Blue is the dye of the nuclei, green that of the fibres, red that of the mitochondria; half show the nuclei alone.
    """
    radius = rng.uniform(6, 12)
    slide = Slide((0.0, 0.0, 0.0))
    taken: list[tuple[np.ndarray, float]] = []
    wanted = int(rng.integers(2, LARGEST_COUNT + 1) if rng.random() < 0.6 else rng.integers(10, 26))
    centres = [c for _ in range(wanted) if (c := slide.room(rng, 1.35 * radius, taken)) is not None]
    channels = rng.random(2) < (0.75, 0.6)
    brightness = rng.uniform(0.5, 1.0, 3)
    specks = np.clip(smooth_noise((SIZE, SIZE), rng, 2.2) - 0.6, 0, None)
    bodies, fibres = np.zeros((2, SIZE, SIZE), np.float32)
    strands = [smooth_noise((SIZE, SIZE), rng, grain) for grain in ((1.3, 14), (14, 1.3), 2)]
    row, column = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)
    for x, y in centres:
        stretch, angle = rng.uniform(1.0, 1.9), rng.uniform(0, 3)
        c, s = np.cos(angle), np.sin(angle)
        u, v = (column - x) * c + (row - y) * s, (row - y) * c - (column - x) * s
        wave = 1 + 0.15 * np.cos(3 * np.arctan2(v, u) + 9 * angle)
        body = np.exp(-((wave * (u / (1.7 * radius * stretch)) ** 2 + (v / (1.7 * radius)) ** 2) ** 1.5))
        grown = body > bodies
        bodies[grown] = body[grown]
        fibres[grown] = strands[int(rng.integers(3))][grown]
    outlines = np.clip(1 - np.abs(bodies - 0.3) / 0.12, 0, 1)
    if channels[0]:
        green = bodies * np.clip(0.5 + 0.35 * fibres, 0.1, 1) + 0.3 * outlines
        slide.picture[..., 1] += green * brightness[1] * 0.9
    if channels[1]:
        slide.picture[..., 0] += bodies * specks * brightness[0]
    broken = int(rng.integers(1, min(len(centres), 6) + 1)) if lesion else 0
    for k, centre in enumerate(centres):
        part, x, y = slide.near(centre, 1.3 * radius)
        if k < broken:
            nucleus: np.ndarray = np.zeros(np.broadcast_shapes(x.shape, y.shape), np.float32)
            turn = rng.uniform(0, 2 * np.pi)
            for piece in range(int(rng.integers(4, 7))):
                away, size = radius * rng.uniform(0.45, 0.75), radius * rng.uniform(0.18, 0.32)
                u, v = x - away * np.cos(turn + 1.15 * piece), y - away * np.sin(turn + 1.15 * piece)
                nucleus = np.maximum(nucleus, 1.25 * soft_ellipse(u, v, (size, size)))
            slide.mark(centre, 1.3 * radius, nucleus.clip(0, 1))
        else:
            radii = radius * rng.uniform((0.9, 0.68), (1.1, 0.95))
            nucleus = soft_ellipse(x, y, (radii[0], radii[1]), rng.uniform(0, 3)) * rng.uniform(0.6, 0.95)
            nucleus = nucleus * (1 + 0.15 * smooth_noise(nucleus.shape, rng, 3))
        part *= 1 - 0.75 * nucleus[..., None].clip(0, 1)  # fibres and mitochondria lie around a nucleus, not in it
        part += nucleus[..., None] * np.array([0.10, 0.22, 1.0], np.float32) * np.float32(0.5 + 0.5 * brightness[2])
    glow = np.array([0.5, 0.6, 1.0]) * rng.uniform(0, 0.05)
    blur = rng.uniform(0.3, 1.2)
    light = ndimage.gaussian_filter(slide.picture, (blur, blur, 0)) + glow
    light *= _illumination(rng, 0.35)[..., None]
    # Few photons: the noise grows with the root of the signal.
    photons = rng.uniform(40, 300)
    light = (
        light + np.sqrt(light.clip(0) / photons) * rng.standard_normal(light.shape) + rng.normal(0, 0.01, light.shape)
    )
    # A generator of its own, so that grey pictures leave the draws of everything else as they are.
    recorded = rng.spawn(1)[0]
    if recorded.random() < 0.5:  # as most cameras do: the channel of the nuclei alone, in grey, often dim
        nuclei = light[..., 2:] * recorded.uniform(0.25, 1.1)
        light = np.broadcast_to(nuclei + recorded.uniform(0, 0.08), light.shape)
    facts = {"stain": "fluorescence", "region": "cultured cells", "lesion": "yes" if lesion else "no"}
    if lesion:
        facts |= {"finding": "fragmented nuclei", "count": str(broken), "counted": "fragmented nuclei"}
    elif len(centres) <= LARGEST_COUNT:
        facts |= {"count": str(len(centres)), "counted": "nuclei"}
    return light, facts, slide.lesions


def _phase_contrast(rng: np.random.Generator, lesion: bool) -> Preparation:
    """Unstained cultured cells in grey: dark bodies in bright halos, round dividing cells; yeast as contamination."""
    thickness = 0.10 * smooth_noise((SIZE, SIZE), rng, 30) * rng.uniform(0.2, 1)
    slide = Slide((0.0, 0.0, 0.0))
    taken: list[tuple[np.ndarray, float]] = []
    spindle = bool(rng.random() < 0.5)
    radius = rng.uniform(9, 14)
    wanted = int(rng.integers(1, LARGEST_COUNT + 1) if rng.random() < 0.5 else rng.integers(10, 24))
    direction = rng.uniform(0, np.pi)
    cells = 0
    for _ in range(wanted):
        centre = slide.room(rng, radius * (1.3 if spindle else 1.0), taken)
        if centre is None:
            continue
        cells += 1
        part, x, y = slide.near(centre, 2.6 * radius)
        angle = direction + rng.normal(0, 0.5)
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        if spindle:
            taper = np.clip(1 - np.abs(along) / (1.9 * radius), 0.01, 1)
            width = radius * (0.2 * taper + 0.32 * np.exp(-((along / (0.55 * radius)) ** 2)))
            bow = 0.12 * (along**2 / radius - 0.3 * radius)
            distance = np.abs(across - bow) / width
        else:
            turn = np.arctan2(across, along)
            wave = 1 + 0.12 * np.cos(3 * turn + rng.uniform(0, 6)) + 0.08 * np.cos(5 * turn + rng.uniform(0, 6))
            distance = np.hypot(along, across) / (radius * 0.85 * wave)
        inside = np.clip((1 - distance) * 5 + 0.5, 0, 1)
        nucleus = soft_ellipse(along, across, (0.38 * radius, 0.26 * radius))
        grain = smooth_noise(inside.shape, rng, 2)
        part += (inside * (0.35 + 0.06 * grain) + nucleus * 0.25)[..., None].astype(np.float32)
        for _dot in range(2):
            u, v = along - rng.uniform(-0.2, 0.2) * radius, across - rng.uniform(-0.12, 0.12) * radius
            part += 0.45 * soft_ellipse(u, v, (0.08 * radius, 0.08 * radius))[..., None]
    dark = slide.picture[..., 0] + thickness
    # The phase plate also passes some direct light, so every dark body has a bright halo around it.
    level = -0.75 * dark + 1.25 * ndimage.gaussian_filter(dark, rng.uniform(3, 5))
    bright = Slide((0.0, 0.0, 0.0))
    if lesion:
        _yeast(bright, rng, taken)
    level = rng.uniform(0.42, 0.6) + level * rng.uniform(0.6, 0.95) + bright.picture[..., 0]
    level = ndimage.gaussian_filter(level, rng.uniform(0.2, 0.9)) * _illumination(rng, 0.3)
    level += rng.standard_normal(level.shape) * rng.uniform(0.005, 0.03)
    tint = (1.0, 1.0, 1.0) if rng.random() < 0.6 else rng.uniform((0.85, 0.95, 0.8), (1.0, 1.05, 0.95))
    facts = {"contrast": "phase contrast", "region": "cultured cells", "lesion": "yes" if lesion else "no"}
    if lesion:
        facts["finding"] = "yeast contamination"
    if cells <= LARGEST_COUNT:
        facts |= {"count": str(cells), "counted": "cultured cells"}
    return level[..., None] * np.asarray(tint), facts, bright.lesions


def _yeast(slide: Slide, rng: np.random.Generator, taken: list[tuple[np.ndarray, float]]) -> None:
    """Budding yeast between the cells: small round bodies, bright inside a dark outline, in pairs and short chains."""
    size = rng.uniform(1.7, 2.6)
    for _ in range(int(rng.integers(4, 12))):
        heading = rng.uniform(0, 2 * np.pi)
        start = slide.room(rng, 2.5 * size, taken)
        if start is None:
            start = rng.uniform(6, SIZE - 6, 2)
        for k in range(int(rng.integers(1, 5))):
            centre = start + 1.9 * size * k * np.array([np.cos(heading + 0.3 * k), np.sin(heading + 0.3 * k)])
            part, x, y = slide.near(centre, 2 * size)
            slide.mark(centre, 2 * size, soft_ellipse(x, y, (1.2 * size, 1.2 * size)))
            distance = np.hypot(x, y) / size
            part += (0.55 * np.exp(-((distance / 0.6) ** 2)) - 0.4 * np.exp(-(((distance - 1) / 0.25) ** 2)))[..., None]


def _illumination(rng: np.random.Generator, amount: float) -> np.ndarray:
    """Lamp and optics (SIZE, SIZE): a gradient across the field and darkening toward its corners, at most `amount`."""
    axis = np.linspace(-1, 1, SIZE, dtype=np.float32)
    v, u = np.meshgrid(axis, axis, indexing="ij")
    tilt = rng.uniform(-0.3, 0.3, 2) * amount
    return 1 + tilt[0] * u + tilt[1] * v - np.float32(amount * rng.uniform(0, 0.7)) * (u**2 + v**2) / 2


def _brightfield(slide: Slide, rng: np.random.Generator) -> np.ndarray:
    """Light (SIZE, SIZE, 3) of a stained slide after stain strength, defocus, lamp, eyepiece and sensor noise."""
    light = slide.picture ** np.float32(rng.uniform(0.75, 1.25))
    blur = rng.uniform(0.2, 1.0)
    light = ndimage.gaussian_filter(light, (blur, blur, 0)) * _illumination(rng, 0.4)[..., None]
    light = light * rng.uniform(0.82, 1.05) * rng.uniform(0.93, 1.05, 3)
    if np.isfinite(slide.seen):
        row, column = np.mgrid[0:SIZE, 0:SIZE] + 0.5
        light *= np.clip((slide.seen - np.hypot(row - SIZE / 2, column - SIZE / 2)) / 2 + 0.5, 0, 1)[..., None]
    return light + rng.standard_normal(light.shape) * rng.uniform(0.003, 0.02)


PREPARATIONS: dict[str, Callable[[np.random.Generator, bool], Preparation]] = {
    "blood film": _blood,
    "Gram stain": _gram,
    "fluorescence": _fluorescence,
    "phase contrast": _phase_contrast,
}


def generate(kind: str, rng: np.random.Generator) -> Sample:
    """One field of view under the microscope."""
    lesion = bool(rng.random() < 0.5)
    prepare = tuple(PREPARATIONS.values())[int(rng.choice(len(PREPARATIONS), p=[0.4, 0.2, 0.2, 0.2]))]
    light, facts, cover = prepare(rng, lesion)
    frames = np.round(np.clip(light, 0, 1) * 255).astype(np.uint8)[None]
    if rng.random() < 0.5:
        frames = jpeg(frames, int(rng.integers(60, 95)))
    lesions = lesion_map(cover[None]) if lesion else None
    return Sample(frames, kind, np.zeros(1), (0.0, 0.0), {"modality": "microscopy"} | facts, lesions)
