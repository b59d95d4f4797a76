// The functions of libcrypto 3 that the package calls. They are looked up in a library
// that is loaded at run time, so that neither its headers nor the library are needed
// to build. Everything of libcrypto's is opaque here but OSSL_PARAM, whose layout is
// part of its ABI (OSSL_PARAM(3)).
#ifndef P11FS_LIBCRYPTO_H
#define P11FS_LIBCRYPTO_H

#include <stddef.h>

typedef struct {
	const char *key;
	unsigned int data_type;
	void *data;
	size_t data_size;
	size_t return_size;
} param;

enum { PARAM_UNSIGNED = 2, PARAM_TEXT = 4, PARAM_OCTETS = 5 };

// FUNCTIONS calls F(result, name, parameters) for each function.
#define FUNCTIONS(F) \
	F(const char *, OpenSSL_version, (int)) \
	F(void, OPENSSL_cleanse, (void *, size_t)) \
	F(void, ERR_clear_error, (void)) \
	F(void, OSSL_PARAM_free, (param *)) \
	F(void *, EVP_MAC_fetch, (void *, const char *, const char *)) \
	F(void *, EVP_MAC_CTX_new, (void *)) \
	F(void *, EVP_MAC_CTX_dup, (const void *)) \
	F(void, EVP_MAC_CTX_free, (void *)) \
	F(int, EVP_MAC_init, (void *, const unsigned char *, size_t, const param *)) \
	F(int, EVP_MAC_update, (void *, const unsigned char *, size_t)) \
	F(int, EVP_MAC_final, (void *, unsigned char *, size_t *, size_t)) \
	F(void *, EVP_CIPHER_fetch, (void *, const char *, const char *)) \
	F(void *, EVP_CIPHER_CTX_new, (void)) \
	F(void, EVP_CIPHER_CTX_free, (void *)) \
	F(int, EVP_CIPHER_CTX_copy, (void *, const void *)) \
	F(int, EVP_CIPHER_CTX_set_params, (void *, const param *)) \
	F(int, EVP_CipherInit_ex2, (void *, const void *, const unsigned char *, const unsigned char *, int, const param *)) \
	F(int, EVP_CIPHER_CTX_get_params, (void *, param *)) \
	F(int, EVP_CipherUpdate, (void *, unsigned char *, int *, const unsigned char *, int)) \
	F(int, EVP_CipherFinal_ex, (void *, unsigned char *, int *)) \
	F(void *, EVP_PKEY_CTX_new_from_name, (void *, const char *, const char *)) \
	F(void *, EVP_PKEY_CTX_new_from_pkey, (void *, void *, const char *)) \
	F(void, EVP_PKEY_CTX_free, (void *)) \
	F(int, EVP_PKEY_CTX_set_params, (void *, const param *)) \
	F(void, EVP_PKEY_CTX_set_cb, (void *, int (*)(void *))) \
	F(int, EVP_PKEY_keygen_init, (void *)) \
	F(int, EVP_PKEY_paramgen_init, (void *)) \
	F(int, EVP_PKEY_generate, (void *, void **)) \
	F(int, EVP_PKEY_fromdata_init, (void *)) \
	F(int, EVP_PKEY_fromdata, (void *, void **, int, param *)) \
	F(int, EVP_PKEY_todata, (const void *, int, param **)) \
	F(void, EVP_PKEY_free, (void *)) \
	F(int, EVP_PKEY_sign_init_ex, (void *, const param *)) \
	F(int, EVP_PKEY_sign, (void *, unsigned char *, size_t *, const unsigned char *, size_t)) \
	F(int, EVP_PKEY_verify_init_ex, (void *, const param *)) \
	F(int, EVP_PKEY_verify, (void *, const unsigned char *, size_t, const unsigned char *, size_t)) \
	F(int, EVP_PKEY_encrypt_init_ex, (void *, const param *)) \
	F(int, EVP_PKEY_encrypt, (void *, unsigned char *, size_t *, const unsigned char *, size_t)) \
	F(int, EVP_PKEY_decrypt_init_ex, (void *, const param *)) \
	F(int, EVP_PKEY_decrypt, (void *, unsigned char *, size_t *, const unsigned char *, size_t)) \
	F(int, EVP_PKEY_derive_init_ex, (void *, const param *)) \
	F(int, EVP_PKEY_derive_set_peer, (void *, void *)) \
	F(int, EVP_PKEY_derive, (void *, unsigned char *, size_t *)) \
	F(int, OBJ_txt2nid, (const char *)) \
	F(void *, EC_GROUP_new_by_curve_name, (int)) \
	F(const void *, EC_GROUP_get0_order, (const void *)) \
	F(void *, EC_POINT_new, (const void *)) \
	F(void, EC_POINT_free, (void *)) \
	F(int, EC_POINT_oct2point, (const void *, void *, const unsigned char *, size_t, void *)) \
	F(size_t, EC_POINT_point2oct, (const void *, const void *, int, unsigned char *, size_t, void *)) \
	F(int, EC_POINT_mul, (const void *, void *, const void *, const void *, const void *, void *)) \
	F(void *, BN_bin2bn, (const unsigned char *, int, void *)) \
	F(int, BN_is_zero, (const void *)) \
	F(int, BN_cmp, (const void *, const void *)) \
	F(void, BN_clear_free, (void *))

typedef struct {
#define FIELD(result, name, parameters) result(*name) parameters;
	FUNCTIONS(FIELD)
#undef FIELD
} library;

// library_load loads file and fills in l. It returns NULL, or what is missing.
const char *library_load(library *l, const char *file);

// A use of a key.
enum { USE_SIGN, USE_VERIFY, USE_ENCRYPT, USE_DECRYPT, USE_DERIVE };

const char *library_version(const library *l);
void *mac_fetch(const library *l, const char *name);
void *cipher_fetch(const library *l, const char *name);

void params_free(const library *l, param *p);

void *mac_new(const library *l, void *mac, const unsigned char *key, size_t n, const param *p);
void *mac_copy(const library *l, const void *ctx);
void mac_free(const library *l, void *ctx);
int mac_update(const library *l, void *ctx, const unsigned char *in, size_t n);
int mac_final(const library *l, void *ctx, unsigned char *out, size_t *n);

void *cipher_new(const library *l, const void *cipher, const unsigned char *key, const unsigned char *iv, int encrypt, const param *p);
void *cipher_begin(const library *l, const void *keyed, void *spare, const unsigned char *iv, const param *p);
void *cipher_copy(const library *l, const void *ctx);
void cipher_free(const library *l, void *ctx);
int cipher_update(const library *l, void *ctx, unsigned char *out, int *outn, const unsigned char *in, int n);
int cipher_final(const library *l, void *ctx, unsigned char *out, int *outn);
int cipher_tag(const library *l, void *ctx, unsigned char *tag, size_t n);
int cipher_seal(const library *l, void *ctx, unsigned char *tag, size_t n);
int cipher_check(const library *l, void *ctx, unsigned char *tag, size_t n);

void *key_make(const library *l, const char *type, int selection, param *p);
void *key_generate(const library *l, const char *type, int parameters, const param *p, const int *stop);
int key_data(const library *l, const void *key, int selection, param **p);
void key_data_free(const library *l, param *p);
void key_free(const library *l, void *key);
int key_use(const library *l, void *key, int use, const param *p, void *peer, unsigned char *out, size_t *outn,
	const unsigned char *in, size_t n, const unsigned char *signature, size_t sn);

void *group_find(const library *l, const char *oid);
// group_point reads an encoded point, group_multiply multiplies the generator by a
// number from 1 to below the order. They return how long the uncompressed point is, 0
// if it is none or longer than outn.
size_t group_point(const library *l, const void *group, const unsigned char *in, size_t n, unsigned char *out, size_t outn);
size_t group_multiply(const library *l, const void *group, const unsigned char *number, size_t n, unsigned char *out, size_t outn);

#endif
