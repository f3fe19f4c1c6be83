// Jobs of changing size, one right after the other and from several callers, whose parts must all be
// done exactly once: what helpers that are late, or wake up, might get wrong. Compiled and run by
// test_team.py.

#include <stdio.h>

#include <vector>

#include "host_team.h"

struct Adding {
    std::vector<long>* numbers;
    long amount;
};

static void add(const void* job, int part, int n_parts) {
    const Adding& adding = *static_cast<const Adding*>(job);
    const long n = (long)adding.numbers->size();
    for (long i = n * part / n_parts; i < n * (part + 1) / n_parts; ++i) {
        (*adding.numbers)[(size_t)i] += adding.amount;
    }
}

static bool are_all(const std::vector<long>& numbers, long expected) {
    for (long number : numbers) {
        if (number != expected) return false;
    }
    return true;
}

int main() {
    std::vector<long> numbers(500);
    long expected = 0;
    for (int round = 0; round < 100000; ++round) {
        const Adding job = {&numbers, round % 7};
        // Fewer threads than parts, as many, and more; of their own choice every other time.
        const Terms terms = {1 + round % 6, round % 2 == 0, round % 3 == 0, (Pace::Kind)(round % 7)};
        team().share(add, job, 2 + round % 4, terms);
        expected += round % 7;
        if (round % 20000 == 0) {  // long enough for helpers to fall asleep
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        }
        if (round % 100 == 0 && !are_all(numbers, expected)) return printf("round %d\n", round), 1;
    }
    std::vector<std::vector<long>> own(4, std::vector<long>(300));
    std::vector<std::thread> callers;
    for (std::vector<long>& mine : own) {
        callers.emplace_back([&mine] {
            for (int round = 0; round < 10000; ++round) {
                team().share(add, Adding{&mine, 1}, 3, {3, round % 2 == 0, false, 0});
            }
        });
    }
    for (std::thread& caller : callers) caller.join();
    for (const std::vector<long>& mine : own) {
        if (!are_all(mine, 10000)) return printf("several callers\n"), 1;
    }
    fflush(stdout);
    return 0;
}
