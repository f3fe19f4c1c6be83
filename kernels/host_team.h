// A team of threads that runs a job in parts: matrix products and long loops.
//
// The caller works too, and takes every part that no helper has begun when it is free, so a helper
// without processor time delays nothing. Between jobs helpers poll for the next one for a while,
// because the jobs of a training step follow within microseconds, and then sleep. If the parts
// decide the bits of the result, a job is split by its shape and the number of processors of the
// machine, independent of the number of threads.
//
// The times of jobs decide whether threads take part at all (host_pace.h), unless the number of
// threads was set by hand.
//
// A job is copied into one block, which helpers copy at once. Reading a cache line that another
// processor has written takes up to a fifth of a microsecond. Adjacent lines arrive together, lines
// found through pointers one after the other.

#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <string.h>
#include <system_error>
#include <thread>
#include <type_traits>

#include "host_flush.h"
#include "host_pace.h"

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#define XPN_POSIX 1
#endif
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace {

// Tells the processor that this thread is waiting.
inline void pause_shortly() {
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ __volatile__("yield");
#endif
}

const int MAX_THREADS = 64;
const int MAX_PARTS = 64;

typedef void (*Work)(const void* job, int part, int n_parts);

// How a job is run.
struct Terms {
    int n_threads;    // that may take part
    bool is_forced;   // all of them take part, unless the job is short
    bool is_short;    // the caller keeps the job if helpers are far
    Pace::Kind kind;  // of work and shape
};

class Team {
  public:
    // Runs work(&job, k, n_parts) for k = 0, ..., n_parts - 1, in any order and any threads, on
    // copies of the job, with subnormal numbers flushed to zero.
    template <class Job>
    void share(Work work, const Job& job, int n_parts, const Terms& terms) {
        static_assert(std::is_trivially_copyable<Job>::value, "a job is copied byte by byte");
        static_assert(sizeof(Job) <= sizeof(Copy) && alignof(Job) <= alignof(Copy), "too large");
        const int n_threads = terms.n_threads < n_parts ? terms.n_threads : n_parts;
        if (n_threads < 2 || n_parts > MAX_PARTS || is_busy_.exchange(true)) {
            return run_alone(work, &job, n_parts);
        }
        share_out(work, &job, sizeof job, n_parts, n_threads, terms);
        is_busy_.store(false);
    }

    // Whether the current job is shared with a helper whose processor is far from the caller's, in
    // another socket or part of the chip, so that it sees written data late. This may change while
    // a virtual machine runs.
    bool is_apart() const { return is_apart_.load(std::memory_order_relaxed); }

    // Whether the first helper and the caller share one core: 1 if they do, 0 if not, -1 if that
    // was not measured.
    int is_one_core() const { return is_one_core_.load(std::memory_order_relaxed); }

    // For tests: treat helpers as far (1), as near (0), or as measured (-1).
    void assume(int far) {
        while (is_busy_.exchange(true)) std::this_thread::yield();
        assumed_ = far;
        is_far_.store(far > 0, std::memory_order_relaxed);
        next_measurement_ = Clock::time_point{};
        is_busy_.store(false);
    }

    // Measures, if possible, whether helpers are far and whether they share the caller's core.
    void measure_now() {
        while (is_busy_.exchange(true)) std::this_thread::yield();
        recruit(1);
        const Clock::time_point end = Clock::now() + std::chrono::milliseconds(500);
        for (int i = 1; n_helpers_ > 0 && i <= 200 && Clock::now() < end; ++i) {
            next_measurement_ = Clock::time_point{};
            const int found = found_, n_times = n_times_found_;
            measure();  // the helper may be waking up, or have no processor yet
            if (is_one_core() >= 0) break;
            const bool has_found = found_ != found || n_times_found_ != n_times;
            if (has_found || i % 10 == 0) std::this_thread::sleep_for(has_found ? SPACING : AGAIN);
        }
        is_busy_.store(false);
    }

    // Ends the helpers before a fork; until `resume` every caller works alone.
    void pause() {
        while (is_busy_.exchange(true)) std::this_thread::yield();
        publish(nullptr, nullptr, 0, 0, 0);
        for (; n_helpers_ > 0; --n_helpers_) helpers_[n_helpers_ - 1].join();
        most_helpers_ = MAX_THREADS;
    }

    void resume() { is_busy_.store(false); }

  private:
    typedef unsigned long long Count;
    typedef unsigned long long Word;
    typedef std::chrono::steady_clock Clock;
    static const int PAUSES = 2000;  // before yielding the processor
    static const int N_WORDS = 64;   // size of a job
    static const int N_CALLS = 32;   // round trips to measure how far a helper is
    static constexpr std::chrono::milliseconds INTERVAL{200};  // between measurements
    static constexpr std::chrono::milliseconds RARELY{1000};   // while the pace is not to share
    static constexpr std::chrono::milliseconds AGAIN{2};       // after one without an answer
    static constexpr std::chrono::nanoseconds FAR{300};        // a round trip
    // Two threads share a core if a computation beside another one takes longer by this factor.
    static constexpr double ONE_CORE = 1.4;
    // Consecutive measurements with the same result. A virtual machine's processors may run on one
    // core for a few milliseconds.
    static const int SURE = 3;
    static constexpr std::chrono::milliseconds SPACING{20};  // between such measurements
    static constexpr std::chrono::microseconds NO_ANSWER{100};
    static constexpr std::chrono::microseconds GRACE{3};       // for a helper to begin a part
    static constexpr std::chrono::microseconds PATIENCE{300};  // until a helper sleeps

    struct alignas(64) Copy {
        Word words[N_WORDS];
    };
    struct alignas(64) Slot {
        std::atomic<Count> claimed{0};  // the latest job whose part was begun,
        std::atomic<Count> done{0};     // and done
        bool was_late = false;          // whether its helper was late the last time
    };

    std::atomic<bool> is_busy_{false};
    std::atomic<bool> is_far_{false}, is_apart_{false};
    std::atomic<int> is_one_core_{-1};
    int found_ = -1, n_times_found_ = 0;  // by the last measurements
    Pace pace_;
    int assumed_ = -1;
    int n_helpers_ = 0, most_helpers_ = MAX_THREADS;
    std::thread helpers_[MAX_THREADS];
    Clock::time_point next_measurement_{};
    std::chrono::milliseconds again_{AGAIN};
    std::atomic<int> n_asleep_{0};
    std::mutex mutex_;
    std::condition_variable wake_;
    alignas(64) std::atomic<Count> generation_{0};  // of the job in the members below
    std::atomic<Work> work_{nullptr};
    std::atomic<int> n_parts_{0}, n_threads_{0}, n_words_{0};
    std::atomic<Word> words_[N_WORDS];
    alignas(64) std::atomic<int> calls_{0};
    Slot slots_[MAX_PARTS];

    static void run_part(Work work, const void* job, int part, int n_parts) {
        const Flushing flushing;
        work(job, part, n_parts);
    }

    static void run_alone(Work work, const void* job, int n_parts) {
        for (int k = 0; k < n_parts; ++k) run_part(work, job, k, n_parts);
    }

    // Runs the job, shared if the pace says so.
    void share_out(Work work, const void* job, size_t size, int n_parts, int n_threads,
                   const Terms& terms) {
        recruit(n_threads - 1);
        measure();
        const bool is_far = is_far_.load(std::memory_order_relaxed);
        const bool is_kept = terms.is_short && is_far;
        const bool is_shared = !is_kept && (terms.is_forced || pace_.shares());
        is_apart_.store(is_shared && is_far, std::memory_order_relaxed);
        double alone = 0;
        const Clock::time_point start = Clock::now();
        if (is_shared) {
            alone = n_parts * hand_out(work, job, size, n_parts, n_threads);
        } else {
            run_alone(work, job, n_parts);
        }
        if (!terms.is_forced && !is_kept) pace_.note(terms.kind, start, Clock::now(), alone);
    }

    // The first part of thread k of n_threads; thread 0 is the caller. A thread runs its own parts
    // before those of others.
    static int first_part(int k, int n_parts, int n_threads) { return k * n_parts / n_threads; }

    // Returns the caller's average seconds per part.
    double hand_out(Work work, const void* job, size_t size, int n_parts, int n_threads) {
        const Count generation = publish(work, job, size, n_parts, n_threads);
        const bool are_awake = n_asleep_.load(std::memory_order_relaxed) == 0;
        const int n_own = first_part(1, n_parts, n_threads);
        const Clock::time_point start = Clock::now();
        Clock::time_point end = start;
        for (int k = 0; k < n_parts; ++k) {
            if (k >= n_own && are_awake) give_time(slots_[k], generation);
            if (claim(slots_[k], generation)) {
                run_part(work, job, k, n_parts);
                slots_[k].was_late = k >= n_own;
                slots_[k].done.store(generation, std::memory_order_relaxed);
            } else {
                slots_[k].was_late = false;
            }
            if (k == n_own - 1) end = Clock::now();
        }
        for (int k = 0; k < n_parts; ++k) {
            for (int i = 0; slots_[k].done.load(std::memory_order_acquire) != generation; ++i) {
                i < PAUSES ? pause_shortly() : std::this_thread::yield();
            }
        }
        return std::chrono::duration<double>(end - start).count() / n_own;
    }

    std::chrono::milliseconds interval() const { return pace_.shares() ? INTERVAL : RARELY; }

    // Measures now and then how far the first helper is, and whether it shares the caller's core.
    void measure() {
        const Clock::time_point now = Clock::now();
        if (n_helpers_ == 0 || now < next_measurement_) return;
        next_measurement_ = now + again_;
        again_ = 2 * again_ < interval() ? 2 * again_ : interval();
        calls_.store(0, std::memory_order_relaxed);
        Team* const self = this;
        hand_out(call_and_answer, &self, sizeof self, 2, 2);
    }

    static void call_and_answer(const void* job, int part, int) {
        Team* const self = *static_cast<Team* const*>(job);
        part == 0 ? self->call() : self->answer();
    }

    void call() {
        Clock::time_point start{};
        for (int i = 0; i < N_CALLS; ++i) {
            if (i == N_CALLS / 2) start = Clock::now();  // first the helper gets ready
            if (!is_answered(2 * i + 1)) return;             // no result
        }
        const Clock::time_point now = Clock::now();
        const bool is_far = now - start > FAR * (N_CALLS / 2);
        is_far_.store(assumed_ < 0 ? is_far : assumed_ > 0, std::memory_order_relaxed);
        next_measurement_ = now + interval();
        again_ = AGAIN;
        const double alone = shortest_computation();
        if (!is_answered(2 * N_CALLS + 1)) return;  // from now on the helper computes too
        const double together = shortest_computation();
        calls_.store(-1, std::memory_order_release);
        const int found = together > ONE_CORE * alone;
        n_times_found_ = found == found_ ? n_times_found_ + 1 : 1;
        found_ = found;
        if (n_times_found_ < SURE) {
            next_measurement_ = now + SPACING;
            return;
        }
        if (is_one_core() == found) return;
        is_one_core_.store(found, std::memory_order_relaxed);
        pace_.begin(!found);
    }

    // Calls the helper and waits for its answer; returns false without one.
    bool is_answered(int number) {
        const Clock::time_point called = Clock::now();
        calls_.store(number, std::memory_order_release);
        for (int k = 1; calls_.load(std::memory_order_acquire) != number + 1; ++k) {
            pause_shortly();
            if (k % 64 == 0 && Clock::now() - called > NO_ANSWER) {
                calls_.store(-1, std::memory_order_release);
                return false;
            }
        }
        return true;
    }

    void answer() {
        for (int last = 0; last >= 0 && last < 2 * N_CALLS + 2;) {
            int found = calls_.load(std::memory_order_acquire);
            if (found < 0) return;
            if (found % 2 == 1 &&
                calls_.compare_exchange_strong(found, found + 1, std::memory_order_acq_rel)) {
                last = found + 1;
            }
            pause_shortly();
        }
        while (calls_.load(std::memory_order_relaxed) >= 0) compute();
    }

    // Keeps all multipliers of a core busy, so that two threads of one core take twice as long.
    static void compute() {
        const int n_chains = 16, length = 500;
        volatile double kept = 1.0001;  // keeps the compiler from precomputing or removing this
        const double factor = kept;
        double chain[n_chains];
        for (int k = 0; k < n_chains; ++k) chain[k] = factor + k * 1e-3;
        for (int i = 0; i < length; ++i) {
            for (int k = 0; k < n_chains; ++k) chain[k] *= factor;
        }
        for (int k = 1; k < n_chains; ++k) chain[0] += chain[k];
        kept = chain[0];
    }

    static double shortest_computation() {
        double shortest = 1;
        for (int i = 0; i < 8; ++i) {
            const Clock::time_point start = Clock::now();
            compute();
            const double took = std::chrono::duration<double>(Clock::now() - start).count();
            if (took < shortest) shortest = took;
        }
        return shortest;
    }

    void recruit(int n) {
        while (n_helpers_ < n && n_helpers_ < most_helpers_) {
            try {
#if defined(XPN_POSIX)  // signals belong to the program's own threads
                sigset_t all, before;
                sigfillset(&all);
                pthread_sigmask(SIG_SETMASK, &all, &before);
                struct Restore {
                    sigset_t* mask;
                    ~Restore() { pthread_sigmask(SIG_SETMASK, mask, nullptr); }
                } restore{&before};
#endif
                const int number = n_helpers_ + 1;
                const Count seen = generation_.load();
                helpers_[n_helpers_] = std::thread([this, number, seen] { help(number, seen); });
                ++n_helpers_;
            } catch (const std::system_error&) {  // no more threads: the caller runs all parts
                most_helpers_ = n_helpers_;
            }
        }
    }

    Count publish(Work work, const void* job, size_t size, int n_parts, int n_threads) {
        const Count generation = generation_.load(std::memory_order_relaxed) + 2;
        generation_.store(generation - 1, std::memory_order_relaxed);  // odd: being written
        std::atomic_thread_fence(std::memory_order_release);
        const int n_words = (int)((size + sizeof(Word) - 1) / sizeof(Word));
        for (int i = 0; i < n_words; ++i) {
            Word word = 0;
            const size_t at = i * sizeof(Word), left = size - at;
            memcpy(&word, static_cast<const char*>(job) + at, left < sizeof word ? left : sizeof word);
            words_[i].store(word, std::memory_order_relaxed);
        }
        work_.store(work, std::memory_order_relaxed);
        n_parts_.store(n_parts, std::memory_order_relaxed);
        n_threads_.store(n_threads, std::memory_order_relaxed);
        n_words_.store(n_words, std::memory_order_relaxed);
        generation_.store(generation, std::memory_order_seq_cst);
        if (n_asleep_.load(std::memory_order_seq_cst) > 0) {
            { std::lock_guard<std::mutex> lock(mutex_); }
            wake_.notify_all();
        }
        return generation;
    }

    // Waits shortly for a helper that was in time for the last job: its cache may have the
    // operands.
    static void give_time(const Slot& slot, Count generation) {
        if (slot.was_late) return;
        const Clock::time_point start = Clock::now();
        do {
            for (int i = 0; i < 8; ++i) {
                if (slot.claimed.load(std::memory_order_relaxed) == generation) return;
                pause_shortly();
            }
        } while (Clock::now() - start < GRACE);
    }

    static bool claim(Slot& slot, Count generation) {
        Count claimed = slot.claimed.load(std::memory_order_relaxed);
        return claimed < generation && slot.claimed.compare_exchange_strong(claimed, generation);
    }

    void help(int number, Count seen) {
        for (;;) {
            seen = next(seen);
            const Work work = work_.load(std::memory_order_relaxed);
            const int n_parts = n_parts_.load(std::memory_order_relaxed);
            const int n_threads = n_threads_.load(std::memory_order_relaxed);
            const int n_words = n_words_.load(std::memory_order_relaxed);
            Copy job;
            for (int i = 0; i < n_words; ++i) {
                job.words[i] = words_[i].load(std::memory_order_relaxed);
            }
            std::atomic_thread_fence(std::memory_order_acquire);
            // A claimed part keeps its job from ending, and the parts of a finished job are all
            // claimed. So it is enough that all these values belong to one job.
            if (generation_.load(std::memory_order_relaxed) != seen) continue;
            if (!work) return;
            if (number >= n_threads) continue;
            const int first = first_part(number, n_parts, n_threads);
            for (int i = 0; i < n_parts; ++i) {
                const int k = (first + i) % n_parts;
                if (!claim(slots_[k], seen)) continue;
                run_part(work, &job, k, n_parts);
                slots_[k].done.store(seen, std::memory_order_release);
            }
        }
    }

    // Waits for a job after `seen`.
    Count next(Count seen) {
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0;; ++i) {
            const Count found = generation_.load(std::memory_order_acquire);
            if (found != seen && found % 2 == 0) return found;
            pause_shortly();
            if (i % 64 != 63) continue;
            if (i >= PAUSES) std::this_thread::yield();
            if (std::chrono::steady_clock::now() - start < PATIENCE) continue;
            std::unique_lock<std::mutex> lock(mutex_);
            n_asleep_.fetch_add(1, std::memory_order_seq_cst);
            wake_.wait(lock, [this, seen] {
                return generation_.load(std::memory_order_seq_cst) / 2 != seen / 2;
            });
            n_asleep_.fetch_sub(1, std::memory_order_seq_cst);
        }
    }
};

// Never destroyed: its helpers run until the process ends.
Team& team() {
    alignas(Team) static unsigned char storage[sizeof(Team)];
    static Team* made = new (storage) Team;
    return *made;
}

}  // namespace
