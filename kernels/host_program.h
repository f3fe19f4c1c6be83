// Programs: the jobs of a training step, recorded once and run many times without Python.
//
// A step that runs while a thread records (host_record.h) leaves its jobs with their operands. A
// program runs them in order, for several minibatches in one call, without Python's lock. What
// changes from step to step is in arrays that the jobs themselves change, except three things that
// a call brings: the indices of each minibatch, a place for each loss, and the learning rates.
//
// The record is rearranged where only the whole step allows it: the update of a weight matrix
// follows its gradient, tile by tile, while the tile is in the cache (`Rearrangement`). The jobs
// stay the same compiled loops over the same elements, so that no bit changes.

#pragma once

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "host_gather.h"
#include "host_matmul.h"
#include "host_record.h"
#include "host_run.h"

namespace {

// ---------------------------------------------------------------------------------------------
// A product whose result is updated with at once.

struct UpdatedProduct {
    SharedProduct shared;
    Task update;  // over the elements of the result, as one row
};

void update_part(const void* job_, int part, int n_parts) {
    const UpdatedProduct& job = *static_cast<const UpdatedProduct*>(job_);
    const Product& p = job.shared.product;
    const ptrdiff_t end = job.shared.end_row(part, n_parts), height = tile_height(p);
    XpnBlock row = job.update.block;
    row.constants = job.update.constants;
    for (ptrdiff_t top = job.shared.end_row(part - 1, n_parts); top < end; top += height) {
        const ptrdiff_t bottom = top + height < end ? top + height : end;
        (p.is_double ? multiply_rows<double> : multiply_rows<float>)(p, top, bottom);
        run_rows(job.update, stretch_of(job.update, row, top * p.n, (bottom - top) * p.n));
    }
}

// ---------------------------------------------------------------------------------------------
// What a job reads and writes. The sums of parts have memory of their own, so that its first byte
// stands for all of it.

struct Range {
    const char *low, *high;
    bool is_written;

    bool conflicts_with(const Range& other) const {
        return low < other.high && other.low < high && (is_written || other.is_written);
    }
};

typedef std::vector<Range> Ranges;

void add_range(Ranges* ranges, const char* data, ptrdiff_t rows, ptrdiff_t stride, ptrdiff_t size,
               bool is_written) {
    const ptrdiff_t reach = (rows - 1) * stride;
    ranges->push_back({reach < 0 ? data + reach : data, (reach < 0 ? data : data + reach) + size,
                       is_written});
}

void add_ranges(Ranges* ranges, const Task& task) {
    const XpnBlock& block = task.block;
    for (int k = 0; k < task.self->n_operands; ++k) {
        if (!block.data[k]) continue;
        const OperandSpec& spec = task.self->operands[k];
        const ptrdiff_t n = has_rows_of_elements(spec) ? block.n_columns : 1;
        const ptrdiff_t size = n * task.itemsize[k];
        add_range(ranges, block.data[k], block.n_rows, block.stride[k], size, spec.use != IN);
    }
    if (task.sums) add_range(ranges, task.sums, 1, 0, 1, true);
}

void add_range(Ranges* ranges, const Product& p, const Matrix& matrix, ptrdiff_t rows,
               ptrdiff_t columns, bool is_written) {
    const ptrdiff_t itemsize = (ptrdiff_t)itemsize_of(p);
    if (matrix.is_transposed) std::swap(rows, columns);
    add_range(ranges, matrix.data, rows, matrix.leading * itemsize, columns * itemsize, is_written);
}

void add_factors(Ranges* ranges, const Product& p) {
    add_range(ranges, p, p.A, p.m, p.k, false);
    add_range(ranges, p, p.B, p.k, p.n, false);
}

void add_ranges(Ranges* ranges, const Product& p) {
    add_factors(ranges, p);
    add_range(ranges, p, p.out, p.m, p.n, true);
}

bool is_product(const Recorded& job) {
    return job.work == multiply_part<float> || job.work == multiply_part<double>;
}

Ranges ranges_of(const Recorded& job) {
    Ranges ranges;
    if (job.work == run_part) {
        add_ranges(&ranges, *static_cast<const Task*>(job.data));
    } else if (is_product(job)) {
        const SharedProduct& shared = *static_cast<const SharedProduct*>(job.data);
        add_ranges(&ranges, shared.product);
        if (shared.sums) add_range(&ranges, shared.sums, 1, 0, 1, true);
    } else if (job.work == update_part) {
        const UpdatedProduct& both = *static_cast<const UpdatedProduct*>(job.data);
        add_ranges(&ranges, both.shared.product);
        add_ranges(&ranges, both.update);
    } else if (job.work == gather_part) {
        const Gathering& g = *static_cast<const Gathering*>(job.data);
        add_range(&ranges, g.X, g.n_samples, g.in_bytes, g.in_bytes, false);
        add_range(&ranges, g.out, g.n, g.out_bytes, g.out_bytes, true);
    } else if (job.work == add_up_part) {
        const Sums& s = *static_cast<const Sums*>(job.data);
        const ptrdiff_t itemsize = s.is_double ? sizeof(double) : sizeof(float);
        add_range(&ranges, s.sums, 1, 0, 1, false);
        add_range(&ranges, s.total, s.n_rows, s.leading * itemsize, s.n_columns * itemsize, true);
    } else {  // anything
        ranges.push_back({nullptr, reinterpret_cast<const char*>(UINTPTR_MAX), true});
    }
    return ranges;
}

bool conflict(const Ranges& a, const Ranges& b) {
    for (const Range& one : a) {
        for (const Range& other : b) {
            if (one.conflicts_with(other)) return true;
        }
    }
    return false;
}

// ---------------------------------------------------------------------------------------------
// The update of a weight matrix behind its gradient.

// Moves updates of parameters behind the products that write their gradients.
//
// An update is an elementwise job over one long row, such as Adam's over all parameters. Its part
// for one matrix may move forward to the product if the product does not read what it writes, and
// no job in between reads or writes what it writes, or writes what it reads. Jobs in between that
// do, such as the gradient with respect to the layer's input, which reads the weights, first move in
// front of the product if they can. A penalty or a clipping of the gradient cannot: then the update
// stays where it is.
class Rearrangement {
  public:
    explicit Rearrangement(std::vector<Recorded>* jobs) : jobs_(*jobs) {}

    void move_updates() {
        for (size_t u = 0; u < jobs_.size(); ++u) {
            if (is_update(jobs_[u])) u = move_update(u);
        }
    }

  private:
    struct Span {
        npy_intp begin, end;
    };

    std::vector<Recorded>& jobs_;

    static bool is_update(const Recorded& job) {
        if (job.work != run_part) return false;
        const Task& task = *static_cast<const Task*>(job.data);
        return task.self->kind == ELEMENTWISE && task.self->reads_columns &&
               task.block.n_rows == 1;
    }

    // Returns the place of the last job that is left of the update.
    size_t move_update(size_t u) {
        std::vector<Span> moved;
        for (size_t i = u; i-- > 0;) {
            Span span;
            if (is_product(jobs_[i]) && covers(jobs_[u], jobs_[i], &span)) {
                const size_t n_before = hoist_conflicts(i, u, span);
                if (n_before == NOT) continue;
                i += n_before;
                attach(i, u, span);
                moved.push_back(span);
            }
        }
        if (moved.empty()) return u;
        std::sort(moved.begin(), moved.end(),
                  [](const Span& a, const Span& b) { return a.begin < b.begin; });
        const Recorded whole = std::move(jobs_[u]);
        jobs_.erase(jobs_.begin() + (ptrdiff_t)u);
        const Task& task = *static_cast<const Task*>(whole.data);
        npy_intp begin = 0;
        moved.push_back({task.block.n_columns, task.block.n_columns});
        for (const Span& span : moved) {
            if (span.begin > begin) {
                const Task piece = piece_of(task, {begin, span.begin});
                const int n_parts = piece.division.parts((double)piece.block.n_columns,
                                                         TEAM_ELEMENTS, whole.n_parts);
                jobs_.insert(jobs_.begin() + (ptrdiff_t)u++,
                             Record::make(run_part, piece, n_parts, whole.terms));
            }
            begin = span.end;
        }
        return u - 1;
    }

    // Whether a product writes contiguous elements that the update reads, and which.
    static bool covers(const Recorded& update, const Recorded& job, Span* span) {
        const Task& task = *static_cast<const Task*>(update.data);
        const SharedProduct& shared = *static_cast<const SharedProduct*>(job.data);
        const Product& p = shared.product;
        const bool in_rows = job.n_parts == 1 || shared.division.by_rows;
        if (!in_rows || shared.sums || p.out.leading != p.n) return false;
        for (int k = 0; k < task.self->n_operands; ++k) {
            if (task.self->operands[k].use != IN || !has_rows_of_elements(task.self->operands[k])) {
                continue;
            }
            const npy_intp itemsize = task.itemsize[k];
            if (itemsize != (npy_intp)itemsize_of(p)) continue;
            const ptrdiff_t offset = p.out.data - task.block.data[k];
            span->begin = offset / itemsize;
            span->end = span->begin + p.m * p.n;
            if (offset >= 0 && offset % itemsize == 0 && span->end <= task.block.n_columns) {
                return true;
            }
        }
        return false;
    }

    static Task piece_of(const Task& task, Span span) {
        Task piece = task;
        piece.block = stretch_of(task, task.block, span.begin, span.end - span.begin);
        piece.division = Division(false, 1, piece.block.n_columns);
        return piece;
    }

    static constexpr size_t NOT = (size_t)-1;

    // Moves jobs between a product and its update that keep the update from moving in front of the
    // product; returns how many, or NOT if one cannot move.
    size_t hoist_conflicts(size_t product, size_t u, Span span) {
        const Task& task = *static_cast<const Task*>(jobs_[u].data);
        Ranges update;
        add_ranges(&update, piece_of(task, span));
        // Later tiles read what an earlier one might update.
        const Product& p = static_cast<const SharedProduct*>(jobs_[product].data)->product;
        Ranges factors;
        add_factors(&factors, p);
        if (conflict(factors, update)) return NOT;
        std::vector<size_t> obstacles;
        for (size_t j = product + 1; j < u; ++j) {
            const Ranges found = ranges_of(jobs_[j]);
            if (!conflict(found, update)) continue;
            for (size_t before = product; before < j; ++before) {
                const bool moves_too =
                    std::find(obstacles.begin(), obstacles.end(), before) != obstacles.end();
                if (!moves_too && conflict(found, ranges_of(jobs_[before]))) return NOT;
            }
            obstacles.push_back(j);
        }
        size_t to = product;
        for (const size_t j : obstacles) {
            std::rotate(jobs_.begin() + (ptrdiff_t)to, jobs_.begin() + (ptrdiff_t)j,
                        jobs_.begin() + (ptrdiff_t)j + 1);
            ++to;
        }
        return obstacles.size();
    }

    void attach(size_t product, size_t u, Span span) {
        const Recorded& job = jobs_[product];
        UpdatedProduct both;
        both.shared = *static_cast<const SharedProduct*>(job.data);
        both.update = piece_of(*static_cast<const Task*>(jobs_[u].data), span);
        Terms terms = job.terms;
        ++terms.kind;  // it takes longer than the product alone
        jobs_[product] = Record::make(update_part, both, job.n_parts, terms);
    }
};

// ---------------------------------------------------------------------------------------------
// Running.

const double LONGEST_CALL = 0.05;  // seconds, unless a single step takes longer

std::atomic<int> n_running{0};  // programs in this process at the moment

struct Program {
    Record record;
    std::vector<Gathering*> gathers;  // of the minibatch
    npy_intp batch_size = 0;          // 0 if the step gathers nothing
    char *loss = nullptr, *rate = nullptr;
    npy_intp loss_size = 0, rate_size = 0;
    npy_int64* counter = nullptr;
    std::atomic<bool> is_running{false};
};

// What a call brings.
struct Batches {
    npy_intp n;
    const npy_int64* indices;
    char* losses;
    const char* rates;
    double* seconds;  // of every job, added up; or null
};

struct Indirect {
    Work work;
    const void* data;
};

void run_indirect(const void* job, int part, int n_parts) {
    const Indirect& indirect = *static_cast<const Indirect*>(job);
    indirect.work(indirect.data, part, n_parts);
}

void run_recorded(const Recorded& job, int n_threads) {
    if (job.n_parts == 1 || n_threads == 1) {
        for (int k = 0; k < job.n_parts; ++k) job.work(job.data, k, job.n_parts);
        return;
    }
    Terms terms = job.terms;
    terms.n_threads = n_threads;
    team().share(run_indirect, Indirect{job.work, job.data}, job.n_parts, terms);
}

// How many steps a call has taken, and an index that ended it, out of the range of so many samples.
struct Taken {
    npy_intp n = 0;
    npy_int64 outside = 0;
    npy_intp n_samples = -1;  // -1 if no index ended it
};

// Whether all indices of minibatch k are in range. A step with a wrong index would be half taken.
bool check_indices(const Program& program, const Batches& batches, npy_intp k, Taken* taken) {
    const npy_int64* indices = batches.indices + k * program.batch_size;
    for (const Gathering* g : program.gathers) {
        for (npy_intp i = 0; i < program.batch_size; ++i) {
            if ((npy_uint64)indices[i] < (npy_uint64)g->n_samples) continue;
            taken->outside = indices[i];
            taken->n_samples = g->n_samples;
            return false;
        }
    }
    return true;
}

void take_step(Program& program, const Batches& batches, npy_intp k, int n_threads) {
    typedef std::chrono::steady_clock Clock;
    for (Gathering* g : program.gathers) g->index = batches.indices + k * program.batch_size;
    ++*program.counter;
    if (batches.rates) {
        memcpy(program.rate, batches.rates + k * program.rate_size, (size_t)program.rate_size);
    }
    if (!batches.seconds) {
        for (const Recorded& job : program.record.jobs) run_recorded(job, n_threads);
    } else {
        Clock::time_point last = Clock::now();
        for (size_t i = 0; i < program.record.jobs.size(); ++i) {
            run_recorded(program.record.jobs[i], n_threads);
            const Clock::time_point now = Clock::now();
            batches.seconds[i] += std::chrono::duration<double>(now - last).count();
            last = now;
        }
    }
    memcpy(batches.losses + k * program.loss_size, program.loss, (size_t)program.loss_size);
}

// Takes up to n steps, as many as fit into LONGEST_CALL, and at least one.
Taken take_steps(Program& program, const Batches& batches) {
    typedef std::chrono::steady_clock Clock;
    // Programs side by side share the processors.
    const int n_others = n_running.fetch_add(1);
    const int n_threads = team_size() / (n_others + 1);
    const SingleThreaded guard;
    const Flushing flushing;  // threads that the team starts now inherit it: they run only jobs
    const Clock::time_point start = Clock::now();
    Clock::time_point last = start;
    double longest = 0;
    Taken taken;
    while (taken.n < batches.n && check_indices(program, batches, taken.n, &taken)) {
        take_step(program, batches, taken.n++, n_threads < 1 ? 1 : n_threads);
        const Clock::time_point now = Clock::now();
        longest = std::max(longest, std::chrono::duration<double>(now - last).count());
        last = now;
        if (std::chrono::duration<double>(now - start).count() + longest > LONGEST_CALL) break;
    }
    n_running.fetch_sub(1);
    program.is_running.store(false);  // before a fork, which waits for the guard
    return taken;
}

// ---------------------------------------------------------------------------------------------
// The type Program of Python.

struct ProgramObject {
    PyObject_HEAD
    Program* program;
};

PyTypeObject* program_type = nullptr;

void free_program(PyObject* object) {
    PyTypeObject* type = Py_TYPE(object);
    delete reinterpret_cast<ProgramObject*>(object)->program;
    PyObject_Free(object);
    Py_DECREF(type);
}

// An array of a call: contiguous, of a dtype and a length; null with an error otherwise.
char* read_array(const char* name, PyObject* object, int type, npy_intp length, bool is_written) {
    PyArrayObject* array = reinterpret_cast<PyArrayObject*>(object);
    const bool fits = PyArray_Check(object) && PyArray_ISCARRAY_RO(array) &&
                      has_type(array, type) && PyArray_NDIM(array) == 1 &&
                      PyArray_DIM(array, 0) == length &&
                      (!is_written || PyArray_ISWRITEABLE(array));
    if (fits) return PyArray_BYTES(array);
    if (!PyArray_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s must be a NumPy array, got %s", name,
                     Py_TYPE(object)->tp_name);
        return nullptr;
    }
    PyObject* shape = shape_of(array);
    if (shape) {
        PyErr_Format(PyExc_ValueError,
                     "%s must be a contiguous %s array of shape (%zd,), got %S of shape %S", name,
                     type_name(type), length, (PyObject*)PyArray_DESCR(array), shape);
    }
    Py_XDECREF(shape);
    return nullptr;
}

std::string description(const Recorded& job) {
    const auto shape = [](const Product& p) {
        return "(" + std::to_string(p.m) + ", " + std::to_string(p.k) + ") @ (" +
               std::to_string(p.k) + ", " + std::to_string(p.n) + ")";
    };
    const auto name = [](const Task& task) {
        return std::string(PyUnicode_AsUTF8(task.self->name)) + " (" +
               (task.block.n_rows > 1 ? std::to_string(task.block.n_rows) + ", " : "") +
               std::to_string(task.block.n_columns) + (task.block.n_rows > 1 ? ")" : ",)");
    };
    if (job.work == run_part) return name(*static_cast<const Task*>(job.data));
    if (is_product(job)) {
        return "matmul " + shape(static_cast<const SharedProduct*>(job.data)->product);
    }
    if (job.work == update_part) {
        const UpdatedProduct& both = *static_cast<const UpdatedProduct*>(job.data);
        return "matmul " + shape(both.shared.product) + ", " + name(both.update);
    }
    if (job.work == gather_part) {
        const Gathering& g = *static_cast<const Gathering*>(job.data);
        return "gather (" + std::to_string(g.n) + ", " + std::to_string(g.row_size) + ")";
    }
    const Sums& s = *static_cast<const Sums*>(job.data);
    return "sum of parts (" + (s.n_rows > 1 ? std::to_string(s.n_rows) + ", " : "") +
           std::to_string(s.n_columns) + (s.n_rows > 1 ? ")" : ",)");
}

PyObject* program_jobs(PyObject* self, void*) {
    const Program& program = *reinterpret_cast<ProgramObject*>(self)->program;
    const std::vector<Recorded>& jobs = program.record.jobs;
    PyObject* found = PyTuple_New((Py_ssize_t)jobs.size());
    try {
        for (size_t i = 0; found && i < jobs.size(); ++i) {
            PyObject* text = PyUnicode_FromString(description(jobs[i]).c_str());
            if (!text) {
                Py_CLEAR(found);
            } else {
                PyTuple_SET_ITEM(found, (Py_ssize_t)i, text);
            }
        }
    } catch (const std::bad_alloc&) {
        Py_CLEAR(found);
        PyErr_NoMemory();
    }
    return found;
}

// run(losses, indices, rates, seconds): takes up to len(losses) steps; returns how many.
PyObject* program_run(PyObject* self, PyObject* args) {
    PyObject *losses, *indices, *rates, *seconds;
    if (!PyArg_ParseTuple(args, "OOOO", &losses, &indices, &rates, &seconds)) return nullptr;
    Program& p = *reinterpret_cast<ProgramObject*>(self)->program;
    Batches batches = {0, nullptr, nullptr, nullptr, nullptr};
    if (PyArray_Check(losses)) batches.n = PyArray_SIZE(reinterpret_cast<PyArrayObject*>(losses));
    const auto type = [](npy_intp size) { return size == sizeof(float) ? NPY_FLOAT : NPY_DOUBLE; };
    batches.losses = read_array("losses", losses, type(p.loss_size), batches.n, true);
    if (!batches.losses) return nullptr;
    const struct { const char* name; PyObject* given; bool is_recorded; } some[] = {
        {"indices", indices, p.batch_size != 0}, {"rates", rates, p.rate != nullptr}};
    for (const auto& one : some) {
        if ((one.given != Py_None) == one.is_recorded) continue;
        return PyErr_Format(PyExc_TypeError, "%s must be %s, as the steps were recorded, got %s",
                            one.name, one.is_recorded ? "an array" : "None",
                            Py_TYPE(one.given)->tp_name);
    }
    if (batches.n == 0) return PyErr_Format(PyExc_ValueError, "losses must not be empty");
    if (indices != Py_None) {
        const char* data =
            read_array("indices", indices, NPY_INT64, batches.n * p.batch_size, false);
        if (!data) return nullptr;
        batches.indices = reinterpret_cast<const npy_int64*>(data);
    }
    if (rates != Py_None) {
        batches.rates = read_array("rates", rates, type(p.rate_size), batches.n, false);
        if (!batches.rates) return nullptr;
    }
    if (seconds != Py_None) {
        const npy_intp n_jobs = (npy_intp)p.record.jobs.size();
        char* data = read_array("seconds", seconds, NPY_DOUBLE, n_jobs, true);
        if (!data) return nullptr;
        batches.seconds = reinterpret_cast<double*>(data);
    }
    if (p.is_running.exchange(true)) {
        PyErr_SetString(PyExc_RuntimeError, "this program is already running in another thread");
        return nullptr;
    }
    look_for_threads();
    Taken taken;
    Py_BEGIN_ALLOW_THREADS
    taken = take_steps(p, batches);
    Py_END_ALLOW_THREADS
    if (taken.n == 0) {
        return PyErr_Format(PyExc_IndexError, "indices must lie in [0, %zd), got %lld",
                            taken.n_samples, (long long)taken.outside);
    }
    return PyLong_FromSsize_t(taken.n);
}

// Reads an array of one element, of float32 or float64, that a step writes or reads.
bool read_scalar(PyObject* object, char** data, npy_intp* size) {
    if (object == Py_None) return true;
    PyArrayObject* array = reinterpret_cast<PyArrayObject*>(object);
    if (!PyArray_Check(object) || PyArray_SIZE(array) != 1 || !PyArray_ISCARRAY(array) ||
        !(has_type(array, NPY_FLOAT) || has_type(array, NPY_DOUBLE))) {
        PyErr_Format(PyExc_TypeError, "expected an array of one float, got %R", object);
        return false;
    }
    *data = PyArray_BYTES(array);
    *size = PyArray_ITEMSIZE(array);
    return true;
}

// record(work, loss, counter, indices, rate): a program of the operations that work() calls, which
// do not run meanwhile. Gathers by `indices` (int64, or None) take those of each step instead;
// `loss` is read after a step; `counter` (int64) is advanced and `rate` (or None) written before it.
PyObject* record_program(PyObject*, PyObject* args) {
    PyObject *work, *loss, *counter, *indices, *rate;
    if (!PyArg_ParseTuple(args, "OO!OOO", &work, &PyArray_Type, &loss, &counter, &indices, &rate)) {
        return nullptr;
    }
    if (recording) {
        PyErr_SetString(PyExc_RuntimeError, "this thread is already recording");
        return nullptr;
    }
    std::unique_ptr<Program> program(new (std::nothrow) Program);
    if (!program) return PyErr_NoMemory();
    if (!read_scalar(loss, &program->loss, &program->loss_size) ||
        !read_scalar(rate, &program->rate, &program->rate_size)) {
        return nullptr;
    }
    char* counted = read_array("counter", counter, NPY_INT64, 1, true);
    if (!counted) return nullptr;
    program->counter = reinterpret_cast<npy_int64*>(counted);
    program->record.keep(loss);
    program->record.keep(counter);
    if (rate != Py_None) program->record.keep(rate);
    const int collects = PyGC_Disable();  // a finalizer's operations are no part of the work
    recording = &program->record;
    PyObject* result = PyObject_CallNoArgs(work);
    recording = nullptr;
    if (collects) PyGC_Enable();
    if (!result) return nullptr;
    Py_DECREF(result);
    if (indices != Py_None) {
        PyArrayObject* array = reinterpret_cast<PyArrayObject*>(indices);
        if (!read_array("indices", indices, NPY_INT64, PyArray_SIZE(array), false)) return nullptr;
        program->batch_size = PyArray_SIZE(array);
        for (Recorded& job : program->record.jobs) {
            if (job.work != gather_part) continue;
            Gathering* g = static_cast<Gathering*>(job.data);
            if (reinterpret_cast<const char*>(g->index) == PyArray_BYTES(array)) {
                program->gathers.push_back(g);  // at most three, of samples, labels and weights
            }
        }
    }
    try {
        Rearrangement(&program->record.jobs).move_updates();
    } catch (const std::bad_alloc&) {
        program->record.is_incomplete = true;
    }
    if (program->record.is_incomplete) return PyErr_NoMemory();
    ProgramObject* self = PyObject_New(ProgramObject, program_type);
    if (!self) return nullptr;
    self->program = program.release();
    return reinterpret_cast<PyObject*>(self);
}

PyMethodDef program_methods[] = {
    {"run", program_run, METH_VARARGS,
     "run(losses, indices, rates, seconds): take up to len(losses) steps; return how many"},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef program_properties[] = {
    {"jobs", program_jobs, nullptr, "Descriptions of the jobs, in order.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot program_slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(free_program)},
    {Py_tp_methods, program_methods},
    {Py_tp_getset, program_properties},
    {0, nullptr},
};

PyType_Spec program_spec = {
    "xpnet.kernels._host.Program", sizeof(ProgramObject), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, program_slots,
};

}  // namespace
