//! What is known of volume drivers by their names: how nodes announce them, and what each can promise.
//! Never talks to one; that is the agents' business.

use crate::id::Name;
use crate::object::Node;
use crate::spec::AccessModes;

/// The driver of volumes that are directories under a root that all nodes share. It cannot refuse a writer that was
/// left behind.
pub const DRIVER_DIR: &str = "dir.holdfast.dev";
/// The driver of volumes that are file systems of their own, in images under a root that all nodes share.
pub const DRIVER_LOOP: &str = "loop.holdfast.dev";
/// The driver whose volume server checks the fence of every write.
pub const DRIVER_FENCED: &str = "fenced.holdfast.dev";

/// What classes name in the place of a driver when their volumes are made by hand.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

/// The end of our own drivers' names.
const OWN_SUFFIX: &str = ".holdfast.dev";
/// What a node says of a feature that it has begins with this.
const ON: &str = "on";

/// The key under which nodes say in their info whether they have a driver: `on`, or why not.
#[must_use]
pub fn feature(driver: &str) -> Name {
    format!("feature/volumes-{}", driver.strip_suffix(OWN_SUFFIX).unwrap_or(driver)).into()
}

/// Why a node cannot have volumes of a driver, if it cannot.
#[must_use]
pub fn refusal(node: &Node, driver: &Name) -> Option<String> {
    match node.info.get(&feature(driver.as_str())).map(Name::as_str) {
        Some(said) if said.starts_with(ON) => None,
        Some(said) => Some(format!("node has no volume driver {driver} ({said})")),
        // It needs nothing, so every node has it.
        None if driver.as_str() == DRIVER_DIR => None,
        None => Some(format!("node has no volume driver {driver}")),
    }
}

/// Whether a volume's file system has to be made larger on a node before the volume is. Nothing enforces the size of a
/// directory, so it is as large as it should be at once.
#[must_use]
pub fn grows_on_node(driver: &str) -> bool {
    driver != DRIVER_DIR
}

/// Whether a volume of the driver can be made that is used in these ways.
#[must_use]
pub fn provisions(driver: &str, access: AccessModes) -> bool {
    match driver {
        NO_PROVISIONER => false,
        // A file system of one kernel: a second one would destroy it.
        DRIVER_LOOP => !access.is_shared(),
        _ => true,
    }
}

/// What a driver does about a writer that was left behind, as the end of a sentence about it.
#[must_use]
pub fn stale_writer_word(driver: &str) -> &'static str {
    match driver {
        DRIVER_FENCED => "refuses a writer with a lower fence",
        DRIVER_LOOP => {
            "takes the file system away from a writer that was left behind, before another node of the same machine has it"
        }
        _ => "cannot refuse a writer that was left behind",
    }
}
