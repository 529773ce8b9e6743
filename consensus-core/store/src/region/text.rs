//! What clients see of an item: the value of its key. A register is its bytes, a counter its sum in decimal; sets and maps are
//! JSON with base64, sorted.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use consensus_regions::{Item, View};

/// The value of a key; `None`: it is not there.
pub(crate) fn seen(item: Option<&Item>) -> Option<View> {
    item.and_then(Item::view)
}

/// A view as the value of a key.
pub(crate) fn text(view: View) -> Bytes {
    let quoted = |bytes: &Bytes| format!("\"{}\"", BASE64_STANDARD.encode(bytes));
    match view {
        View::Register(value) => value,
        View::Counter(sum) => sum.to_string().into(),
        View::Set(elements) => {
            let elements: Vec<_> = elements.iter().map(quoted).collect();
            format!("[{}]", elements.join(",")).into()
        }
        View::Map(fields) => {
            let pairs: Vec<_> =
                fields.iter().map(|(field, value)| format!("{}:{}", quoted(field), quoted(value))).collect();
            format!("{{{}}}", pairs.join(",")).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_are_values() {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        for (view, expected) in [
            (View::Register(bytes("as it is\n")), "as it is\n"),
            (View::Counter(-12), "-12"),
            (View::Set(Vec::new()), "[]"),
            (View::Set(vec![bytes("a"), bytes("b")]), r#"["YQ==","Yg=="]"#),
            (View::Map([(bytes("a"), bytes("1"))].into()), r#"{"YQ==":"MQ=="}"#),
        ] {
            assert_eq!(text(view), expected);
        }
    }
}
