//! The first message: which version, and what each side can do.

use rustix::io::Errno;
use serde_json::{Value, json};

use crate::message::{Fields, MAX_DATA, MAX_FDS};

/// The versions of the protocol that are spoken here: 0.0 and 0.1.
const MAJOR: u16 = 0;
const MINOR: u16 = 1;
/// A version message has some hundred octets; what is much longer is not one.
const MAX_JSON: usize = 4096;

/// Answers a version message.
///
/// # Errors
/// It is malformed, or there is no version in common.
pub(crate) fn negotiate(body: &[u8]) -> Result<Vec<u8>, Errno> {
    let mut fields = Fields(body);
    let (major, minor) = (fields.u16().ok_or(Errno::INVAL)?, fields.u16().ok_or(Errno::INVAL)?);
    if major != MAJOR {
        return Err(Errno::NOTSUP);
    }
    let proposed = capabilities(fields.0)?;
    let mut ours = json!({
        "max_msg_fds": MAX_FDS,
        "max_data_xfer_size": MAX_DATA,
        "max_dma_maps": 65535,
        "pgsizes": 4096,
    });
    if proposed.get("write_multiple") == Some(&Value::Bool(true)) {
        ours["write_multiple"] = Value::Bool(true);
    }
    let mut reply = Vec::new();
    reply.extend(major.to_ne_bytes());
    reply.extend(minor.min(MINOR).to_ne_bytes());
    reply.extend(json!({ "capabilities": ours }).to_string().as_bytes());
    reply.push(0);
    Ok(reply)
}

/// What the client proposes. Nothing at all, nothing but the terminating zero, and no capabilities are all fine.
fn capabilities(data: &[u8]) -> Result<Value, Errno> {
    if data.len() > MAX_JSON {
        return Err(Errno::INVAL);
    }
    let text = data.strip_suffix(&[0]).unwrap_or(data);
    if text.is_empty() {
        return Ok(Value::Null);
    }
    let value: Value = serde_json::from_slice(text).map_err(|_| Errno::INVAL)?;
    match value.get("capabilities") {
        None if value.is_object() => Ok(Value::Null),
        Some(capabilities) if capabilities.is_object() => Ok(capabilities.clone()),
        _ => Err(Errno::INVAL),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn propose(major: u16, minor: u16, json: &[u8]) -> Result<(u16, Value), Errno> {
        let body = [&major.to_ne_bytes()[..], &minor.to_ne_bytes(), json].concat();
        let reply = negotiate(&body)?;
        let json = serde_json::from_slice(&reply[4..reply.len() - 1]).unwrap();
        assert_eq!(reply.last(), Some(&0));
        Ok((u16::from_ne_bytes([reply[2], reply[3]]), json))
    }

    #[test]
    fn the_lower_minor_version_is_spoken_and_no_other_major() {
        assert_eq!(propose(0, 0, b"").unwrap().0, 0);
        assert_eq!(propose(0, 7, b"{}\0").unwrap().0, 1);
        assert_eq!(propose(1, 0, b"{}\0").unwrap_err(), Errno::NOTSUP);
    }

    #[test]
    fn several_writes_in_a_message_are_offered_to_who_proposes_them() {
        let (_, with) =
            propose(0, 1, b"{\"capabilities\":{\"write_multiple\":true,\"max_msg_fds\":8}}\0").unwrap();
        assert_eq!(with["capabilities"]["write_multiple"], true);
        let (_, without) = propose(0, 1, b"\0").unwrap();
        assert_eq!(without["capabilities"].get("write_multiple"), None);
    }

    #[test]
    fn what_is_no_proposal_is_refused() {
        let long = [b"{\"a\":\"".to_vec(), vec![b'x'; MAX_JSON], b"\"}\0".to_vec()].concat();
        for wrong in [&b"[]\0"[..], b"{\"capabilities\":3}\0", b"{\0", b"\xff\xfe\0", b"{}\0{}\0", &long] {
            assert_eq!(propose(0, 1, wrong).unwrap_err(), Errno::INVAL);
        }
        assert_eq!(negotiate(&[0, 0, 1]).unwrap_err(), Errno::INVAL);
    }
}
