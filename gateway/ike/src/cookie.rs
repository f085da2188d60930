//! Stateless cookies (RFC 7296 section 2.6), and when to ask for them.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use spi::{Fault, Prf, Secret, ShortOps};
use wire::ike::Spi;

/// How long a secret makes cookies; it verifies them for as long again.
pub const ROTATION: Duration = Duration::from_secs(120);

/// Longest cookie of a peer we send back, octets (RFC 7296 section 2.6).
pub const MAX_COOKIE: usize = 64;

/// Makes and checks cookies: `version | prf(secret, SPIi | address | Ni)`, 33 octets. Keeps two secrets and nothing else.
pub struct CookieJar {
    current: Key,
    previous: Option<Key>,
    rotated: Instant,
}

struct Key {
    version: u8,
    secret: Secret,
}

impl CookieJar {
    /// A jar with a fresh secret.
    pub fn new(ops: &dyn ShortOps, now: Instant) -> Self {
        CookieJar { current: Key::new(ops, 1), previous: None, rotated: now }
    }

    /// Takes a new secret when the present one is older than [`ROTATION`]; the present one still verifies. Call it before
    /// [`make`](Self::make) and [`check`](Self::check).
    pub fn rotate_if_due(&mut self, ops: &dyn ShortOps, now: Instant) {
        let age = now.saturating_duration_since(self.rotated);
        if age < ROTATION {
            return;
        }
        let next = Key::new(ops, self.current.version.wrapping_add(1));
        let old = std::mem::replace(&mut self.current, next);
        // A secret nobody used for so long that it should have been forgotten is forgotten.
        self.previous = (age < 2 * ROTATION).then_some(old);
        self.rotated = now;
    }

    /// The cookie for an initiator.
    ///
    /// # Errors
    /// A [`Fault`] when the provider has no HMAC-SHA2-256.
    pub fn make(&self, ops: &dyn ShortOps, ni: &[u8], remote: IpAddr, spi_i: Spi) -> Result<Vec<u8>, Fault> {
        self.current.cookie(ops, ni, remote, spi_i)
    }

    /// Whether the cookie is one of ours for this initiator. Compares in constant time.
    ///
    /// # Errors
    /// A [`Fault`] when the provider has no HMAC-SHA2-256.
    pub fn check(
        &self,
        ops: &dyn ShortOps,
        cookie: &[u8],
        ni: &[u8],
        remote: IpAddr,
        spi_i: Spi,
    ) -> Result<bool, Fault> {
        // The version octet only saves a second computation; it is public.
        let keys = std::iter::once(&self.current).chain(&self.previous);
        for key in keys.filter(|key| cookie.first() == Some(&key.version)) {
            if Secret::new(key.cookie(ops, ni, remote, spi_i)?).ct_eq(cookie) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Key {
    fn new(ops: &dyn ShortOps, version: u8) -> Self {
        let mut bytes = vec![0; 32];
        ops.random(&mut bytes);
        Key { version, secret: Secret::new(bytes) }
    }

    fn cookie(&self, ops: &dyn ShortOps, ni: &[u8], remote: IpAddr, spi_i: Spi) -> Result<Vec<u8>, Fault> {
        // Parts of fixed length first, so that no two inputs run into the same octets. The port is left out: it may differ
        // from one message to the next behind a NAT.
        let address = match remote {
            IpAddr::V4(a) => a.to_ipv6_mapped().octets(),
            IpAddr::V6(a) => a.octets(),
        };
        let mac = ops.prf(Prf::HMAC_SHA2_256, self.secret.expose(), &[&spi_i.to_bytes(), &address, ni])?;
        let mut cookie = Vec::with_capacity(1 + mac.len());
        cookie.push(self.version);
        cookie.extend_from_slice(mac.expose());
        Ok(cookie)
    }
}

/// When cookies are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Half-open IKE SAs; 0: always ask.
    pub half_open: usize,
    /// New IKE_SA_INIT requests within a second, less those whose sender has proved itself since; 0: no such limit.
    pub per_second: u32,
    /// Ask when the crypto queue has room for fewer jobs than this; 0: no such limit.
    pub crypto_room: usize,
}

impl Thresholds {
    /// Those of a gateway that has room for so many half-open IKE SAs. Who expects many peers at once expects them within seconds; and
    /// what strangers leave half-open within one is to be few enough for cookies to go off again.
    pub fn of(half_open: usize) -> Self {
        let per_second = u32::try_from(half_open / 4).unwrap_or(u32::MAX).max(100);
        Thresholds { half_open, per_second, crypto_room: 8 }
    }
}

/// How things stand when an IKE_SA_INIT request arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// IKE SAs that wait for their peer to prove itself.
    pub half_open: usize,
    /// Jobs the crypto queue would take.
    pub crypto_room: usize,
}

/// Switches cookies on and off. On at once; off only when everything has been at half of its threshold or better for
/// [`CALM`].
#[derive(Clone, Debug)]
pub struct Gate {
    thresholds: Thresholds,
    on: bool,
    second: Option<Instant>,
    /// Strangers of this second.
    arrived: u32,
    /// Of the second before.
    arrived_before: u32,
    calm_since: Option<Instant>,
}

/// How long the load must be low before cookies go off.
pub const CALM: Duration = Duration::from_secs(5);

/// What a look at the load changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Nothing.
    Same,
    /// Cookies are asked for from now on.
    On,
    /// They no longer are.
    Off,
}

impl Gate {
    /// A gate that stands open, unless the threshold of half-open SAs is 0.
    pub fn new(thresholds: Thresholds) -> Self {
        let on = thresholds.half_open == 0;
        Gate { thresholds, on, second: None, arrived: 0, arrived_before: 0, calm_since: None }
    }

    /// Counts an IKE_SA_INIT request without a valid cookie and looks at the load. Ask [`is_on`](Self::is_on) afterwards.
    pub fn handle_request(&mut self, now: Instant, load: Load) -> Switch {
        self.turn_second(now);
        self.arrived = self.arrived.saturating_add(1);
        self.look(now, load)
    }

    /// A stranger proved who it is: it does not count as one any more. However many peers come at once, those that are let in
    /// are no reason to ask the others for cookies.
    pub fn note_proved(&mut self) {
        match self.arrived {
            0 => self.arrived_before = self.arrived_before.saturating_sub(1),
            arrived => self.arrived = arrived - 1,
        }
    }

    /// Looks at the load without a request, so that cookies also go off when nobody comes any more.
    pub fn handle_timeout(&mut self, now: Instant, load: Load) -> Switch {
        self.turn_second(now);
        self.look(now, load)
    }

    /// Whether cookies are asked for.
    pub fn is_on(&self) -> bool {
        self.on
    }

    fn look(&mut self, now: Instant, load: Load) -> Switch {
        let t = self.thresholds;
        let rate = self.arrived.max(self.arrived_before);
        let high = t.half_open == 0
            || load.half_open >= t.half_open
            || (t.per_second != 0 && rate > t.per_second)
            || load.crypto_room < t.crypto_room;
        if high {
            self.calm_since = None;
            return match std::mem::replace(&mut self.on, true) {
                true => Switch::Same,
                false => Switch::On,
            };
        }
        let low = load.half_open <= t.half_open / 2
            && (t.per_second == 0 || rate <= t.per_second / 2)
            && load.crypto_room >= t.crypto_room.saturating_mul(2);
        if !self.on || !low {
            self.calm_since = None;
            return Switch::Same;
        }
        let since = *self.calm_since.get_or_insert(now);
        if now.saturating_duration_since(since) < CALM {
            return Switch::Same;
        }
        self.on = false;
        self.calm_since = None;
        Switch::Off
    }

    fn turn_second(&mut self, now: Instant) {
        let age = self.second.map(|start| now.saturating_duration_since(start));
        if age.is_some_and(|age| age < Duration::from_secs(1)) {
            return;
        }
        let adjoining = age.is_some_and(|age| age < Duration::from_secs(2));
        self.arrived_before = if adjoining { self.arrived } else { 0 };
        self.arrived = 0;
        self.second = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spi::Device;
    use std::sync::Arc;

    const SPI: Spi = Spi(7);
    const NI: [u8; 16] = [3; 16];

    fn ops() -> Arc<dyn ShortOps> {
        soft::Soft::new(1).device().short_ops().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn cookie_fits_the_initiator_it_was_made_for_and_no_other() {
        let (ops, a) = (ops(), ip("192.0.2.1"));
        let jar = CookieJar::new(&*ops, Instant::now());
        let cookie = jar.make(&*ops, &NI, a, SPI).unwrap();
        let check = |cookie: &[u8], ni: &[u8], a, spi| jar.check(&*ops, cookie, ni, a, spi).unwrap();
        assert!(cookie.len() <= MAX_COOKIE);
        assert!(check(&cookie, &NI, a, SPI));
        assert!(!check(&cookie, &[4; 16], a, SPI));
        assert!(!check(&cookie, &NI, ip("192.0.2.2"), SPI));
        assert!(!check(&cookie, &NI, ip("2001:db8::1"), SPI));
        assert!(!check(&cookie, &NI, a, Spi(8)));
        for at in 0..cookie.len() {
            let mut wrong = cookie.clone();
            wrong[at] ^= 1;
            assert!(!check(&wrong, &NI, a, SPI), "octet {at}");
        }
        for wrong in
            [&[][..], &cookie[..cookie.len() - 1], &[&cookie[..], &[0]].concat(), &[1; 64], &[1; 1000]]
        {
            assert!(!check(wrong, &NI, a, SPI));
        }
        let other = CookieJar::new(&*ops, Instant::now());
        assert!(!other.check(&*ops, &cookie, &NI, a, SPI).unwrap(), "another gateway's cookie");
    }

    #[test]
    fn previous_secret_still_verifies_and_the_one_before_does_not() {
        let (ops, a, mut now) = (ops(), ip("192.0.2.1"), Instant::now());
        let mut jar = CookieJar::new(&*ops, now);
        let mut made = vec![jar.make(&*ops, &NI, a, SPI).unwrap()];
        for _ in 0..300 {
            jar.rotate_if_due(&*ops, now + ROTATION - Duration::from_millis(1));
            assert!(jar.check(&*ops, made.last().unwrap(), &NI, a, SPI).unwrap());
            now += ROTATION;
            jar.rotate_if_due(&*ops, now);
            assert!(jar.check(&*ops, made.last().unwrap(), &NI, a, SPI).unwrap(), "one rotation ago");
            made.push(jar.make(&*ops, &NI, a, SPI).unwrap());
            let old = made.len().saturating_sub(3);
            assert!(
                made.len() < 3 || !jar.check(&*ops, &made[old], &NI, a, SPI).unwrap(),
                "two rotations ago"
            );
            // The version octet comes round after 256 rotations; the secret has not.
            assert!(made.len() < 258 || !jar.check(&*ops, &made[made.len() - 257], &NI, a, SPI).unwrap());
        }
    }

    #[test]
    fn secret_of_before_a_long_silence_is_forgotten() {
        let (ops, a, now) = (ops(), ip("192.0.2.1"), Instant::now());
        let mut jar = CookieJar::new(&*ops, now);
        let cookie = jar.make(&*ops, &NI, a, SPI).unwrap();
        jar.rotate_if_due(&*ops, now + 2 * ROTATION);
        assert!(!jar.check(&*ops, &cookie, &NI, a, SPI).unwrap());
    }

    const QUIET: Load = Load { half_open: 0, crypto_room: 1000 };

    fn gate() -> Gate {
        Gate::new(Thresholds { half_open: 10, per_second: 20, crypto_room: 4 })
    }

    #[test]
    fn each_threshold_switches_cookies_on_by_itself() {
        let t0 = Instant::now();
        let mut by_half_open = gate();
        assert_eq!(by_half_open.handle_request(t0, Load { half_open: 9, ..QUIET }), Switch::Same);
        assert_eq!(by_half_open.handle_request(t0, Load { half_open: 10, ..QUIET }), Switch::On);
        assert_eq!(by_half_open.handle_request(t0, Load { half_open: 11, ..QUIET }), Switch::Same);
        let mut by_queue = gate();
        assert_eq!(by_queue.handle_request(t0, Load { crypto_room: 3, ..QUIET }), Switch::On);
        let mut by_rate = gate();
        let switches: Vec<Switch> = (0..21).map(|_| by_rate.handle_request(t0, QUIET)).collect();
        assert_eq!(switches.iter().position(|s| *s == Switch::On), Some(20));
        assert!(by_rate.is_on());
    }

    #[test]
    fn a_gateway_that_has_room_for_many_takes_a_quarter_of_them_within_a_second() {
        let t0 = Instant::now();
        for (threshold, taken) in [(64, 100), (400, 100), (4000, 1000)] {
            let mut gate = Gate::new(Thresholds::of(threshold));
            assert!((0..taken).all(|_| gate.handle_request(t0, QUIET) == Switch::Same), "{threshold}");
            assert_eq!(gate.handle_request(t0, QUIET), Switch::On);
        }
    }

    #[test]
    fn strangers_that_prove_themselves_make_no_rate() {
        let (t0, mut gate) = (Instant::now(), gate());
        for i in 0..5000 {
            let now = t0 + Duration::from_millis(i);
            assert_eq!(gate.handle_request(now, QUIET), Switch::Same);
            // Those of one second may prove themselves in the next.
            if i >= 15 {
                gate.note_proved();
            }
        }
        let switches: Vec<Switch> = (0..21).map(|_| gate.handle_request(t0 + CALM, QUIET)).collect();
        assert!(switches.contains(&Switch::On), "those that do not, do");
        let mut idle = self::gate();
        (0..10).for_each(|_| idle.note_proved());
        assert_eq!((idle.arrived, idle.arrived_before), (0, 0), "no credit is given");
    }

    #[test]
    fn slow_arrivals_never_add_up_to_a_rate() {
        let (t0, mut gate) = (Instant::now(), gate());
        for i in 0..500 {
            assert_eq!(gate.handle_request(t0 + Duration::from_millis(60) * i, QUIET), Switch::Same);
        }
        assert!(!gate.is_on());
    }

    #[test]
    fn cookies_go_off_only_after_a_calm_at_half_the_threshold() {
        let (t0, mut gate) = (Instant::now(), gate());
        let s = Duration::from_secs;
        gate.handle_request(t0, Load { half_open: 10, ..QUIET });
        // Below the threshold, above half of it: stays on for ever.
        for i in 1..60 {
            assert_eq!(gate.handle_timeout(t0 + s(i), Load { half_open: 6, ..QUIET }), Switch::Same);
        }
        assert_eq!(gate.handle_timeout(t0 + s(60), QUIET), Switch::Same);
        // A relapse starts the calm anew.
        assert_eq!(gate.handle_timeout(t0 + s(62), Load { half_open: 6, ..QUIET }), Switch::Same);
        assert_eq!(gate.handle_timeout(t0 + s(63), QUIET), Switch::Same);
        assert_eq!(gate.handle_timeout(t0 + s(67), QUIET), Switch::Same);
        assert_eq!(gate.handle_timeout(t0 + s(63) + CALM, QUIET), Switch::Off);
        assert!(!gate.is_on());
    }

    #[test]
    fn threshold_of_zero_asks_always() {
        let t0 = Instant::now();
        let mut gate = Gate::new(Thresholds { half_open: 0, ..Thresholds::of(64) });
        assert!(gate.is_on());
        for i in 0..20 {
            assert_eq!(gate.handle_timeout(t0 + CALM * i, QUIET), Switch::Same);
        }
        assert!(gate.is_on());
    }
}
