"""Write the page of modules: ``python docs/modules.py > docs/modules.md``; see ``make docs``."""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("kernels", "xpnet", "bench")


def summary(path: Path) -> str:
    """Give the first sentence of a module: of its docstring, or of a C++ file's first comment."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    else:
        comment = itertools.takewhile(lambda line: line.startswith("// "), text.splitlines())
        text = " ".join(line.removeprefix("// ") for line in comment)
    paragraph = re.sub(r":\w+:`", "`", " ".join(text.partition("\n\n")[0].split()))
    return re.split(r"\.( [A-Z]|$)", paragraph)[0].replace("``", "`")


def modules() -> Iterator[Path]:
    """List the sources, folder by folder."""
    for folder in FOLDERS:
        found = (ROOT / folder).rglob("*")
        for path in sorted(found, key=lambda path: (path.parent, path.name)):
            is_linked = ROOT / "xpnet" / "kernels" in path.parents  # to kernels
            if path.suffix in (".py", ".h", ".cpp") and not is_linked:
                yield path


def page() -> str:
    """Write the page, in Markdown."""
    lines = [
        "# Modules",
        "",
        "The first sentence of every module. `make docs` writes this page from the sources.",
    ]
    for folder, paths in itertools.groupby(modules(), key=lambda path: path.parent):
        lines += ["", f"## {folder.relative_to(ROOT)}", ""]
        for path in paths:
            name = path.relative_to(ROOT).as_posix()
            lines.append(f"- [`{path.name}`](../{name}): {summary(path)}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
