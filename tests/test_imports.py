"""What imports what, and what an import costs."""

from __future__ import annotations

import ast
import graphlib
import importlib
import os
import re
import statistics
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.host

# What each part may import, besides itself.
BELOW = {
    "kernels": set(),
    "random": {"kernels"},
    "files": set(),
    "version": set(),
    "device": {"kernels"},
    "graph": {"device", "kernels"},
    "nn": {"kernels", "device", "graph", "random"},
    "data": {"kernels", "device", "random"},
    "environment": {"device", "kernels", "version"},
    "training": {"kernels", "device", "graph", "random", "files", "nn", "data"},
    "report": {"data", "nn", "training"},
    "export": {"kernels", "device", "files", "nn", "data", "training", "version"},
    "estimators": {"kernels", "device", "random", "files", "nn", "training", "export"},
    "spaces": set(),
    "terminal": {"training"},
    "recipe": {
        *("kernels", "device", "random", "files", "nn", "data", "training", "environment"),
        *("report", "spaces"),
    },
    "search": {
        *("kernels", "device", "random", "files", "nn", "data", "training", "environment"),
        *("report", "spaces", "recipe"),
    },
    "cli": {
        *("kernels", "device", "random", "files", "nn", "data", "training"),
        *("recipe", "report", "search", "terminal", "version"),
    },
    "__main__": {"cli"},
}
SIBLINGS = {
    *("activations", "augmentation", "initializers", "layers", "losses", "optimizers"),
    "schedules",
}
THIRD_PARTY = {  # everything else: numpy alone; kernels.blas asks whether threadpoolctl is there
    "training.checkpoint": {"safetensors"},
    "training.lbfgs": {"scipy"},
    "recipe.recipe": {"tomli_w"},
    "environment": {"threadpoolctl"},
    "terminal": {"rich"},
    **{f"data.{name}": {"sklearn"} for name in ("named", "splits")},
    **{f"export.{name}": {"onnx"} for name in ("graph", "model")},
    "cli.search": {"optuna"},
    **{
        f"search.{name}": {"optuna"}
        for name in ("leases", "parameters", "pictures.slices", "results", "running", "winner")
    },
    "search.study": {"optuna", "sqlalchemy"},
    "search.distributions": {"scipy"},
    "search.sampling": {"optuna", "scipy"},
    **{
        f"estimators.{name}": {"sklearn"}
        for name in ("base", "classifier", "mlp", "parameters", "scikit")
    },
}
LAZY = (
    *("cupy", "matplotlib", "sklearn", "scipy", "h5py", "safetensors", "threadpoolctl"),
    *("rich", "pooch", "requests", "tomli_w", "onnx", "optuna"),
)


def sources():
    for folder, root in ((ROOT / "xpnet", ROOT / "xpnet"), (ROOT / "kernels", ROOT)):
        for path in sorted(folder.rglob("*.py")):
            yield ".".join(path.relative_to(root).with_suffix("").parts), path


def module_of(name):
    """Give the full name of what :func:`sources` finds."""
    return f"xpnet.{name}".removesuffix(".__init__")


MODULES = {module_of(name) for name, _ in sources()}


class WithoutTypes(ast.NodeTransformer):
    """Drops what only a type checker reads."""

    def visit_If(self, node):
        self.generic_visit(node)
        return node.orelse if ast.unparse(node.test) == "TYPE_CHECKING" else node


def imported(path, *, with_types=True):
    """Give the modules that a file imports, at any depth."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree if with_types else WithoutTypes().visit(tree)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if node.module == "xpnet" or name in MODULES else node.module


def test_the_source_is_found():
    names = {name for name, _ in sources()}
    assert {
        "kernels.catalogue",
        "kernels.reference",
        "nn.network",
        "training.loop",
        "device",
        "cli.running",
    } <= names


@pytest.mark.parametrize(("name", "path"), list(sources()))
def test_direction_of_imports(name, path):
    part = name.partition(".")[0]
    if part == "__init__":
        return
    assert part in BELOW, f"{name} has no place in the house"
    for module in imported(path):
        words = module.split(".")
        if words[0] == "kernels":
            pytest.fail(f"{name} imports top-level {module}: say xpnet.kernels")
        if words[0] == "xpnet":
            other = words[1] if len(words) > 1 else None
            allowed = other is None or other == part or other in BELOW[part]
            assert allowed, f"{name} imports {module}"
            assert part != "kernels" or other == "kernels", f"{name} imports {module}"
        elif words[0] not in sys.stdlib_module_names and words[0] != "numpy":
            assert words[0] in THIRD_PARTY.get(name, ()), f"{name} imports {module}"


@pytest.mark.parametrize("name", sorted(SIBLINGS))
def test_siblings_do_not_import_each_other(name):
    found = {module.rpartition(".")[2] for module in imported(ROOT / "xpnet/nn" / f"{name}.py")}
    assert not found & (SIBLINGS | {"network", "step", "diagnosis", "gradient_check"})


def test_no_circle_of_imports():
    """What a function imports counts; what only a type checker imports does not."""
    needed = {
        module_of(name): {*imported(path, with_types=False)} & MODULES for name, path in sources()
    }
    try:
        graphlib.TopologicalSorter(needed).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


# Tests of benchmarks.
TESTS_OF_BENCHMARKS = {
    *("test_benchmark.py", "test_course.py", "test_experiments.py"),
    *("test_gate_of_graphs.py", "test_gpu_gate.py", "estimators/test_bench.py"),
}


def test_benchmarks_and_tests_do_without_each_other():
    """Tests import only the benchmark that they test; code in strings counts too."""
    found = {
        part: {
            path.relative_to(ROOT / part).as_posix()
            for path in (ROOT / part).rglob("*.py")
            if re.search(rf"^\s*(from|import) {other}\b", path.read_text("utf-8"), re.MULTILINE)
        }
        for part, other in (("bench", "tests"), ("tests", "bench"))
    }
    assert found == {"bench": set(), "tests": TESTS_OF_BENCHMARKS}


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "XPNET_DEVICE": "cpu"},
    ).stdout


def test_import_is_light():
    loaded = set(
        python("import sys, xpnet.nn, xpnet.training, xpnet.export; print(*sys.modules)").split()
    )
    assert not {name for name in loaded if name.partition(".")[0] in LAZY}
    assert "xpnet.nn" in loaded


def test_import_is_quick():
    """Under 0.15 s beyond numpy, by the median of five."""
    seconds = [
        float(
            python(
                "import numpy, time; start = time.perf_counter(); import xpnet; "
                "print(time.perf_counter() - start)"
            )
        )
        for _ in range(5)
    ]
    assert statistics.median(seconds) < 0.15


def test_public_names_exist():
    import xpnet

    for name in xpnet.__all__:
        assert getattr(xpnet, name) is not None
    assert callable(xpnet.device)
    assert callable(xpnet.diagnose)
    assert callable(xpnet.gradient_check)
    for module in (xpnet.nn, xpnet.training, xpnet.data, xpnet.search):
        for name in module.__all__:
            assert getattr(module, name) is not None
        with pytest.raises(AttributeError, match="no attribute 'missing'"):
            _ = module.missing
    with pytest.raises(AttributeError, match="no attribute 'missing'"):
        _ = xpnet.missing


def test_former_places_say_where_things_are():
    from xpnet.nn import base

    with pytest.warns(
        DeprecationWarning, match=r"base\.Loss has moved: import it from xpnet\.nn\.losses"
    ):
        assert base.Loss is importlib.import_module("xpnet.nn").Loss
    with pytest.raises(AttributeError, match="has no attribute 'Loose'"):
        base.Loose  # noqa: B018
