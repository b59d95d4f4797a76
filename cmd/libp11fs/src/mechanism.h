/* Between mechanism.c and what is generated beside it. */
#ifndef P11FS_MECHANISM_H
#define P11FS_MECHANISM_H

#include "call.h"

enum {
    LAYOUT_BYTES = 0, /* a parameter as it is */
    LAYOUT_NONE = 255, /* there is none */
};

/* How the parameter of a mechanism goes over the wire. */
struct param {
    CK_MECHANISM_TYPE type;
    CK_BYTE layout;
    CK_BYTE len; /* of bytes; 0 for any */
    /* Writes any other, which is there. */
    void (*put)(struct call *c, const CK_MECHANISM *m);
    /* Takes what a derivation gives beside its key from the reply; NULL where it gives
       nothing. */
    void (*got)(struct call *c, const CK_MECHANISM *m);
    bool keyless; /* a derivation gives no key but those */
};

extern const struct param params[];
extern const size_t params_count;

/* The mechanism, NULL if it is not known. */
const struct param *param_of(CK_MECHANISM_TYPE type);

/* Reads the handles of n keys and at most len bytes, and returns how many these are. */
CK_ULONG get_made(struct call *c, CK_OBJECT_HANDLE *keys, CK_ULONG n, CK_BYTE *bytes, CK_ULONG len);

/* Takes from the reply the keys and bytes that the parameter points to, where that is not
   NULL; iv_bits is the room for an IV. */
void got_version(struct call *c, CK_VERSION *v, CK_ULONG unused);
void got_ssl3_key_mat_out(struct call *c, CK_SSL3_KEY_MAT_OUT *out, CK_ULONG iv_bits);

/* Takes bytes into a program's room of *len bytes, which NULL has none of. Those that do not
   fit are CKR_BUFFER_TOO_SMALL, and *len is their length. */
void got_bytes(struct call *c, void *out, CK_ULONG *len);

/* Writes bytes of a parameter, which the program may have left out. */
void put_data(struct call *c, const void *data, CK_ULONG n);

/* The parameter is none of this mechanism. */
void bad_param(struct call *c);

#endif
