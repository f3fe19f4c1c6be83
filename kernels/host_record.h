// Records the jobs of operations instead of running them, for a program (host_program.h).

#pragma once

#include <atomic>
#include <memory>
#include <new>
#include <string.h>
#include <type_traits>
#include <vector>

#include "host_numpy.h"
#include "host_team.h"

namespace {

// A job with its arguments, as Team::share takes them. The address of `data` does not change.
struct Recorded {
    Work work;
    std::unique_ptr<unsigned char[]> memory;
    void* data;
    int n_parts;
    Terms terms;  // with the number of threads at the time of recording
};

// The jobs of a step in order, and what they use.
struct Record {
    std::vector<Recorded> jobs;
    std::vector<PyObject*> arrays;  // owned; their memory is read and written
    std::vector<std::unique_ptr<unsigned char[]>> memory;
    // Where gathers note a wrong index. A program checks them first, so it is not read.
    std::atomic<npy_int64> outside{0};
    bool is_incomplete = false;  // for want of memory

    Record() = default;
    Record(const Record&) = delete;
    Record& operator=(const Record&) = delete;
    ~Record() {
        for (PyObject* array : arrays) Py_DECREF(array);
    }

    // Memory on a cache line's boundary, which lives as long as the record; null if there is none.
    void* allocate(size_t size) noexcept {
        try {
            memory.emplace_back(new unsigned char[size + LINE]);
            return aligned(memory.back().get());
        } catch (const std::bad_alloc&) {
            is_incomplete = true;
            return nullptr;
        }
    }

    template <class Job>
    void add(Work work, const Job& job, int n_parts, const Terms& terms) noexcept {
        try {
            jobs.push_back(make(work, job, n_parts, terms));
        } catch (const std::bad_alloc&) {
            is_incomplete = true;
        }
    }

    template <class Job>
    static Recorded make(Work work, const Job& job, int n_parts, const Terms& terms) {
        static_assert(std::is_trivially_copyable<Job>::value, "a job is copied byte by byte");
        std::unique_ptr<unsigned char[]> own(new unsigned char[sizeof job + LINE]);
        void* data = aligned(own.get());
        memcpy(data, &job, sizeof job);
        return {work, std::move(own), data, n_parts, terms};
    }

    void keep(PyObject* array) noexcept {
        try {
            arrays.push_back(array);
            Py_INCREF(array);
        } catch (const std::bad_alloc&) {
            is_incomplete = true;
        }
    }

  private:
    static const size_t LINE = 64;
    static void* aligned(unsigned char* data) {
        return data + (LINE - (uintptr_t)data % LINE) % LINE;
    }
};

// The record of this thread's operations, or null if they run.
thread_local Record* recording = nullptr;

// Runs a job, or records it.
template <class Job> void submit(Work work, const Job& job, int n_parts, const Terms& terms) {
    if (recording) return recording->add(work, job, n_parts, terms);
    team().share(work, job, n_parts, terms);
}

// Raises the error of an operation that cannot be recorded.
PyObject* refuse_record(PyObject* name, const char* why) {
    return PyErr_Format(PyExc_RuntimeError, "%U %s", name, why);
}

}  // namespace
