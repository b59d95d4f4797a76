#include "socket.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { FIRST = STDERR_FILENO + 1 };

int64_t clock_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* above_standard moves a descriptor out of the numbers of standard input, output
   and error: a program without them would read and write it. */
static int above_standard(int fd)
{
    int moved;

    if (fd < 0 || fd >= FIRST)
        return fd;
    moved = fcntl(fd, F_DUPFD_CLOEXEC, FIRST);
    close(fd);
    return moved;
}

void socket_open(struct sock *s)
{
    struct stat st;

    s->fd = above_standard(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (s->fd < 0)
        return;
    if (fstat(s->fd, &st) != 0) {
        s->fd = -1; /* closed already, by the program */
        return;
    }
    s->device = st.st_dev;
    s->inode = st.st_ino;
}

bool socket_ours(const struct sock *s)
{
    struct stat st;

    return s->fd >= 0 && fstat(s->fd, &st) == 0 && S_ISSOCK(st.st_mode) && st.st_dev == s->device &&
           st.st_ino == s->inode;
}

bool socket_connect(const struct sock *s, const char *path, int64_t deadline)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof address.sun_path) {
        errno = ENAMETOOLONG;
        return false;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    do {
        if (!socket_ours(s)) {
            errno = EBADF;
            return false;
        }
        if (connect(s->fd, (const struct sockaddr *)&address, sizeof address) == 0)
            return true;
    } while (errno == EINTR && clock_now() < deadline);
    if (errno == EINTR)
        errno = EAGAIN; /* as without signals */
    return false;
}

bool socket_own(const struct sock *s)
{
    struct ucred peer;
    socklen_t n = sizeof peer;

    if (!socket_ours(s) || getsockopt(s->fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) != 0)
        return false;
    errno = EPERM;
    return peer.uid == getuid();
}

void socket_limit(const struct sock *s, unsigned send, unsigned receive)
{
    struct timeval out = {.tv_sec = (time_t)send}, in = {.tv_sec = (time_t)receive};

    if (!socket_ours(s))
        return;
    /* A socket of which this is refused is not there. */
    (void)setsockopt(s->fd, SOL_SOCKET, SO_SNDTIMEO, &out, sizeof out);
    (void)setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &in, sizeof in);
}

bool socket_send(const struct sock *s, const unsigned char *p, size_t n)
{
    while (n != 0) {
        ssize_t sent;

        if (!socket_ours(s))
            return false;
        sent = send(s->fd, p, n, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return false;
        p += sent;
        n -= (size_t)sent;
    }
    return true;
}

ssize_t socket_receive(const struct sock *s, void *p, size_t n, int flags)
{
    if (!socket_ours(s)) {
        errno = EBADF;
        return -1;
    }
    return recv(s->fd, p, n, flags);
}

ssize_t socket_receive_with(const struct sock *s, void *p, size_t n, int flags, int *passed)
{
    union {
        struct cmsghdr header; /* aligns */
        unsigned char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec part = {.iov_base = p, .iov_len = n};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t got;

    if (!socket_ours(s)) {
        errno = EBADF;
        return -1;
    }
    got = recvmsg(s->fd, &m, flags | MSG_CMSG_CLOEXEC);
    if (got < 0)
        return got;
    for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h != NULL; h = CMSG_NXTHDR(&m, h)) {
        if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; CMSG_LEN((i + 1) * sizeof(int)) <= h->cmsg_len; i++) {
            if (*passed >= 0)
                close(*passed);
            memcpy(passed, CMSG_DATA(h) + i * sizeof(int), sizeof *passed);
        }
    }
    return got;
}

void socket_shutdown(const struct sock *s)
{
    if (socket_ours(s))
        (void)shutdown(s->fd, SHUT_RDWR); /* a dead socket needs none */
}

void socket_close(struct sock *s)
{
    if (socket_ours(s))
        close(s->fd);
    s->fd = -1;
}
