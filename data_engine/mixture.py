# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Chooses records so that sources, modalities and tasks have the shares that a configuration asks for.

Shares along several axes at once are met by iterative proportional fitting (Deming and Stephan, 1940): the records of
every combination are weighted until each axis has its shares, never above what there is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from data_engine.records import Record

AXES = ("source", "modality", "task")
ROUNDS = 200
SHARE_TOLERANCE = 0.005
Cell = tuple[str, ...]
"""The source, modality and task of a record."""
Shares = Mapping[str, Mapping[str, float]]
"""Axis -> value -> share; values that are not named divide what is left as they occur."""


class MixtureError(ValueError):
    """Shares that mean nothing."""


def check_shares(shares: Shares) -> None:
    """Raises `MixtureError` for an unknown axis, a negative share or shares above 1 in sum."""
    for axis, wanted in shares.items():
        if axis not in AXES:
            raise MixtureError(f"Shares are given for {', '.join(AXES)}, not for {axis!r}.")
        if min(wanted.values(), default=0) < 0 or sum(wanted.values()) > 1 + 1e-9:
            raise MixtureError(f"Shares of {axis} must be at least 0 and add up to 1 at most.")


def cell_counts(available: Mapping[Cell, int], total: int | None, shares: Shares) -> dict[Cell, int]:
    """How many records to take of every combination of source, modality and task.

    Args:
        available: combination -> number of records.
        total: number of records to take; None takes as many as the shares allow.
        shares: wanted shares along any axes. A value that is asked for and does not occur gets nothing.

    Returns:
        Combination -> count, at most what is available.
    """
    cells = sorted(available)
    limit = np.array([available[cell] for cell in cells], dtype=float)
    groups = [group for axis, wanted in sorted(shares.items()) for group in _groups(axis, cells, limit, wanted)]
    high = int(limit.sum())
    if total is None and groups:
        total = _largest_total(limit, groups)
    total = high if total is None else min(total, high)
    return dict(zip(cells, _whole(_fit(limit, groups, total), limit, total), strict=True))


def _groups(
    axis: str, cells: list[tuple[str, ...]], limit: np.ndarray, wanted: Mapping[str, float]
) -> list[tuple[np.ndarray, float]]:
    """Every value of an axis that occurs, as (cells that have it, share); unnamed values share by their numbers."""
    values = np.array([cell[AXES.index(axis)] for cell in cells])
    masks = {value: values == value for value in sorted(set(values))}
    unnamed = sum(limit[mask].sum() for value, mask in masks.items() if value not in wanted)
    left = max(0.0, 1 - sum(wanted.values()))
    shares = {
        value: wanted[value] if value in wanted else left * limit[mask].sum() / unnamed for value, mask in masks.items()
    }
    total = sum(shares.values())
    return [(mask, shares[value] / total if total else 0.0) for value, mask in masks.items()]


def _largest_total(limit: np.ndarray, groups: list[tuple[np.ndarray, float]]) -> int:
    """The largest total whose shares are met to half a percent."""
    low, high = 0, int(limit.sum())
    while low < high:
        middle = (low + high + 1) // 2
        counts = _fit(limit, groups, middle)
        misses = [abs(counts[mask].sum() / middle - share) for mask, share in groups]
        low, high = (middle, high) if max(misses) <= SHARE_TOLERANCE else (low, middle - 1)
    return low


def _fit(limit: np.ndarray, groups: list[tuple[np.ndarray, float]], total: int) -> np.ndarray:
    """Real-valued counts (cells,), near to the shares, none above its limit; their sum is `total` or a little less."""
    if not groups:
        return limit * (total / max(limit.sum(), 1))
    counts = limit.copy()
    for _ in range(ROUNDS):
        before = counts.copy()
        for mask, share in groups:
            counts[mask] = _scaled(counts[mask], limit[mask], share * total)
        if np.abs(counts - before).max() < 1e-6:
            break
    return counts


def _scaled(counts: np.ndarray, limit: np.ndarray, target: float) -> np.ndarray:
    """Counts scaled to the sum `target`; what a limit cuts off goes to the others, as far as they can take it."""
    counts = np.where(counts > 1e-9, counts, 0.0)
    full = counts == 0
    while not full.all():
        counts[~full] *= max(target - counts[full].sum(), 0) / counts[~full].sum()
        over = ~full & (counts > limit)
        if not over.any():
            break
        counts[over] = limit[over]
        full |= over
    return counts


def _whole(counts: np.ndarray, limit: np.ndarray, total: int) -> list[int]:
    """Whole numbers of the same sum, rounded and at most `total`: the largest remainders are rounded up."""
    floors = np.floor(counts + 1e-9).astype(int)
    missing = min(round(float(counts.sum())), total) - int(floors.sum())
    order = np.argsort(floors - counts, kind="stable")
    for index in [i for i in order if floors[i] < limit[i]][: max(missing, 0)]:
        floors[index] += 1
    return floors.tolist()


def mix(records: Sequence[Record], total: int | None, shares: Shares, seed: int) -> list[Record]:
    """A seeded choice of the records with the wanted shares, in a seeded order.

    Raises:
        MixtureError: shares that mean nothing.
    """
    check_shares(shares)
    rng = np.random.default_rng(seed)
    cells: dict[Cell, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        cells[tuple(getattr(record, axis) for axis in AXES)].append(index)
    wanted = cell_counts({cell: len(members) for cell, members in cells.items()}, total, shares)
    chosen = [i for cell in sorted(cells) for i in rng.permutation(cells[cell])[: wanted[cell]].tolist()]
    return [records[index] for index in rng.permutation(np.array(chosen, dtype=int))]
