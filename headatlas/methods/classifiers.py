"""Classifiers of heads' outputs, trained on some folds of the examples and tested on the others."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline

from headatlas.ops.logistic import decisions
from headatlas.ops.types import Array

Splits = Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]  # of folds: (examples that train, examples that test)
SIDE_BY_SIDE = 10_000_000  # numbers of all examples of all fits; more are fitted one by one
HIDDEN = 16  # units of the small network (NL-ITI's "MLP s")


def splits_of(y: NDArray[np.int64], group: NDArray[np.int64], folds: int, seed: int) -> Splits:
    """Folds of about as many examples of each class, which part no group."""
    return list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(np.zeros(len(y)), y, group))


def balance(y: NDArray[np.int64]) -> Array:
    """[example] weights that make every class count alike; their mean is 1."""
    _, index, count = np.unique(y, return_inverse=True, return_counts=True)
    found: Array = len(y) / (len(count) * count[index])
    return found


def balanced(hits: Array, y: NDArray[np.int64]) -> tuple[float, Array]:
    """Balanced accuracy of hits [example], and [example] how far each moves it: their mean is 0.

    What an example adds beside its class's own accuracy. Of hits times weights the rarer class's would be far above 1 and the
    other's below, so that they would scatter although all are right.
    """
    _, index, count = np.unique(y, return_inverse=True, return_counts=True)
    accuracy = np.bincount(index, hits) / count
    return float(accuracy.mean()), balance(y) * (hits - accuracy[index])


def as_far_as_luck(own: Array, shuffled: Array) -> Array:
    """[group] the mean of shuffled [shuffle, group], moved so far apart that a paired test of own [group] knows how far luck gets.

    Groups of which nearly all are told right scatter little, and their difference to the mean of shuffles would look
    surer than it is: were there nothing to tell, as many could be right by luck. The difference is to vary as much as a probe of
    nothing does, or as the groups do where that is more, and as the mean of n shuffles: max(own, shuffled) + shuffled / n, in
    mean squares of these departures from the level of all groups.
    """
    scatter, luck = float(np.square(own).mean()), float(np.square(shuffled).mean())
    more = max(luck - scatter, 0.0) / luck if luck > 0 else 0.0
    found: Array = shuffled.mean(0) * np.sqrt(1.0 + len(shuffled) * more)
    return found


def right_on_others(
    kind: str, x: Array, runs: Sequence[NDArray[np.int64]], splits: Sequence[Splits], seed: int
) -> list[Array]:
    """For the labels [example] of each run, [example] 1 where a probe trained on the other folds of x [example, dimension] gives them."""
    found = side_by_side(x, runs, splits) if kind == "linear" else None
    return found or [_right(kind, x, run, split, seed) for run, split in zip(runs, splits, strict=True)]


def _right(kind: str, x: Array, y: NDArray[np.int64], splits: Splits, seed: int) -> Array:
    right = np.zeros(len(y))
    for train, test in splits:
        right[test] = fitted(kind, x[train], y[train], seed).predict(x[test]) == y[test]
    return right


def side_by_side(x: Array, runs: Sequence[NDArray[np.int64]], splits: Sequence[Splits]) -> list[Array] | None:
    """The same with linear probes of two classes, which are fitted all at once; None where that does not do.

    Each probe is that of `fitted`: centred and scaled by its own training examples, classes balanced among them.
    """
    folds = [(run, train, test) for run, split in zip(runs, splits, strict=True) for train, test in split]
    if len(folds) * x.size > SIDE_BY_SIDE or any(
        not np.array_equal(np.unique(run[train]), [0, 1]) for run, train, _ in folds
    ):
        return None
    weight = np.zeros((len(folds), len(x)))
    scaled = np.empty((len(folds), *x.shape))
    for i, (run, train, _) in enumerate(folds):
        weight[i, train] = balance(run[train])
        scaled[i] = _Scaled().fit(x[train]).transform(x)
    odds = decisions(scaled, np.stack([run == 1 for run, _, _ in folds]), weight)
    if odds is None:
        return None
    right, each = [], iter(odds)
    for run, split in zip(runs, splits, strict=True):
        hits = np.zeros(len(run))
        for _, test in split:
            hits[test] = (next(each)[test] > 0) == run[test]
        right.append(hits)
    return right


def fitted(kind: str, x: Array, y: NDArray[np.int64], seed: int) -> Pipeline:
    """A classifier trained on x [example, dimension] and labels y [example]: linear, or a small network (mlp)."""
    model = (
        LogisticRegression(max_iter=1000, class_weight="balanced")
        if kind == "linear"
        else MLPClassifier((HIDDEN,), solver="lbfgs", alpha=1.0, max_iter=100, random_state=seed)
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a network stopped early is a probe as well
        found: Pipeline = make_pipeline(_Scaled(), model).fit(x, y)
    return found


class _Scaled(TransformerMixin, BaseEstimator):
    """Examples [example, dimension] without their mean, in units of their root mean square over all dimensions."""

    def fit(self, x: Array, y: object = None) -> _Scaled:
        """Learn the mean [dimension] and the unit."""
        self.mean_ = x.mean(0)
        self.unit_ = float(np.sqrt(np.square(x - self.mean_).mean())) or 1.0
        return self

    def transform(self, x: Array) -> Array:
        """Centre and scale."""
        found: Array = (x - self.mean_) / self.unit_
        return found
