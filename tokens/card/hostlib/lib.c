#include "lib.h"

#include <dlfcn.h>
#include <stddef.h>

void *lib_open(const char *file, const char **why)
{
	void *lib = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);

	if (lib == NULL)
		*why = dlerror();
	return lib;
}

void *lib_symbol(void *lib, const char *name)
{
	return dlsym(lib, name);
}

#define U uint64_t
typedef U (*function)(U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U);
#undef U

uint64_t lib_call(void *p, const uint64_t *a)
{
	function f = (function)(uintptr_t)p;

	return f(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15], a[16],
		 a[17], a[18], a[19], a[20], a[21], a[22], a[23], a[24], a[25], a[26], a[27], a[28], a[29], a[30]);
}
