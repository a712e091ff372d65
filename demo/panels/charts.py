# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The chart of kept tokens along a clip; a click on a bar shows that slice (viewer.js)."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

KEPT_COLOUR, REMOVED_COLOUR, WORDS_COLOUR = "#14b8a6", "rgba(128, 140, 160, 0.28)", "#7c8694"
"""Readable on light and on dark."""


def kept_chart(processed: Any) -> go.Figure | None:
    """Kept and removed tokens in each frame of a `ProcessedClip`; None for a single picture."""
    kept = processed.pruned.keep_mask.sum(dim=1).tolist()
    if len(kept) == 1:
        return None
    clip, total = processed.clip, processed.pruned.keep_mask.shape[1]
    has_unit = clip.kind == "video" or all(clip.pixel_spacing)
    unit = clip.unit if has_unit else ""
    places = clip.positions.round(2).tolist() if has_unit else list(range(1, len(kept) + 1))
    names = [f"{place:g} {unit}".strip() for place in places]
    figure = go.Figure()
    for name, counts, colour in (
        ("kept", kept, KEPT_COLOUR),
        ("removed", [total - count for count in kept], REMOVED_COLOUR),
    ):
        figure.add_bar(
            x=list(range(len(kept))),
            y=counts,
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            customdata=names,
            hovertemplate=f"%{{customdata}}: %{{y}} of {total} {name}<extra></extra>",
        )
    ticks = list(range(0, len(kept), max(len(kept) // 4, 1)))
    figure.update_layout(
        barmode="stack",
        bargap=0.12,
        height=170,
        margin={"l": 36, "r": 8, "t": 26, "b": 34},
        font={"color": WORDS_COLOUR, "size": 11},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.28, "traceorder": "normal"},
        title={"text": "Tokens per " + ("frame" if clip.kind == "video" else "slice"), "font": {"size": 12}, "x": 0.01},
        xaxis={
            "tickvals": ticks,
            "ticktext": [names[tick] for tick in ticks],
            "showgrid": False,
            "fixedrange": True,
            "tickangle": 0,
        },
        yaxis={"range": [0, total], "nticks": 4, "gridcolor": "rgba(128, 140, 160, 0.2)", "fixedrange": True},
        hovermode="closest",
        dragmode=False,
    )
    return figure
