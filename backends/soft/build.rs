//! Compiles the shim over Intel's ipsec-mb where that engine is asked for. Without the feature nothing is built here.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim/ipsec_mb.c");
    #[cfg(feature = "ipsec-mb")]
    ipsec_mb();
}

#[cfg(feature = "ipsec-mb")]
fn ipsec_mb() {
    let target = std::env::var("CARGO_CFG_TARGET_ARCH").unwrap_or_default();
    if target != "x86_64" {
        stop(&format!("the feature `ipsec-mb` is for x86_64 only, and this is built for {target}"));
    }
    let mut build = cc::Build::new();
    build.file("shim/ipsec_mb.c").std("c11").warnings(true).warnings_into_errors(true).opt_level(2);
    // Asked beforehand, with the compiler and the flags that will be used, so that what is missing has a name.
    if !includes(&build, "intel-ipsec-mb.h") {
        stop(
            "the feature `ipsec-mb` needs the header intel-ipsec-mb.h, version 1.3 or newer: install the Debian package \
             libipsec-mb-dev, or build without the feature",
        );
    }
    build.compile("tussock_ipsec_mb");
    println!("cargo::rustc-link-lib=IPSec_MB");
}

/// Whether the compiler finds a header.
#[cfg(feature = "ipsec-mb")]
fn includes(build: &cc::Build, header: &str) -> bool {
    let out = std::path::PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default());
    let probe = out.join("probe.c");
    let asked = std::fs::write(&probe, format!("#include <{header}>\n"));
    let mut command = build.get_compiler().to_command();
    command.arg("-fsyntax-only").arg(&probe).stderr(std::process::Stdio::null());
    asked.is_ok() && command.status().is_ok_and(|status| status.success())
}

/// Ends the build with a line that Cargo shows.
#[cfg(feature = "ipsec-mb")]
fn stop(why: &str) -> ! {
    println!("cargo::error={why}");
    std::process::exit(1);
}
