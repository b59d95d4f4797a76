/* The parameters of the key derivations of NIST SP 800-108 (PKCS#11 v3.1 §6.42.2): lists
   of what the function gets, and of more keys than one. */
#include <string.h>

#include "mechanism.h"

enum {
    MOST_FIELDS = 64, /* the daemon takes no more */
    MOST_KEYS = 16,
};

/* A parameter, whichever of its two structs it is. */
static CK_SP800_108_FEEDBACK_KDF_PARAMS take(struct call *c, const CK_MECHANISM *m)
{
    CK_SP800_108_FEEDBACK_KDF_PARAMS p = {0};

    if (m->mechanism == CKM_SP800_108_FEEDBACK_KDF) {
        if (m->ulParameterLen == sizeof p)
            memcpy(&p, m->pParameter, sizeof p);
        else
            bad_param(c);
    } else if (m->ulParameterLen == sizeof(CK_SP800_108_KDF_PARAMS)) {
        const CK_SP800_108_KDF_PARAMS *k = m->pParameter;

        p.prfType = k->prfType;
        p.ulNumberOfDataParams = k->ulNumberOfDataParams;
        p.pDataParams = k->pDataParams;
        p.ulAdditionalDerivedKeys = k->ulAdditionalDerivedKeys;
        p.pAdditionalDerivedKeys = k->pAdditionalDerivedKeys;
    } else {
        bad_param(c);
    }
    if ((p.pDataParams == NULL && p.ulNumberOfDataParams != 0) || p.ulNumberOfDataParams > MOST_FIELDS ||
        (p.pAdditionalDerivedKeys == NULL && p.ulAdditionalDerivedKeys != 0) || p.ulAdditionalDerivedKeys > MOST_KEYS)
        bad_param(c);
    if (c->rv != CKR_OK)
        p = (CK_SP800_108_FEEDBACK_KDF_PARAMS){0};
    return p;
}

/* has says whether the field points to a value of n bytes. */
static bool has(struct call *c, const CK_PRF_DATA_PARAM *f, size_t n)
{
    if (f->pValue == NULL || f->ulValueLen != n)
        bad_param(c);
    return c->rv == CKR_OK;
}

static void put_format(struct call *c, CK_BBOOL little_endian, CK_ULONG width)
{
    put_byte(c, little_endian != 0);
    put_ulong(c, width);
}

static void put_field(struct call *c, const CK_PRF_DATA_PARAM *f)
{
    put_ulong(c, f->type);
    switch (f->type) {
    case CK_SP800_108_ITERATION_VARIABLE:
        if (f->pValue == NULL && f->ulValueLen == 0) { /* what the function gave before */
            put_format(c, 0, 0);
            return;
        } /* fall through */
    case CK_SP800_108_OPTIONAL_COUNTER:
        if (has(c, f, sizeof(CK_SP800_108_COUNTER_FORMAT))) {
            const CK_SP800_108_COUNTER_FORMAT *v = f->pValue;

            put_format(c, v->bLittleEndian, v->ulWidthInBits);
        }
        return;
    case CK_SP800_108_DKM_LENGTH:
        if (has(c, f, sizeof(CK_SP800_108_DKM_LENGTH_FORMAT))) {
            const CK_SP800_108_DKM_LENGTH_FORMAT *v = f->pValue;

            put_ulong(c, v->dkmLengthMethod);
            put_format(c, v->bLittleEndian, v->ulWidthInBits);
        }
        return;
    case CK_SP800_108_BYTE_ARRAY:
        put_data(c, f->pValue, f->ulValueLen);
        return;
    case CK_SP800_108_KEY_HANDLE:
        if (has(c, f, sizeof(CK_OBJECT_HANDLE)))
            put_ulong(c, *(const CK_OBJECT_HANDLE *)f->pValue);
        return;
    default:
        bad_param(c);
    }
}

void param_SP800108(struct call *c, const CK_MECHANISM *m)
{
    CK_SP800_108_FEEDBACK_KDF_PARAMS p = take(c, m);

    put_ulong(c, p.prfType);
    put_ulong(c, p.ulNumberOfDataParams);
    for (CK_ULONG i = 0; i < p.ulNumberOfDataParams; i++)
        put_field(c, &p.pDataParams[i]);
    put_data(c, p.pIV, p.ulIVLen);
    put_ulong(c, p.ulAdditionalDerivedKeys);
    for (CK_ULONG i = 0; i < p.ulAdditionalDerivedKeys; i++) {
        if (p.pAdditionalDerivedKeys[i].phKey == NULL)
            bad_param(c);
        put_template(c, p.pAdditionalDerivedKeys[i].pTemplate, p.pAdditionalDerivedKeys[i].ulAttributeCount);
    }
}

void got_SP800108(struct call *c, const CK_MECHANISM *m)
{
    CK_SP800_108_FEEDBACK_KDF_PARAMS p = take(c, m);
    CK_OBJECT_HANDLE keys[MOST_KEYS];

    get_made(c, keys, p.ulAdditionalDerivedKeys, NULL, 0);
    for (CK_ULONG i = 0; i < p.ulAdditionalDerivedKeys && c->rv == CKR_OK; i++)
        *p.pAdditionalDerivedKeys[i].phKey = keys[i];
}
