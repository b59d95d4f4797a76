/* The function lists (PKCS#11 v3.1 §5.4.4 to §5.4.6). */
#include <string.h>

#include "pkcs11.h"

/* A program that found a list is told of its version by C_GetInfo as well. */
#define GET_INFO(name, major, minor) \
    static CK_RV name(CK_INFO *info) \
    { \
        CK_RV rv = C_GetInfo(info); \
\
        if (rv == CKR_OK) \
            info->cryptokiVersion = (CK_VERSION){(major), (minor)}; \
        return rv; \
    }

GET_INFO(get_info_2_40, 2, 40)
GET_INFO(get_info_3_0, 3, 0)
GET_INFO(get_info_3_1, 3, 1)
GET_INFO(get_info_3_2, 3, 2)

#define FUNCTION_POINTER(name, parameters) name,

/* In the order of the functions: C_GetInfo is that of the list. */
#define C_GetInfo get_info_2_40
static CK_FUNCTION_LIST list_2_40 = {{2, 40}, FUNCTIONS_2_40(FUNCTION_POINTER)};
#undef C_GetInfo
#define C_GetInfo get_info_3_0
static CK_FUNCTION_LIST_3_0 list_3_0 = {{3, 0}, FUNCTIONS_2_40(FUNCTION_POINTER) FUNCTIONS_3_0(FUNCTION_POINTER)};
#undef C_GetInfo
#define C_GetInfo get_info_3_1
static CK_FUNCTION_LIST_3_0 list_3_1 = {{3, 1}, FUNCTIONS_2_40(FUNCTION_POINTER) FUNCTIONS_3_0(FUNCTION_POINTER)};
#undef C_GetInfo
#define C_GetInfo get_info_3_2
static CK_FUNCTION_LIST_3_2 list_3_2 = {{3, 2}, FUNCTIONS_2_40(FUNCTION_POINTER) FUNCTIONS_3_0(FUNCTION_POINTER)
                                                    FUNCTIONS_3_2(FUNCTION_POINTER)};
#undef C_GetInfo

#undef FUNCTION_POINTER

/* The first is the one that a program gets that asks for none. They are not what
   the standard calls fork safe: a child has no copy of its parent's sessions. */
static CK_INTERFACE interfaces[] = {
    {"PKCS 11", &list_3_2, 0},
    {"PKCS 11", &list_3_1, 0},
    {"PKCS 11", &list_3_0, 0},
    {"PKCS 11", &list_2_40, 0},
};

enum { INTERFACES = sizeof interfaces / sizeof interfaces[0] };

CK_RV C_GetFunctionList(CK_FUNCTION_LIST **list)
{
    if (list == NULL)
        return CKR_ARGUMENTS_BAD;
    *list = &list_2_40;
    return CKR_OK;
}

CK_RV C_GetInterfaceList(CK_INTERFACE *list, CK_ULONG *count)
{
    CK_ULONG room;

    if (count == NULL)
        return CKR_ARGUMENTS_BAD;
    room = *count;
    *count = INTERFACES;
    if (list == NULL)
        return CKR_OK;
    if (room < INTERFACES)
        return CKR_BUFFER_TOO_SMALL;
    memcpy(list, interfaces, sizeof interfaces);
    return CKR_OK;
}

CK_RV C_GetInterface(CK_UTF8CHAR *name, CK_VERSION *version, CK_INTERFACE **interface, CK_FLAGS flags)
{
    if (interface == NULL)
        return CKR_ARGUMENTS_BAD;
    for (int i = 0; i < INTERFACES; i++) {
        const CK_VERSION *v = interfaces[i].pFunctionList; /* every list begins with its version */

        if (name != NULL && strcmp((const char *)name, interfaces[i].pInterfaceName) != 0)
            continue;
        if (version != NULL && (version->major != v->major || version->minor != v->minor))
            continue;
        if ((flags & ~interfaces[i].flags) != 0)
            continue;
        *interface = &interfaces[i];
        return CKR_OK;
    }
    return CKR_FUNCTION_FAILED;
}
