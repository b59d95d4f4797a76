/* The host library of cards in EP11 mode: libep11.so. */
#ifndef P11FS_EP11_H
#define P11FS_EP11_H

#include "card.h"

/* A target: a number that m_add_module gave, or in programs before it the address of a
   struct targets. */
typedef uint64_t target_t;

/* Writes which domains a target is. */
void put_target(struct call *c, target_t target);

#endif
