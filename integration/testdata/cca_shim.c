/* Stock's libpkcs11_cca.so.0 wants a function that nobody defines, and cannot be loaded.
   Preloaded, this defines it; what it would do has no effect on the CCA token. */
void mechanism_list_transformations(void *list, void *count)
{
	(void)list;
	(void)count;
}
