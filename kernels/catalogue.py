"""The table of fused operations; each row becomes a CUDA kernel and a host loop.

A row names an operation of :class:`~xpnet.kernels.reference.ReferenceOps`, its operands and its
body, which calls the formula in ``functions.h``. Operands are declared as in CuPy's elementwise
kernels, ``"T Z, T b"``. ``T`` is float or double, the same for all operands. The names are those of
the operation's parameters, and local variables in the body. A declaration may begin with the
operand's layout:

========== =================================================================================
``each``   (the default) broadcasts against the others; outputs have the result's shape
``column`` one value for each column, (..., n_columns), like the row vector ``b``
``row``    one value for each row, (..., n_rows)
``single`` one value for each row, (..., 1)
========== =================================================================================

A ``?`` after a name marks an operand that may be None: an input is then 0, an output is not
written. Expressions of a rowwise row can test ``has_<name>``: whether an optional input is given,
or whether an optional constant is positive. The answer is known before a loop begins.

There are four kinds of rows. :class:`Elementwise`: each element on its own. :class:`ColumnReduce`:
the same, and the sum of a result over each column. :class:`Rowwise`: reductions along each row,
then an expression for each of its elements. :class:`Resampled`: rows are images, and an element can
depend on any pixels of its image.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

__all__ = [
    "CATALOGUE",
    "ColumnReduce",
    "Constant",
    "Elementwise",
    "Operand",
    "Resampled",
    "Row",
    "Rowwise",
]

_DECLARATION = re.compile(r"(?:(each|column|row|single) )?(\w+) (\w+)(\?)?")


@dataclass(frozen=True)
class Operand:
    """An array that a kernel reads (``"in"``), writes (``"out"``) or both (``"inout"``)."""

    name: str
    type: str
    layout: str
    use: str
    optional: bool


@dataclass(frozen=True)
class Constant:
    """A number that is an argument of an operation, or that ``formula`` derives from those.

    The formula is valid in both Python and C, and computed in double precision from the unrounded
    arguments. The type ``fraction`` is for a number in [0, 1) that only formulas read. An
    ``optional`` constant may be 0, for which a rowwise row computes something else.
    """

    name: str
    type: str
    formula: str | None = None
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """Base class of the four kinds of rows.

    Attributes
    ----------
    name : str
        Name of the operation.
    reads, writes, updates : str
        Declarations of the inputs, outputs and operands changed in place.
    constants : str
        Declarations of numbers, ``"T slope"``; ``"T c = 1.0 - beta"`` derives one.
    body : str
        Computation for each element. With a constant ``n_decay``, ``decays`` is true in the first
        ``n_decay`` columns.
    """

    name: str
    reads: str = ""
    writes: str = ""
    updates: str = ""
    constants: str = ""
    body: str = ""

    @cached_property
    def operands(self) -> tuple[Operand, ...]:
        """Inputs, operands changed in place, then outputs: the order of parameters."""
        groups = (("in", self.reads), ("inout", self.updates), ("out", self.writes))
        return tuple(operand for use, text in groups for operand in _operands(text, use))

    @cached_property
    def numbers(self) -> tuple[Constant, ...]:
        """The constants, derived ones after those they come from."""
        return tuple(_constant(text) for text in _split(self.constants))

    @property
    def is_double_exempt(self) -> bool:
        """Whether a constant or operand asks for double precision, even in float32."""
        types = {operand.type for operand in self.operands}
        return "double" in types | {constant.type for constant in self.numbers}


@dataclass(frozen=True, kw_only=True)
class Elementwise(Row):
    """Computes each element on its own.

    Attributes
    ----------
    words : bool
        Whether the body reads ``word``, the element's 32 random bits, from Philox under ``seed``,
        ``layer``, ``step`` and ``purpose``.
    gathered : str
        The operand whose rows are chosen by the operand ``indices``.
    """

    words: bool = False
    gathered: str = ""


@dataclass(frozen=True, kw_only=True)
class ColumnReduce(Row):
    """Computes each element on its own, and a sum over each column.

    Attributes
    ----------
    total : str
        Output for the sum, of layout ``column``.
    term : str
        Expression to sum.
    """

    total: str
    term: str


@dataclass(frozen=True, kw_only=True)
class Rowwise(Row):
    """Reductions along each row, an expression for the row, and one for each of its elements.

    Expressions can use the column ``j``, an int, and the numbers ``n_rows`` and ``n_columns``. An
    operand of layout ``column`` must be an input; an input of layout ``single`` has one element.

    Attributes
    ----------
    reductions : tuple of (kind, variable, expression)
        Reductions in order; each may use the variables before it. Kinds are ``"max"`` and
        ``"sum"``.
    result : str
        Computed once for each row; the body may read it.
    drawn : tuple of (type, variable, expression)
        Numbers drawn for each row; see :class:`Resampled`.
    """

    reductions: tuple[tuple[str, str, str], ...]
    result: str = ""
    drawn: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Resampled(Row):
    """Rows are images, and each element can depend on any pixels of its image.

    A row has ``height`` times ``width`` pixels (both are constants) in C order, with as many
    channels as the length of the row gives. The operand ``X`` is read and ``out`` is written; they
    must not be the same array. The body can use its element's position ``y`` and ``x``, ints, and
    ``pixel(y, x)``, the value at any position of the same image and channel. Outside of the image
    the value is the constant ``fill``, or 0 without such a constant.

    Attributes
    ----------
    drawn : tuple of (type, variable, expression)
        Computed once for each row, from ``words[0]`` to ``words[3]`` and the constants. Row i,
        counted over all networks of a stack, has the words 4 i to 4 i + 3 of Philox under ``seed``,
        ``layer``, ``step`` and ``purpose``. Types are ``"T"`` and ``"int"``.
    """

    drawn: tuple[tuple[str, str, str], ...]


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _operands(text: str, use: str) -> list[Operand]:
    found = []
    for part in _split(text):
        match = _DECLARATION.fullmatch(part)
        if match is None:
            raise ValueError(f"an operand must be '[layout] type name[?]', got {part!r}")
        layout, type_, name, optional = match.groups()
        found.append(Operand(name, type_, layout or "each", use, optional is not None))
    return found


def _constant(text: str) -> Constant:
    declared, _, formula = text.partition("=")
    type_, name = declared.split()
    return Constant(name.removesuffix("?"), type_, formula.strip() or None, name.endswith("?"))


def _activation(
    name: str, forward: str, gradient: str, kept: str = "A", constants: str = ""
) -> tuple[Row, Row]:
    """Return the rows of an activation with a bias, and of their gradients.

    A gradient stated in the input reads the same ``Z`` and ``b`` as the activation.
    """
    reads = "T dA, T A" if kept == "A" else "T dA, T Z, column T b?"
    return (
        Elementwise(
            name=name,
            reads="T Z, column T b?",
            writes="T out",
            constants=constants,
            body=f"out = {forward};",
        ),
        ColumnReduce(
            name=f"{name}_grad",
            reads=reads,
            writes="T out, column T db?",
            constants=constants,
            body=f"out = {gradient};",
            total="db",
            term="out",
        ),
    )


# Constants that identify a random draw, the last ones of rows that draw.
_DRAW = "uint64 seed, uint32 layer, uint32 purpose"

# A decoupled decay comes before the rest of an update.
_DECAY = "param -= decays ? learning_rate * weight_decay * param : T(0); "


def _share_of(gradient: str) -> str:
    """Return the text of a gradient times the sample's share in the mean."""
    return f"const T d = {gradient}; dlogits = has_weights ? weights * d : d / T(n_rows);"


# The target of softmax for a class: 1 or 0, smoothed.
_TARGET = "xpn::target(j == int(labels) ? T(1) : T(0), smoothing, T(n_columns))"


CATALOGUE: tuple[Row, ...] = (
    # Sums, the bias and the gather of a minibatch.
    Elementwise(name="add_bias", reads="T Z, column T b", writes="T out", body="out = Z + b;"),
    ColumnReduce(name="bias_grad", reads="T dZ", writes="column T out", total="out", term="dZ"),
    Rowwise(
        name="mean",
        reads="T values, T weights?",
        writes="single T out",
        reductions=(("sum", "total", "has_weights ? weights * values : values"),),
        result="out = has_weights ? total : total / T(n_columns);",
    ),
    Rowwise(
        name="add_sum",
        reads="T values, single T addend",
        writes="single T out",
        reductions=(("sum", "total", "values"),),
        result="out = addend + total;",
    ),
    Rowwise(
        name="inverse_sum",
        reads="T weights",
        writes="single T out",
        reductions=(("sum", "total", "weights"),),
        result="out = total > T(0) ? T(1) / total : T(0);",
    ),
    Rowwise(
        name="shares",
        reads="T weights",
        writes="T out",
        reductions=(("sum", "total", "weights"),),
        body="out = total > T(0) ? weights / total : T(0);",
    ),
    Rowwise(
        name="variance_correction",
        reads="T weights",
        writes="single T out",
        reductions=(("sum", "squares", "weights * weights"),),
        result="out = xpn::variance_correction(squares);",
    ),
    ColumnReduce(name="square_sum", reads="T X", writes="column T out", total="out", term="X * X"),
    Elementwise(
        name="scale", reads="T X, single T factor", writes="T out", body="out = factor * X;"
    ),
    Elementwise(
        name="gather",
        reads="uint8 X, row int64 indices",
        writes="T out",
        constants="T divide_by",
        body="out = T(X) / divide_by;",
        gathered="X",
    ),
    # Activations.
    *_activation("sigmoid", "xpn::sigmoid(Z + b)", "xpn::sigmoid_grad(dA, A)"),
    *_activation("tanh", "xpn::hyperbolic_tangent(Z + b)", "xpn::tanh_grad(dA, A)"),
    *_activation("relu", "xpn::relu(Z + b)", "xpn::relu_grad(dA, A)"),
    *_activation(
        "leaky_relu",
        "xpn::leaky_relu(Z + b, slope)",
        "xpn::leaky_relu_grad(dA, A, slope)",
        constants="T slope",
    ),
    *_activation(
        "elu", "xpn::elu(Z + b, alpha)", "xpn::elu_grad(dA, A, alpha)", constants="T alpha"
    ),
    *_activation("gelu_tanh", "xpn::gelu_tanh(Z + b)", "xpn::gelu_tanh_grad(dA, Z + b)", kept="Z"),
    *_activation("softplus", "xpn::softplus(Z + b)", "xpn::softplus_grad(dA, A)"),
    *_activation("softsign", "xpn::softsign(Z + b)", "xpn::softsign_grad(dA, Z + b)", kept="Z"),
    Elementwise(
        name="dropout",
        reads="T X, single int64 step",
        writes="T out",
        constants="fraction rate, uint64 seed, uint32 layer, uint32 purpose, "
        "uint32 threshold = rate * 4294967296.0, T scale = 1.0 / (1.0 - rate)",
        body="out = xpn::dropout(X, word, threshold, scale);",
        words=True,
    ),
    # Augmentation.
    Resampled(
        name="flip",
        reads="T X, single int64 step",
        writes="T out",
        constants=f"uint32 height, uint32 width, T probability, {_DRAW}, "
        "uint64 threshold = probability * 4294967296.0",
        drawn=(("int", "is_flipped", "words[0] < threshold"),),
        body="out = pixel(y, is_flipped ? int(width) - 1 - x : x);",
    ),
    Resampled(
        name="shift",
        reads="T X, single int64 step",
        writes="T out",
        constants=f"uint32 height, uint32 width, uint32 pixels, T fill, {_DRAW}",
        drawn=(
            ("int", "down", "xpn::whole(words[0], 2 * pixels + 1) - int(pixels)"),
            ("int", "right", "xpn::whole(words[1], 2 * pixels + 1) - int(pixels)"),
        ),
        body="out = pixel(y - down, x - right);",
    ),
    Resampled(
        name="rotate",
        reads="T X, single int64 step",
        writes="T out",
        constants=f"uint32 height, uint32 width, T degrees, T fill, {_DRAW}, "
        "T radians = degrees * 0.017453292519943295",
        drawn=(
            ("T", "sine", "xpn::sine(radians * xpn::symmetric<T>(words[0]))"),
            ("T", "cosine", "xpn::cosine(radians * xpn::symmetric<T>(words[0]))"),
            ("T", "middle", "T(0.5) * (T(height) - T(1))"),
            ("T", "center", "T(0.5) * (T(width) - T(1))"),
        ),
        body="""
            const T v = middle + (cosine * (T(y) - middle) + sine * (T(x) - center));
            const T u = center + (cosine * (T(x) - center) - sine * (T(y) - middle));
            const int top = xpn::floor_of(v), left = xpn::floor_of(u);
            out = xpn::bilinear(pixel(top, left), pixel(top, left + 1), pixel(top + 1, left),
                                pixel(top + 1, left + 1), v - T(top), u - T(left));""",
    ),
    Rowwise(
        name="brightness_contrast",
        reads="T X, single int64 step",
        writes="T out",
        constants=f"T brightness, T contrast, {_DRAW}",
        drawn=(
            ("T", "offset", "brightness * xpn::symmetric<T>(words[0])"),
            ("T", "factor", "contrast * xpn::symmetric<T>(words[1])"),
        ),
        reductions=(("sum", "total", "X"),),
        body="out = X + (offset + factor * (X - total / T(n_columns)));",
    ),
    Elementwise(
        name="gaussian_noise",
        reads="T X, single int64 step",
        writes="T out",
        constants=f"T std, {_DRAW}",
        body="out = X + std * xpn::normal<T>(word);",
        words=True,
    ),
    # Regularisation of the gradient and of the parameters.
    ColumnReduce(
        name="penalty_grad",
        reads="T grad, T param, single T factor",
        writes="T out, column T penalty?",
        constants="T l1, T l2",
        body="out = grad + factor * xpn::penalty_grad(param, l1, l2);",
        total="penalty",
        term="factor * xpn::penalty(param, l1, l2)",
    ),
    Elementwise(
        name="clip",
        reads="T X",
        writes="T out",
        constants="T limit",
        body="out = xpn::clip(X, limit);",
    ),
    Rowwise(
        name="clip_factor",
        reads="T squares",
        writes="single T out",
        constants="T max_norm",
        reductions=(("sum", "total", "squares"),),
        result="out = xpn::clip_factor(total, max_norm);",
    ),
    Elementwise(
        name="limit_norms",
        reads="T W, column T squares",
        writes="T out",
        constants="T max_norm",
        body="out = xpn::limit_norm(W, squares, max_norm);",
    ),
    # Normalisation. A weight is a sample's share in the mean; the weights sum to 1.
    ColumnReduce(
        name="column_mean",
        reads="T X, single T weights",
        writes="column T out",
        total="out",
        term="weights * X",
    ),
    ColumnReduce(
        name="column_variance",
        reads="T X, single T weights, column T mean",
        writes="column T out",
        total="out",
        term="weights * ((X - mean) * (X - mean))",
    ),
    Elementwise(
        name="batch_norm_tick",
        reads="T mean, T variance, single T correction",
        updates="T running_mean, T running_variance",
        writes="T inverse_std",
        constants="T momentum, T eps, int64 unbiased",
        body="""
            const T factor = unbiased ? correction : correction < T(0) ? T(-1) : T(1);
            running_mean += correction < T(0) ? T(0) : momentum * (mean - running_mean);
            running_variance += xpn::variance_step(variance, running_variance, factor, momentum);
            inverse_std = T(1) / xpn::root(variance + eps);""",
    ),
    Elementwise(
        name="inverse_std",
        reads="T variance",
        writes="T out",
        constants="T eps",
        body="out = T(1) / xpn::root(variance + eps);",
    ),
    Elementwise(
        name="batch_norm",
        reads="T X, column T mean, column T inverse_std, column T gamma, column T beta",
        writes="T normalized, T out",
        body="""
            normalized = (X - mean) * inverse_std;
            out = gamma * normalized + beta;""",
    ),
    ColumnReduce(
        name="scale_grad",
        reads="T dA, T normalized",
        writes="column T out",
        total="out",
        term="dA * normalized",
    ),
    Elementwise(
        name="batch_norm_grad",
        reads="T dA, T normalized, single T weights, column T inverse_std, column T gamma, "
        "column T dgamma, column T dbeta",
        writes="T out",
        body="out = gamma * inverse_std * (dA - weights * (dbeta + normalized * dgamma));",
    ),
    Rowwise(
        name="layer_norm",
        reads="T X, column T gamma, column T beta",
        writes="row T inverse_std, T normalized, T out",
        constants="T eps",
        reductions=(
            ("sum", "total", "X"),
            ("sum", "squares", "xpn::square(X - total / T(n_columns))"),
        ),
        result="inverse_std = T(1) / xpn::root(squares / T(n_columns) + eps);",
        body="""
            normalized = (X - total / T(n_columns)) * inverse_std;
            out = gamma * normalized + beta;""",
    ),
    Rowwise(
        name="layer_norm_grad",
        reads="T dA, T normalized, row T inverse_std, column T gamma",
        writes="T out",
        reductions=(
            ("sum", "total", "gamma * dA"),
            ("sum", "along", "gamma * dA * normalized"),
        ),
        body="out = inverse_std * ((gamma * dA - total / T(n_columns)) "
        "- normalized * (along / T(n_columns)));",
    ),
    # Losses on logits.
    Rowwise(
        name="softmax",
        reads="T logits",
        writes="T out",
        reductions=(
            ("max", "top", "logits"),
            ("sum", "total", "xpn::exponential(logits - top)"),
        ),
        body="out = xpn::exponential(logits - top) / total;",
    ),
    Rowwise(
        name="sigmoid_cross_entropy",
        reads="T logits, T labels, row T weights?",
        writes="row T losses, T dlogits?",
        constants="T smoothing, T clip?, T one_minus_clip = 1.0 - clip",
        reductions=(
            (
                "sum",
                "total",
                "has_clip ? xpn::clipped_sigmoid_cross_entropy("
                "logits, xpn::smoothed(labels, smoothing), clip, one_minus_clip) : "
                "xpn::sigmoid_cross_entropy(logits, xpn::smoothed(labels, smoothing))",
            ),
        ),
        result="losses = total;",
        body=_share_of("xpn::sigmoid(logits) - xpn::smoothed(labels, smoothing)"),
    ),
    Rowwise(
        name="softmax_cross_entropy",
        reads="T logits, row int64 labels, row T weights?",
        writes="row T losses, T dlogits?",
        constants="T smoothing, T clip?, T one_minus_clip = 1.0 - clip",
        reductions=(
            ("max", "top", "logits"),
            ("sum", "total", "xpn::exponential(logits - top)"),
            # With clipping and smoothing, all classes count: sum their logarithms.
            (
                "sum",
                "of_label",
                f"has_clip && smoothing > T(0) ? {_TARGET} * xpn::logarithm_of_probability("
                "xpn::clipped(xpn::exponential(logits - top) / total, clip, one_minus_clip)) : "
                f"xpn::part({_TARGET}, logits - top)",
            ),
        ),
        result="""
            const T of_clipped = smoothing > T(0) ? of_label : xpn::logarithm_of_probability(
                xpn::clipped(xpn::exponential(of_label) / total, clip, one_minus_clip));
            losses = has_clip ? -of_clipped : xpn::logarithm(total) - of_label;""",
        body=_share_of(f"xpn::exponential(logits - top) / total - {_TARGET}"),
    ),
    Rowwise(
        name="squared_error",
        reads="T predictions, T targets, row T weights?",
        writes="row T losses, T dlogits?",
        reductions=(("sum", "total", "xpn::square(predictions - targets)"),),
        constants="int64 halved",
        result="losses = (halved ? T(0.5) : T(1)) * total / T(n_columns);",
        body=_share_of(
            "halved ? predictions - targets : T(2) * (predictions - targets) / T(n_columns)"
        ),
    ),
    Rowwise(
        name="poisson_deviance",
        reads="T logits, T counts, row T weights?",
        writes="row T losses, T dlogits?",
        reductions=(("sum", "total", "xpn::poisson_deviance(logits, counts)"),),
        result="losses = total;",
        body=_share_of("xpn::poisson_deviance_grad(logits, counts)"),
    ),
    # Optimizers.
    Elementwise(
        name="gradient_descent_update",
        reads="T grad, single T learning_rate, single T weight_decay?",
        updates="T param",
        constants="int64 n_decay",
        body=_DECAY + "xpn::gradient_descent(param, grad, learning_rate);",
    ),
    Elementwise(
        name="momentum_update",
        reads="T grad, single T learning_rate, single T weight_decay?",
        updates="T param, T velocity",
        constants="T beta, T weight, int64 n_decay",
        body=_DECAY + "xpn::momentum(param, grad, velocity, learning_rate, beta, weight);",
    ),
    Elementwise(
        name="nesterov_update",
        reads="T grad, single T learning_rate, single T weight_decay?",
        updates="T param, T velocity",
        constants="T beta, T weight, int64 n_decay",
        body=_DECAY + "xpn::nesterov(param, grad, velocity, learning_rate, beta, weight);",
    ),
    Elementwise(
        name="rmsprop_update",
        reads="T grad, single T learning_rate, single T weight_decay?",
        updates="T param, T s",
        constants="T beta, T eps, int64 n_decay, T one_minus_beta = 1.0 - beta",
        body=_DECAY + "xpn::rmsprop(param, grad, s, learning_rate, eps, beta, one_minus_beta);",
    ),
    Elementwise(
        name="adam_tick",
        updates="int64 step",
        writes="T bias1, T bias2, T eps",
        constants="double beta1, double beta2, double eps_const, int64 epsilon_hat",
        body="""
            step += 1;
            const double exact2 = 1.0 - pow(beta2, double(step));
            bias1 = T(1.0 - pow(beta1, double(step)));
            bias2 = T(exact2);
            eps = T(epsilon_hat ? eps_const / sqrt(exact2) : eps_const);""",
    ),
    Elementwise(
        name="adam_update",
        reads="T grad, single T learning_rate, single T bias1, single T bias2, single T eps, "
        "single T weight_decay?",
        updates="T param, T m, T v",
        constants="T beta1, T beta2, int64 n_decay, T one_minus_beta1 = 1.0 - beta1, "
        "T one_minus_beta2 = 1.0 - beta2",
        body=_DECAY
        + """
            xpn::adam(param, grad, m, v, learning_rate, bias1, bias2, eps,
                      beta1, one_minus_beta1, beta2, one_minus_beta2);""",
    ),
    Elementwise(
        name="average_update",
        reads="T values, single int64 step",
        updates="T average",
        constants="T beta",
        body="average += xpn::averaged_share(T(step), beta) * (values - average);",
    ),
)
