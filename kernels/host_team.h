// A team of threads that works off a job in parts: matrix products and long loops.
//
// The caller works along, and takes every part that no helper has begun by the time it is free: a
// helper that the system gives no time delays nothing. Between jobs helpers look out for the next
// one for a while, since those of a training step follow each other within microseconds, and then
// sleep. Jobs are split in the same way however many threads turn up, so that results do not depend
// on it.

#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

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
    // Runs work(job, k, n_parts) for k = 0, ..., n_parts - 1, in whatever order and threads.
    void share(Work work, const void* job, int n_parts) {
        if (n_parts < 2 || n_parts > MAX_THREADS || is_busy_.exchange(true)) {
            for (int k = 0; k < n_parts; ++k) work(job, k, n_parts);
            return;
        }
        recruit(n_parts - 1);
        take_parts(publish(work, job, n_parts), work, job, n_parts, 0);
        for (int i = 0; n_done_.load(std::memory_order_acquire) < n_parts; ++i) {
            i < PAUSES ? XPN_PAUSE() : std::this_thread::yield();
        }
        is_busy_.store(false);
    }

    // Ends the helpers, so that a fork leaves none behind; until `resume` every caller works alone.
    void pause() {
        while (is_busy_.exchange(true)) std::this_thread::yield();
        publish(nullptr, nullptr, 0);
        for (; n_helpers_ > 0; --n_helpers_) helpers_[n_helpers_ - 1].join();
    }

    void resume() { is_busy_.store(false); }

  private:
    typedef unsigned long long Count;
    static const int PAUSES = 2000;  // before the processor is offered to others
    static constexpr std::chrono::microseconds PATIENCE{300};

    struct alignas(64) Slot {
        std::atomic<Count> claimed{0};  // the latest job whose part somebody has begun
    };

    std::atomic<bool> is_busy_{false};
    int n_helpers_ = 0;
    std::thread helpers_[MAX_THREADS];
    alignas(64) std::atomic<Count> generation_{0};
    std::atomic<Work> work_{nullptr};
    std::atomic<const void*> job_{nullptr};
    std::atomic<int> n_parts_{0};
    alignas(64) std::atomic<int> n_done_{0};
    Slot slots_[MAX_THREADS];
    std::atomic<int> n_asleep_{0};
    std::mutex mutex_;
    std::condition_variable wake_;

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

    Count publish(Work work, const void* job, int n_parts) {
        const Count generation = generation_.load(std::memory_order_relaxed) + 2;
        generation_.store(generation - 1, std::memory_order_relaxed);  // odd: being written
        std::atomic_thread_fence(std::memory_order_release);
        work_.store(work, std::memory_order_relaxed);
        job_.store(job, std::memory_order_relaxed);
        n_parts_.store(n_parts, std::memory_order_relaxed);
        n_done_.store(0, std::memory_order_relaxed);
        generation_.store(generation, std::memory_order_seq_cst);
        if (n_asleep_.load(std::memory_order_seq_cst) > 0) {
            { std::lock_guard<std::mutex> lock(mutex_); }
            wake_.notify_all();
        }
        return generation;
    }

    // The first of the parts is one's own, whose operands one's cache may still hold.
    void take_parts(Count generation, Work work, const void* job, int n_parts, int own) {
        for (int i = 0; i < n_parts; ++i) {
            const int k = (own + i) % n_parts;
            Count claimed = slots_[k].claimed.load(std::memory_order_relaxed);
            if (claimed < generation &&
                slots_[k].claimed.compare_exchange_strong(claimed, generation)) {
                work(job, k, n_parts);
                n_done_.fetch_add(1, std::memory_order_release);
            }
        }
    }

    void help(int number, Count seen) {
        for (;;) {
            seen = next(seen);
            const Work work = work_.load(std::memory_order_relaxed);
            const void* job = job_.load(std::memory_order_relaxed);
            const int n_parts = n_parts_.load(std::memory_order_relaxed);
            std::atomic_thread_fence(std::memory_order_acquire);
            // Whoever claims a part keeps the job from ending; that of a job which has ended is
            // claimed already. So it is enough that these three belong together.
            if (generation_.load(std::memory_order_relaxed) != seen) continue;
            if (!work) return;
            if (number < n_parts) take_parts(seen, work, job, n_parts, number);
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
