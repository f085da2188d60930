//! The allowed edges between our crates, as docs/architecture.md has them, and the crates that do no I/O.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

type Names = BTreeSet<String>;

/// What a crate uses, and what its tests use besides.
#[derive(Default, Debug)]
struct Edges {
    uses: Names,
    tests: Names,
    builds: Names,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The rows of the table whose first column is headed "crate".
fn table(page: &str) -> Result<BTreeMap<String, Edges>, String> {
    let mut rows = BTreeMap::new();
    let mut lines = page.lines().skip_while(|line| !line.starts_with("| crate | uses |"));
    lines.next().ok_or("docs/architecture.md has no table that begins with | crate | uses |")?;
    for line in lines.skip(1).take_while(|line| line.starts_with('|')) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
        let [name, uses, tests] = cells[..] else { return Err(format!("not three columns: {line}")) };
        let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_string).collect::<Names>();
        let name = names(name).pop_first().ok_or(format!("no crate: {line}"))?;
        let edges = Edges { uses: names(uses), tests: names(tests), builds: Names::new() };
        if rows.insert(name.clone(), edges).is_some() {
            return Err(format!("{name} has two rows"));
        }
    }
    Ok(rows)
}

/// The edges between workspace members, as the manifests have them.
fn manifests() -> BTreeMap<String, Edges> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap().to_string();
    let ours: Names = packages.iter().map(name).collect();
    let mut graph = BTreeMap::new();
    for package in packages {
        let mut edges = Edges::default();
        for dependency in package["dependencies"].as_array().unwrap() {
            let target = name(dependency);
            if !ours.contains(&target) {
                continue;
            }
            match dependency["kind"].as_str() {
                None => edges.uses.insert(target),
                Some("dev") => edges.tests.insert(target),
                Some(_) => edges.builds.insert(target),
            };
        }
        graph.insert(name(package), edges);
    }
    graph
}

/// What differs between the plan and the manifests, a line for each edge.
fn differences(plan: &BTreeMap<String, Edges>, graph: &BTreeMap<String, Edges>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (name, edges) in graph {
        let Some(planned) = plan.get(name) else {
            wrong.push(format!("{name} has no row in the table"));
            continue;
        };
        for target in edges.uses.difference(&planned.uses) {
            wrong.push(format!("{name} uses {target}, which the table does not allow"));
        }
        for target in planned.uses.difference(&edges.uses) {
            wrong.push(format!("{name} does not use {target}, though the table says so"));
        }
        for target in edges.tests.iter().filter(|t| !planned.tests.contains(*t) && !planned.uses.contains(*t))
        {
            wrong.push(format!("the tests of {name} use {target}, which the table does not allow"));
        }
        for target in &edges.builds {
            wrong.push(format!("{name} builds with {target}"));
        }
    }
    wrong.extend(
        plan.keys().filter(|name| !graph.contains_key(*name)).map(|name| format!("{name} is no crate")),
    );
    wrong
}

#[test]
fn manifests_and_the_table_of_allowed_edges_agree() {
    let page = std::fs::read_to_string(root().join("docs/architecture.md")).unwrap();
    let wrong = differences(&table(&page).unwrap(), &manifests());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_missing_an_extra_and_a_forgotten_edge_are_noticed() {
    let page = "| crate | uses | its tests may also use |\n|---|---|---|\n| `a` | `b` | |\n| `b` | | `a` |\n";
    let graph = |a: &[&str], b_tests: &[&str]| {
        let names = |list: &[&str]| list.iter().map(|name| name.to_string()).collect();
        BTreeMap::from([
            ("a".to_string(), Edges { uses: names(a), ..Edges::default() }),
            ("b".to_string(), Edges { tests: names(b_tests), ..Edges::default() }),
        ])
    };
    let plan = table(page).unwrap();
    assert!(differences(&plan, &graph(&["b"], &["a"])).is_empty());
    assert!(differences(&plan, &graph(&["b"], &[])).is_empty(), "tests need not use what they may");
    assert_eq!(differences(&plan, &graph(&[], &[])).len(), 1);
    assert_eq!(differences(&plan, &graph(&["b", "c"], &[])).len(), 1);
    assert_eq!(differences(&plan, &graph(&["b"], &["c"])).len(), 1);
    assert_eq!(differences(&BTreeMap::new(), &graph(&["b"], &[])).len(), 2);
    assert!(table("no table here").is_err());
}

/// Crates that take bytes, events and time and give effects.
const PURE: [&str; 4] = ["gateway/wire", "gateway/ike", "gateway/esp", "gateway/policy"];

/// What such a crate has no business with.
const FORBIDDEN: [&str; 10] = [
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "std::thread",
    "thread::spawn",
    "std::fs",
    "std::process",
    "Instant::now",
    "SystemTime::now",
    "unsafe",
];

#[test]
fn crates_without_io_have_no_socket_clock_thread_or_unsafe_code() {
    let mut wrong = Vec::new();
    for name in PURE {
        let mut files = Vec::new();
        sources(&root().join(name).join("src"), &mut files);
        assert!(!files.is_empty(), "{name} has no sources");
        for file in files {
            let text = std::fs::read_to_string(&file).unwrap();
            for (number, word) in found(&text) {
                wrong.push(format!("{}:{number}: {word}", file.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Files below `folder` that are not tests.
fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if name == "tests" || name.ends_with("_tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Lines with a forbidden word, outside comments and items that exist for tests only.
fn found(text: &str) -> Vec<(usize, &'static str)> {
    let mut hits = Vec::new();
    // Inside an item under cfg(test): depth of its braces, or 0 until the first.
    let mut test_item: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        if let Some(depth) = &mut test_item {
            let opened = code.matches('{').count();
            let closed = code.matches('}').count();
            let started = *depth > 0 || opened > 0;
            *depth = (*depth + opened).saturating_sub(closed);
            if *depth == 0 && (started || code.trim_end().ends_with(';')) {
                test_item = None;
            }
            continue;
        }
        if code.trim_start().starts_with("#[cfg(test)]") {
            test_item = Some(0);
            continue;
        }
        hits.extend(FORBIDDEN.iter().filter(|word| stands_alone(code, word)).map(|word| (number + 1, *word)));
    }
    hits
}

/// Whether `word` is there and is not part of a longer name, as in `unsafe_code`.
fn stands_alone(code: &str, word: &str) -> bool {
    let named = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(word).any(|(at, _)| {
        let (before, after) = (code[..at].chars().next_back(), code[at + word.len()..].chars().next());
        !before.is_some_and(named) && !after.is_some_and(named)
    })
}

#[test]
fn forbidden_words_are_found_in_code_and_not_in_comments_or_tests() {
    let text = "\
#![forbid(unsafe_code)]
// unsafe in a comment
fn a(now: Instant) { let x = Instant::now(); }
#[cfg(test)]
mod tests;
fn b() { unsafe { c() } }
#[cfg(test)]
mod more {
    fn d() { std::thread::spawn(|| ()); }
}
use std::net::UdpSocket;
";
    assert_eq!(found(text), [(3, "Instant::now"), (6, "unsafe"), (11, "UdpSocket")]);
}
