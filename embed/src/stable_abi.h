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

/* Initialisation (PEP 741). Each setter gives -1 on an error, which PyInitConfig_GetError then tells. */
PyInitConfig *PyInitConfig_Create(void);
void PyInitConfig_Free(PyInitConfig *config);
int PyInitConfig_SetInt(PyInitConfig *config, const char *name, int64_t value);
int PyInitConfig_SetStr(PyInitConfig *config, const char *name, const char *value);
int PyInitConfig_SetStrList(PyInitConfig *config, const char *name, size_t length, char *const *items);
int PyInitConfig_GetError(PyInitConfig *config, const char **message);
int PyInitConfig_GetExitCode(PyInitConfig *config, int *code);
int Py_InitializeFromInitConfig(PyInitConfig *config);
int Py_IsInitialized(void);
int Py_RunMain(void);

#endif
