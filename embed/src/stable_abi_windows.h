/* The functions of stable_abi.h on Windows: each is a jump to the address that the runtime's DLL has it at.
 *
 * They are not imported, since Windows would then look for that DLL where the application is, and not where this binary is.
 */
#ifndef LIGHTKEEPER_STABLE_ABI_WINDOWS_H
#define LIGHTKEEPER_STABLE_ABI_WINDOWS_H

/* The name of one that a library does not have, or NULL; `find` returns an address by name. */
const char *stable_abi_bind(void *(*find)(void *library, const char *name), void *library);

#endif
