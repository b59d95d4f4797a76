/* The calls of a card's host library, over a socket to p11fs card serve. The frames are
   those of the Go package tokens/card, whose comment has their layout; values and
   parameters of mechanisms are written by the code of libp11fs.so. */
#ifndef P11FS_CARD_H
#define P11FS_CARD_H

#include "call.h"

/* What a library says of itself. */
extern const unsigned char card_abi;  /* in frames */
extern const char card_socket_name[]; /* of its socket, in p11fs's directory */
extern const CK_RV card_gone;         /* what a call returns that no card answers */
extern const CK_RV card_small;        /* and one whose output does not fit */

enum {
    MAX_FRAME = 16 << 20,
    CARD_ANY = 0,
};

#define CARD_EXPORT __attribute__((visibility("default")))

/* Begins a call. The target follows. */
void card_begin(struct call *c, uint32_t function);

/* Sends it, and takes the return value of the answer apart. */
void card_exchange(struct call *c);

/* Ends the call, also one that failed, and returns what it returned. */
CK_RV card_end(struct call *c);

/* Whether a card answers: connects, or finds that there is a connection. */
bool card_reachable(void);

/* Values of requests, and of answers. A pointer that is NULL is one for the card, too. Of
   a call that failed nothing is stored but the lengths of what did not fit. */
void put_in(struct call *c, const void *data, size_t n);
void put_output(struct call *c, const void *out, const size_t *len);
void get_output(struct call *c, void *out, size_t *len);
void put_fill(struct call *c, const void *out, size_t len);
void get_fill(struct call *c, void *out, size_t len);
void put_state(struct call *c, const void *state, size_t n);
void get_state(struct call *c, void *state, size_t n);
void put_numbers(struct call *c, const CK_ULONG *list, const CK_ULONG *count);
void get_numbers(struct call *c, CK_ULONG *list, CK_ULONG *count);
void put_info(struct call *c, const CK_MECHANISM_INFO *info);
void get_info(struct call *c, CK_MECHANISM_INFO *info);
void put_attributes(struct call *c, const CK_ATTRIBUTE *list, CK_ULONG count);
void put_values(struct call *c, const CK_ATTRIBUTE *list, CK_ULONG count);
void get_values(struct call *c, CK_ATTRIBUTE *list, CK_ULONG count);

#endif
