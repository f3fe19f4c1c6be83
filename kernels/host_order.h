// The order of numbers 0 to n - 1 by random words: a random permutation.

#pragma once

#include <stdint.h>

#include <algorithm>
#include <vector>

namespace {

// Writes to `order` the indices of the words from the smallest to the largest word, equal words in
// the order of their indices.
//
// Random words are evenly distributed. So their first bits put them into buckets of few words each,
// which then are sorted: of one word on average, or of more if there are over 2^16 words, because
// counts of more buckets would not stay in the cache.
void order_by_words(const uint32_t* words, int64_t n, int64_t* order) {
    int bits = 1;
    while (bits < 16 && (int64_t)1 << bits < n) ++bits;
    const int shift = 32 - bits;
    std::vector<int64_t> ends((size_t)1 << bits);
    for (int64_t i = 0; i < n; ++i) ++ends[words[i] >> shift];
    int64_t begin = 0;
    for (int64_t& end : ends) {  // first each bucket's beginning; writing into it moves it
        const int64_t count = end;
        end = begin;
        begin += count;
    }
    uint64_t* keys = reinterpret_cast<uint64_t*>(order);
    for (int64_t i = 0; i < n; ++i) {
        keys[ends[words[i] >> shift]++] = (uint64_t)words[i] << 32 | (uint64_t)i;
    }
    begin = 0;
    for (const int64_t end : ends) {
        if (end - begin > 1) std::sort(keys + begin, keys + end);
        begin = end;
    }
    for (int64_t i = 0; i < n; ++i) order[i] = (int64_t)(keys[i] & UINT32_MAX);
}

}  // namespace
