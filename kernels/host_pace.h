// Whether sharing pays: decided by what jobs took, shared and alone.
//
// Threads do not always help. Two processors may be two halves of one core, another program may keep
// one of them busy, or jobs may be so short that handing them out costs more than it gains. So the
// team runs all jobs one way, shared or by the caller alone, and from time to time tries the other
// way for a few jobs. It changes over if those took less time than jobs of the same kinds had taken
// so far. What a try costs decides how long the next one is put off, so that tries take a small part
// of the time.

#pragma once

#include <chrono>
#include <stdint.h>

namespace {

class Pace {
  public:
    typedef std::chrono::steady_clock Clock;
    typedef uint64_t Kind;  // jobs of one kind do the same work on operands of the same shape

    // Whether the next job is to be shared.
    bool shares() const { return is_trying_ != is_shared_; }

    // Takes in that a job, begun at `start` and done at `end`, ran as `shares` said. `alone` is an
    // estimate of what it would have taken alone, for a kind that never ran alone; 0 for none.
    void note(Kind kind, Clock::time_point start, Clock::time_point end, double alone) {
        // What lies between two jobs belongs to the second: data come from another processor's
        // cache, a thread that waits takes time from the one that shares its core, and the system
        // may run it in place of the caller.
        if (began_ == Clock::time_point{}) restart(start);
        const double gap = seconds(start - last_end_);
        const double before = gap < LONGEST_GAP ? gap : 0;
        const double took = before + seconds(end - start);
        last_end_ = end;
        const bool shared = shares();
        Costs& costs = costs_of(kind);
        if (shared && costs.alone.n == 0 && alone > 0) costs.alone.estimate(before + alone);
        Mean& cost = shared ? costs.shared : costs.alone;
        const double other = (shared ? costs.alone : costs.shared).value;
        if (is_trying_ && n_jobs_ < SETTLING) {  // threads wake up, caches fill
            ++n_jobs_;
            return;
        }
        cost.take(took);
        if (other > 0) {
            sum_ += took;
            sum_of_other_ += other;
        }
        ++n_jobs_;
        if (is_trying_ && n_jobs_ >= SETTLING + WINDOW) {
            decide(end);
        } else if (!is_trying_ && n_jobs_ >= WINDOW) {
            consider(end);
        }
    }

    // Begins with jobs that are shared, or not, and forgets all else.
    void begin(bool shared) {
        *this = Pace();
        is_shared_ = shared;
    }

  private:
    // Of seconds, the last ones above all. There are rare and long ones where a processor is busy.
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
        Mean alone, shared;
    };
    static const int MEMORY = 32;  // jobs that a mean goes back
    static const int N_KINDS = 256;
    static const int WINDOW = 16;   // jobs that a try compares, a step or two,
    static const int SETTLING = 6;  // after some that do not count
    static constexpr double LONGEST_GAP = 1e-2;
    static constexpr double MARGIN = 0.97;  // of the time so far that the other way must stay below
    static constexpr double PUT_OFF = 50;   // how many times the loss passes before the next try,
    static constexpr double PATIENCE = 16;  // and up to so many times that where tries keep failing,
    static constexpr double LONGEST = 1;    // as far as that is shorter than a second
    static constexpr double SHORTEST = 2e-3;

    Costs costs_[N_KINDS];
    bool is_shared_ = true, is_trying_ = false;
    int n_jobs_ = 0;
    double sum_ = 0, sum_of_other_ = 0;  // of the jobs that are compared
    double patience_ = 1, put_off_ = 0;
    Clock::time_point last_end_{}, began_{}, next_try_{};

    static double seconds(Clock::duration time) {
        return std::chrono::duration<double>(time).count();
    }

    Costs& costs_of(Kind kind) {
        Costs& found = costs_[(kind * 0x9e3779b97f4a7c15ull) >> 56];
        if (found.kind != kind) {  // it takes the place of another one
            found = Costs();
            found.kind = kind;
        }
        return found;
    }

    // At the end of a try.
    void decide(Clock::time_point now) {
        const double took = seconds(now - began_);
        if (sum_ < MARGIN * sum_of_other_) {
            is_shared_ = !is_shared_;
            patience_ = 1;
        } else {
            patience_ = patience_ < PATIENCE ? 2 * patience_ : PATIENCE;
        }
        // The loss includes what waking threads took. Where the kinds are new, it is half of the time.
        const double expected = sum_of_other_ * (SETTLING + WINDOW) / WINDOW;
        double loss = expected > 0 ? took - expected : took / 2;
        if (loss < 0.1 * took) loss = 0.1 * took;
        const double least = PUT_OFF * loss, patient = patience_ * least;
        put_off(now, patient < LONGEST ? patient : least > LONGEST ? least : LONGEST);
    }

    // After some jobs: whether it is time to try the other way.
    void consider(Clock::time_point now) {
        if (next_try_ == Clock::time_point{}) {
            put_off(now, PUT_OFF * seconds(now - began_));
        } else if (now >= next_try_ || loses(now)) {
            is_trying_ = true;
        }
        restart(now);
    }

    // Whether the other way would have been faster, by what is known of it. As this may be out of
    // date, or an estimate, it only brings the next try forward.
    bool loses(Clock::time_point now) const {
        return is_shared_ && MARGIN * sum_ > sum_of_other_ && sum_of_other_ > 0 &&
               seconds(next_try_ - now) < put_off_ * (1 - 1 / PATIENCE);
    }

    void put_off(Clock::time_point now, double time) {
        put_off_ = time > SHORTEST ? time : SHORTEST;
        next_try_ = now + std::chrono::duration_cast<Clock::duration>(
                              std::chrono::duration<double>(put_off_));
        is_trying_ = false;
        restart(now);
    }

    void restart(Clock::time_point now) {
        n_jobs_ = 0;
        sum_ = sum_of_other_ = 0;
        began_ = now;
    }
};

}  // namespace
