"""The Python client etcd3, used as its documentation says: etcd3_client.py PORT... for three members that are empty.

What is not as it has to be ends the program with an exception. Authentication is last: it is off again at the end.
"""

import io
import sys
import time

import etcd3

PATIENCE_S = 20


def refused(expected, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except Exception as error:  # The client lets gRPC's own errors through.
        text = f"{error!r} {error}"
        assert expected in text, f"{text} does not say {expected}"
    else:
        raise AssertionError(f"{call} {args} is not refused")


def keys(client):
    client.put("kv/a", "1")
    client.put("kv/a", "2")
    client.put("kv/b", "3")
    value, meta = client.get("kv/a")
    assert (value, meta.version) == (b"2", 2)
    assert [(value, meta.key) for value, meta in client.get_prefix("kv/")] == [(b"2", b"kv/a"), (b"3", b"kv/b")]
    assert client.replace("kv/a", "2", "4") and not client.replace("kv/a", "2", "5")
    assert client.put_if_not_exists("kv/c", "x") and not client.put_if_not_exists("kv/c", "y")
    assert client.delete("kv/a") and not client.delete("kv/a")
    assert client.delete_prefix("kv/").deleted == 2
    assert client.get("kv/b") == (None, None)


def transactions(client):
    transaction = {
        "compare": [client.transactions.create("txn/a") == 0],
        "success": [client.transactions.put("txn/a", "made")],
        "failure": [client.transactions.get("txn/a")],
    }
    assert client.transaction(**transaction)[0]
    succeeded, answers = client.transaction(**transaction)
    assert not succeeded and answers[0][0][0] == b"made", answers


def leases(client):
    lease = client.lease(2)
    client.put("lease/a", "x", lease=lease)
    assert lease.refresh()[0].TTL == 2
    assert lease.granted_ttl == 2 and lease.remaining_ttl <= 2 and lease.keys == [b"lease/a"]
    until = time.monotonic() + PATIENCE_S
    while client.get("lease/a")[0] is not None:
        assert time.monotonic() < until, "the lease does not end"
        time.sleep(0.1)
    lease = client.lease(600)
    client.put("lease/b", "x", lease=lease)
    lease.revoke()
    assert client.get("lease/b")[0] is None


def locks(client, other):
    with client.lock("work", ttl=60) as held:
        assert held.is_acquired()
        assert not other.lock("work", ttl=60).acquire(timeout=1)
    lock = other.lock("work", ttl=60)
    assert lock.acquire(timeout=PATIENCE_S) and lock.release()


def watches(client):
    events, cancel = client.watch_prefix("watch/")
    client.put("watch/a", "1")
    client.delete("watch/a")
    put, delete = next(events), next(events)
    cancel()
    assert isinstance(put, etcd3.events.PutEvent) and (put.key, put.value) == (b"watch/a", b"1")
    assert isinstance(delete, etcd3.events.DeleteEvent) and delete.key == b"watch/a"
    revision = put.mod_revision
    assert client.watch_once("watch/a", timeout=PATIENCE_S, start_revision=revision).value == b"1"


def cluster(client, count):
    members = list(client.members)
    assert len(members) == count and all(member.name for member in members)
    status = client.status()
    assert status.leader.id in [member.id for member in members] and status.db_size > 0 and status.version
    assert not list(client.list_alarms())
    assert client.hash() is not None
    client.defragment()
    file = io.BytesIO()
    client.snapshot(file)
    assert len(file.getvalue()) > 4096
    client.compact(status.raft_index and client.get("txn/a")[1].mod_revision)


def users(port):
    """This client cannot make users: it is only recognized as one, or refused."""
    refused("authentication is not enabled", etcd3.client, port=port, user="alice", password="secret")


def main():
    ports = [int(port) for port in sys.argv[1:]]
    client, other = etcd3.client(port=ports[0]), etcd3.client(port=ports[-1])
    keys(client)
    transactions(client)
    leases(client)
    locks(client, other)
    watches(client)
    cluster(client, len(ports))
    users(ports[0])


main()
