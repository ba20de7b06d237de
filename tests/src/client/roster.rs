//! Waiting for what becomes of a roster.

use anyhow::{Result, bail};

use super::Client;
use crate::xml::Node;
use crate::{deadline, left};

impl Client {
    /// Asks for the roster until this contact is in it with a subscription in both directions.
    ///
    /// # Errors
    /// When that does not come to be in time.
    pub fn wait_for_contact(&mut self, contact: &str) -> Result<()> {
        let until = deadline();
        let roster = "jabber:iq:roster";
        while !left(until).is_zero() {
            self.send(format!(
                "<iq type='get' id='friends'><query xmlns='{roster}'/></iq>"
            ))?;
            let mut result = self.element()?;
            while result.attr("id") != Some("friends") {
                result = self.element()?;
            }
            let items = result.child("query", roster);
            if items.into_iter().flat_map(Node::nodes).any(|item| {
                item.attr("jid") == Some(contact) && item.attr("subscription") == Some("both")
            }) {
                return Ok(());
            }
        }
        bail!(
            "{contact} does not become a friend of {}",
            self.identity.bare()
        )
    }

    /// Waits until what has reached this account's roster is written. Changes of a roster are made
    /// one after the other, so one that can only be refused is answered behind all of them.
    ///
    /// # Errors
    /// When there is no answer.
    pub fn wait_for_roster(&mut self) -> Result<()> {
        let nobody = format!("nobody@{}", self.identity.host);
        let item = format!("<item jid='{nobody}' subscription='remove'/>");
        self.send(format!(
            "<iq type='set' id='behind'><query xmlns='jabber:iq:roster'>{item}</query></iq>"
        ))?;
        while self.element()?.attr("id") != Some("behind") {}
        Ok(())
    }
}
