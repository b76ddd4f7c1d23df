/* The functions of CPython that this folder calls: all of the stable ABI, and of the initialisation API of Python 3.14.
 *
 * They are declared here because the runtime that the archive ships has no headers, and because one set of declarations
 * then serves every machine that is built for. What the stable ABI has does not change.
 */
#ifndef LIGHTKEEPER_STABLE_ABI_H
#define LIGHTKEEPER_STABLE_ABI_H

#include <stddef.h>
#include <stdint.h>

typedef struct _object PyObject;
typedef struct PyInitConfig PyInitConfig;
typedef struct _ts PyThreadState;
typedef int PyGILState_STATE;
typedef intptr_t Py_ssize_t;

/* Initialisation (PEP 741). Each setter gives -1 on an error, which PyInitConfig_GetError then tells. */
PyInitConfig *PyInitConfig_Create(void);
void PyInitConfig_Free(PyInitConfig *config);
int PyInitConfig_SetInt(PyInitConfig *config, const char *name, int64_t value);
int PyInitConfig_SetStr(PyInitConfig *config, const char *name, const char *value);
int PyInitConfig_SetStrList(PyInitConfig *config, const char *name, size_t length, char *const *items);
int PyInitConfig_GetError(PyInitConfig *config, const char **message);
int Py_InitializeFromInitConfig(PyInitConfig *config);
int Py_IsInitialized(void);
int Py_RunMain(void);

/* Threads. */
PyThreadState *PyEval_SaveThread(void);
PyGILState_STATE PyGILState_Ensure(void);
void PyGILState_Release(PyGILState_STATE state);

/* Constants, as new references: since Python 3.13. */
enum { PY_CONSTANT_NONE = 0 };
PyObject *Py_GetConstant(unsigned int constant);

/* Objects: functions that return a PyObject give a new reference, unless it says «borrowed», or NULL with an exception. */
void Py_IncRef(PyObject *object);
void Py_DecRef(PyObject *object);
PyObject *PyImport_ImportModule(const char *name);
PyObject *PyObject_GetAttrString(PyObject *object, const char *name);
PyObject *PyObject_CallObject(PyObject *callable, PyObject *arguments);
PyObject *PyTuple_New(Py_ssize_t size);
int PyTuple_SetItem(PyObject *tuple, Py_ssize_t index, PyObject *stolen);
PyObject *PyTuple_GetItem(PyObject *tuple, Py_ssize_t index); /* borrowed */
Py_ssize_t PyTuple_Size(PyObject *tuple);
PyObject *PyLong_FromLongLong(long long value);
long PyLong_AsLong(PyObject *object);
PyObject *PyUnicode_FromString(const char *text);
const char *PyUnicode_AsUTF8AndSize(PyObject *object, Py_ssize_t *size);
PyObject *PyMemoryView_FromMemory(char *memory, Py_ssize_t size, int flags);
void PyErr_Clear(void);
void PyErr_Print(void);

/* Buffers: part of the stable ABI since Python 3.11. */
typedef struct {
    void *buf;
    PyObject *obj;
    Py_ssize_t len;
    Py_ssize_t itemsize;
    int readonly;
    int ndim;
    char *format;
    Py_ssize_t *shape;
    Py_ssize_t *strides;
    Py_ssize_t *suboffsets;
    void *internal;
} Py_buffer;
int PyObject_GetBuffer(PyObject *object, Py_buffer *view, int flags);
void PyBuffer_Release(Py_buffer *view);

enum { PyBUF_SIMPLE = 0, PyBUF_READ = 0x100 };

#endif
