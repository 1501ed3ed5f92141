"""Means and shares with 95 % intervals, and criteria that results are checked against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Interval = dict[str, Any]
"""mean, low, high (None where there are too few values) and count."""


def mean_interval(values: Iterable[float]) -> Interval:
    """Mean and 95 % interval (Student's t) of the finite values."""
    from scipy.stats import t

    finite = np.array([v for v in values if math.isfinite(v)])
    if not len(finite):
        return {"mean": None, "low": None, "high": None, "count": 0}
    mean = float(finite.mean())
    if len(finite) == 1:
        return {"mean": mean, "low": None, "high": None, "count": 1}
    half = float(t.ppf(0.975, len(finite) - 1) * finite.std(ddof=1) / math.sqrt(len(finite)))
    return {"mean": mean, "low": mean - half, "high": mean + half, "count": len(finite)}


def share_interval(right: Sequence[bool]) -> Interval:
    """Share and its 95 % interval (Wilson)."""
    n, share, z = len(right), float(np.mean(right)), 1.96
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return {"mean": share, "low": middle - half, "high": middle + half, "count": n}


@dataclass(frozen=True)
class Criterion:
    """A requirement on the results, with the measured value in words."""

    text: str
    value: str
    passed: bool
