/* A program of the archive: starts the Python runtime beside it and runs one command of Lightkeeper in this process.
 *
 * One source, several programs: which command it is, is compiled in (LK_COMMAND, a function of `lightkeeper.__main__`).
 */
#include <stdio.h>

#include "runtime.h"
#include "system.h"

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
    char root[SYSTEM_PATH_BYTES], executable[SYSTEM_PATH_BYTES], fault[512];
    const char *program = argc > 0 ? argv[0] : "lightkeeper";
    const char *lost = system_program(executable, sizeof executable);
    if (lost != NULL)
        return refuse(program, lost);
    if (runtime_load(executable, root, sizeof root, fault, sizeof fault) < 0)
        return refuse(program, fault);
    PyInitConfig *config = runtime_configure(root, executable, fault, sizeof fault);
    if (config == NULL)
        return refuse(program, fault);
    if (system_arguments(&argc, &argv) < 0 || PyInitConfig_SetInt(config, "install_signal_handlers", 1) < 0
        || PyInitConfig_SetInt(config, "parse_argv", 0) < 0
        || PyInitConfig_SetStrList(config, "argv", (size_t)argc, argv) < 0
        || PyInitConfig_SetStr(config, "run_command", "from lightkeeper.__main__ import " LK_COMMAND "\n" LK_COMMAND "()") < 0)
        return refuse(program, "the command cannot be configured");
    if (runtime_start(config, fault, sizeof fault) < 0)
        return refuse(program, fault);
    return Py_RunMain();
}
