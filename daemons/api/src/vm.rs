//! What a virtual machine is in the inventory, and what it may be.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::http::problem::FieldError;

/// Longest name in bytes: a DNS label.
const NAME_BYTES_MAX: usize = 63;
const CPUS_MAX: u32 = 1024;
const MEMORY_BYTES_MIN: u64 = 1 << 20;
const MEMORY_BYTES_MAX: u64 = 64 << 40;
const IMAGE_BYTES_MAX: usize = 1024;
/// Longest name of a node, as in DWCP.
const NODE_BYTES_MAX: usize = 255;

/// A virtual machine of the inventory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vm {
    /// A DNS label.
    #[schema(max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", example = "db-1")]
    pub(crate) name: String,
    /// Virtual processors.
    #[schema(minimum = 1, maximum = 1024, example = 2)]
    pub(crate) cpus: u32,
    /// A multiple of 1 MiB, at most 64 TiB.
    #[schema(
        minimum = 1048576,
        maximum = 70368744177664_u64,
        multiple_of = 1048576,
        example = 2147483648_u64
    )]
    pub(crate) memory_bytes: u64,
    /// The image of its disk: a path or a URL, without control characters.
    #[schema(
        min_length = 1,
        max_length = 1024,
        pattern = r"^[^\x00-\x1f\x7f-\x9f]+$",
        example = "images/debian-13.img"
    )]
    pub(crate) image: String,
    /// The region it belongs to: a DNS label.
    #[schema(max_length = 63, pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", example = "eu-1")]
    pub(crate) region: String,
    /// What it should be.
    pub(crate) desired_state: DesiredState,
    /// The node that has its data, if any has: where migrations begin, and what they change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 255, example = "node-a")]
    pub(crate) node: Option<String>,
}

/// What a virtual machine should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DesiredState {
    /// It runs.
    Running,
    /// It is there, and does not run.
    Stopped,
}

/// What a DNS label may be.
pub(crate) const LABEL: &str = "expected 1..=63 of a-z, 0-9 and -, neither the first nor the last of them -";

/// Whether a text is a DNS label.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=NAME_BYTES_MAX).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// What the name of a node may be.
pub(crate) const NODE: &str = "expected 1..=255 bytes without / and control characters";

/// Whether a text may be the name of a node.
pub(crate) fn is_node(text: &str) -> bool {
    (1..=NODE_BYTES_MAX).contains(&text.len()) && !text.contains(|c: char| c == '/' || c.is_control())
}

impl Vm {
    /// What of it is not what it may be.
    pub(crate) fn errors(&self) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut check = |good: bool, field: &str, detail: &str| {
            if !good {
                errors.push(FieldError { field: field.to_owned(), detail: detail.to_owned() });
            }
        };
        check(is_label(&self.name), "name", LABEL);
        check((1..=CPUS_MAX).contains(&self.cpus), "cpus", "expected 1..=1024");
        let fits = (MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&self.memory_bytes)
            && self.memory_bytes.is_multiple_of(MEMORY_BYTES_MIN);
        check(fits, "memory_bytes", "expected a multiple of 1 MiB, at most 64 TiB");
        let image =
            (1..=IMAGE_BYTES_MAX).contains(&self.image.len()) && !self.image.contains(char::is_control);
        check(image, "image", "expected 1..=1024 bytes without control characters");
        check(is_label(&self.region), "region", LABEL);
        check(self.node.as_deref().is_none_or(is_node), "node", NODE);
        errors
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm() -> Vm {
        Vm {
            name: "a".to_owned(),
            cpus: 1,
            memory_bytes: 1 << 30,
            image: "i".to_owned(),
            region: "r".to_owned(),
            desired_state: DesiredState::Running,
            node: None,
        }
    }

    #[test]
    fn bounds() {
        let label = "a".repeat(63);
        let image = "i".repeat(1025);
        let table: [(&dyn Fn(&mut Vm), Option<&str>); 18] = [
            (&|_| {}, None),
            (&|vm| vm.name = label.clone(), None),
            (&|vm| vm.name = label.clone() + "a", Some("name")),
            (&|vm| vm.name = "A".to_owned(), Some("name")),
            (&|vm| vm.name = "-a".to_owned(), Some("name")),
            (&|vm| vm.name = "a/b".to_owned(), Some("name")),
            (&|vm| vm.name.clear(), Some("name")),
            (&|vm| vm.cpus = 0, Some("cpus")),
            (&|vm| vm.cpus = 1025, Some("cpus")),
            (&|vm| vm.memory_bytes = 0, Some("memory_bytes")),
            (&|vm| vm.memory_bytes += 1, Some("memory_bytes")),
            (&|vm| vm.memory_bytes = 65 << 40, Some("memory_bytes")),
            (&|vm| vm.image.clear(), Some("image")),
            (&|vm| vm.image = "a\nb".to_owned(), Some("image")),
            (&|vm| vm.image = image.clone(), Some("image")),
            (&|vm| vm.region = "a-".to_owned(), Some("region")),
            (&|vm| vm.node = Some("Node_1.example".to_owned()), None),
            (&|vm| vm.node = Some("a/b".to_owned()), Some("node")),
        ];
        for (change, field) in table {
            let mut changed = vm();
            change(&mut changed);
            let errors = changed.errors();
            let fields: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
            assert_eq!(fields, field.into_iter().collect::<Vec<_>>(), "{changed:?}");
        }
    }
}
