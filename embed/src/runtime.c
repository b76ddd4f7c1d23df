/* The Python runtime that lies in the archive: where it is, how it is configured, and how it starts. */
#include "runtime.h"

#include <stdio.h>

#include "system.h"

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

int runtime_load(const char *file, char *root, size_t size, char *fault, size_t fault_size)
{
    if (system_folder_above(file, 2, root, size) < 0) {
        snprintf(fault, fault_size, "the folder of the archive cannot be found above %s", file);
        return -1;
    }
    return system_load_python(root, fault, fault_size);
}

PyInitConfig *runtime_configure(const char *root, const char *executable, char *fault, size_t size)
{
    static const char *const folders[] = {LIBRARY, LIBRARY "/lib-dynload", LIBRARY "/site-packages"};
    enum { FOLDERS = sizeof folders / sizeof *folders };
    char paths[FOLDERS][SYSTEM_PATH_BYTES];
    char *list[FOLDERS];
    for (int index = 0; index < FOLDERS; index++) {
        if (system_join(paths[index], sizeof paths[index], root, folders[index]) < 0) {
            snprintf(fault, size, "the path of the archive is too long: %s", root);
            return NULL;
        }
        list[index] = paths[index];
    }
    system_share_libraries(root);
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
