"""Streams of River's generators whose concept changes on the way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from river.datasets import synth

from tests.unit.onnx_export.comparing import Rows

KINDS = ("sea", "agrawal", "rbf", "hyperplane")


@cache
def drifting_rows(kind: str, count: int) -> tuple[tuple[str, ...], Rows, list[bool]]:
    """Names of the features, rows as float32 holds them, and labels."""
    pairs = list(itertools.islice(_stream(kind, count), count))
    keys = tuple(pairs[0][0])
    rows = np.array([[x[key] for key in keys] for x, _ in pairs], np.float32)
    return tuple(map(str, keys)), rows, [bool(y) for _, y in pairs]


def _stream(kind: str, count: int) -> Iterator[tuple[dict[Any, Any], Any]]:
    if kind == "rbf":
        return iter(synth.RandomRBFDrift(1, 1, n_features=6, n_centroids=12, n_drift_centroids=12, change_speed=0.01))
    if kind == "hyperplane":
        return iter(synth.Hyperplane(1, n_features=8, n_drift_features=6, mag_change=0.01, noise_percentage=0.1))
    if kind == "sea":
        return iter(_changing([synth.SEA(variant, noise=0.1, seed=2) for variant in (0, 2, 3)], count))
    functions = [synth.Agrawal(function, seed=3, perturbation=0.1) for function in (0, 5, 2)]
    return iter(_changing(functions, count))


def _changing(streams: list[Any], count: int) -> Iterator[tuple[dict[Any, Any], Any]]:
    """Each stream for its part of the rows."""
    for stream in streams:
        yield from itertools.islice(stream, count // len(streams) + 1)
