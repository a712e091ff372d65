# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The second page: what the model is, what it learned from, what to trust, and what happens to files."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from demo.panels.components import text_of

ABOUT = """# About OmniV-Med

This page runs {model}.

**For research only.** It is not a medical device. Never use its answers for a patient. Load no file that
identifies one.

## What it is

One medical vision-language model for text, images, volumes and videos. Neighbouring slices of a scan repeat each
other, so it drops the visual tokens that repeat an earlier slice, and the language model gets fewer of them. "Kept"
shows which tokens stay, and "Model sees" shows all that the model receives.

## What the default model learned from

OmniV-Med-Nano, the default, is small enough for a laptop. Its data, its figures with counts and intervals, and what
it gets wrong are written in `docs/nano.md` of the project. How we measure is in `docs/evaluation.md`, and what pruning
costs in `docs/pruning.md`.

## What was measured of this model on real pictures

{measured}

## What to trust

- **Confidence** is the calibrated probability that an answer is right. Below a threshold the model declines, and the
  page shows what it would have said. A model that was not calibrated shows none, and declines by itself only.
- **Compare** answers again with all tokens. Where the two answers differ, pruning may have cost something.
- **Where did it look?** covers each part of the picture in turn and asks for the answer's probability again: brighter
  parts matter more to it. The page offers it only where measured regions lie on findings, as the figures above say.
- Sizes, counts and findings are where a small model is weakest. Expect wrong answers.

## Your files

Each visit has a folder of its own. It is deleted when you close the page. The log holds neither patient data nor
names of files.
"""

UNMEASURED = "Its folder holds no figures. `python -m evaluation.run` measures it on public benchmarks."


def make_about(model: str, measured: Sequence[str]) -> None:
    """Places the page's text.

    Args:
        model: which model runs, in what number format, and where.
        measured: sentences with the figures of this model.
    """
    gr.HTML(f"<style>{text_of('about.css')}</style>", visible="hidden")
    lines = [f"- {line}" for line in measured] or [UNMEASURED]
    gr.Markdown(ABOUT.format(model=model, measured="\n".join(lines)), elem_id="about")
