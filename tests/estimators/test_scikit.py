"""Only one module uses scikit-learn's private names; callbacks of an old version are refused."""

from __future__ import annotations

import ast

import pytest
import sklearn

from tests.conftest import ROOT
from xpnet.estimators import LogisticRegression, MLPClassifier, MLPRegressor, scikit

pytestmark = pytest.mark.host

KINDS = [MLPClassifier, MLPRegressor, LogisticRegression]


def private_names(source):
    """Give what a module uses of scikit-learn's that is private, or not in every version."""
    public = set()
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("sklearn")]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sklearn"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            public |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            is_callbacks = node.attr.startswith(("_skl", "_init_callback"))
            names = [node.attr] if is_callbacks or node.value.id in public | {"sklearn"} else []
        elif isinstance(node, ast.Constant) and str(node.value).startswith("_skl"):
            names = [str(node.value)]
        for name in names:
            words = name.split(".")
            is_private = any(w.startswith("_") and not w.endswith("__") for w in words)
            if is_private or words[:2] == ["sklearn", "callback"]:
                yield name


def test_one_module_uses_what_is_private():
    found = {
        path.relative_to(ROOT).as_posix(): names
        for path in (ROOT / "xpnet").rglob("*.py")
        if (names := [*private_names(path.read_text(encoding="utf-8"))])
    }
    assert list(found) == ["xpnet/estimators/scikit.py"]


def test_private_names_are_found():
    source = """
import sklearn.utils._mask
from sklearn.base import BaseEstimator, _fit_context
from sklearn.callback import ProgressBar
def f():
    from sklearn.utils._tags import Tags
    self._init_callback_context(), getattr(self, "_skl_callbacks")
    return BaseEstimator._get_tags, sklearn.__version__, BaseEstimator.get_params
"""
    assert sorted(private_names(source)) == [
        "_get_tags",
        "_init_callback_context",
        "_skl_callbacks",
        "sklearn.base._fit_context",
        "sklearn.callback.ProgressBar",
        "sklearn.utils._mask",
        "sklearn.utils._tags.Tags",
    ]


@pytest.mark.skipif(scikit.HAS_CALLBACKS, reason="needs a scikit-learn before 1.9")
@pytest.mark.parametrize("kind", KINDS)
def test_callbacks_of_an_old_version_are_refused_in_one_line(kind):
    with pytest.raises(ImportError) as caught:
        kind().set_callbacks(print)
    assert str(caught.value) == (
        f"set_callbacks needs scikit-learn 1.9 or newer, got {sklearn.__version__}; "
        "install it with: pip install 'scikit-learn>=1.9'"
    )
