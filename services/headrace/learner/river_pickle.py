"""Learned River models as bytes, read back without running anything but what such a model is made of.

A pickle names the classes that it is made of, and whoever reads it makes them. The reader here makes only classes that
River's estimators consist of: those that a package of `ESTIMATORS` defines itself, a few containers, and numpy arrays.
Bytes are read only after their signature was verified; this is the second lock.

River's distributions each carry a random generator, seeded by chance, for drawing samples. No estimator draws any, and
in a forest they are nine tenths of the bytes: they are left out.
"""

from __future__ import annotations

import copyreg
import importlib
import io
import pickle
from typing import Any

from river import proba

from headrace.learner.errors import SnapshotError

PROTOCOL = 5

ESTIMATORS = (
    "headrace.estimators",
    "river._river_rust.drift",
    "river._river_rust.stats",
    "river._river_rust.vectordict",
    "river.anomaly",
    "river.bandit",
    "river.cluster",
    "river.compose",
    "river.drift",
    "river.dummy",
    "river.ensemble",
    "river.feature_extraction",
    "river.feature_selection",
    "river.forest",
    "river.imblearn",
    "river.linear_model",
    "river.metrics",
    "river.model_selection",
    "river.multiclass",
    "river.naive_bayes",
    "river.optim",
    "river.preprocessing",
    "river.proba",
    "river.sketch",
    "river.stats",
    "river.tree",
    "river.utils",
)
"""Packages whose classes a model may consist of."""

CONTAINERS = frozenset(
    {
        "builtins.bool",
        "builtins.dict",
        "builtins.float",
        "builtins.frozenset",
        "builtins.int",
        "builtins.list",
        "builtins.object",
        "builtins.set",
        "builtins.str",
        "builtins.tuple",
        "collections.Counter",
        "collections.OrderedDict",
        "collections.defaultdict",
        "collections.deque",
        "copy.deepcopy",
        "copyreg._reconstructor",
        "functools.partial",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy._core.numeric._frombuffer",
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.random._mt19937.MT19937",
        "numpy.random._pickle.__bit_generator_ctor",
        "numpy.random._pickle.__randomstate_ctor",
        "random.Random",
        "statistics.NormalDist",
    }
)
"""What else it may consist of: nothing here runs what it is given."""

METHODS = {
    "random": ("Random.gauss",),
    "river.base.base": ("Base.clone",),
    "river.drift.dummy": ("DummyDriftDetector._fixed_trigger", "DummyDriftDetector._random_trigger"),
    "river.drift.page_hinkley": ("PageHinkley._test_both", "PageHinkley._test_decrease", "PageHinkley._test_increase"),
    "river.ensemble.bagging": tuple(
        f"LeveragingBaggingClassifier._leveraging_{method}" for method in ("bag", "half", "me", "subag", "wt")
    ),
    "river.feature_extraction.kernel_approx": ("RBFSampler._random_weights",),
    "river.linear_model.pa": ("BasePA._calc_tau_0", "BasePA._calc_tau_1", "BasePA._calc_tau_2"),
    "river.naive_bayes.gaussian": ("GaussianNB._make_gaussian",),
    "river.preprocessing.scale_target": (
        "TargetMinMaxScaler._scale",
        "TargetMinMaxScaler._unscale",
        "TargetStandardScaler._scale",
        "TargetStandardScaler._unscale",
    ),
    "river.tree.splitter.ebst_splitter": (
        "EBSTNode._update_estimator_multivariate",
        "EBSTNode._update_estimator_univariate",
    ),
    "river.tree.splitter.nominal_splitter_reg": (
        "NominalSplitterReg._update_estimator_multivariate",
        "NominalSplitterReg._update_estimator_univariate",
    ),
    "river.tree.splitter.qo_splitter": ("Slot._update_estimator_multivariate", "Slot._update_estimator_univariate"),
}
"""Functions that estimators keep in their state."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" in CONTAINERS:
            return super().find_class(module, name)
        if (module, name) == ("builtins", "getattr"):
            return _method
        if name in METHODS.get(module, ()):
            return super().find_class(module, name)
        if "." not in name and any(module == package or module.startswith(f"{package}.") for package in ESTIMATORS):
            # Looked up without the name tables of pickle; a module of River that is not loaded holds estimators too.
            found = getattr(importlib.import_module(module), name, None)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise SnapshotError(f"the model state names {module}.{name}, which no model of the learner is made of: refused")


def _method(owner: Any, name: str) -> Any:
    """What `getattr` may fetch: the functions of `METHODS`."""
    kind = owner if isinstance(owner, type) else type(owner)
    for definer in kind.__mro__:
        if f"{definer.__name__}.{name}" in METHODS.get(definer.__module__, ()):
            return getattr(owner, name)
    raise SnapshotError(f"the model state asks for {name!r} of {kind.__module__}.{kind.__name__}: refused")


def _reduce_distribution(distribution: Any) -> Any:
    return copyreg.__newobj__, (type(distribution),), vars(distribution) | {"_rng": None}  # type: ignore[attr-defined]


REDUCERS = copyreg.dispatch_table | dict.fromkeys(
    (proba.Beta, proba.Gaussian, proba.MultivariateGaussian, proba.Multinomial), _reduce_distribution
)
"""How objects of a class are taken apart, where not as they say themselves."""


class _Writer(pickle.Pickler):
    dispatch_table = REDUCERS


def dumps(value: Any) -> bytes:
    """The bytes of a learned model. Equal models may have other bytes: see `canonical_state`."""
    into = io.BytesIO()
    _Writer(into, PROTOCOL).dump(value)
    return into.getvalue()


def loads(content: bytes) -> Any:
    """Read what `dumps` gave.

    Raises:
        SnapshotError: the bytes name something that no model is made of (it is named), or are damaged.
    """
    try:
        return _Reader(io.BytesIO(content)).load()
    except SnapshotError:
        raise
    except Exception as error:  # damaged bytes raise whatever they lead to
        raise SnapshotError(f"the model state is damaged: {error!r}") from error
