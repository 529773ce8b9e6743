"""Daemons on this machine, for as long as a test needs them."""

import contextlib
import random
import socket
import subprocess
import time
import urllib.request

# How long they may take until they answer.
WAIT_SECONDS = 30
# How long they may take to end.
END_SECONDS = 10

# Below what the kernel gives to connections: nobody else takes one by chance.
PORTS = range(20000, 32000)


def free(count):
    """The first of so many ports in a row that nobody listens on."""
    while True:
        first = random.choice(PORTS[:-count])
        with contextlib.ExitStack() as sockets:
            try:
                for port in range(first, first + count):
                    sockets.enter_context(socket.socket()).bind(("127.0.0.1", port))
            except OSError:
                continue
        return first


@contextlib.contextmanager
def running(commands, folder, ready):
    """Starts {name: command}, with their logs in a folder, and waits until `ready()` gives something, which it yields. In the end they get
    SIGTERM, the last first, and are killed if they do not mind it."""
    processes = []
    try:
        for name, command in commands.items():
            with (folder / f"{name}.log").open("w") as log:
                processes.append(subprocess.Popen(command, stdout=log, stderr=log))
        deadline = time.monotonic() + WAIT_SECONDS
        while not (found := ready()):
            if time.monotonic() > deadline:
                raise AssertionError("they do not answer: " + "".join(path.read_text()[-500:] for path in folder.glob("*.log")))
            time.sleep(0.5)
        yield found
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def member(program, folder, port):
    return [program, "--name=a", f"--data-dir={folder}/member", f"--listen-client-urls=http://127.0.0.1:{port}",
            f"--listen-peer-urls=http://127.0.0.1:{port + 1}", f"--initial-cluster=a=http://127.0.0.1:{port + 1}"]


def api(program, folder, store, port):
    return [program, f"--store-endpoints=http://127.0.0.1:{store}", f"--data-dir={folder}/api", f"--listen=127.0.0.1:{port}", "--limits-rate=off"]


def is_ready(port):
    """Whether a replica of the API is."""
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=5).status == 200
    except OSError:
        return False
