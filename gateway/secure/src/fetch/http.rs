//! HTTP: one request, few redirections, nothing but plain HTTP. The connection goes to an address that was looked at before, and not
//! to whatever the name means a moment later.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Instant;

use ureq::http::StatusCode;

use super::Url;

/// Redirections followed.
const REDIRECTIONS: usize = 3;
/// Addresses of one server that are tried.
const ADDRESSES: usize = 3;

/// Looks up where a server is, as far as it may be asked.
type Addresses<'a> = dyn Fn(&str, u16) -> Result<Vec<SocketAddr>, String> + 'a;

/// Fetches at most `most` octets; a question is sent as OCSP has it (RFC 6960 appendix A.1).
pub(super) fn fetch(
    url: &Url,
    until: Instant,
    most: usize,
    question: Option<&[u8]>,
    addresses: &Addresses<'_>,
) -> Result<Vec<u8>, String> {
    let mut url = url.clone();
    for _ in 0..=REDIRECTIONS {
        match request(&url, until, most, question, &addresses(&url.host, url.port)?)? {
            Answer::Content(octets) => return Ok(octets),
            Answer::Elsewhere(location) => url = redirected(&url, &location)?,
        }
    }
    Err(format!("more than {REDIRECTIONS} redirections"))
}

enum Answer {
    Content(Vec<u8>),
    Elsewhere(String),
}

fn request(
    url: &Url,
    until: Instant,
    most: usize,
    question: Option<&[u8]>,
    addresses: &[SocketAddr],
) -> Result<Answer, String> {
    let mut why = String::new();
    for address in addresses.iter().take(ADDRESSES) {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            why = format!("{} did not answer in time", url.host);
            break;
        }
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(left))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            // Whoever set a proxy for the shell did not mean the gateway.
            .proxy(None)
            .max_response_header_size(16 * 1024)
            .user_agent("tussock")
            .build()
            .into();
        let host = match url.port {
            80 => url.bracketed(),
            port => format!("{}:{port}", url.bracketed()),
        };
        let at = format!("http://{address}{}", url.rest);
        let sent = match question {
            None => agent.get(&at).header("Host", &host).call(),
            Some(question) => agent
                .post(&at)
                .header("Host", &host)
                .header("Content-Type", "application/ocsp-request")
                .header("Accept", "application/ocsp-response")
                .send(question),
        };
        let response = match sent {
            Ok(response) => response,
            Err(error) => {
                why = format!("{} at {address}: {error}", url.host);
                continue;
            }
        };
        return content(response, url, most);
    }
    Err(why)
}

fn content(response: ureq::http::Response<ureq::Body>, url: &Url, most: usize) -> Result<Answer, String> {
    let status = response.status();
    if status.is_redirection() {
        let location = response.headers().get("location").and_then(|value| value.to_str().ok());
        return match location {
            Some(location) => Ok(Answer::Elsewhere(location.to_owned())),
            None => Err(format!("{} says {status} and not where to go", url.host)),
        };
    }
    if status != StatusCode::OK {
        return Err(format!("{} says {status}", url.host));
    }
    let mut octets = Vec::new();
    let mut body = response.into_body().into_reader().take(most as u64 + 1);
    body.read_to_end(&mut octets).map_err(|error| format!("{} broke off: {error}", url.host))?;
    if octets.len() > most {
        return Err(format!("{} sends more than {most} octets", url.host));
    }
    Ok(Answer::Content(octets))
}

fn redirected(from: &Url, location: &str) -> Result<Url, String> {
    let to = if location.starts_with('/') && !location.starts_with("//") {
        Url { rest: location.to_owned(), ..from.clone() }
    } else {
        Url::parse(location).map_err(|why| format!("{} sends us elsewhere: {why}", from.host))?
    };
    if to.scheme == "http" {
        Ok(to)
    } else {
        Err(format!("{} sends us from http to {}", from.host, to.scheme))
    }
}
