// The extension module xpnet.kernels._host: operations over NumPy arrays, run by the loops that
// host_source.py writes.
//
// An Operation has the parameters and operands of its row in the catalogue (host_operation.h). A
// call reads the arguments, checks dtypes, shapes and overlap (host_arguments.h), turns every
// operand into a matrix with contiguous rows, and runs the loop over it (host_run.h). All that
// depends on the row comes from Python when the operation is made. The gather of a minibatch and
// matrix products have separate code (host_gather.h, host_matmul.h).

#include "host_numpy.h"  // Python's header comes before all others

#include "host_arguments.h"
#include "host_cpu.h"
#include "host_gather.h"
#include "host_loops.h"
#include "host_matmul.h"
#include "host_memory.h"
#include "host_operation.h"
#include "host_order.h"
#include "host_program.h"
#include "host_run.h"
#include "host_team.h"

extern "C" {
extern const XpnEntry xpn_loops_baseline[];
void xpn_words_baseline(unsigned int*, unsigned long long, ptrdiff_t, unsigned long long, unsigned int,
                    unsigned int, unsigned int);
int xpn_multiply_baseline(const XpnProduct*, int, int);
#ifdef XPN_HAVE_avx2
extern const XpnEntry xpn_loops_avx2[];
void xpn_words_avx2(unsigned int*, unsigned long long, ptrdiff_t, unsigned long long, unsigned int,
                    unsigned int, unsigned int);
int xpn_multiply_avx2(const XpnProduct*, int, int);
#endif
#ifdef XPN_HAVE_avx512
extern const XpnEntry xpn_loops_avx512[];
void xpn_words_avx512(unsigned int*, unsigned long long, ptrdiff_t, unsigned long long, unsigned int,
                    unsigned int, unsigned int);
int xpn_multiply_avx512(const XpnProduct*, int, int);
#endif
}

namespace {

struct Variant {
    const char* name;
    const XpnEntry* entries;
    XpnWords words;
    XpnMultiply multiply;
    bool is_supported;
};

struct Variants {
    Variant all[3];  // the best first
    int n = 0;
};

Variants find_variants() {
    const Processor processor = ask_processor();
    (void)processor;  // not read if there is only the baseline
    Variants found;
#ifdef XPN_HAVE_avx512
    found.all[found.n++] = {"avx512", xpn_loops_avx512, xpn_words_avx512, xpn_multiply_avx512,
                            processor.has_avx512};
#endif
#ifdef XPN_HAVE_avx2
    found.all[found.n++] = {"avx2", xpn_loops_avx2, xpn_words_avx2, xpn_multiply_avx2,
                            processor.has_avx2};
#endif
    found.all[found.n++] = {"baseline", xpn_loops_baseline, xpn_words_baseline,
                            xpn_multiply_baseline, true};
    return found;
}

// A virtual machine takes ten microseconds or more to ask its processor.
const Variants& variants() {
    static const Variants found = find_variants();
    return found;
}

// use_threads(processors, most, forced): the largest number of parts, the largest number of
// threads, and the forced number of threads (0 lets the team choose).
PyObject* use_threads(PyObject*, PyObject* args) {
    int processors, most, forced;
    if (!PyArg_ParseTuple(args, "iii", &processors, &most, &forced)) return nullptr;
    Blas& b = blas();
    std::lock_guard<std::mutex> lock(b.mutex);
    b.threads.processors = processors;
    b.threads.most = most;
    b.threads.forced = forced;
    Py_RETURN_NONE;
}

PyObject* memory = nullptr;

// use_memory(handler): makes NumPy allocate arrays of this context with the handler, or with that
// for large pages if it is None; returns the previous handler, or None if nothing changed.
PyObject* use_memory(PyObject*, PyObject* handler) {
    PyObject* wanted = handler == Py_None ? memory : handler;
    if (wanted == Py_None) Py_RETURN_NONE;
    return PyDataMem_SetHandler(wanted);
}

PyObject* assume_far(PyObject*, PyObject* far) {
    team().assume(far == Py_None ? -1 : PyObject_IsTrue(far));
    Py_RETURN_NONE;
}

PyObject* count_threads(PyObject*, PyObject*) { return PyLong_FromLong(team_size()); }

// Whether the caller and a helper share one core; None if that cannot be measured.
PyObject* shares_core(PyObject*, PyObject*) {
    if (team_size() < 2) Py_RETURN_NONE;
    Py_BEGIN_ALLOW_THREADS
    team().measure_now();
    Py_END_ALLOW_THREADS
    const int found = team().is_one_core();
    if (found < 0) Py_RETURN_NONE;
    return PyBool_FromLong(found);
}

// ---------------------------------------------------------------------------------------------
// The type Operation.

PyObject* call_operation(PyObject* callable, PyObject* const* args, size_t nargsf,
                         PyObject* names) {
    const Operation* self = reinterpret_cast<Operation*>(callable);
    const Py_ssize_t n_args = PyVectorcall_NARGS(nargsf);
    PyObject* given[XPN_MAX_OPERANDS] = {nullptr};
    XpnConstant constants[XPN_MAX_CONSTANTS];
    if (read_arguments(self, args, n_args, names, given, constants) < 0) return nullptr;
    if (self->kind == GATHER) {
        return run_gather(self, given, args, n_args, names, constants[0]);
    }
    return run_operation(self, given, constants);
}

void free_operation(PyObject* object) {
    Operation* self = reinterpret_cast<Operation*>(object);
    PyTypeObject* type = Py_TYPE(object);
    Py_XDECREF(self->attributes);
    Py_XDECREF(self->name);
    Py_XDECREF(self->reference);
    for (int i = 0; i < self->n_parameters; ++i) Py_XDECREF(self->parameters[i].name);
    for (int i = 0; i < self->n_operands; ++i) Py_XDECREF(self->operands[i].name);
    for (int i = 0; i < self->n_constants; ++i) Py_XDECREF(self->constants[i].name);
    PyObject_Free(object);
    Py_DECREF(type);
}

PyObject* represent(PyObject* object) {
    return PyUnicode_FromFormat("<fused operation %U>",
                                reinterpret_cast<Operation*>(object)->name);
}

PyMemberDef members[] = {
    {"__vectorcalloffset__", T_PYSSIZET, offsetof(Operation, vectorcall), READONLY, nullptr},
    {"__dictoffset__", T_PYSSIZET, offsetof(Operation, attributes), READONLY, nullptr},
    {nullptr, 0, 0, 0, nullptr},
};

PyGetSetDef properties[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

PyType_Slot slots[] = {
    {Py_tp_dealloc, reinterpret_cast<void*>(free_operation)},
    {Py_tp_call, reinterpret_cast<void*>(PyVectorcall_Call)},
    {Py_tp_repr, reinterpret_cast<void*>(represent)},
    {Py_tp_members, members},
    {Py_tp_getset, properties},
    {Py_tp_setattro, reinterpret_cast<void*>(PyObject_GenericSetAttr)},
    {Py_tp_getattro, reinterpret_cast<void*>(PyObject_GenericGetAttr)},
    {0, nullptr},
};

PyType_Spec operation_spec = {
    "xpnet.kernels._host.Operation", sizeof(Operation), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots,
};

PyTypeObject* operation_type = nullptr;

int index_of(PyObject* name, const OperandSpec* operands, int n) {
    for (int i = 0; i < n; ++i) {
        if (PyUnicode_Compare(operands[i].name, name) == 0) return i;
    }
    return -1;
}

// Reads (name, type, layout, use, optional) of every operand.
int read_operands(Operation* self, PyObject* operands) {
    const Py_ssize_t n = PyTuple_Size(operands);
    if (n < 0 || n > XPN_MAX_OPERANDS) return -1;
    self->result = -1;
    for (Py_ssize_t i = 0; i < n; ++i) {
        OperandSpec& spec = self->operands[i];
        const char* type;
        int layout, use, is_optional;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(operands, i), "Usiip", &spec.name, &type, &layout,
                              &use, &is_optional)) {
            return -1;
        }
        Py_INCREF(spec.name);
        ++self->n_operands;
        spec.type = strcmp(type, "T") == 0       ? NPY_NOTYPE
                    : strcmp(type, "uint8") == 0 ? NPY_UINT8
                                                 : NPY_INT64;
        spec.layout = static_cast<Layout>(layout);
        spec.use = static_cast<Use>(use);
        spec.is_optional = is_optional != 0;
        if (spec.layout == COLUMN) {
            if (spec.use == OUT) self->total = (int)i;
            self->has_columns = self->has_columns || spec.use == IN;
        }
        if (PyUnicode_CompareWithASCIIString(spec.name, "out") == 0) self->result = (int)i;
    }
    return 0;
}

// Reads (name, bits) of every constant that is given in a call.
int read_constants(Operation* self, PyObject* constants) {
    const Py_ssize_t n = PyTuple_Size(constants);
    if (n < 0 || n > XPN_MAX_CONSTANTS) return -1;
    for (Py_ssize_t i = 0; i < n; ++i) {
        ConstantSpec& spec = self->constants[i];
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(constants, i), "Ui", &spec.name, &spec.bits)) {
            return -1;
        }
        Py_INCREF(spec.name);
        ++self->n_constants;
        if (PyUnicode_CompareWithASCIIString(spec.name, "n_decay") == 0) self->reads_columns = true;
        if (PyUnicode_CompareWithASCIIString(spec.name, "height") == 0) self->height = (int)i;
        if (PyUnicode_CompareWithASCIIString(spec.name, "width") == 0) self->width = (int)i;
    }
    return 0;
}

// Reads (name, is_required, may_be_none, otherwise) of every parameter, an operand or a constant.
int read_parameters(Operation* self, PyObject* parameters) {
    const Py_ssize_t n = PyTuple_Size(parameters);
    if (n < 0 || n > MAX_PARAMETERS) return -1;
    for (Py_ssize_t i = 0; i < n; ++i) {
        Parameter& parameter = self->parameters[i];
        int is_required, may_be_none;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(parameters, i), "Uppd", &parameter.name,
                              &is_required, &may_be_none, &parameter.otherwise)) {
            return -1;
        }
        Py_INCREF(parameter.name);
        ++self->n_parameters;
        PyUnicode_InternInPlace(&parameter.name);
        parameter.is_required = is_required != 0;
        parameter.may_be_none = may_be_none != 0;
        parameter.index = index_of(parameter.name, self->operands, self->n_operands);
        parameter.is_operand = parameter.index >= 0;
        for (int k = 0; k < self->n_constants && !parameter.is_operand; ++k) {
            if (PyUnicode_Compare(self->constants[k].name, parameter.name) == 0) {
                parameter.index = k;
            }
        }
        if (parameter.index < 0) {
            PyErr_Format(PyExc_ValueError, "%U: %U is neither an operand nor a constant",
                         self->name, parameter.name);
            return -1;
        }
    }
    return 0;
}

// The variant of that name, or the best one for null; null if this processor does not support it.
const Variant* find_variant(const char* name) {
    for (int i = 0; i < variants().n; ++i) {
        const Variant& variant = variants().all[i];
        if (!variant.is_supported) continue;
        if (!name || strcmp(variant.name, name) == 0) return &variant;
    }
    return nullptr;
}

PyObject* make_operation(PyObject*, PyObject* args) {
    PyObject *name, *parameters, *operands, *constants, *reference;
    const char* variant;
    int kind;
    if (!PyArg_ParseTuple(args, "sUiO!O!O!O", &variant, &name, &kind, &PyTuple_Type, &parameters,
                          &PyTuple_Type, &operands, &PyTuple_Type, &constants, &reference)) {
        return nullptr;
    }
    const Variant* chosen = find_variant(variant);
    const XpnEntry* entry = chosen ? chosen->entries : nullptr;
    const char* row = PyUnicode_AsUTF8(name);
    if (!row) return nullptr;
    while (entry && entry->name && strcmp(entry->name, row) != 0) ++entry;
    if (!entry || !entry->name) {
        return PyErr_Format(PyExc_ValueError, "unknown operation %U for the instruction set %s",
                            name, variant);
    }
    Operation* self = PyObject_New(Operation, operation_type);
    if (!self) return nullptr;
    memset(reinterpret_cast<char*>(self) + sizeof(PyObject), 0,
           sizeof(Operation) - sizeof(PyObject));
    self->vectorcall = call_operation;
    Py_INCREF(name);
    self->name = name;
    Py_INCREF(reference);
    self->reference = reference;
    self->kind = static_cast<Kind>(kind);
    self->loops[0] = entry->float_loop;
    self->loops[1] = entry->double_loop;
    if (read_operands(self, operands) < 0 || read_constants(self, constants) < 0 ||
        read_parameters(self, parameters) < 0) {
        if (!PyErr_Occurred()) PyErr_SetString(PyExc_ValueError, "too many operands or constants");
        Py_DECREF(self);
        return nullptr;
    }
    return reinterpret_cast<PyObject*>(self);
}

PyObject* compiled_variants(PyObject*, PyObject*) {
    PyObject* found = PyDict_New();
    for (int i = 0; found && i < variants().n; ++i) {
        const Variant& variant = variants().all[i];
        PyObject* is_supported = variant.is_supported ? Py_True : Py_False;
        if (PyDict_SetItemString(found, variant.name, is_supported) < 0) Py_CLEAR(found);
    }
    return found;
}

PyObject* random_words(PyObject*, PyObject* args) {
    const char* name;
    unsigned long long first, seed;
    npy_intp n;
    unsigned int layer, step, purpose;
    if (!PyArg_ParseTuple(args, "sKnKIII", &name, &first, &n, &seed, &layer, &step, &purpose)) {
        return nullptr;
    }
    const Variant* variant = find_variant(name);
    if (!variant || n < 0) {
        return PyErr_Format(PyExc_ValueError,
                            "cannot draw %zd words with the instruction set %s", n, name);
    }
    PyObject* words = PyArray_SimpleNew(1, &n, NPY_UINT32);
    if (!words) return nullptr;
    variant->words(
        static_cast<unsigned int*>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(words))), first,
        n, seed, layer, step, purpose);
    return words;
}

PyObject* permutation(PyObject*, PyObject* args) {
    npy_intp n;
    unsigned long long seed;
    unsigned int step, purpose;
    if (!PyArg_ParseTuple(args, "nKII", &n, &seed, &step, &purpose)) return nullptr;
    PyObject* order = PyArray_SimpleNew(1, &n, NPY_INT64);
    if (!order) return nullptr;
    int64_t* out = static_cast<int64_t*>(PyArray_DATA(reinterpret_cast<PyArrayObject*>(order)));
    bool has_memory = true;
    Py_BEGIN_ALLOW_THREADS
    try {
        std::vector<unsigned int> words((size_t)n);
        find_variant(nullptr)->words(words.data(), 0, n, seed, 0, step, purpose);
        order_by_words(words.data(), n, out);
    } catch (const std::bad_alloc&) {
        has_memory = false;
    }
    Py_END_ALLOW_THREADS
    if (has_memory) return order;
    Py_DECREF(order);
    return PyErr_NoMemory();
}

PyObject* multiply_small(PyObject*, PyObject* args) {
    const char* name;
    PyObject* arrays[3];
    if (!PyArg_ParseTuple(args, "sOOO", &name, &arrays[0], &arrays[1], &arrays[2])) return nullptr;
    const Variant* variant = find_variant(name);
    Product p;
    if (!variant || !read_product(arrays, &p)) {
        return PyErr_Format(PyExc_ValueError, "no such product with the instruction set %s", name);
    }
    const XpnProduct product = p.is_double ? block_of<double>(p, 0, p.m, 0, p.n, p.out)
                                           : block_of<float>(p, 0, p.m, 0, p.n, p.out);
    return PyBool_FromLong(variant->multiply(&product, p.is_double, true));
}

PyMethodDef functions[] = {
    {"make_operation", make_operation, METH_VARARGS,
     "make_operation(variant, name, kind, parameters, operands, constants, reference)"},
    {"random_words", random_words, METH_VARARGS,
     "random_words(variant, first, n, seed, layer, step, purpose): words of the Philox stream"},
    {"permutation", permutation, METH_VARARGS,
     "permutation(n, seed, step, purpose): the numbers below n, ordered by words of that stream"},
    {"matmul", reinterpret_cast<PyCFunction>(reinterpret_cast<AnyFunction>(matmul)),
     METH_FASTCALL | METH_KEYWORDS, "matmul(A, B, out): the product of two matrices"},
    {"multiply_small", multiply_small, METH_VARARGS,
     "multiply_small(variant, A, B, out): for tests, a product without the BLAS if it fits"},
    {"use_blas", use_blas, METH_VARARGS,
     "use_blas(sgemm, dgemm, sgemv, dgemv, get_threads, set_threads, is_64_bit, is_fortran)"},
    {"use_threads", use_threads, METH_VARARGS,
     "use_threads(processors, most, forced): limits of the parts and threads of a job"},
    {"use_memory", use_memory, METH_O,
     "use_memory(handler): set how NumPy allocates arrays; None means in large pages"},
    {"assume_far", assume_far, METH_O,
     "assume_far(far): for tests, whether the team's threads are far; None measures it"},
    {"count_threads", count_threads, METH_NOARGS, "Return how many threads may share a product."},
    {"shares_core", shares_core, METH_NOARGS,
     "Return whether the team shares one core, or None if that cannot be measured."},
    {"record", record_program, METH_VARARGS,
     "record(work, loss, counter, indices, rate): a program of the operations that work() calls"},
    {"compiled_variants", compiled_variants, METH_NOARGS,
     "Return the compiled variants, the best first, and whether this processor can run them."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_host", "Loops over NumPy arrays, written from the catalogue.", -1,
    functions, nullptr, nullptr, nullptr, nullptr,
};

}  // namespace

// For threadpoolctl, which finds them by name (xpnet.kernels.blas).
extern "C" {
#if defined(__GNUC__)
#pragma GCC visibility push(default)
#endif
int xpnet_get_num_threads() { return get_limit(); }

void xpnet_set_num_threads(int n) { set_limit(n); }
#if defined(__GNUC__)
#pragma GCC visibility pop
#endif
}

PyMODINIT_FUNC PyInit__host() {
    if (PyArray_ImportNumPyAPI() < 0) return nullptr;
    PyObject* numpy = PyImport_ImportModule("numpy");
    numpy_matmul = numpy ? PyObject_GetAttrString(numpy, "matmul") : nullptr;
    Py_XDECREF(numpy);
    memory = make_memory();
    if (!numpy_matmul || !memory) return nullptr;
    blas().small = find_variant(nullptr)->multiply;
    prepare_for_forks();
    operation_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&operation_spec));
    program_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&program_spec));
    PyObject* module = operation_type && program_type ? PyModule_Create(&definition) : nullptr;
    if (!module) return nullptr;
    if (PyModule_AddObjectRef(module, "Operation", (PyObject*)operation_type) < 0 ||
        PyModule_AddObjectRef(module, "Program", (PyObject*)program_type) < 0 ||
        PyModule_AddStringConstant(module, "digest", XPN_DIGEST) < 0 ||
        PyModule_AddStringConstant(module, "compiler", XPN_COMPILER) < 0) {
        Py_DECREF(module);
        return nullptr;
    }
    return module;
}
