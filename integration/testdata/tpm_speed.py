"""How fast a PKCS#11 module is with the keys "rsa" (2048 bits) and "ec" (P-256) of a token.

usage: tpm_speed.py MODULE LABEL PIN SECONDS

It prints what takes how many milliseconds: to load the module, initialise it and open a
session in the token; to log in; and a signature with each key, C_SignInit and C_Sign, of
those that end within the seconds.
"""
import ctypes
import sys
import time

from stock_client import CLASS, LABEL, Client, Mechanism, Refused, TokenInfo, U, check

SHA256_RSA_PKCS, ECDSA = 0x40, 0x1041
PRIVATE_KEY = (3).to_bytes(8, "little")


def elapsed(since):
    return 1000 * (time.perf_counter() - since)


def slot(lib, label):
    count = U()
    check(lib.C_GetSlotList(b"\1", None, ctypes.byref(count)))
    slots = (U * count.value)()
    check(lib.C_GetSlotList(b"\1", slots, ctypes.byref(count)))
    for one in slots[: count.value]:
        info = TokenInfo()
        check(lib.C_GetTokenInfo(U(one), ctypes.byref(info)))
        if info.label.decode().strip() == label:
            return one
    raise Refused("no token %s" % label)


def signatures(client, key, mechanism, data, seconds):
    m = Mechanism(mechanism, None, 0)
    out = ctypes.create_string_buffer(512)

    def sign():
        length = U(len(out))
        check(client.lib.C_SignInit(client.session, ctypes.byref(m), U(key)))
        check(client.lib.C_Sign(client.session, data, U(len(data)), out, ctypes.byref(length)))

    sign()  # which may load the key
    begun, n = time.perf_counter(), 0
    while n == 0 or elapsed(begun) < 1000 * seconds:
        sign()
        n += 1
    return elapsed(begun) / n


def main(module, label, pin, seconds):
    begun = time.perf_counter()
    client = Client(module)
    client.session = U()
    check(client.lib.C_OpenSession(U(slot(client.lib, label)), U(6), None, None, ctypes.byref(client.session)))
    print("start", elapsed(begun))
    begun = time.perf_counter()
    client.do_login(pin)
    print("login", elapsed(begun))
    for name, mechanism, data in ("rsa", SHA256_RSA_PKCS, b"message"), ("ec", ECDSA, 32 * b"\1"):
        (key,) = client.find([(CLASS, PRIVATE_KEY), (LABEL, name.encode())])
        print(name, signatures(client, key, mechanism, data, float(seconds)))


if __name__ == "__main__":
    main(*sys.argv[1:])
