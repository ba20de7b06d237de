//! The data of channel bindings (RFC 9266, RFC 5929).

use aws_lc_rs::digest::{self, Algorithm};
use x509_parser::oid_registry::{self as oid, Oid};
use x509_parser::prelude::X509Certificate;
use x509_parser::signature_algorithm::SignatureAlgorithm;

/// Label of `tls-exporter` (RFC 9266, section 2); its context is empty.
pub(crate) const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
/// Length of `tls-exporter` in bytes (RFC 9266, section 2).
pub(crate) const EXPORTER_BYTES: usize = 32;

/// `tls-server-end-point`: the certificate under the hash of its own signature, SHA-256 where that
/// is MD5 or SHA-1. `None` where the signature has no single hash, as with Ed25519: the binding is
/// then undefined (RFC 5929, section 4.1).
pub(crate) fn server_end_point(der: &[u8], certificate: &X509Certificate<'_>) -> Option<Vec<u8>> {
    let hash = signature_hash(certificate)?;
    Some(digest::digest(hash, der).as_ref().to_vec())
}

fn signature_hash(certificate: &X509Certificate<'_>) -> Option<&'static Algorithm> {
    let algorithm = &certificate.signature_algorithm;
    if let Ok(SignatureAlgorithm::RSASSA_PSS(parameters)) = SignatureAlgorithm::try_from(algorithm)
    {
        return plain_hash(parameters.hash_algorithm_oid());
    }
    let id = &algorithm.algorithm;
    let table: [(&[Oid<'static>], &'static Algorithm); 4] = [
        (
            &[
                oid::OID_PKCS1_MD5WITHRSAENC,
                oid::OID_PKCS1_SHA1WITHRSA,
                oid::OID_SHA1_WITH_RSA,
                oid::OID_PKCS1_SHA256WITHRSA,
                oid::OID_SIG_ECDSA_WITH_SHA256,
            ],
            &digest::SHA256,
        ),
        (
            &[oid::OID_PKCS1_SHA384WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA384],
            &digest::SHA384,
        ),
        (
            &[oid::OID_PKCS1_SHA512WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA512],
            &digest::SHA512,
        ),
        (
            &[oid::OID_PKCS1_SHA224WITHRSA, oid::OID_SIG_ECDSA_WITH_SHA224],
            &digest::SHA224,
        ),
    ];
    table
        .into_iter()
        .find(|(ids, _)| ids.contains(id))
        .map(|(_, hash)| hash)
}

fn plain_hash(id: &Oid<'_>) -> Option<&'static Algorithm> {
    [
        (oid::OID_HASH_SHA1, &digest::SHA256),
        (oid::OID_NIST_HASH_SHA256, &digest::SHA256),
        (oid::OID_NIST_HASH_SHA384, &digest::SHA384),
        (oid::OID_NIST_HASH_SHA512, &digest::SHA512),
    ]
    .into_iter()
    .find(|(known, _)| known == id)
    .map(|(_, hash)| hash)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
    use x509_parser::prelude::FromDer as _;

    use super::*;

    fn end_point(algorithm: &'static SignatureAlgorithm) -> (Option<Vec<u8>>, Vec<u8>) {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let params = CertificateParams::new(vec!["example.com".to_owned()]).unwrap();
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let (_, parsed) = X509Certificate::from_der(&der).unwrap();
        (server_end_point(&der, &parsed), der)
    }

    #[test]
    fn the_hash_is_that_of_the_signature() {
        for (algorithm, hash) in [
            (&rcgen::PKCS_ECDSA_P256_SHA256, &digest::SHA256),
            (&rcgen::PKCS_ECDSA_P384_SHA384, &digest::SHA384),
            (&rcgen::PKCS_RSA_SHA256, &digest::SHA256),
            (&rcgen::PKCS_RSA_SHA512, &digest::SHA512),
        ] {
            let (found, der) = end_point(algorithm);
            assert_eq!(
                found.unwrap(),
                digest::digest(hash, &der).as_ref(),
                "{algorithm:?}"
            );
        }
    }

    #[test]
    fn without_a_single_hash_there_is_no_binding() {
        assert_eq!(end_point(&rcgen::PKCS_ED25519).0, None);
    }
}
