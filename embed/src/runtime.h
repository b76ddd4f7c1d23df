/* The Python runtime that lies in the archive beside these binaries. */
#ifndef LIGHTKEEPER_RUNTIME_H
#define LIGHTKEEPER_RUNTIME_H

#include <stddef.h>

#include "stable_abi.h"

/* Write the root of the archive that `file` lies in, a folder below it, into `root`, and make the functions of Python
 * callable: none may be called before. 0, or -1 with the reason in `fault`. */
int runtime_load(const char *file, char *root, size_t size, char *fault, size_t fault_size);

/* Return a configuration of the runtime below `root`, or NULL with the reason in `fault`. It reads no environment
 * variable, no user's packages and no current folder, and writes no bytecode. */
PyInitConfig *runtime_configure(const char *root, const char *executable, char *fault, size_t size);

/* Start the interpreter. 0, or -1 with the reason in `fault`. Frees the configuration. */
int runtime_start(PyInitConfig *config, char *fault, size_t size);

#endif
