/* Prints mechanisms with the parameters of invented.txt as they go over the wire.
   TestInvented compiles it with mechanism.c and what is generated. */
#include <stdio.h>
#include <string.h>

#include "mechanism.h"

typedef struct {
    CK_ULONG n;
    CK_ULONG *list;
} CK_SPECIAL_PARAMS;

void param_Special(struct call *c, const CK_MECHANISM *m)
{
    const CK_SPECIAL_PARAMS *p = m->pParameter;

    if (m->ulParameterLen != sizeof *p) {
        bad_param(c);
        return;
    }
    put_ulong(c, p->n);
    for (CK_ULONG i = 0; i < p->n; i++)
        put_ulong(c, p->list[i]);
}

void call_fail(struct call *c, CK_RV rv)
{
    if (c->rv == CKR_OK)
        c->rv = rv;
}

static CK_RV pack(CK_MECHANISM_TYPE type, void *param, CK_ULONG len, bool print)
{
    struct call c = {.rv = CKR_OK};
    CK_MECHANISM m = {type, param, len};

    buffer_init(&c.out);
    put_mechanism(&c, &m, false);
    if (print && c.rv == CKR_OK) {
        for (size_t i = 0; i < c.out.len; i++)
            printf("%02x", c.out.data[i]);
        printf("\n");
    }
    buffer_free(&c.out);
    return c.rv;
}

int main(void)
{
    CK_BYTE nonce[] = {0, 1, 2, 3, 4, 5, 6};
    CK_ULONG numbers[] = {7, 9};
    CK_INVENTED_EXTRA extra = {.ulNameLen = 1, .pName = "e", .ulWeight = 2};
    CK_INVENTED_PARAMS p = {.mode = CKI_FAST,
                            .digest = CKM_INVENTED_HASH,
                            .pNonce = nonce,
                            .ulNonceLen = 7,
                            .ulNonceBits = 56,
                            .seed = {1, 2, 3, 4},
                            .ulRounds = 7,
                            .bLast = 1,
                            .hOther = 9,
                            .fixed = {.ulLevel = 9, .pTail = "ta", .ulTailBits = 12},
                            .pExtra = &extra};
    CK_INVENTED_PARAMS_OLD old = {.pNonce = nonce, .ulNonceLen = 7};
    CK_SPECIAL_PARAMS special = {2, numbers};

    if (pack(CKM_INVENTED, &p, sizeof p, true) != CKR_OK || pack(CKM_INVENTED, &old, sizeof old, true) != CKR_OK ||
        pack(CKM_INVENTED_SPECIAL, &special, sizeof special, true) != CKR_OK)
        return 1;
    if (pack(CKM_INVENTED, &p, sizeof p - 1, false) != CKR_MECHANISM_PARAM_INVALID)
        return 2;
    extra.pName = NULL; /* but not its length */
    if (pack(CKM_INVENTED, &p, sizeof p, false) != CKR_MECHANISM_PARAM_INVALID)
        return 3;
    return 0;
}
