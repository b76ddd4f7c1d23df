#include "stable_abi_windows.h"

#include <stddef.h>

#define FUNCTIONS(of) \
    of(PyBuffer_Release) of(PyErr_Clear) of(PyErr_Print) of(PyEval_SaveThread) of(PyGILState_Ensure) \
    of(PyGILState_Release) of(PyImport_ImportModule) of(PyInitConfig_Create) of(PyInitConfig_Free) \
    of(PyInitConfig_GetError) of(PyInitConfig_SetInt) of(PyInitConfig_SetStr) of(PyInitConfig_SetStrList) \
    of(PyLong_AsLong) of(PyLong_FromLongLong) of(PyMemoryView_FromMemory) of(PyObject_CallObject) \
    of(PyObject_GetAttrString) of(PyObject_GetBuffer) of(PyTuple_GetItem) of(PyTuple_New) of(PyTuple_SetItem) \
    of(PyTuple_Size) of(PyUnicode_AsUTF8AndSize) of(PyUnicode_FromString) of(Py_DecRef) of(Py_GetConstant) \
    of(Py_IncRef) of(Py_InitializeFromInitConfig) of(Py_IsInitialized) of(Py_RunMain)

#define JUMP(name) \
    void *address_of_##name; \
    __asm__(".globl " #name "\n" #name ": jmp *address_of_" #name "(%rip)\n");
FUNCTIONS(JUMP)

#define ROW(name) {#name, &address_of_##name},
static const struct {
    const char *name;
    void **address;
} rows[] = {FUNCTIONS(ROW)};

const char *stable_abi_bind(void *(*find)(void *library, const char *name), void *library)
{
    for (size_t index = 0; index < sizeof rows / sizeof *rows; index++)
        if ((*rows[index].address = find(library, rows[index].name)) == NULL)
            return rows[index].name;
    return NULL;
}
