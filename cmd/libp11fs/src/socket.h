/* The descriptor of a connection. Programs close descriptors that are not theirs,
   and then what they open next gets its number: every function here looks first
   whether the number still is the socket, and leaves what is not alone. */
#ifndef P11FS_SOCKET_H
#define P11FS_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct sock {
    int fd; /* -1 if there is none */
    dev_t device;
    ino_t inode;
};

/* Makes a Unix socket; s->fd is -1 if that failed, with errno. */
void socket_open(struct sock *s);

/* The number still is this socket. */
bool socket_ours(const struct sock *s);

/* Connects to path until the deadline. False means that it failed, with errno. */
bool socket_connect(const struct sock *s, const char *path, int64_t deadline);

/* Who listens is of this program's user; false with errno. */
bool socket_own(const struct sock *s);

/* Lets no call of the kernel take longer than so many seconds; 0 lifts that. One
   that a signal interrupts begins anew. */
void socket_limit(const struct sock *s, unsigned send, unsigned receive);

/* Sends all of p; false means lost. */
bool socket_send(const struct sock *s, const unsigned char *p, size_t n);

/* recv(2); EBADF if the number is not this socket. */
ssize_t socket_receive(const struct sock *s, void *p, size_t n, int flags);

/* Likewise, and *passed gets the descriptor that came along, in the place of one that came
   before; close-on-exec. */
ssize_t socket_receive_with(const struct sock *s, void *p, size_t n, int flags, int *passed);

/* Ends what is in progress. */
void socket_shutdown(const struct sock *s);

void socket_close(struct sock *s);

/* Now, in nanoseconds, on a clock that nobody sets. */
int64_t clock_now(void);

#endif
