use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

const CARD: &str = "0000:6b:01.0";

/// A host in a folder.
struct Rig {
    root: PathBuf,
}

impl Rig {
    /// With one card on which everything is right.
    fn new(device: u16) -> Rig {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("tussock-qat-host-{}-{number}", std::process::id()));
        let rig = Rig { root };
        rig.function(CARD, device, Some("vfio-pci"), Some(7));
        rig.write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "12\n");
        rig.write("sys/module/vfio_pci/parameters/disable_denylist", "N\n");
        rig.write(
            "sys/kernel/iommu_groups/7/reserved_regions",
            "0x0000000000000000 0x00000000000fffff direct\n0x00000000fee00000 0x00000000feefffff msi\n",
        );
        rig
    }

    fn function(&self, address: &str, device: u16, driver: Option<&str>, group: Option<u32>) {
        let folder = format!("sys/bus/pci/devices/{address}");
        self.write(&format!("{folder}/vendor"), "0x8086\n");
        self.write(&format!("{folder}/device"), &format!("{device:#06x}\n"));
        self.write(&format!("{folder}/numa_node"), "1\n");
        self.bind(address, driver);
        if let Some(group) = group {
            let of_group = format!("sys/kernel/iommu_groups/{group}");
            self.write(&format!("{of_group}/devices/{address}"), "");
            symlink(self.root.join(of_group), self.root.join(folder).join("iommu_group")).unwrap();
        }
    }

    fn bind(&self, address: &str, driver: Option<&str>) {
        let link = self.root.join("sys/bus/pci/devices").join(address).join("driver");
        let _ = fs::remove_file(&link);
        if let Some(driver) = driver {
            let target = self.root.join("sys/bus/pci/drivers").join(driver);
            fs::create_dir_all(&target).unwrap();
            symlink(target, link).unwrap();
        }
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn look(&self) -> Result<Found, String> {
        Host::new(&self.root).look(CARD).map_err(|error| error.to_string())
    }

    /// The error, which must hold all of these.
    fn refuses(&self, words: &[&str]) {
        let error = self.look().map(|_| ()).unwrap_err();
        for word in words {
            assert!(error.contains(word), "{word:?} is not in: {error}");
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

#[test]
fn a_card_on_which_everything_is_right_is_found() {
    let rig = Rig::new(0x4941);
    let found = rig.look().unwrap();
    assert_eq!((found.product, found.group, found.numa_node), ("4xxx", 7, Some(1)));
    assert_eq!(found.reserved, [0..=0xfffff, 0xfee0_0000..=0xfeef_ffff]);
    assert_eq!(usable(&found.reserved, 0xffff_ffff), [0x10_0000..=0xfedf_ffff, 0xfef0_0000..=0xffff_ffff]);
    assert_eq!(Host::new(&rig.root).no_huge_pages(), None);
    assert_eq!(Host::new(&rig.root).known().len(), 1);
}

#[test]
fn an_address_that_is_none_or_leads_nowhere_is_named() {
    let rig = Rig::new(0x4941);
    let host = Host::new(&rig.root);
    let error = |address| host.look(address).map(|_| ()).unwrap_err().to_string();
    assert!(error("6b:01.0").contains("is no PCI address"));
    assert!(error("../../../etc").contains("is no PCI address"));
    assert!(error("0000:6b:01.7").contains("there are: 0000:6b:01.0 (4xxx)"));
    let empty = Host::new(Path::new("/nonexistent"));
    assert!(empty.look(CARD).map(|_| ()).unwrap_err().to_string().contains("sriov_numvfs"));
}

#[test]
fn physical_functions_and_strangers_are_refused() {
    Rig::new(0x4940).refuses(&["physical function", "sriov_numvfs"]);
    Rig::new(0x1572).refuses(&["8086:1572", "8086:4941"]);
}

#[test]
fn a_card_of_another_driver_or_of_none_is_told_how_to_be_bound() {
    let rig = Rig::new(0x4941);
    rig.bind(CARD, Some("qat_4xxxvf"));
    rig.refuses(&["belongs to the kernel's driver qat_4xxxvf", "unbind", "driver_override"]);
    rig.bind(CARD, None);
    rig.refuses(&["has no driver", "driver_override"]);
    fs::remove_dir_all(rig.root.join("sys/bus/pci/drivers/vfio-pci")).unwrap();
    rig.refuses(&["vfio-pci is not loaded", "modprobe vfio-pci;"]);
}

#[test]
fn the_denylist_is_explained() {
    let rig = Rig::new(0x37c9);
    assert!(rig.look().is_ok(), "bound is bound");
    rig.bind(CARD, None);
    rig.refuses(&["disable_denylist=1", "errata", "not trusted"]);
    rig.write("sys/module/vfio_pci/parameters/disable_denylist", "Y\n");
    let error = rig.look().map(|_| ()).unwrap_err();
    assert!(error.contains("has no driver") && !error.contains("denylist"), "{error}");
}

#[test]
fn no_iommu_is_no_way() {
    let rig = Rig::new(0x4941);
    let link = rig.root.join("sys/bus/pci/devices").join(CARD).join("iommu_group");
    fs::remove_file(link).unwrap();
    rig.bind(CARD, None);
    rig.refuses(&["behind no IOMMU", "intel_iommu=on"]);
    let rig = Rig::new(0x4941);
    rig.write("sys/kernel/iommu_groups/7/name", "vfio-noiommu\n");
    rig.refuses(&["no-IOMMU mode", "refuses"]);
    let rig = Rig::new(0x4941);
    rig.write("dev/vfio/noiommu-7", "");
    rig.refuses(&["no-IOMMU mode"]);
}

#[test]
fn a_group_with_strangers_in_it_is_not_viable() {
    let rig = Rig::new(0x4941);
    rig.function("0000:6b:00.0", 0x1572, Some("pcieport"), Some(7));
    rig.function("0000:6b:01.1", 0x4941, None, Some(7));
    assert!(rig.look().is_ok(), "bridges and functions without a driver do no harm");
    rig.function("0000:6b:02.0", 0x1572, Some("i40e"), Some(7));
    rig.refuses(&["group 7", "not viable", "0000:6b:02.0 (i40e)"]);
}

#[test]
fn missing_huge_pages_are_no_error_and_have_a_price() {
    let rig = Rig::new(0x4941);
    rig.write("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "0\n");
    assert!(rig.look().is_ok());
    assert!(Host::new(&rig.root).no_huge_pages().unwrap().contains("vm.nr_hugepages"));
}
