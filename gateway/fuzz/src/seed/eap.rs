//! Conversations that nobody disturbs, one of each method and version of TLS, and some that somebody does.

use crate::eap::METHODS;

pub(super) fn seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for (n, (name, kind, _)) in METHODS.iter().enumerate() {
        let n = n as u8;
        seeds.push((format!("{name}_tls12"), vec![n, 0]));
        if kind.needs_tls() {
            seeds.push((format!("{name}_tls13"), vec![n, 1]));
        }
    }
    let disturbed: [(&str, &[u8]); 9] = [
        ("doubled_everywhere", &[2, 0, 3, 3, 3, 3, 3, 3, 3, 3]),
        ("doubled_in_tls", &[3, 1, 3, 3, 3, 3, 3, 3, 3, 3, 3, 3]),
        ("flipped_challenge", &[2, 0, 0, 0, 1, 3, 0xff]),
        ("flipped_record", &[4, 1, 0, 0, 0, 0, 0, 1, 10, 1]),
        ("cut_hello", &[9, 0, 0, 0, 0, 2, 40]),
        ("foreign_nak", &[3, 0, 0, 0, 0, 12, 2, 26, 4, 3]),
        ("foreign_success", &[2, 0, 4, 0, 0, 4, 3, 1, 2, 3]),
        ("flipped_binding", &[9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 8, 1]),
        ("longer_than_it_was", &[5, 0, 0, 0, 0, 0, 0x2d, 1, 2, 3, 4, 5]),
    ];
    seeds.extend(disturbed.map(|(name, bytes)| (name.to_string(), bytes.to_vec())));
    seeds
}
