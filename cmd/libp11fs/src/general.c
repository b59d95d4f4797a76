/* The library, its slots and tokens (PKCS#11 v3.1 §5.4, §5.5). */
#include <pthread.h>
#include <string.h>

#include "call.h"
#include "module.h"

enum { LABEL_SIZE = 32 };

CK_RV C_Initialize(void *init_args)
{
    int state;
    CK_RV rv;

    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    rv = module_initialize(init_args);
    pthread_setcancelstate(state, NULL);
    return rv;
}

CK_RV C_Finalize(void *reserved)
{
    int state;
    CK_RV rv;

    if (reserved != NULL)
        return module_initialized() ? CKR_ARGUMENTS_BAD : CKR_CRYPTOKI_NOT_INITIALIZED;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    rv = module_finalize();
    pthread_setcancelstate(state, NULL);
    return rv;
}

/* fill writes text and blanks to a field of n bytes. */
static void fill(CK_UTF8CHAR *field, size_t n, const char *text)
{
    size_t length = strlen(text);

    memset(field, ' ', n);
    memcpy(field, text, length < n ? length : n);
}

CK_RV C_GetInfo(CK_INFO *info)
{
    struct call c;
    CK_INFO i;

    memset(&i, 0, sizeof i);
    call_begin(&c, CALL_GetInfo);
    if (info == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    call_exchange(&c);
    if (c.absent) {
        (void)call_end(&c);
        i.cryptokiVersion = (CK_VERSION){3, 2};
        fill(i.manufacturerID, sizeof i.manufacturerID, "p11fs");
        fill(i.libraryDescription, sizeof i.libraryDescription, "p11fs (no daemon)");
        *info = i;
        return CKR_OK;
    }
    get_version(&c, &i.cryptokiVersion);
    get_text(&c, i.manufacturerID, sizeof i.manufacturerID);
    i.flags = get_ulong(&c);
    get_text(&c, i.libraryDescription, sizeof i.libraryDescription);
    get_version(&c, &i.libraryVersion);
    if (c.rv == CKR_OK)
        *info = i;
    return call_end(&c);
}

CK_RV C_GetSlotList(CK_BBOOL present, CK_SLOT_ID *list, CK_ULONG *count)
{
    struct call c;

    call_begin(&c, CALL_GetSlotList);
    put_byte(&c, present != 0);
    put_count(&c, list, count);
    call_exchange(&c);
    if (c.absent) {
        (void)call_end(&c);
        *count = 0;
        return CKR_OK;
    }
    get_list(&c, list, count);
    return call_end(&c);
}

CK_RV C_InitToken(CK_SLOT_ID slot, CK_UTF8CHAR *pin, CK_ULONG pin_len, CK_UTF8CHAR *label)
{
    struct call c;

    /* The later of the two calls, whose label has its full length. */
    call_begin(&c, CALL_InitToken2);
    c.unrepeatable = c.changes = true;
    c.slot = slot;
    put_ulong(&c, slot);
    put_array(&c, pin, pin_len);
    if (label == NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_text(&c, label, LABEL_SIZE);
    call_exchange(&c);
    return call_end(&c);
}

CK_RV C_WaitForSlotEvent(CK_FLAGS flags, CK_SLOT_ID *slot, void *reserved)
{
    struct call c;
    CK_SLOT_ID event;

    call_begin(&c, CALL_WaitForSlotEvent);
    if (slot == NULL || reserved != NULL)
        call_fail(&c, CKR_ARGUMENTS_BAD);
    put_ulong(&c, flags);
    call_exchange(&c);
    if (c.absent) {
        (void)call_end(&c);
        return CKR_NO_EVENT;
    }
    event = get_ulong(&c);
    if (c.rv == CKR_OK)
        *slot = event;
    return call_end(&c);
}
