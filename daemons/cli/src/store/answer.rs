//! The JSON of answers that several commands share. docs/store-commands.md lists the fields: they are for ever.

use consensus_proto::{
    etcdserverpb::{
        DeleteRangeResponse, PutResponse, RangeResponse, ResponseHeader, TxnResponse, response_op::Response,
    },
    mvccpb::KeyValue,
};
use serde_json::{Value, json};

use super::output::{Id, json_bytes};

pub(crate) fn header(header: &Option<ResponseHeader>) -> Value {
    let Some(header) = header else { return Value::Null };
    json!({
        "cluster_id": Id(header.cluster_id).json(),
        "member_id": Id(header.member_id).json(),
        "revision": header.revision,
        "raft_term": header.raft_term,
    })
}

pub(crate) fn key_value(kv: &KeyValue) -> Value {
    json!({
        "key": json_bytes(&kv.key),
        "value": json_bytes(&kv.value),
        "create_revision": kv.create_revision,
        "mod_revision": kv.mod_revision,
        "version": kv.version,
        "lease": (kv.lease != 0).then(|| Id::of_lease(kv.lease).json()),
    })
}

fn key_values(kvs: &[KeyValue]) -> Vec<Value> {
    kvs.iter().map(key_value).collect()
}

pub(crate) fn range(answer: &RangeResponse) -> Value {
    json!({
        "header": header(&answer.header),
        "kvs": key_values(&answer.kvs),
        "count": answer.count,
        "more": answer.more,
    })
}

pub(crate) fn put(answer: &PutResponse) -> Value {
    json!({ "header": header(&answer.header), "prev_kv": answer.prev_kv.as_ref().map(key_value) })
}

pub(crate) fn delete_range(answer: &DeleteRangeResponse) -> Value {
    json!({
        "header": header(&answer.header),
        "deleted": answer.deleted,
        "prev_kvs": key_values(&answer.prev_kvs),
    })
}

pub(crate) fn txn(answer: &TxnResponse) -> Value {
    let responses = answer.responses.iter().map(|op| match &op.response {
        Some(Response::ResponseRange(answer)) => within("range", range(answer)),
        Some(Response::ResponsePut(answer)) => within("put", put(answer)),
        Some(Response::ResponseDeleteRange(answer)) => within("delete_range", delete_range(answer)),
        Some(Response::ResponseTxn(answer)) => within("txn", txn(answer)),
        None => Value::Null,
    });
    let responses: Vec<_> = responses.collect();
    json!({ "header": header(&answer.header), "succeeded": answer.succeeded, "responses": responses })
}

/// An answer in a transaction's, whose header is that of all.
fn within(kind: &str, mut answer: Value) -> Value {
    answer.as_object_mut().map(|fields| fields.remove("header"));
    json!({ kind: answer })
}
