#include "search.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

#define SOCKET "rpc.sock"
#define SYSTEM_SOCKET "/run/p11fs/" SOCKET
#define SYSTEM_MOUNT "/p11"

/* join writes directory and name; true if they fit. */
static bool join(char *to, size_t size, const char *directory, const char *name)
{
    int n = snprintf(to, size, "%s%s", directory, name);

    if (n >= 0 && (size_t)n < size)
        return true;
    *to = '\0';
    return false;
}

/* set says whether a variable counts. The rules of XDG have relative paths
   ignored. */
static bool set(const char *value)
{
    return value != NULL && *value == '/';
}

/* A program with more rights than its caller must not believe the environment,
   nor ask a daemon of the caller's. */
void search_begin(struct search *s)
{
    const char *socket = secure_getenv("P11FS_SOCKET"), *mount = secure_getenv("P11FS_MOUNT"),
               *runtime = secure_getenv("XDG_RUNTIME_DIR"), *cache = secure_getenv("XDG_CACHE_HOME"),
               *home = secure_getenv("HOME");

    memset(s, 0, sizeof *s);
    if (getauxval(AT_SECURE) != 0) {
        s->how = SEARCH_SYSTEM;
    } else if (socket != NULL && *socket != '\0') {
        s->how = SEARCH_SOCKET;
        (void)join(s->path, sizeof s->path, socket, "");
    } else if (mount != NULL && *mount != '\0') {
        s->how = SEARCH_MOUNT;
        (void)join(s->path, sizeof s->path, mount, "/" SOCKET);
    } else {
        s->how = SEARCH_USUAL;
        if (set(runtime))
            (void)join(s->path, sizeof s->path, runtime, "/p11fs/" SOCKET);
        else if (set(cache))
            (void)join(s->path, sizeof s->path, cache, "/p11fs/" SOCKET);
        else if (set(home))
            (void)join(s->path, sizeof s->path, home, "/.cache/p11fs/" SOCKET);
    }
}

/* unescape copies a field of mountinfo, in which \ooo stands for some bytes. */
static bool unescape(char *to, size_t size, const char *from)
{
    for (; *from != ' ' && *from != '\0'; from++, to++, size--) {
        unsigned byte;

        if (size == 1)
            return false;
        *to = *from;
        if (*from == '\\' && sscanf(from + 1, "%3o", &byte) == 1) {
            *to = (char)byte;
            from += 3;
        }
    }
    *to = '\0';
    return true;
}

/* own_mount gives the mount point if a line of mountinfo is a p11fs that this
   user has mounted. */
static bool own_mount(const char *line, char *to, size_t size)
{
    static const char type[] = " - fuse.p11fs ", user[] = ",user_id=";
    const char *source = strstr(line, type), *options, *owner;

    options = source != NULL ? strchr(source + strlen(type), ' ') : NULL;
    owner = options != NULL ? strstr(options, user) : NULL;
    if (owner == NULL || strtoul(owner + strlen(user), NULL, 10) != getuid())
        return false;
    for (int i = 0; i < 4 && line != NULL; i++) { /* ID, parent, device, root */
        line = strchr(line, ' ');
        if (line != NULL)
            line++;
    }
    return line != NULL && unescape(to, size, line) && strcmp(to, SYSTEM_MOUNT) != 0;
}

/* linked gives the socket that the link of a mount leads to, which outlives the
   mount while the daemon is restarted; else the link, which says why it leads
   nowhere. */
static void linked(const char *link, struct place *p)
{
    ssize_t n = readlink(link, p->path, sizeof p->path);

    if (n > 0 && (size_t)n < sizeof p->path)
        p->path[n] = '\0';
    else
        (void)join(p->path, sizeof p->path, link, "");
}

/* from_mount finds the socket of the only p11fs that the user has mounted. */
static enum step from_mount(struct place *p)
{
    char directory[1024], found[sizeof directory + sizeof "/" SOCKET] = "", *line = NULL;
    size_t size = 0;
    unsigned n = 0;
    FILE *mounts = fopen("/proc/self/mountinfo", "re");

    if (mounts == NULL)
        return STEP_NONE;
    while (getline(&line, &size, mounts) > 0) {
        if (own_mount(line, directory, sizeof directory)) {
            n++;
            (void)join(found, sizeof found, directory, "/" SOCKET);
        }
    }
    free(line);
    fclose(mounts);
    if (n > 1)
        return STEP_END; /* which one is for the user to say */
    if (n == 1)
        linked(found, p);
    p->last = n == 1;
    return n == 1 && *p->path != '\0' ? STEP_PLACE : STEP_NONE;
}

enum step search_step(const struct search *s, unsigned number, struct place *p)
{
    p->own = p->last = false;
    if (s->how == SEARCH_SYSTEM)
        number += 2;
    switch (number) {
    case 0:
        p->own = s->how == SEARCH_USUAL;
        if (s->how == SEARCH_MOUNT)
            linked(s->path, p);
        else
            (void)join(p->path, sizeof p->path, s->path, "");
        return *p->path != '\0' ? STEP_PLACE : STEP_NONE;
    case 1:
        p->own = true;
        return s->how == SEARCH_USUAL ? from_mount(p) : STEP_END;
    case 2:
        return join(p->path, sizeof p->path, SYSTEM_SOCKET, "") ? STEP_PLACE : STEP_END;
    }
    return STEP_END;
}
