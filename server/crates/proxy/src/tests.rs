use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use super::*;

fn whole(length: usize, source: Option<&str>) -> Result<Parsed, Fault> {
    let source = source.map(|source| source.parse().unwrap());
    Ok(Parsed::Whole { length, source })
}

/// A header in binary form.
fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([command, family]);
    bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    bytes.extend(rest);
    bytes
}

#[test]
fn text() {
    for (header, source) in [
        (
            "PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\r\n",
            Some("192.0.2.7:56324"),
        ),
        (
            "PROXY TCP6 2001:db8::7 2001:db8::1 1 0\r\n",
            Some("[2001:db8::7]:1"),
        ),
        ("PROXY UNKNOWN\r\n", None),
        ("PROXY UNKNOWN ffff::1 anything\r\n", None),
    ] {
        assert_eq!(
            parse(header.as_bytes(), 300),
            whole(header.len(), source),
            "{header}"
        );
        let more = format!("{header}<stream:stream");
        assert_eq!(
            parse(more.as_bytes(), 300),
            whole(header.len(), source),
            "{header}"
        );
    }
}

#[test]
fn text_that_is_no_header() {
    let long = format!("PROXY UNKNOWN {}", "x".repeat(100));
    for (bytes, fault) in [
        ("<stream:stream", Fault::Missing),
        ("PROXX", Fault::Missing),
        ("PROXY\r\n", Fault::Missing),
        ("GET /health HTTP/1.1\r\n", Fault::Missing),
        (
            "PROXY UNIX a b\r\n",
            Fault::Malformed("an unknown protocol"),
        ),
        (
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n",
            Fault::Malformed("a line that is none"),
        ),
        (
            "PROXY TCP4 192.0.2.7 198.51.100 1 2\r\n",
            Fault::Malformed("a bad address"),
        ),
        (
            "PROXY TCP4 2001:db8::7 2001:db8::1 1 2\r\n",
            Fault::Malformed("a bad address"),
        ),
        (
            "PROXY TCP4 192.0.2.7 198.51.100.1 +1 2\r\n",
            Fault::Malformed("bad ports"),
        ),
        (
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 2\r\n",
            Fault::Malformed("bad ports"),
        ),
        (
            "PROXY TCP4 192.0.2.7 198.51.100.1 1 2 3\r\n",
            Fault::Malformed("bad ports"),
        ),
        (
            "PROXY TCP4 192.0.2.7 198.51.100.1 1\r\n",
            Fault::Malformed("bad ports"),
        ),
        (&long, Fault::Malformed("no end")),
    ] {
        assert_eq!(parse(bytes.as_bytes(), 300), Err(fault), "{bytes}");
    }
}

#[test]
fn binary_headers() {
    let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xDC, 0x04, 0x14, 0x66];
    let mut v6 = [0; 36];
    v6[..4].copy_from_slice(&[0x20, 0x01, 0x0D, 0xB8]);
    (v6[15], v6[33]) = (7, 9);
    // AWS says by a further field over which endpoint a connection came.
    let endpoint = [&v4[..], &[0xEA, 0, 3, 1, b'v', b'p']].concat();
    for (bytes, source) in [
        (binary(0x21, 0x11, &v4), Some("192.0.2.7:56324")),
        (binary(0x21, 0x11, &endpoint), Some("192.0.2.7:56324")),
        (binary(0x21, 0x21, &v6), Some("[2001:db8::7]:9")),
        // The balancer itself, datagrams, unix sockets, and whoever is not said.
        (binary(0x20, 0x11, &v4), None),
        (binary(0x20, 0x99, &[]), None),
        (binary(0x21, 0x12, &v4), None),
        (binary(0x21, 0x31, &[b'/'; 216]), None),
        (binary(0x21, 0x00, &[1, 2, 3]), None),
    ] {
        assert_eq!(parse(&bytes, 300), whole(bytes.len(), source), "{bytes:?}");
        let last = bytes.len() - 1;
        assert_eq!(parse(&bytes[..last], 300), Ok(Parsed::Part), "{bytes:?}");
    }
    for (bytes, fault) in [
        (
            binary(0x11, 0x11, &v4),
            Fault::Malformed("an unknown version or command"),
        ),
        (
            binary(0x22, 0x11, &v4),
            Fault::Malformed("an unknown version or command"),
        ),
        (
            binary(0x21, 0x13, &v4),
            Fault::Malformed("an unknown family of addresses"),
        ),
        (
            binary(0x21, 0x11, &v4[..11]),
            Fault::Malformed("no place for its addresses"),
        ),
        (
            binary(0x21, 0x21, &v4),
            Fault::Malformed("no place for its addresses"),
        ),
    ] {
        assert_eq!(parse(&bytes, 300), Err(fault), "{bytes:?}");
    }
    // What will be too long need not come.
    let long = binary(0x21, 0x11, &[0; 285]);
    let (length, most) = (301, 300);
    assert_eq!(
        parse(&long[..16], 300),
        Err(Fault::TooLong { length, most })
    );
}

/// A connection on which these parts are sent one after the other, each taken before the next.
async fn sent(parts: &[&[u8]], options: Options) -> (Result<Option<SocketAddr>, String>, String) {
    let balancers = Balancers::new(|_| true, options);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    client.set_nodelay(true).unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();
    let write = async {
        for part in parts {
            client.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.shutdown().await.unwrap();
    };
    let (read, ()) = tokio::join!(balancers.read(&mut socket), write);
    let mut rest = String::new();
    socket.read_to_string(&mut rest).await.unwrap();
    (read.map_err(|error| error.to_string()), rest)
}

const OPTIONS: Options = Options {
    most: 300,
    within: Duration::from_secs(20),
};

#[tokio::test]
async fn what_follows_is_left() {
    let source: SocketAddr = "192.0.2.7:56324".parse().unwrap();
    let text = "PROXY TCP4 192.0.2.7 198.51.100.1 56324 5222\r\n".as_bytes();
    let v4 = [192, 0, 2, 7, 198, 51, 100, 1, 0xDC, 0x04, 0x14, 0x66];
    let binary = binary(0x21, 0x11, &v4);
    for header in [text, &binary] {
        for at in [1, 5, 12, 14, 16, 20, header.len() - 1, header.len()] {
            let (read, rest) = sent(&[&header[..at], &header[at..], b"<a/>"], OPTIONS).await;
            assert_eq!(read, Ok(Some(source)));
            assert_eq!(rest, "<a/>");
        }
        let together = [header, b"<a/>"].concat();
        let (read, rest) = sent(&[&together], OPTIONS).await;
        assert_eq!((read, rest.as_str()), (Ok(Some(source)), "<a/>"));
    }
}

#[tokio::test]
async fn what_is_no_header_is_left_or_refused() {
    let (read, rest) = sent(&[b"GET / HTTP/1.1\r\n\r\n"], OPTIONS).await;
    assert_eq!(read, Err("there is no PROXY header".into()));
    assert_eq!(rest, "GET / HTTP/1.1\r\n\r\n", "nothing is read");
    let (read, _) = sent(&[b"PROXY UNK"], OPTIONS).await;
    assert_eq!(
        read,
        Err("the connection ended before its PROXY header".into())
    );
    let (read, _) = sent(&[], OPTIONS).await;
    assert_eq!(
        read,
        Err("the connection ended before its PROXY header".into())
    );
}

#[tokio::test]
async fn it_has_its_time() {
    let within = Duration::from_millis(50);
    let balancers = Balancers::new(|_| true, Options { within, ..OPTIONS });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    client.write_all(b"PROXY ").await.unwrap();
    let (mut socket, _) = listener.accept().await.unwrap();
    let read = balancers.read(&mut socket).await;
    assert_eq!(
        read.unwrap_err().to_string(),
        "no whole PROXY header came within 50ms"
    );
}

#[test]
fn addresses_are_asked_for_as_they_are() {
    let four: IpAddr = "10.0.0.1".parse().unwrap();
    let balancers = Balancers::new(move |it| it == four, OPTIONS);
    assert!(balancers.lists(four));
    assert!(balancers.lists("::ffff:10.0.0.1".parse().unwrap()));
    assert!(!balancers.lists("10.0.0.2".parse().unwrap()));
    assert!(!Balancers::none().lists(four));
}
