use super::*;
use crate::dhcp::message6::tests::{answer, asked};
use crate::worker::order::{Order, Taker, channel};
use std::sync::OnceLock;
use tokio::net::UdpSocket;

const HOST: Ipv6Addr = Ipv6Addr::LOCALHOST;
const GIVEN: Ipv6Addr = Ipv6Addr::new(0xfec1, 0, 0, 0, 0, 0, 4, 7);
const DNS: u16 = 23;
const RAPID: (u16, &[u8]) = (14, &[]);
/// T1, T2, preferred, valid.
const TIMES: [u32; 4] = [300, 480, 500, 600];

struct Stage {
    agent: mpsc::Sender<Ask<Ipv6Addr>>,
    taker: Taker,
    server: UdpSocket,
    drops: Arc<crate::dhcp::Drops>,
}

impl Stage {
    async fn new() -> Stage {
        let (orders, taker) = channel().unwrap();
        let server = UdpSocket::bind((HOST, 0)).await.unwrap();
        let port = server.local_addr().unwrap().port();
        let drops: Arc<crate::dhcp::Drops> = Arc::default();
        let outlet = Outlet { orders: Arc::new(OnceLock::from(orders)), drops: Arc::clone(&drops) };
        Stage { agent: start(outlet, Vec::new(), (0, port)), taker, server, drops }
    }

    fn want(&self, hint: Option<Ipv6Addr>) {
        let identity = Identity::parse("carol@lab.test").unwrap();
        let source = DhcpSource { server: Some(HOST), relay: HOST, prefix: 64, device: None };
        let want = Want { token: Token(7), realm: "r".into(), source, identity, hint };
        assert!(self.agent.try_send(Ask::Want(want)).is_ok());
    }

    fn held(&self, held: bool) {
        assert!(self.agent.try_send(Ask::Held("r".into(), GIVEN, held)).is_ok());
    }

    async fn heard(&self) -> (Vec<u8>, SocketAddr) {
        let mut octets = [0; 1500];
        let (len, from) = self.server.recv_from(&mut octets).await.unwrap();
        (octets[..len].to_vec(), from)
    }

    /// Says something of this type about the address, with these times, in answer to a message.
    async fn say(
        &self,
        to: &(Vec<u8>, SocketAddr),
        kind: u8,
        times: Option<[u32; 4]>,
        more: &[(u16, &[u8])],
    ) {
        let octets = answer(&to.0, kind, times.map(|times| (GIVEN, times)), more);
        self.server.send_to(&octets, to.1).await.unwrap();
    }

    async fn order(&self) -> Order {
        for _ in 0..2000 {
            if let Ok(order) = self.taker.from.try_recv() {
                return order;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("no answer");
    }

    /// The client has its address, by Rapid Commit.
    async fn leased(&self, times: [u32; 4]) {
        self.want(None);
        let solicit = self.heard().await;
        self.say(&solicit, kind::REPLY, Some(times), &[RAPID]).await;
        assert!(matches!(self.order().await, Order::Address { answer: Ok(_), .. }));
        self.held(true);
    }
}

fn kind_of(message: &(Vec<u8>, SocketAddr)) -> u8 {
    asked(&message.0).0
}

#[tokio::test]
async fn an_address_is_solicited_requested_and_released() {
    let stage = Stage::new().await;
    stage.want(Some(GIVEN));
    let solicit = stage.heard().await;
    assert_eq!(asked(&solicit.0), (kind::SOLICIT, None, Some(GIVEN)));
    // What is no answer to it: garbage, a Reply without Rapid Commit, an Advertise for somebody else.
    stage.server.send_to(&[13, 0, 1], solicit.1).await.unwrap();
    stage.say(&solicit, kind::REPLY, Some(TIMES), &[]).await;
    let mut other = answer(&solicit.0, kind::ADVERTISE, Some((GIVEN, TIMES)), &[]);
    other[20] ^= 1;
    stage.server.send_to(&other, solicit.1).await.unwrap();
    let dns: [u8; 16] = "fec1::53".parse::<Ipv6Addr>().unwrap().octets();
    stage.say(&solicit, kind::ADVERTISE, Some(TIMES), &[]).await;
    let request = stage.heard().await;
    assert_eq!(asked(&request.0), (kind::REQUEST, Some(b"server".to_vec()), Some(GIVEN)));
    stage.say(&request, kind::REPLY, Some(TIMES), &[(DNS, &dns), (24, b"\x03LAN\x07example\0")]).await;
    let Order::Address { token: Token(7), answer: Ok(lease) } = stage.order().await else { panic!() };
    assert_eq!(lease.address, IpAddr::V6(GIVEN));
    assert_eq!((lease.dns, lease.domains), (vec!["fec1::53".parse().unwrap()], vec!["lan.example".into()]));
    stage.held(true);
    stage.held(false);
    let release = stage.heard().await;
    assert_eq!(asked(&release.0), (kind::RELEASE, Some(b"server".to_vec()), Some(GIVEN)));
    let drops: Vec<u64> =
        stage.drops.0.iter().map(|count| count.load(std::sync::atomic::Ordering::Relaxed)).collect();
    assert_eq!(drops, [1, 0, 1, 1], "malformed, nobody asked, another's, out of turn");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_nobody_hears_is_said_four_times() {
    let stage = Stage::new().await;
    stage.leased(TIMES).await;
    stage.held(false);
    for _ in 0..RELEASES {
        assert_eq!(kind_of(&stage.heard().await), kind::RELEASE);
    }
    let more = tokio::time::timeout(Duration::from_secs(200), stage.heard()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn what_is_lost_is_said_again_under_the_same_transaction() {
    let stage = Stage::new().await;
    stage.want(None);
    let first = stage.heard().await;
    let second = stage.heard().await;
    assert_eq!((kind_of(&first), kind_of(&second)), (kind::SOLICIT, kind::SOLICIT));
    stage.say(&first, kind::REPLY, Some(TIMES), &[RAPID]).await;
    assert!(matches!(stage.order().await, Order::Address { answer: Ok(_), .. }));
}

#[tokio::test]
async fn refusals_are_told_in_the_servers_words() {
    let stage = Stage::new().await;
    stage.want(None);
    let solicit = stage.heard().await;
    stage.say(&solicit, kind::ADVERTISE, None, &[(13, b"\0\x02all \x1bgone")]).await;
    let Order::Address { answer: Err(why), .. } = stage.order().await else { panic!() };
    assert_eq!(why, "the DHCP server ::1 refuses: NoAddrsAvail, all \\u{1b}gone");
    stage.want(None);
    let solicit = stage.heard().await;
    stage.say(&solicit, kind::ADVERTISE, Some(TIMES), &[]).await;
    let request = stage.heard().await;
    stage.say(&request, kind::REPLY, None, &[(13, b"\0\x04")]).await;
    let Order::Address { answer: Err(why), .. } = stage.order().await else { panic!() };
    assert!(why.ends_with("refuses: NotOnLink"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_silent_is_waited_for_until_the_deadline() {
    let stage = Stage::new().await;
    let began = Instant::now();
    stage.want(None);
    let Order::Address { answer: Err(why), .. } = stage.order().await else { panic!() };
    assert!(why.contains("does not answer"), "{why}");
    assert!((DEADLINE..DEADLINE * 2).contains(&began.elapsed()), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_then_rebound_and_lost_at_its_end() {
    let stage = Stage::new().await;
    stage.leased(TIMES).await;
    let began = Instant::now();
    let renew = stage.heard().await;
    assert_eq!(asked(&renew.0), (kind::RENEW, Some(b"server".to_vec()), Some(GIVEN)));
    let after = began.elapsed().as_secs();
    assert!((295..=305).contains(&after), "T1: {after} s");
    stage.say(&renew, kind::REPLY, Some([100, 160, 180, 200]), &[]).await;
    // From now on the server is silent.
    let began = Instant::now();
    let mut kinds = Vec::new();
    let lost = loop {
        let heard = tokio::time::timeout(Duration::from_secs(1), stage.heard()).await;
        if let Ok(message) = heard {
            kinds.push((kind_of(&message), began.elapsed().as_secs()));
        }
        if let Ok(Order::AddressLost { realm, address }) = stage.taker.from.try_recv() {
            break (realm, address);
        }
        assert!(began.elapsed() < Duration::from_secs(400), "{kinds:?}");
    };
    assert_eq!(lost, ("r".to_owned(), IpAddr::V6(GIVEN)));
    assert!((198..=205).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    let first = |kind| kinds.iter().find(|(k, _)| *k == kind).unwrap().1;
    assert!((98..=104).contains(&first(kind::RENEW)), "{kinds:?}");
    assert!((158..=164).contains(&first(kind::REBIND)), "{kinds:?}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_has_forgotten_is_asked_anew_and_one_that_takes_back_ends_it() {
    let stage = Stage::new().await;
    stage.leased(TIMES).await;
    let renew = stage.heard().await;
    stage.say(&renew, kind::REPLY, None, &[(13, b"\0\x03")]).await;
    let request = stage.heard().await;
    assert_eq!(asked(&request.0), (kind::REQUEST, Some(b"server".to_vec()), Some(GIVEN)));
    stage.say(&request, kind::REPLY, Some(TIMES), &[]).await;
    let renew = stage.heard().await;
    assert_eq!(kind_of(&renew), kind::RENEW, "it holds on");
    stage.say(&renew, kind::REPLY, Some([300, 480, 0, 0]), &[]).await;
    assert!(matches!(stage.order().await, Order::AddressLost { address: IpAddr::V6(GIVEN), .. }));
}

#[tokio::test(start_paused = true)]
async fn an_address_that_nobody_claims_goes_back() {
    let stage = Stage::new().await;
    stage.want(None);
    let solicit = stage.heard().await;
    stage.say(&solicit, kind::REPLY, Some(TIMES), &[RAPID]).await;
    assert!(matches!(stage.order().await, Order::Address { answer: Ok(_), .. }));
    let release = stage.heard().await;
    assert_eq!(kind_of(&release), kind::RELEASE);
}

#[tokio::test]
async fn where_several_may_answer_the_most_preferred_is_taken_and_a_refusal_is_not_the_end() {
    let (heard, _hear) = mpsc::channel(1);
    let outlet = Outlet { orders: Arc::default(), drops: Arc::default() };
    let (talks, leases) = (HashMap::new(), HashMap::new());
    let mut agent = Agent { outlet, ears: Ears::new(Vec::new(), 0, heard), server_port: 0, talks, leases };
    let source = DhcpSource { server: None, relay: HOST, prefix: 64, device: Some("lo".into()) };
    let client = Client::new(&Identity::parse("carol@lab.test").unwrap());
    let phase = Phase::Solicit { hint: None, best: None, refusal: None };
    agent.talks.insert(7, Talk::new("r".into(), source, client, phase, Instant::now()));
    let mut advertise = |server: &[u8], preference: u8, code: u16| {
        let given = IaAddress { address: GIVEN, preferred: 500, valid: 600 };
        let mut ia = Ia { addresses: vec![given], ..Ia::default() };
        ia.status.code = code;
        let message = Incoming { server: server.to_vec(), preference, ia: Some(ia), ..Incoming::default() };
        let talk = agent.talks.remove(&7).expect("it waits for others");
        agent.advertised(7, talk, &message);
        match &agent.talks.get(&7).expect("it waits for others").phase {
            Phase::Solicit { best, refusal, .. } => {
                (best.as_ref().map(|best| best.server.clone()), refusal.is_some())
            }
            _ => panic!("another phase"),
        }
    };
    assert_eq!(advertise(b"none", 200, 2), (None, true));
    assert_eq!(advertise(b"one", 10, 0), (Some(b"one".to_vec()), true));
    assert_eq!(advertise(b"less", 5, 0), (Some(b"one".to_vec()), true));
    assert_eq!(advertise(b"more", 20, 0), (Some(b"more".to_vec()), true));
}

#[test]
fn a_client_is_the_same_to_servers_for_ever() {
    let client = Client::new(&Identity::parse("carol@lab.test").unwrap());
    let text: String = client.duid.iter().map(|octet| format!("{octet:02x}")).collect();
    assert_eq!(text, "0004a8ea1f04e3f68b1e94debe69ae58b82f");
    assert_eq!(client.name, b"carol@lab.test");
    assert!(client.link_local.is_unicast_link_local());
    let other = Client::new(&Identity::parse("dave@lab.test").unwrap());
    assert_ne!((other.duid, other.link_local), (client.duid, client.link_local));
}
