"""Writes the C++ loops of the host kernels from the rows of the catalogue.

Every row becomes a function over a matrix (``XpnBlock`` in ``host_loops.h``). Its inner loop runs
over contiguous elements: it copies the operands to local variables, evaluates the row's body and
stores the results. Iterations are independent, because operands are identical or share no memory.
``omp simd`` tells the compiler so; it needs no OpenMP runtime.

This module runs when xpnet is built, without NumPy and without the rest of xpnet.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from xpnet.kernels.catalogue import (
    CATALOGUE,
    ColumnReduce,
    Constant,
    Elementwise,
    Operand,
    Resampled,
    Row,
    Rowwise,
)

__all__ = ["C_TYPES", "FAILURE", "digest", "loops"]

FOLDER = Path(__file__).resolve().parent
# In place of this interpreter's extension module: why it could not be built, in one line.
FAILURE = f"_host_failure.{sys.implementation.cache_tag}.txt"
# Sources of the host kernels: this module, the catalogue, and all C++ files.
SOURCES = tuple(
    sorted(
        path.name
        for pattern in ("catalogue.py", "functions.h", "host_source.py", "host_*.h", "host_*.cpp")
        for path in FOLDER.glob(pattern)
    )
)

C_TYPES = {
    "T": "T",
    "double": "double",
    "fraction": "double",
    "int64": "long long",
    "uint64": "unsigned long long",
    "uint32": "unsigned int",
    "uint8": "unsigned char",
}

_HEAD = """\
// Written from the catalogue by host_source.py.

#include "host_parts.h"
#include "host_small.h"

namespace {
"""


def digest() -> str:
    """Return a digest of the host kernels' sources."""
    found = hashlib.sha256()
    for name in SOURCES:
        found.update((FOLDER / name).read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest()[:16]


def loops(catalogue: Iterable[Row] = CATALOGUE) -> str:
    """Return the text of all loops, and of the table that finds them by name."""
    rows = list(catalogue)
    parts = [_HEAD, *(_loop(row) for row in rows), "}  // namespace", ""]
    parts += [
        'extern "C" {',
        "extern const XpnEntry XPN_PASTE(xpn_loops_, XPN_VARIANT)[];",
        "}",
        "const XpnEntry XPN_PASTE(xpn_loops_, XPN_VARIANT)[] = {",
        *(f'    {{"{row.name}", {row.name}_<float>, {row.name}_<double>}},' for row in rows),
        "    {nullptr, nullptr, nullptr},",
        "};",
    ]
    return "\n".join(parts) + "\n"


def _loop(row: Row) -> str:
    if isinstance(row, Rowwise):
        return _rowwise(row)
    if isinstance(row, Resampled):
        return _resampled(row)
    if isinstance(row, ColumnReduce):
        return _column_reduce(row)
    if isinstance(row, Elementwise):
        return _elementwise(row)
    raise TypeError(f"row {row.name!r} has an unknown kind: {type(row).__name__}")


def _elementwise(row: Elementwise) -> str:
    """Loop row by row; columns that decay come first, if there are any."""
    flags = _flags(row)
    decays = any(constant.name == "n_decay" for constant in row.numbers)
    if decays:
        flags = [*flags, "decays"]
    template = ", ".join(["class T", *(f"bool {flag}" for flag in flags)])
    inner = _in_chunks(row) if row.words else _columns(row, "begin", "end")
    chosen = "".join(f", {flag}" for flag in _flags(row))
    if decays:
        calls = f"""\
        {row.name}_row<T{chosen}, true>(block, r, 0, split);
        {row.name}_row<T{chosen}, false>(block, r, split, block.n_columns);"""
        locals_ = "const index_t n_decay = (index_t)block.constants[{}].integer;".format(
            next(i for i, constant in enumerate(_given(row)) if constant.name == "n_decay")
        )
        index = next(i for i, o in enumerate(row.operands) if o.name == "weight_decay")
        locals_ += f"""
    const bool decays = block.data[{index}] != nullptr && n_decay > block.first_column;
    const index_t split = decays ? smaller(n_decay - block.first_column, block.n_columns) : 0;"""
    else:
        calls = f"        {row.name}_row<T{chosen}>(block, r, 0, block.n_columns);"
        locals_ = ""
    return f"""
template <{template}>
XPN_INLINE void {row.name}_row(const XpnBlock& block, index_t r, index_t begin, index_t end) {{
{_constants(row, skip=("n_decay",))}{_pointers(row)}{inner}
}}

{_template_of(_flags(row))}void {row.name}_all(const XpnBlock& block) {{
    {locals_}
    for (index_t r = 0; r < block.n_rows; ++r) {{
{calls}
    }}
}}
{_dispatch(row)}"""


def _column_reduce(row: ColumnReduce) -> str:
    flags = _flags(row)
    total = next(o for o in row.operands if o.name == row.total)
    wanted = f"has_{total.name}" if total.optional else "true"
    k = row.operands.index(total)
    body = _columns(row, "begin", "end", after=f"if ({wanted}) part[i - begin] += {row.term};")
    return f"""
{_template_of(flags)}XPN_INLINE void {row.name}_row(
    const XpnBlock& block, index_t r, index_t begin, index_t end, T* part) {{
{_constants(row)}{_pointers(row, skip=(total,))}{body}
}}

{_template_of(flags)}void {row.name}_all(const XpnBlock& block) {{
    if (!({wanted})) {{
        for (index_t r = 0; r < block.n_rows; ++r) {{
            {row.name}_row<{", ".join(["T", *flags])}>(block, r, 0, block.n_columns, nullptr);
        }}
        return;
    }}
    for (index_t begin = 0; begin < block.n_columns; begin += WIDTH) {{
        const index_t end = smaller(begin + WIDTH, block.n_columns), n = end - begin;
        T total[WIDTH], part[WIDTH];
        for (index_t i = 0; i < n; ++i) total[i] = T(0);
        for (index_t top = 0; top < block.n_rows; top += HEIGHT) {{
            for (index_t i = 0; i < n; ++i) part[i] = T(0);
            const index_t bottom = smaller(top + HEIGHT, block.n_rows);
            for (index_t r = top; r < bottom; ++r) {{
                {row.name}_row<{", ".join(["T", *flags])}>(block, r, begin, end, part);
            }}
            for (index_t i = 0; i < n; ++i) total[i] += part[i];
        }}
        T* result = row_of<T>(block, {k}, 0) + begin;
        for (index_t i = 0; i < n; ++i) result[i] = total[i];
    }}
}}
{_dispatch(row)}"""


def _rowwise(row: Rowwise) -> str:
    """Loop along each row or, if there are several short ones, across LANES rows at a time."""
    flags = _flags(row)
    return f"""
{_template_of(flags)}void {row.name}_narrow(const XpnBlock& block) {{
{_rowwise_narrow(row)}
}}

{_template_of(flags)}void {row.name}_all(const XpnBlock& block) {{
    if (block.n_columns <= NARROW && block.n_rows > 1) {{
        return {row.name}_narrow<{", ".join(["T", *flags])}>(block);
    }}
{_rowwise_wide(row)}
}}
{_dispatch(row)}"""


def _rowwise_wide(row: Rowwise) -> str:
    each = [o for o in row.operands if o.layout in ("each", "column")]
    results = [o for o in row.operands if o.use == "out" and o.layout in ("row", "single")]
    loads = " ".join(_load(o, "j") for o in each if o.use == "in")
    steps = _draws(row)
    for kind, variable, expression in row.reductions:
        # Sums are in double precision: a row may be long, and each lane adds many terms.
        type_, operator = ("T", "max") if kind == "max" else ("double", "+")
        steps.append(f"""\
        {type_} {variable}_all = {_START[kind]};
#pragma omp simd reduction({operator} : {variable}_all)
        for (int j = 0; j < n_columns; ++j) {{
            {loads}
            const T value = {expression};
            {_UPDATE[kind].format(f"{variable}_all")}
        }}
        const T {variable} = T({variable}_all);""")
    steps += [f"        T {result.name};" for result in results]
    steps += [f"        {row.result}"] if row.result else []
    steps += [f"        *{result.name}_ = {result.name};" for result in results]
    outs = [o for o in each if o.use == "out"]
    if outs:
        steps.append(f"""\
        if ({_wanted(outs)}) {{
#pragma omp simd
            for (int j = 0; j < n_columns; ++j) {{
                {loads}
                {" ".join(f"T {o.name};" for o in outs)}
                {row.body}
                {" ".join(f"{o.name}_[j] = {o.name};" for o in outs)}
            }}
        }}""")
    steps_text = "\n".join(steps)
    return f"""\
    const int n_rows = int(block.n_rows), n_columns = int(block.n_columns);
    for (index_t r = 0; r < n_rows; ++r) {{
{_constants(row)}{_pointers(row)}{steps_text}
    }}"""


def _rowwise_narrow(row: Rowwise) -> str:
    """Return the same loop with rows along the lanes of a vector: element (l, j) at [j][l]."""
    each = [o for o in row.operands if o.layout in ("each", "column")]
    per_row = [o for o in row.operands if o.layout in ("row", "single")]
    inputs = [o for o in each if o.use == "in"]
    outs = [o for o in each if o.use == "out"]
    declared = [f"{C_TYPES[o.type]} {o.name}_[NARROW][LANES];" for o in each]
    declared += [f"{C_TYPES[o.type]} {o.name}_[LANES];" for o in per_row]
    declared += [f"T {variable}_[LANES];" for _, variable, _ in row.reductions]
    declared += [f"{type_} {variable}_[LANES];" for type_, variable, _ in row.drawn]
    fetch = []
    for k, operand in enumerate(row.operands):
        if operand.use != "in":
            continue
        type_ = C_TYPES[operand.type]
        name = operand.name
        source = f"row_of<const {type_}>(block, {k}, first + (l < n ? l : 0))"
        fetch.append(f"const {type_}* {name}_row = {source};")
        if operand in each:
            value = f"has_{name} ? {name}_row[j] : {type_}(0)" if operand.optional else ""
            value = value or f"{name}_row[j]"
            fetch.append(f"for (int j = 0; j < n_columns; ++j) {name}_[j][l] = {value};")
        elif operand.optional:
            declared.append(f"const bool has_{name} = block.data[{k}] != nullptr;")
            fetch.append(f"{name}_[l] = has_{name} ? *{name}_row : {type_}(0);")
        else:
            fetch.append(f"{name}_[l] = *{name}_row;")
    seen = " ".join(
        f"const {C_TYPES[o.type]} {o.name} = {o.name}_[l];" for o in per_row if o.use == "in"
    )
    if row.drawn:
        drawn = " ".join(f"{variable}_[l] = {variable};" for _, variable, _ in row.drawn)
        fetch.append("\n".join([seen, *_draws(row, "first + l"), drawn]))
        seen += "".join(f" const {t} {name} = {name}_[l];" for t, name, _ in row.drawn)
    loads = " ".join(f"const {C_TYPES[o.type]} {o.name} = {o.name}_[j][l];" for o in inputs)
    steps = []
    for kind, variable, expression in row.reductions:
        steps.append(f"""\
        for (int l = 0; l < LANES; ++l) {variable}_[l] = {_START[kind]};
        for (int j = 0; j < n_columns; ++j) {{
#pragma omp simd
            for (int l = 0; l < LANES; ++l) {{
                {seen}
                {loads}
                T {variable} = {variable}_[l];
                const T value = {expression};
                {_UPDATE[kind].format(variable)}
                {variable}_[l] = {variable};
            }}
        }}""")
        seen += f" const T {variable} = {variable}_[l];"
    results = [o for o in per_row if o.use == "out"]
    if row.result:
        steps.append(f"""\
        for (int l = 0; l < n; ++l) {{
            {seen}
            {" ".join(f"T {o.name};" for o in results)}
            {row.result}
            {" ".join(f"{o.name}_[l] = {o.name};" for o in results)}
        }}""")
        seen += "".join(f" const T {o.name} = {o.name}_[l];" for o in results)
    store = []
    for k, operand in enumerate(row.operands):
        if operand.use != "out":
            continue
        target = f"row_of<{C_TYPES[operand.type]}>(block, {k}, first + l)"
        if operand.layout == "each":
            guard = f"if ({_wanted([operand])}) "
            store.append(
                f"{guard}for (int j = 0; j < n_columns; ++j) {target}[j] = {operand.name}_[j][l];"
            )
        else:
            store.append(f"*{target} = {operand.name}_[l];")
    if outs:
        steps.append(f"""\
        if ({_wanted(outs)}) {{
            for (int j = 0; j < n_columns; ++j) {{
#pragma omp simd
                for (int l = 0; l < LANES; ++l) {{
                    {seen}
                    {loads}
                    {" ".join(f"T {o.name};" for o in outs)}
                    {row.body}
                    {" ".join(f"{o.name}_[j][l] = {o.name};" for o in outs)}
                }}
            }}
        }}""")
    newline = "\n"
    return f"""\
    const int n_rows = int(block.n_rows), n_columns = int(block.n_columns);
{_constants(row)}    {newline.join(declared)}
    for (index_t first = 0; first < n_rows; first += LANES) {{
        const int n = int(smaller(LANES, n_rows - first));
        for (int l = 0; l < LANES; ++l) {{
            {newline.join(fetch)}
        }}
{newline.join(steps)}
        for (int l = 0; l < n; ++l) {{
            {newline.join(store)}
        }}
    }}"""


def _resampled(row: Resampled) -> str:
    """Loop image by image; single-channel images have a loop that vectorises along x."""
    fill = "fill" if any(constant.name == "fill" for constant in row.numbers) else "T(0)"
    steps = "\n".join(_draws(row))
    return f"""
template <class T, bool has_channels> void {row.name}_images(const XpnBlock& block) {{
{_constants(row)}    const index_t n_pixels = index_t(height) * width;
    const int n_channels = has_channels ? int(block.n_columns / n_pixels) : 1;
    for (index_t r = 0; r < block.n_rows; ++r) {{
{_pointers(row)}{steps}
        for (int channel = 0; channel < n_channels; ++channel) {{
            const T* image = X_ + channel;
            const auto pixel = [=](int y, int x) -> T {{
                const bool is_inside = (unsigned(y) < height) & (unsigned(x) < width);
                const int at = int((unsigned(y) * width + unsigned(x)) * unsigned(n_channels));
                const T value = image[at & -int(is_inside)];  // keeps the compiler from branching
                return is_inside ? value : {fill};
            }};
            for (int y = 0; y < int(height); ++y) {{
                T* to = out_ + y * int(width) * n_channels + channel;
#pragma omp simd
                for (int x = 0; x < int(width); ++x) {{
                    T out;
                    {row.body}
                    to[x * n_channels] = out;
                }}
            }}
        }}
    }}
}}

template <class T> void {row.name}_(const XpnBlock* block) {{
    const unsigned long long height = block->constants[{_place(row, "height")}].integer;
    const unsigned long long width = block->constants[{_place(row, "width")}].integer;
    const bool has_channels = (unsigned long long)block->n_columns != height * width;
    (has_channels ? {row.name}_images<T, true> : {row.name}_images<T, false>)(*block);
}}
"""


def _place(row: Row, name: str) -> int:
    """Return the position of a constant among the arguments of a call."""
    return next(k for k, constant in enumerate(_given(row)) if constant.name == name)


def _draws(row: Rowwise | Resampled, number: str = "r") -> list[str]:
    """Return the text that draws a row's random numbers."""
    if not row.drawn:
        return []
    return [
        f"""\
        unsigned int words[4];
        draw_for_row(words, block, {number}, seed, layer, (unsigned int)step, purpose);""",
        *(f"        const {type_} {name} = {value};" for type_, name, value in row.drawn),
    ]


_START = {"max": "-T(HUGE_VAL)", "sum": "T(0)"}
_UPDATE = {"max": "{0} = value > {0} ? value : {0};", "sum": "{0} += value;"}


def _wanted(outs: list[Operand]) -> str:
    return " && ".join(f"has_{o.name}" for o in outs if o.optional) or "true"


def _columns(row: Row, begin: str, end: str, after: str = "", word: str = "") -> str:
    """Return the loop over the columns of one row."""
    each = [o for o in row.operands if o.layout in ("each", "column") and o.name != _total(row)]
    loads = [_load(o, "i") for o in each if o.use in ("in", "inout")]
    results = [f"{C_TYPES[o.type]} {o.name};" for o in each if o.use == "out"]
    stores = [f"{o.name}_[i] = {o.name};" for o in each if o.use in ("inout", "out")]
    lines = [*loads, *results, word, row.body, *stores, after]
    inside = "\n".join(f"        {line}" for line in lines if line)
    return f"""#pragma omp simd
    for (index_t i = {begin}; i < {end}; ++i) {{
{inside}
    }}"""


def _in_chunks(row: Row) -> str:
    """Return the loop over the columns of a row that reads random words."""
    inside = _columns(row, "start", "stop", word="const unsigned int word = words[i - start];")
    return f"""    unsigned int buffer[WORDS + 8];
    const unsigned long long first = block.first + (unsigned long long)(r * block.n_columns);
    for (index_t start = begin; start < end; start += WORDS) {{
        const index_t stop = smaller(start + WORDS, end);
        const unsigned int* words = draw(buffer, first + (unsigned long long)start, stop - start,
                                         seed, layer, (unsigned int)step, purpose);
{inside}
    }}"""


def _load(operand: Operand, index: str) -> str:
    type_, name = C_TYPES[operand.type], operand.name
    const = "const " if operand.use == "in" else ""
    value = f"{name}_[{index}]"
    if operand.optional:
        value = f"has_{name} ? {value} : {type_}(0)"
    return f"{const}{type_} {name} = {value};"


def _total(row: Row) -> str:
    return row.total if isinstance(row, ColumnReduce) else ""


def _flags(row: Row) -> list[str]:
    """Return the template arguments that say which optional operands and constants are given.

    Operands with one value per row are tested once per row instead.
    """
    return [
        *(
            f"has_{o.name}"
            for o in row.operands
            if o.optional and (o.use != "in" or o.layout in ("each", "column"))
        ),
        *(f"has_{c.name}" for c in row.numbers if c.optional),
    ]


def _template_of(flags: list[str]) -> str:
    return f"template <{', '.join(['class T', *(f'bool {flag}' for flag in flags)])}>\n"


def _dispatch(row: Row) -> str:
    """Return the function that chooses the template arguments."""
    lines: list[str] = []

    def choose(flags: list[str], chosen: list[str], indent: str) -> None:
        if not flags:
            lines.append(f"{indent}{row.name}_all<{', '.join(['T', *chosen])}>(*block);")
            return
        name = flags[0].removeprefix("has_")
        operands = [o.name for o in row.operands]
        if name in operands:
            condition = f"block->data[{operands.index(name)}]"
        else:
            condition = f"block->constants[{_place(row, name)}].real > 0"
        lines.append(f"{indent}if ({condition}) {{")
        choose(flags[1:], [*chosen, "true"], indent + "    ")
        lines.append(f"{indent}}} else {{")
        choose(flags[1:], [*chosen, "false"], indent + "    ")
        lines.append(f"{indent}}}")

    choose(_flags(row), [], "    ")
    inside = "\n".join(lines)
    return f"template <class T> void {row.name}_(const XpnBlock* block) {{\n{inside}\n}}\n"


def _given(row: Row) -> list[Constant]:
    return [constant for constant in row.numbers if constant.formula is None]


def _constants(row: Row, skip: tuple[str, ...] = ()) -> str:
    """Return the declarations of the constants; formulas use the unrounded doubles."""
    lines = []
    given = _given(row)
    for k, constant in enumerate(given):
        if constant.name in skip or constant.type == "fraction":
            continue
        lines.append(f"const {C_TYPES[constant.type]} {constant.name} = {_as_given(k, constant)};")
    exact = " ".join(
        f"const double {constant.name} = block.constants[{k}].real; (void){constant.name};"
        for k, constant in enumerate(given)
        if constant.type in ("T", "fraction", "double")
    )
    for constant in row.numbers:
        if constant.formula is not None:
            type_ = C_TYPES[constant.type]
            lines.append(f"{type_} {constant.name};")
            lines.append(f"{{ {exact} {constant.name} = ({type_})({constant.formula}); }}")
    return "".join(f"    {line}\n" for line in lines)


def _as_given(k: int, constant: Constant) -> str:
    field = "real" if constant.type in ("T", "double") else "integer"
    return f"({C_TYPES[constant.type]})block.constants[{k}].{field}"


def _pointers(row: Row, skip: tuple[Operand, ...] = ()) -> str:
    lines = []
    for k, operand in enumerate(row.operands):
        if operand in skip or (operand.layout == "row" and isinstance(row, Elementwise)):
            continue  # the indices of a gather are already resolved
        type_, name = C_TYPES[operand.type], operand.name
        const = "const " if operand.use == "in" else ""
        pointer = f"row_of<{const}{type_}>(block, {k}, r)"
        if operand.layout in ("row", "single") and operand.use == "in":
            value = f"*{pointer}"
            if operand.optional:
                lines.append(f"const bool has_{name} = block.data[{k}] != nullptr;")
                value = f"has_{name} ? {value} : {type_}(0)"
            lines.append(f"const {type_} {name} = {value};")
        else:
            lines.append(f"{const}{type_}* {name}_ = {pointer};")
    return "".join(f"    {line}\n" for line in lines)
