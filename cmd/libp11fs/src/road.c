#include "road.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "road_gen.h"

static unsigned char *slot_at(const struct road *r, int slot)
{
    if (slot < ROAD_SHORT)
        return r->at + ROAD_HEAD + (size_t)slot * ROAD_SHORT_SIZE;
    return r->at + ROAD_HEAD + (size_t)ROAD_SHORT * ROAD_SHORT_SIZE + (size_t)(slot - ROAD_SHORT) * ROAD_LONG_SIZE;
}

static size_t slot_size(int slot)
{
    return (slot < ROAD_SHORT ? ROAD_SHORT_SIZE : ROAD_LONG_SIZE) - ROAD_BODY;
}

/* A number in the memory. The mapping begins on a page, and offsets are multiples of 4. */
static atomic_uint *word(unsigned char *at, size_t offset)
{
    return (atomic_uint *)(void *)(at + offset);
}

bool road_map(struct road *r, int fd)
{
    const int sealed = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    struct stat st;
    int seals = fcntl(fd, F_GET_SEALS);
    void *at;

    /* Memory that could shrink would end this process when it looks. */
    if (seals < 0 || (seals & sealed) != sealed || fstat(fd, &st) != 0 || st.st_size != ROAD_SIZE)
        return false;
    at = mmap(NULL, ROAD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED)
        return false;
    /* Under an emulator, the two may have numbers in memory each their own way. */
    if (atomic_load(word(at, ROAD_ORDER)) != ROAD_MARK || madvise(at, ROAD_SIZE, MADV_DONTFORK) != 0) {
        munmap(at, ROAD_SIZE);
        return false;
    }
    (void)madvise(at, ROAD_SIZE, MADV_DONTDUMP); /* what is on the heap is dumped as well */
    r->at = at;
    return true;
}

void road_unmap(struct road *r)
{
    if (r->at != NULL)
        munmap(r->at, ROAD_SIZE);
    r->at = NULL;
}

int road_take(struct road *r, size_t request, size_t reply)
{
    size_t n = request > reply ? request : reply;
    unsigned may = n <= ROAD_SHORT_SIZE - ROAD_BODY ? (1u << ROAD_SHORT) - 1 : 0, taken;

    if (r->at == NULL || n > ROAD_LONG_SIZE - ROAD_BODY)
        return -1;
    if (may == 0)
        may = ~((1u << ROAD_SHORT) - 1);
    taken = atomic_load(&r->taken);
    while ((may & ~taken) != 0) {
        int slot = __builtin_ctz(may & ~taken);

        if (atomic_compare_exchange_weak(&r->taken, &taken, taken | 1u << slot))
            return slot;
    }
    return -1;
}

int road_taken(const struct road *r)
{
    return __builtin_popcount(atomic_load(&r->taken));
}

bool road_ask(struct road *r, int slot, const struct buffer *request, size_t header)
{
    unsigned char *at = slot_at(r, slot);
    const unsigned char *piece;
    size_t n, from = header;

    while ((piece = buffer_piece(request, from, &n)) != NULL) {
        memcpy(at + ROAD_BODY + (from - header), piece, n);
        from += n;
    }
    atomic_store(word(at, ROAD_LENGTH), (unsigned)(from - header));
    atomic_store(word(at, ROAD_STATE), ROAD_ASKED);
    atomic_fetch_or(word(r->at, ROAD_PENDING), 1u << slot);
    return atomic_load(word(r->at, ROAD_LOOKING)) == 0;
}

bool road_answered(const struct road *r, int slot)
{
    return atomic_load_explicit(word(slot_at(r, slot), ROAD_STATE), memory_order_acquire) == ROAD_ANSWERED;
}

bool road_by_socket(struct road *r, int slot)
{
    unsigned was = ROAD_ASKED;

    return atomic_compare_exchange_strong(word(slot_at(r, slot), ROAD_STATE), &was, ROAD_BY_SOCKET);
}

bool road_collect(struct road *r, int slot, struct buffer *reply)
{
    unsigned char *at = slot_at(r, slot);
    size_t n;

    if (!road_answered(r, slot))
        return false;
    n = atomic_load(word(at, ROAD_LENGTH));
    if (n > slot_size(slot) || !buffer_add(reply, at + ROAD_BODY, n))
        return false;
    explicit_bzero(at + ROAD_BODY, n);
    return true;
}

void road_leave(struct road *r, int slot, size_t n)
{
    unsigned char *at = slot_at(r, slot);

    explicit_bzero(at + ROAD_BODY, n);
    atomic_store(word(at, ROAD_STATE), ROAD_FREE);
    atomic_fetch_and(&r->taken, ~(1u << slot));
}
