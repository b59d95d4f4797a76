/* Stock's libraries of the CCA and the EP11 token want functions that nobody defines, and
   cannot be loaded. Preloaded, this defines them: the first has no effect on the CCA token,
   and the others are not called. */
void mechanism_list_transformations(void *list, void *count)
{
	(void)list;
	(void)count;
}

enum { FUNCTION_NOT_SUPPORTED = 0x54 };

#define MISSING(name)                          \
	unsigned long name(void)               \
	{                                      \
		return FUNCTION_NOT_SUPPORTED; \
	}
MISSING(dsa_sign)
MISSING(dsa_verify)
MISSING(ckm_dsa_key_pair_gen)
MISSING(ckm_dh_pkcs_key_pair_gen)
MISSING(dh_pkcs_derive)
