"""Scripts of deploy/ with programs that only write down how they are called."""

import datetime
import os
import pathlib
import subprocess
import tempfile
import unittest

from objects import DEPLOY

KUBECTL = """#!/bin/sh
echo "kubectl $*" >>"$CALLS"
case "$*" in
    *"get pvc"*) printf 'persistentvolumeclaim/data-0\\npersistentvolumeclaim/data-1\\n' ;;
    *"get volumesnapshots"*) printf '%s' "$SNAPSHOTS" ;;
    *apply*) cat >>"$CALLS" ;;
esac
"""


class Scripts(unittest.TestCase):
    def run_with(self, script, **environment):
        """What a script has called."""
        with tempfile.TemporaryDirectory() as folder:
            calls, stub = pathlib.Path(folder) / "calls", pathlib.Path(folder) / "kubectl"
            stub.write_text(KUBECTL)
            stub.chmod(0o755)
            path = f"{folder}:{os.environ['PATH']}"
            done = subprocess.run(["sh", DEPLOY / script], env=os.environ | environment | {"PATH": path, "CALLS": str(calls)}, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stderr)
            return calls.read_text()

    def test_snapshots_are_taken_and_old_ones_removed(self):
        day = datetime.timedelta(days=1)
        now = datetime.datetime.now(datetime.UTC)
        times = [(now - 8 * day, "old"), (now - 6 * day, "young")]
        listed = "".join(f"{time:%Y-%m-%dT%H:%M:%SZ} {name}\n" for time, name in times)
        calls = self.run_with("storage/snapshots/snapshot.sh", SNAPSHOTS=listed)
        self.assertEqual(calls.count("kind: VolumeSnapshot"), 2)
        self.assertIn("persistentVolumeClaimName: data-1", calls)
        self.assertIn("delete volumesnapshot old", calls)
        self.assertNotIn("delete volumesnapshot young", calls)
