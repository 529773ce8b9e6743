//! The store against a model that keeps every version of everything in plain maps: the same body as the fuzz target
//! `store_ops`, over random bytes.

use proptest::prelude::*;

#[path = "../../../../fuzz/bodies/store_ops.rs"]
mod body;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_the_model(data in prop::collection::vec(any::<u8>(), 0..1200)) {
        body::run(&data);
    }
}
