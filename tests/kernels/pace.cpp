// Jobs whose times are made up, by a clock that is made up, too: which way the pace runs them, and
// what that costs. Compiled and run by test_team.py, which reads what it prints.

#include <stdio.h>

#include <initializer_list>

#include "host_pace.h"

static int larger(int a, int b) { return a > b ? a : b; }

struct Machine {
    double alone, shared, gap;  // seconds of a job, and between two

    double of(bool is_shared) const { return is_shared ? shared : alone; }
};

struct Program {
    Pace pace;
    Pace::Clock::time_point now{std::chrono::hours(1)};

    static Pace::Clock::duration of(double seconds) {
        return std::chrono::duration_cast<Pace::Clock::duration>(
            std::chrono::duration<double>(seconds));
    }

    // Runs jobs for so many seconds; gives how many times as long they took as the faster way.
    double run(const Machine& machine, double seconds, int n_kinds = 10) {
        double took = 0, best = 0;
        for (int k = 0; took < seconds; ++k) {
            const double size = 1 + k % n_kinds;  // jobs of several sizes
            const bool is_shared = pace.shares();
            now += of(machine.gap);
            const auto start = now;
            now += of(machine.of(is_shared) * size);
            pace.note(1 + k % n_kinds, start, now, is_shared ? machine.alone * size : 0);
            took += machine.gap + machine.of(is_shared) * size;
            best += machine.gap + (machine.alone < machine.shared ? machine.alone : machine.shared) * size;
        }
        return took / best;
    }

    // Whether it is but a try that runs alone.
    bool shares_soon(const Machine& machine) {
        for (int k = 0; k < 30; ++k) run(machine, 1e-9, 1);
        return pace.shares();
    }

    // How many seconds it takes until a hundred jobs in a row are shared, or so many at most.
    double seconds_until_shared(const Machine& machine, double most) {
        const auto start = now;
        auto last_alone = now;
        for (int n_shared = 0; n_shared < 100 && now < start + of(most);) {
            n_shared = pace.shares() ? n_shared + 1 : 0;
            run(machine, 1e-9, 1);
            if (n_shared == 0) last_alone = now;
        }
        return std::chrono::duration<double>(last_alone - start).count();
    }

    // How many jobs it takes until a hundred in a row run alone.
    int jobs_until_alone(const Machine& machine) {
        int n_alone = 0;
        for (int k = 0; k < 5000; ++k) {
            n_alone = pace.shares() ? 0 : n_alone + 1;
            if (n_alone == 100) return k - 99;
            run(machine, 1e-9, 1);
        }
        return 5000;
    }
};

int main() {
    const Machine quiet = {1e-4, 6e-5, 5e-6}, busy = {1e-4, 3e-4, 5e-6}, even = {1e-4, 1e-4, 5e-6};
    const Machine slow = {0.2, 0.11, 1e-5};
    for (const bool begins_shared : {true, false}) {
        for (const Machine& machine : {quiet, busy, even}) {
            Program program;
            program.pace.begin(begins_shared);
            program.run(machine, 0.5);
            printf("%.4f ", program.run(machine, 5));
        }
    }
    Program large;
    printf("%.4f\n", large.run(slow, 60));
    // Another program comes, in every phase, goes, and comes again.
    int worst_fall_back = 0, n_stayed = 0, worst_after_idling = 0;
    for (int phase = 0; phase < 40; ++phase) {
        Program changing;
        changing.run(quiet, 2 + 0.013 * phase);
        worst_fall_back = larger(worst_fall_back, changing.jobs_until_alone(busy));
        changing.run(busy, 2);
        changing.run(quiet, 3);
        n_stayed += !changing.pace.shares() && !changing.shares_soon(quiet);
        Program idling;
        idling.run(quiet, 1e-4 * (1 + phase));
        idling.now += Program::of(600);  // a person thinks
        worst_after_idling = larger(worst_after_idling, idling.jobs_until_alone(busy));
    }
    printf("%d %d %d\n", worst_fall_back, n_stayed, worst_after_idling);
    // Long jobs begin alone, for no good reason.
    Program mistaken;
    mistaken.pace.begin(false);
    printf("%.1f\n", mistaken.seconds_until_shared({1.5e-2, 8e-3, 1e-5}, 60));
    return 0;
}
