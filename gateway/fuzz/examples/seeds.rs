//! Writes the seeds: `cargo run --manifest-path gateway/fuzz/Cargo.toml --no-default-features --example seeds`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    for seed in fuzz::seed::all() {
        let dir = root.join(seed.target);
        std::fs::create_dir_all(&dir)?;
        std::fs::write(dir.join(&seed.name), seed.bytes)?;
    }
    Ok(())
}
