# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Measures how long a visitor waits: from a chosen file to its first slice, and from a threshold to the new picture.

    python -m benchmarks.page --json benchmarks/results/page.json

A browser without a window visits the demo, which runs in a process of its own, and loads 181 slices of the MNI152
volume again and again, each time as a new visitor. Under the first figure lies what reading and pruning the same file
take alone, in this process, in the same turns. Needs Chromium.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright
from transformers import AutoProcessor

from benchmarks.chromium import FLAGS, TO_INSTALL, chromium_path
from benchmarks.demo_process import running_demo
from benchmarks.media import SLICES, write_volume
from benchmarks.report import write_json
from benchmarks.server_process import PATIENCE
from benchmarks.timing import seconds, summary, take_turns
from data_engine.tables import markdown_table

WINDOW = {"width": 1440, "height": 900}
THRESHOLDS = ("0.05", "0.2", "0.1", "0.15")
"""What a visitor tries in turn; each keeps other tokens than the one before."""
FIRST_SLICE, REDRAW, ALONE = "first slice", "threshold to new picture", "reading and pruning alone"
BEGIN_AT = """([selector, event]) => {
    const noted = () => { window.begun = performance.now(); };
    document.querySelector(selector).addEventListener(event, noted, { once: true, capture: true });
}"""
SECONDS_UNTIL_IT_CHANGES = """(selector) => new Promise((resolve) => {
    const pixels = () => {
        const canvas = document.querySelector(selector);
        if (!canvas?.offsetParent || !canvas.width) return null;
        return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    };
    const before = pixels();
    const look = () => {
        const now = pixels();
        const changed = now && (before ? now.some((value, place) => value !== before[place]) : now.some(Boolean));
        if (changed) window.waited = (performance.now() - window.begun) / 1000;
        else requestAnimationFrame(look);
    };
    window.waited = null;
    look();
    resolve();
})"""


def measured_wait(page: Page) -> float:
    """Seconds from the noted event to the new picture."""
    page.wait_for_function("window.waited !== null", polling=20, timeout=1000 * PATIENCE)
    waited: float = page.evaluate("window.waited")
    return waited


def first_slice_and_redraws(browser: Browser, address: str, file: Path) -> dict[str, list[float]]:
    """One visit: seconds to the first slice of a file, and from each threshold to its picture."""
    context = browser.new_context(viewport=WINDOW)
    page = context.new_page()
    page.goto(address)
    page.locator("#samples .card").first.wait_for()
    files = "#files input[type=file]"
    page.evaluate(BEGIN_AT, [files, "change"])
    page.evaluate(SECONDS_UNTIL_IT_CHANGES, "#viewer canvas.picture")
    page.locator(files).set_input_files(file)
    found = {FIRST_SLICE: [measured_wait(page)], REDRAW: []}
    page.wait_for_timeout(2000)  # the rest of the file's slices, its numbers and its thumbnail
    page.get_by_role("button", name="Settings", exact=True).click()
    threshold = page.get_by_role("spinbutton", name="Pruning threshold")
    for value in THRESHOLDS:
        page.evaluate(BEGIN_AT, ["#settings", "input"])
        page.evaluate(SECONDS_UNTIL_IT_CHANGES, "#viewer canvas.overlay")
        threshold.fill(value)
        found[REDRAW].append(measured_wait(page))
        page.wait_for_timeout(1000)
    context.close()
    return found


def measure(model: str, repeats: int, executable: str) -> dict[str, list[float]]:
    """Seconds of each wait of all visits, and of reading and pruning alone."""
    processor = AutoProcessor.from_pretrained(model, trust_remote_code=True)
    with (
        running_demo(model) as (address, _),
        tempfile.TemporaryDirectory() as folder,
        sync_playwright() as tools,
    ):
        file = write_volume(Path(folder) / "volume.nii.gz")
        browser = tools.chromium.launch(executable_path=executable, args=FLAGS)

        def alone() -> dict[str, list[float]]:
            return {ALONE: [seconds(lambda: processor.process_clip(processor.load(file)))]}

        visits = {"visit": lambda: first_slice_and_redraws(browser, address, file), "alone": alone}
        turns = take_turns(visits, repeats)
        browser.close()
    rows: dict[str, list[float]] = {}
    for found in (*turns["visit"], *turns["alone"]):
        for name, values in found.items():
            rows.setdefault(name, []).extend(values)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hub_model", help="folder or Hub id (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=7, help="visits, after one that is not counted")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    executable = chromium_path()
    if executable is None:
        sys.exit(f"{TO_INSTALL}.")
    found = measure(arguments.model, arguments.repeats, executable)
    rows: dict[str, Any] = {name: summary(values) for name, values in found.items()}
    table = [[name, *(f"{value:.2f}" for value in row.values())] for name, row in rows.items()]
    print(markdown_table(["wait", "median s", "first quartile", "third quartile"], table))
    if arguments.json:
        write_json(arguments.json, "page", {"slices": SLICES, "repeats": arguments.repeats, "waits": rows})


if __name__ == "__main__":
    main()
