/* The shapes that the cryptographic functions have in common. */
#ifndef P11FS_OPERATION_H
#define P11FS_OPERATION_H

#include "call.h"

/* Init of kind k, which is put off if it may be. That of a digest has no key. */
CK_RV operation_init(enum kind k, CK_SESSION_HANDLE session, const CK_MECHANISM *m, CK_OBJECT_HANDLE key);

/* A function of an operation (CKF_SIGN ...) with input that comes in parts, which a long
   one may be cut into. */
CK_RV operation_update(enum call_number number, CK_FLAGS use, CK_SESSION_HANDLE session, const CK_BYTE *part,
                       CK_ULONG part_len);

/* call_end of a function of an operation. Arguments that go into no request end the
   operation as any other error does (PKCS#11 v3.1 §5.2). */
CK_RV operation_end(struct call *c);

#endif
