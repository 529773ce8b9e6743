//! Compiles the BPF program and generates its skeleton, with the feature `xdp`. Without clang the crate still builds, and
//! says so where it is used: `cfg(xdp)` is set only if there is a program to load.

#[cfg(not(feature = "xdp"))]
fn main() {}

#[cfg(feature = "xdp")]
#[allow(clippy::disallowed_methods, reason = "cargo speaks to build scripts through the environment")]
fn main() {
    use std::{env, path::PathBuf, process::Command};

    println!("cargo::rerun-if-changed=src/bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    let clang = env::var_os("CLANG").unwrap_or_else(|| "clang".into());
    if let Err(error) = Command::new(&clang).arg("--version").output() {
        println!(
            "cargo::warning=dwcp-ebpf is built without its XDP program: {} does not run ({error}). Install clang \
             (Debian package clang), or name it in CLANG",
            clang.display()
        );
        return;
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let mut builder = libbpf_cargo::SkeletonBuilder::new();
    builder.source("src/bpf/guard.bpf.c").clang(&clang);
    // v3 has the compare-and-swap of the token bucket. Debian keeps asm/ in a folder of the architecture.
    builder.clang_args([
        "-mcpu=v3",
        "-Wall",
        "-Wextra",
        "-Werror",
        &format!("-I/usr/include/{}-linux-gnu", env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets it")),
    ]);
    // A clang that is there and a source that does not compile is a defect, not something missing.
    builder.build_and_generate(out.join("guard.skel.rs")).unwrap_or_else(|error| panic!("{error:?}"));
    println!("cargo::rustc-cfg=xdp");
}
