// Jobs that take a helper ten times as long as the caller: whether the team goes on sharing them.
// Compiled and run by test_team.py, which reads what it prints.

#include <stdio.h>

#include <set>

#include "host_team.h"

struct Waiting {
    std::thread::id caller;
    std::atomic<int>* n_elsewhere;
};

static void wait(const void* job, int, int) {
    const Waiting& waiting = *static_cast<const Waiting*>(job);
    const bool is_elsewhere = std::this_thread::get_id() != waiting.caller;
    if (is_elsewhere) ++*waiting.n_elsewhere;
    const auto end =
        std::chrono::steady_clock::now() + std::chrono::microseconds(is_elsewhere ? 400 : 40);
    while (std::chrono::steady_clock::now() < end) pause_shortly();
}

// Gives in how many jobs, of the last thousand, another thread took a part.
static int shared_jobs(int n_jobs, bool is_forced) {
    int n_shared = 0;
    for (int i = 0; i < n_jobs + 1000; ++i) {
        std::atomic<int> n_elsewhere{0};
        const Waiting job = {std::this_thread::get_id(), &n_elsewhere};
        team().share(wait, job, 2, {2, is_forced, false, 1});
        n_shared += i >= n_jobs && n_elsewhere > 0;
    }
    return n_shared;
}

struct Noting {
    std::mutex* mutex;
    std::set<std::thread::id>* threads;
};

static void note(const void* job, int, int) {
    const Noting& noting = *static_cast<const Noting*>(job);
    const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(100);
    while (std::chrono::steady_clock::now() < end) pause_shortly();
    const std::lock_guard<std::mutex> lock(*noting.mutex);
    noting.threads->insert(std::this_thread::get_id());
}

int main() {
    const int shared = shared_jobs(3000, false);
    int forced = 0;  // a helper that gets no processor leaves its part to the caller: tried again
    for (int i = 0; i < 5 && forced < 1000; ++i) {
        const int found = shared_jobs(0, true);
        if (found > forced) forced = found;
    }
    std::mutex mutex;
    std::set<std::thread::id> threads;
    team().share(note, Noting{&mutex, &threads}, 6, {3, true, false, 2});  // there are two helpers
    threads.clear();
    for (int i = 0; i < 200; ++i) {
        team().share(note, Noting{&mutex, &threads}, 6, {2, true, false, 2});
    }
    printf("%d %d %d\n", shared, forced, (int)threads.size());
    return 0;
}
