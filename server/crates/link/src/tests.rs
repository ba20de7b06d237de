//! Links over loopback sockets.

use std::time::Duration;

use aws_lc_rs::hmac;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use crate::hello::{
    ACCEPTED, EXPORTER_BYTES, HELLO_BYTES, Hello, NONCE_BYTES, Proof, Refusal, Role,
};
use crate::tls::{LinkTls, Secret};
use crate::{LinkEvent, LinkSender, Links, NotTaken, Options, Peer, link};

const KEY: [u8; 32] = [7; 32];
/// Only a test that fails waits so long.
const HANG: Duration = Duration::from_secs(60);

fn options(me: u64) -> Options {
    Options {
        me,
        key: KEY,
        versions: 1..=2,
        from: None,
        queue_bytes: 256 * 1024,
        frame_bytes: 64 * 1024,
        greetings: 4,
        connect: HANG,
        handshake: HANG,
        retry: Duration::from_millis(5),
        retry_max: Duration::from_millis(20),
        keepalive: HANG,
        idle: HANG,
    }
}

struct TestNode {
    me: u64,
    address: String,
    links: Links,
    events: mpsc::Receiver<LinkEvent>,
}

impl TestNode {
    async fn start(options: Options) -> TestNode {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        TestNode::start_at(listener, options)
    }

    fn start_at(listener: TcpListener, options: Options) -> TestNode {
        let (events, received) = mpsc::channel(16);
        let me = options.me;
        let address = listener.local_addr().unwrap().to_string();
        let links = Links::start(options, listener, events).unwrap();
        TestNode {
            me,
            address,
            links,
            events: received,
        }
    }

    fn dials(&self, other: &TestNode) {
        self.links.keep(vec![peer(other.me, &other.address)]);
    }

    async fn event(&mut self) -> LinkEvent {
        in_time(self.events.recv()).await.unwrap()
    }

    async fn up(&mut self) -> (u64, u64, LinkSender) {
        match self.event().await {
            LinkEvent::Up {
                node,
                link,
                sender,
                version: 2,
            } => (node, link, sender),
            other => panic!("{other:?} is no link in the newest version"),
        }
    }

    async fn frame(&mut self) -> Bytes {
        match self.event().await {
            LinkEvent::Frame { frame, .. } => frame,
            other => panic!("{other:?} is no frame"),
        }
    }

    async fn down(&mut self) -> u64 {
        match self.event().await {
            LinkEvent::Down { link, .. } => link,
            other => panic!("{other:?} is no end"),
        }
    }
}

fn peer(node: u64, address: &str) -> Peer {
    Peer {
        node,
        address: address.to_owned(),
        dial: true,
    }
}

async fn in_time<F: Future>(future: F) -> F::Output {
    timeout(HANG, future).await.expect("nothing happened")
}

/// One end of a connection, played by a test that has the cluster key.
struct Played {
    secret: Secret,
    me: u64,
    incarnation: u64,
}

impl Played {
    async fn dial(address: &str, me: u64) -> Played {
        let socket = TcpStream::connect(address).await.unwrap();
        let secret = LinkTls::build().unwrap().connect(socket).await.unwrap();
        Played {
            secret,
            me,
            incarnation: 1,
        }
    }

    async fn accept(listener: &TcpListener, me: u64) -> Played {
        let (socket, _) = in_time(listener.accept()).await.unwrap();
        let secret = LinkTls::build().unwrap().accept(socket).await.unwrap();
        Played {
            secret,
            me,
            incarnation: 1,
        }
    }

    fn hello(&self, other: u64, sequence: u64, role: Role, heard: [u8; NONCE_BYTES]) -> Vec<u8> {
        let hello = Hello {
            oldest: 1,
            newest: 2,
            node: self.me,
            other,
            incarnation: self.incarnation,
            sequence,
            nonce: [3; NONCE_BYTES],
        };
        let key = hmac::Key::new(hmac::HMAC_SHA256, &KEY);
        let exporter: &[u8; EXPORTER_BYTES] = &self.secret.exporter;
        hello
            .seal(Proof {
                key: &key,
                role,
                exporter,
                heard: &heard,
            })
            .to_vec()
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.secret.stream.write_all(bytes).await.unwrap();
        self.secret.stream.flush().await.unwrap();
    }

    async fn status(&mut self) -> u8 {
        in_time(self.secret.stream.read_u8()).await.unwrap()
    }

    /// The other's hello, unopened but for its nonce.
    async fn heard(&mut self) -> [u8; NONCE_BYTES] {
        let mut bytes = [0; HELLO_BYTES];
        in_time(self.secret.stream.read_exact(&mut bytes))
            .await
            .unwrap();
        bytes[44..44 + NONCE_BYTES].try_into().unwrap()
    }

    async fn answer(&mut self, other: u64, sequence: u64, heard: [u8; NONCE_BYTES]) {
        let hello = self.hello(other, sequence, Role::Acceptor, heard);
        self.say(&[&[ACCEPTED], &hello[..]].concat()).await;
    }

    async fn ended(&mut self) {
        let mut rest = Vec::new();
        // A reset is an end as good as an orderly one.
        let _ = in_time(self.secret.stream.read_to_end(&mut rest)).await;
        assert_eq!(rest, [0_u8; 0]);
    }
}

#[tokio::test]
async fn two_nodes_link_and_frames_arrive_in_order() {
    let mut one = TestNode::start(options(1)).await;
    let mut two = TestNode::start(options(2)).await;
    one.dials(&two);
    let (node, _, to_two) = one.up().await;
    assert_eq!(node, 2);
    let (node, _, to_one) = two.up().await;
    assert_eq!(node, 1);
    to_two.send(&b""[..]).unwrap();
    for number in 0..200_u32 {
        to_two.send(number.to_be_bytes().to_vec()).unwrap();
    }
    let large = vec![9; 64 * 1024];
    to_two.send(large.clone()).unwrap();
    for number in 0..200_u32 {
        assert_eq!(two.frame().await, &number.to_be_bytes()[..]);
    }
    assert_eq!(two.frame().await, large);
    to_one.send(&b"back"[..]).unwrap();
    assert_eq!(one.frame().await, &b"back"[..]);
}

#[tokio::test]
async fn a_node_of_unknown_number_is_found_by_its_address() {
    let mut one = TestNode::start(options(1)).await;
    let two = TestNode::start(options(2)).await;
    one.links.keep(vec![peer(0, &two.address)]);
    assert_eq!(one.up().await.0, 2);
}

#[tokio::test]
async fn a_node_with_another_key_is_refused_and_others_are_not() {
    let mut one = TestNode::start(options(1)).await;
    let stranger = TestNode::start(Options {
        key: [8; 32],
        ..options(2)
    })
    .await;
    let mut third = TestNode::start(options(3)).await;
    stranger.dials(&one);
    let mut played = Played::dial(&stranger.address, 1).await;
    let hello = played.hello(2, 1, Role::Dialler, [0; NONCE_BYTES]);
    played.say(&hello).await;
    assert_eq!(played.status().await, Refusal::Key.code());
    played.ended().await;
    third.dials(&one);
    assert_eq!(third.up().await.0, 1);
    assert_eq!(one.up().await.0, 3, "the stranger was never linked");
}

#[tokio::test]
async fn who_answers_without_the_key_is_no_link() {
    let mut one = TestNode::start(options(1)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    one.links.keep(vec![peer(2, &address)]);
    let mut played = Played::accept(&listener, 2).await;
    let mut heard = played.heard().await;
    heard[0] ^= 1;
    played.answer(1, 1, heard).await;
    played.ended().await;
    let mut again = Played::accept(&listener, 2).await;
    let heard = again.heard().await;
    again.answer(1, 2, heard).await;
    assert_eq!(one.up().await.1, 1, "it is the first link");
}

#[tokio::test]
async fn a_recorded_hello_is_refused() {
    let mut one = TestNode::start(options(1)).await;
    let mut first = Played::dial(&one.address, 2).await;
    let recorded = first.hello(1, 1, Role::Dialler, [0; NONCE_BYTES]);
    first.say(&recorded).await;
    assert_eq!(first.status().await, ACCEPTED);
    one.up().await;
    let mut second = Played::dial(&one.address, 2).await;
    second.say(&recorded).await;
    assert_eq!(second.status().await, Refusal::Key.code());
    second.ended().await;
}

#[tokio::test]
async fn a_hello_of_a_foreign_version_or_for_another_node_is_refused() {
    let mut one = TestNode::start(options(1)).await;
    let old = TestNode::start(Options {
        versions: 3..=4,
        ..options(2)
    })
    .await;
    let mut played = Played::dial(&old.address, 1).await;
    let hello = played.hello(2, 1, Role::Dialler, [0; NONCE_BYTES]);
    played.say(&hello).await;
    assert_eq!(played.status().await, Refusal::Version.code());
    let told = [
        played.status().await,
        played.status().await,
        played.status().await,
    ];
    assert_eq!(
        (told, played.status().await),
        ([0, 3, 0], 4),
        "what it understands"
    );
    let mut played = Played::dial(&one.address, 2).await;
    let hello = played.hello(5, 1, Role::Dialler, [0; NONCE_BYTES]);
    played.say(&hello).await;
    assert_eq!(played.status().await, Refusal::OtherNode.code());
    assert!(one.events.try_recv().is_err());
}

#[tokio::test]
async fn a_full_queue_breaks_the_link() {
    let mut one = TestNode::start(options(1)).await;
    let mut two = TestNode::start(options(2)).await;
    one.dials(&two);
    let (_, link, sender) = one.up().await;
    let (_, there, _) = two.up().await;
    // The writer has no turn between these.
    let frame = Bytes::from(vec![0; 64 * 1024 - 4]);
    for _ in 0..4 {
        sender.send(frame.clone()).unwrap();
    }
    assert!(sender.send(frame).is_err());
    assert!(sender.send(&b"small"[..]).is_err());
    assert_eq!(one.down().await, link);
    while let LinkEvent::Frame { .. } = two.event().await {}
    assert_ne!(two.up().await.1, there, "it is dialled again");
    assert_ne!(one.up().await.1, link);
}

#[tokio::test]
async fn a_frame_to_send_over_the_limit_is_refused_and_the_link_stays() {
    let mut one = TestNode::start(options(1)).await;
    let mut two = TestNode::start(options(2)).await;
    one.dials(&two);
    let (_, _, sender) = one.up().await;
    two.up().await;
    sender.send(&b"before"[..]).unwrap();
    let most = 64 * 1024;
    let bytes = most + 1;
    let refused = sender.send(vec![0; bytes]);
    assert_eq!(refused, Err(NotTaken::TooBig { bytes, most }));
    sender.send(&b"after"[..]).unwrap();
    assert_eq!(two.frame().await, &b"before"[..]);
    assert_eq!(two.frame().await, &b"after"[..]);
}

#[tokio::test]
async fn a_frame_that_comes_over_the_limit_ends_the_link() {
    let mut one = TestNode::start(options(1)).await;
    let mut played = Played::dial(&one.address, 2).await;
    let hello = played.hello(1, 1, Role::Dialler, [0; NONCE_BYTES]);
    played.say(&hello).await;
    assert_eq!(played.status().await, ACCEPTED);
    played.heard().await;
    let (_, link, _) = one.up().await;
    played
        .say(&[0, 0, 0, 0, 0, 0, 0, 2, b'o', b'k', 0, 1, 0, 1])
        .await;
    assert_eq!(one.frame().await, &b"ok"[..]);
    assert_eq!(one.down().await, link);
    played.ended().await;
}

#[tokio::test]
async fn a_killed_node_is_down_and_dialled_again_when_it_is_back() {
    let mut one = TestNode::start(options(1)).await;
    let two = TestNode::start(options(2)).await;
    one.dials(&two);
    let (_, link, sender) = one.up().await;
    let address = two.address.clone();
    drop(two);
    assert_eq!(one.down().await, link);
    assert!(sender.send(&b"late"[..]).is_err());
    // The address is free as soon as the ended listener's task has gone.
    let listener = in_time(async {
        loop {
            match TcpListener::bind(&address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    });
    let mut two = TestNode::start_at(listener.await, options(2));
    let (_, again, sender) = one.up().await;
    assert_ne!(again, link);
    two.up().await;
    sender.send(&b"again"[..]).unwrap();
    assert_eq!(two.frame().await, &b"again"[..]);
}

#[tokio::test]
async fn a_link_is_closed_when_its_node_is_no_longer_named_but_not_one_that_others_opened() {
    let mut one = TestNode::start(options(1)).await;
    let mut two = TestNode::start(options(2)).await;
    let mut three = TestNode::start(options(3)).await;
    one.dials(&two);
    let (_, link, _) = one.up().await;
    two.up().await;
    three.dials(&one);
    let (_, _, from_three) = one.up().await;
    three.up().await;
    one.links.keep(Vec::new());
    assert_eq!(one.down().await, link);
    two.down().await;
    from_three.send(&b"still"[..]).unwrap();
    assert_eq!(three.frame().await, &b"still"[..]);
}

#[tokio::test]
async fn a_newer_link_replaces_the_older_which_ends_first() {
    let mut one = TestNode::start(options(9)).await;
    let mut links = Vec::new();
    for sequence in 1..=3 {
        let mut played = Played::dial(&one.address, 2).await;
        let hello = played.hello(9, sequence, Role::Dialler, [0; NONCE_BYTES]);
        played.say(&hello).await;
        assert_eq!(played.status().await, ACCEPTED);
        if let Some((link, _)) = links.last() {
            assert_eq!(one.down().await, *link);
        }
        let (_, link, _) = one.up().await;
        links.push((link, played));
    }
}

#[tokio::test]
async fn the_higher_of_two_that_dial_each_other_keeps_its_own() {
    let mut nine = TestNode::start(options(9)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    nine.links
        .keep(vec![peer(2, &listener.local_addr().unwrap().to_string())]);
    let mut theirs = Played::accept(&listener, 2).await;
    let heard = theirs.heard().await;
    let mut crossing = Played::dial(&nine.address, 2).await;
    let hello = crossing.hello(9, 1, Role::Dialler, [0; NONCE_BYTES]);
    crossing.say(&hello).await;
    assert_eq!(crossing.status().await, Refusal::Crossed.code());
    theirs.answer(9, 2, heard).await;
    nine.up().await;
}

#[tokio::test]
async fn the_lower_of_two_that_dial_each_other_takes_the_others() {
    let mut one = TestNode::start(options(1)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    one.links
        .keep(vec![peer(2, &listener.local_addr().unwrap().to_string())]);
    let mut lower = Played::accept(&listener, 2).await;
    let heard = lower.heard().await;
    let mut crossing = Played::dial(&one.address, 2).await;
    let hello = crossing.hello(1, 1, Role::Dialler, [0; NONCE_BYTES]);
    crossing.say(&hello).await;
    assert_eq!(crossing.status().await, ACCEPTED);
    crossing.heard().await;
    let (_, _, sender) = one.up().await;
    lower.answer(1, 2, heard).await;
    lower.ended().await;
    sender.send(&b"kept"[..]).unwrap();
    let mut bytes = [0; 8];
    in_time(crossing.secret.stream.read_exact(&mut bytes))
        .await
        .unwrap();
    assert_eq!(&bytes[4..], b"kept");
}

#[tokio::test]
async fn nodes_that_dial_each_other_settle_on_one_link() {
    for _ in 0..10 {
        let mut one = TestNode::start(options(1)).await;
        let mut two = TestNode::start(options(2)).await;
        one.dials(&two);
        two.dials(&one);
        let (mut here, mut there) = (Side::default(), Side::default());
        while !(here.heard && there.heard) {
            tokio::select! {
                event = one.event() => here.take(event),
                event = two.event() => there.take(event),
            }
        }
        let current = |side: &Side| side.sender.clone().unwrap();
        current(&here).send(&b"last"[..]).unwrap();
        current(&there).send(&b"last"[..]).unwrap();
        assert_eq!(one.frame().await, &b"last"[..]);
        assert_eq!(two.frame().await, &b"last"[..]);
    }
}

/// What a node knows of its link: it greets over each new one.
#[derive(Default)]
struct Side {
    sender: Option<LinkSender>,
    heard: bool,
}

impl Side {
    fn take(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Up { sender, .. } => {
                assert!(self.sender.is_none(), "two links with one node");
                // A link that has ended already tells so itself.
                let _ = sender.send(&b"greeting"[..]);
                *self = Side {
                    sender: Some(sender),
                    heard: false,
                };
            }
            LinkEvent::Frame { .. } => self.heard = true,
            LinkEvent::Down { .. } => *self = Side::default(),
        }
    }
}

#[tokio::test]
async fn who_says_nothing_is_closed_and_holds_up_nobody() {
    let patience = Duration::from_millis(200);
    let mut one = TestNode::start(Options {
        greetings: 1,
        handshake: patience,
        ..options(1)
    })
    .await;
    let mut silent = TcpStream::connect(&one.address).await.unwrap();
    let tls = LinkTls::build().unwrap();
    let mut played = loop {
        // A busy machine may need more than one try within that patience.
        let socket = TcpStream::connect(&one.address).await.unwrap();
        let Ok(secret) = tls.connect(socket).await else {
            continue;
        };
        let mut played = Played {
            secret,
            me: 2,
            incarnation: 1,
        };
        let hello = played.hello(1, 1, Role::Dialler, [0; NONCE_BYTES]);
        if played.secret.stream.write_all(&hello).await.is_ok()
            && let Ok(ACCEPTED) = played.secret.stream.read_u8().await
        {
            break played;
        }
    };
    assert_eq!(in_time(silent.read(&mut [0; 1])).await.unwrap(), 0);
    played.heard().await;
    assert_eq!(one.up().await.0, 2);
}

/// A way to a node that can swallow what is said on it, in both directions and without an end.
struct Relay {
    address: String,
    swallows: watch::Sender<bool>,
}

impl Relay {
    async fn to(behind: &str) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (swallows, swallowed) = watch::channel(false);
        let behind = behind.to_owned();
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let Ok(onward) = TcpStream::connect(&behind).await else {
                    continue;
                };
                let (from_here, to_here) = socket.into_split();
                let (from_there, to_there) = onward.into_split();
                tokio::spawn(swallow(from_here, to_there, swallowed.clone()));
                tokio::spawn(swallow(from_there, to_here, swallowed.clone()));
            }
        });
        Relay { address, swallows }
    }
}

/// What was swallowed is gone: the connection stays dumb, as one whose state a machine in between
/// has lost.
async fn swallow(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut swallows: watch::Receiver<bool>,
) {
    let mut dumb = *swallows.borrow_and_update();
    let mut bytes = vec![0; 16_384];
    loop {
        tokio::select! {
            biased;
            changed = swallows.changed(), if !dumb => dumb = changed.is_ok(),
            read = from.read(&mut bytes) => match read {
                _ if dumb => std::future::pending().await,
                Ok(length @ 1..) => drop(to.write_all(&bytes[..length]).await),
                _ => return,
            },
        }
    }
}

#[tokio::test]
async fn a_link_on_which_nothing_comes_any_more_is_made_anew() {
    let patience = Duration::from_secs(1);
    let silent = |me| Options {
        idle: patience,
        handshake: patience,
        ..options(me)
    };
    let mut one = TestNode::start(silent(1)).await;
    let mut two = TestNode::start(silent(2)).await;
    let relay = Relay::to(&two.address).await;
    one.links.keep(vec![peer(2, &relay.address)]);
    let (_, link, to_two) = one.up().await;
    let (_, there, _) = two.up().await;
    to_two.send(&b"heard"[..]).unwrap();
    assert_eq!(two.frame().await, &b"heard"[..]);
    relay.swallows.send(true).unwrap();
    to_two.send(&b"lost"[..]).unwrap();
    assert_eq!(one.down().await, link);
    assert_eq!(two.down().await, there);
    relay.swallows.send(false).unwrap();
    assert_ne!(one.up().await.1, link);
    assert_ne!(two.up().await.1, there);
}

#[tokio::test(start_paused = true)]
async fn only_silence_of_the_other_node_breaks_a_link() {
    let patient = Options {
        idle: Duration::from_secs(5),
        ..options(1)
    };
    let (here, mut there) = tokio::io::duplex(1_024);
    let (heard, mut told) = mpsc::channel(1);
    let reading = tokio::spawn(async move {
        let tell = |frame| {
            let heard = heard.clone();
            async move {
                let told = LinkEvent::Frame {
                    node: 2,
                    link: 1,
                    frame,
                };
                heard.send(told).await
            }
        };
        link::read(here, &patient, tell).await.to_string()
    });
    // A frame that comes slowly is no silence, and beats, which are frames, are none.
    for byte in [0, 0, 0, 2, b'o', b'k', 0, 0, 0, 1, b'x'] {
        sleep(Duration::from_secs(4)).await;
        there.write_all(&[byte]).await.unwrap();
    }
    // Who is told is slow, which is not the other node's fault.
    there.write_all(&[0, 0, 0, 1, b'y']).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    there.write_all(&[0, 0, 0, 1, b'z']).await.unwrap();
    for _ in 0..4 {
        told.recv().await.unwrap();
    }
    assert!(!reading.is_finished());
    let why = timeout(Duration::from_secs(6), reading).await;
    let why = why.expect("silence").unwrap();
    assert_eq!(why, "nothing came from the other node for 5000 ms");
}
