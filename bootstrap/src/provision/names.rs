use aws_lc_rs::digest;
use cirrus_config::Config;
use cirrus_schema::{BucketId, TableId, bucket_name, bucket_tag, bucket_tag_input, table_name};

/// The names of a site's tables and buckets, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// First part of every name.
    pub prefix: String,
    /// The AWS account, 12 digits.
    pub account: String,
    /// The region.
    pub region: String,
    tag: String,
}

impl Names {
    /// Names from their parts.
    pub fn new(prefix: &str, account: &str, region: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, &bucket_tag_input(prefix, account, region));
        let mut bytes = [0u8; 32];
        bytes.copy_from_slice(hash.as_ref());
        Self {
            prefix: prefix.to_owned(),
            account: account.to_owned(),
            region: region.to_owned(),
            tag: bucket_tag(&bytes),
        }
    }

    /// The names that a configuration gives; `None` without region or account.
    pub fn of(config: &Config) -> Option<Self> {
        let account = config.store.account.as_deref()?;
        let region = config.store.region.as_deref()?;
        Some(Self::new(&config.prefix(), account, region))
    }

    /// The name of a table.
    pub fn table(&self, id: TableId) -> String {
        table_name(&self.prefix, id)
    }

    /// The name of a bucket.
    pub fn bucket(&self, id: BucketId) -> String {
        bucket_name(&self.prefix, &self.tag, id)
    }

    /// The first part of AWS resource names in this region.
    pub fn partition(&self) -> &'static str {
        match self.region.split('-').next() {
            Some("cn") => "aws-cn",
            Some("us") if self.region.starts_with("us-gov-") => "aws-us-gov",
            _ => "aws",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let names = Names::new("example.com", "123456789012", "eu-west-1");
        assert_eq!(names.table(TableId::Archive), "example.com-archive");
        let bucket = names.bucket(BucketId::Data);
        assert!(
            bucket.starts_with("example-com-") && bucket.ends_with("-data"),
            "{bucket}"
        );
        assert_eq!(bucket.len(), "example-com-".len() + 8 + "-data".len());
        let other = Names::new("example.com", "123456789012", "eu-west-2");
        assert_ne!(other.bucket(BucketId::Data), bucket);
        for (region, partition) in [
            ("eu-west-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-west-1", "aws-us-gov"),
        ] {
            assert_eq!(
                Names::new("p", "123456789012", region).partition(),
                partition
            );
        }
    }
}
