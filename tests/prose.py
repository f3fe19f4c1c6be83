"""Find what users and contributors read: pages, messages, docstrings and comments.

``python -m tests.prose`` prints every message of the package with its place, to be reviewed;
``python -m tests.prose docstring`` does so for docstrings, ``comment`` for comments.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("*.md", "docs/*.md", "bench/results/experiments/*.md")
SOURCES = (
    *("*.py", "xpnet/**/*.py", "xpnet/recipes/*.toml", "kernels/*.py", "kernels/*.h"),
    *("kernels/*.cpp", "bench/**/*.py", "tests/**/*.py", "tests/**/*.cpp"),
)
KINDS = ("page", "message", "docstring", "comment")
N_WORDS = 3  # a string of fewer is a name, a key or a piece of code
LITERAL = re.compile(r'(?:"(?:[^"\\\n]|\\.)*"(?:\s|PRI\w+)*)+')
REMARK = re.compile(r"(?:^[ \t]*//[^\n]*\n)+|//[^\n]*|/\*.*?\*/", re.DOTALL | re.MULTILINE)


class Text(NamedTuple):
    """A piece of prose, in one line, and where it stands."""

    file: Path
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}: {self.text}"


def texts() -> Iterator[Text]:
    """Find all of it."""
    for pattern in PAGES:
        for file in sorted(ROOT.glob(pattern)):
            yield Text(file, 1, "page", _joined(file.read_text(encoding="utf-8")))
    read = {".py": _in_python, ".toml": _in_toml, ".h": _in_cpp, ".cpp": _in_cpp}
    for pattern in SOURCES:
        for file in sorted(ROOT.glob(pattern)):
            if file.resolve() != file:  # xpnet/kernels is a link
                continue
            for line, kind, text in read[file.suffix](file.read_text(encoding="utf-8")):
                yield Text(file, line, kind, _joined(text))


def _joined(text: str) -> str:
    return " ".join(text.split())


def _in_python(source: str) -> Iterator[tuple[int, str, str]]:
    tree = ast.parse(source)
    part_of: set[ast.AST] = set()  # of a text that has been given
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            part_of.add(node.value)
            if isinstance(node.value.value, str):
                yield node.lineno, "docstring", node.value.value
    for node in ast.walk(tree):
        if node not in part_of and isinstance(node, ast.Constant | ast.JoinedStr):
            part_of |= set(ast.walk(node))
            text = _value(node)
            if len(text.split()) >= N_WORDS:
                yield node.lineno, "message", text
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    remarks = [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]
    for _, lines in groupby(enumerate(remarks), lambda one: one[1][0] - one[0]):
        block = [remark for _, remark in lines]
        yield block[0][0], "comment", " ".join(text.lstrip("# ") for _, text in block)


def _value(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_value, node.values))
    if isinstance(node, ast.FormattedValue):
        return f"{{{ast.unparse(node.value)}}}"
    value = node.value if isinstance(node, ast.Constant) else None
    return value if isinstance(value, str) else ""


def _in_toml(source: str) -> Iterator[tuple[int, str, str]]:
    for number, line in enumerate(source.splitlines(), 1):
        if line.startswith("description"):
            yield number, "message", line.partition("=")[2]
        elif "#" in line:
            yield number, "comment", line.partition("#")[2]


def _in_cpp(source: str) -> Iterator[tuple[int, str, str]]:
    for match in REMARK.finditer(source):
        text = re.sub(r"^\s*(//|/?\*+/?)", " ", match[0], flags=re.MULTILINE)
        yield source.count("\n", 0, match.start()) + 1, "comment", text
    for match in LITERAL.finditer(REMARK.sub(lambda remark: "\n" * remark[0].count("\n"), source)):
        text = "".join(re.findall(r'"((?:[^"\\]|\\.)*)"', match[0]))
        if len(text.split()) >= N_WORDS:
            yield source.count("\n", 0, match.start()) + 1, "message", text


if __name__ == "__main__":
    wanted = sys.argv[1] if len(sys.argv) > 1 else "message"
    if wanted not in KINDS:
        sys.exit(f"kind must be one of {', '.join(KINDS)}, got {wanted!r}")
    for found in texts():
        if found.kind == wanted and found.file.relative_to(ROOT).parts[0] in ("xpnet", "kernels"):
            sys.stdout.write(f"{found}\n")
