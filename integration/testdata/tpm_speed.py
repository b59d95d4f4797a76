"""How fast a PKCS#11 module is with the keys "rsa" (2048 bits) and "ec" (P-256) of a token.

usage: tpm_speed.py MODULE LABEL PIN SECONDS TPM [DAEMON]

It prints what takes how many milliseconds: to load the module, initialise it and open a
session in the token; to log in; and a signature with each key, C_SignInit and C_Sign, of
those that end within the seconds. Behind each stand the milliseconds of processor time, of
itself and the processes TPM and DAEMON together, and of the TPM alone.
"""
import ctypes
import glob
import sys
import time

from stock_client import CLASS, LABEL, Client, Mechanism, Refused, TokenInfo, U, check

SHA256_RSA_PKCS, ECDSA = 0x40, 0x1041
PRIVATE_KEY = (3).to_bytes(8, "little")


class Clock:
    """What has passed since it was made."""

    def __init__(self, tpm, *others):
        self.processes = (tpm, *others)
        self.begun = self.now()

    def now(self):
        used = []
        for process in self.processes:
            used.append(0)
            for name in glob.glob("/proc/%s/task/*/schedstat" % process):
                with open(name) as f:
                    used[-1] += int(f.read().split()[0]) / 1e9
        return time.perf_counter(), time.process_time() + sum(used), used[0]

    def tell(self, what, times=1):
        passed = [1000 * (b - a) / times for a, b in zip(self.begun, self.now())]
        print(what, *passed)


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


def signatures(client, key, mechanism, data, seconds, what, processes):
    m = Mechanism(mechanism, None, 0)
    out = ctypes.create_string_buffer(512)

    def sign():
        length = U(len(out))
        check(client.lib.C_SignInit(client.session, ctypes.byref(m), U(key)))
        check(client.lib.C_Sign(client.session, data, U(len(data)), out, ctypes.byref(length)))

    sign()  # which may load the key
    clock, end, n = Clock(*processes), time.perf_counter() + seconds, 0
    while n == 0 or time.perf_counter() < end:
        sign()
        n += 1
    clock.tell(what, n)


def main(module, label, pin, seconds, *processes):
    clock = Clock(*processes)
    client = Client(module)
    client.session = U()
    check(client.lib.C_OpenSession(U(slot(client.lib, label)), U(6), None, None, ctypes.byref(client.session)))
    clock.tell("start")
    clock = Clock(*processes)
    client.do_login(pin)
    clock.tell("login")
    for name, mechanism, data in ("rsa", SHA256_RSA_PKCS, b"message"), ("ec", ECDSA, 32 * b"\1"):
        (key,) = client.find([(CLASS, PRIVATE_KEY), (LABEL, name.encode())])
        signatures(client, key, mechanism, data, float(seconds), name, processes)


if __name__ == "__main__":
    main(*sys.argv[1:])
