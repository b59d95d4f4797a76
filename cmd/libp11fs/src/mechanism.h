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
};

extern const struct param params[];
extern const size_t params_count;

/* Writes bytes of a parameter, which the program may have left out. */
void put_data(struct call *c, const void *data, CK_ULONG n);

/* The parameter is none of this mechanism. */
void bad_param(struct call *c);

#endif
