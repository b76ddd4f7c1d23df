/* What Windows has: wide characters, modules, and a backslash between folders. */
#include "system.h"

#define WIN32_LEAN_AND_MEAN
#include <windows.h>

#include <shellapi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

#include "stable_abi_windows.h"

static SRWLOCK lock = SRWLOCK_INIT;

static int wide_of(const char *text, wchar_t *wide, int size)
{
    return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, text, -1, wide, size) > 0 ? 0 : -1;
}

/* An unpaired surrogate, which file names may have, becomes a sign of replacement: the file is then not found. */
static int utf8_of(const wchar_t *wide, char *text, size_t size)
{
    return WideCharToMultiByte(CP_UTF8, 0, wide, -1, text, (int)size, NULL, NULL) > 0 ? 0 : -1;
}

int system_arguments(int *count, char ***arguments)
{
    wchar_t **given = CommandLineToArgvW(GetCommandLineW(), count);
    char **made = given != NULL ? calloc((size_t)*count + 1, sizeof *made) : NULL;
    for (int index = 0; made != NULL && index < *count; index++) {
        size_t size = 3 * wcslen(given[index]) + 1;
        made[index] = malloc(size);
        if (made[index] == NULL || utf8_of(given[index], made[index], size) < 0)
            return -1; /* the process ends with it */
    }
    LocalFree(given);
    if (made == NULL)
        return -1;
    *arguments = made;
    return 0;
}

static int path_of(HMODULE module, char *path, size_t size)
{
    wchar_t wide[SYSTEM_PATH_BYTES];
    DWORD length = GetModuleFileNameW(module, wide, SYSTEM_PATH_BYTES);
    return length > 0 && length < SYSTEM_PATH_BYTES ? utf8_of(wide, path, size) : -1;
}

const char *system_program(char *path, size_t size)
{
    return path_of(NULL, path, size) == 0 ? NULL : "the path of this program is too long";
}

int system_library(char *path, size_t size)
{
    HMODULE self;
    DWORD how = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
    return GetModuleHandleExW(how, (const wchar_t *)(void *)&system_library, &self) ? path_of(self, path, size) : -1;
}

/* Write a file's path with links followed, as programs write it: without the \\?\ that Windows puts before it. */
static int resolve(const char *file, wchar_t *resolved, DWORD size)
{
    static const wchar_t share[] = L"\\\\?\\UNC\\", device[] = L"\\\\?\\";
    wchar_t wide[SYSTEM_PATH_BYTES];
    if (wide_of(file, wide, SYSTEM_PATH_BYTES) < 0)
        return -1;
    HANDLE handle = CreateFileW(wide, 0, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, NULL, OPEN_EXISTING,
                                FILE_FLAG_BACKUP_SEMANTICS, NULL);
    if (handle == INVALID_HANDLE_VALUE)
        return -1;
    DWORD length = GetFinalPathNameByHandleW(handle, resolved, size, VOLUME_NAME_DOS);
    CloseHandle(handle);
    if (length == 0 || length >= size) /* of a volume without a letter: as the path was given */
        return wcslen(wide) < size ? (wcscpy(resolved, wide), 0) : -1;
    if (wcsncmp(resolved, share, wcslen(share)) == 0)
        wmemmove(resolved + 1, resolved + wcslen(share) - 1, wcslen(resolved + wcslen(share) - 1) + 1);
    else if (wcsncmp(resolved, device, wcslen(device)) == 0)
        wmemmove(resolved, resolved + wcslen(device), wcslen(resolved + wcslen(device)) + 1);
    return 0;
}

int system_folder_above(const char *file, int levels, char *folder, size_t size)
{
    wchar_t resolved[SYSTEM_PATH_BYTES];
    if (resolve(file, resolved, SYSTEM_PATH_BYTES) < 0)
        return -1;
    for (; levels > 0; levels--) {
        wchar_t *last = wcsrchr(resolved, L'\\');
        if (last == NULL)
            return -1;
        *last = L'\0';
    }
    if (wcslen(resolved) == 2 && resolved[1] == L':')
        wcscat(resolved, L"\\"); /* the letter alone would be that drive's current folder */
    return utf8_of(resolved, folder, size);
}

int system_join(char *path, size_t size, const char *folder, const char *below)
{
    const char *between = folder[0] != '\0' && folder[strlen(folder) - 1] == '\\' ? "" : "\\";
    if ((size_t)snprintf(path, size, "%s%s%s", folder, between, below) >= size)
        return -1;
    for (char *sign = path; *sign != '\0'; sign++)
        if (*sign == '/')
            *sign = '\\';
    return 0;
}

void system_lock(void)
{
    AcquireSRWLockExclusive(&lock);
}

void system_unlock(void)
{
    ReleaseSRWLockExclusive(&lock);
}

/* Load a library of the archive, and what it needs from beside it; NULL where that fails. */
static HMODULE load(const char *root, const char *name)
{
    char path[SYSTEM_PATH_BYTES];
    wchar_t wide[SYSTEM_PATH_BYTES];
    if (system_join(path, sizeof path, root, name) < 0 || wide_of(path, wide, SYSTEM_PATH_BYTES) < 0)
        return NULL;
    return LoadLibraryExW(wide, NULL, LOAD_LIBRARY_SEARCH_DLL_LOAD_DIR | LOAD_LIBRARY_SEARCH_SYSTEM32);
}

static void *find(void *library, const char *name)
{
    return (void *)GetProcAddress(library, name);
}

int system_load_python(const char *root, char *fault, size_t size)
{
    char path[SYSTEM_PATH_BYTES];
    HMODULE before = GetModuleHandleA(LK_PYTHON_LIBRARY);
    HMODULE library = load(root, "lib/" LK_PYTHON_LIBRARY);
    if (library == NULL) {
        snprintf(fault, size, LK_PYTHON_LIBRARY " cannot be loaded from the folder lib below %s (Windows error %lu)", root,
                 GetLastError());
        return -1;
    }
    if (before != NULL && before != library) { /* extension modules would find that one: they look for it by name */
        snprintf(fault, size, "another " LK_PYTHON_LIBRARY " is in this process: %s",
                 path_of(before, path, sizeof path) == 0 ? path : "its path is too long");
        return -1;
    }
    const char *lacking = stable_abi_bind(find, library);
    if (lacking != NULL) {
        snprintf(fault, size, LK_PYTHON_LIBRARY " of this archive has no %s", lacking);
        return -1;
    }
    return 0;
}

/* ONNX Runtime needs the C++ library, found by its name once it is loaded. The archive's is taken before the system's,
 * which may be too old for it; one that the application has loaded stays. */
void system_share_libraries(const char *root)
{
    static const char *const names[] = {"vcruntime140_1.dll", "msvcp140.dll", "msvcp140_1.dll"};
    for (size_t index = 0; index < sizeof names / sizeof *names; index++) {
        char below[32];
        snprintf(below, sizeof below, "lib/%s", names[index]);
        if (GetModuleHandleA(names[index]) == NULL)
            load(root, below); /* where this fails, the import that needs it says so */
    }
}
