"""How many RSA signatures a second a program makes with the key "k" of a token.

usage: rate.py file SECONDS KEY-FOLDER
       rate.py module SECONDS MODULE LABEL PIN
"""
import ctypes
import os
import sys
import time

from stock_client import CLASS, LABEL, Client, Mechanism, U, check
from tpm_speed import PRIVATE_KEY, SHA256_RSA_PKCS, slot


def file_signer(folder):
    def sign():
        fd = os.open(folder + "/sign", os.O_RDWR)
        os.write(fd, b"data")
        assert len(os.read(fd, 4096)) == 256
        os.close(fd)

    return sign


def module_signer(module, label, pin):
    client = Client(module)
    client.session = U()
    check(client.lib.C_OpenSession(U(slot(client.lib, label)), U(6), None, None, ctypes.byref(client.session)))
    client.do_login(pin)
    (key,) = client.find([(CLASS, PRIVATE_KEY), (LABEL, b"k")])
    m, out = Mechanism(SHA256_RSA_PKCS, None, 0), ctypes.create_string_buffer(512)

    def sign():
        length = U(len(out))
        check(client.lib.C_SignInit(client.session, ctypes.byref(m), U(key)))
        check(client.lib.C_Sign(client.session, b"data", U(4), out, ctypes.byref(length)))
        assert length.value == 256

    return sign


sign = {"file": file_signer, "module": module_signer}[sys.argv[1]](*sys.argv[3:])
n, begun = 0, time.monotonic()
while time.monotonic() < begun + float(sys.argv[2]):
    sign()
    n += 1
print(int(n / (time.monotonic() - begun)))
