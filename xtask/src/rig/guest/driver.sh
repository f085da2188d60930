# A program of ours on the real /dev/vfio. It gets the card's place and prints PASS or FAIL and a name, line by line; with
# `probe` before the place it says what is in the way.
echo 64 > /proc/sys/vm/nr_hugepages
load vfio
card=$(card)
[ "$(option bind)" = no ] || bind "$card" vfio-pci
[ -e "/sys/bus/pci/devices/$card/iommu_group" ] && echo "rig: group $(basename "$(readlink "/sys/bus/pci/devices/$card/iommu_group")")"
/bin/program $(option only) "$card" 2>&1
echo "rig: exit $?"
dmesg | grep -iE 'vfio|DMAR: \[|segfault' | sed 's/^/rig: dmesg /' | tail -10
