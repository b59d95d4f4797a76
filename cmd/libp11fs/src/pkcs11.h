/* The types and functions of PKCS#11 2.40 to 3.2, as a module and its callers
   share them on the machine. The numbers stand in constants_gen.h. */
#ifndef P11FS_PKCS11_H
#define P11FS_PKCS11_H

#include "constants_gen.h"

typedef unsigned char CK_BYTE;
typedef unsigned char CK_BBOOL;
typedef unsigned char CK_UTF8CHAR;
typedef unsigned long CK_ULONG;
typedef CK_ULONG CK_RV;
typedef CK_ULONG CK_FLAGS;
typedef CK_ULONG CK_SLOT_ID;
typedef CK_ULONG CK_SESSION_HANDLE;
typedef CK_ULONG CK_OBJECT_HANDLE;
typedef CK_ULONG CK_USER_TYPE;
typedef CK_ULONG CK_MECHANISM_TYPE;
typedef CK_ULONG CK_ATTRIBUTE_TYPE;

typedef CK_RV (*CK_NOTIFY)(CK_SESSION_HANDLE session, CK_ULONG event, void *application);

typedef struct {
    CK_BYTE major, minor;
} CK_VERSION;

typedef struct {
    CK_VERSION cryptokiVersion;
    CK_UTF8CHAR manufacturerID[32];
    CK_FLAGS flags;
    CK_UTF8CHAR libraryDescription[32];
    CK_VERSION libraryVersion;
} CK_INFO;

typedef struct {
    CK_UTF8CHAR slotDescription[64];
    CK_UTF8CHAR manufacturerID[32];
    CK_FLAGS flags;
    CK_VERSION hardwareVersion, firmwareVersion;
} CK_SLOT_INFO;

typedef struct {
    CK_UTF8CHAR label[32];
    CK_UTF8CHAR manufacturerID[32];
    CK_UTF8CHAR model[16];
    CK_BYTE serialNumber[16];
    CK_FLAGS flags;
    CK_ULONG ulMaxSessionCount, ulSessionCount, ulMaxRwSessionCount, ulRwSessionCount;
    CK_ULONG ulMaxPinLen, ulMinPinLen;
    CK_ULONG ulTotalPublicMemory, ulFreePublicMemory, ulTotalPrivateMemory, ulFreePrivateMemory;
    CK_VERSION hardwareVersion, firmwareVersion;
    CK_BYTE utcTime[16];
} CK_TOKEN_INFO;

typedef struct {
    CK_SLOT_ID slotID;
    CK_ULONG state;
    CK_FLAGS flags;
    CK_ULONG ulDeviceError;
} CK_SESSION_INFO;

typedef struct {
    CK_ATTRIBUTE_TYPE type;
    void *pValue;
    CK_ULONG ulValueLen;
} CK_ATTRIBUTE;

typedef struct {
    CK_MECHANISM_TYPE mechanism;
    void *pParameter;
    CK_ULONG ulParameterLen;
} CK_MECHANISM;

typedef struct {
    CK_ULONG ulMinKeySize, ulMaxKeySize;
    CK_FLAGS flags;
} CK_MECHANISM_INFO;

typedef struct {
    CK_RV (*CreateMutex)(void **mutex);
    CK_RV (*DestroyMutex)(void *mutex);
    CK_RV (*LockMutex)(void *mutex);
    CK_RV (*UnlockMutex)(void *mutex);
    CK_FLAGS flags;
    void *pReserved;
} CK_C_INITIALIZE_ARGS;

typedef struct {
    const char *pInterfaceName;
    const void *pFunctionList;
    CK_FLAGS flags;
} CK_INTERFACE;

typedef struct {
    CK_ULONG ulVersion;
    CK_BYTE *pValue;
    CK_ULONG ulValue;
    CK_OBJECT_HANDLE hObject;
    CK_OBJECT_HANDLE hAdditionalObject;
} CK_ASYNC_DATA;

typedef struct {
    CK_BYTE *pIv;
    CK_ULONG ulIvLen, ulIvFixedBits, ivGenerator;
    CK_BYTE *pTag;
    CK_ULONG ulTagBits;
} CK_GCM_MESSAGE_PARAMS;

typedef struct {
    CK_ULONG ulDataLen;
    CK_BYTE *pNonce;
    CK_ULONG ulNonceLen, ulNonceFixedBits, nonceGenerator;
    CK_BYTE *pMAC;
    CK_ULONG ulMACLen;
} CK_CCM_MESSAGE_PARAMS;

typedef struct {
    CK_BYTE *pNonce;
    CK_ULONG ulNonceLen;
    CK_BYTE *pTag;
} CK_SALSA20_CHACHA20_POLY1305_MSG_PARAMS;

typedef struct {
    CK_OBJECT_HANDLE hClientMacSecret, hServerMacSecret, hClientKey, hServerKey;
    CK_BYTE *pIVClient, *pIVServer;
} CK_SSL3_KEY_MAT_OUT;

typedef struct {
    CK_ULONG type;
    void *pValue;
    CK_ULONG ulValueLen;
} CK_PRF_DATA_PARAM;

typedef struct {
    CK_BBOOL bLittleEndian;
    CK_ULONG ulWidthInBits;
} CK_SP800_108_COUNTER_FORMAT;

typedef struct {
    CK_ULONG dkmLengthMethod;
    CK_BBOOL bLittleEndian;
    CK_ULONG ulWidthInBits;
} CK_SP800_108_DKM_LENGTH_FORMAT;

typedef struct {
    CK_ATTRIBUTE *pTemplate;
    CK_ULONG ulAttributeCount;
    CK_OBJECT_HANDLE *phKey;
} CK_DERIVED_KEY;

typedef struct {
    CK_MECHANISM_TYPE prfType;
    CK_ULONG ulNumberOfDataParams;
    CK_PRF_DATA_PARAM *pDataParams;
    CK_ULONG ulAdditionalDerivedKeys;
    CK_DERIVED_KEY *pAdditionalDerivedKeys;
} CK_SP800_108_KDF_PARAMS;

typedef struct {
    CK_MECHANISM_TYPE prfType;
    CK_ULONG ulNumberOfDataParams;
    CK_PRF_DATA_PARAM *pDataParams;
    CK_ULONG ulIVLen;
    CK_BYTE *pIV;
    CK_ULONG ulAdditionalDerivedKeys;
    CK_DERIVED_KEY *pAdditionalDerivedKeys;
} CK_SP800_108_FEEDBACK_KDF_PARAMS;

#include "mechanism_gen.h"

typedef struct ck_function_list CK_FUNCTION_LIST;
typedef struct ck_function_list_3_0 CK_FUNCTION_LIST_3_0; /* that of 3.1, too */
typedef struct ck_function_list_3_2 CK_FUNCTION_LIST_3_2;

#include "functions_gen.h"

#define FUNCTION_MEMBER(name, parameters) CK_RV (*name) parameters;

struct ck_function_list {
    CK_VERSION version;
    FUNCTIONS_2_40(FUNCTION_MEMBER)
};

struct ck_function_list_3_0 {
    CK_VERSION version;
    FUNCTIONS_2_40(FUNCTION_MEMBER)
    FUNCTIONS_3_0(FUNCTION_MEMBER)
};

struct ck_function_list_3_2 {
    CK_VERSION version;
    FUNCTIONS_2_40(FUNCTION_MEMBER)
    FUNCTIONS_3_0(FUNCTION_MEMBER)
    FUNCTIONS_3_2(FUNCTION_MEMBER)
};

#undef FUNCTION_MEMBER

#define FUNCTION_PROTOTYPE(name, parameters) __attribute__((visibility("default"))) CK_RV name parameters;
FUNCTIONS_2_40(FUNCTION_PROTOTYPE)
FUNCTIONS_3_0(FUNCTION_PROTOTYPE)
FUNCTIONS_3_2(FUNCTION_PROTOTYPE)
#undef FUNCTION_PROTOTYPE

#endif
