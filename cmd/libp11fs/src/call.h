/* A call: its request is written value by value, sent, and its reply read value
   by value. The first failure stays in rv, and all that follows does nothing, so
   that a function is a list of its values. */
#ifndef P11FS_CALL_H
#define P11FS_CALL_H

#include "buffer.h"
#include "calls_gen.h"
#include "conn.h"
#include "pkcs11.h"
#include "session.h"

#define CALL_NUMBER(name, number, request, reply) CALL_##name = (number),
enum call_number { CALLS(CALL_NUMBER) };
#undef CALL_NUMBER

enum { REPLY_HEAD = 512 }; /* bytes of a reply beside results, lists and attributes, at most */

enum { TRIES = 16 }; /* of a call whose daemon goes away again and again */

struct call {
    CK_RV rv;
    enum call_number number;
    CK_SESSION_HANDLE session; /* 0 for calls that name none */
    CK_SLOT_ID slot;           /* of the session; needed where changes is set */
    struct conn *conn;         /* held */
    /* The session's Init that was put off goes before this call. If it fails, so
       does the call where it is of the operation (CKF_SIGN …); else it is sent
       again with the operation's own call, unless this one ends that. */
    CK_FLAGS uses, ends;
    bool closes;       /* the session: what was put off need not be sent */
    bool unrepeatable; /* must not be sent again to a daemon that came back */
    bool changes;      /* what an Init in other sessions of the slot depends on */
    bool combined;     /* with the Init that was put off */
    bool absent;       /* there is no daemon */
    bool malformed;    /* the reply */
    bool exchanged;
    struct buffer out, in;
    size_t at;   /* in in */
    size_t room; /* bytes that a reply has at most */
};

/* Begins a call that names no session. */
void call_begin(struct call *c, enum call_number number);

/* Begins a call whose first value is the session. */
void call_begin_session(struct call *c, enum call_number number, CK_SESSION_HANDLE session);

/* Likewise for a one-part operation, together with its Init if that was put
   off; not if arguments are bad. */
void call_begin_once(struct call *c, enum kind k, CK_SESSION_HANDLE session, bool bad);

/* Sends the request and takes the reply's header apart. */
void call_exchange(struct call *c);

/* Notes that the operation of kind k has ended with this call, or may not have. */
void call_settle(struct call *c, enum kind k, bool ended);

/* Ends the call, also one that failed, and returns its CK_RV. */
CK_RV call_end(struct call *c);

/* Sends a call with n bytes of values whose reply has none. CKR_DEVICE_REMOVED
   means that the connection was lost. */
CK_RV call_simple(struct conn *conn, enum call_number number, const void *values, size_t n);

/* The number of the Init of kind k. */
enum call_number init_number(enum kind k);

/* Fails the call. */
void call_fail(struct call *c, CK_RV rv);

/* Values of requests, of which the first are bytes as they are. */
void put_raw(struct call *c, const void *data, size_t n);
void put_byte(struct call *c, CK_BYTE v);
void put_u32(struct call *c, CK_ULONG v);
void put_ulong(struct call *c, uint64_t v);
void put_text(struct call *c, const CK_BYTE *text, CK_ULONG n);
/* Length and data; NULL has a length of its own. */
void put_bytes(struct call *c, const void *data, CK_ULONG n);
/* A byte array argument: NULL with a length is CKR_ARGUMENTS_BAD. */
void put_array(struct call *c, const void *data, CK_ULONG n);
/* Counts n bytes of a reply. */
void expect(struct call *c, CK_ULONG n);
/* How much there is room for; see get_result. */
void put_room(struct call *c, const void *out, const CK_ULONG *len);
/* How many elements there is room for; see get_list. */
void put_count(struct call *c, const void *list, const CK_ULONG *count);
/* A mechanism; NULL, where it may be, cancels an operation. */
void put_mechanism(struct call *c, const CK_MECHANISM *m, bool may_be_null);
void put_template(struct call *c, const CK_ATTRIBUTE *template, CK_ULONG count);
void put_wanted(struct call *c, const CK_ATTRIBUTE *template, CK_ULONG count);

/* Values of replies. */
CK_BYTE get_byte(struct call *c);
uint32_t get_u32(struct call *c);
CK_ULONG get_ulong(struct call *c);
/* Leaves *out as it is if the call has failed. */
void get_number(struct call *c, CK_ULONG *out);
/* n bytes of the reply, or NULL. */
const unsigned char *get_raw(struct call *c, size_t n);
/* Bytes, of which it gives the length: none for NULL. */
const unsigned char *get_bytes(struct call *c, uint32_t *n);
void get_text(struct call *c, CK_BYTE *to, size_t n);
void get_version(struct call *c, CK_VERSION *v);
/* A result for out and *len (PKCS#11 v3.1 §5.2): CKR_BUFFER_TOO_SMALL, or the
   length only where out is NULL. True says that the result is there whole. */
bool get_result(struct call *c, CK_BYTE *out, CK_ULONG *len);
/* Likewise for a list of numbers. */
void get_list(struct call *c, CK_ULONG *list, CK_ULONG *count);
void get_template(struct call *c, CK_ATTRIBUTE *template, CK_ULONG count);
/* The reply is none of this call. */
void get_malformed(struct call *c);

#endif
