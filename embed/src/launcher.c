/* A program of the archive: starts the Python runtime beside it and runs one command of Lightkeeper in this process.
 *
 * One source, several programs: which command it is, is compiled in (LK_COMMAND, a function of `lightkeeper.__main__`).
 */
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include "runtime.h"

#ifndef LK_COMMAND
#error "compile with -DLK_COMMAND=\"name\", the function of lightkeeper.__main__ that this program runs"
#endif

enum { REFUSED = 70 };

static int refuse(const char *program, const char *fault)
{
    fprintf(stderr, "%s: %s\n  next step: unpack the archive anew; all of it must stay in one folder\n", program, fault);
    return REFUSED;
}

int main(int argc, char **argv)
{
    char root[PATH_MAX], executable[PATH_MAX], fault[512];
    const char *program = argc > 0 ? argv[0] : "lightkeeper";
    ssize_t length = readlink("/proc/self/exe", executable, sizeof executable - 1);
    executable[length > 0 ? length : 0] = '\0';
    if (length <= 0 || runtime_root_above(executable, root, sizeof root) < 0)
        return refuse(program, "the folder of this program cannot be found (is /proc mounted?)");
    PyInitConfig *config = runtime_configure(root, executable, fault, sizeof fault);
    if (config == NULL)
        return refuse(program, fault);
    if (PyInitConfig_SetInt(config, "install_signal_handlers", 1) < 0
        || PyInitConfig_SetInt(config, "parse_argv", 0) < 0
        || PyInitConfig_SetStrList(config, "argv", (size_t)argc, argv) < 0
        || PyInitConfig_SetStr(config, "run_command", "from lightkeeper.__main__ import " LK_COMMAND "\n" LK_COMMAND "()") < 0)
        return refuse(program, "the command cannot be configured");
    if (runtime_start(config, fault, sizeof fault) < 0)
        return refuse(program, fault);
    return Py_RunMain();
}
