/* A failing disk for one program: preloaded, it refuses file operations below a folder.
 *
 *   FAULT_PREFIX   only files whose path begins with this
 *   FAULT_AT       the n-th operation from the moment the file FAULT_SWITCH exists is refused (0: none)
 *   FAULT_ERRNO    with this error
 *   FAULT_LASTING  and, where this is 1, every one after it
 *   FAULT_SHORT    where this is 1, a refused write has written half of its bytes
 *   FAULT_COUNTS   a file that the counts of operations are written to at the end: "syncs writes"
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long seen, syncs, writes;

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static int ours(int descriptor) {
    char link[64], path[PATH_MAX];
    const char *prefix = getenv("FAULT_PREFIX");
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (!prefix || length < 0) return 0;
    path[length] = 0;
    return strncmp(path, prefix, strlen(prefix)) == 0;
}

static int refused(void) {
    const char *on = getenv("FAULT_SWITCH");
    int saved = errno;
    int off = on && access(on, F_OK) != 0;
    errno = saved;
    if (off) return 0;
    long at = number("FAULT_AT"), now = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    if (!at || now < at || (now > at && !number("FAULT_LASTING"))) return 0;
    errno = (int)number("FAULT_ERRNO");
    return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t write(int descriptor, const void *data, size_t size) {
    if (ours(descriptor)) {
        __atomic_add_fetch(&writes, 1, __ATOMIC_SEQ_CST);
        if (refused()) {
            int error = errno;
            if (number("FAULT_SHORT") && size > 1) REAL(write)(descriptor, data, size / 2);
            errno = error;
            return -1;
        }
    }
    return REAL(write)(descriptor, data, size);
}

static ssize_t at(int descriptor, const void *data, size_t size, off64_t offset) {
    if (ours(descriptor)) {
        __atomic_add_fetch(&writes, 1, __ATOMIC_SEQ_CST);
        if (refused()) {
            int error = errno;
            if (number("FAULT_SHORT") && size > 1) REAL(pwrite64)(descriptor, data, size / 2, offset);
            errno = error;
            return -1;
        }
    }
    return REAL(pwrite64)(descriptor, data, size, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t offset) {
    return at(descriptor, data, size, offset);
}

ssize_t pwrite(int descriptor, const void *data, size_t size, off_t offset) {
    return at(descriptor, data, size, offset);
}

static int sync_of(int descriptor, int (*real)(int)) {
    if (ours(descriptor)) {
        __atomic_add_fetch(&syncs, 1, __ATOMIC_SEQ_CST);
        if (refused()) return -1;
    }
    return real(descriptor);
}

int fdatasync(int descriptor) { return sync_of(descriptor, REAL(fdatasync)); }

int fsync(int descriptor) { return sync_of(descriptor, REAL(fsync)); }

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("FAULT_COUNTS");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (!file) return;
    fprintf(file, "%ld %ld\n", syncs, writes);
    fclose(file);
}
