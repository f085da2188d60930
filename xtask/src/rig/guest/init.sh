#!/bin/sh
# The first process of a guest: sets up what any script needs, runs the script, says how it ended, and turns off.
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin
/bin/busybox --install -s /bin
# DPDK looks at the owner and mode of what it is loaded from.
chmod 755 /
mkdir -p /var/run /etc /root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/hugepages /dev/shm
mount -t tmpfs shm /dev/shm
mount -t hugetlbfs huge /dev/hugepages
echo 'root:x:0:0:root:/root:/bin/sh' > /etc/passwd

# The value of WORD=VALUE on the kernel's command line.
option() {
	for word in $(cat /proc/cmdline); do
		case $word in "$1="*) echo "${word#*=}" ;; esac
	done
}

# The modules of a list, which is in the order they need each other.
load() {
	while read -r module; do
		[ -e "/sys/module/$module" ] && continue
		arguments=
		[ "$module" = vfio_pci ] && [ "$(option denylist)" != kept ] && arguments=disable_denylist=1
		insmod "/lib/m/$module.ko" $arguments || echo "rig: trouble insmod $module"
	done < "/lib/m/$1.list"
}

# The card's place on the bus.
card() {
	for place in /sys/bus/pci/devices/*; do
		case "$(cat "$place/vendor"):$(cat "$place/device")" in
		0x8086:0x37c9 | 0x8086:0x494[1357]) basename "$place" ;;
		esac
	done
}

# Give the card to a driver.
bind() {
	echo "$2" > "/sys/bus/pci/devices/$1/driver_override"
	echo "$1" > /sys/bus/pci/drivers_probe
	if [ -e "/sys/bus/pci/devices/$1/driver" ]; then
		echo "rig: bound $1 $(basename "$(readlink "/sys/bus/pci/devices/$1/driver")")"
	else
		echo "rig: unbound $1"
	fi
}

script=$(option rig)
echo "rig: begin $script"
. "/rig/$script.sh"
echo "rig: end $script $?"
echo "rig: done"
# Whoever reads that turns the machine off; this is for those who boot it by hand.
sleep 2
poweroff -f
