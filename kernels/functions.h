// The scalar formulas of xpnet, one text for the CUDA compiler and for the host's.
//
// Each function computes one element in the type T, float or double. Its equation and source are in
// reference.py, at the operation of the same name except for a suffix (adam belongs to
// adam_update). CuPy gets this text as the preamble of every kernel; the host compiler includes it
// in the loops that host_source.py writes. There are no double literals (0.5 is a double, T(0.5) is
// not) and no branches, so that loops over these functions vectorise. Code for double only is in
// overloads for double.

#pragma once

#if defined(__CUDACC__)
#define XPN_INLINE __device__ __forceinline__
#elif defined(__GNUC__)
#define XPN_INLINE static inline __attribute__((always_inline))
#define XPN_C(function) __builtin_##function
#else
#include <math.h>
#include <string.h>
#define XPN_INLINE static inline
#define XPN_C(function) ::function
#endif

namespace xpn {

typedef unsigned int word_t;              // 32 bits on every platform that has CUDA or NumPy
typedef unsigned long long double_word_t; // 64 bits

// ---------------------------------------------------------------------------------------------
// exp, log1p and functions based on them. CUDA has its own. The host's are written out, because
// calls of a C library prevent vectorisation.

#if defined(__CUDACC__)

template <class T> XPN_INLINE T absolute(T x) { return ::fabs(x); }
template <class T> XPN_INLINE T root(T x) { return ::sqrt(x); }
template <class T> XPN_INLINE T exponential(T x) { return ::exp(x); }
template <class T> XPN_INLINE T exponential_minus_1(T x) { return ::expm1(x); }  // for x <= 0
template <class T> XPN_INLINE T log_1_plus(T x) { return ::log1p(x); }           // for -1/2 <= x <= 1
template <class T> XPN_INLINE T logarithm(T x) { return ::log(x); }
template <class T> XPN_INLINE T logarithm_of_normal(T x) { return ::log(x); }    // for x > 0
template <class T> XPN_INLINE T hyperbolic_tangent(T x) { return ::tanh(x); }

#else

XPN_INLINE float absolute(float x) { return XPN_C(fabsf)(x); }
XPN_INLINE double absolute(double x) { return XPN_C(fabs)(x); }
XPN_INLINE float root(float x) { return XPN_C(sqrtf)(x); }
XPN_INLINE double root(double x) { return XPN_C(sqrt)(x); }
XPN_INLINE float with_sign_of(float x, float sign) { return XPN_C(copysignf)(x, sign); }
XPN_INLINE double with_sign_of(double x, double sign) { return XPN_C(copysign)(x, sign); }
XPN_INLINE float logarithm(float x) { return XPN_C(logf)(x); }
XPN_INLINE double logarithm(double x) { return XPN_C(log)(x); }

// (exp(r) - 1 - r) / r^2 for |r| <= log(2) / 2, to 3e-8 of exp(r) - 1: a polynomial through the
// Chebyshev nodes of that interval.
XPN_INLINE float exponential_tail(float r) {
    return 0.5f + r * (0.16666576666119928f + r * (0.041666554212984150f
        + r * (0.0083632328836826182f + r * 0.0013926250831497612f)));
}

// The same to 5e-17.
XPN_INLINE double exponential_tail(double r) {
    return 0.50000000000000010314 + r * (0.1666666666666666746 + r * (0.041666666666623820532
        + r * (0.0083333333333300381973 + r * (0.0013888888917367080562
        + r * (0.00019841269863171556026 + r * (2.4801521057868205199e-5
        + r * (2.7557268276905696187e-6 + r * (2.7620201591031548792e-7
        + r * 2.5100472505694996003e-8))))))));
}

// (atanh(s) / s - 1) / w with w = s^2, for 0 <= w <= 1/9, to 2e-8 and 2e-16 of atanh(s) / s.
XPN_INLINE float artanh_tail(float w) {
    return 0.33333320168349620f + w * (0.20003780322455603f
        + w * (0.14118309902655241f + w * 0.13425749011418576f));
}
XPN_INLINE double artanh_tail(double w) {
    return 0.33333333333333484276 + w * (0.19999999999780064358 + w * (0.14285714338330497512
        + w * (0.11111106278964856303 + w * (0.09091130554209873149
        + w * (0.076866374381790011452 + w * (0.067511712358785501992
        + w * (0.051613346352495409549 + w * 0.084353503305486046991)))))));
}

// Constants of the type's binary format. Adding `rounder`, 1.5 times 2 to the number of mantissa
// bits, rounds to an integer and puts it in the low bits of the sum.
template <class T> struct Format;
template <> struct Format<float> {
    typedef word_t bits_t;
    static constexpr int mantissa = 23;
    static constexpr bits_t bias = 127;
    static constexpr float rounder = 12582912.0f;
    static constexpr float log2_of_e = 1.44269504088896341f;
    static constexpr float ln2_high = 0.693115234375f;  // 14 bits, so that n ln2_high is exact
    static constexpr float ln2_low = 3.1946184945309417e-5f;
    static constexpr float lowest = -105.0f;   // exp of it is 0
    static constexpr float highest = 90.0f;    // exp of it is infinite
    static constexpr float lowest_minus_1 = -25.0f;  // exp of it is negligible beside 1
};
template <> struct Format<double> {
    typedef double_word_t bits_t;
    static constexpr int mantissa = 52;
    static constexpr bits_t bias = 1023;
    static constexpr double rounder = 6755399441055744.0;
    static constexpr double log2_of_e = 1.44269504088896341;
    static constexpr double ln2_high = 0.6931471805592082;  // 40 bits
    static constexpr double ln2_low = 7.371002565167799e-13;
    static constexpr double lowest = -750.0;
    static constexpr double highest = 715.0;
    static constexpr double lowest_minus_1 = -50.0;
};

// 2^n for an integer n in the range of normal numbers.
template <class T> XPN_INLINE T power_of_2(T n) {
    typedef Format<T> F;
    const T shifted = n + F::rounder;
    typename F::bits_t bits;
    XPN_C(memcpy)(&bits, &shifted, sizeof bits);
    bits = (bits + F::bias) << F::mantissa;
    T power;
    XPN_C(memcpy)(&power, &bits, sizeof power);
    return power;
}

// log(x) for a normal number x > 0: with x = 2^n f and 1 <= f < 2, n log(2) + log(f). The exponent
// is converted to a number by the reverse of power_of_2.
template <class T> XPN_INLINE T log_1_plus(T x);
template <class T> XPN_INLINE T logarithm_of_normal(T x) {
    typedef Format<T> F;
    const T rounder = F::rounder;
    typename F::bits_t bits, exponent;
    XPN_C(memcpy)(&bits, &x, sizeof bits);
    XPN_C(memcpy)(&exponent, &rounder, sizeof exponent);
    exponent += bits >> F::mantissa;
    bits = (bits & ((typename F::bits_t(1) << F::mantissa) - 1)) | (F::bias << F::mantissa);
    T n, f;
    XPN_C(memcpy)(&n, &exponent, sizeof n);
    XPN_C(memcpy)(&f, &bits, sizeof f);
    n = (n - F::rounder) - T(F::bias);
    return n * F::ln2_high + (n * F::ln2_low + log_1_plus(f - T(1)));
}

// x = n log(2) + r with an integer n and |r| <= log(2) / 2; returns exp(r) - 1. Cody and Waite,
// "Software manual for the elementary functions", 1980, chapter 6: log(2) in two parts.
template <class T> XPN_INLINE T reduced_exponential_minus_1(T x, T& n) {
    typedef Format<T> F;
    n = (x * F::log2_of_e + F::rounder) - F::rounder;
    const T r = (x - n * F::ln2_high) - n * F::ln2_low;
    return r + r * r * exponential_tail(r);
}

// Two powers of 2, each with half of the exponent, cover subnormal results and infinity.
template <class T> XPN_INLINE T exponential(T x) {
    typedef Format<T> F;
    x = x < F::lowest ? F::lowest : x;  // this form keeps nan
    x = x > F::highest ? F::highest : x;
    T n;
    const T q = reduced_exponential_minus_1(x, n);
    const T half = (n * T(0.5) + F::rounder) - F::rounder;
    return (T(1) + q) * power_of_2(half) * power_of_2(n - half);
}

// exp(x) - 1 for x <= 0, exact to the last bits near 0: 2^n q + (2^n - 1).
template <class T> XPN_INLINE T exponential_minus_1(T x) {
    typedef Format<T> F;
    x = x < F::lowest_minus_1 ? F::lowest_minus_1 : x;
    T n;
    const T q = reduced_exponential_minus_1(x, n);
    const T power = power_of_2(n);
    return power * q + (power - T(1));
}

// log(1 + x) = 2 artanh(x / (2 + x)), for -1/2 <= x <= 1.
template <class T> XPN_INLINE T log_1_plus(T x) {
    const T s = x / (T(2) + x);
    const T w = s * s;
    return T(2) * s + T(2) * s * w * artanh_tail(w);
}

// With e = exp(-2|x|) - 1, tanh |x| = -e / (2 + e).
template <class T> XPN_INLINE T hyperbolic_tangent(T x) {
    const T e = exponential_minus_1(T(-2) * absolute(x));
    return with_sign_of(-e / (T(2) + e), x);
}

#endif

template <class T> XPN_INLINE T square(T x) { return x * x; }

// max(x, 0) and min(x, 0), which keep nan.
template <class T> XPN_INLINE T positive_part(T x) { return x < T(0) ? T(0) : x; }
template <class T> XPN_INLINE T negative_part(T x) { return x > T(0) ? T(0) : x; }

// ---------------------------------------------------------------------------------------------
// Activations and their gradients.

template <class T> XPN_INLINE T sigmoid(T Z) {
    const T e = exponential(-absolute(Z));
    return (Z < T(0) ? e : T(1)) / (T(1) + e);
}
template <class T> XPN_INLINE T sigmoid_grad(T dA, T A) { return dA * (A * (T(1) - A)); }

template <class T> XPN_INLINE T tanh_grad(T dA, T A) { return dA * ((T(1) - A) * (T(1) + A)); }

template <class T> XPN_INLINE T relu(T Z) { return positive_part(Z); }
template <class T> XPN_INLINE T relu_grad(T dA, T A) { return dA * (A > T(0) ? T(1) : T(0)); }

template <class T> XPN_INLINE T leaky_relu(T Z, T slope) {
    return positive_part(Z) + slope * negative_part(Z);
}
template <class T> XPN_INLINE T leaky_relu_grad(T dA, T A, T slope) {
    const T scaled = slope * dA;
    return A > T(0) ? dA : scaled;
}

template <class T> XPN_INLINE T elu(T Z, T alpha) {
    return positive_part(Z) + alpha * exponential_minus_1(negative_part(Z));
}
template <class T> XPN_INLINE T elu_grad(T dA, T A, T alpha) {
    const T scaled = dA * (A + alpha);
    return A > T(0) ? dA : scaled;
}

// 2 sqrt(2/pi) (Z + 0.044715 Z^3), and its derivative.
template <class T> XPN_INLINE T gelu_inner(T Z) {
    return T(1.5957691216057308) * (Z + T(0.044715) * Z * Z * Z);
}
template <class T> XPN_INLINE T gelu_inner_grad(T Z) {
    return T(1.5957691216057308) * (T(1) + T(0.134145) * Z * Z);
}
template <class T> XPN_INLINE T gelu_tanh(T Z) { return Z * sigmoid(gelu_inner(Z)); }
template <class T> XPN_INLINE T gelu_tanh_grad(T dA, T Z) {
    T C = Z < T(-20) ? T(-20) : Z;
    C = C > T(20) ? T(20) : C;
    const T V = gelu_inner(C);
    const T e = exponential(-absolute(V));  // both sigmoids come from this
    const T S = (V < T(0) ? e : T(1)) / (T(1) + e);
    const T one_minus_S = (V < T(0) ? T(1) : e) / (T(1) + e);
    return dA * (S + C * S * one_minus_S * gelu_inner_grad(C));
}

template <class T> XPN_INLINE T softplus(T Z) {
    return positive_part(Z) + log_1_plus(exponential(-absolute(Z)));
}
template <class T> XPN_INLINE T softplus_grad(T dA, T A) { return dA * -exponential_minus_1(-A); }

template <class T> XPN_INLINE T softsign(T Z) { return Z / (T(1) + absolute(Z)); }
template <class T> XPN_INLINE T softsign_grad(T dA, T Z) {
    const T s = T(1) + absolute(Z);
    return dA / (s * s);
}

// ---------------------------------------------------------------------------------------------
// Losses.

// Label smoothing: a binary label, and the target of a class, moved towards the mean.
template <class T> XPN_INLINE T smoothed(T Y, T smoothing) {
    return Y + smoothing * (T(0.5) - Y);
}
template <class T> XPN_INLINE T target(T Y, T smoothing, T n_classes) {
    return Y + smoothing * (T(1) / n_classes - Y);
}

// A term of a cross-entropy; the logarithm of a class with target 0 may be minus infinity.
template <class T> XPN_INLINE T part(T target, T logarithm) {
    return target > T(0) ? target * logarithm : T(0);
}

// This form keeps nan.
template <class T> XPN_INLINE T clipped(T P, T clip, T one_minus_clip) {
    P = P < clip ? clip : P;
    return P > one_minus_clip ? one_minus_clip : P;
}

// log P for a probability that is a normal number, accurate also near 1.
template <class T> XPN_INLINE T logarithm_of_probability(T P) {
    return P < T(0.5) ? logarithm_of_normal(P) : log_1_plus(P - T(1));
}

// softplus(Z) - Y Z, the binary cross-entropy of one output.
template <class T> XPN_INLINE T sigmoid_cross_entropy(T Z, T Y) {
    return (positive_part(Z) - Y * Z) + log_1_plus(exponential(-absolute(Z)));
}

// -Y log A - (1 - Y) log(1 - A) for the rounded and clipped A = sigmoid(Z). Near 1 the digits of
// 1 - A are lost, on purpose. The less likely class has a probability of at most 1/2, the other
// has one minus that.
template <class T>
XPN_INLINE T clipped_sigmoid_cross_entropy(T Z, T Y, T clip, T one_minus_clip) {
    const T A = clipped(sigmoid(Z), clip, one_minus_clip);
    const T B = T(1) - A;
    const bool is_unlikely = A < T(0.5);
    T small = is_unlikely ? A : B;
    small = small < clip ? clip : small;  // if 1 - clip rounds to 1
    const T large = is_unlikely ? B : A;
    const T of_small = is_unlikely ? Y : T(1) - Y;
    const T of_large = is_unlikely ? T(1) - Y : Y;
    return -of_small * logarithm_of_normal(small) - of_large * log_1_plus(large - T(1));
}

// exp(Z) - Y Z + Y log Y - Y. For a subnormal Y, Y log Y is negligible beside the rest.
template <class T> XPN_INLINE T poisson_deviance(T Z, T Y) {
    const T apart = Y * (logarithm_of_normal(Y) - Z);
    return (exponential(Z) - Y) + (Y > T(0) ? apart : T(0));
}

// exp(Z) - Y. Taking the positive part changes nothing, but keeps a compiler from fusing the last
// product of the exponential with the subtraction: an infinite one less an infinite Y is nan.
template <class T> XPN_INLINE T poisson_deviance_grad(T Z, T Y) {
    return positive_part(exponential(Z)) - Y;
}

// ---------------------------------------------------------------------------------------------
// Randomness.

// The full product of two words.
XPN_INLINE double_word_t product_of(word_t a, word_t b) { return double_word_t(a) * b; }

// Philox4x32-10: ten rounds turn the counter into four random words. W is a word, or a vector whose
// lanes have a word in their lower half and anything in the upper.
template <class W>
XPN_INLINE void philox4x32(W& c0, W& c1, W& c2, W& c3, word_t k0, word_t k1) {
    for (int round = 0; round < 10; ++round) {
        const auto product0 = product_of(c0, 0xD2511F53u);
        const auto product1 = product_of(c2, 0xCD9E8D57u);
        c0 = (W)(product1 >> 32) ^ c1 ^ k0;
        c1 = (W)product1;
        c2 = (W)(product0 >> 32) ^ c3 ^ k1;
        c3 = (W)product0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

template <class T> XPN_INLINE T dropout(T X, word_t word, word_t threshold, T scale) {
    return word < threshold ? T(0) : scale * X;
}

// A number from -1 to 1, in steps of 2^-31, rounded in float.
template <class T> XPN_INLINE T symmetric(word_t word) {
    return (T(int(word ^ 0x80000000u)) + T(0.5)) * T(4.656612873077393e-10);
}

// A whole number from 0 to n - 1: floor(word n / 2^32). The probabilities of the n numbers may
// differ by a relative n / 2^32.
XPN_INLINE int whole(word_t word, word_t n) { return int(product_of(word, n) >> 32); }

// The quantile of the standard normal distribution at p = 1/2 - q for 0 <= q <= 0.425, from r =
// 0.180625 - q^2, is -q times this; for smaller p it is minus the other, of sqrt(-log p) - 1.6.
// Wichura's PPND7, to 1e-7, and PPND16, to 1e-16.
XPN_INLINE float central_quantile(float r) {
    return (((59.109374720f * r + 159.29113202f) * r + 50.434271938f) * r + 3.3871327179f)
        / (((67.187563600f * r + 78.757757664f) * r + 17.895169469f) * r + 1.0f);
}
XPN_INLINE float outer_quantile(float r) {
    return (((0.17023821103f * r + 1.3067284816f) * r + 2.7568153900f) * r + 1.4234372777f)
        / ((0.12021132975f * r + 0.73700164250f) * r + 1.0f);
}
XPN_INLINE double central_quantile(double r) {
    return (((((((2509.0809287301226727 * r + 33430.575583588128105) * r
        + 67265.770927008700853) * r + 45921.953931549871457) * r + 13731.693765509461125) * r
        + 1971.5909503065514427) * r + 133.14166789178437745) * r + 3.3871328727963666080)
        / (((((((5226.4952788528545610 * r + 28729.085735721942674) * r
        + 39307.895800092710610) * r + 21213.794301586595867) * r + 5394.1960214247511077) * r
        + 687.18700749205790830) * r + 42.313330701600911252) * r + 1.0);
}
XPN_INLINE double outer_quantile(double r) {
    return (((((((7.74545014278341407640e-4 * r + 0.0227238449892691845833) * r
        + 0.241780725177450611770) * r + 1.27045825245236838258) * r
        + 3.64784832476320460504) * r + 5.76949722146069140550) * r
        + 4.63033784615654529590) * r + 1.42343711074968357734)
        / (((((((1.05075007164441684324e-9 * r + 5.47593808499534494600e-4) * r
        + 0.0151986665636164571966) * r + 0.148103976427480074590) * r
        + 0.689767334985100004550) * r + 1.67638483018380384940) * r
        + 2.05319162663775882187) * r + 1.0);
}

// The quantile at (word + 1/2) / 2^32. Both p and q are computed from whole numbers, so that
// neither loses digits. p is at least 2^-33, where sqrt(-log p) is 4.8, so the third part of
// Wichura's table, from 5 on, is not needed.
template <class T> XPN_INLINE T normal(word_t word) {
    const int is_upper = int(word >> 31), below = int(is_upper ? ~word : word);
    const T p = (T(below) + T(0.5)) * T(2.3283064365386963e-10);
    const T q = (T(0x7fffffff - below) + T(0.5)) * T(2.3283064365386963e-10);
    const T near = q * central_quantile(T(0.180625) - q * q);
    const T far = outer_quantile(root(-logarithm_of_normal(p)) - T(1.6));
    const T size = q > T(0.425) ? far : near;
    return is_upper ? size : -size;
}

// ---------------------------------------------------------------------------------------------
// Images.

// Taylor's series, nested: sin x = x (1 - x^2 / (2 3) (1 - x^2 / (4 5) (...))), for |x| <= pi. The
// remainder is below 1e-16.
template <class T> XPN_INLINE T sine(T x) {
    T nested = T(1);
    for (int k = 26; k > 0; k -= 2) nested = T(1) - x * x * (T(1) / T(k * (k + 1))) * nested;
    return x * nested;
}
template <class T> XPN_INLINE T cosine(T x) {
    T nested = T(1);
    for (int k = 27; k > 0; k -= 2) nested = T(1) - x * x * (T(1) / T(k * (k + 1))) * nested;
    return nested;
}

template <class T> XPN_INLINE int floor_of(T x) {
    const int nearest_to_0 = int(x);
    return nearest_to_0 - int(x < T(nearest_to_0));
}

template <class T>
XPN_INLINE T bilinear(T top_left, T top_right, T low_left, T low_right, T down, T right) {
    const T top = (T(1) - right) * top_left + right * top_right;
    const T low = (T(1) - right) * low_left + right * low_right;
    return (T(1) - down) * top + down * low;
}

// ---------------------------------------------------------------------------------------------
// Regularisation and normalisation.

template <class T> XPN_INLINE T penalty(T W, T l1, T l2) {
    return l1 * absolute(W) + T(0.5) * l2 * (W * W);
}
template <class T> XPN_INLINE T penalty_grad(T W, T l1, T l2) {
    const T sign = (W > T(0) ? T(1) : T(0)) - (W < T(0) ? T(1) : T(0));
    return l1 * sign + l2 * W;
}

template <class T> XPN_INLINE T clip(T X, T limit) {
    const T C = X > limit ? limit : X;
    return C < -limit ? -limit : C;
}
template <class T> XPN_INLINE T clip_factor(T square, T max_norm) {
    const T factor = max_norm / (root(square) + T(1e-6));
    return factor > T(1) ? T(1) : factor;
}
template <class T> XPN_INLINE T limit_norm(T W, T square, T max_norm) {
    const T norm = root(square);
    const T factor = max_norm / norm;  // 0 if the norm overflows: then keep W, so that it shows
    return norm > max_norm && factor > T(0) ? W * factor : W;
}

template <class T> XPN_INLINE T variance_correction(T squares) {
    const T of_one_sample = squares > T(0) ? T(0) : T(-1);
    return squares > T(0) && squares < T(1) ? T(1) / (T(1) - squares) : of_one_sample;
}

// A correction of 0 means that the batch has no information about the variance.
template <class T> XPN_INLINE T variance_step(T variance, T running, T correction, T momentum) {
    return correction > T(0) ? momentum * (correction * variance - running) : T(0);
}

// ---------------------------------------------------------------------------------------------
// Optimizers. The caller computes one_minus_beta in double precision.

template <class T> XPN_INLINE void gradient_descent(T& param, T grad, T learning_rate) {
    param -= learning_rate * grad;
}

// The share of a new value in a moving average.
template <class T> XPN_INLINE T averaged_share(T t, T beta) {
    const T kept = (T(1) + t) / (T(10) + t);
    return T(1) - (kept < beta ? kept : beta);
}

template <class T>
XPN_INLINE void momentum(T& param, T grad, T& velocity, T learning_rate, T beta, T weight) {
    velocity = beta * velocity + weight * grad;
    param -= learning_rate * velocity;
}

template <class T>
XPN_INLINE void nesterov(T& param, T grad, T& velocity, T learning_rate, T beta, T weight) {
    velocity = beta * velocity + weight * grad;
    param -= learning_rate * (beta * velocity + weight * grad);
}

template <class T>
XPN_INLINE void rmsprop(T& param, T grad, T& s, T learning_rate, T eps, T beta, T one_minus_beta) {
    s = beta * s + one_minus_beta * (grad * grad);
    param -= learning_rate * grad / (root(s) + eps);
}

template <class T>
XPN_INLINE void adam(T& param, T grad, T& m, T& v, T learning_rate, T bias1, T bias2, T eps,
                     T beta1, T one_minus_beta1, T beta2, T one_minus_beta2) {
    m = beta1 * m + one_minus_beta1 * grad;
    v = beta2 * v + one_minus_beta2 * (grad * grad);
    const T step = learning_rate / bias1;  // these two are constant in a row,
    const T unbias = T(1) / bias2;         // so the host moves them out of its loop
    param -= step * m / (root(v * unbias) + eps);
}

}  // namespace xpn
