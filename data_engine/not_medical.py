# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Draws pictures that are none of medicine: blank, noise, patterns, text, charts. Each split has kinds of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont

Rng = np.random.Generator
LEAST_SIDE, LARGEST_SIDE = 128, 320
"""Pixels."""
WORDS = (
    "the", "quick", "brown", "fox", "jumps", "over", "lazy", "dog", "invoice", "total", "amount", "date", "meeting",
    "agenda", "chapter", "one", "train", "leaves", "at", "noon", "please", "find", "attached", "report", "city",
    "river", "mountain", "music", "school", "teacher", "window", "garden", "coffee", "price", "number", "welcome",
    "home", "open", "closed", "sale", "today", "only", "ticket", "street", "north", "south", "letter", "dear", "yours",
)  # fmt: skip


def _canvas(rng: Rng) -> tuple[int, int]:
    """Width and height."""
    width, height = rng.integers(LEAST_SIDE, LARGEST_SIDE + 1, 2)
    return int(width), int(height)


def _colour(rng: Rng) -> tuple[int, int, int]:
    red, green, blue = rng.integers(0, 256, 3)
    return int(red), int(green), int(blue)


def _paper(rng: Rng) -> tuple[int, int, int]:
    """A light or, less often, a dark background."""
    if rng.random() < 0.7:
        red, green, blue = rng.integers(225, 256, 3)
    else:
        red, green, blue = rng.integers(0, 60, 3)
    return int(red), int(green), int(blue)


def _ink(paper: tuple[int, int, int]) -> tuple[int, int, int]:
    return (20, 20, 20) if sum(paper) > 380 else (235, 235, 235)


def _points(rng: Rng, size: tuple[int, int], count: int) -> list[tuple[int, int]]:
    return [(int(rng.integers(size[0])), int(rng.integers(size[1]))) for _ in range(count)]


def _sheet(rng: Rng) -> tuple[Image.Image, ImageDraw.ImageDraw, tuple[int, int, int]]:
    """A blank sheet, what draws on it, and a colour that stands out."""
    paper = _paper(rng)
    image = Image.new("RGB", _canvas(rng), paper)
    return image, ImageDraw.Draw(image), _ink(paper)


def _font(rng: Rng, least: int = 10, most: int = 30) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(int(rng.integers(least, most)))


def _words(rng: Rng, count: int) -> str:
    return " ".join(WORDS[i] for i in rng.integers(len(WORDS), size=count))


def blank(rng: Rng) -> Image.Image:
    """One colour, often black, white or grey."""
    level = int(rng.integers(256))
    choices = ((0, 0, 0), (255, 255, 255), (level, level, level), _colour(rng))
    return Image.new("RGB", _canvas(rng), choices[int(rng.integers(len(choices)))])


def noise(rng: Rng) -> Image.Image:
    """White noise, grey or coloured, fine or coarse."""
    width, height = _canvas(rng)
    grain = int(rng.integers(1, 9))
    shape = (height // grain + 1, width // grain + 1, 1 if rng.random() < 0.5 else 3)
    values = np.broadcast_to(rng.integers(0, 256, shape), (*shape[:2], 3)).astype(np.uint8)
    return Image.fromarray(values).resize((width, height), Image.Resampling.NEAREST)


def gradient(rng: Rng) -> Image.Image:
    """A straight or round change from one colour to another."""
    width, height = _canvas(rng)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    angle = rng.uniform(0, 2 * np.pi)
    along = np.hypot(x, y) if rng.random() < 0.4 else (x * np.cos(angle) + y * np.sin(angle)) / 2 + 0.5
    first, last = (np.array(_colour(rng) if rng.random() < 0.6 else (int(rng.integers(256)),) * 3) for _ in range(2))
    values = first + along.clip(0, 1)[..., None] * (last - first)
    return Image.fromarray(values.astype(np.uint8))


def shapes(rng: Rng) -> Image.Image:
    """Ellipses, rectangles, lines and polygons."""
    image, draw, _ = _sheet(rng)
    for _ in range(int(rng.integers(1, 15))):
        (left, top), (right, bottom) = _points(rng, image.size, 2)
        box = (min(left, right), min(top, bottom), max(left, right) + 2, max(top, bottom) + 2)
        kind = int(rng.integers(4))
        if kind == 0:
            draw.ellipse(box, fill=_colour(rng), outline=_colour(rng))
        elif kind == 1:
            draw.rectangle(box, fill=_colour(rng))
        elif kind == 2:
            draw.line((left, top, right, bottom), fill=_colour(rng), width=int(rng.integers(1, 9)))
        else:
            draw.polygon(_points(rng, image.size, int(rng.integers(3, 6))), fill=_colour(rng))
    return image


def text(rng: Rng) -> Image.Image:
    """Lines of printed words."""
    image, draw, ink = _sheet(rng)
    font = _font(rng)
    step = int(rng.integers(16, 40))
    for top in range(int(rng.integers(2, 30)), image.height, step):
        draw.text((int(rng.integers(2, 20)), top), _words(rng, int(rng.integers(1, 9))), fill=ink, font=font)
    return image


def line_plot(rng: Rng) -> Image.Image:
    """Curves over axes with ticks."""
    image, draw, ink = _sheet(rng)
    width, height = image.size
    left, bottom = width // 8, height - height // 8
    draw.line((left, 8, left, bottom, width - 8, bottom), fill=ink, width=2)
    for place in range(1, 6):
        across = left + place * (width - left) // 7
        draw.line((across, bottom, across, bottom + 4), fill=ink)
        draw.text((across - 4, bottom + 4), str(place * int(rng.integers(1, 20))), fill=ink, font=_font(rng, 8, 11))
    x = np.linspace(left, width - 10, 60)
    for _ in range(int(rng.integers(1, 5))):
        walk = np.cumsum(rng.normal(size=60))
        y = 10 + (walk - walk.min()) / np.ptp(walk) * (bottom - 20)
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=_colour(rng), width=int(rng.integers(1, 4)))
    return image


def bar_chart(rng: Rng) -> Image.Image:
    """Upright bars over a line."""
    image, draw, ink = _sheet(rng)
    width, height = image.size
    bars = int(rng.integers(3, 12))
    step, colour = (width - 20) / bars, _colour(rng)
    for place in range(bars):
        top = int(rng.integers(10, height - 25))
        box = (10 + place * step + 2, top, 10 + (place + 1) * step - 2, height - 20)
        draw.rectangle(box, fill=_colour(rng) if rng.random() < 0.3 else colour)
    draw.line((5, height - 20, width - 5, height - 20), fill=ink, width=2)
    draw.text((10, height - 16), _words(rng, 3), fill=ink, font=_font(rng, 9, 13))
    return image


def checkerboard(rng: Rng) -> Image.Image:
    """Squares of two colours in turn."""
    width, height = _canvas(rng)
    cell = int(rng.integers(4, 50))
    y, x = np.mgrid[:height, :width] // cell
    colours = np.array([_colour(rng), _colour(rng)], dtype=np.uint8)
    return Image.fromarray(colours[(x + y) % 2])


def table(rng: Rng) -> Image.Image:
    """A grid of numbers, as spreadsheets show them."""
    image, draw, ink = _sheet(rng)
    wide, high, font = int(rng.integers(35, 80)), int(rng.integers(15, 28)), _font(rng, 9, 14)
    for top in range(0, image.height, high):
        draw.line((0, top, image.width, top), fill=ink)
        for left in range(0, image.width, wide):
            draw.line((left, 0, left, image.height), fill=ink)
            draw.text((left + 3, top + 2), str(int(rng.integers(10000))), fill=ink, font=font)
    return image


def drawing(rng: Rng) -> Image.Image:
    """A child's drawing: a house, the sun, a tree and a few clouds."""
    sky, ground = (int(rng.integers(120, 200)), int(rng.integers(180, 230)), 250), (60, int(rng.integers(120, 200)), 60)
    image = Image.new("RGB", _canvas(rng), sky)
    draw = ImageDraw.Draw(image)
    width, height = image.size
    horizon = int(height * rng.uniform(0.55, 0.8))
    draw.rectangle((0, horizon, width, height), fill=ground)
    sun = _points(rng, (width, horizon), 1)[0]
    draw.ellipse((sun[0] - 15, sun[1] - 15, sun[0] + 15, sun[1] + 15), fill=(250, 220, 40))
    left, side = int(rng.integers(width // 2)), int(rng.integers(width // 5, width // 2))
    draw.rectangle((left, horizon - side, left + side, horizon + 5), fill=_colour(rng))
    draw.polygon(
        [(left, horizon - side), (left + side // 2, horizon - side * 3 // 2), (left + side, horizon - side)],
        fill=_colour(rng),
    )
    trunk = int(rng.integers(width))
    draw.rectangle((trunk - 4, horizon - 40, trunk + 4, horizon + 8), fill=(110, 70, 30))
    draw.ellipse((trunk - 22, horizon - 75, trunk + 22, horizon - 30), fill=(30, int(rng.integers(90, 160)), 40))
    return image


def window(rng: Rng) -> Image.Image:
    """A program's window with a title, a menu and buttons."""
    image, draw, ink = _sheet(rng)
    width, height = image.size
    draw.rectangle((0, 0, width, 22), fill=_colour(rng))
    draw.text((6, 4), _words(rng, 3), fill=(255, 255, 255), font=_font(rng, 11, 14))
    draw.rectangle((0, 22, width // 4, height), fill=_colour(rng))
    for top in range(32, height - 20, 20):
        draw.text((width // 4 + 8, top), _words(rng, int(rng.integers(1, 6))), fill=ink, font=_font(rng, 9, 13))
    for _ in range(int(rng.integers(1, 4))):
        left, top = _points(rng, (max(width - 60, 1), max(height - 30, 1)), 1)[0]
        draw.rounded_rectangle((left, top, left + 55, top + 22), 5, fill=_colour(rng))
        draw.text((left + 8, top + 5), _words(rng, 1), fill=(255, 255, 255), font=_font(rng, 10, 13))
    return image


def stripes(rng: Rng) -> Image.Image:
    """Straight or bent stripes."""
    width, height = _canvas(rng)
    y, x = np.mgrid[:height, :width]
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 60)
    bend = rng.uniform(0, 20) * np.sin(y / rng.uniform(10, 60))
    phase = (x * np.cos(angle) + y * np.sin(angle) + bend) // period
    colours = np.array([_colour(rng) for _ in range(int(rng.integers(2, 5)))], dtype=np.uint8)
    return Image.fromarray(colours[phase.astype(int) % len(colours)])


def music(rng: Rng) -> Image.Image:
    """Staves with notes."""
    image, draw, ink = _sheet(rng)
    for top in range(15, image.height - 40, 60):
        for line in range(5):
            draw.line((5, top + 7 * line, image.width - 5, top + 7 * line), fill=ink)
        for left in range(20, image.width - 15, int(rng.integers(15, 30))):
            place = top + int(rng.integers(-3, 30))
            draw.ellipse((left, place, left + 8, place + 6), fill=ink)
            draw.line((left + 8, place + 3, left + 8, place - 18), fill=ink)
    return image


def clouds(rng: Rng) -> Image.Image:
    """Smooth noise of all sizes in two colours, like clouds or marble."""
    width, height = _canvas(rng)
    total = np.zeros((height, width))
    for octave in range(2, 7):
        coarse = rng.random((2**octave, 2**octave)).astype(np.float32)
        layer = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        total += np.asarray(layer) / 2**octave
    along = (total - total.min()) / np.ptp(total)
    first, last = np.array(_colour(rng)), np.array(_colour(rng))
    return Image.fromarray((first + along[..., None] * (last - first)).astype(np.uint8))


def pie_chart(rng: Rng) -> Image.Image:
    """A disc in slices, with a legend."""
    image, draw, ink = _sheet(rng)
    side = min(image.size) - 30
    edges = np.sort(rng.uniform(0, 360, int(rng.integers(3, 9))))
    for place, (start, end) in enumerate(zip(edges, [*edges[1:], edges[0] + 360], strict=True)):
        colour = _colour(rng)
        draw.pieslice((10, 10, 10 + side, 10 + side), float(start), float(end), fill=colour)
        draw.rectangle((image.width - 40, 10 + 14 * place, image.width - 32, 18 + 14 * place), fill=colour)
        draw.text((image.width - 28, 8 + 14 * place), _words(rng, 1), fill=ink, font=_font(rng, 8, 11))
    return image


def road_map(rng: Rng) -> Image.Image:
    """Patches of land and water with roads and names."""
    width, height = _canvas(rng)
    seeds = np.array(_points(rng, (width, height), int(rng.integers(8, 30))))
    y, x = np.mgrid[:height, :width]
    nearest = ((x[..., None] - seeds[:, 0]) ** 2 + (y[..., None] - seeds[:, 1]) ** 2).argmin(-1)
    land = np.array([(200, 225, 180), (170, 205, 240), (240, 235, 215), (190, 215, 160)], dtype=np.uint8)
    image = Image.fromarray(land[rng.integers(len(land), size=len(seeds))][nearest])
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 9))):
        draw.line(_points(rng, image.size, int(rng.integers(2, 6))), fill=(230, 150, 60), width=int(rng.integers(2, 6)))
    for place in _points(rng, image.size, 5):
        draw.text(place, _words(rng, 1).title(), fill=(40, 40, 40), font=_font(rng, 9, 14))
    return image


def code_square(rng: Rng) -> Image.Image:
    """A square code of black and white cells with three marks."""
    cells = int(rng.integers(21, 41))
    values = rng.integers(0, 2, (cells, cells)) * 255
    for row, column in ((0, 0), (0, cells - 7), (cells - 7, 0)):
        mark = np.zeros((7, 7), dtype=int)
        mark[1:6, 1:6], mark[2:5, 2:5] = 255, 0
        values[row : row + 7, column : column + 7] = mark
    image = Image.fromarray(values.astype(np.uint8)).convert("RGB")
    side = int(rng.integers(LEAST_SIDE, LARGEST_SIDE))
    framed = Image.new("RGB", (cells + 8, cells + 8), (255, 255, 255))
    framed.paste(image, (4, 4))
    return framed.resize((side, side), Image.Resampling.NEAREST)


def handwriting(rng: Rng) -> Image.Image:
    """Scribbled lines, as of a pen."""
    image, draw, ink = _sheet(rng)
    for top in range(25, image.height - 10, int(rng.integers(25, 45))):
        t = np.linspace(0, 1, 160)
        x = 10 + t * (image.width - 20) + 4 * np.sin(t * rng.uniform(80, 140))
        y = top + 6 * np.sin(t * rng.uniform(90, 160)) * np.abs(np.sin(t * rng.uniform(10, 30))) + rng.normal(0, 1, 160)
        draw.line(list(zip(x.tolist(), y.tolist(), strict=True)), fill=ink, width=int(rng.integers(1, 4)))
    return image


def maze(rng: Rng) -> Image.Image:
    """Short walls at right angles."""
    image, draw, ink = _sheet(rng)
    cell, width = int(rng.integers(10, 24)), int(rng.integers(1, 4))
    for top in range(0, image.height, cell):
        for left in range(0, image.width, cell):
            end = (left + cell, top) if rng.random() < 0.5 else (left, top + cell)
            draw.line((left, top, *end), fill=ink, width=width)
    return image


def blurred_lights(rng: Rng) -> Image.Image:
    """Soft bright discs on a dark ground, like street lights out of focus."""
    image = Image.new("RGB", _canvas(rng), tuple(int(v) for v in rng.integers(0, 40, 3)))
    draw = ImageDraw.Draw(image)
    for left, top in _points(rng, image.size, int(rng.integers(8, 40))):
        radius = int(rng.integers(4, 25))
        draw.ellipse((left - radius, top - radius, left + radius, top + radius), fill=_colour(rng))
    return image.filter(ImageFilter.GaussianBlur(float(rng.uniform(1, 6))))


KINDS: dict[str, dict[str, Callable[[Rng], Image.Image]]] = {
    "train": {
        "blank": blank,
        "noise": noise,
        "gradient": gradient,
        "shapes": shapes,
        "text": text,
        "line plot": line_plot,
        "bar chart": bar_chart,
        "checkerboard": checkerboard,
        "table": table,
        "drawing": drawing,
        "window": window,
    },
    "validation": {"stripes": stripes, "sheet music": music, "street lights": blurred_lights},
    "test": {
        "clouds": clouds,
        "pie chart": pie_chart,
        "map": road_map,
        "code": code_square,
        "handwriting": handwriting,
        "maze": maze,
    },
}
"""Split -> kind -> what draws one."""
