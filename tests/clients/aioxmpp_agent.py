"""One aioxmpp client that does what it is told, for the tests.

Usage: aioxmpp_agent.py JID PASSWORD-FILE. Commands and events are those of slixmpp_agent.py, as
far as they are here: connect, add, say, disconnect.
"""

import asyncio
import json
import sys

import aioxmpp
import aioxmpp.connector
import aioxmpp.misc


def tell(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


class Agent:
    def __init__(self, jid, password):
        self.jid = aioxmpp.JID.fromstr(jid)
        # The certificate is self-signed.
        self.security = aioxmpp.make_security_layer(password, no_verify=True)
        self.client = None
        self.running = None

    async def connect(self, address, port):
        """A new client each time: one that was stopped does not start again."""
        override = [(address, port, aioxmpp.connector.STARTTLSConnector())]
        client = aioxmpp.PresenceManagedClient(
            self.jid, self.security, override_peer=override)
        messages = client.summon(aioxmpp.dispatcher.SimpleMessageDispatcher)
        messages.register_callback(None, None, self.on_message)
        presence = client.summon(aioxmpp.PresenceClient)
        presence.on_available.connect(self.on_available)
        presence.on_unavailable.connect(self.on_unavailable)
        roster = client.summon(aioxmpp.RosterClient)
        roster.on_subscribe.connect(self.on_subscribe)
        roster.on_entry_subscription_state_changed.connect(self.on_contact)
        self.client, self.roster = client, roster
        self.running = client.connected()
        await self.running.__aenter__()
        tell("session", jid=str(client.local_jid))

    def on_message(self, message):
        if message.body:
            delayed = message.xep0203_delay is not None and len(message.xep0203_delay) > 0
            tell("message", sender=str(message.from_), body=message.body.any(), delayed=delayed)

    def on_available(self, full_jid, stanza):
        tell("presence", sender=str(full_jid), type="available")

    def on_unavailable(self, full_jid, stanza):
        tell("presence", sender=str(full_jid), type="unavailable")

    def on_subscribe(self, stanza):
        self.roster.approve(stanza.from_)
        if stanza.from_.bare() not in self.roster.items \
                or self.roster.items[stanza.from_.bare()].subscription not in ("to", "both"):
            self.roster.subscribe(stanza.from_)

    def on_contact(self, item):
        tell("contact", jid=str(item.jid), subscription=item.subscription)

    async def say(self, jid, text):
        message = aioxmpp.Message(type_=aioxmpp.MessageType.CHAT, to=aioxmpp.JID.fromstr(jid))
        message.body[None] = text
        message.autoset_id()
        tell("said", id=message.id_)
        # With stream management this ends when the server has acknowledged it.
        token = self.client.enqueue(message)
        await token
        tell("acked", id=message.id_)

    async def disconnect(self):
        await self.running.__aexit__(None, None, None)
        tell("disconnected")


async def obey(agent):
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    tell("ready")
    while line := await lines.readline():
        command, *arguments = line.decode().rstrip("\n").split("\t")
        if command == "connect":
            await agent.connect(arguments[0], int(arguments[1]))
        elif command == "add":
            agent.roster.subscribe(aioxmpp.JID.fromstr(arguments[0]))
        elif command == "say":
            await agent.say(arguments[0], arguments[1])
        elif command == "disconnect":
            await agent.disconnect()


def main():
    jid, password_file = sys.argv[1:]
    with open(password_file, encoding="utf-8") as file:
        password = file.read().strip()
    asyncio.run(obey(Agent(jid, password)))


if __name__ == "__main__":
    main()
