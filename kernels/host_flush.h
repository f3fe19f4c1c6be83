// Flushes subnormal numbers to zero, as CuPy's kernels do in float32.
//
// Arithmetic on a number below the smallest normal one (1.2e-38 in float32) takes about 150 cycles
// on an Intel processor. Adam's first moment of a weight whose input is rarely active decays to
// such a number and stays there: 0.9 times the smallest subnormal rounds to itself. So fused
// operations and products read and write zeros instead.

#pragma once

#include <atomic>

#if defined(__SSE__) || defined(_M_X64)
#include <xmmintrin.h>
#define XPN_CONTROL unsigned int
#define XPN_FLUSH 0x8040u  // MXCSR: results (FTZ) and operands (DAZ)
#elif defined(__aarch64__) && defined(__GNUC__)
#define XPN_CONTROL unsigned long long
#define XPN_FLUSH (1ull << 24)  // FPCR.FZ: both
#endif

namespace {

// While an instance lives, its thread treats subnormal numbers as zero. Its destructor restores the
// floating-point control register. A new thread inherits the register from its creator, so create
// none while an instance lives.
class Flushing {
#if defined(XPN_CONTROL)
  public:
    Flushing() : before_(read()) {
        write(before_ | XPN_FLUSH);
        std::atomic_signal_fence(std::memory_order_seq_cst);  // for the compiler
    }
    ~Flushing() {
        std::atomic_signal_fence(std::memory_order_seq_cst);
        write(before_);
    }
    Flushing(const Flushing&) = delete;
    Flushing& operator=(const Flushing&) = delete;

  private:
    const XPN_CONTROL before_;

#if defined(__aarch64__)
    static XPN_CONTROL read() {
        XPN_CONTROL value;
        __asm__ __volatile__("mrs %0, fpcr" : "=r"(value));
        return value;
    }
    static void write(XPN_CONTROL value) { __asm__ __volatile__("msr fpcr, %0" : : "r"(value)); }
#else
    static XPN_CONTROL read() { return _mm_getcsr(); }
    static void write(XPN_CONTROL value) { _mm_setcsr(value); }
#endif
#else
  public:
    Flushing() {}
    ~Flushing() {}  // avoids warnings about unused variables
#endif
};

}  // namespace
