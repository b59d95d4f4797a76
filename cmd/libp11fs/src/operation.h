/* The shapes that the cryptographic functions have in common. */
#ifndef P11FS_OPERATION_H
#define P11FS_OPERATION_H

#include "call.h"

/* Init of kind k, which is put off if it may be. Without a key if key is NULL. */
CK_RV operation_init(enum kind k, CK_SESSION_HANDLE session, const CK_MECHANISM *m, const CK_OBJECT_HANDLE *key);

/* Init of another operation. */
CK_RV operation_begin(enum call_number number, CK_SESSION_HANDLE session, const CK_MECHANISM *m, CK_OBJECT_HANDLE key);

/* The one-part function of kind k with a result. */
CK_RV operation_once(enum kind k, CK_SESSION_HANDLE session, const CK_BYTE *in, CK_ULONG in_len, CK_BYTE *out,
                     CK_ULONG *out_len);

/* call_end of a function of an operation. Arguments that go into no request end the
   operation as any other error does (PKCS#11 v3.1 §5.2). */
CK_RV operation_end(struct call *c);

/* A function of some operations (CKF_ENCRYPT …) with input and a result. */
CK_RV operation_transform(enum call_number number, CK_FLAGS uses, CK_SESSION_HANDLE session, const CK_BYTE *in,
                          CK_ULONG in_len, CK_BYTE *out, CK_ULONG *out_len);

/* Likewise with input that comes in parts, which a long one may be cut into. */
CK_RV operation_update(enum call_number number, CK_FLAGS uses, CK_SESSION_HANDLE session, const CK_BYTE *part,
                       CK_ULONG part_len);

/* The Final of kind k with a result. */
CK_RV operation_final(enum call_number number, enum kind k, CK_SESSION_HANDLE session, CK_BYTE *out,
                      CK_ULONG *out_len);

/* A function of a session alone. */
CK_RV operation_bare(enum call_number number, CK_SESSION_HANDLE session);

#endif
