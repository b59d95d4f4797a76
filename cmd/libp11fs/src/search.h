/* Where the daemon is looked for: the rule is that of the p11fs command, which
   looks for a mount (docs/rpc.md). */
#ifndef P11FS_SEARCH_H
#define P11FS_SEARCH_H

#include <stdbool.h>
#include <sys/un.h>

/* A socket that the daemon may listen on. */
struct place {
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    bool own;  /* only a daemon of the program's own user counts */
    bool last; /* the daemon meant: no other is tried after it */
};

/* What the environment says. */
struct search {
    enum { SEARCH_SOCKET, SEARCH_MOUNT, SEARCH_USUAL, SEARCH_SYSTEM } how;
    char path[1024]; /* the socket, the mount's, or that of the user's own daemon; may be empty */
};

void search_begin(struct search *s);

/* The places in the order in which they are tried. */
enum step {
    STEP_PLACE,
    STEP_NONE, /* none of this number, but there may be another after it */
    STEP_END,
};
enum step search_step(const struct search *s, unsigned number, struct place *p);

#endif
