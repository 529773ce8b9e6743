//! Objects as YAML, always written the same way: for what people read, and for files that tests compare.

use std::collections::BTreeMap;

use serde::{Serialize, ser::Error as _};
use serde_json::Value;
use serde_saphyr::ser::Error;

/// One document, keys in the order of the alphabet.
///
/// # Errors
/// What the writer says: the value has something in it that YAML has no form for.
pub fn text<T: Serialize>(value: &T) -> Result<String, Error> {
    // By way of JSON, which leaves out what is not set.
    let value = serde_json::to_value(value).map_err(|error| Error::custom(error.to_string()))?;
    serde_saphyr::to_string(&sorted(value))
}

/// In the order of the alphabet, whatever order another crate of the build has chosen for maps.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<_, _> =
                fields.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
