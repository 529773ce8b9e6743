//! Keys that are gone cost a read nothing once it is known that they are, and are never missed where they are there.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use consensus_disk::MemoryDisk;
use consensus_proto::{
    etcdserverpb::{CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest},
    internal::{InternalRequest, internal_request::Request},
};
use consensus_store::{Reader, Store};
use proptest::prelude::*;
use prost::Message as _;

/// A store, and the index of what it has applied.
struct Applied(Store<MemoryDisk>, u64);

impl Applied {
    fn new() -> Self {
        Self(Store::open(Arc::new(MemoryDisk::default())).unwrap(), 0)
    }

    /// Each is a revision, if it changes something.
    fn apply(&mut self, requests: impl IntoIterator<Item = Request>) {
        let encoded =
            |request| InternalRequest { header: None, request: Some(request) }.encode_to_vec().into();
        let entries: Vec<Bytes> = requests.into_iter().map(encoded).collect();
        self.0.apply(self.1 + 1, &entries).unwrap();
        self.1 += entries.len() as u64;
    }
}

fn key(n: u16) -> Bytes {
    format!("key{n:05}").into()
}

fn put(n: u16) -> Request {
    Request::Put(PutRequest { key: key(n), value: vec![7; 50].into(), ..Default::default() })
}

fn delete(first: u16, end: u16) -> Request {
    Request::DeleteRange(DeleteRangeRequest { key: key(first), range_end: key(end), ..Default::default() })
}

fn all() -> RangeRequest {
    RangeRequest { key: "key".into(), range_end: "kez".into(), ..Default::default() }
}

fn keys(reader: &Reader<MemoryDisk>, request: &RangeRequest) -> Vec<Bytes> {
    reader.range(request).unwrap().kvs.into_iter().map(|kv| kv.key).collect()
}

#[test]
fn what_is_known_to_be_gone_is_not_read_again() {
    let mut store = Applied::new();
    store.apply((0..3000).map(put));
    store.apply([delete(0, 2990)]);
    let reader = store.0.reader();
    let page = RangeRequest { limit: 5, uncounted: true, ..all() };
    assert_eq!(reader.short_range(&page).unwrap(), None, "it is a long way to the first");
    let expected: Vec<_> = (2990..2995).map(key).collect();
    assert_eq!(keys(&reader, &page), expected);
    assert_eq!(reader.short_range(&page).unwrap().expect("it is known now").kvs.len(), 5);
    // One that comes back is there at once, and costs no more than itself.
    store.apply([put(1000), put(2000), delete(2000, 2001)]);
    assert_eq!(reader.short_range(&page).unwrap().expect("the rest is known").kvs[0].key, key(1000));
    // As it was before is another matter.
    let before = RangeRequest { revision: 3000, ..page };
    assert_eq!(keys(&reader, &before), (0..5).map(key).collect::<Vec<_>>());
    assert_eq!(keys(&reader, &all()).len(), 11);
}

#[test]
fn a_page_without_a_count_ends_where_it_is_known_that_there_are_more() {
    let mut store = Applied::new();
    store.apply((0..3000).map(put));
    let reader = store.0.reader();
    let page = RangeRequest { limit: 100, uncounted: true, ..all() };
    let response = reader.short_range(&page).unwrap().expect("it reads no more than it returns");
    assert_eq!((response.kvs.len(), response.more, response.count), (100, true, 100));
    let last = RangeRequest { key: key(2900), ..page.clone() };
    let response = reader.range(&last).unwrap();
    assert_eq!((response.kvs.len(), response.more, response.count), (100, false, 100));
    // What has to see all keys does.
    let counted = RangeRequest { count_only: true, ..page.clone() };
    assert_eq!(reader.range(&counted).unwrap().count, 3000);
    let descending = RangeRequest { sort_order: 2, ..page };
    assert_eq!(keys(&reader, &descending)[0], key(2999));
}

#[derive(Clone, Debug)]
enum Step {
    Put(u16),
    Delete(u16, u16),
    Compact,
    /// Reads so many, from a key, as it was so many revisions ago.
    Read(u16, i64, usize),
}

fn step() -> impl Strategy<Value = Step> {
    let n = 0_u16..300;
    prop_oneof![
        3 => n.clone().prop_map(Step::Put),
        3 => (n.clone(), 0_u16..120).prop_map(|(first, more)| Step::Delete(first, first + more)),
        1 => Just(Step::Compact),
        6 => (n, 0_i64..20, 0_usize..6).prop_map(|(n, limit, ago)| Step::Read(n, limit, ago)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_range_is_what_it_is_without_gaps(steps in prop::collection::vec(step(), 0..150)) {
        let mut store = Applied::new();
        store.apply((0..300).map(put));
        let mut revisions = vec![(0..300).collect::<BTreeSet<u16>>()];
        let (first, mut compacted) = (store.0.reader().revision(), 0);
        for step in steps {
            let mut now = revisions[revisions.len() - 1].clone();
            match step {
                Step::Put(n) => {
                    now.insert(n);
                    revisions.push(now);
                    store.apply([put(n)]);
                }
                Step::Delete(first, end) => {
                    let before = now.len();
                    now.retain(|n| !(first..end).contains(n));
                    if now.len() < before {
                        revisions.push(now);
                    }
                    store.apply([delete(first, end)]);
                }
                Step::Compact if store.0.reader().revision() > compacted => {
                    compacted = store.0.reader().revision();
                    store.apply([Request::Compaction(CompactionRequest { revision: compacted, physical: false })]);
                }
                Step::Compact => {}
                Step::Read(from, limit, ago) => {
                    let at = (revisions.len() - 1).saturating_sub(ago).max((compacted - first).max(0) as usize);
                    let request =
                        RangeRequest { key: key(from), limit, revision: first + at as i64, ..all() };
                    let response = store.0.reader().range(&request).unwrap();
                    let there: Vec<_> = revisions[at].range(from..).map(|n| key(*n)).collect();
                    let most = if limit == 0 { there.len() } else { there.len().min(limit as usize) };
                    let found: Vec<_> = response.kvs.into_iter().map(|kv| kv.key).collect();
                    prop_assert_eq!(&found, &there[..most]);
                    prop_assert_eq!(response.count, there.len() as i64);
                }
            }
            prop_assert_eq!(store.0.reader().revision(), first + revisions.len() as i64 - 1);
        }
    }
}
