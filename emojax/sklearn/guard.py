"""A guard around a pipeline that measures and refuses leaks in scikit-learn's cross-validation.

    guard = LeakGuard(pipeline, rows=X, groups=runs)
    cross_validate(guard, X, y, groups=runs, cv=LeaveOneGroupOut(), error_score="raise")

The guard compares the rows that scikit-learn passes to `fit` and to `predict`, and inspects the
pipeline. docs/sklearn.md lists the leaks that it measures, and those that cannot be measured.
"""

import copy
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    process_routing,
)
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from emojax.errors import one_line
from emojax.provenance import LeakageError
from emojax.sklearn import contents, findings, prepared, refits
from emojax.sklearn.findings import Finding, Side

METHODS = ("predict", "predict_proba", "predict_log_proba", "decision_function", "transform")
_clone: Any = clone  # its inferred type is too narrow


class Audit(NamedTuple):
    """The findings of a guard in one fold."""

    measured: tuple[str, ...]
    not_measured: dict[str, str]  # what -> why
    allowed: tuple[str, ...]  # findings permitted by `allow`


def _has(name: str) -> Callable[[Any], bool]:
    return lambda guard: hasattr(getattr(guard, "estimator_", guard.estimator), name)


class LeakGuard(MetaEstimatorMixin, BaseEstimator):
    """A pipeline, or any estimator, that raises if it leaks.

    It is used like the estimator that it contains. `fit` looks for steps that were fitted before
    the split, keep state beyond a fold, do not depend on their training rows, or can reach other
    rows. The first `predict` or `score` of other rows compares both sides: groups, equal rows,
    scaled, shifted and permuted copies, and traces of a scaler. It also looks for outputs that
    depend on the other scored rows, or that are looked up. Predicting the training rows in their
    order does not count as scoring, and is not audited.

    Attributes:
      estimator_: the fitted estimator.
      audit_: what was measured in this fold, what was not and why, and what was allowed.
      classes_, n_features_in_: those of the estimator.
    """

    _metadata_request: Any  # set by scikit-learn
    _studies: list[prepared.Known]  # shared by clones

    def __init__(
        self,
        estimator: Any,
        *,
        rows: Any = None,
        groups: Shaped[np.ndarray, " n"] | None = None,
        labels: Shaped[np.ndarray, " n"] | None = None,
        raw: Any = None,
        prepare: Callable[..., Any] | None = None,
        refit: bool = True,
        allow: Sequence[str] = (),
    ):
        """Sets the estimator to guard, and what else the guard knows about the data.

        Args:
          estimator: the pipeline; it is cloned before each fit.
          rows: all rows, in order of acquisition. With these, the guard knows during `fit` which
            rows are scored, which are neighbours in time, and which were made up.
          groups: [n] acquisition, run or subject of each of `rows`; no group may have rows on both
            sides. If scikit-learn routes metadata, `fit` and `score` also take groups.
          labels: [n] class of each of `rows`.
          raw: [n, ...] data that the rows were made from.
          prepare: function that made the rows: prepare(raw) or, with labels, prepare(raw, labels).
            It is run again with other scored values and labels, after which training rows must be
            unchanged, bit by bit.
          refit: False skips the two additional fits of pipelines that contain the user's code.
          allow: names of steps, "the split" or "the rows", whose findings are only noted.
        """
        self.estimator = estimator
        self.rows = rows
        self.groups = groups
        self.labels = labels
        self.raw = raw
        self.prepare = prepare
        self.refit = refit
        self.allow = allow

    def __sklearn_clone__(self) -> "LeakGuard":
        kept = self.get_params(deep=False)
        made = type(self)(**kept | {"estimator": _clone(self.estimator)})
        if hasattr(self, "_metadata_request"):
            made._metadata_request = copy.deepcopy(self._metadata_request)
        made._studies = self.__dict__.setdefault("_studies", [])
        return made

    def _study(self) -> prepared.Known:
        """Returns what is known besides the fold; clones share it, so that rows are hashed once."""
        given = self.rows, self.groups, self.labels, self.raw, self.prepare
        studies = self.__dict__.setdefault("_studies", [])
        for known in studies:
            if all(a is b for a, b in zip(given, known.given, strict=True)):
                return known
        studies.append(prepared.Known(*given))
        return studies[-1]

    def fit(self, X: Any, y: Any = None, groups: Any = None, **params: Any) -> "LeakGuard":
        """Fits a clone of the estimator and audits it.

        Args:
          X: training rows.
          y: their labels.
          groups: their groups, if not known from the guard's `groups`.
          params: arguments for the estimator's `fit`.

        Raises:
          LeakageError: a leak; the message names step and fold.
          ValueError: the guard's arguments do not fit together.
        """
        self.__dict__.pop("estimator_", None)
        self._known = self._study()
        self._notes: dict[str, str] = {}
        self._measured: list[str] = []
        self._allowed: list[str] = []
        self._done: set[tuple[bytes, ...]] = set()
        self._train = self._side(X, y, groups)
        self._scored_at_fit = self._known.others(self._train.digests)
        own = self._params("fit", params)
        made, other = _clone(self.estimator), _clone(self.estimator)
        self._refuse("steps fitted before the split", findings.of_fitted_steps(made))
        self._find_reachable(made)
        findings.of_choices(made, self._note)

        def fit(X, y):
            return _clone(self.estimator).fit(copy.deepcopy(X), y, **own)

        if self.refit and params:
            self._note("fits that depend on their rows alone", "fit has arguments beside X and y")
        shared = refits.of_shared_state(made, other, lambda one: self._use(one, X, y, own))
        self._refuse("state that outlives a fold", shared)
        if self.refit and not params:
            found = refits.of_fits(fit, X, y, made, self._note)
            self._refuse("fits that depend on their rows alone", found)
        elif not self.refit:
            self._note("fits that depend on their rows alone", "refit=False")
        self._find_reachable(made)
        self._refuse("rows as they were made", self._known.find(self._train.digests, self._note))
        self.estimator_ = made
        return self

    def _use(self, estimator: Any, X: Any, y: Any, params: dict[str, Any]) -> None:
        """Fits and predicts a few rows, as some functions keep the first data that they see.

        Rows are copied, as everywhere in the audit: e.g. StandardScaler(copy=False) changes them.
        """
        estimator.fit(copy.deepcopy(X), y, **params)
        method = next((name for name in refits.OUTPUTS if hasattr(estimator, name)), None)
        if method:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                some = np.arange(min(contents.count(X), 8))
                try:
                    getattr(estimator, method)(contents.take(X, some))
                except Exception as error:  # predicting may need metadata
                    self._note("state that outlives a prediction", one_line(error))

    def _find_reachable(self, estimator: Any) -> None:
        """Looks for scored rows within reach, if it is known which rows are scored."""
        digests = self._scored_at_fit
        if digests:
            labels = None if self.labels is None else np.asarray(self.labels)
            self._refuse(
                "scored rows within reach of a step",
                findings.of_reachable(estimator, digests, self._known.columns, labels),
            )

    def _side(self, X: Any, y: Any, groups: Any) -> Side:
        digests = contents.digests(X)
        known = self._known.groups_of(digests)
        groups = prepared.groups_per_row(groups, len(digests))
        if known is not None and len(known) < len(digests) and groups is None:
            some = f"{len(digests) - len(known)} of {len(digests)} rows occur in several groups"
            self._note("groups of equal rows", f"{some}: their content does not tell whose")
        if groups is None:
            groups = np.array(list(known.values())) if known else None
        elif any(str(groups[i]) != str(own) for i, own in (known or {}).items()):
            raise ValueError("want the groups that LeakGuard(groups=...) says; got others")
        return Side(X, y, digests, groups)

    def _audit_scoring(self, X: Any, y: Any, groups: Any) -> None:
        """Compares scored rows with the training rows, once for each set of rows."""
        scored = self._side(X, y, groups)
        key = tuple(scored.digests) + (b"y",) * (y is not None)
        if key in self._done or scored.digests == self._train.digests:
            return
        train, known = self._train, self._known
        self._refuse("groups on both sides", findings.of_groups(train, scored), scored)
        if train.groups is None or scored.groups is None:
            why = "no groups (LeakGuard(rows=X, groups=...))"
            why = why if known.group_of is None else "no group of these rows is known"
            self._note("groups on both sides", why)
        self._refuse("rows on both sides", findings.of_copies(train, scored, self._note), scored)
        both = known.rows if known.rows is not None else _joined(train.X, X)
        self._refuse("traces of a scaler", findings.of_scaling(train, both), scored)
        ours, theirs = known.order(train.digests), known.order(scored.digests)
        if train.groups is not None:
            pass  # whole groups have no neighbours on the other side
        elif ours is None or theirs is None:
            self._note("neighbours in time", "no order (LeakGuard(rows=X) in that of acquisition)")
        else:
            found = findings.of_time((ours, theirs), train.X, train.y, self._note)
            self._refuse("neighbours in time", found, scored)
        values = contents.numbers(X)
        columns = 0 if values is None else values.shape[1]
        labels = None if y is None or train.y is None else np.concatenate([train.y, y])
        own = set(train.digests)  # a classifier may know its training rows
        digests = [digest for digest in scored.digests if digest not in own]
        found = findings.of_reachable(self.estimator_, digests, columns, labels)
        self._refuse("scored rows within reach of a step", found, scored)
        found = known.replaced(train.digests, scored.digests, self._note)
        self._refuse("steps before the pipeline", found, scored)
        found = refits.of_predictions(self.estimator_, X, train.X, self._note)
        self._refuse("outputs that depend on other scored rows", found, scored)
        self._refuse("look-ups", refits.of_last_bits(self.estimator_, X, self._note), scored)
        self._done.add(key)  # only now, so that refused rows are refused again

    def _refuse(self, what: str, found: Iterable[Finding], scored: Side | None = None) -> None:
        """Raises LeakageError at the first finding that is not allowed."""
        for step, text, advice in found:
            if step in self.allow or step.partition(".")[0] in self.allow:
                self._allowed.append(f"{step}: {text}")
                continue
            where = step if step in (findings.SPLIT, findings.ROWS) else f"step {step!r}"
            raise LeakageError(one_line(f"{where}: {text} ({self._fold(scored)}); want {advice}"))
        if what not in self._measured:
            self._measured.append(what)

    def _note(self, what: str, why: str) -> None:
        self._notes.setdefault(what, why)

    def _fold(self, scored: Side | None) -> str:
        """Describes the fold by its scored groups, or by its numbers of rows."""
        digests = self._scored_at_fit if scored is None else scored.digests
        known = (self._known.groups_of(digests) or {}).values()
        groups = list(known) if scored is None else scored.groups
        trained = len(self._train.digests)
        if groups is not None and len(groups):
            names = np.unique(groups).tolist()
            some = ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
            return f"the fold that scores {some}"
        if not digests:
            return f"the fold of {trained} training rows"
        return f"the fold of {trained} training and {len(digests)} scored rows"

    @property
    def audit_(self) -> Audit:
        """Record of what was measured in this fold so far, what was not, and what was allowed."""
        check_is_fitted(self, "estimator_")
        measured = tuple(what for what in self._measured if what not in self._notes)
        return Audit(measured, dict(self._notes), tuple(self._allowed))

    def score(self, X: Any, y: Any = None, groups: Any = None, **params: Any) -> float:
        """Audits the fold and returns the score of the estimator."""
        check_is_fitted(self, "estimator_")
        self._audit_scoring(X, y, groups)
        return self.estimator_.score(X, y, **self._params("score", params))

    def _call(self, name: str, X: Any, groups: Any, params: dict[str, Any]) -> Any:
        check_is_fitted(self, "estimator_")
        self._audit_scoring(X, None, groups)
        return getattr(self.estimator_, name)(X, **self._params(name, params))

    @available_if(_has("predict"))
    def predict(self, X: Any, groups: Any = None, **params: Any) -> Any:
        """Audits the fold and predicts."""
        return self._call("predict", X, groups, params)

    @available_if(_has("predict_proba"))
    def predict_proba(self, X: Any, groups: Any = None, **params: Any) -> Any:
        """Audits the fold and predicts probabilities."""
        return self._call("predict_proba", X, groups, params)

    @available_if(_has("predict_log_proba"))
    def predict_log_proba(self, X: Any, groups: Any = None, **params: Any) -> Any:
        """Audits the fold and predicts log-probabilities."""
        return self._call("predict_log_proba", X, groups, params)

    @available_if(_has("decision_function"))
    def decision_function(self, X: Any, groups: Any = None, **params: Any) -> Any:
        """Audits the fold and returns decision values."""
        return self._call("decision_function", X, groups, params)

    @available_if(_has("transform"))
    def transform(self, X: Any, groups: Any = None, **params: Any) -> Any:
        """Audits the fold and transforms rows."""
        return self._call("transform", X, groups, params)

    @property
    def classes_(self) -> np.ndarray:
        """The classes of the estimator."""
        return self.estimator_.classes_

    @property
    def n_features_in_(self) -> int:
        """The number of features of the estimator."""
        return self.estimator_.n_features_in_

    def _params(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Returns the arguments for the estimator's method, routed if scikit-learn routes them."""
        if not params:
            return {}
        from sklearn import get_config

        if not get_config().get("enable_metadata_routing"):
            return params
        return process_routing(self, method, **params)["estimator"][method]

    def get_metadata_routing(self) -> MetadataRouter:
        """Returns the routing of metadata: groups to the guard, the rest to the estimator."""
        mapping = MethodMapping()
        for name in ("fit", "score", *METHODS):
            mapping.add(caller=name, callee=name)
        router = MetadataRouter(owner=self).add_self_request(self)
        return router.add(estimator=self.estimator, method_mapping=mapping)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        own = get_tags(self.estimator)
        tags.estimator_type, tags.classifier_tags = own.estimator_type, own.classifier_tags
        tags.regressor_tags, tags.target_tags = own.regressor_tags, own.target_tags
        tags.input_tags, tags.transformer_tags = own.input_tags, own.transformer_tags
        return tags


def _joined(a: Any, b: Any) -> Any:
    """Returns the rows of both if they are numbers, otherwise None."""
    a, b = contents.numbers(a), contents.numbers(b)
    return None if a is None or b is None else np.concatenate([a, b])
