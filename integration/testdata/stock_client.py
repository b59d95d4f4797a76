"""A process of the stock library that lives on: one command a line on standard
input, one line of answer on standard output, "ok ..." or the CK_RV.

usage: stock_client.py MODULE

Objects are named by their labels, which the library is asked for each time.
"""
import ctypes
import sys

U = ctypes.c_ulong
CLASS, TOKEN, PRIVATE, LABEL, APPLICATION, VALUE = 0x0, 0x1, 0x2, 0x3, 0x10, 0x11
DATA, PUBLIC_KEY, PRIVATE_KEY = 0, 2, 3


class Attribute(ctypes.Structure):
    _fields_ = [("type", U), ("value", ctypes.c_void_p), ("length", U)]


class Mechanism(ctypes.Structure):
    _fields_ = [("type", U), ("parameter", ctypes.c_void_p), ("length", U)]


class TokenInfo(ctypes.Structure):
    _fields_ = [
        ("label", ctypes.c_char * 32), ("manufacturer", ctypes.c_char * 32), ("model", ctypes.c_char * 16),
        ("serial", ctypes.c_char * 16), ("flags", U), ("numbers", U * 10), ("versions", ctypes.c_char * 4),
        ("time", ctypes.c_char * 16),
    ]


class Refused(Exception):
    pass


def check(rv):
    if rv != 0:
        raise Refused("0x%x" % rv)


def template(pairs):
    kept = []
    array = (Attribute * len(pairs))()
    for i, (kind, value) in enumerate(pairs):
        raw = ctypes.create_string_buffer(value, max(len(value), 1))
        kept.append(raw)
        array[i] = Attribute(kind, ctypes.cast(raw, ctypes.c_void_p), len(value))
    array.kept = kept
    return array


class Client:
    def __init__(self, module):
        self.lib = ctypes.CDLL(module)
        check(self.lib.C_Initialize(None))
        self.session = None

    def do_open(self):
        self.session = U()
        check(self.lib.C_OpenSession(U(0), U(6), None, None, ctypes.byref(self.session)))

    def do_close(self):
        check(self.lib.C_CloseSession(self.session))

    def do_login(self, pin, user="1"):
        check(self.lib.C_Login(self.session, U(int(user)), pin.encode(), U(len(pin))))

    def do_logout(self):
        check(self.lib.C_Logout(self.session))

    def do_setpin(self, old, new):
        check(self.lib.C_SetPIN(self.session, old.encode(), U(len(old)), new.encode(), U(len(new))))

    def do_info(self):
        info = TokenInfo()
        check(self.lib.C_GetTokenInfo(U(0), ctypes.byref(info)))
        return "%s flags=%#x" % (info.label.decode().strip(), info.flags)

    def find(self, pairs):
        t = template(pairs)
        check(self.lib.C_FindObjectsInit(self.session, t, U(len(pairs))))
        handles = []
        while True:
            found, count = (U * 64)(), U()
            check(self.lib.C_FindObjects(self.session, found, U(64), ctypes.byref(count)))
            if count.value == 0:
                break
            handles += list(found[: count.value])
        check(self.lib.C_FindObjectsFinal(self.session))
        return handles

    def get(self, handle, kind):
        a = Attribute(kind, None, 0)
        check(self.lib.C_GetAttributeValue(self.session, U(handle), ctypes.byref(a), U(1)))
        buf = ctypes.create_string_buffer(max(a.length, 1))
        a.value = ctypes.cast(buf, ctypes.c_void_p)
        check(self.lib.C_GetAttributeValue(self.session, U(handle), ctypes.byref(a), U(1)))
        return buf.raw[: a.length]

    def one(self, label):
        for handle in self.find([]):
            if self.get(handle, LABEL).decode() == label:
                return handle
        raise Refused("no object %s" % label)

    def do_list(self):
        return " ".join(sorted(self.get(h, LABEL).decode().replace(" ", "_") for h in self.find([])))

    def do_create(self, label, value, private="0"):
        self.create(label, value, private)

    def create(self, label, value, private):
        handle = U()
        t = template([
            (CLASS, DATA.to_bytes(8, "little")), (TOKEN, b"\1"), (PRIVATE, bytes([int(private)])),
            (LABEL, label.encode()), (APPLICATION, b""), (VALUE, value.encode()),
        ])
        check(self.lib.C_CreateObject(self.session, t, U(6), ctypes.byref(handle)))
        return handle

    def do_many(self, prefix, count):
        for i in range(int(count)):
            self.do_create("%s%d" % (prefix, i), "x")

    def do_load(self, prefix, rounds):
        """Creates, changes and destroys its own objects; the answer is what is left."""
        left = []
        for i in range(int(rounds)):
            label = "%s-%d" % (prefix, i)
            handle = self.create(label, label, str(i % 2))
            if i % 3 == 0:
                label += "-new"
                self.relabel(handle, label)
            if i % 4 == 0:
                check(self.lib.C_DestroyObject(self.session, handle))
            else:
                left.append(label)
        return " ".join(left)

    def do_value(self, label):
        return self.get(self.one(label), VALUE).decode().strip()

    def do_hold(self, label):
        self.held = self.one(label)

    def do_held(self):
        return self.get(self.held, LABEL).decode() + " " + self.get(self.held, VALUE).decode().strip()

    def do_relabel(self, old, new):
        self.relabel(U(self.one(old)), new)

    def relabel(self, handle, label):
        check(self.lib.C_SetAttributeValue(self.session, handle, template([(LABEL, label.encode())]), U(1)))

    def do_destroy(self, label):
        check(self.lib.C_DestroyObject(self.session, U(self.one(label))))

    def key(self, label, kind):
        for handle in self.find([(LABEL, label.encode()), (CLASS, kind.to_bytes(8, "little"))]):
            return U(handle)
        raise Refused("no key %s" % label)

    def use(self, init, call, handle, mechanism, data):
        check(init(self.session, ctypes.byref(Mechanism(mechanism, None, 0)), handle))
        out, n = ctypes.create_string_buffer(512), U(512)
        check(call(self.session, data, U(len(data)), out, ctypes.byref(n)))
        return out.raw[: n.value]

    def do_sign(self, label, data, mechanism="0x6"):  # CKM_SHA1_RSA_PKCS
        key = self.key(label, PRIVATE_KEY)
        return self.use(self.lib.C_SignInit, self.lib.C_Sign, key, int(mechanism, 0), data.encode()).hex()

    def do_verify(self, label, data, signature):
        m, raw = Mechanism(0x6, None, 0), bytes.fromhex(signature)
        check(self.lib.C_VerifyInit(self.session, ctypes.byref(m), self.key(label, PUBLIC_KEY)))
        check(self.lib.C_Verify(self.session, data.encode(), U(len(data)), raw, U(len(raw))))

    def do_encrypt(self, label, data):
        return self.use(self.lib.C_EncryptInit, self.lib.C_Encrypt, self.key(label, PUBLIC_KEY), 0x1, data.encode()).hex()

    def do_decrypt(self, label, data):
        return self.use(self.lib.C_DecryptInit, self.lib.C_Decrypt, self.key(label, PRIVATE_KEY), 0x1, bytes.fromhex(data)).decode()

    def do_hidden(self):
        """Counts what is found by an attribute of the tpm token's own objects."""
        return str(len(self.find([(0x81000000, b"\1")])))

    def do_initpin(self, pin):
        check(self.lib.C_InitPIN(self.session, pin.encode(), U(len(pin))))

    def do_end(self):
        check(self.lib.C_Finalize(None))


def serve(client):
    print("ok", flush=True)
    for line in sys.stdin:
        command, *args = line.split()
        try:
            answer = getattr(client, "do_" + command)(*args)
            print("ok" if answer is None else "ok " + answer, flush=True)
        except Refused as e:
            print(e, flush=True)


if __name__ == "__main__":
    serve(Client(sys.argv[1]))
