//! One connection: its greeting, and then its frames in both directions until it ends.

use std::ops::RangeInclusive;

use aws_lc_rs::rand;
use bytes::{Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_rustls::TlsStream;

use crate::error::Lost;
use crate::frame;
use crate::hello::{ACCEPTED, HELLO_BYTES, Hello, NONCE_BYTES, Proof, Refusal, Role};
use crate::links::{LinkEvent, Node, Options};
use crate::queue::{LinkSender, Queue};
use crate::table::Seat;
use crate::tls::Secret;

/// Frames are written together up to about this many bytes.
const BATCH_BYTES: usize = 64 * 1024;
/// Room for what one read brings.
const READ_BYTES: usize = 64 * 1024;
/// Buffers that a large frame has grown beyond this are not kept.
const KEPT_BYTES: usize = 4 * BATCH_BYTES;
/// A connection whose other end is silent is probed this often before it counts as broken.
const PROBES: u32 = 3;
const NO_NONCE: [u8; NONCE_BYTES] = [0; NONCE_BYTES];

/// A link that both sides have agreed on.
pub(crate) struct Greeted {
    pub(crate) seat: Seat,
    pub(crate) version: u16,
    pub(crate) stream: TlsStream<TcpStream>,
}

/// No delay for small writes, as each batch is one, and probes for an end that vanished.
pub(crate) fn prepare(socket: &TcpStream, options: &Options) -> Result<(), Lost> {
    socket.set_nodelay(true)?;
    let probes = TcpKeepalive::new()
        .with_time(options.keepalive)
        .with_interval(options.keepalive)
        .with_retries(PROBES);
    let reference = SockRef::from(socket);
    reference.set_tcp_keepalive(&probes)?;
    // Where data waits to be acknowledged there are no probes, and the system's own patience is a
    // quarter of an hour.
    Ok(reference.set_tcp_user_timeout(Some(options.idle))?)
}

/// Greets as who dialled `wanted` (0: whoever is there). `None`: a link with it came meanwhile.
pub(crate) async fn greet_dialled(
    node: &Node,
    socket: TcpStream,
    wanted: u64,
) -> Result<Option<Greeted>, Lost> {
    let Secret {
        mut stream,
        exporter,
    } = node.tls.connect(socket).await?;
    let Some(asked) = node.table.ask(wanted) else {
        return Ok(None);
    };
    let proof = |role, heard| Proof {
        key: &node.key,
        role,
        exporter: &exporter,
        heard,
    };
    let mine = hello(node, wanted, asked.sequence)?;
    stream
        .write_all(&mine.seal(proof(Role::Dialler, &NO_NONCE)))
        .await?;
    stream.flush().await?;
    let status = stream.read_u8().await?;
    match Refusal::of(status) {
        _ if status == ACCEPTED => {}
        Refusal::Version => {
            let theirs = versions_of(&mut stream).await;
            let ours = node.options.versions.clone();
            return Err(Lost::Versions { theirs, ours });
        }
        refusal => return Err(Lost::RefusedThere(refusal)),
    }
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes).await?;
    let theirs = Hello::open(&bytes, proof(Role::Acceptor, &mine.nonce)).map_err(Lost::Refused)?;
    let version = theirs
        .judge(node.options.me, wanted, &node.options.versions)
        .map_err(Lost::Refused)?;
    let seat = node
        .table
        .seat_dialled(asked, &theirs, queue(node))
        .map_err(Lost::Refused)?;
    Ok(Some(Greeted {
        seat,
        version,
        stream,
    }))
}

/// Greets as who was dialled: says nothing but a refusal to who has not the key.
pub(crate) async fn greet_accepted(node: &Node, socket: TcpStream) -> Result<Greeted, Lost> {
    let Secret {
        mut stream,
        exporter,
    } = node.tls.accept(socket).await?;
    let proof = |role, heard| Proof {
        key: &node.key,
        role,
        exporter: &exporter,
        heard,
    };
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes).await?;
    let opened = Hello::open(&bytes, proof(Role::Dialler, &NO_NONCE));
    let judged = opened.clone().and_then(|theirs| {
        let version = theirs.judge(node.options.me, 0, &node.options.versions)?;
        let seat = node.table.seat_accepted(&theirs, queue(node))?;
        Ok((theirs, version, seat))
    });
    let (theirs, version, seat) = match judged {
        Ok(judged) => judged,
        Err(refusal) => {
            stream.write_u8(refusal.code()).await?;
            let lost = match opened {
                Ok(theirs) if refusal == Refusal::Version => {
                    let ours = node.options.versions.clone();
                    stream.write_u16(*ours.start()).await?;
                    stream.write_u16(*ours.end()).await?;
                    let theirs = Some(theirs.oldest..=theirs.newest);
                    Lost::Versions { theirs, ours }
                }
                _ => Lost::Refused(refusal),
            };
            // Ends in order, so that the other side surely reads why.
            stream.shutdown().await?;
            return Err(lost);
        }
    };
    let mine = hello(node, theirs.node, seat.sequence)?;
    let sealed = mine.seal(proof(Role::Acceptor, &theirs.nonce));
    stream
        .write_all(&[&[ACCEPTED], &sealed[..]].concat())
        .await?;
    stream.flush().await?;
    Ok(Greeted {
        seat,
        version,
        stream,
    })
}

/// What follows a refusal for the versions' sake; like that, it proves nothing.
async fn versions_of(stream: &mut TlsStream<TcpStream>) -> Option<RangeInclusive<u16>> {
    let oldest = stream.read_u16().await.ok()?;
    Some(oldest..=stream.read_u16().await.ok()?)
}

fn hello(node: &Node, other: u64, sequence: u64) -> Result<Hello, Lost> {
    Ok(Hello {
        oldest: *node.options.versions.start(),
        newest: *node.options.versions.end(),
        node: node.options.me,
        other,
        incarnation: node.incarnation,
        sequence,
        nonce: random().ok_or(Lost::Randomness)?,
    })
}

/// Random bytes of the system.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the shell: the machines get the bytes"
)]
pub(crate) fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

fn queue(node: &Node) -> Queue {
    Queue::new(node.options.queue_bytes, node.options.frame_bytes)
}

/// Carries frames until the link ends; tells its beginning, its frames and its end.
pub(crate) async fn carry(greeted: Greeted, options: &Options, events: mpsc::Sender<LinkEvent>) {
    let Greeted {
        mut seat,
        version,
        stream,
    } = greeted;
    seat.replaced_told().await;
    let (node, link) = (seat.node, seat.link);
    if seat.queue.is_closed() {
        // Replaced before it began: nobody has heard of it.
        return;
    }
    let sender = LinkSender(seat.queue.clone());
    if events
        .send(LinkEvent::Up {
            node,
            link,
            version,
            sender,
        })
        .await
        .is_err()
    {
        return;
    }
    tracing::info!(node, link, version, "linked with a node");
    let (reader, writer) = split(stream);
    let tell = |frame| events.send(LinkEvent::Frame { node, link, frame });
    let lost = tokio::select! {
        // What was received before the end is still told.
        biased;
        lost = read(reader, options, tell) => lost,
        lost = write(writer, &seat.queue) => lost,
        reason = seat.queue.closed() => Lost::Closed(reason),
    };
    // Sending fails from here on, before the end is told.
    seat.queue.close("the connection has ended");
    tracing::info!(node, link, reason = %lost, "the link with a node has ended");
    // Without a receiver there is nobody to tell.
    let _ = events.send(LinkEvent::Down { node, link }).await;
}

pub(crate) async fn read<R, T, F>(mut reader: R, options: &Options, tell: T) -> Lost
where
    R: AsyncRead + Unpin,
    T: Fn(Bytes) -> F,
    F: Future<Output = Result<(), mpsc::error::SendError<LinkEvent>>>,
{
    let mut received = BytesMut::new();
    loop {
        received.reserve(READ_BYTES);
        // Only waiting for the other node counts, not waiting for whoever is told. What is there
        // already is read first, so a process that was suspended loses no link by that alone.
        match timeout(options.idle, reader.read_buf(&mut received)).await {
            Ok(Ok(0)) => return Lost::Ended,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return Lost::Silent(options.idle.as_millis()),
        }
        loop {
            match frame::cut(&mut received, options.frame_bytes) {
                Ok(Some(frame)) => {
                    if tell(frame).await.is_err() {
                        return Lost::Closed("nobody listens to links any more");
                    }
                }
                Ok(None) => break,
                Err(too_big) => return too_big.into(),
            }
        }
    }
}

async fn write<W: AsyncWrite + Unpin>(mut writer: W, queue: &Queue) -> Lost {
    let mut frames = Vec::new();
    let mut batch = BytesMut::new();
    loop {
        let taken = queue.take(BATCH_BYTES, &mut frames).await;
        for frame in frames.drain(..) {
            frame::put(&frame, &mut batch);
        }
        let written = async {
            writer.write_all(&batch).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            return error.into();
        }
        queue.written(taken);
        batch.clear();
        if batch.capacity() > KEPT_BYTES {
            batch = BytesMut::new();
        }
    }
}
