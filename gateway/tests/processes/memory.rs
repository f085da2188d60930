//! Where secrets are in memory, and where not. Each is planted, used, and looked for in all three processes: it must be found in the
//! key side by the very search that finds nothing elsewhere.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use memchr::memmem;
use rustix::process::{Resource, getrlimit};

use crate::pair::{Pair, children};
use crate::{SECRET, can};

/// An EAP user's password at the server, which its client types.
const EAP: &str = "planted: Zk8-eap-Q2vM";
/// Another's, which its client has written down.
const OTHER_EAP: &str = "planted: b41-other-Wf";
/// What is shared with a RADIUS server.
const RADIUS: &str = "planted: radius-Hx73u";
/// What is shared with whoever changes sessions.
const DYNAMIC: &str = "planted: dynamic-5TgY";

/// Octets read at a time.
const PART: usize = 1 << 20;

/// Where each of these is in the memory of a process, all of which is read: what cannot be read fails.
fn found(pid: u32, needles: &[Vec<u8>]) -> Vec<Vec<u64>> {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let overlap = needles.iter().map(Vec::len).max().unwrap() - 1;
    let mut places = vec![Vec::new(); needles.len()];
    let (mut seen, mut heap) = (0, 0);
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, mode) = (words.next().unwrap(), words.next().unwrap());
        let name = words.nth(3).unwrap_or_default();
        // The kernel's own pages, the same in every process.
        if !mode.starts_with('r') || name.starts_with("[vv") || name.starts_with("[vsyscall") {
            continue;
        }
        let (from, to) = range.split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        // Parts overlap, so that nothing lies across a border, and nothing is counted twice.
        let mut part = Vec::new();
        let mut at = from;
        while at < to {
            let kept = part.len().min(overlap);
            part.drain(..part.len() - kept);
            part.resize(kept + (to - at).min(PART as u64) as usize, 0);
            let read = memory.read_at(&mut part[kept..], at);
            let read = read.unwrap_or_else(|error| panic!("{line} of {pid} at {at:x}: {error}"));
            assert!(read > 0, "{line} of {pid} at {at:x}");
            part.truncate(kept + read);
            for (places, needle) in places.iter_mut().zip(needles) {
                let known = kept.saturating_sub(needle.len() - 1);
                let start = at - (kept - known) as u64;
                places.extend(memmem::find_iter(&part[known..], needle).map(|offset| start + offset as u64));
            }
            at += read as u64;
        }
        seen += to - from;
        heap += if name == "[heap]" { to - from } else { 0 };
    }
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(seen >= resident << 10, "{seen} octets of {pid} were seen, and {resident} kB are there");
    assert!(heap > 0, "{pid} has a heap");
    places
}

/// Whether the kernel keeps this place of a process out of the swap.
fn is_locked(pid: u32, place: u64) -> bool {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut here = false;
    for line in text.lines() {
        let range = line.split_whitespace().next().and_then(|word| word.split_once('-'));
        let range = range.and_then(|(from, to)| {
            Some(u64::from_str_radix(from, 16).ok()?..u64::from_str_radix(to, 16).ok()?)
        });
        if let Some(range) = range {
            here = range.contains(&place);
        } else if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| here) {
            return flags.split_whitespace().any(|flag| flag == "lo");
        }
    }
    panic!("{place:x} is not in the memory of {pid}")
}

/// One secret, in the forms that it may be in.
struct Secret {
    name: &'static str,
    forms: Vec<Vec<u8>>,
}

impl Secret {
    /// A word, and the same in the letters that MSCHAPv2 has it in.
    fn word(name: &'static str, word: &str) -> Secret {
        let wide = word.encode_utf16().flat_map(u16::to_le_bytes).collect();
        Secret { name, forms: vec![word.as_bytes().to_vec(), wide] }
    }

    /// The private number of an ECDSA key, either way round, and a line of its file.
    fn key(name: &'static str, key: &rcgen::KeyPair) -> Secret {
        let der = key.serialize_der();
        // In the ECPrivateKey of RFC 5915.
        let place = der.windows(2).position(|pair| pair == [0x04, 0x20]).unwrap() + 2;
        let number = der[place..place + 32].to_vec();
        let backwards = number.iter().rev().copied().collect();
        let line = key.serialize_pem().lines().nth(1).unwrap().as_bytes().to_vec();
        Secret { name, forms: vec![number, backwards, line] }
    }
}

/// They are in the key side of this gateway, and neither in its supervisor nor in what faces the network, in which something else
/// is found by the same search.
fn are_in_the_key_side_alone(supervisor: u32, secrets: &[Secret]) {
    let [gateway, secure] = children(supervisor);
    let public = b"lab.test".to_vec();
    let needles: Vec<Vec<u8>> =
        secrets.iter().flat_map(|secret| secret.forms.clone()).chain([public]).collect();
    let [up, out, keys] = [supervisor, gateway, secure].map(|pid| found(pid, &needles));
    for (name, places) in [("the supervisor", &up), ("the gateway", &out), ("the key side", &keys)] {
        let public = places.last().unwrap();
        assert!(!public.is_empty(), "{name} knows what is public, or the search finds nothing");
    }
    let limit = getrlimit(Resource::Memlock).current;
    let may_lock = limit.is_none_or(|limit| limit >= 4 << 20);
    if !may_lock {
        eprintln!("SKIPPED: no more than {limit:?} octets of memory may be locked here");
    }
    let mut at = 0;
    for secret in secrets {
        let forms = at..at + secret.forms.len();
        at = forms.end;
        let counts = |places: &[Vec<u64>]| places[forms.clone()].iter().map(Vec::len).collect::<Vec<_>>();
        let there: Vec<u64> = keys[forms.clone()].concat();
        let locked = there.iter().filter(|place| is_locked(secure, **place)).count();
        let [up, out, keys] = [counts(&up), counts(&out), counts(&keys)];
        eprintln!(
            "{}: supervisor {up:?}, gateway {out:?}, key side {keys:?} times, {locked} of them locked",
            secret.name
        );
        assert!(up.iter().chain(&out).all(|count| *count == 0), "{} is elsewhere", secret.name);
        assert!(!there.is_empty(), "the key side has no {}", secret.name);
        assert!(!may_lock || locked == there.len(), "{} may be swapped out", secret.name);
    }
    let status = fs::read_to_string(format!("/proc/{secure}/status")).unwrap();
    let locked = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
    eprintln!("the key side's {}", locked.replace('\t', " "));
}

/// Where `holds` has it: all over three parts, and at every place around the border of two.
fn places(length: usize) -> Vec<usize> {
    let all_over = (0..40).map(|n| n * (3 * PART - length) / 40);
    let around = (0..length).map(|n| PART + 100 + n * 4096 - n);
    all_over.chain(around).collect()
}

/// Makes a process of these tests one that is looked into.
const HOLDS: &str = "TUSSOCK_HOLDS";

/// What that process does: holds what it is told until it is told to end.
fn hold() {
    let mut lines = std::io::stdin().lines();
    let Some(needle) = lines.next() else { return };
    let needle = needle.unwrap().into_bytes().iter().map(|octet| octet ^ 0x55).collect::<Vec<u8>>();
    let mut hay = vec![0u8; 3 * PART];
    for at in places(needle.len()) {
        hay[at..at + needle.len()].copy_from_slice(&needle);
    }
    println!("held {}", memmem::find_iter(&hay, &needle).count());
    let _ = lines.next();
    drop(std::hint::black_box(hay));
}

#[test]
fn the_search_finds_what_is_there() {
    if std::env::var_os(HOLDS).is_some() {
        return hold();
    }
    if !can("a look into memory") {
        return;
    }
    let told = "a word that is told and not held";
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "memory::the_search_finds_what_is_there", "--nocapture"])
        .env(HOLDS, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = holder.stdin.take().unwrap();
    to.write_all(format!("{told}\n").as_bytes()).unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let held = lines.find_map(|line| line.unwrap().split_once("held ")?.1.parse::<usize>().ok()).unwrap();
    assert!(held > 60, "{held}");
    let needle = told.bytes().map(|octet| octet ^ 0x55).collect();
    let absent = told.bytes().map(|octet| octet ^ 0x2a).collect();
    let counts: Vec<usize> = found(holder.id(), &[needle, absent]).iter().map(Vec::len).collect();
    // And the copy that it was made of.
    assert_eq!(counts, [held + 1, 0]);
    drop(to);
    assert!(holder.wait().unwrap().success());
}

#[test]
fn pre_shared_keys_are_in_the_key_side_and_nowhere_else() {
    if !can("a look into memory") {
        return;
    }
    let (pair, supervisor) = Pair::with_tunnel("scan");
    // Read again, too: by another reader.
    assert!(pair.command("moon", &["reload"]).is_some());
    assert!(pair.pings());
    are_in_the_key_side_alone(supervisor, &[Secret::word("pre-shared key", SECRET)]);
}

/// A key and its certificate in files.
fn make(pair: &Pair, host: &str) -> ([PathBuf; 2], rcgen::KeyPair) {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new([format!("{host}.lab.test")]).unwrap();
    let cert = params.self_signed(&key).unwrap();
    let files = ["key", "crt"].map(|ending| pair.place(host, ending));
    fs::write(&files[0], key.serialize_pem()).unwrap();
    fs::set_permissions(&files[0], fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&files[1], cert.pem()).unwrap();
    (files, key)
}

fn own([key, cert]: &[PathBuf; 2]) -> String {
    format!("method = \"pubkey\", key = \"{}\", cert = [\"{}\"]", key.display(), cert.display())
}

fn pinned([_, cert]: &[PathBuf; 2]) -> String {
    format!("method = \"pubkey\", cert = [\"{}\"]", cert.display())
}

#[test]
fn private_keys_are_in_the_key_side_and_nowhere_else() {
    if !can("a look into memory") {
        return;
    }
    let mut pair = Pair::new("keys");
    let ((moon_files, moon_key), (sun_files, _)) = (make(&pair, "moon"), make(&pair, "sun"));
    let moon = pair.configure("moon", 1, 2, (&own(&moon_files), &pinned(&sun_files)), "");
    let sun = pair.configure("sun", 2, 1, (&own(&sun_files), &pinned(&moon_files)), "");
    pair.run("sun", &sun);
    let supervisor = pair.run("moon", &moon);
    pair.until("there is a tunnel", || pair.pings());
    are_in_the_key_side_alone(supervisor, &[Secret::key("private key", &moon_key)]);
}

/// Moon lets carol and dave in by passwords, and has secrets with RADIUS servers besides. Sun is carol first, who types her password, and
/// then dave, whose password is written down.
#[test]
fn passwords_and_radius_secrets_are_in_the_key_side_and_nowhere_else() {
    if !can("a look into memory") {
        return;
    }
    let mut pair = Pair::new("eap");
    let (files, key) = make(&pair, "moon");
    let theirs = format!(
        "[radius]\ndynamic = {{ listen = \"192.168.0.1\", clients = [\"192.168.0.99\"], secret = \"{DYNAMIC}\" }}\n\
         [[radius.server]]\nname = \"one\"\naddress = \"192.168.0.99\"\nsecret = \"{RADIUS}\"\n\
         [[eap]]\nuser = \"carol\"\npassword = \"{EAP}\"\n[[eap]]\nuser = \"dave\"\npassword = \"{OTHER_EAP}\"\n\
         [realm.others]\nremote = [\"192.168.0.98\"]\nlocal_auth = {{ id = \"moon.lab.test\", {} }}\n\
         remote_auth = {{ method = \"eap\", radius = true }}\n\
         [[realm.others.child]]\nname = \"net\"\nlocal = [\"10.1.0.0/16\"]\nremote = [\"10.3.0.0/16\"]\n",
        own(&files)
    );
    let eap = "method = \"eap\", eap = [\"mschapv2\"]";
    let moon = pair.configure("moon", 1, 2, (&own(&files), eap), &theirs);
    let client = "method = \"eap\", eap_id = \"carol\", eap = [\"mschapv2\"]";
    let sun = pair.configure("sun", 2, 1, (client, &pinned(&files)), "");
    // Whoever proves himself by EAP begins; any name will do.
    for (file, from, to) in
        [(&moon, "start = \"boot\"", "start = \"manual\""), (&moon, "id = \"sun.lab.test\", ", "")]
    {
        fs::write(file, fs::read_to_string(file).unwrap().replace(from, to)).unwrap();
    }
    let moon = pair.run("moon", &moon);
    let client = pair.run("sun", &sun);

    let up = pair.order("sun", &["up", "site"]).stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    pair.until("a password is wanted", || {
        fs::read_to_string(pair.place("sun", "log")).unwrap().contains("password")
    });
    let mut typed = pair
        .order("sun", &["credentials", "site"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    typed.stdin.take().unwrap().write_all(format!("{EAP}\n").as_bytes()).unwrap();
    let typed = typed.wait_with_output().unwrap();
    assert!(typed.status.success(), "{}", String::from_utf8_lossy(&typed.stderr));
    let up = up.wait_with_output().unwrap();
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    pair.until("there is a tunnel", || pair.pings());

    let at_server = [
        Secret::word("user's password", EAP),
        Secret::word("other user's password", OTHER_EAP),
        Secret::word("RADIUS secret", RADIUS),
        Secret::word("secret for dynamic authorization", DYNAMIC),
        Secret::key("private key", &key),
    ];
    are_in_the_key_side_alone(moon, &at_server);
    are_in_the_key_side_alone(client, &[Secret::word("password that was typed", EAP)]);

    assert!(pair.command("sun", &["down", "site"]).is_some());
    let text = fs::read_to_string(&sun).unwrap().replace("eap_id = \"carol\"", "eap_id = \"dave\"");
    fs::write(&sun, format!("{text}[[eap]]\nuser = \"dave\"\npassword = \"{OTHER_EAP}\"\n")).unwrap();
    assert!(pair.command("sun", &["reload"]).is_some());
    assert!(pair.command("sun", &["up", "site"]).is_some());
    assert!(pair.pings());
    are_in_the_key_side_alone(client, &[Secret::word("password that is written down", OTHER_EAP)]);
}

/// The other way round: what protects packets is where packets are.
#[test]
fn keys_of_sas_are_in_the_gateway_and_nowhere_else() {
    if !can("a look into memory") {
        return;
    }
    let mut pair = Pair::new("sa");
    let (moon, sun) = (pair.psk("moon", 1, 2), pair.psk("sun", 2, 1));
    let folder = pair.place("moon", "keylog");
    let text = fs::read_to_string(&moon).unwrap();
    let named = format!("[gateway]\nkeylog = \"{}\"", folder.display());
    fs::write(&moon, text.replace("[gateway]", &named)).unwrap();
    pair.run("sun", &sun);
    let supervisor = pair.run("moon", &moon);
    pair.until("there is a tunnel", || pair.pings());
    let log = ["ikev2_decryption_table", "esp_sa"].map(|name| fs::read_to_string(folder.join(name)).unwrap());
    // The first 16 octets of what is long enough to be a key.
    let words = log.iter().flat_map(|text| text.split(['"', ',', '\n']));
    let keys: Vec<Vec<u8>> = words
        .map(|word| word.trim_start_matches("0x"))
        .filter(|word| word.len() >= 32 && word.bytes().all(|letter| letter.is_ascii_hexdigit()))
        .map(|word| (0..32).step_by(2).map(|at| u8::from_str_radix(&word[at..at + 2], 16).unwrap()).collect())
        .collect();
    // Both directions of the IKE SA and of the Child SA.
    assert!(keys.len() >= 4, "{log:?}");
    let [gateway, secure] = children(supervisor);
    let [up, out, other] = [supervisor, gateway, secure].map(|pid| found(pid, &keys));
    eprintln!("{} keys: in the gateway {:?} times", keys.len(), out.iter().map(Vec::len).collect::<Vec<_>>());
    assert!(out.iter().all(|places| !places.is_empty()));
    assert!(
        up.iter().chain(&other).all(Vec::is_empty),
        "in the supervisor {up:?}, in the key side {other:?}"
    );
}
