# Intel's own sample of its own library.
echo 64 > /proc/sys/vm/nr_hugepages
load vfio
card=$(card)
bind "$card" vfio-pci
echo 'qat:x:105:' > /etc/group
mkdir -p /run/qat /etc/sysconfig
export QAT_POLICY=1
qatmgr --policy=1 --debug=1 --foreground > /tmp/qatmgr.log 2>&1 &
sleep 3
# It asks for one and a half gigabytes at once and does not look whether it got them.
echo 1 > /proc/sys/vm/overcommit_memory
timeout 150 cpa_sample_code runTests=$(option tests) signOfLife=1 2>&1
echo "rig: exit $?"
sed 's/^/rig: qatmgr /' /tmp/qatmgr.log | tail -20
dmesg | grep -iE 'segfault|trap|vfio|cpa_|DMAR: \[' | sed 's/^/rig: dmesg /' | tail -10
