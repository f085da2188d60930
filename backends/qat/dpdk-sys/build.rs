//! Compiles the shim and asks DPDK's headers for what is used of them, where that is asked for. Without the feature nothing is done.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=shim/shim.h");
    println!("cargo::rerun-if-changed=shim/shim.c");
    #[cfg(feature = "link")]
    link::run();
}

#[cfg(feature = "link")]
mod link {
    use std::path::PathBuf;
    use std::process::Command;

    /// What of DPDK is linked. Drivers for devices are loaded by it when it starts.
    const LIBRARIES: [&str; 5] = ["rte_cryptodev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_eal"];

    /// What is used of it besides the shim.
    const FUNCTIONS: &str = "td_.*|rte_eal_init|rte_eal_hotplug_(add|remove)|rte_eal_get_runtime_dir|rte_mempool_free\
        |rte_cryptodev_(get_dev_id|info_get|start|stop|sym_session_free|asym_session_free)\
        |rte_cryptodev_sym_session_pool_create|rte_cryptodev_sym_get_private_session_size\
        |rte_cryptodev_asym_session_pool_create|rte_zmalloc|rte_free";

    pub(crate) fn run() {
        let cflags = pkg_config(&["--cflags", "libdpdk"]);
        let folder = pkg_config(&["--variable=libdir", "libdpdk-libs"]);
        let mut shim = cc::Build::new();
        shim.file("shim/shim.c").std("gnu11").warnings(true).warnings_into_errors(true).opt_level(2);
        // Their headers are not clean under every warning that is ours to heed, and use what they call experimental.
        for flag in &cflags {
            shim.flag(flag.replace("-I", "-isystem"));
        }
        shim.define("ALLOW_EXPERIMENTAL_API", None).compile("tussock_dpdk_shim");
        for library in LIBRARIES {
            println!("cargo::rustc-link-lib={library}");
        }
        folder.iter().for_each(|folder| println!("cargo::rustc-link-search={folder}"));

        let bindings = bindgen::Builder::default()
            .header("shim/shim.h")
            .clang_args(&cflags)
            .clang_arg("-DALLOW_EXPERIMENTAL_API")
            .allowlist_function(FUNCTIONS)
            .allowlist_var("TD_.*|RTE_CRYPTODEV_FF_.*")
            .allowlist_type("td_.*|rte_crypto_op_status|rte_cryptodev_info.*")
            // What those have pointers to is in lib.rs.
            .allowlist_recursively(false)
            .default_enum_style(bindgen::EnumVariation::ModuleConsts)
            .layout_tests(false)
            .generate_comments(false)
            .generate();
        let bindings = bindings.unwrap_or_else(|error| {
            stop(&format!(
                "DPDK's headers cannot be read ({error}): install the Debian package libclang-dev, or build without the \
                 feature `dpdk`"
            ))
        });
        let out = PathBuf::from(std::env::var_os("OUT_DIR").unwrap_or_default()).join("bindings.rs");
        if let Err(error) = bindings.write_to_file(&out) {
            stop(&format!("{}: {error}", out.display()));
        }
    }

    fn pkg_config(arguments: &[&str]) -> Vec<String> {
        let said = Command::new("pkg-config").args(arguments).output();
        match said {
            Ok(said) if said.status.success() => {
                String::from_utf8_lossy(&said.stdout).split_whitespace().map(str::to_owned).collect()
            }
            _ => stop(
                "the feature `dpdk` needs DPDK 22.11 or newer, which pkg-config does not find: install the Debian packages \
                 libdpdk-dev and pkg-config, or build without the feature",
            ),
        }
    }

    /// Ends the build with a line that Cargo shows.
    fn stop(why: &str) -> ! {
        println!("cargo::error={why}");
        std::process::exit(1);
    }
}
