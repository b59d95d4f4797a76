/* Bytes to send, and bytes received. */
#ifndef P11FS_BUFFER_H
#define P11FS_BUFFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Most requests and replies fit here, and need no memory from the heap. */
enum { BUFFER_SMALL = 512 };

/* A buffer grows at its end. What it held is wiped when it moves or is freed,
   since it may be a PIN or a key. */
struct buffer {
    unsigned char *data; /* small, or on the heap */
    size_t len, cap;
    /* Long data of the program, which belongs at bulk_at and is not copied: NULL if there
       is none. len is without it. */
    const unsigned char *bulk;
    size_t bulk_at, bulk_len;
    unsigned char small[BUFFER_SMALL];
};

void buffer_init(struct buffer *b);
void buffer_free(struct buffer *b);

/* Makes room for n bytes more; false means no memory, and the buffer is as it was. */
bool buffer_reserve(struct buffer *b, size_t n);

/* Appends n bytes; false means no memory. */
bool buffer_add(struct buffer *b, const void *data, size_t n);

/* The bytes from at on that lie together, n of them, with the bulk in its place; NULL at the
   end. */
const unsigned char *buffer_piece(const struct buffer *b, size_t at, size_t *n);

/* How many bytes there are with the bulk. */
size_t buffer_size(const struct buffer *b);

/* Gives what from holds to to, which held nothing; from holds nothing then. */
void buffer_move(struct buffer *to, struct buffer *from);

/* Numbers in the order of bytes of the wire, the highest first. */
void store32(unsigned char *p, uint32_t v);
void store64(unsigned char *p, uint64_t v);
uint32_t load32(const unsigned char *p);
uint64_t load64(const unsigned char *p);

#endif
