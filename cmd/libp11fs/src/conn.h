/* A connection to the daemon, which any number of threads use at once. */
#ifndef P11FS_CONN_H
#define P11FS_CONN_H

#include <stdbool.h>
#include <stdint.h>

#include "buffer.h"
#include "search.h"

struct conn;

enum {
    FRAME_HEADER = 12,            /* bytes: code, length of options, length of body */
    MAX_BODY = (64 << 20) + 4096, /* of a request, in bytes */
    MAX_REPLY = (65 << 20),
    MAX_OPTIONS = 4096,
};

enum outcome {
    OUTCOME_OK,
    OUTCOME_LOST,      /* the daemon is gone, or the connection was ended */
    OUTCOME_MALFORMED, /* what came is no reply; the connection is ended */
};

/* Connects to a place, waiting seconds at most for an answer. NULL means that it
   failed, with errno. The caller releases it. */
struct conn *conn_open(const struct place *p, unsigned seconds);

/* Lifts the limit on waiting, once the daemon is known to talk. */
void conn_unlimit(struct conn *c);

/* Sends and receives a single byte before any frame; false means lost. */
bool conn_greet(struct conn *c, unsigned char offer, unsigned char *answer);

void conn_hold(struct conn *c);
void conn_release(struct conn *c);

/* Tells connections apart; never 0, never used again. */
uint64_t conn_generation(const struct conn *c);

/* Ends the connection: calls in flight and all later ones are lost. */
void conn_end(struct conn *c);
bool conn_ended(struct conn *c);

/* The connection has not ended, nor has its socket been closed by the program. */
bool conn_stands(struct conn *c);

/* Sends request, a frame whose code is filled in here, and waits for the reply,
   whose body goes to reply, which holds nothing before. It has room bytes at most where
   it may go by the road, and is not to go there where room is SIZE_MAX. */
enum outcome conn_exchange(struct conn *c, struct buffer *request, struct buffer *reply, size_t room);

/* Has calls go by the road that the daemon sent with its reply, before conn_unlimit. */
bool conn_road(struct conn *c);

/* Around fork: the child closes all descriptors, and says nothing on them. */
void conn_fork_prepare(void);
void conn_fork_parent(void);
void conn_fork_child(void);

#endif
