"""Estimators for scikit-learn: voxel selection, hyperalignment, networks, and a leak guard.

    pipeline = make_pipeline(StandardScaler(), AnovaSelector(300), LogisticRegression())
    guard = LeakGuard(pipeline, rows=X, groups=runs)
    cross_val_score(guard, X, y, groups=runs, cv=LeaveOneGroupOut(), error_score="raise")

Inside this package, `import sklearn` still imports scikit-learn.
"""

from emojax.sklearn.alignment import Hyperalignment
from emojax.sklearn.guard import LeakGuard
from emojax.sklearn.networks import CNN1DClassifier, ResNet3DClassifier
from emojax.sklearn.selection import AnovaSelector

__all__ = [
    "AnovaSelector",
    "CNN1DClassifier",
    "Hyperalignment",
    "LeakGuard",
    "ResNet3DClassifier",
]
