// A team of threads that works off a job in parts: matrix products and long loops.
//
// The caller works along, and takes every part that no helper has begun by the time it is free: a
// helper that the system gives no time delays nothing. Between jobs helpers look out for the next
// one for a while, since those of a training step follow each other within microseconds, and then
// sleep. Jobs are split in the same way however many threads turn up, so that results do not depend
// on it.
//
// A job is copied into one block, which helpers copy out at once. To read what another processor has
// written takes up to a fifth of a microsecond for a cache line; lines side by side arrive together,
// and those that are found through pointers one after the other.

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

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <signal.h>
#define XPN_POSIX 1
#endif
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)
#include <immintrin.h>
#define XPN_PAUSE() _mm_pause()
#elif defined(__aarch64__) && defined(__GNUC__)
#define XPN_PAUSE() __asm__ __volatile__("yield")
#else
#define XPN_PAUSE() ((void)0)
#endif

namespace {

const int MAX_THREADS = 64;

typedef void (*Work)(const void* job, int part, int n_parts);

class Team {
  public:
    // Runs work(&job, k, n_parts) for k = 0, ..., n_parts - 1, in whatever order and threads, on
    // copies of the job. One that is short stays with the caller where helpers are far.
    template <class Job> void share(Work work, const Job& job, int n_parts, bool is_short) {
        static_assert(std::is_trivially_copyable<Job>::value, "a job is copied byte by byte");
        static_assert(sizeof(Job) <= sizeof(Copy) && alignof(Job) <= alignof(Copy), "too large");
        if (n_parts < 2 || n_parts > MAX_THREADS || is_busy_.exchange(true)) {
            for (int k = 0; k < n_parts; ++k) work(&job, k, n_parts);
            return;
        }
        recruit(n_parts - 1);
        measure();
        if (is_short && is_far_.load(std::memory_order_relaxed)) {
            for (int k = 0; k < n_parts; ++k) work(&job, k, n_parts);
        } else {
            hand_out(work, &job, sizeof(Job), n_parts);
        }
        is_busy_.store(false);
    }

    // Whether the processor of a helper takes long to see what the caller's has written: one in
    // another socket or another part of the chip. It may change while a virtual machine runs.
    bool is_far() const { return is_far_.load(std::memory_order_relaxed); }

    // For tests: helpers are far (1), near (0), or where they are found to be (-1).
    void assume(int far) {
        while (is_busy_.exchange(true)) std::this_thread::yield();
        assumed_ = far;
        is_far_.store(far > 0, std::memory_order_relaxed);
        next_measurement_ = Clock::time_point{};
        is_busy_.store(false);
    }

    // Ends the helpers, so that a fork leaves none behind; until `resume` every caller works alone.
    void pause() {
        while (is_busy_.exchange(true)) std::this_thread::yield();
        publish(nullptr, nullptr, 0, 0);
        for (; n_helpers_ > 0; --n_helpers_) helpers_[n_helpers_ - 1].join();
    }

    void resume() { is_busy_.store(false); }

  private:
    typedef unsigned long long Count;
    typedef unsigned long long Word;
    typedef std::chrono::steady_clock Clock;
    static const int PAUSES = 2000;  // before the processor is offered to others
    static const int N_WORDS = 64;   // room for a job
    static const int N_CALLS = 32;   // back and forth, to measure how far a helper is,
    static constexpr std::chrono::milliseconds INTERVAL{200};  // so often,
    static constexpr std::chrono::milliseconds AGAIN{2};       // or soon again if it did not answer;
    static constexpr std::chrono::nanoseconds FAR{200};        // there and back
    static constexpr std::chrono::microseconds NO_ANSWER{100};
    static constexpr std::chrono::microseconds GRACE{3};       // that a helper has to begin a part
    static constexpr std::chrono::microseconds PATIENCE{300};  // until it sleeps

    struct alignas(64) Copy {
        Word words[N_WORDS];
    };
    struct alignas(64) Slot {
        std::atomic<Count> claimed{0};  // the latest job whose part somebody has begun,
        std::atomic<Count> done{0};     // and has done
        bool was_late = false;          // of the helper whose part this is, the last time
    };

    std::atomic<bool> is_busy_{false};
    std::atomic<bool> is_far_{false};
    int assumed_ = -1;
    int n_helpers_ = 0;
    std::thread helpers_[MAX_THREADS];
    Clock::time_point next_measurement_{};
    std::atomic<int> n_asleep_{0};
    std::mutex mutex_;
    std::condition_variable wake_;
    alignas(64) std::atomic<Count> generation_{0};  // of the job in what follows
    std::atomic<Work> work_{nullptr};
    std::atomic<int> n_parts_{0}, n_words_{0};
    std::atomic<Word> words_[N_WORDS];
    alignas(64) std::atomic<int> calls_{0};
    Slot slots_[MAX_THREADS];

    void hand_out(Work work, const void* job, size_t size, int n_parts) {
        const Count generation = publish(work, job, size, n_parts);
        const bool are_awake = n_asleep_.load(std::memory_order_relaxed) == 0;
        for (int k = 0; k < n_parts; ++k) {
            if (k > 0 && are_awake) give_time(slots_[k], generation);
            if (claim(slots_[k], generation)) {
                work(job, k, n_parts);
                slots_[k].was_late = k > 0;
                slots_[k].done.store(generation, std::memory_order_relaxed);
            } else {
                slots_[k].was_late = false;
            }
        }
        for (int k = 0; k < n_parts; ++k) {
            for (int i = 0; slots_[k].done.load(std::memory_order_acquire) != generation; ++i) {
                i < PAUSES ? XPN_PAUSE() : std::this_thread::yield();
            }
        }
    }

    // Now and then, how far the first helper is.
    void measure() {
        const Clock::time_point now = Clock::now();
        if (n_helpers_ == 0 || now < next_measurement_) return;
        next_measurement_ = now + AGAIN;
        calls_.store(0, std::memory_order_relaxed);
        Team* const self = this;
        hand_out(call_and_answer, &self, sizeof self, 2);
    }

    static void call_and_answer(const void* job, int part, int) {
        Team* const self = *static_cast<Team* const*>(job);
        part == 0 ? self->call() : self->answer();
    }

    void call() {
        Clock::time_point start{};
        for (int i = 0; i < N_CALLS; ++i) {
            const Clock::time_point called = Clock::now();
            if (i == N_CALLS / 2) start = called;  // at first the helper is getting ready
            calls_.store(2 * i + 1, std::memory_order_release);
            for (int k = 1; calls_.load(std::memory_order_acquire) != 2 * i + 2; ++k) {
                XPN_PAUSE();
                if (k % 64 == 0 && Clock::now() - called > NO_ANSWER) {  // no news, then
                    calls_.store(-1, std::memory_order_release);
                    return;
                }
            }
        }
        const Clock::time_point now = Clock::now();
        const bool is_far = now - start > FAR * (N_CALLS / 2);
        is_far_.store(assumed_ < 0 ? is_far : assumed_ > 0, std::memory_order_relaxed);
        next_measurement_ = now + INTERVAL;
    }

    void answer() {
        for (int last = 0; last >= 0 && last < 2 * N_CALLS;) {
            int found = calls_.load(std::memory_order_acquire);
            if (found < 0) return;
            if (found % 2 == 1 &&
                calls_.compare_exchange_strong(found, found + 1, std::memory_order_acq_rel)) {
                last = found + 1;
            }
            XPN_PAUSE();
        }
    }

    void recruit(int n) {
        while (n_helpers_ < n) {
            try {
#if defined(XPN_POSIX)  // signals are for the threads of the program that we are part of
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
            } catch (const std::system_error&) {  // no more threads: the parts are the caller's
                return;
            }
        }
    }

    Count publish(Work work, const void* job, size_t size, int n_parts) {
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
        n_words_.store(n_words, std::memory_order_relaxed);
        generation_.store(generation, std::memory_order_seq_cst);
        if (n_asleep_.load(std::memory_order_seq_cst) > 0) {
            { std::lock_guard<std::mutex> lock(mutex_); }
            wake_.notify_all();
        }
        return generation;
    }

    // A helper that was in time for the last job soon begins this one: its part is better off with
    // it, whose cache may hold the operands.
    static void give_time(const Slot& slot, Count generation) {
        if (slot.was_late) return;
        const Clock::time_point start = Clock::now();
        do {
            for (int i = 0; i < 8; ++i) {
                if (slot.claimed.load(std::memory_order_relaxed) == generation) return;
                XPN_PAUSE();
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
            const int n_words = n_words_.load(std::memory_order_relaxed);
            Copy job;
            for (int i = 0; i < n_words; ++i) {
                job.words[i] = words_[i].load(std::memory_order_relaxed);
            }
            std::atomic_thread_fence(std::memory_order_acquire);
            // Whoever claims a part keeps the job from ending; that of a job which has ended is
            // claimed already. So it is enough that all this belongs together.
            if (generation_.load(std::memory_order_relaxed) != seen) continue;
            if (!work) return;
            for (int i = 0; i < n_parts && number < n_parts; ++i) {
                Slot& slot = slots_[(number + i) % n_parts];  // one's own first
                if (!claim(slot, seen)) continue;
                work(&job, (number + i) % n_parts, n_parts);
                slot.done.store(seen, std::memory_order_release);
            }
        }
    }

    // Waits for a job after `seen`.
    Count next(Count seen) {
        const auto start = std::chrono::steady_clock::now();
        for (int i = 0;; ++i) {
            const Count found = generation_.load(std::memory_order_acquire);
            if (found != seen && found % 2 == 0) return found;
            XPN_PAUSE();
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
