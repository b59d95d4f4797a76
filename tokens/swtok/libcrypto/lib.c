#include "lib.h"

#include <dlfcn.h>
#include <stdlib.h>

// The queue of errors belongs to the thread, which may run other goroutines between
// two calls: so what begins something clears it, and nothing reads it.

const char *library_load(library *l, const char *file)
{
	void *h = dlopen(file, RTLD_NOW | RTLD_LOCAL);
	if (!h)
		return file;
#define LOOK(result, name, parameters) \
	if (!(*(void **)&l->name = dlsym(h, #name))) \
		return #name;
	FUNCTIONS(LOOK)
#undef LOOK
	return NULL;
}

const char *library_version(const library *l)
{
	return l->OpenSSL_version(0);
}

void *mac_fetch(const library *l, const char *name)
{
	l->ERR_clear_error();
	return l->EVP_MAC_fetch(NULL, name, NULL);
}

void *cipher_fetch(const library *l, const char *name)
{
	l->ERR_clear_error();
	return l->EVP_CIPHER_fetch(NULL, name, NULL);
}

void params_free(const library *l, param *p)
{
	if (!p)
		return;
	for (param *q = p; q->key; q++) {
		if (q->data)
			l->OPENSSL_cleanse(q->data, q->data_size);
		free(q->data);
		free((char *)q->key);
	}
	free(p);
}

void *mac_new(const library *l, void *mac, const unsigned char *key, size_t n, const param *p)
{
	l->ERR_clear_error();
	void *ctx = l->EVP_MAC_CTX_new(mac);
	if (ctx && l->EVP_MAC_init(ctx, key, n, p) <= 0) {
		l->EVP_MAC_CTX_free(ctx);
		ctx = NULL;
	}
	return ctx;
}

void *mac_copy(const library *l, const void *ctx)
{
	l->ERR_clear_error();
	return l->EVP_MAC_CTX_dup(ctx);
}

void mac_free(const library *l, void *ctx)
{
	l->EVP_MAC_CTX_free(ctx);
}

int mac_update(const library *l, void *ctx, const unsigned char *in, size_t n)
{
	return l->EVP_MAC_update(ctx, in, n);
}

int mac_final(const library *l, void *ctx, unsigned char *out, size_t *n)
{
	return l->EVP_MAC_final(ctx, out, n, *n);
}

void *cipher_new(const library *l, const void *cipher, const unsigned char *key, const unsigned char *iv, int encrypt, const param *p)
{
	l->ERR_clear_error();
	void *ctx = l->EVP_CIPHER_CTX_new();
	// The parameters first: the length of the iv is one of them.
	if (ctx && (l->EVP_CipherInit_ex2(ctx, cipher, NULL, NULL, encrypt, p) <= 0 ||
		    l->EVP_CipherInit_ex2(ctx, NULL, key, iv, encrypt, NULL) <= 0)) {
		l->EVP_CIPHER_CTX_free(ctx);
		ctx = NULL;
	}
	return ctx;
}

void *cipher_copy(const library *l, const void *ctx)
{
	l->ERR_clear_error();
	void *copy = l->EVP_CIPHER_CTX_new();
	if (copy && l->EVP_CIPHER_CTX_copy(copy, ctx) <= 0) {
		l->EVP_CIPHER_CTX_free(copy);
		copy = NULL;
	}
	return copy;
}

// spare is a context of the same key whose use has ended, which is that of the new one; or
// NULL.
void *cipher_begin(const library *l, const void *keyed, void *spare, const unsigned char *iv, const param *p)
{
	void *ctx = spare ? spare : cipher_copy(l, keyed);
	if (ctx && ((p && l->EVP_CIPHER_CTX_set_params(ctx, p) <= 0) ||
		    l->EVP_CipherInit_ex2(ctx, NULL, NULL, iv, -1, NULL) <= 0)) {
		l->EVP_CIPHER_CTX_free(ctx);
		ctx = NULL;
	}
	return ctx;
}

void cipher_free(const library *l, void *ctx)
{
	l->EVP_CIPHER_CTX_free(ctx);
}

int cipher_update(const library *l, void *ctx, unsigned char *out, int *outn, const unsigned char *in, int n)
{
	return l->EVP_CipherUpdate(ctx, out, outn, in, n);
}

int cipher_final(const library *l, void *ctx, unsigned char *out, int *outn)
{
	l->ERR_clear_error();
	return l->EVP_CipherFinal_ex(ctx, out, outn);
}

int cipher_tag(const library *l, void *ctx, unsigned char *tag, size_t n)
{
	param p[] = { { "tag", PARAM_OCTETS, tag, n, (size_t)-1 }, { 0 } };
	return l->EVP_CIPHER_CTX_get_params(ctx, p);
}

// cipher_seal ends what was encrypted, and gives its tag.
int cipher_seal(const library *l, void *ctx, unsigned char *tag, size_t n)
{
	unsigned char rest[32];
	int restn;
	l->ERR_clear_error();
	return l->EVP_CipherFinal_ex(ctx, rest, &restn) > 0 && cipher_tag(l, ctx, tag, n) > 0;
}

// cipher_check ends what was decrypted, with its tag.
int cipher_check(const library *l, void *ctx, unsigned char *tag, size_t n)
{
	param p[] = { { "tag", PARAM_OCTETS, tag, n, (size_t)-1 }, { 0 } };
	unsigned char rest[32];
	int restn;
	l->ERR_clear_error();
	return l->EVP_CIPHER_CTX_set_params(ctx, p) > 0 && l->EVP_CipherFinal_ex(ctx, rest, &restn) > 0;
}

void *key_make(const library *l, const char *type, int selection, param *p)
{
	l->ERR_clear_error();
	void *key = NULL, *ctx = l->EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	if (ctx && l->EVP_PKEY_fromdata_init(ctx) > 0 && l->EVP_PKEY_fromdata(ctx, &key, selection, p) <= 0)
		key = NULL;
	l->EVP_PKEY_CTX_free(ctx);
	return key;
}

// What ends the generation that this thread is at.
static _Thread_local const int *stops;

static int goes_on(void *ctx)
{
	(void)ctx;
	return !__atomic_load_n(stops, __ATOMIC_RELAXED);
}

// key_generate makes a key, or domain parameters alone. It fails soon after *stop is no
// longer 0.
void *key_generate(const library *l, const char *type, int parameters, const param *p, const int *stop)
{
	l->ERR_clear_error();
	void *key = NULL, *ctx = l->EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
	if (ctx && (parameters ? l->EVP_PKEY_paramgen_init(ctx) : l->EVP_PKEY_keygen_init(ctx)) > 0 &&
	    l->EVP_PKEY_CTX_set_params(ctx, p) > 0) {
		stops = stop;
		l->EVP_PKEY_CTX_set_cb(ctx, goes_on);
		if (l->EVP_PKEY_generate(ctx, &key) <= 0)
			key = NULL;
	}
	l->EVP_PKEY_CTX_free(ctx);
	return key;
}

int key_data(const library *l, const void *key, int selection, param **p)
{
	l->ERR_clear_error();
	return l->EVP_PKEY_todata(key, selection, p);
}

void key_data_free(const library *l, param *p)
{
	for (param *q = p; q && q->key; q++)
		l->OPENSSL_cleanse(q->data, q->data_size);
	l->OSSL_PARAM_free(p);
}

void key_free(const library *l, void *key)
{
	l->EVP_PKEY_free(key);
}

int key_use(const library *l, void *key, int use, const param *p, void *peer, unsigned char *out, size_t *outn,
	const unsigned char *in, size_t n, const unsigned char *signature, size_t sn)
{
	l->ERR_clear_error();
	void *ctx = l->EVP_PKEY_CTX_new_from_pkey(NULL, key, NULL);
	int r = 0;
	if (!ctx)
		return 0;
	switch (use) {
	case USE_SIGN:
		r = l->EVP_PKEY_sign_init_ex(ctx, p) > 0 && l->EVP_PKEY_sign(ctx, out, outn, in, n) > 0;
		break;
	case USE_VERIFY:
		r = l->EVP_PKEY_verify_init_ex(ctx, p) > 0 && l->EVP_PKEY_verify(ctx, signature, sn, in, n) == 1;
		break;
	case USE_ENCRYPT:
		r = l->EVP_PKEY_encrypt_init_ex(ctx, p) > 0 && l->EVP_PKEY_encrypt(ctx, out, outn, in, n) > 0;
		break;
	case USE_DECRYPT:
		r = l->EVP_PKEY_decrypt_init_ex(ctx, p) > 0 && l->EVP_PKEY_decrypt(ctx, out, outn, in, n) > 0;
		break;
	case USE_DERIVE:
		r = l->EVP_PKEY_derive_init_ex(ctx, p) > 0 && l->EVP_PKEY_derive_set_peer(ctx, peer) > 0 &&
		    l->EVP_PKEY_derive(ctx, out, outn) > 0;
		break;
	}
	l->EVP_PKEY_CTX_free(ctx);
	return r;
}

void *group_find(const library *l, const char *oid)
{
	l->ERR_clear_error();
	return l->EC_GROUP_new_by_curve_name(l->OBJ_txt2nid(oid));
}

enum { UNCOMPRESSED = 4 };

size_t group_point(const library *l, const void *group, const unsigned char *in, size_t n, unsigned char *out, size_t outn)
{
	l->ERR_clear_error();
	void *point = l->EC_POINT_new(group);
	size_t r = 0;
	if (point && l->EC_POINT_oct2point(group, point, in, n, NULL) > 0)
		r = l->EC_POINT_point2oct(group, point, UNCOMPRESSED, out, outn, NULL);
	l->EC_POINT_free(point);
	return r;
}

// With the generator alone EC_POINT_mul takes the same time for every number, as it must
// when it makes keys.
size_t group_multiply(const library *l, const void *group, const unsigned char *number, size_t n, unsigned char *out, size_t outn)
{
	l->ERR_clear_error();
	void *point = l->EC_POINT_new(group), *d = l->BN_bin2bn(number, n, NULL);
	size_t r = 0;
	if (point && d && !l->BN_is_zero(d) && l->BN_cmp(d, l->EC_GROUP_get0_order(group)) < 0 &&
	    l->EC_POINT_mul(group, point, d, NULL, NULL, NULL) > 0)
		r = l->EC_POINT_point2oct(group, point, UNCOMPRESSED, out, outn, NULL);
	l->BN_clear_free(d);
	l->EC_POINT_free(point);
	return r;
}
