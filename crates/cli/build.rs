//! How the binary is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // At a fixed address, as Go's programs are: nothing has to be relocated when it starts, which is three times for each
    // container (shim, init, the program if it is a built-in one), and what would be relocated is shared by all processes.
    // The heap, stacks and libraries are still placed at random. docs/performance.md has what it gave.
    println!("cargo::rustc-link-arg-bins=-no-pie");
}
