"""Dumps what a slot daemon and stock clients share.

usage: stock_dump.py socket PATH | sysv FILE | hold MODULE SLOT OPEN CLOSE

socket writes what the slot socket sends, sysv the System V segment of the slot
daemon's FILE, to standard output. hold opens and closes sessions on a slot as a
stock process does, writes a line with its process number, and stays.
"""
import ctypes
import os
import socket
import sys
import time

what = sys.argv[1]
if what == "socket":
    s = socket.socket(socket.AF_UNIX)
    s.connect(sys.argv[2])
    while True:
        b = s.recv(1 << 20)
        if not b:
            break
        sys.stdout.buffer.write(b)
elif what == "sysv":
    libc = ctypes.CDLL(None, use_errno=True)
    st = os.stat(sys.argv[2])
    key = ord("b") << 24 | (st.st_dev & 0xFF) << 16 | st.st_ino & 0xFFFF
    size = 4124096
    id = libc.shmget(key, size, 0)
    libc.shmat.restype = ctypes.c_void_p
    at = libc.shmat(id, None, 0o10000)
    if id < 0 or at in (None, ctypes.c_void_p(-1).value):
        sys.exit("shared memory: " + os.strerror(ctypes.get_errno()))
    sys.stdout.buffer.write(ctypes.string_at(at, size))
elif what == "hold":
    p11 = ctypes.CDLL(sys.argv[2])
    slot, opened, closed = (int(n) for n in sys.argv[3:])

    def check(rv):
        if rv:
            sys.exit("0x%x" % rv)

    check(p11.C_Initialize(None))
    handles = []
    for _ in range(opened):
        h = ctypes.c_ulong()
        check(p11.C_OpenSession(ctypes.c_ulong(slot), ctypes.c_ulong(6), None, None, ctypes.byref(h)))
        handles.append(h)
    for h in handles[:closed]:
        check(p11.C_CloseSession(h))
    print(os.getpid(), flush=True)
    time.sleep(600)
