/* The Python runtime that lies in the archive: where it is, how it is configured, and how it starts. */
#include "runtime.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef LK_PYTHON
#error "compile with -DLK_PYTHON=\"python3.NN\", the name of the runtime's library folder"
#endif

#define LIBRARY "lib/" LK_PYTHON

static PyInitConfig *refuse(PyInitConfig *config, char *fault, size_t size)
{
    const char *message = NULL;
    if (config == NULL || PyInitConfig_GetError(config, &message) != 1 || message == NULL)
        message = "out of memory";
    snprintf(fault, size, "the Python runtime cannot be configured: %s", message);
    if (config != NULL)
        PyInitConfig_Free(config);
    return NULL;
}

int runtime_root_above(const char *file, char *root, size_t size)
{
    char resolved[PATH_MAX];
    if (realpath(file, resolved) == NULL)
        return -1;
    for (int levels = 0; levels < 2; levels++) {
        char *slash = strrchr(resolved, '/');
        if (slash == NULL)
            return -1;
        *slash = '\0';
    }
    return (size_t)snprintf(root, size, "%s", resolved[0] != '\0' ? resolved : "/") < size ? 0 : -1;
}

/* ONNX Runtime needs the C++ library. The system's own is taken where there is one, since it is at least as new; the
 * archive's is for systems that have nothing but a C library. */
static void have_cpp_library(const char *root)
{
    static const char *const names[] = {"libgcc_s.so.1", "libstdc++.so.6"};
    for (size_t index = 0; index < sizeof names / sizeof *names; index++) {
        char path[PATH_MAX];
        if (dlopen(names[index], RTLD_NOW | RTLD_GLOBAL) != NULL)
            continue;
        if ((size_t)snprintf(path, sizeof path, "%s/lib/fallback/%s", root, names[index]) < sizeof path)
            dlopen(path, RTLD_NOW | RTLD_GLOBAL); /* where this fails, the import that needs it says so */
    }
}

PyInitConfig *runtime_configure(const char *root, const char *executable, char *fault, size_t size)
{
    static const char *const folders[] = {LIBRARY, LIBRARY "/lib-dynload", LIBRARY "/site-packages"};
    enum { FOLDERS = sizeof folders / sizeof *folders };
    char paths[FOLDERS][PATH_MAX];
    char *list[FOLDERS];
    for (int index = 0; index < FOLDERS; index++) {
        if ((size_t)snprintf(paths[index], sizeof paths[index], "%s/%s", root, folders[index]) >= sizeof paths[index]) {
            snprintf(fault, size, "the path of the archive is too long: %s", root);
            return NULL;
        }
        list[index] = paths[index];
    }
    have_cpp_library(root);
    PyInitConfig *config = PyInitConfig_Create(); /* isolated: no environment, no user's packages */
    if (config == NULL || PyInitConfig_SetStr(config, "home", root) < 0
        || PyInitConfig_SetStr(config, "executable", executable) < 0
        || PyInitConfig_SetStrList(config, "module_search_paths", FOLDERS, list) < 0
        || PyInitConfig_SetInt(config, "optimization_level", 2) < 0 /* as the archive's bytecode was made */
        || PyInitConfig_SetInt(config, "site_import", 0) < 0 || PyInitConfig_SetInt(config, "write_bytecode", 0) < 0
        || PyInitConfig_SetInt(config, "utf8_mode", 1) < 0) /* a service has no locale, and file names are UTF-8 */
        return refuse(config, fault, size);
    return config;
}

int runtime_start(PyInitConfig *config, char *fault, size_t size)
{
    if (Py_InitializeFromInitConfig(config) < 0) {
        refuse(config, fault, size);
        return -1;
    }
    PyInitConfig_Free(config);
    return 0;
}
