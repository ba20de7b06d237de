//! Tags of the instance itself.

use crate::{Cloud, Refusal};

#[cfg(feature = "ec2")]
impl Cloud {
    /// Puts a tag on an instance. False if this program was built without the SDK for it.
    ///
    /// # Errors
    /// A refused call.
    pub async fn tag(&self, instance: &str, key: &str, value: &str) -> Result<bool, Refusal> {
        let tag = aws_sdk_ec2::types::Tag::builder().key(key).value(value);
        let request = aws_sdk_ec2::Client::new(&self.sdk).create_tags();
        let sent = request.resources(instance).tags(tag.build()).send().await;
        sent.map(|_| true)
            .map_err(|e| Refusal::of(instance, "CreateTags", &e))
    }
}

#[cfg(not(feature = "ec2"))]
impl Cloud {
    /// Puts a tag on an instance. False if this program was built without the SDK for it.
    ///
    /// # Errors
    /// None in such a program.
    pub async fn tag(&self, _instance: &str, _key: &str, _value: &str) -> Result<bool, Refusal> {
        Ok(false)
    }
}
