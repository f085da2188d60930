//! Kernel modules for a guest: found in an unpacked kernel package, decompressed, and put in the order in which they can
//! be loaded. A package has no list of dependencies (`depmod` makes it where it is installed), but every module says
//! itself what it needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The modules of a kernel.
pub struct Modules {
    found: BTreeMap<String, PathBuf>,
    builtin: Vec<String>,
}

/// A module ready to be loaded.
pub struct Module {
    /// Its name as `/sys/module` has it.
    pub name: String,
    /// What `insmod` takes.
    pub content: Vec<u8>,
}

impl Modules {
    /// Those in a folder like `/usr/lib/modules/VERSION`.
    pub fn of(folder: &Path) -> Result<Modules> {
        let mut found = BTreeMap::new();
        walk(folder, &mut |path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if let Some(stem) = name.strip_suffix(".ko").or_else(|| name.strip_suffix(".ko.xz")) {
                found.insert(stem.replace('-', "_"), path.to_path_buf());
            }
        })?;
        let builtin = fs::read_to_string(folder.join("modules.builtin")).context("no modules.builtin")?;
        let builtin = builtin
            .lines()
            .filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko"))
            .map(|name| name.replace('-', "_"))
            .collect();
        Ok(Modules { found, builtin })
    }

    /// Some modules and all that they need, in an order in which they load.
    pub fn in_order(&self, wanted: &[&str]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        for name in wanted {
            self.add(&name.replace('-', "_"), &mut order)?;
        }
        Ok(order)
    }

    fn add(&self, name: &str, order: &mut Vec<Module>) -> Result<()> {
        if order.iter().any(|module| module.name == name) || self.builtin.iter().any(|built| built == name) {
            return Ok(());
        }
        let Some(path) = self.found.get(name) else { bail!("this kernel has no module {name}") };
        let content = fs::read(path)?;
        let content = if path.extension().is_some_and(|extension| extension == "xz") {
            let mut plain = Vec::new();
            lzma_rs::xz_decompress(&mut content.as_slice(), &mut plain)
                .map_err(|error| anyhow::anyhow!("{}: {error:?}", path.display()))?;
            plain
        } else {
            content
        };
        for needed in needs(&content) {
            self.add(&needed, order)?;
        }
        order.push(Module { name: name.to_owned(), content });
        Ok(())
    }
}

/// What a module says it depends on: the field `depends=` of its `.modinfo`.
fn needs(module: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"\0depends=";
    let Some(at) = module.windows(FIELD.len()).position(|window| window == FIELD) else { return Vec::new() };
    let rest = module.get(at + FIELD.len()..).unwrap_or_default();
    let value = rest.split(|octet| *octet == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn walk(folder: &Path, see: &mut dyn FnMut(&Path)) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        // The links `build` and `source` lead out of the package.
        if entry.file_type()?.is_dir() {
            walk(&entry.path(), see)?;
        } else {
            see(&entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_module_needs_is_read_from_it() {
        assert_eq!(
            needs(b"ELF\0license=GPL\0depends=intel_qat,crypto-null\0name=x\0"),
            ["intel_qat", "crypto_null"]
        );
        assert!(needs(b"ELF\0depends=\0name=x\0").is_empty());
        assert!(needs(b"ELF").is_empty());
    }
}
