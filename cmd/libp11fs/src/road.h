/* Memory that the daemon shares with this process, for requests and replies that
   need no system call while both ends are awake. The daemon made it, and may write
   there what and when it likes: what is read is read once, and checked. */
#ifndef P11FS_ROAD_H
#define P11FS_ROAD_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "buffer.h"

struct road {
    unsigned char *at; /* NULL if there is none */
    atomic_uint taken; /* slots, a bit each */
};

/* Maps the memory of a descriptor if that is what it should be; false if not. The
   descriptor stays the caller's. */
bool road_map(struct road *r, int fd);
void road_unmap(struct road *r);

/* Takes a slot for a request and a reply of so many bytes; -1 if there is none. */
int road_take(struct road *r, size_t request, size_t reply);

/* How many slots are taken. */
int road_taken(const struct road *r);

/* Puts the request in, a frame without its header of so many bytes. True means that the
   daemon must be nudged. */
bool road_ask(struct road *r, int slot, const struct buffer *request, size_t header);

/* The reply is there. */
bool road_answered(const struct road *r, int slot);

/* Has the reply come by the socket; false means that it is here already, or never will be. */
bool road_by_socket(struct road *r, int slot);

/* Gives the reply; false means that there is none, or no memory for it. */
bool road_collect(struct road *r, int slot, struct buffer *reply);

/* Gives the slot back. n bytes of it were the request. */
void road_leave(struct road *r, int slot, size_t n);

#endif
