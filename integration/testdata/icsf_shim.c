/* Stock's libpkcs11_icsf.so.0 calls a function that it defines under a name with a letter
   missing, and cannot be loaded. Preloaded, this has the name that is called. */
#include <dlfcn.h>
#include <stddef.h>

typedef int derive(void *, void *, void *, void *, void *, unsigned long, void *, void *, void *, void *, void *, void *);

int icsf_derive_multiple_keys(void *a, void *b, void *c, void *d, void *e, unsigned long f, void *g, void *h, void *i, void *j, void *k, void *l)
{
	void *library = dlopen("libpkcs11_icsf.so.0", RTLD_NOW | RTLD_NOLOAD);
	derive *defined = library ? (derive *)dlsym(library, "icsf_derive_multple_keys") : NULL;

	return defined ? defined(a, b, c, d, e, f, g, h, i, j, k, l) : -1;
}
