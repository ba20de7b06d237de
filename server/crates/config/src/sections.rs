//! The table of options: every section, option, type, default, range and its documentation.
//! docs/CONFIGURATION.md is generated from it.

mod archive;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

pub use archive::Archive;

use crate::network::Network;
use crate::option::section;
use crate::rules::{ACCOUNT, DIRECTORY, EMAIL, NODE, PREFIX, PUBLIC, REGION, SOCKET, URL};
use crate::value::{
    Backend, Challenge, Domain, LogFormat, LogLevel, Mechanism, NotEmpty, TlsVersion,
};

section! {
    /// The whole configuration of a server.
    Config requires [domains] {
        /// The domains that this server is; each has its own accounts. The first one names the
        /// tables unless `store.prefix` does.
        domains: Vec<Domain> = Vec::new(), NotEmpty;
        /// Where everything durable lives.
        store: Store = Store::initial();
        /// Where the server listens.
        listen: Listen = Listen::initial();
        /// Certificates.
        tls: Tls = Tls::initial();
        /// Certificates from an authority (ACME, RFC 8555).
        acme: Acme = Acme::initial();
        /// How users prove who they are.
        auth: Auth = Auth::initial();
        /// Accounts that users make themselves (XEP-0077).
        registration: Registration = Registration::initial();
        /// Every bound the server has.
        limits: Limits = Limits::initial();
        /// Acknowledgement and resumption (XEP-0198).
        stream_management: StreamManagement = StreamManagement::initial();
        /// Clients that nobody looks at (XEP-0352).
        client_state: ClientState = ClientState::initial();
        /// The message archive.
        archive: Archive = Archive::initial();
        /// How a node stops.
        drain: Drain = Drain::initial();
        /// This node among others.
        cluster: Cluster = Cluster::initial();
        /// How clients come to nodes that are new.
        rebalance: Rebalance = Rebalance::initial();
        /// What `cirrus-bootstrap watch` does on an instance; the server does not read it.
        watch: Watch = Watch::initial();
        /// Logging.
        log: Log = Log::initial();
        /// The process.
        process: Process = Process::initial();
    }
}

section! {
    /// Where everything durable lives.
    Store {
        /// `embedded`: a file store under `store.path`, for one node. `aws`: DynamoDB and S3.
        /// `memory`: nothing is kept.
        backend: Backend = Backend::Embedded;
        /// Folder of the embedded store; made if absent. Relative paths start at the server's
        /// working directory.
        path: PathBuf = "/var/lib/cirrus/store".into();
        /// First part of the names of tables and buckets; the first domain if absent.
        prefix: Option<String> = None, PREFIX;
        /// AWS region; that of the environment or the instance if absent.
        region: Option<String> = None, REGION;
        /// AWS account that owns the buckets, 12 digits in quotes. Part of the buckets' names, and
        /// sent as the expected owner with each call.
        account: Option<String> = None, ACCOUNT;
        /// URL of DynamoDB, instead of the region's own.
        dynamodb_endpoint: Option<String> = None, URL;
        /// URL of S3, instead of the region's own.
        s3_endpoint: Option<String> = None, URL;
        /// Milliseconds after which a store operation has failed, retries included.
        deadline_ms: u64 = 10_000, 100..=60_000;
        /// Milliseconds after which a request for a blob has failed, retries included.
        blob_deadline_ms: u64 = 30_000, 1_000..=300_000;
        /// Milliseconds after which an answer is late: while some are, less is asked at once.
        slow_ms: u64 = 500, 10..=60_000;
        /// How often a call is tried before it has failed.
        attempts: u32 = 5, 1..=20;
        /// Documents of at most this many bytes stand in their table item; larger ones are blobs.
        /// 0 puts every document in a blob.
        inline_below: usize = 8_192, 0..=262_144;
    }
}

section! {
    /// Where the server listens.
    Listen {
        /// Addresses for clients that start TLS inside the stream (STARTTLS, RFC 6120). `:5222` is
        /// every address of this machine.
        c2s: Vec<SocketAddr> = vec![everywhere(5222)];
        /// Addresses for clients that begin with TLS (XEP-0368).
        c2s_tls: Vec<SocketAddr> = vec![everywhere(5223)];
        /// Networks of balancers whose connections begin with a PROXY header, version 1 or 2, which
        /// says for whom they are; one without is closed. From everybody else such a header is
        /// refused. Health checks from there may have one.
        proxy_networks: Vec<Network> = Vec::new();
        /// Bytes of such a header.
        proxy_header_bytes: usize = 1_024, 232..=65_551;
        /// Seconds that such a header may take.
        proxy_header_seconds: u64 = 5, 1..=60;
        /// Address for other nodes, with the store that nodes share; others are called from it too.
        /// Not for the public.
        links: SocketAddr = everywhere(7250);
        /// Address for health checks and metrics. Not for the public.
        health: Option<SocketAddr> = Some(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9300));
        /// Address for an authority's questions (ACME HTTP-01); `[::]:80` if absent and
        /// `acme.challenge` is `http-01`.
        acme_http: Option<SocketAddr> = None;
        /// Path of the control socket, a unix socket. Who can open it administers the server.
        control: PathBuf = "/run/cirrus/control.sock".into(), SOCKET;
        /// Connections that the kernel holds until they are accepted.
        backlog: u32 = 1_024, 1..=65_535;
        /// Seconds of silence before the kernel probes a connection (TCP keep-alive).
        keepalive_seconds: u64 = 60, 5..=7_200;
    }
}

section! {
    /// Certificates.
    Tls {
        /// Certificates that were issued for the domains. They are read again when the files
        /// change.
        certificates: Vec<Certificate> = Vec::new();
        /// Folder for certificates that the server makes itself.
        folder: PathBuf = "/var/lib/cirrus/tls".into();
        /// Make a self-signed certificate for each domain without one. If false, such a domain is
        /// an error, unless an authority is asked for its certificate: until that is there, a
        /// self-signed one serves.
        self_signed: bool = true;
        /// Least version of TLS.
        min_version: TlsVersion = TlsVersion::V1_2;
        /// Let clients resume TLS sessions by ticket.
        tickets: bool = true;
        /// Seconds that a handshake may take.
        handshake_seconds: u64 = 10, 1..=120;
    }
}

section! {
    /// A certificate of one domain.
    Certificate requires [host, chain, key] {
        /// The domain it is for.
        host: Domain = Domain::unset();
        /// File with the certificate and its intermediates, PEM.
        chain: PathBuf = PathBuf::new();
        /// File with the private key, PEM.
        key: PathBuf = PathBuf::new();
    }
}

section! {
    /// Certificates from an authority (ACME, RFC 8555), for each domain without files of its own.
    Acme {
        /// Ask for them. That agrees to the authority's terms of service.
        enabled: bool = false;
        /// URL of the authority's directory.
        directory: String = "https://acme-v02.api.letsencrypt.org/directory".into(), DIRECTORY;
        /// File with the root certificate that the authority's own address is checked against,
        /// PEM; the system's roots if absent.
        roots: Option<PathBuf> = None;
        /// E-mail address that the authority may write to.
        contact: Option<String> = None, EMAIL;
        /// How the authority sees that a domain is ours. `http-01`: it asks port 80
        /// (`listen.acme_http`). `tls-alpn-01`: it asks port 443, which must lead to
        /// `listen.c2s_tls`. `dns-01`: it reads a record that the server puts into the domain's
        /// hosted zone in Route 53.
        challenge: Challenge = Challenge::Http01;
        /// Seconds that a record may take until all servers of the zone have it (`dns-01`).
        record_seconds: u64 = 120, 10..=600;
        /// Days before its end at which a certificate is renewed; at most a third of its life.
        renew_before_days: u64 = 30, 1..=365;
        /// Seconds after a failure before the next try; each further failure doubles it, up to
        /// half a day.
        retry_seconds: u64 = 300, 1..=43_200;
        /// Seconds between looks at the table for a certificate that another node got.
        poll_seconds: u64 = 60, 1..=3_600;
    }
}

section! {
    /// How users prove who they are.
    Auth {
        /// SASL mechanisms offered, strongest first.
        mechanisms: Vec<Mechanism> = vec![
            Mechanism::ScramSha256Plus,
            Mechanism::ScramSha256,
            Mechanism::ScramSha1Plus,
            Mechanism::ScramSha1,
        ], NotEmpty;
        /// Offer the login of one round trip (XEP-0388), with a resource (XEP-0386) or a
        /// resumption in it, beside that of RFC 6120.
        sasl2: bool = true;
        /// Give clients that ask for one a token, which logs them in faster than a password and can
        /// be taken from them (XEP-0484). Needs `sasl2`. A new password makes all tokens void.
        fast: bool = true;
        /// Days that a token can be used; clients that come get another one after half of that.
        fast_days: u64 = 30, 1..=365;
        /// Offer PLAIN too, over TLS only. The server then sees passwords.
        plain: bool = false;
        /// PBKDF2 iterations of new passwords (RFC 7677 asks for at least 4096).
        iterations: u32 = 10_000, 4_096..=1_000_000;
    }
}

section! {
    /// Accounts that users make themselves (XEP-0077).
    Registration {
        /// Allow it.
        enabled: bool = false;
        /// New accounts from one address in an hour.
        per_address_per_hour: u32 = 3, 1..=100_000;
        /// New accounts in an hour, from everywhere.
        per_hour: u32 = 100, 1..=1_000_000;
    }
}

section! {
    /// Every bound the server has.
    Limits {
        /// Bytes of a stanza. RFC 6120 13.12 asks for at least 10000.
        stanza_bytes: usize = 262_144, 10_000..=4_194_304;
        /// Bytes of a first-level element before authentication.
        unauthenticated_stanza_bytes: usize = 16_384, 10_000..=262_144;
        /// Bytes of a stream header.
        header_bytes: usize = 8_192, 1_024..=65_536;
        /// Depth of elements in a stanza.
        depth: usize = 64, 8..=512;
        /// Attributes of one element.
        attributes: usize = 64, 8..=1_024;
        /// Bytes of an element's or attribute's name.
        name_bytes: usize = 256, 64..=4_096;
        /// Seconds from a connection's first byte to its login.
        unauthenticated_seconds: u64 = 30, 5..=600;
        /// Connections that have not logged in.
        unauthenticated_total: usize = 4_096, 1..=1_000_000;
        /// Connections from one address (an IPv6 /64 is one address).
        connections_per_address: usize = 256, 1..=1_000_000;
        /// Connections in all.
        connections_total: usize = 100_000, 1..=10_000_000;
        /// Most connections accepted a second, so that many handshakes at once don't hold up those
        /// who are served already. When many come it begins with a fifth of that, and more are
        /// accepted as long as this node has the time for them and a quarter of its processors'
        /// time is left. The others wait in the system's queue (`listen.backlog`).
        accepts_per_second: u64 = 1_000, 1..=1_000_000;
        /// Connections accepted at once after a pause.
        accepts_burst: u64 = 32, 1..=1_000_000;
        /// Milliseconds that the turn of a connection may come late, on average, because this node
        /// has too much to do; where it comes later, fewer are accepted, down to a twentieth of
        /// `limits.accepts_per_second`.
        accepts_late_ms: u64 = 5, 1..=10_000;
        /// New sessions a second, in the long run. Sessions that are resumed count as none and
        /// never wait.
        logins_per_second: u64 = 500, 1..=1_000_000;
        /// New sessions at once after a pause.
        logins_burst: u64 = 1_000, 1..=1_000_000;
        /// Seconds that a new session may wait for its turn; past that the client is told with
        /// resource-constraint when to try again.
        login_wait_seconds: u64 = 10, 0..=60;
        /// Stanzas a second from one connection, in the long run. Past it, the connection is read
        /// more slowly; nothing is lost.
        stanzas_per_second: u32 = 200, 1..=1_000_000;
        /// Stanzas that one connection may send at once after a pause.
        stanzas_burst: u32 = 2_000, 1..=10_000_000;
        /// Bytes a second from one connection, in the long run.
        bytes_per_second: u64 = 262_144, 1_024..=1_073_741_824;
        /// Bytes that one connection may send at once after a pause.
        bytes_burst: u64 = 1_048_576, 10_000..=1_073_741_824;
        /// Failed logins on one connection before it is closed (RFC 6120 6.4.5).
        auth_attempts_per_connection: u32 = 3, 2..=10;
        /// Failed logins from one address in a minute.
        auth_failures_per_address_per_minute: u32 = 30, 1..=100_000;
        /// Failed logins with a password to one account in a minute. One address counts for a third
        /// at most, and addresses from which the account has logged in lately are not held up.
        auth_failures_per_account_per_minute: u32 = 30, 1..=100_000;
        /// Password derivations at work at the same time.
        derivations_running: usize = 2, 1..=64;
        /// Clients of one account that have a token; the one whose token ends first loses it.
        tokens_per_user: usize = 32, 1..=1_000;
        /// Password derivations that wait; more are refused with temporary-auth-failure.
        derivations_waiting: usize = 64, 1..=10_000;
        /// Resources of one user at the same time.
        resources_per_user: usize = 16, 1..=1_024;
        /// Contacts in one roster.
        roster_items: usize = 5_000, 1..=100_000;
        /// Bytes of the addresses, names and groups in one roster: what its client gets at once.
        /// That is enough for some 6,000 contacts, and half of `stream_management.unacked_bytes`.
        roster_bytes: usize = 1_048_576, 65_536..=16_777_216;
        /// Groups of one contact.
        roster_groups: usize = 32, 1..=1_024;
        /// Subscription requests that wait for one user's answer.
        pending_subscriptions: usize = 500, 1..=100_000;
        /// Bytes of a presence stanza: each contact gets it, and at login that of each contact.
        presence_bytes: usize = 8_192, 1_024..=262_144;
        /// Addresses that one session sent directed presence to.
        directed_presence: usize = 256, 1..=100_000;
        /// Messages kept for one user who is away. Past it, the sender gets an error.
        offline_messages: usize = 10_000, 0..=1_000_000;
        /// Stanzas that wait to be written to one connection.
        write_queue_stanzas: usize = 16_384, 16..=1_000_000;
        /// Bytes that wait to be written to one connection. All that a session has left
        /// unacknowledged is sent at once when it is resumed, so this should be more than
        /// `stream_management.unacked_bytes`.
        write_queue_bytes: usize = 4_194_304, 65_536..=1_073_741_824;
        /// Stanzas of one connection that are not handled yet; then it is not read further.
        max_unhandled: usize = 256, 32..=65_536;
        /// Entities (users) kept in memory after their last use. In a cluster each of the 4,096
        /// slots keeps eight times its share of them, 256 at least.
        entities_cached: usize = 50_000, 16..=10_000_000;
        /// Seconds after which an unused entity leaves the memory.
        entity_idle_seconds: u64 = 600, 1..=86_400;
        /// Reads of the store in flight, beside `store_calls`: most load a user who was not in
        /// memory. More wait, and hold up nobody who is served already.
        activations_running: usize = 64, 1..=10_000;
        /// Reads that wait for their turn; who asks for one more is refused with
        /// resource-constraint.
        activations_waiting: usize = 10_000, 1..=1_000_000;
        /// Events that wait for the home of entities.
        home_inbox: usize = 4_096, 64..=1_000_000;
        /// Events that wait for one entity.
        entity_inbox: usize = 1_024, 16..=1_000_000;
        /// Writes to the store in flight.
        store_calls: usize = 256, 1..=100_000;
        /// Calls to DynamoDB that wait because that many calls are under way, or fewer while it
        /// answers late; more are refused as if it were throttled.
        store_calls_waiting: usize = 20_000, 1..=1_000_000;
        /// Requests for blobs in flight; more wait and hold up nothing else.
        blob_calls: usize = 64, 1..=10_000;
        /// Connections to the control socket.
        control_connections: usize = 16, 1..=1_024;
        /// Connections to the address for health checks and metrics.
        health_connections: usize = 64, 1..=1_024;
        /// Bytes of one request on the control socket.
        control_request_bytes: usize = 65_536, 1_024..=1_048_576;
    }
}

section! {
    /// Acknowledgement and resumption (XEP-0198).
    StreamManagement {
        /// Seconds that a session waits for its client to come back.
        resume_seconds: u64 = 300, 0..=600;
        /// Bytes of stanzas that one client has not acknowledged: a long roster, or the presence of
        /// a thousand contacts, has to fit. Past it, the session ends. It is never less than four
        /// times `limits.stanza_bytes`.
        unacked_bytes: usize = 2_097_152, 16_384..=16_777_216;
        /// Milliseconds within which acknowledgements are joined into one.
        ack_delay_ms: u64 = 100, 0..=1_000;
        /// Seconds of silence, when an answer to a request for acknowledgement is due, after which
        /// a connection is dead.
        ack_timeout_seconds: u64 = 60, 5..=600;
    }
}

section! {
    /// Clients that nobody looks at (XEP-0352): presence and chat states wait until somebody does,
    /// or until something more important comes.
    ClientState {
        /// Let clients say whether somebody looks at them.
        enabled: bool = true;
        /// Stanzas held for one client; past it, all of them are sent.
        held_stanzas: usize = 256, 1..=65_536;
        /// Bytes of stanzas held for one client; past it, all of them are sent.
        held_bytes: usize = 65_536, 1_024..=16_777_216;
    }
}

section! {
    /// How a node stops.
    Drain {
        /// Seconds for which a stopping node, when its slots have gone and health fails, still
        /// takes clients before its own have to go: until a balancer has noticed. At most half of
        /// the deadline; 0 where no balancer stands in front.
        settle_seconds: u64 = 0, 0..=3_600;
        /// Seconds after which a stopping node exits, whatever is left.
        deadline_seconds: u64 = 60, 1..=7_200;
        /// Connections closed a second; more where half of the deadline would not do for all.
        closes_per_second: u32 = 200, 1..=1_000_000;
    }
}

section! {
    /// This node among others.
    Cluster {
        /// Name of this node; the instance id on EC2, the host name elsewhere.
        node: Option<String> = None, NODE;
        /// Address that other nodes reach this one at; the private address on EC2.
        address: Option<String> = None;
        /// Name or address at which clients reach this node itself, where no balancer stands in
        /// front: they are told where to resume their sessions (XEP-0198), and where to go when
        /// this node stops or has too many (see-other-host). `auto`: that of the instance, which
        /// `cirrus-bootstrap` finds out. Clients are told nothing if absent.
        public_address: Option<String> = None, PUBLIC;
        /// Availability zone of this node.
        zone: Option<String> = None;
        /// Milliseconds without a renewal after which a node may be removed.
        lease_ms: u64 = 3_000, 500..=60_000;
        /// Milliseconds between renewals; at most half of the lease.
        renew_ms: u64 = 1_000, 100..=30_000;
        /// Milliseconds of silence after which other nodes may agree that a node is gone; at most
        /// the lease. A link that is silent three times as long, and five seconds at least, is made
        /// anew.
        silence_ms: u64 = 1_000, 100..=60_000;
        /// Milliseconds without other nodes and without the store after which a node of several
        /// stops.
        cut_off_ms: u64 = 5_000, 500..=600_000;
        /// Write the older of the two formats that this version understands, as if it were the one
        /// before. While nodes do so the whole cluster keeps to it, and the version before can be
        /// brought back. A cluster does not go back: set it before the update, and take it out when
        /// the new version stays.
        hold_format: bool = false;
        /// Bytes that wait to be sent to one node; past them the link is broken and made anew.
        link_queue_bytes: usize = 268_435_456, 134_217_728..=4_294_967_295;
        /// States of slots under way to one node at once, when nodes come and go.
        states_under_way: usize = 64, 1..=4_096;
        /// Messages kept for a slot while it is taken over, messages of one slot that other slots
        /// have not taken, and messages of one connection that its slot has not taken. A slot that
        /// has so many takes no more of its connections; a connection that has so many is closed.
        slot_queue: usize = 4_096, 16..=1_000_000;
    }
}

section! {
    /// How clients come to nodes that are new: a node that has clearly more than its share breaks
    /// the connections of some whose sessions can be resumed, and the balancer sends them
    /// elsewhere.
    Rebalance {
        /// Do so.
        enabled: bool = true;
        /// Percent above its share from which on a node has too many; it goes down to its share
        /// then.
        percent: u64 = 20, 5..=1_000;
        /// Clients above its share that a node keeps in any case.
        at_least: u64 = 10, 1..=1_000_000;
        /// Clients moved a second.
        per_second: u64 = 200, 1..=1_000_000;
        /// Seconds without a change of the cluster before clients are moved, and between two
        /// rounds. A round that has not helped doubles it, up to an hour, until nodes come or go.
        settle_seconds: u64 = 10, 1..=3_600;
    }
}

section! {
    /// What `cirrus-bootstrap watch` does on an instance; the server does not read it.
    Watch {
        /// Seconds between two looks at the instance metadata.
        poll_seconds: u64 = 5, 1..=60;
        /// Most seconds between two attempts at what fails: the metadata, and calls of AWS. The
        /// first pause is a second, and each is twice the last one.
        backoff_seconds: u64 = 30, 1..=600;
        /// Seconds for which the metadata is waited for at the start: for about as long as the boot
        /// tries.
        start_seconds: u64 = 1_800, 1..=3_600;
        /// Seconds without a server after which it has ended; one that is started anew takes
        /// less.
        gone_seconds: u64 = 10, 1..=300;
        /// Seconds for which the end of a terminate hook's wait is tried. While the group waits for
        /// its balancer instead, they do not count.
        hook_seconds: u64 = 120, 1..=3_600;
        /// Seconds of a spot notice that are kept for what comes after the drain.
        spot_reserve_seconds: u64 = 20, 0..=110;
        /// Whether a recommendation to rebalance begins a drain. Without that it is only told.
        rebalance: bool = false;
        /// Seconds between two reports of sessions to CloudWatch; 0 for none.
        metrics_seconds: u64 = 60, 0..=3_600;
    }
}

section! {
    /// Logging.
    Log {
        /// How lines look; `auto` is text on a terminal and JSON otherwise.
        format: LogFormat = LogFormat::Auto;
        /// Least severity.
        level: LogLevel = LogLevel::Info;
    }
}

section! {
    /// The process.
    Process {
        /// Worker threads; 0 is one for each processor.
        threads: usize = 0, 0..=1_024;
    }
}

fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), port)
}

/// Stands for the address that bootstrap finds out.
const AUTO: &str = "auto";

impl Cluster {
    /// Where clients reach this node itself, if they are to know and it is known.
    pub fn public_host(&self) -> Option<&str> {
        self.public_address.as_deref().filter(|it| *it != AUTO)
    }

    /// Whether `cirrus-bootstrap` is to find out where clients reach this node.
    pub fn seeks_public_host(&self) -> bool {
        self.public_address.as_deref() == Some(AUTO)
    }
}
