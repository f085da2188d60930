# DPDK's own tests of its driver for the card.
echo 64 > /proc/sys/vm/nr_hugepages
load vfio
card=$(card)
bind "$card" vfio-pci
lib=/usr/lib/x86_64-linux-gnu
set -- -l 0 -n 1 --in-memory -m 100 --iova-mode=va --no-telemetry --log-level='*:error'
for driver in mempool_ring bus_pci bus_vdev crypto_openssl common_qat; do
	set -- "$@" -d "$lib/librte_$driver.so.25"
done
# Without the last word, algorithms that DPDK calls legacy (SHA-1, 3DES) are not offered. The tests dump their buffers, which
# would take the console minutes.
{
	dpdk-test "$@" -a "$card,qat_legacy_capa=1" <<-END
	$(option test)
	quit
	END
	echo "rig: exit $?"
} 2>&1 | grep -vE '^[0-9A-F]{8}: |^m_(src|dst)\(| at \[0x'
