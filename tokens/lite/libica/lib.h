// The functions of libica that the package calls, with the structures of its ABI (those
// of version LIBICA_3.0.0 and later).
#ifndef P11FS_LIBICA_H
#define P11FS_LIBICA_H

typedef struct {
	unsigned int id;
	unsigned int flags;
	unsigned int property;
} function;

typedef struct {
	unsigned int key_length;
	unsigned char *p;
	unsigned char *q;
	unsigned char *dp;
	unsigned char *dq;
	unsigned char *q_inverse;
} rsa_key_crt;

typedef struct {
	void *handle;
	int adapter;
	int open;
	unsigned int (*ica_open_adapter)(int *);
	unsigned int (*ica_close_adapter)(int);
	unsigned int (*ica_get_functionlist)(function *, unsigned int *);
	unsigned int (*ica_rsa_crt)(int, unsigned char *, rsa_key_crt *, unsigned char *);
} library;

// libica_load returns NULL, or what could not be had.
const char *libica_load(library *, const char *file);
int libica_has_cards(const library *);
unsigned int libica_rsa_crt(const library *, unsigned char *in, unsigned int length, unsigned char *p, unsigned char *q,
			     unsigned char *dp, unsigned char *dq, unsigned char *q_inverse, unsigned char *out);
void libica_close(library *);

#endif
