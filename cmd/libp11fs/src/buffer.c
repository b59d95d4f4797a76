#include "buffer.h"

#include <stdlib.h>
#include <string.h>

void buffer_init(struct buffer *b)
{
    b->data = b->small;
    b->len = 0;
    b->cap = sizeof b->small;
    b->bulk = NULL;
    b->bulk_at = b->bulk_len = 0;
}

void buffer_free(struct buffer *b)
{
    explicit_bzero(b->data, b->len);
    if (b->data != b->small)
        free(b->data);
    buffer_init(b);
}

bool buffer_reserve(struct buffer *b, size_t n)
{
    size_t cap = b->cap;
    unsigned char *data;

    if (n <= cap - b->len)
        return true;
    if (n > SIZE_MAX / 4 - b->len)
        return false;
    cap *= 2;
    if (cap - b->len < n)
        cap = b->len + n; /* long data, behind which little follows */
    /* Not realloc, which leaves what the old place held behind. */
    data = malloc(cap);
    if (data == NULL)
        return false;
    memcpy(data, b->data, b->len);
    explicit_bzero(b->data, b->len);
    if (b->data != b->small)
        free(b->data);
    b->data = data;
    b->cap = cap;
    return true;
}

bool buffer_add(struct buffer *b, const void *data, size_t n)
{
    if (!buffer_reserve(b, n))
        return false;
    if (n != 0)
        memcpy(b->data + b->len, data, n);
    b->len += n;
    return true;
}

size_t buffer_size(const struct buffer *b)
{
    return b->len + b->bulk_len;
}

const unsigned char *buffer_piece(const struct buffer *b, size_t at, size_t *n)
{
    size_t bulk_end = b->bulk_at + b->bulk_len;

    if (at >= buffer_size(b))
        return NULL;
    if (b->bulk == NULL || at >= bulk_end) {
        *n = buffer_size(b) - at;
        return b->data + (at - b->bulk_len);
    }
    if (at < b->bulk_at) {
        *n = b->bulk_at - at;
        return b->data + at;
    }
    *n = bulk_end - at;
    return b->bulk + (at - b->bulk_at);
}

void buffer_move(struct buffer *to, struct buffer *from)
{
    if (from->data == from->small) {
        memcpy(to->small, from->small, from->len);
        to->data = to->small;
        explicit_bzero(from->small, from->len);
    } else {
        to->data = from->data;
    }
    to->len = from->len;
    to->cap = from->cap;
    buffer_init(from);
}

void store32(unsigned char *p, uint32_t v)
{
    for (int i = 3; i >= 0; i--, v >>= 8)
        p[i] = (unsigned char)(v & 0xff);
}

void store64(unsigned char *p, uint64_t v)
{
    for (int i = 7; i >= 0; i--, v >>= 8)
        p[i] = (unsigned char)(v & 0xff);
}

uint32_t load32(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

uint64_t load64(const unsigned char *p)
{
    return (uint64_t)load32(p) << 32 | load32(p + 4);
}
