"""The drill of deploy/backup against real storage that speaks S3 (SeaweedFS)."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import daemons
from objects import BIN, DEPLOY, ROOT, need, tool

LOGIN = {"AWS_ACCESS_KEY_ID": "drill", "AWS_SECRET_ACCESS_KEY": "not-a-secret"}


def identities():
    key = {"accessKey": LOGIN["AWS_ACCESS_KEY_ID"], "secretKey": LOGIN["AWS_SECRET_ACCESS_KEY"]}
    return json.dumps({"identities": [{"name": "drill", "credentials": [key], "actions": ["Read", "Write", "List", "Admin"]}]})


def storage(weed, folder, first):
    """A store of objects with a login; its gRPC ports are in a row after the others."""
    names = ["master", "volume", "filer", "s3"]
    ports = [f"-{name}.port={first + at}" for at, name in enumerate(names)]
    ports += [f"-{name}.port.grpc={first + len(names) + at}" for at, name in enumerate(names)]
    return [weed, "server", "-master.telemetry=false", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-filer", "-s3",
            "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder}/identities.json", "-volume.max=5", "-master.volumeSizeLimitMB=64", *ports]


class Backup(unittest.TestCase):
    def test_a_store_that_is_lost_comes_back_from_its_backup(self):
        weed = need(self, "weed")
        if not (tool("novacron") and tool("novacron-consensus")):
            self.skipTest("there are no daemons (variable BIN)")
        with tempfile.TemporaryDirectory() as name:
            folder, first = pathlib.Path(name), daemons.free(40)
            (folder / "identities.json").write_text(identities())
            url = f"http://127.0.0.1:{first + 3}/novacron"
            environment = os.environ | LOGIN | {"S3_URL": url, "PROGRAMS": str(BIN), "PORT": str(first + 10)}

            def has_bucket():
                command = [". deploy/backup/s3.sh && s3 -X PUT $S3_URL"]
                return subprocess.run(["bash", "-c", *command], cwd=ROOT, env=environment, capture_output=True).returncode == 0

            with daemons.running({"weed": storage(weed, folder, first)}, folder, has_bucket):
                done = subprocess.run([DEPLOY / "backup" / "drill.sh"], env=environment, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        print(done.stdout.strip())
