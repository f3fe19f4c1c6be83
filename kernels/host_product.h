// Matrix products by the functions of NumPy's own BLAS, divided among the threads of the team.
//
// A BLAS that runs a product in threads of its own shares it out as it sees fit, and its threads go
// on looking for work for milliseconds, on the processors that other loops want. Here every thread
// of the team calls it for a part of the result, and the BLAS keeps to the thread that calls it for
// so long. The same threads then run the loops over the result.

#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "host_team.h"

namespace {

typedef void (*AnyFunction)();

struct Blas {
    AnyFunction gemm[2];  // cblas_sgemm and cblas_dgemm; null where NumPy's BLAS is not known
    bool is_64_bit;       // whether its integers are
    int (*get_threads)();
    void (*set_threads)(int);
    int most;  // threads that this process may use
    std::mutex mutex;
    std::condition_variable changed;
    bool is_forking;
    int n_users, own;  // calls in progress, and the number of threads to return to
};

Blas& blas() {
    static Blas* found = new Blas();  // never destroyed: threads may outlive main
    return *found;
}

// How many threads may take part: as many as NumPy's BLAS would use, here and now.
int team_size() {
    Blas& b = blas();
    if (!b.get_threads) return 1;
    std::lock_guard<std::mutex> lock(b.mutex);
    const int n = b.n_users ? b.own : b.get_threads();
    const int most = b.most < MAX_THREADS ? b.most : MAX_THREADS;
    return n < 1 ? 1 : n < most ? n : most;
}

// While one of these lives the BLAS computes in the thread that calls it. The number is one for the
// whole process: who sets another one meanwhile is left with that.
struct SingleThreaded {
    SingleThreaded() {
        Blas& b = blas();
        std::unique_lock<std::mutex> lock(b.mutex);
        b.changed.wait(lock, [&b] { return !b.is_forking; });
        if (b.n_users++ == 0) {
            b.own = b.get_threads();
            if (b.own != 1) b.set_threads(1);
        }
    }
    ~SingleThreaded() {
        Blas& b = blas();
        std::lock_guard<std::mutex> lock(b.mutex);
        if (--b.n_users > 0) return;
        if (b.own != 1 && b.get_threads() == 1) b.set_threads(b.own);
        if (b.is_forking) b.changed.notify_all();
    }
};

#if defined(XPN_POSIX)
// A fork takes only the thread that asks for it along. It waits for products in progress: a child
// would find the BLAS's locks held, for good, by threads that it does not have.
void before_fork() {
    Blas& b = blas();
    std::unique_lock<std::mutex> lock(b.mutex);
    b.changed.wait(lock, [&b] { return !b.is_forking; });
    b.is_forking = true;
    b.changed.wait(lock, [&b] { return b.n_users == 0; });
    team().pause();
    lock.release();  // it stays locked
}

void after_fork() {
    Blas& b = blas();
    b.is_forking = false;
    b.mutex.unlock();
    b.changed.notify_all();
    team().resume();
}

void after_fork_in_child() {
    new (&blas().changed) std::condition_variable;  // nobody waits for it here
    after_fork();
}
#endif

void prepare_for_forks() {
#if defined(XPN_POSIX)
    static bool is_done = false;  // a module may be imported anew
    if (!is_done) pthread_atfork(before_fork, after_fork, after_fork_in_child);
    is_done = true;
#endif
}

// A matrix as the BLAS wants it: row after row, or transposed, column after column.
struct Matrix {
    char* data;
    bool is_transposed;
    ptrdiff_t leading;  // elements from one row, or column, to the next
};

// out = A B, of shapes (m, k) and (k, n).
struct Product {
    bool is_double;
    ptrdiff_t m, n, k;
    Matrix A, B, out;
};

// A block of it, computed into `out`, which is as large as the block.
template <class T, class Int>
void gemm(const Product& p, ptrdiff_t top, ptrdiff_t bottom, ptrdiff_t left, ptrdiff_t right,
          const Matrix& out) {
    typedef void (*Gemm)(int, int, int, Int, Int, Int, T, const T*, Int, const T*, Int, T, T*, Int);
    const int row_major = 101, as_it_is = 111, transposed = 112;  // the values of CBLAS's enums
    const T* A = reinterpret_cast<const T*>(p.A.data) + top * (p.A.is_transposed ? 1 : p.A.leading);
    const T* B = reinterpret_cast<const T*>(p.B.data) + left * (p.B.is_transposed ? p.B.leading : 1);
    reinterpret_cast<Gemm>(blas().gemm[p.is_double])(
        row_major, p.A.is_transposed ? transposed : as_it_is,
        p.B.is_transposed ? transposed : as_it_is, (Int)(bottom - top), (Int)(right - left),
        (Int)p.k, T(1), A, (Int)p.A.leading, B, (Int)p.B.leading, T(0),
        reinterpret_cast<T*>(out.data), (Int)out.leading);
}

template <class T>
void multiply_block(const Product& p, ptrdiff_t top, ptrdiff_t bottom, ptrdiff_t left,
                    ptrdiff_t right, const Matrix& out) {
    (blas().is_64_bit ? gemm<T, long long> : gemm<T, int>)(p, top, bottom, left, right, out);
}

const ptrdiff_t ROWS = 4;      // as many as a BLAS takes at once,
const ptrdiff_t COLUMNS = 16;  // and those that share a cache line, in float32, stay together

// What is divided: rows, or columns.
struct Division {
    bool by_rows;
    ptrdiff_t length, grain;

    Division() = default;
    Division(bool by_rows, ptrdiff_t n_rows, ptrdiff_t n_columns)
        : by_rows(by_rows), length(by_rows ? n_rows : n_columns), grain(by_rows ? ROWS : COLUMNS) {}

    // Where part k of n begins, and part k - 1 ends.
    ptrdiff_t bound(int k, int n) const {
        return k == n ? length : length / n * k / grain * grain;
    }

    // Into how many parts, of at least `least` out of `amount` each.
    int parts(double amount, double least) const {
        if (amount < 2 * least) return 1;
        const double worth = amount / least;
        const ptrdiff_t fit = length / grain;
        int n = team_size();
        if (n > worth) n = (int)worth;
        if (n > fit) n = (int)fit;
        return n < 1 ? 1 : n;
    }
};

// Whether a matrix that threads write to, or go through, is divided into rows: each part is then in
// one piece, and what a processor fetches ahead of need is not in the middle of another one's. Few
// rows are long ones; then it is columns.
bool divides_rows(ptrdiff_t n_rows, ptrdiff_t n_columns) {
    return n_rows >= n_columns || n_rows >= 32 * team_size();
}

// The same for a product. Each part rearranges, for the BLAS, a part of one matrix and all of the
// other one: it is the longer side that is divided, as far as that makes enough parts. Products of
// few terms spend their time on writing the result instead.
bool divides_rows(const Product& p) {
    const ptrdiff_t few = 64;
    if (p.k < few) return divides_rows(p.m, p.n);
    return p.m > p.n || (p.n < COLUMNS * team_size() && COLUMNS * p.m > ROWS * p.n);
}

// Memory that a thread keeps for a part of a result; none if that is large, or there is no more.
char* own_memory(size_t size) {
    const size_t most = 1 << 22, cache_line = 64;
    struct Memory {
        char* data = nullptr;
        size_t size = 0;
        ~Memory() { free(data); }
    };
    static thread_local Memory memory;
    if (size > most) return nullptr;
    if (memory.size < size) {
        free(memory.data);
        memory.data = static_cast<char*>(malloc(size + cache_line));
        memory.size = memory.data ? size : 0;
    }
    if (!memory.data) return nullptr;
    return memory.data + (cache_line - (uintptr_t)memory.data % cache_line) % cache_line;
}

struct SharedProduct {
    Product product;
    Division division;
    bool is_short;  // so that no thread that is far computes it
};

// Columns, while other threads may compute the ones beside them. A processor fetches what follows in
// memory ahead of need, and so takes from another one what that is writing. Where they are far, a
// thread writes to memory of its own first: the BLAS goes over its result several times.
template <class T>
void multiply_columns(const SharedProduct& shared, ptrdiff_t left, ptrdiff_t right) {
    const Product& p = shared.product;
    const ptrdiff_t n = right - left;
    const size_t row_size = (size_t)n * sizeof(T);
    const bool is_apart = !shared.is_short && team().is_far();
    char* own = is_apart ? own_memory((size_t)p.m * row_size) : nullptr;
    char* to = p.out.data + sizeof(T) * left;
    if (!own) return multiply_block<T>(p, 0, p.m, left, right, {to, false, p.out.leading});
    multiply_block<T>(p, 0, p.m, left, right, {own, false, n});
    for (ptrdiff_t i = 0; i < p.m; ++i) {
        memcpy(to + sizeof(T) * i * p.out.leading, own + i * row_size, row_size);
    }
}

template <class T> void multiply_part(const void* job, int part, int n_parts) {
    const SharedProduct& shared = *static_cast<const SharedProduct*>(job);
    const Product& p = shared.product;
    const ptrdiff_t begin = shared.division.bound(part, n_parts);
    const ptrdiff_t end = shared.division.bound(part + 1, n_parts);
    if (begin == end) return;
    if (shared.division.by_rows) {
        char* to = p.out.data + sizeof(T) * begin * p.out.leading;
        multiply_block<T>(p, begin, end, 0, p.n, {to, false, p.out.leading});
    } else {
        multiply_columns<T>(shared, begin, end);
    }
}

const double MULTIPLICATIONS = 1 << 18;      // a part of a product that is worth a thread,
const double FAR_MULTIPLICATIONS = 1 << 21;  // and one that is far

void multiply(const Product& p) {
    const Division division(divides_rows(p), p.m, p.n);
    const double amount = (double)p.m * (double)p.n * (double)p.k;
    const int n_parts = division.parts(amount, MULTIPLICATIONS);
    const bool is_short = n_parts == 1 || amount < n_parts * FAR_MULTIPLICATIONS;
    const SharedProduct shared = {p, division, is_short};
    const SingleThreaded guard;
    team().share(p.is_double ? multiply_part<double> : multiply_part<float>, shared, n_parts,
                 is_short);
}

}  // namespace
