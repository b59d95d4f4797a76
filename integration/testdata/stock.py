"""Shows through a PKCS#11 library what a token holds, one JSON object.

usage: stock.py MODULE PIN

Each object is an object of attribute values in hexadecimal, by attribute
number; one that the library keeps to itself is "sensitive". It asks the
library itself, since pkcs11-tool prints only some attributes.
"""
import ctypes
import json
import sys

U = ctypes.c_ulong
TYPES = [
    0x0, 0x1, 0x2, 0x3, 0x4, 0x10, 0x11, 0x12, 0x80, 0x81, 0x82, 0x86, 0x87, 0x90, 0x100, 0x101, 0x102, 0x103,
    0x104, 0x105, 0x106, 0x107, 0x108, 0x109, 0x10A, 0x10B, 0x10C, 0x110, 0x111, 0x120, 0x121, 0x122,
    0x123, 0x124, 0x125, 0x126, 0x127, 0x128, 0x129, 0x130, 0x131, 0x132, 0x133, 0x160, 0x161, 0x162, 0x163,
    0x164, 0x165, 0x166, 0x170, 0x171, 0x172, 0x180, 0x181, 0x202, 0x210, 0x300, 0x301, 0x302,
]


class Attribute(ctypes.Structure):
    _fields_ = [("type", U), ("value", ctypes.c_void_p), ("length", U)]


def check(what, rv):
    if rv != 0:
        sys.exit("%s: CKR 0x%x" % (what, rv))


def attribute(lib, session, handle, kind):
    a = Attribute(kind, None, 0)
    rv = lib.C_GetAttributeValue(session, handle, ctypes.byref(a), U(1))
    if rv == 0x11:
        return "sensitive"
    if rv == 0x12:
        return None
    check("C_GetAttributeValue", rv)
    buf = ctypes.create_string_buffer(max(a.length, 1))
    a.value = ctypes.cast(buf, ctypes.c_void_p)
    check("C_GetAttributeValue", lib.C_GetAttributeValue(session, handle, ctypes.byref(a), U(1)))
    return buf.raw[: a.length].hex()


def find(lib, session, template, length):
    check("C_FindObjectsInit", lib.C_FindObjectsInit(session, template, U(length)))
    handles = []
    while True:
        found = (U * 64)()
        count = U()
        check("C_FindObjects", lib.C_FindObjects(session, found, U(64), ctypes.byref(count)))
        if count.value == 0:
            break
        handles += list(found[: count.value])
    check("C_FindObjectsFinal", lib.C_FindObjectsFinal(session))
    return handles


def main():
    lib = ctypes.CDLL(sys.argv[1])
    pin = sys.argv[2].encode()
    check("C_Initialize", lib.C_Initialize(None))
    count = U(16)
    slots = (U * 16)()
    check("C_GetSlotList", lib.C_GetSlotList(1, slots, ctypes.byref(count)))
    session = U()
    check("C_OpenSession", lib.C_OpenSession(slots[0], U(6), None, None, ctypes.byref(session)))
    check("C_Login", lib.C_Login(session, U(1), pin, U(len(pin))))
    # A hardware feature is found only when its class is asked for.
    feature = (U * 1)(5)
    by_class = Attribute(0, ctypes.cast(feature, ctypes.c_void_p), 8)
    handles = find(lib, session, None, 0) + find(lib, session, ctypes.byref(by_class), 1)
    objects = []
    for handle in dict.fromkeys(handles):
        values = {}
        for kind in TYPES:
            value = attribute(lib, session, U(handle), kind)
            if value is not None:
                values["0x%x" % kind] = value
        objects.append(values)
    lib.C_Finalize(None)
    json.dump(objects, sys.stdout, indent=1)


main()
