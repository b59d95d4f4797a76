#include "lib.h"

#include <dlfcn.h>
#include <stdlib.h>

const char *libica_load(library *l, const char *file)
{
	if (!(l->handle = dlopen(file, RTLD_NOW | RTLD_LOCAL)))
		return file;
#define LOOK(name) \
	if (!(*(void **)&l->name = dlsym(l->handle, #name))) \
		return #name;
	LOOK(ica_open_adapter)
	LOOK(ica_close_adapter)
	LOOK(ica_get_functionlist)
	LOOK(ica_rsa_crt)
#undef LOOK
	if (l->ica_open_adapter(&l->adapter) != 0)
		return "an adapter";
	l->open = 1;
	return NULL;
}

void libica_close(library *l)
{
	if (l->open)
		l->ica_close_adapter(l->adapter);
	if (l->handle)
		dlclose(l->handle);
}

enum {
	RSA_CRT = 91,
	BY_CARDS = 2,
	MOST = 1024, // functions; there are some 70
};

int libica_has_cards(const library *l)
{
	unsigned int n = 0, found = 0;
	if (l->ica_get_functionlist(NULL, &n) != 0 || n == 0 || n > MOST)
		return 0;
	function *list = calloc(n, sizeof *list);
	unsigned int room = n;
	if (list && l->ica_get_functionlist(list, &n) == 0)
		for (unsigned int i = 0; i < n && i < room; i++)
			found |= list[i].id == RSA_CRT && list[i].flags & BY_CARDS;
	free(list);
	return found;
}

unsigned int libica_rsa_crt(const library *l, unsigned char *in, unsigned int length, unsigned char *p, unsigned char *q,
			     unsigned char *dp, unsigned char *dq, unsigned char *q_inverse, unsigned char *out)
{
	rsa_key_crt key = { length, p, q, dp, dq, q_inverse };
	return l->ica_rsa_crt(l->adapter, in, &key, out);
}
