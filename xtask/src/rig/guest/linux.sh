# Linux's own driver for the card. Its algorithms are tested by the kernel as it registers them.
card=$(card)
load algorithms
load driver
echo "$card" > /sys/bus/pci/drivers_probe
if [ -e "/sys/bus/pci/devices/$card/driver" ]; then
	echo "rig: bound $card $(basename "$(readlink "/sys/bus/pci/devices/$card/driver")")"
fi
# The tests run one after the other in a thread of the kernel; they are done when nothing is larval any more.
count=0
while [ $count -lt 60 ] && { [ $count -lt 4 ] || grep -q larval /proc/crypto; }; do
	sleep 1
	count=$((count + 1))
done
echo "rig: state $(cat "/sys/bus/pci/devices/$card/qat/state" 2>/dev/null)"
awk '/^driver/ { driver = $3 } /^name/ { name = $3 } /^selftest/ && driver ~ /qat/ { print "rig: crypto " driver " " name " " $3 }' /proc/crypto
dmesg | grep -iE 'alg:|qat|c6xx|DMAR: \[|self-test' | sed 's/^/rig: dmesg /'
