// Memory of large arrays, in pages of 2 MiB if the system has them.
//
// A product reads its operands a few elements at a time, across many pages. With pages of 4 KiB a
// large training step spends some per cent of its time looking up their addresses. NumPy requests
// large pages too, but its arrays begin and end anywhere, so that much of each is in small pages.
// Here arrays begin at a multiple of 2 MiB and occupy a whole number of large pages.

#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

#if defined(__linux__) && defined(MADV_HUGEPAGE)

const size_t PAGE = 2 << 20;  // bytes; from this size on arrays are large

void* allocate(void*, size_t size) {
    if (size < PAGE || size > SIZE_MAX - PAGE) return malloc(size ? size : 1);
    const size_t length = (size + PAGE - 1) / PAGE * PAGE;
    void* data = aligned_alloc(PAGE, length);
    if (data) madvise(data, length, MADV_HUGEPAGE);  // else pages are small
    return data;
}

void* allocate_zeros(void* context, size_t n, size_t size) {
    if (size && n > SIZE_MAX / size) return nullptr;
    if (n * size < PAGE) return calloc(n ? n : 1, size ? size : 1);
    void* data = allocate(context, n * size);  // the memory may have been used before
    return data ? memset(data, 0, n * size) : nullptr;
}

void* reallocate(void*, void* data, size_t size) { return realloc(data, size ? size : 1); }

void release(void*, void* data, size_t) { free(data); }

PyDataMem_Handler large_pages = {
    "xpnet_large_pages", 1, {nullptr, allocate, allocate_zeros, reallocate, release}};

// A capsule of the handler for NumPy, or None without large pages.
PyObject* make_memory() { return PyCapsule_New(&large_pages, "mem_handler", nullptr); }

#else

PyObject* make_memory() { Py_RETURN_NONE; }

#endif

}  // namespace
