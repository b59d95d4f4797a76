#include <stdint.h>

/* As many arguments as any function of the libraries has. */
enum { MOST = 31 };

/* lib_open loads a library for good. It returns NULL and says why if that fails. */
void *lib_open(const char *file, const char **why);

/* lib_symbol is the address of a function, NULL of one that the library has not. */
void *lib_symbol(void *lib, const char *name);

/* lib_call calls a function whose arguments are all numbers and pointers, MOST of them at
   most. Those that it does not take do no harm: on these machines the caller of a function
   takes the arguments away. */
uint64_t lib_call(void *function, const uint64_t *args);
