"""Runs a program on a terminal and types lines when it does not show what is typed.

usage: typed.py LINE,LINE COMMAND...
"""
import os
import pty
import sys
import termios
import time


def main():
    lines = sys.argv[1].split(",")
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(sys.argv[2], sys.argv[2:])
    os.set_blocking(terminal, False)
    said, typed_at = 0, -1
    while True:
        try:
            out = os.read(terminal, 4096)
            said += len(out)
            sys.stdout.buffer.write(out)
            sys.stdout.flush()
        except BlockingIOError:
            hidden = not termios.tcgetattr(terminal)[3] & termios.ECHO
            # Not until it has asked again: what is typed before is thrown away.
            if hidden and lines and said > typed_at:
                os.write(terminal, (lines.pop(0) + "\n").encode())
                typed_at = said + 2  # its answer to the end of the line
            time.sleep(0.01)
        except OSError:
            break
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


if __name__ == "__main__":
    main()
