"""Has the thousand users of deploy/load/api.js at a replica of the API, several times, and tells how long they waited, what failed, and whether
the replica grows: of one that keeps nothing, the memory is the same each time that all users are there.

    scripts/bench-load.sh [--courses N] [--ramp 5s] [--hold 15s] [--seed 1] [--doc docs/benchmarks.md]

As with other benches, a number that is too small is said and is no failure; a replica that ends is one. Three members of the store, the
replica and k6 share the machine's processors.
"""

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import daemons
from objects import DEPLOY, ROOT, run, tool, why_not

SCRIPT = DEPLOY / "load" / "api.js"
# Between looks at the memory.
SAMPLE_SECONDS = 0.5
# Ports of the members and their peers, as `novacron up` chooses them, and every how many is a member's.
STORE_PORTS, PORT_STEP = 202, 100
# VMs that there are.
VMS = 1000
# Seconds that connections, and what the first users left, have to go before the next course.
PAUSE_SECONDS = 3


class Memory:
    """The resident memory of the process that listens on a port, in MiB, again and again, with how many connections it had."""

    def __init__(self, metrics):
        self.metrics, self.samples, self.over = metrics, [], threading.Event()
        self.process = json.loads(self.fetch("/status"))["pid"]

    def fetch(self, path):
        return urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}{path}", timeout=10).read().decode()

    def look(self):
        status = pathlib.Path(f"/proc/{self.process}/status").read_text()
        connections = re.search(r"^active_connections (\S+)", self.fetch("/metrics"), re.M)
        return float(connections[1]), int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def keep_looking(self):
        while not self.over.wait(SAMPLE_SECONDS):
            self.samples.append(self.look())

    @contextlib.contextmanager
    def watched(self):
        """What is seen meanwhile, as a list of (connections, MiB)."""
        self.samples, self.over = [], threading.Event()
        looks = threading.Thread(target=self.keep_looking, daemon=True)
        looks.start()
        try:
            yield self.samples
        finally:
            self.over.set()
            looks.join()


def fill(port, count):
    """So many VMs, for users to look at."""
    for n in range(count):
        vm = {"name": f"vm-{n}", "cpus": 1, "memory_bytes": 268435456, "image": "disk.img", "region": "region-1", "desired_state": "running"}
        request = urllib.request.Request(f"http://127.0.0.1:{port}/api/v1/vms", json.dumps(vm).encode(), {"Content-Type": "application/json"})
        urllib.request.urlopen(request, timeout=30).close()


def course(k6, port, seed, args, memory, summary):
    """All stages once: what k6 has counted, and the median of the memory while all users were there."""
    settings = {"URL": f"http://127.0.0.1:{port}", "USERS": args.users, "RAMP": args.ramp, "HOLD": args.hold, "SEED": seed}
    flags = [word for key, value in settings.items() for word in ("-e", f"{key}={value}")]
    with memory.watched() as samples:
        subprocess.run([k6, "run", "--quiet", "--no-thresholds", f"--summary-export={summary}", *flags, SCRIPT], check=True,
                       stdout=subprocess.DEVNULL)
    metrics = json.loads(summary.read_text())["metrics"]
    busy = [mebibytes for connections, mebibytes in samples if connections >= 0.95 * args.users]
    if not busy:
        raise SystemExit(f"there were never {args.users} users: a longer --hold is needed")
    took = metrics["http_req_duration"]
    return {
        "requests": metrics["http_reqs"]["count"], "rate": metrics["http_reqs"]["rate"], "median": took["med"], "p95": took["p(95)"],
        "p99": took["p(99)"], "max": took["max"], "failed": metrics["http_req_failed"]["value"],
        "wrong": metrics["checks"]["fails"], "memory": statistics.median(busy), "peak": max(mebibytes for _, mebibytes in samples),
    }


def tidy(endpoints):
    """Forgets what was, and has the members' disks forget it: a page of a list is read past all VMs that are gone."""
    ask = lambda *words: run(tool("novacron"), *words, "--endpoints", endpoints)
    revision = json.loads(ask("kv", "get", "/novacron/vms/vm-0", "--json"))["header"]["revision"]
    ask("kv", "compact", str(revision))
    ask("cluster", "defrag")


def endpoints(store):
    return ",".join(f"http://127.0.0.1:{store + n * PORT_STEP}" for n in range(3))


def started(folder, store, api):
    """The commands of three members and a replica, with the ports of its API and its metrics."""
    port, metrics = api, api + 1
    return {
        "members": [tool("novacron"), "up", "--no-api", "--data-dir", f"{folder}/store", "--port", str(store), "--agent-port", str(api + 2)],
        "api": [tool("novacron-api"), "--replica=load", f"--store-endpoints={endpoints(store)}", f"--data-dir={folder}/api",
                f"--listen=127.0.0.1:{port}", f"--metrics-listen=127.0.0.1:{metrics}", "--limits-rate=off"],
    }


def measured(args):
    k6 = tool("k6")
    for name in ("k6", "novacron", "novacron-api"):
        if not tool(name):
            raise SystemExit(why_not(name) if name == "k6" else f"there is no {name} (variable BIN)")
    store, api = daemons.free(STORE_PORTS), daemons.free(6)
    found = []
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = pathlib.Path(name)
        with daemons.running(started(folder, store, api), folder, lambda: daemons.is_ready(api)):
            fill(api, VMS)
            memory = Memory(api + 1)
            for n in range(args.courses):
                found.append(course(k6, api, args.seed + n, args, memory, folder / "summary.json"))
                print(f"course {n + 1}, seed {args.seed + n}: {found[-1]}", file=sys.stderr)
                tidy(endpoints(store))
                time.sleep(PAUSE_SECONDS)
            found[-1]["after"] = memory.look()[1]
    return found


def first_line(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def requirement(what, value, must):
    met = "reported" if must is None else "yes" if value < must else "**no**"
    return f"| {what} | {value:.3f} | {'-' if must is None else f'< {must}'} | {met} |"


def section(args, found):
    rows = [f"| {n + 1} | {each['requests']:.0f} | {each['rate']:.0f} | {each['median']:.1f} | {each['p95']:.1f} | {each['p99']:.1f} | "
            f"{each['max']:.0f} | {100 * each['failed']:.2f} | {each['wrong']} | {each['memory']:.1f} | {each['peak']:.1f} |"
            for n, each in enumerate(found)]
    worst = lambda name: max(each[name] for each in found)
    processor = re.search(r"model name\s+: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    return "\n".join([
        "| course | requests | per second | median ms | p95 ms | p99 ms | max ms | failed % | wrong answers | RSS MiB | peak MiB |",
        "|---:|" + "---:|" * 10, *rows, "",
        "| what | value | must | met |", "|---|---:|---:|---|",
        requirement("a request, worst course: p95 s", worst("p95") / 1000, 1),
        requirement("a request, worst course: p99 s", worst("p99") / 1000, None),
        requirement("failed requests, worst course: %", 100 * worst("failed"), 1),
        requirement("RSS with all users, last course / second", found[-1]["memory"] / found[min(1, len(found) - 1)]["memory"], 1.05),
        requirement("RSS without users after the last, MiB", found[-1]["after"], None), "",
        f"{args.courses} courses of {args.users // 10}, {args.users} and {args.users // 10} users: {args.ramp} to each and {args.hold} there. "
        f"{os.cpu_count()} cores of {processor[1] if processor else 'unknown'}, Linux {platform.release()}, commit "
        f"{first_line('git', 'describe', '--always', '--dirty', '--abbrev=12')}, {datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC, "
        f"`make bench-load`, seed {args.seed}.",
    ])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--courses", type=int, default=4)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--ramp", default="5s")
    parser.add_argument("--hold", default="10s")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", help="where the members' data is, on the disk to be measured")
    parser.add_argument("--doc", type=pathlib.Path)
    args = parser.parse_args()
    text = section(args, measured(args))
    print(text)
    if args.doc:
        begin, end = "<!-- bench:load -->", "<!-- /bench:load -->"
        before, rest = args.doc.read_text().split(begin)
        args.doc.write_text(f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


if __name__ == "__main__":
    main()
