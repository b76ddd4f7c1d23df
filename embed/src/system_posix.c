/* What Linux has: /proc, the dynamic linker's functions, and a slash between folders. */
#define _GNU_SOURCE /* dladdr */
#include "system.h"

#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int copy(char *target, size_t size, const char *text)
{
    return (size_t)snprintf(target, size, "%s", text) < size ? 0 : -1;
}

int system_arguments(int *count, char ***arguments)
{
    (void)count, (void)arguments; /* they are what the user typed, and file names are bytes */
    return 0;
}

const char *system_program(char *path, size_t size)
{
    ssize_t length = readlink("/proc/self/exe", path, size - 1);
    path[length > 0 ? length : 0] = '\0';
    return length > 0 ? NULL : "the folder of this program cannot be found (is /proc mounted?)";
}

int system_library(char *path, size_t size)
{
    Dl_info self;
    return dladdr((void *)&system_library, &self) != 0 ? copy(path, size, self.dli_fname) : -1;
}

int system_folder_above(const char *file, int levels, char *folder, size_t size)
{
    char resolved[PATH_MAX];
    if (realpath(file, resolved) == NULL)
        return -1;
    for (; levels > 0; levels--) {
        char *slash = strrchr(resolved, '/');
        if (slash == NULL)
            return -1;
        *slash = '\0';
    }
    return copy(folder, size, resolved[0] != '\0' ? resolved : "/");
}

int system_join(char *path, size_t size, const char *folder, const char *below)
{
    return (size_t)snprintf(path, size, "%s/%s", folder, below) < size ? 0 : -1;
}

void system_lock(void)
{
    pthread_mutex_lock(&lock);
}

void system_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

int system_load_python(const char *root, char *fault, size_t size)
{
    (void)root, (void)fault, (void)size; /* the dynamic linker did: it is needed by name, and lies in the run path */
    return 0;
}

/* ONNX Runtime needs the C++ library. The system's own is taken where there is one, since it is at least as new; the
 * archive's is for systems that have nothing but a C library. */
static void share_cpp_library(const char *root)
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

void system_share_libraries(const char *root)
{
    dlopen(LK_PYTHON_LIBRARY, RTLD_NOW | RTLD_GLOBAL | RTLD_NOLOAD); /* of a library, it is not global by itself */
    share_cpp_library(root);
}
