/* The module in programs that close descriptors which are not theirs, and open
   their own under the same numbers. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"

enum { NUMBERS = 64 }; /* descriptors that are looked at */

static bool is_socket(int fd)
{
    struct stat st;

    return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* initialize returns the number of the module's socket. */
static int initialize(void)
{
    bool had[NUMBERS];
    int found = -1;

    for (int fd = 0; fd < NUMBERS; fd++)
        had[fd] = is_socket(fd);
    OK(f->C_Initialize(NULL));
    for (int fd = 0; fd < NUMBERS; fd++) {
        if (is_socket(fd) && !had[fd]) {
            CHECK(found < 0);
            found = fd;
        }
    }
    CHECK(found >= 0);
    return found;
}

static const char message[] = "for the program";

/* replace closes the module's socket fd, and puts one of the program's in its
   place, from which something can be read. It returns the other end. */
static int replace(int fd)
{
    int pair[2];

    CHECK(close(fd) == 0);
    CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    CHECK(pair[0] == fd); /* the lowest number that is free */
    CHECK(send(pair[1], message, sizeof message, 0) == sizeof message);
    return pair[1];
}

/* untouched checks that the module has done nothing to what is at fd. */
static void untouched(int fd, int peer)
{
    static const int options[2] = {SO_RCVTIMEO, SO_SNDTIMEO};
    char got[sizeof message + 1];
    struct timeval limit = {1, 1};
    socklen_t n = sizeof limit;

    CHECK(recv(peer, got, sizeof got, MSG_DONTWAIT) < 0 && errno == EAGAIN);
    CHECK(recv(fd, got, sizeof got, MSG_DONTWAIT) == sizeof message && strcmp(got, message) == 0);
    for (size_t i = 0; i < 2; i++) {
        CHECK(getsockopt(fd, SOL_SOCKET, options[i], &limit, &n) == 0);
        CHECK(limit.tv_sec == 0 && limit.tv_usec == 0);
    }
    CHECK(send(fd, "x", 1, MSG_NOSIGNAL) == 1 && recv(peer, got, 1, MSG_DONTWAIT) == 1);
    CHECK(close(fd) == 0 && close(peer) == 0);
}

static void call_login(CK_SESSION_HANDLE s)
{
    RV(f->C_Login(s, CKU_USER, PIN, PIN_LEN), CKR_SESSION_HANDLE_INVALID);
    OK(f->C_Login(session_on(3), CKU_USER, PIN, PIN_LEN));
}

static void call_info(CK_SESSION_HANDLE s)
{
    CK_SESSION_INFO info;

    RV(f->C_GetSessionInfo(s, &info), CKR_SESSION_HANDLE_INVALID);
}

static void call_open(CK_SESSION_HANDLE s)
{
    CK_SESSION_INFO info;

    (void)session_on(3);
    RV(f->C_GetSessionInfo(s, &info), CKR_SESSION_HANDLE_INVALID);
}

static void call_close(CK_SESSION_HANDLE s)
{
    RV(f->C_CloseSession(s), CKR_SESSION_HANDLE_INVALID);
}

static void call_init_token(CK_SESSION_HANDLE s)
{
    CK_UTF8CHAR label[32];
    CK_RV rv;

    /* Never sent twice, so it must find that the connection is lost before. The
       daemon may not have seen yet that the session is gone. */
    (void)s;
    memset(label, ' ', sizeof label);
    rv = f->C_InitToken(3, SO_PIN, SO_PIN_LEN - 1, label);
    CHECK(rv == CKR_PIN_INCORRECT || rv == CKR_SESSION_EXISTS);
}

static void call_finalize(CK_SESSION_HANDLE s)
{
    (void)s;
    OK(f->C_Finalize(NULL));
}

static void call_fork(CK_SESSION_HANDLE s)
{
    pid_t child = fork();
    int status;

    (void)s;
    if (child == 0)
        _exit(0);
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* The child's copy of the program's socket is left to the child. */
static void forked(void)
{
    int fd = initialize(), peer, status;
    pid_t child;

    (void)session_on(3);
    peer = replace(fd);
    child = fork();
    if (child == 0) {
        untouched(fd, peer);
        OK(f->C_Initialize(NULL));
        (void)session_on(3);
        OK(f->C_Finalize(NULL));
        _exit(0);
    }
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    CHECK(close(fd) == 0 && close(peer) == 0);
    OK(f->C_Finalize(NULL));
}

/* What the program opens under the number of the module's socket is not written,
   read, changed or closed, and the module connects anew. */
void case_descriptors(void)
{
    void (*calls[])(CK_SESSION_HANDLE) = {call_login, call_info, call_open, call_close, call_init_token, call_finalize,
                                          call_fork};
    int before = descriptors();

    for (size_t i = 0; i < sizeof calls / sizeof calls[0]; i++) {
        int fd = initialize(), peer;
        CK_SESSION_HANDLE s = session_on(3);
        CK_RV rv;

        peer = replace(fd);
        calls[i](s);
        untouched(fd, peer);
        rv = f->C_Finalize(NULL);
        CHECK(rv == CKR_OK || calls[i] == call_finalize);
        CHECK(descriptors() == before);
    }
    forked();
    CHECK(descriptors() == before);
}

/* Likewise where the module is unloaded without C_Finalize. */
void case_unloaded(const char *path)
{
    int before = descriptors(), fd, peer;

    load(path);
    fd = initialize();
    (void)session_on(3);
    peer = replace(fd);
    unload();
    untouched(fd, peer);
    CHECK(descriptors() == before);
}

/* A program without standard input and output does not get the module's socket
   for them. */
void case_standard(void)
{
    int in = dup(STDIN_FILENO), out = dup(STDOUT_FILENO), fd;

    CHECK(in > STDERR_FILENO && out > STDERR_FILENO);
    CHECK(close(STDIN_FILENO) == 0 && close(STDOUT_FILENO) == 0);
    fd = initialize();
    CHECK(fd > STDERR_FILENO && (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK(fcntl(STDIN_FILENO, F_GETFD) < 0 && fcntl(STDOUT_FILENO, F_GETFD) < 0);
    (void)login(3);
    OK(f->C_Finalize(NULL));
    CHECK(dup2(in, STDIN_FILENO) == STDIN_FILENO && dup2(out, STDOUT_FILENO) == STDOUT_FILENO);
    CHECK(close(in) == 0 && close(out) == 0);
}

static void *waits(void *unused)
{
    CK_SLOT_ID slot;

    (void)unused;
    RV(f->C_WaitForSlotEvent(0, &slot, NULL), CKR_CRYPTOKI_NOT_INITIALIZED);
    return NULL;
}

/* A thread that waits on a socket which the program has closed is not left
   behind. */
void case_closed(void)
{
    struct timespec t = {0, 100000000};
    int fd = initialize(), peer;
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, waits, NULL) == 0);
    nanosleep(&t, NULL);
    peer = replace(fd);
    OK(f->C_Finalize(NULL));
    alarm(20);
    CHECK(pthread_join(thread, NULL) == 0);
    untouched(fd, peer);
}
