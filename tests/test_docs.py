"""README and docs: their code runs and prints what they show, from an installed wheel."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.packages import Environment
from xpnet.data.store import DEBIAN

pytestmark = pytest.mark.host

# tests/kernels/test_guide.py does to a checkout what docs/kernels.md says.
PAGES = [
    ROOT / "README.md",
    *(page for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "kernels.md"),
]
BLOCK = re.compile(
    r"^```(?P<language>python|sh)\n(?P<code>.*?)^```\n(?:\n```text\n(?P<shown>.*?)^```$)?",
    re.DOTALL | re.MULTILINE,
)
# To be typed in a checkout, or on a machine with a GPU.
ELSEWHERE = ("pip install ", "make ", "python -m pytest ", "python -m bench.", "XPNET_DEVICE=cuda ")
# These take minutes: they run for one epoch, and what they print is not compared.
LONG = ("xpnet train cats-", "xpnet train fashion-mnist")
END = "\x1e"  # printed after each block
NUMBER = r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?"


@dataclass(frozen=True)
class Block:
    """An example of a page: its code, and the output that the page shows below it."""

    language: str
    code: str
    shown: str

    @property
    def commands(self) -> list[str]:
        """The lines of a shell block that can be run here."""
        lines = (line.partition("  #")[0].strip() for line in self.code.splitlines())
        return [line for line in lines if line and not line.startswith(ELSEWHERE)]

    @property
    def is_long(self) -> bool:
        return self.language == "sh" and any(line.startswith(LONG) for line in self.commands)


def blocks(page: Path) -> list[Block]:
    """Return the examples of a page that can be run, in order."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    every = [Block(one["language"], one["code"], one["shown"] or "") for one in found]
    return [block for block in every if block.language == "python" or block.commands]


def script(page: Path, data_dir: str) -> str:
    """Write a program that runs all examples in one process, except for the commands."""
    lines = ["import subprocess"]
    for number, block in enumerate(blocks(page)):
        if block.language == "python":
            lines.append(f"exec(compile({block.code!r}, '{page.name}, block {number}', 'exec'))")
        for command in block.commands if block.language == "sh" else ():
            needs = DEBIAN / "fashion-mnist"
            if command.startswith(LONG[0]):
                needs = Path(data_dir, "train_catvnoncat.h5")
            if command.startswith(LONG):
                if not needs.exists():
                    continue
                command += " --set training.epochs=1"
            lines.append(f"subprocess.run({command!r}, shell=True, check=True)")
        lines.append(f"print({END!r}, end='', flush=True)")
    return "\n".join(lines)


def differs(shown: str, printed: str) -> str | None:
    """Say how a printed text differs from the one shown, in which ``...`` stands for anything.

    Spaces and the lengths of rules (``---``) may differ. So may numbers with decimals, by 5 % plus
    0.001 or, if that is more or the number has an exponent, plus a unit of the last digit: results
    depend on how processors round.
    """
    shown_words, printed_words = (
        " ".join(re.sub("-{3,}", "---", text).split()) for text in (shown, printed)
    )
    tokens = re.split(rf"( ?\.\.\. ?|{NUMBER})", shown_words)
    numbers = [token for token in tokens[1::2] if "..." not in token]
    pattern = "".join(
        ".*?" if "..." in token else f"({NUMBER})" if place % 2 else re.escape(token)
        for place, token in enumerate(tokens)
    )
    match = re.fullmatch(pattern, printed_words, re.DOTALL)
    if match is None:
        return f"the page shows\n{shown}\nbut this is printed\n{printed}"
    for text, found in zip(numbers, match.groups(), strict=True):
        a, b = (float(number.replace(",", "")) for number in (text, found))
        digits, _, exponent = text.partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
        slack = unit if exponent else max(unit, 0.001)
        if abs(a - b) > (
            0.0 if text.lstrip("-").replace(",", "").isdigit() else 0.05 * abs(a) + slack
        ):
            return f"the page shows {text}, printed is {found} in\n{printed}"
    return None


@pytest.fixture(scope="module")
def installed(archives, tmp_path_factory):
    environment = Environment(tmp_path_factory.mktemp("docs") / "venv")
    environment.pip("--no-deps", archives[0])
    environment.add_installed_packages()
    return environment


@pytest.mark.parametrize(
    ("shown", "printed", "is_same"),
    [
        ("accuracy 0.9833 of 360\n", "accuracy  0.9806 of 360\n", True),
        ("accuracy 0.9833", "accuracy 0.89", False),
        ("accuracy 0.9833", "score 0.9833", False),
        ("cost 0.001, [0 1 2]", "cost 0.002, [0 1 2]", True),
        ("mean 1.51e-05", "mean 1.56e-05", True),
        ("mean 1.51e-05", "mean 3.51e-05", False),
        ("[0 1 2]", "[0 2 1]", False),
        ("12,345 samples ... done", "12,345 samples in 3 s: done", True),
        ("20 trials", "21 trials", False),
        ("-----  ---\n0.98 adam", "------- ---\n0.975 adam", True),
        ("-----  ---\n0.98 adam", "-----\n0.975 adam", False),
        ("begins ... ends", "begins", False),
        ("begins\n...\nends", "begins\nends", True),
        ("", "unexpected", False),
    ],
)
def test_outputs_are_compared(shown, printed, is_same):
    assert (differs(shown, printed) is None) is is_same


def test_the_pages_have_examples():
    n_shown = {page.name: sum(bool(block.shown) for block in blocks(page)) for page in PAGES}
    assert n_shown["README.md"] >= 3
    assert n_shown["data.md"] >= 2
    assert n_shown["notation.md"] >= 1


@pytest.mark.slow
@pytest.mark.needs("build", "setuptools", "onnx", "onnxruntime", "optuna", "pandas")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_examples_print_what_is_shown(page, installed, tmp_path):
    if "from sklearn.callback import" in page.read_text(encoding="utf-8"):
        pytest.importorskip("sklearn.callback", reason="needs scikit-learn 1.9")
    data_dir = os.environ.get("XPNET_DATA_DIR") or str(ROOT.parent / "shared" / "data")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    if Path(data_dir).is_dir():
        kept["XPNET_DATA_DIR"] = data_dir
    done = subprocess.run(
        [installed.python, "-W", "error", "-c", script(page, data_dir)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env={
            **kept,
            "PATH": f"{installed.python.parent}{os.pathsep}{kept['PATH']}",
            "XPNET_DEVICE": "cpu",
        },
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    printed = done.stdout.split(END)[:-1]
    for block, output in zip(blocks(page), printed, strict=True):
        assert block.is_long or not (found := differs(block.shown, output)), found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_the_packages_own(page):
    for block in blocks(page):
        for command in block.commands if block.language == "sh" else ():
            assert shlex.split(command)[0] == "xpnet", command
