"""Wheel, sdist and bare checkout, each in a clean environment outside the checkout."""

from __future__ import annotations

import re
import tarfile
import zipfile

import pytest

from tests.conftest import ROOT
from tests.packages import (
    Environment,
    build_archives,
    copy_of_the_checkout,
    files_of_the_checkout,
    quick_build,
)
from xpnet.kernels import host, host_source

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.needs("build", "setuptools")]


def test_what_is_in_the_archives(archives):
    wheel, sdist = archives
    in_wheel = set(zipfile.ZipFile(wheel).namelist())
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    for names in (in_wheel, in_sdist):
        assert {
            "xpnet/py.typed",
            "xpnet/kernels/reference.py",
            "xpnet/recipes/cats-deep.toml",
            *(f"xpnet/kernels/{name}" for name in host_source.SOURCES),
        } <= names
    assert not [name for name in in_sdist if name.endswith((".so", ".pyd", host_source.FAILURE))]
    assert {name.split("/")[0] for name in in_wheel} == {
        "xpnet",
        next(name.split("/")[0] for name in in_wheel if ".dist-info" in name),
    }
    tracked = {name for name in files_of_the_checkout() if name.split("/")[0] in ("tests", "bench")}
    expected = {"README.md", "LICENSE", "pyproject.toml", "train.py", "Makefile", "CHANGELOG.md"}
    expected |= {"setup.py", "conftest.py", "noxfile.py"}
    assert expected | tracked | {"kernels/reference.py"} <= in_sdist


def test_make_knows_what_kernels_are_built_from():
    (named,) = re.findall(r"^KERNELS = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    patterns = re.findall(r"kernels/[\w.*]+", named)
    found = [path.name for pattern in patterns for path in ROOT.glob(pattern)]
    assert sorted(found) == sorted(host_source.SOURCES)


def contents(wheel):
    """Read the files of a wheel, except the extension and the list of checksums."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name: None if name.endswith((".so", ".pyd", "/RECORD")) else archive.read(name)
            for name in archive.namelist()
        }


def test_a_checkout_without_links(archives, tmp_path):
    """Git for Windows turns a link into a text file that names its target."""
    checkout = copy_of_the_checkout(tmp_path)
    link = checkout / "xpnet" / "kernels"
    link.unlink(missing_ok=True)
    link.write_text("../kernels", encoding="utf-8")
    environment = Environment(tmp_path / "environment")
    environment.add_installed_packages()
    command = "import pkgutil, xpnet; print(*pkgutil.walk_packages(xpnet.__path__, 'xpnet.'))"
    done = environment.run("-c", command, env={"PYTHONPATH": str(checkout)})
    assert "xpnet.nn.network" in done.stdout
    assert "tests" not in done.stdout, "only the kernels are found beside the package"
    done = environment.run(checkout / "train.py", "digits-logistic")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-9] == "digits-logistic"
    wheel, sdist = build_archives(checkout, tmp_path / "dist", env=quick_build(tmp_path))
    assert contents(wheel) == contents(archives[0])
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert "kernels/reference.py" in names
    assert "xpnet/kernels" not in names
    environment.pip("--no-deps", wheel)
    environment.trains()


def test_the_wheel_with_its_dependencies(archives, tmp_path):
    environment = Environment(tmp_path / "a b")
    environment.pip(archives[0])
    environment.trains()
    if host.problem() is None:
        # Built with XPNET_MULTIVERSION=0.
        assert environment.kernels().startswith("fused: baseline loops, compiled by ")
    checkout = copy_of_the_checkout(tmp_path)
    done = environment.run("-m", "pip", "uninstall", "--yes", "xpnet")
    assert done.returncode == 0, done.stderr
    done = environment.run(checkout / "train.py", "digits-logistic")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-9] == "digits-logistic"


def test_numpy_alone(archives, tmp_path):
    environment = Environment(tmp_path / "bare")
    environment.pip("numpy")
    checkout = copy_of_the_checkout(tmp_path)
    done = environment.run("-W", "error", "-c", "import xpnet", cwd=checkout)
    assert done.returncode == 0, done.stderr
    done = environment.run(checkout / "train.py")
    assert done.returncode == 2
    assert done.stderr == (
        "train.py: xpnet needs rich, safetensors, scikit-learn, tomli-w, not installed here; "
        "type: pip install rich safetensors scikit-learn tomli-w\n"
    )
    environment.pip("--no-deps", archives[1], env={"CC": "false", "CXX": "false"})
    environment.trains()
    assert environment.kernels() == (
        "reference (numpy expressions): the host kernels are not built, because the compiler "
        "failed (false exited with status 1): with a working C++ compiler, type in a checkout: pip "
        "install --force-reinstall --no-deps -e ."
    )
