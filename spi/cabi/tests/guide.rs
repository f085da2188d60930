//! The commands of docs/driver-guide-c.md, as they stand there, in an empty folder.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

/// The blocks of a page that are to be run.
fn commands(page: &str) -> Vec<String> {
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    for line in page.lines() {
        match (line.trim(), &mut block) {
            ("```sh", None) => block = Some(String::new()),
            ("```", Some(text)) => blocks.push(std::mem::take(text)),
            (_, Some(text)) => {
                text.push_str(line);
                text.push('\n');
                continue;
            }
            _ => continue,
        }
        if line.trim() == "```" {
            block = None;
        }
    }
    blocks
}

#[test]
fn a_newcomer_gets_through_the_guide() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    let page = std::fs::read_to_string(root.join("docs/driver-guide-c.md")).unwrap();
    let blocks = commands(&page);
    assert!(blocks.len() >= 4, "the guide has lost its commands");
    // The judge is another crate's program, and is built as this test was.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_path_buf();
    let mut build = Command::new(env!("CARGO"));
    build
        .args(["build", "--quiet", "--package", "tussock-hwtest-cli", "--target-dir"])
        .arg(&target)
        .current_dir(&root);
    assert!(build.status().unwrap().success(), "tussock-hwtest does not build");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("newcomer");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    for block in blocks {
        println!("{block}");
        let mut shell = Command::new("sh");
        shell.args(["-eu", "-c", &block]).current_dir(&folder);
        shell.env("TUSSOCK", &root).env("HWTEST", target.join("debug/tussock-hwtest"));
        assert!(shell.status().unwrap().success(), "the guide's commands fail:\n{block}");
    }
    for file in ["libexample.so", "hwtest-bench/bench.json", "report.html"] {
        assert!(folder.join(file).exists(), "{file} is not there");
    }
}
