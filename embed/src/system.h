/* What POSIX and Windows do differently for the programs and the library of an archive: system_posix.c or
 * system_windows.c, one of which is linked.
 *
 * Texts and paths are UTF-8. A function that fills a buffer returns 0, or -1 where there is no such thing or no room.
 */
#ifndef LIGHTKEEPER_SYSTEM_H
#define LIGHTKEEPER_SYSTEM_H

#include <stddef.h>

enum { SYSTEM_PATH_BYTES = 4096 }; /* of the longest path, with its zero byte */

/* Make the arguments of `main` UTF-8. */
int system_arguments(int *count, char ***arguments);

/* Write the path of this process's program. NULL, or what is wrong. */
const char *system_program(char *path, size_t size);

/* Write the path of the library that this code is linked into. */
int system_library(char *path, size_t size);

/* Write the folder so many levels above a file, once its links are followed. */
int system_folder_above(const char *file, int levels, char *folder, size_t size);

/* Write the path of what lies below a folder; `below` has slashes on every system. */
int system_join(char *path, size_t size, const char *folder, const char *below);

/* Hold a lock that all threads of the process share, and let go of it. */
void system_lock(void);
void system_unlock(void);

/* Make the functions of stable_abi.h callable: they are those of the runtime below `root`. 0, or -1 with the reason in
 * `fault`. */
int system_load_python(const char *root, char *fault, size_t size);

/* Make the libraries that extension modules need findable for them. */
void system_share_libraries(const char *root);

#endif
