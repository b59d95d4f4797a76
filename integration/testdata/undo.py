"""What a module encrypts it decrypts: AES-GCM up to what its decryption holds, and no
byte more, and streams of more than that.

usage: undo.py MODULE
"""
import ctypes
import os
import sys

from conformance import Application
from stock_client import Mechanism, Refused, U, template

MIB = 1 << 20
MOST = 64 * MIB
GCM, STREAM = 0x1087, 0x80503131


class GCMParams(ctypes.Structure):
    _fields_ = [("iv", ctypes.c_char_p), ("length", U), ("bits", U), ("aad", ctypes.c_char_p), ("aad_length", U), ("tag", U)]


a = Application(sys.argv[1])
s = U(int(a.do_open("6"), 16))
attrs = [(0x0, (4).to_bytes(8, "little")), (0x1, b"\0"), (0x2, b"\0"), (0x100, (0x1F).to_bytes(8, "little")), (0x11, os.urandom(32))]
key = U(int(a.handle("C_CreateObject", s, template(attrs), U(len(attrs))), 16))
parameters = GCMParams(b"twelve bytes", 12, 96, None, 0, 128)
mechanisms = {
    GCM: Mechanism(GCM, ctypes.cast(ctypes.byref(parameters), ctypes.c_void_p), ctypes.sizeof(parameters)),
    STREAM: Mechanism(STREAM, None, 0),
}


def run(operation, mechanism, parts, room=2 * MIB):
    """An operation in parts."""
    out, result = ctypes.create_string_buffer(room), bytearray()
    a.do("C_%sInit" % operation, s, ctypes.byref(mechanisms[mechanism]), key)
    for part in parts:
        n = U(room)
        a.do("C_%sUpdate" % operation, s, part, U(len(part)), out, ctypes.byref(n))
        result += out[: n.value]
    n = U(room)
    a.do("C_%sFinal" % operation, s, out, ctypes.byref(n))
    return result + out[: n.value]


def cut(data):
    return [bytes(data[i : i + MIB]) for i in range(0, len(data), MIB)]


def refused(call):
    try:
        call()
    except Refused as e:
        return str(e)
    return "0x0"


plain = os.urandom(MOST)
sealed = run("Encrypt", GCM, cut(plain))
assert len(sealed) == MOST + 16
assert run("Decrypt", GCM, cut(sealed), MOST) == plain
assert refused(lambda: run("Encrypt", GCM, cut(plain) + [b"x"])) == "0x21"

longer, n = plain + b"x", U(MOST + 100)
out = ctypes.create_string_buffer(n.value)
a.do("C_EncryptInit", s, ctypes.byref(mechanisms[GCM]), key)
assert refused(lambda: a.do("C_Encrypt", s, longer, U(len(longer)), out, ctypes.byref(n))) != "0x0"

sealed = run("Encrypt", STREAM, cut(longer))
assert run("Decrypt", STREAM, cut(sealed)) == longer
assert refused(lambda: run("Decrypt", STREAM, cut(sealed[:-1]))) == "0x40"
