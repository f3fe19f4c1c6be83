// Decides whether jobs are shared among threads, by the times they took shared and alone.
//
// Threads do not always help. Two processors may be two halves of one core, another program may
// keep one of them busy, or jobs may be so short that handing them out costs more than it gains. So
// the team runs all jobs in one way, shared or by the caller only, and sometimes tries the other
// way for a few jobs. It switches if those took less time than earlier jobs of the same kinds. The
// cost of a try decides how long the next one is delayed, so that tries take a small part of the
// time.

#pragma once

#include <chrono>
#include <stdint.h>

namespace {

class Pace {
  public:
    typedef std::chrono::steady_clock Clock;
    typedef uint64_t Kind;  // jobs of one kind do the same work on operands of the same shape

    // Whether to share the next job.
    bool shares() const { return is_trying_ != is_shared_; }

    // Records a job that ran from `start` to `end` in the way that `shares` returned. `alone` is an
    // estimate of its time without sharing, for a kind that has never run alone; 0 for none.
    void note(Kind kind, Clock::time_point start, Clock::time_point end, double alone) {
        // The time between two jobs counts for the second: data come from another processor's
        // cache, a waiting thread takes time from the one that shares its core, and the system may
        // run it instead of the caller. A long gap belongs to the program.
        const double gap = seconds(start - last_end_);
        const double before = gap < LONGEST_GAP ? gap : 0;
        const double took = before + seconds(end - start);
        last_end_ = end;
        elapsed_ += took;
        ++n_jobs_;
        const bool shared = shares();
        Costs& costs = costs_of(kind);
        if (shared && costs.alone.n == 0 && alone > 0) costs.alone.estimate(before + alone);
        if (is_trying_ && n_jobs_ <= SETTLING) return;  // threads wake up, caches fill
        Mean& cost = shared ? costs.shared : costs.alone;
        const double other = (shared ? costs.alone : costs.shared).value;
        cost.take(took);
        if (other > 0) {
            sum_ += took;
            sum_of_other_ += other;
        }
        if (is_trying_ && n_jobs_ >= SETTLING + WINDOW) {
            decide(end);
        } else if (!is_trying_ && n_jobs_ >= WINDOW) {
            consider(end);
        }
    }

    // Starts again, sharing jobs or not, and forgets everything else.
    void begin(bool shared) {
        *this = Pace();
        is_shared_ = shared;
    }

  private:
    // A running mean of seconds that weights recent jobs more. It goes back far enough to include
    // the rare long jobs of a busy processor.
    struct Mean {
        double value = 0;  // 0 if not known
        int n = 0;
        void take(double took) {
            n = n < MEMORY ? n + 1 : MEMORY;
            value += (took - value) / n;
        }
        void estimate(double took) { value = value == 0 ? took : value + (took - value) / MEMORY; }
    };
    struct Costs {
        Kind kind = 0;
        uint64_t last_use = 0;  // 0 if the place is free
        Mean alone, shared;
    };
    static const int MEMORY = 32;    // number of jobs in a mean
    static const int N_KINDS = 256;  // a power of 2
    static const int PROBES = 8;     // positions where a kind may be stored
    static const int WINDOW = 16;    // jobs that a try compares, one or two steps,
    static const int SETTLING = 6;   // after some jobs that do not count
    static constexpr double LONGEST_GAP = 1e-2;
    // The other way must take less than this fraction of the time so far.
    static constexpr double MARGIN = 0.97;
    // The next try waits 100 times the time that the last one lost, so that tries cost 1 % of the
    // time. If tries keep failing, it waits up to 16 times longer, but at most about a second.
    static constexpr double PUT_OFF = 100;
    static constexpr double LEAST_LOSS = 0.1;  // of the time of the try
    static constexpr double PATIENCE = 16;
    static constexpr double LONGEST = 1;
    static constexpr double SHORTEST = 2e-3;

    Costs costs_[N_KINDS];
    bool is_shared_ = true, is_trying_ = false;
    uint64_t n_uses_ = 0;
    int n_jobs_ = 0;
    double elapsed_ = 0;                  // total time since the last decision,
    double sum_ = 0, sum_of_other_ = 0;  // and of the jobs that are compared
    double patience_ = 1, put_off_ = 0;
    Clock::time_point last_end_{}, next_try_{};

    static double seconds(Clock::duration time) {
        return std::chrono::duration<double>(time).count();
    }

    Costs& costs_of(Kind kind) {
        const unsigned first = (unsigned)((kind * 0x9e3779b97f4a7c15ull) >> 56);
        Costs* oldest = &costs_[first];
        for (unsigned i = 0; i < PROBES; ++i) {
            Costs& found = costs_[(first + i) % N_KINDS];
            if (found.last_use && found.kind == kind) {
                found.last_use = ++n_uses_;
                return found;
            }
            if (found.last_use < oldest->last_use) oldest = &found;
        }
        *oldest = Costs();
        oldest->kind = kind;
        oldest->last_use = ++n_uses_;
        return *oldest;
    }

    // At the end of a try.
    void decide(Clock::time_point now) {
        if (sum_ < MARGIN * sum_of_other_) {
            is_shared_ = !is_shared_;
            patience_ = 1;
        } else {
            patience_ = patience_ < PATIENCE ? 2 * patience_ : PATIENCE;
        }
        // The loss includes the time to wake threads. For new kinds it is half of the time.
        const double expected = sum_of_other_ * (SETTLING + WINDOW) / WINDOW;
        double loss = expected > 0 ? elapsed_ - expected : elapsed_ / 2;
        if (loss < LEAST_LOSS * elapsed_) loss = LEAST_LOSS * elapsed_;
        const double least = PUT_OFF * loss, patient = patience_ * least;
        put_off(now, patient < LONGEST ? patient : least > LONGEST ? least : LONGEST);
    }

    // After some jobs: decides whether it is time to try the other way.
    void consider(Clock::time_point now) {
        if (next_try_ == Clock::time_point{}) {  // alone, the wait for a first try would be long
            return put_off(now, PUT_OFF * (is_shared_ ? elapsed_ : LEAST_LOSS * elapsed_));
        }
        is_trying_ = now >= next_try_ || loses(now);
        restart();
    }

    // Whether the other way would have been faster, by its known times. These may be out of date,
    // or estimates, so the answer only brings the next try forward.
    bool loses(Clock::time_point now) const {
        return is_shared_ && MARGIN * sum_ > sum_of_other_ && sum_of_other_ > 0 &&
               seconds(next_try_ - now) < put_off_ * (1 - 1 / PATIENCE);
    }

    void put_off(Clock::time_point now, double time) {
        put_off_ = time > SHORTEST ? time : SHORTEST;
        next_try_ = now + std::chrono::duration_cast<Clock::duration>(
                              std::chrono::duration<double>(put_off_));
        is_trying_ = false;
        restart();
    }

    void restart() {
        n_jobs_ = 0;
        elapsed_ = sum_ = sum_of_other_ = 0;
    }
};

}  // namespace
