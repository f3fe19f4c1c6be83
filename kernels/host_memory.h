// Memory of large arrays, in pages of 2 MiB where the system has them.
//
// A product goes through its operands a few elements at a time, across many pages. With pages of
// 4 KiB a large training step spends some percent of its time on finding out where they are. NumPy
// asks for large pages too, but its arrays begin and end anywhere, so that much of each lies in
// small ones. Here they begin at a multiple of 2 MiB and take up a whole number of such pages.

#pragma once

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace {

#if defined(__linux__) && defined(MADV_HUGEPAGE)

const size_t PAGE = 2 << 20;  // bytes; arrays from here on are large

void* allocate(void*, size_t size) {
    if (size < PAGE || size > SIZE_MAX - PAGE) return malloc(size ? size : 1);
    const size_t length = (size + PAGE - 1) / PAGE * PAGE;
    void* data = aligned_alloc(PAGE, length);
    if (data) madvise(data, length, MADV_HUGEPAGE);  // a wish: without it the pages are small
    return data;
}

void* allocate_zeros(void* context, size_t n, size_t size) {
    if (size && n > SIZE_MAX / size) return nullptr;
    if (n * size < PAGE) return calloc(n ? n : 1, size ? size : 1);
    void* data = allocate(context, n * size);  // which may have been used before
    return data ? memset(data, 0, n * size) : nullptr;
}

void* reallocate(void*, void* data, size_t size) { return realloc(data, size ? size : 1); }

void release(void*, void* data, size_t) { free(data); }

PyDataMem_Handler large_pages = {
    "xpnet_large_pages", 1, {nullptr, allocate, allocate_zeros, reallocate, release}};

// A capsule of the handler, for NumPy; None where there are no large pages to be had.
PyObject* make_memory() { return PyCapsule_New(&large_pages, "mem_handler", nullptr); }

#else

PyObject* make_memory() { Py_RETURN_NONE; }

#endif

}  // namespace
