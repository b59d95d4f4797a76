// A library with libica's ABI, as far as RSA on cards goes. Its arithmetic is OpenSSL's,
// by way of the primes. Each operation adds a byte to the file CALLS.
#include <errno.h>
#include <stdio.h>
#include <string.h>

typedef struct bignum_st BIGNUM;
typedef struct bignum_ctx BN_CTX;
BN_CTX *BN_CTX_new(void);
BIGNUM *BN_new(void);
BIGNUM *BN_bin2bn(const unsigned char *, int, BIGNUM *);
int BN_bn2binpad(const BIGNUM *, unsigned char *, int);
int BN_mod_exp(BIGNUM *, const BIGNUM *, const BIGNUM *, const BIGNUM *, BN_CTX *);
int BN_mod_sub(BIGNUM *, const BIGNUM *, const BIGNUM *, const BIGNUM *, BN_CTX *);
int BN_mod_mul(BIGNUM *, const BIGNUM *, const BIGNUM *, const BIGNUM *, BN_CTX *);
int BN_mul(BIGNUM *, const BIGNUM *, const BIGNUM *, BN_CTX *);
int BN_add(BIGNUM *, const BIGNUM *, const BIGNUM *);
int BN_cmp(const BIGNUM *, const BIGNUM *);

unsigned int ica_open_adapter(int *adapter)
{
	*adapter = 7;
	return 0;
}

unsigned int ica_close_adapter(int adapter)
{
	return adapter == 7 ? 0 : EINVAL;
}

unsigned int ica_get_functionlist(unsigned int (*list)[3], unsigned int *n)
{
	static const unsigned int all[][3] = { { 1, 5, 0 }, { 90, 3, 0 }, { 91, FLAGS, 3 }, { 92, 1, 0 } };
	if (!n)
		return EINVAL;
	if (list) {
		if (*n < 4)
			return EINVAL;
		memcpy(list, all, sizeof all);
	}
	*n = 4;
	return 0;
}

unsigned int ica_rsa_crt(int adapter, unsigned char *in, void *key, unsigned char *out)
{
	struct {
		unsigned int length;
		unsigned char *p, *q, *dp, *dq, *qinv;
	} k;
	memcpy(&k, key, sizeof k);
	FILE *f = fopen(CALLS, "a");
	if (!f || fputc('.', f) == EOF || fclose(f) != 0)
		return EIO;
#ifdef FAILS
	return ENODEV;
#endif
	int half = (k.length + 1) / 2, more = half + 8;
	BN_CTX *c = BN_CTX_new();
	BIGNUM *p = BN_bin2bn(k.p, more, NULL), *q = BN_bin2bn(k.q, half, NULL);
	BIGNUM *m = BN_bin2bn(in, k.length, NULL), *a = BN_new(), *b = BN_new();
	if (adapter != 7 || BN_cmp(p, q) <= 0)
		return EINVAL;
	BN_mod_exp(a, m, BN_bin2bn(k.dp, more, NULL), p, c);
	BN_mod_exp(b, m, BN_bin2bn(k.dq, half, NULL), q, c);
	BN_mod_sub(a, a, b, p, c);
	BN_mod_mul(a, a, BN_bin2bn(k.qinv, more, NULL), p, c);
	BN_mul(a, a, q, c);
	BN_add(a, a, b);
	BN_bn2binpad(a, out, k.length);
#ifdef WRONG
	out[k.length - 1] ^= 1;
#endif
	return 0;
}
