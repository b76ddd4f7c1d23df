/* The Python runtime that lies in the archive beside these binaries. */
#ifndef LIGHTKEEPER_RUNTIME_H
#define LIGHTKEEPER_RUNTIME_H

#include <stddef.h>

#include "stable_abi.h"

/* Write the folder above the one that `file` lies in: the root of the archive. 0, or -1 where it does not fit. */
int runtime_root_above(const char *file, char *root, size_t size);

/* Return a configuration of the runtime below `root`, or NULL with the reason in `fault`. It reads no environment
 * variable, no user's packages and no current folder, and writes no bytecode. */
PyInitConfig *runtime_configure(const char *root, const char *executable, char *fault, size_t size);

/* Start the interpreter. 0, or -1 with the reason in `fault`. Frees the configuration. */
int runtime_start(PyInitConfig *config, char *fault, size_t size);

#endif
