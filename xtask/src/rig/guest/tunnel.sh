# Two gateways of ours with an ESP tunnel between them, each with a card of its own on the real /dev/vfio:
#
#   alice 10.1.0.10 -- moon 192.168.0.1 ======== 192.168.0.2 sun -- 10.2.0.10 bob
#
# A line PASS or FAIL and a name for each thing that has to work, and what the gateways say of their cards.
echo 64 > /proc/sys/vm/nr_hugepages
load vfio
load network
# As udev has it: whoever may make devices may open this.
chmod 666 /dev/net/tun
for card in $(card); do
	bind "$card" vfio-pci
done

# A network is a process that sleeps in it.
network() {
	unshare -n sleep 100000 &
	while [ "$(readlink "/proc/$!/ns/net")" = "$(readlink /proc/self/ns/net)" ]; do
		usleep 10000
	done
	eval "$1=$!"
	on "$1" ip link set lo up
}

# A command in a network.
on() {
	eval "shift; nsenter -t \$$1 -n \"\$@\""
}

# A wire between two networks, with an address and prefix at each end.
wire() {
	# The kernel calls the other end veth0.
	ip link add near type veth
	eval "ip link set near netns \$$1 && ip link set veth0 netns \$$3"
	on "$1" ip link set near name "to-$3"
	on "$3" ip link set veth0 name "to-$1"
	on "$1" ip addr add "$2" dev "to-$3"
	on "$3" ip addr add "$4" dev "to-$1"
	on "$1" ip link set "to-$3" up
	on "$3" ip link set "to-$1" up
}

# Its name, address and network; name, address and network of the other one; the card.
gateway() {
	mkdir -p "/run/$1"
	cat > "/tmp/$1.toml" <<-END
	[gateway]
	state_dir = "/run/$1"

	[accel.card]
	device = "$7"

	[[psk]]
	ids = ["moon.rig.test", "sun.rig.test"]
	secret = "nothing in here is secret"

	[realm.site]
	local = ["$2"]
	remote = ["$5"]
	start = "manual"
	fallback = "never"
	ike = ["aes128gcm16-prfsha256-x25519"]
	local_auth = { method = "psk", id = "$1.rig.test" }
	remote_auth = { method = "psk", id = "$4.rig.test" }

	[[realm.site.child]]
	name = "net"
	local = ["$3"]
	remote = ["$6"]
	esp = ["aes128gcm16-x25519"]
	END
	chmod 600 "/tmp/$1.toml"
	on "$1" sh -c 'echo 1 > /proc/sys/net/ipv4/ip_forward'
	on "$1" tussock run --config "/tmp/$1.toml" > "/tmp/$1.log" 2>&1 &
}

ask() {
	gateway=$1
	shift
	timeout 60 tussock "$@" --socket "/run/$gateway/control.sock"
}

started() {
	count=0
	until ask "$1" status > /tmp/status 2>&1; do
		count=$((count + 1))
		[ $count -lt 60 ] || return 1
		sleep 1
	done
}

# A file through the tunnel: from, to, address of that.
transfer() {
	dd if=/dev/urandom of=/tmp/sent bs=1024 count="$KILOBYTES" 2> /dev/null
	# Whose input ends says so to the other end, which then goes before everything is sent.
	on "$2" timeout 100 nc -l -p 7000 > /tmp/arrived < /tmp/silent &
	receiver=$!
	sleep 1
	on "$1" timeout 100 nc "$3" 7000 < /tmp/sent
	wait $receiver
	cmp /tmp/sent /tmp/arrived && [ "$(wc -c < /tmp/arrived)" = $((KILOBYTES * 1024)) ]
}

# What holds the keys may lock all of its memory here, and does.
locked() {
	for process in $(pidof tussock-secure); do
		grep -E 'VmSize|VmLck' "/proc/$process/status"
		[ "$(sed -n 's/^VmLck:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$process/status")" -gt 8192 ] || return 1
	done
	[ -n "$process" ] && ! grep -h 'may be swapped out\|heap are locked' /tmp/moon.log /tmp/sun.log
}

# Both gateways end when they are asked to, and give everything back to the kernel.
ended() {
	kill $(pidof tussock)
	count=0
	while pidof tussock; do
		count=$((count + 1))
		[ $count -lt 20 ] || return 1
		sleep 1
	done
	! grep -h 'UNSET_CONTAINER\|unbind VFIO' /tmp/moon.log /tmp/sun.log
}

check() {
	name=$1
	shift
	if "$@" > /tmp/said 2>&1; then
		echo "PASS $name"
	else
		echo "FAIL $name"
		tail -5 /tmp/said
		return 1
	fi
}

judge() {
	check moon_starts started moon || return
	check sun_starts started sun || return
	check keys_stay_out_of_the_swap locked || return
	check the_tunnel_comes_up ask moon up site/net || return
	check pings_are_answered on alice ping -c 5 -W 5 10.2.0.10 || return
	check a_file_arrives_as_it_was_sent transfer alice bob 10.2.0.10 || return
	check and_one_the_other_way transfer bob alice 10.1.0.10
}

KILOBYTES=$(option kilobytes)
mkfifo /tmp/silent
exec 9<> /tmp/silent
for name in alice moon sun bob; do
	network $name
done
wire alice 10.1.0.10/16 moon 10.1.0.1/16
wire moon 192.168.0.1/24 sun 192.168.0.2/24
wire sun 10.2.0.1/16 bob 10.2.0.10/16
on alice ip route add default via 10.1.0.1
on bob ip route add default via 10.2.0.1
set -- $(card)
gateway moon 192.168.0.1 10.1.0.0/16 sun 192.168.0.2 10.2.0.0/16 "$1"
gateway sun 192.168.0.2 10.2.0.0/16 moon 192.168.0.1 10.1.0.0/16 "$2"
judge
# Packets done by the card and by software: the first and the second of a gateway's devices.
for name in moon sun; do
	packets=$(ask $name accel | sed -n 's/^  has done *\([0-9]*\) packets.*/\1/p' | tr '\n' ' ')
	echo "rig: packets $name $packets"
done
check both_gateways_end ended
for name in moon sun; do
	grep -E 'WARN|ERROR|panic' "/tmp/$name.log" | tail -5 | sed "s/^/rig: log $name /"
done
dmesg | grep -iE 'vfio|DMAR: \[|segfault' | sed 's/^/rig: dmesg /' | tail -10
