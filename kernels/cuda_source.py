"""Writes the text of the CUDA kernels from the rows of the catalogue.

Every kernel is a ``cupy.ElementwiseKernel`` with the text of ``functions.h`` as its preamble,
because CuPy's cache of compiled kernels does not hash included files. Operands are references into
global memory and may be the same array, so an operation copies its inputs to local variables before
it writes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, combinations
from pathlib import Path
from types import ModuleType
from typing import Any

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

__all__ = [
    "ROWS_AT_ONCE",
    "TOTALS",
    "KernelSpec",
    "by_fours",
    "by_use",
    "columns",
    "elementwise",
    "gather",
    "gather_fours",
    "goes_by_fours",
    "has_decay",
    "is_plain",
    "kernels",
    "passed_constants",
    "resampled",
    "rowwise",
    "uses_words",
    "without_total",
    "words",
]

ROWS_AT_ONCE = 4  # rows that a thread of a column-reduce loads before it uses the first

# Access to four elements at once, and reductions across the threads of a warp.
_LANES = """
#define XPN_WARP 32

namespace xpn {

// Four contiguous elements, aligned so that memory is read and written at once.
template <class U> struct alignas(sizeof(U) < 4 ? 4 * sizeof(U) : 16) four { U at[4]; };
template <class U> XPN_INLINE four<U> four_at(const U* first) {
    return *reinterpret_cast<const four<U>*>(first);
}
template <class U> XPN_INLINE void set_four(U* first, const four<U>& values) {
    *reinterpret_cast<four<U>*>(first) = values;
}

template <class T> XPN_INLINE T minus_infinity() { return T(-1) / T(0); }

// nan loses every comparison, so the maximum of a row ignores it.
template <class T> XPN_INLINE T larger(T x, T y) { return y > x ? y : x; }

template <class T> XPN_INLINE T across_lanes_sum(T x) {
    #pragma unroll
    for (int distance = XPN_WARP / 2; distance > 0; distance /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}
template <class T> XPN_INLINE T across_lanes_max(T x) {
    #pragma unroll
    for (int distance = XPN_WARP / 2; distance > 0; distance /= 2)
        x = larger(x, __shfl_xor_sync(0xffffffffu, x, distance));
    return x;
}

}  // namespace xpn
"""

# Adds up the shares of each column.
TOTALS = Rowwise(
    name="totals",
    reads="T shares",
    writes="row T total",
    reductions=(("sum", "all", "shares"),),
    result="total = all;",
)


@dataclass(frozen=True)
class KernelSpec:
    """The arguments of a ``cupy.ElementwiseKernel``.

    Attributes
    ----------
    variant : str
        Name of the operation, and of the kernel among its kernels.
    name, in_params, out_params, operation, preamble : str
        As for ``cupy.ElementwiseKernel``.
    numbers : frozenset of str
        Parameters that are numbers; the others are arrays.
    repeated : frozenset of str
        Arrays that broadcast.
    is_double_exempt : bool
        Whether double precision is intended even in float32.
    """

    variant: str
    name: str
    in_params: str
    out_params: str
    operation: str
    preamble: str
    numbers: frozenset[str]
    repeated: frozenset[str]
    is_double_exempt: bool

    def make(self, cupy: ModuleType) -> Any:
        """Make the kernel, which compiles at its first call."""
        return cupy.ElementwiseKernel(
            self.in_params, self.out_params, self.operation, self.name, preamble=self.preamble
        )


def kernels() -> Iterator[KernelSpec]:
    """Yield every kernel that the operations can request."""
    for row in CATALOGUE:
        if isinstance(row, Rowwise):
            yield from (rowwise(row, absent) for absent in _optional_subsets(row.operands))
        elif isinstance(row, Resampled):
            yield resampled(row)
        elif isinstance(row, ColumnReduce):
            each = without_total(row)
            if each.writes:
                yield from _plain(each)
            yield from (columns(row, absent) for absent in _optional_subsets(each.operands))
        elif is_plain(row):
            yield from _plain(row)
        elif uses_words(row):
            yield words(row)
        else:
            yield gather(row)
            yield from (gather_fours(row, of_bytes=flag) for flag in (True, False))
    yield rowwise(TOTALS, frozenset())


@functools.cache
def _preamble() -> str:
    return Path(__file__).with_name("functions.h").read_text(encoding="utf-8") + _LANES


def is_plain(row: Row) -> bool:
    """Return whether each element of a row needs only itself, unlike in dropout and gather."""
    return not (isinstance(row, Elementwise) and (row.words or row.gathered))


def uses_words(row: Row) -> bool:
    """Return whether a row reads random words."""
    return isinstance(row, Elementwise) and row.words


def _optional_subsets(operands: Iterable[Operand]) -> Iterator[frozenset[str]]:
    """Return every set of optional operands that a call may leave out."""
    names = [operand.name for operand in operands if operand.optional]
    choices = chain.from_iterable(combinations(names, n) for n in range(len(names) + 1))
    return map(frozenset, choices)


def without_total(row: ColumnReduce) -> Elementwise:
    """Return the elementwise part of a column-reduce."""
    writes = [operand for operand in row.operands if operand.use == "out"]
    return Elementwise(
        name=row.name,
        reads=row.reads,
        writes=", ".join(
            f"{operand.layout} {operand.type} {operand.name}"
            for operand in writes
            if operand.name != row.total
        ),
        constants=row.constants,
        body=row.body,
    )


def _spec(
    row: Row,
    operation: str,
    *,
    suffix: str = "",
    raw: Iterable[str] | None = None,
    left_out: frozenset[str] = frozenset(),
    zero: frozenset[str] = frozenset(),
    repeated: frozenset[str] = frozenset(),
    sizes: str = "",
    shares: str = "",
) -> KernelSpec:
    """Assemble a kernel.

    The operation indexes the operands in ``raw``, by default all. Operands in ``left_out`` are not
    parameters, and those in ``zero`` are passed as the number 0. ``sizes`` and ``shares`` declare
    inputs and an output in addition to those of the row.
    """

    def declared(operand: Operand) -> str:
        is_raw = raw is None or operand.name in raw
        return f"{'raw ' * is_raw}{operand.type} {operand.name}_"

    inputs, outputs = by_use(row)
    constants = [f"{item.type} {item.name}" for item in passed_constants(row)]
    constants += [text.strip() for text in sizes.split(",") if text]
    in_params = [declared(item) for item in inputs if item.name not in left_out] + constants
    out_params = [declared(item) for item in outputs if item.name not in left_out]
    absent = "".join(f" without {name}" for name in sorted(left_out | zero))
    return KernelSpec(
        variant=f"{row.name}{suffix.replace('_', ' ')}{absent}",
        name=f"xpn_{row.name}{suffix}",
        in_params=", ".join(in_params),
        out_params=", ".join(out_params + [text for text in (shares,) if text]),
        operation=_indented(operation),
        preamble=_preamble(),
        numbers=frozenset(text.split()[1] for text in constants) | {f"{name}_" for name in zero},
        repeated=frozenset(f"{name}_" for name in repeated - zero),
        is_double_exempt=row.is_double_exempt,
    )


def _indented(text: str) -> str:
    """Indent by braces, for readers of the source in a profiler."""
    lines = []
    depth = 0
    for line in filter(None, map(str.strip, text.splitlines())):
        depth -= line.startswith("}")
        lines.append("    " * depth + line)
        depth += line.endswith("{")
    return "\n".join(lines)


def passed_constants(row: Row) -> list[Constant]:
    """Return the constants that are parameters of the kernel."""
    return [item for item in row.numbers if item.type != "fraction"]


def _read(operand: Operand, where: str, absent: frozenset[str] = frozenset()) -> str:
    value = "T(0)" if operand.name in absent else f"{operand.name}_{where}"
    return f"const auto {operand.name} = {value};"


def _written(operands: Iterable[Operand], body: str, where: str, absent: frozenset[str]) -> str:
    """Return the text that computes a body and stores its results."""
    lines = [f"{operand.type} {operand.name};" for operand in operands if operand.use == "out"]
    lines.append(body)
    lines += [
        f"{operand.name}_{where} = {operand.name};"
        for operand in operands
        if operand.name not in absent
    ]
    return "\n".join(lines)


def by_use(row: Row) -> tuple[list[Operand], list[Operand]]:
    """Return the inputs, and the operands that are written."""
    inputs = [operand for operand in row.operands if operand.use == "in"]
    return inputs, [operand for operand in row.operands if operand.use != "in"]


def has_decay(row: Row) -> bool:
    """Return whether a row has columns that decay."""
    return any(item.name == "n_decay" for item in row.numbers)


def elementwise(row: Row, absent: frozenset[str]) -> KernelSpec:
    """Return the kernel of a row; it gets the number 0 for an absent operand."""
    inputs, outputs = by_use(row)
    lines = [_read(operand, "") for operand in inputs]
    lines += [f"auto {item.name} = {item.name}_;" for item in outputs if item.use == "inout"]
    if has_decay(row):
        # The networks of a stack are contiguous. The arithmetic is 32-bit, which is several times
        # as fast; the sizes of the arrays are checked.
        lines.append("const bool decays = (long long)(unsigned(i) % n_columns) < n_decay;")
    lines.append(_written(outputs, row.body, "", frozenset()))
    return _spec(
        row,
        "\n".join(lines),
        raw=(),
        zero=absent,
        sizes="uint32 n_columns" if has_decay(row) else "",
        repeated=frozenset(operand.name for operand in inputs if operand.layout != "each"),
    )


def by_fours(row: Row, absent: frozenset[str]) -> KernelSpec:
    """Return the kernel of a row with contiguous elements.

    A thread has four elements, which it loads and stores at once unless some are missing. With one
    element per thread, starting the blocks would take longer than their work. If an operand has a
    value for each row or column, the number of columns is a multiple of four, or there is one row.
    """
    inputs, outputs = by_use(row)
    given = [item for item in inputs if item.name not in absent]
    read = [item for item in given if item.layout == "each"]
    read += [item for item in outputs if item.use == "inout"]
    of_column = [item for item in given if item.layout == "column"]
    single = [item for item in given if item.layout == "single"]
    zero = [item for item in inputs if item.name in absent]
    each = "#pragma unroll\nfor (unsigned lane = 0; lane < 4; ++lane) {"
    each_there_is = f"{each}\nif (first + lane < n_elements) {{"
    decays = "const bool decays = (long long)((first + lane) % n_columns) < n_decay;"
    operation = f"""
const unsigned first = 4 * unsigned(i);
const bool is_whole = n_elements - first >= 4;
const unsigned of_row = first / n_columns;
const unsigned of_network = n_rows ? of_row / n_rows * n_columns : 0;
const unsigned of_column = of_network + (first - of_row * n_columns);
{_joined(_read(item, "[of_row]") for item in single)}
{_joined(_read(item, "", absent) for item in zero)}
{_joined(f"auto {x.name}_four = xpn::four_at(&{x.name}_[of_column]);" for x in of_column)}
{_joined(f"xpn::four<T> {x.name}_four = {{}};" for x in dict.fromkeys([*read, *outputs]))}
if (is_whole) {{
{_joined(f"{item.name}_four = xpn::four_at(&{item.name}_[first]);" for item in read)}
}} else {{
{each_there_is}
{_joined(f"{item.name}_four.at[lane] = {item.name}_[first + lane];" for item in read)}
}}
}}
}}
{each}
{_joined(f"auto {x.name} = {x.name}_four.at[lane];" for x in (*of_column, *read))}
{decays if has_decay(row) else ""}
{_written(outputs, row.body, "four.at[lane]", frozenset())}
}}
if (is_whole) {{
{_joined(f"xpn::set_four(&{item.name}_[first], {item.name}_four);" for item in outputs)}
}} else {{
{each_there_is}
{_joined(f"{item.name}_[first + lane] = {item.name}_four.at[lane];" for item in outputs)}
}}
}}
}}"""
    sizes = "uint32 n_elements, uint32 n_columns, uint32 n_rows"
    return _spec(row, operation, suffix="_fours", left_out=absent, sizes=sizes)


def goes_by_fours(row: Row) -> bool:
    """Return whether a row's elements can be processed in fours: all have type T."""
    return all(operand.type == "T" for operand in row.operands if operand.layout == "each")


def _plain(row: Row) -> Iterator[KernelSpec]:
    """Yield the kernels of a row whose elements need only themselves."""
    yield from (elementwise(row, absent) for absent in _optional_subsets(row.operands))
    if goes_by_fours(row):
        yield from (by_fours(row, absent) for absent in _optional_subsets(row.operands))


def words(row: Row) -> KernelSpec:
    """Return the kernel of a row that reads random words: four elements per thread."""
    inputs, outputs = by_use(row)
    once = [_read(operand, "[0]") for operand in inputs if operand.layout == "single"]
    each = [_read(operand, "[element]") for operand in inputs if operand.layout == "each"]
    operation = f"""
{_joined(once)}
xpn::word_t words[4] = {{xpn::word_t(i), layer, xpn::word_t(step), purpose}};
xpn::philox4x32(words[0], words[1], words[2], words[3],
                xpn::word_t(seed), xpn::word_t(seed >> 32));
#pragma unroll
for (int lane = 0; lane < 4; ++lane) {{
const ptrdiff_t element = 4 * i + lane;
if (element < n_elements) {{
const xpn::word_t word = words[lane];
{_joined(each)}
{_written(outputs, row.body, "[element]", frozenset())}
}}
}}"""
    return _spec(row, operation, sizes="int64 n_elements")


def gather(row: Row) -> KernelSpec:
    """Return the kernel of a gather from bytes."""
    operation = f"""
const unsigned row = unsigned(i) / row_size;
const unsigned column = unsigned(i) - row * row_size;
const auto X = X_[ptrdiff_t(indices_[row]) * row_size + column];
{_written(by_use(row)[1], row.body, "", frozenset())}"""
    return _spec(row, operation, raw={"X", "indices"}, sizes="uint32 row_size")


def gather_fours(row: Row, *, of_bytes: bool) -> KernelSpec:
    """Return the kernel of a gather of four elements at once, from bytes or of floats unchanged.

    The size of a row must be a multiple of four.
    """
    if not of_bytes:
        reads = "T X, row int64 indices"
        row = Elementwise(name=row.name, reads=reads, writes="T out", body="out = X;")
    operation = f"""
const unsigned first = 4 * unsigned(i);
const unsigned row = first / row_size;
const ptrdiff_t start = ptrdiff_t(indices_[row]) * row_size + (first - row * row_size);
const auto X_four = xpn::four_at(&X_[start]);
xpn::four<T> out_four;
#pragma unroll
for (int lane = 0; lane < 4; ++lane) {{
const auto X = X_four.at[lane];
T out;
{row.body}
out_four.at[lane] = out;
}}
xpn::set_four(&out_[first], out_four);"""
    suffix = f"_fours_of_{'bytes' if of_bytes else 'numbers'}"
    return _spec(row, operation, suffix=suffix, sizes="uint32 row_size")


def _draws(row: Rowwise | Resampled) -> list[str]:
    """Return the text that draws a row's random numbers; every thread draws them itself."""
    if not row.drawn:
        return []
    return [
        "xpn::word_t words[4] = {xpn::word_t(row), layer, xpn::word_t(step), purpose};",
        "xpn::philox4x32(words[0], words[1], words[2], words[3],",
        "xpn::word_t(seed), xpn::word_t(seed >> 32));",
        *(f"const {type_} {name} = {value};" for type_, name, value in row.drawn),
    ]


def resampled(row: Resampled) -> KernelSpec:
    """Return the kernel of a row of images: a thread for each element."""
    fill = "fill" if any(item.name == "fill" for item in row.numbers) else "T(0)"
    singles = [item for item in row.operands if item.layout == "single"]
    operation = f"""
const unsigned row = unsigned(i) / n_columns;
const unsigned within = unsigned(i) - row * n_columns;
const unsigned n_channels = n_columns / height / width;
const unsigned channel = within % n_channels;
const int y = int(within / n_channels / width);
const int x = int(within / n_channels % width);
const ptrdiff_t start = ptrdiff_t(row) * n_columns;
{_joined(_read(operand, "[0]") for operand in singles)}
{_joined(_draws(row))}
const auto pixel = [&](int y, int x) -> T {{
const bool is_inside = unsigned(y) < height && unsigned(x) < width;
return is_inside ? X_[start + (ptrdiff_t(y) * width + x) * n_channels + channel] : {fill};
}};
{_written(by_use(row)[1], row.body, "[i]", frozenset())}"""
    return _spec(row, operation, sizes="uint32 n_columns")


def rowwise(row: Rowwise, absent: frozenset[str]) -> KernelSpec:
    """Return the kernel of a rowwise row, without its absent operands."""
    inputs, outputs = by_use(row)
    places = {"each": "[start + j]", "column": "[of_network + j]", "row": "[row]", "single": "[0]"}
    lines = [
        f"const bool has_{operand.name} = {str(operand.name not in absent).lower()};"
        for operand in inputs
        if operand.optional
    ]
    lines += [f"const bool has_{c.name} = {c.name} > T(0);" for c in row.numbers if c.optional]
    if any(operand.layout == "column" for operand in inputs):
        lines.append("const ptrdiff_t of_network = row / n_rows * n_columns;")
    read = {operand: _read(operand, places[operand.layout], absent) for operand in inputs}
    lines += [text for operand, text in read.items() if operand.layout in ("row", "single")]
    lines += _draws(row)
    each = _joined(text for operand, text in read.items() if operand.layout in ("each", "column"))
    loop = "for (int j = lane; j < n_columns; j += XPN_WARP) {\n" + each
    for kind, name, expression in row.reductions:
        start = "xpn::minus_infinity<T>()" if kind == "max" else "T(0)"
        change = (
            f"{name} = xpn::larger({name}, T({expression}));"
            if kind == "max"
            else f"{name} += {expression};"
        )
        lines += [f"T {name} = {start};", loop, change, "}"]
        lines.append(f"{name} = xpn::across_lanes_{kind}({name});")
    of_row = [operand for operand in outputs if operand.layout != "each"]
    of_element = [operand for operand in outputs if operand.layout == "each"]
    if row.result:
        lines += [f"{operand.type} {operand.name};" for operand in of_row]
        lines += [row.result, "if (lane == 0) {"]
        lines += [f"{operand.name}_[row] = {operand.name};" for operand in of_row]
        lines.append("}")
    if any(operand.name not in absent for operand in of_element):
        lines += [loop, _written(of_element, row.body, "[start + j]", absent), "}"]
    # A host with one lane per row starts more threads than it needs.
    operation = f"""
const int lane = int(i % XPN_WARP);
const ptrdiff_t row = i / XPN_WARP;
if (row < n_all_rows) {{
const ptrdiff_t start = row * n_columns;
{_joined(lines)}
}}"""
    sizes = "int64 n_all_rows, int32 n_rows, int32 n_columns"
    return _spec(row, operation, left_out=absent, sizes=sizes)


def columns(row: ColumnReduce, absent: frozenset[str]) -> KernelSpec:
    """Return the kernel of a column-reduce, whose threads go down their share of a column."""
    inputs, outputs = by_use(without_total(row))
    each = [operand for operand in inputs if operand.layout in ("each", "single")]
    of_column = [operand for operand in inputs if operand.layout == "column"]
    places = {"each": "at", "single": "ptrdiff_t(network) * n_rows + row"}
    # Threads take rows alternately, so that with few columns the threads of a warp read contiguous
    # memory. Without shares, a warp has a column and adds up the sums of its lanes. The loads of
    # several rows come before the first use, because the compiler may not move them before a store.
    operation = f"""
const bool is_by_warp = n_shares == 0;
const unsigned n_turns = is_by_warp ? XPN_WARP : n_shares;
unsigned column = unsigned(i / XPN_WARP), share = unsigned(i % XPN_WARP);
if (!is_by_warp) {{
const unsigned n_shared = unsigned(i) / n_columns;
const unsigned of_network = n_shared / n_shares;
share = n_shared - of_network * n_shares;
column = unsigned(i) - (n_shared - of_network) * n_columns;
}}
if (column < n_all_columns) {{
const unsigned network = column / n_columns;
const unsigned j = column - network * n_columns;
{_joined(_read(operand, "[column]", absent) for operand in of_column)}
T total_ = T(0);
for (unsigned first = share; first < n_rows; first += {ROWS_AT_ONCE} * n_turns) {{
{_joined(f"{item.type} {item.name}_loaded[{ROWS_AT_ONCE}];" for item in each)}
#pragma unroll
for (int turn = 0; turn < {ROWS_AT_ONCE}; ++turn) {{
const unsigned row = first + turn * n_turns;
const ptrdiff_t at = (ptrdiff_t(network) * n_rows + row) * n_columns + j;
if (row < n_rows) {{
{_joined(f"{item.name}_loaded[turn] = {item.name}_[{places[item.layout]}];" for item in each)}
}}
}}
#pragma unroll
for (int turn = 0; turn < {ROWS_AT_ONCE}; ++turn) {{
const unsigned row = first + turn * n_turns;
const ptrdiff_t at = (ptrdiff_t(network) * n_rows + row) * n_columns + j;
if (row < n_rows) {{
{_joined(f"const auto {item.name} = {item.name}_loaded[turn];" for item in each)}
{_written(outputs, row.body, "[at]", frozenset())}
total_ += {row.term};
}}
}}
}}
if (is_by_warp) {{
total_ = xpn::across_lanes_sum(total_);
if (share == 0) {{
shares_[column] = total_;
}}
}} else {{
shares_[ptrdiff_t(column) * n_shares + share] = total_;
}}
}}"""
    return _spec(
        without_total(row),
        operation,
        suffix="_columns",
        left_out=absent,
        sizes="uint32 n_rows, uint32 n_columns, uint32 n_all_columns, uint32 n_shares",
        shares="raw T shares_",
    )


def _joined(lines: Iterable[str]) -> str:
    return "\n".join(lines)
