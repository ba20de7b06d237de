use super::*;

fn given(text: &str) -> Given {
    crate::user_data::parse(text.as_bytes(), "user-data")
        .unwrap()
        .given
}

fn laptop() -> Surroundings {
    Surroundings {
        data_home: Some("/home/u/.local/share".into()),
        host_name: Some("my laptop".into()),
        ipv6: true,
        ..Surroundings::default()
    }
}

fn instance() -> Identity {
    Identity {
        instance_id: "i-0123456789abcdef0".into(),
        account: "123456789012".into(),
        region: "eu-west-1".into(),
        zone: "eu-west-1a".into(),
        private_address: "10.0.2.15".parse().unwrap(),
    }
}

#[test]
fn a_laptop() {
    let site = settle(&given("domain=localhost"), None, &laptop()).unwrap();
    let config = &site.config;
    assert_eq!(config.store.backend, Backend::Embedded);
    let dir = Path::new("/home/u/.local/share/cirrus/localhost");
    assert_eq!(config.store.path, dir.join("store"));
    assert_eq!(config.tls.folder, dir.join("tls"));
    assert_eq!(config.listen.control, dir.join("control.sock"));
    assert_eq!(site.config_file, dir.join("cirrus.yaml"));
    let expected: Vec<SocketAddr> = vec![
        "127.0.0.1:5222".parse().unwrap(),
        "[::1]:5222".parse().unwrap(),
    ];
    assert_eq!(config.listen.c2s, expected);
    assert!(config.registration.enabled);
    assert_eq!(config.cluster.node.as_deref(), Some("mylaptop"));
    assert!(!site.on_ec2);
    // What comes out can be read by the server.
    assert_eq!(Config::parse(&config.render(), "f").unwrap(), *config);
}

#[test]
fn a_public_domain_listens_everywhere_and_registers_nobody() {
    let around = Surroundings {
        ipv6: false,
        ..laptop()
    };
    let site = settle(&given("example.com"), None, &around).unwrap();
    assert_eq!(site.config.listen.c2s, ["0.0.0.0:5222".parse().unwrap()]);
    assert!(!site.config.registration.enabled);
}

#[test]
fn an_instance() {
    let identity = instance();
    let site = settle(
        &given("example.com"),
        Some(&identity),
        &Surroundings::default(),
    )
    .unwrap();
    let config = &site.config;
    assert_eq!(config.store.backend, Backend::Aws);
    assert_eq!(config.store.region.as_deref(), Some("eu-west-1"));
    assert_eq!(config.store.account.as_deref(), Some("123456789012"));
    assert_eq!(config.cluster.node.as_deref(), Some("i-0123456789abcdef0"));
    assert_eq!(config.cluster.address.as_deref(), Some("10.0.2.15"));
    assert_eq!(config.cluster.zone.as_deref(), Some("eu-west-1a"));
    assert_eq!(config.listen.control, Path::new("/run/cirrus/control.sock"));
    assert_eq!(site.config_file, Path::new("/etc/cirrus/cirrus.yaml"));
    assert!(!config.registration.enabled);
}

/// Clients hear of nodes' own addresses only where that is asked for.
#[test]
fn the_public_address_of_an_instance() {
    let around = Surroundings {
        public_address: Some("ec2-192-0-2-1.compute.example".into()),
        ..Surroundings::default()
    };
    let found = Some("ec2-192-0-2-1.compute.example");
    for (text, around, expected) in [
        ("domain=example.com", &around, None),
        (
            "domain=example.com\ncluster.public_address=auto",
            &around,
            found,
        ),
        (
            "domain=example.com\ncluster.public_address=auto",
            &Surroundings::default(),
            None,
        ),
        (
            "domain=example.com\ncluster.public_address=a.example.com",
            &around,
            Some("a.example.com"),
        ),
    ] {
        let site = settle(&given(text), Some(&instance()), around).unwrap();
        let address = site.config.cluster.public_address.as_deref();
        assert_eq!(address, expected, "{text}");
    }
}

/// A domain that the world knows has its certificate from an authority, unless it has files of
/// its own or its owner says no.
#[test]
fn an_instance_asks_for_certificates() {
    let own = "tls.certificates=[{host: example.com, chain: /c, key: /k}]";
    for (text, asks) in [
        ("domain=example.com", true),
        ("domain=localhost,example.com", true),
        ("domain=localhost", false),
        ("domain=chat", false),
        ("domain=chat.internal", false),
        ("domain=192.0.2.1", false),
        ("domain=example.com\nacme.enabled=false", false),
        (&format!("domain=example.com\n{own}"), false),
        (&format!("domain=example.com,example.org\n{own}"), true),
    ] {
        let around = Surroundings::default();
        let site = settle(&given(text), Some(&instance()), &around).unwrap();
        assert_eq!(site.config.acme.enabled, asks, "{text}");
        let site = settle(&given(text), None, &laptop()).unwrap();
        assert!(!site.config.acme.enabled, "{text}: nobody reaches a laptop");
    }
}

#[test]
fn what_was_given_stays() {
    let text = "domain=localhost\nstore.backend=memory\nstore.path=/a\ntls.folder=/b\n\
                listen.control=/c\nlisten.c2s=:1\nlisten.c2s_tls=:2\ncluster.node=n\n\
                registration.enabled=false\ncluster.zone=z\ncluster.address=h\n";
    let given = given(text);
    for identity in [None, Some(instance())] {
        let site = settle(&given, identity.as_ref(), &laptop()).unwrap();
        assert_eq!(site.config, given.config);
    }
}

#[test]
fn what_cannot_work() {
    let aws = given("domain=example.com\nstore.backend=aws\n");
    let said =
        |given: &Given, around: &Surroundings| settle(given, None, around).unwrap_err().to_string();
    assert_eq!(
        said(&aws, &laptop()),
        "store.region is needed for `store.backend: aws` and there is no instance metadata \
         to take it from"
    );
    let with_region = Surroundings {
        region: Some("eu-west-1".into()),
        ..laptop()
    };
    assert!(said(&aws, &with_region).starts_with("store.account is needed"));
    let homeless = Surroundings {
        data_home: None,
        ..laptop()
    };
    let expected = "there is no home folder to put data in; give --data-dir";
    assert_eq!(said(&given("localhost"), &homeless), expected);
    let deep = Surroundings {
        data_dir: Some(format!("/{}", "d".repeat(120)).into()),
        ..laptop()
    };
    assert!(said(&given("localhost"), &deep).starts_with("the path of the control socket"));
    let runtime = Surroundings {
        runtime_dir: Some("/run/user/1000".into()),
        ..deep
    };
    let site = settle(&given("localhost"), None, &runtime).unwrap();
    let expected = Path::new("/run/user/1000/cirrus-localhost.sock");
    assert_eq!(site.config.listen.control, expected);
}
