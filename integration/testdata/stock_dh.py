"""Diffie-Hellman by the stock library, for the user: derives with the private key of a
label and another's public value in hexadecimal, and prints the secret; or makes a pair in
a group, its prime and base in hexadecimal.

usage: stock_dh.py MODULE PIN derive LABEL PUBLIC
       stock_dh.py MODULE PIN pair LABEL PRIME BASE
"""
import ctypes
import sys

from stock_client import CLASS, LABEL, TOKEN, VALUE, Client, Mechanism, U, check, template

KEY_TYPE, SENSITIVE, DERIVE, PRIME, BASE, VALUE_LEN, EXTRACTABLE, PRIVATE = 0x100, 0x103, 0x10C, 0x130, 0x132, 0x161, 0x162, 0x2
PAIR_GEN, DH_DERIVE, PRIVATE_KEY, SECRET_KEY, GENERIC_SECRET = 0x20, 0x21, 3, 4, 0x10


def number(n):
    return n.to_bytes(8, "little")


def derive(client, label, public):
    peer = bytes.fromhex(public)
    base = client.find([(CLASS, number(PRIVATE_KEY)), (LABEL, label.encode())])[0]
    parameter = ctypes.create_string_buffer(peer, len(peer))
    m = Mechanism(DH_DERIVE, ctypes.cast(parameter, ctypes.c_void_p), len(peer))
    t = template([
        (CLASS, number(SECRET_KEY)), (KEY_TYPE, number(GENERIC_SECRET)), (VALUE_LEN, number(32)),
        (SENSITIVE, b"\0"), (EXTRACTABLE, b"\1"), (TOKEN, b"\0"),
    ])
    key = U()
    check(client.lib.C_DeriveKey(client.session, ctypes.byref(m), U(base), t, U(len(t)), ctypes.byref(key)))
    return client.get(key.value, VALUE).hex()


def pair(client, label, prime, base):
    m = Mechanism(PAIR_GEN, None, 0)
    both = [(TOKEN, b"\1"), (LABEL, label.encode()), (DERIVE, b"\1")]
    public = template(both + [(PRIME, bytes.fromhex(prime)), (BASE, bytes.fromhex(base))])
    private = template(both + [(PRIVATE, b"\1")])
    handles = U(), U()
    check(client.lib.C_GenerateKeyPair(
        client.session, ctypes.byref(m), public, U(len(public)), private, U(len(private)), ctypes.byref(handles[0]), ctypes.byref(handles[1])))
    return ""


client = Client(sys.argv[1])
client.do_open()
client.do_login(sys.argv[2])
print({"derive": derive, "pair": pair}[sys.argv[3]](client, *sys.argv[4:]))
client.do_end()
