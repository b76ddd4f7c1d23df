/* Loads lightkeeper.dll by its path, as a program does that is not linked with it: loaded DLL CONFIG. */
#include <stdio.h>
#include <windows.h>

#include "lightkeeper.h"

int main(int argc, char **argv)
{
    lk_error error = {.reason = ""};
    lk_agent *agent;
    HMODULE library = argc == 3 ? LoadLibraryA(argv[1]) : NULL;
    if (library == NULL)
        return 2;
    const char *(*version)(void) = (const char *(*)(void))(void *)GetProcAddress(library, "lk_version");
    lk_status (*start)(const char *, lk_agent **, lk_error *) =
        (lk_status (*)(const char *, lk_agent **, lk_error *))(void *)GetProcAddress(library, "lk_start");
    if (version == NULL || start == NULL)
        return 3;
    start(argv[2], &agent, &error);
    printf("version %s\nstart: status %d reason %s\n", version(), (int)error.status, error.reason);
    fprintf(stderr, "%s\n", error.message);
    return 0;
}
