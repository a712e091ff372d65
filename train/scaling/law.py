# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The law L(N, D) = E + A / N^alpha + B / D^beta of loss with parameters and data, fitted, with its errors.

Form and loss are those of Hoffmann et al. (arXiv 2203.15556, section 3.3): the Huber loss of the difference of
logarithms. Intervals come from drawing the held-out samples anew, the same for every run, and fitting again; so they
show what the held-out set leaves open, not what another seed of the training would change.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import least_squares, nnls

HUBER_DELTA = 1e-3
"""Of log L, as in the source."""
EXPONENTS = tuple(np.geomspace(0.05, 3.0, 10))
"""Of the grid of starts; the last is also the largest that is allowed."""
BEST_STARTS = 3
SMALLEST_SHARE = 1e-6
"""The least that a term may be in the middle of the runs, as a share of the lowest loss."""


@dataclass(frozen=True)
class Law:
    """L(N, D) = floor + of_parameters / N^alpha + of_samples / D^beta, in the unit of the losses.

    Attributes:
        floor: E, what no size and no data would take away.
        of_parameters, alpha: A and its exponent.
        of_samples, beta: B and its exponent.
    """

    floor: float
    of_parameters: float
    alpha: float
    of_samples: float
    beta: float

    def __call__(self, parameters: np.ndarray | float, samples: np.ndarray | float) -> np.ndarray | float:
        """The loss at N parameters and D samples."""
        return self.floor + self.of_parameters * parameters**-self.alpha + self.of_samples * samples**-self.beta


def fit(parameters: np.ndarray, samples: np.ndarray, losses: np.ndarray) -> Law:
    """Fits the law.

    Where the exponents are known, relative errors are linear in E, A and B; so these begin at their best for each pair
    of exponents of a grid, and all five go on together from the best pairs.

    Args:
        parameters, samples, losses: of each run, float (runs,), all above 0.
    """
    # Around the middle of the runs, where A / N^alpha and B / D^beta depend little on the exponents.
    middle_n, middle_d = np.log(parameters).mean(), np.log(samples).mean()
    log_n, log_d, log_loss = np.log(parameters) - middle_n, np.log(samples) - middle_d, np.log(losses)

    def logarithms(x: np.ndarray) -> np.ndarray:
        return np.stack([np.full_like(log_n, x[0]), x[1] - x[3] * log_n, x[2] - x[4] * log_d])

    def residuals(x: np.ndarray) -> np.ndarray:
        return np.logaddexp.reduce(logarithms(x)) - log_loss

    def jacobian(x: np.ndarray) -> np.ndarray:
        floor, of_n, of_d = np.exp(logarithms(x) - np.logaddexp.reduce(logarithms(x)))
        return np.stack([floor, of_n, of_d, -of_n * log_n, -of_d * log_d], axis=1)

    most = float(log_loss.max())
    least = float(log_loss.min()) + np.log(SMALLEST_SHARE)
    bounds = np.array([[least, most]] * 3 + [[0.0, EXPONENTS[-1]]] * 2)
    starts = []
    for alpha, beta in itertools.product(EXPONENTS, repeat=2):
        columns = np.stack([np.ones_like(log_n), np.exp(-alpha * log_n), np.exp(-beta * log_d)], axis=1)
        coefficients, error = nnls(columns / losses[:, None], np.ones_like(losses))
        inner = np.log(np.maximum(coefficients, np.exp(least)))
        starts.append((error, np.array([*inner, alpha, beta])))
    inside = bounds + np.array([1e-9, -1e-9])
    found = [
        least_squares(residuals, start.clip(*inside.T), jacobian, bounds.T, loss="huber", f_scale=HUBER_DELTA)
        for _, start in sorted(starts, key=lambda one: one[0])[:BEST_STARTS]
    ]
    x = min(found, key=lambda one: one.cost).x
    return Law(
        floor=float(np.exp(x[0])),
        of_parameters=float(np.exp(x[1] + x[3] * middle_n)),
        alpha=float(x[3]),
        of_samples=float(np.exp(x[2] + x[4] * middle_d)),
        beta=float(x[4]),
    )


def mean_losses(sums: np.ndarray, tokens: np.ndarray, draw: np.ndarray | None = None) -> np.ndarray:
    """Mean loss of a token in each run, float (runs,).

    Args:
        sums: summed loss of each sample in each run, float (runs, samples).
        tokens: scored tokens of each sample, (samples,).
        draw: places of the samples that count, some of them several times; None takes each once.
    """
    chosen = slice(None) if draw is None else draw
    return sums[:, chosen].sum(axis=1) / tokens[chosen].sum()


def draws(samples: int, count: int, seed: int = 0) -> list[np.ndarray]:
    """Bootstrap: `count` draws with replacement of as many samples as there are."""
    rng = np.random.default_rng(seed)
    return [rng.integers(samples, size=samples) for _ in range(count)]


def interval(values: np.ndarray) -> tuple[float, float]:
    """The middle 95 % of bootstrapped values (n,)."""
    low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True)
class FittedLaw:
    """The law and the laws of the bootstrap's draws.

    Attributes:
        law: fitted to all samples.
        redrawn: fitted to each draw.
        error: root mean square of fitted less measured loss over the measured.
    """

    law: Law
    redrawn: tuple[Law, ...]
    error: float

    @classmethod
    def of(
        cls, parameters: np.ndarray, samples: np.ndarray, sums: np.ndarray, tokens: np.ndarray, redraws: int
    ) -> FittedLaw:
        """Fits and fits again.

        Args:
            parameters, samples: of each run, float (runs,).
            sums, tokens: as in `mean_losses`.
            redraws: how often the held-out samples are drawn anew.
        """
        losses = mean_losses(sums, tokens)
        law = fit(parameters, samples, losses)
        redrawn = [fit(parameters, samples, mean_losses(sums, tokens, draw)) for draw in draws(len(tokens), redraws)]
        error = float(np.sqrt(np.mean((law(parameters, samples) / losses - 1) ** 2)))
        return cls(law, tuple(redrawn), error)

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % interval of each constant."""
        return {name: interval(np.array([getattr(one, name) for one in self.redrawn])) for name in asdict(self.law)}

    def predict(self, parameters: float, samples: float) -> tuple[float, float, float]:
        """The loss at a size, and its 95 % interval."""
        values = np.array([one(parameters, samples) for one in self.redrawn])
        return (float(self.law(parameters, samples)), *interval(values))


def leave_one_out(parameters: np.ndarray, samples: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """What the law that is fitted to all other runs says of each run, over the measured loss, less 1; float (runs,)."""
    runs = np.arange(len(losses))
    predicted = [
        fit(parameters[runs != one], samples[runs != one], losses[runs != one])(parameters[one], samples[one])
        for one in runs
    ]
    return np.array(predicted) / losses - 1
