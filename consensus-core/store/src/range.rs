//! Range requests: which keys, in which order, how many.

use std::{cmp::Ordering, ops::ControlFlow};

use consensus_proto::{
    etcdserverpb::{
        RangeRequest, RangeResponse,
        range_request::{SortOrder, SortTarget},
    },
    mvccpb::KeyValue,
};

use crate::{
    StoreError,
    view::{KeyRange, View},
};

/// The response without its header.
pub(crate) fn range(view: View<'_>, request: &RangeRequest) -> Result<RangeResponse, StoreError> {
    let order = SortOrder::try_from(request.sort_order).map_err(|_| StoreError::InvalidSortOption)?;
    let target = SortTarget::try_from(request.sort_target).map_err(|_| StoreError::InvalidSortOption)?;
    // Keys come in their own order: only another one has to see all of them.
    let by_key = target == SortTarget::Key;
    let sorts = order == SortOrder::Descend || !by_key;
    let filters = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ]
    .iter()
    .any(|bound| *bound != 0);
    let limit = usize::try_from(request.limit).ok().filter(|limit| *limit > 0);
    let fetched_max = if sorts || filters { usize::MAX } else { limit.unwrap_or(usize::MAX) };
    let with_values = target == SortTarget::Value && sorts || !request.keys_only;

    // The first one too many says that there are more, and nobody asks how many.
    let stops = request.uncounted && !request.count_only;

    let mut kvs = Vec::new();
    let mut count = 0_i64;
    view.scan(KeyRange::new(&request.key, &request.range_end), &mut |entry| {
        count += 1;
        if !request.count_only && kvs.len() < fetched_max {
            let version = if with_values { entry.version() } else { entry.head() };
            kvs.push(version.key_value(entry.key()));
        } else if stops {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    let mut more = count > kvs.len() as i64 && !request.count_only;
    if filters {
        kvs.retain(|kv: &KeyValue| {
            let within =
                |value: i64, min: i64, max: i64| (min == 0 || value >= min) && (max == 0 || value <= max);
            within(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
                && within(kv.create_revision, request.min_create_revision, request.max_create_revision)
        });
    }
    if sorts {
        let compare = |a: &KeyValue, b: &KeyValue| -> Ordering {
            match target {
                SortTarget::Key => a.key.cmp(&b.key),
                SortTarget::Version => a.version.cmp(&b.version),
                SortTarget::Create => a.create_revision.cmp(&b.create_revision),
                SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
                SortTarget::Value => a.value.cmp(&b.value),
            }
        };
        match order {
            SortOrder::Descend => kvs.sort_by(|a, b| compare(b, a)),
            SortOrder::None | SortOrder::Ascend => kvs.sort_by(compare),
        }
    }
    if let Some(limit) = limit.filter(|limit| *limit < kvs.len()) {
        kvs.truncate(limit);
        more = true;
    }
    if request.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value.clear());
    }
    if stops {
        count = kvs.len() as i64;
    }
    Ok(RangeResponse { header: None, kvs, more, count })
}
