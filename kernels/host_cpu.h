// Asks the processor which instruction sets it has and which of their registers the system saves.
//
// The compiler's own answer, __builtin_cpu_supports, depends on its runtime library: in zig's it is
// always no, and a library built there would never use its best loops.

#pragma once

#if defined(__x86_64__) || defined(_M_X64)
#if defined(_MSC_VER)
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#define XPN_X86 1
#endif

namespace {

struct Processor {
    bool has_avx2 = false;    // and FMA
    bool has_avx512 = false;  // F, DQ, BW and VL, and FMA
};

#if defined(XPN_X86)

struct CpuId {
    unsigned int eax, ebx, ecx, edx;
};

// Zeros if the processor does not know the leaf.
inline CpuId cpu_id(unsigned int leaf) {
    CpuId found = {0, 0, 0, 0};
#if defined(_MSC_VER)
    int registers[4];
    __cpuid(registers, 0);
    if ((unsigned int)registers[0] < leaf) return found;
    __cpuidex(registers, (int)leaf, 0);
    found.eax = (unsigned int)registers[0];
    found.ebx = (unsigned int)registers[1];
    found.ecx = (unsigned int)registers[2];
    found.edx = (unsigned int)registers[3];
#else
    __get_cpuid_count(leaf, 0, &found.eax, &found.ebx, &found.ecx, &found.edx);
#endif
    return found;
}

// The registers that the system saves when it changes threads (XCR0). Only valid with OSXSAVE.
inline unsigned int saved_registers() {
#if defined(_MSC_VER)
    return (unsigned int)_xgetbv(0);
#else
    unsigned int low, high;
    __asm__ __volatile__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
#endif
}

inline bool has_all(unsigned int found, unsigned int wanted) { return (found & wanted) == wanted; }

// Intel's manual, volume 1, sections 14.3 and 15.2, and volume 2, CPUID.
//
// macOS saves masks and ZMM registers only from a thread's first use of them on, so that the answer
// might change, and up to 12.1 it lost masks in signal handlers. There the answer is AVX2.
inline Processor ask_processor() {
    const unsigned int FMA = 1u << 12, OSXSAVE = 1u << 27, AVX = 1u << 28;  // leaf 1, ECX
    const unsigned int AVX2 = 1u << 5, F = 1u << 16, DQ = 1u << 17;         // leaf 7, EBX
    const unsigned int BW = 1u << 30, VL = 1u << 31;
    const unsigned int XMM = 1u << 1, YMM = 1u << 2, MASKS_AND_ZMM = 7u << 5;  // XCR0
    Processor found;
    if (!has_all(cpu_id(1).ecx, FMA | OSXSAVE | AVX)) return found;
    const unsigned int saved = saved_registers(), features = cpu_id(7).ebx;
    found.has_avx2 = has_all(saved, XMM | YMM) && has_all(features, AVX2);
#if !defined(__APPLE__)
    found.has_avx512 = has_all(saved, XMM | YMM | MASKS_AND_ZMM) &&
                       has_all(features, AVX2 | F | DQ | BW | VL);
#endif
    return found;
}

#else

inline Processor ask_processor() { return Processor(); }

#endif

}  // namespace
