/* Mechanisms and their parameters. */
#include <stdint.h>
#include <stdlib.h>

#include "mechanism.h"

enum presence { PARAM_ABSENT, PARAM_PRESENT, MECHANISM_NULL };

enum { LAYOUT_BYTES = 0 }; /* a parameter as it is */

static int compare(const void *key, const void *element)
{
    CK_MECHANISM_TYPE a = *(const CK_MECHANISM_TYPE *)key, b = ((const struct param *)element)->type;

    return a < b ? -1 : a > b;
}

void bad_param(struct call *c)
{
    call_fail(c, CKR_MECHANISM_PARAM_INVALID);
}

void put_data(struct call *c, const void *data, CK_ULONG n)
{
    if (data == NULL && n != 0)
        bad_param(c);
    put_bytes(c, data, n);
}

void put_mechanism(struct call *c, const CK_MECHANISM *m, bool may_be_null)
{
    const struct param *p;

    if (m == NULL) {
        if (!may_be_null)
            call_fail(c, CKR_ARGUMENTS_BAD);
        put_u32(c, 0);
        put_byte(c, MECHANISM_NULL);
        return;
    }
    if (m->mechanism > UINT32_MAX)
        call_fail(c, CKR_MECHANISM_INVALID);
    put_u32(c, m->mechanism);
    if (m->pParameter == NULL || m->ulParameterLen == 0) {
        if (m->ulParameterLen != 0)
            bad_param(c);
        put_byte(c, PARAM_ABSENT);
        return;
    }
    put_byte(c, PARAM_PRESENT);
    p = bsearch(&m->mechanism, params, params_count, sizeof params[0], compare);
    if (p != NULL) {
        put_byte(c, p->layout);
        p->put(c, m);
    } else {
        put_byte(c, LAYOUT_BYTES);
        put_data(c, m->pParameter, m->ulParameterLen);
    }
}
