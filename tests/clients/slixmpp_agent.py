"""One slixmpp client that does what it is told, for the tests.

Usage: slixmpp_agent.py JID PASSWORD-FILE. Each line of input is a command with its arguments,
separated by tabs; each line of output is a JSON object about something that happened.

    connect ADDRESS PORT    log in (STARTTLS, SCRAM), fetch the roster, become available
    add JID                 ask to see somebody's presence; requests to us are granted
    say JID TEXT            send a chat message; "acked" follows when the server has it
    history JID ORDER       what was said with somebody, from the archive in pages of two, the
                            oldest first or (ORDER = reverse) the newest; "history" follows
    vanish                  drop the connection without a word
    disconnect              end the stream
"""

import asyncio
import json
import ssl
import sys

import slixmpp


def tell(event, **facts):
    print(json.dumps({"event": event, **facts}), flush=True)


class Agent(slixmpp.ClientXMPP):
    def __init__(self, jid, password):
        super().__init__(jid, password)
        for plugin in ("xep_0030", "xep_0198", "xep_0199", "xep_0203", "xep_0313"):
            self.register_plugin(plugin)
        # The certificate is self-signed; that the channel is bound to it, SCRAM-PLUS shows.
        self.ssl_context.check_hostname = False
        self.ssl_context.verify_mode = ssl.CERT_NONE
        self.enable_direct_tls = False
        self.enable_plaintext = False
        self.auto_authorize = True
        self.auto_subscribe = True
        self.add_event_handler("session_start", self.on_session)
        self.add_event_handler("session_resumed", lambda _: tell("resumed"))
        self.add_event_handler("message", self.on_message)
        self.add_event_handler("message_error", lambda m: tell("refused", error=m["error"]["condition"]))
        self.add_event_handler("presence_available", self.on_presence)
        self.add_event_handler("presence_unavailable", self.on_presence)
        self.add_event_handler("roster_update", self.on_roster)
        self.add_event_handler("stanza_acked", self.on_acked)
        self.add_event_handler("failed_all_auth", lambda _: tell("denied"))
        self.add_event_handler("disconnected", lambda _: tell("disconnected"))

    async def on_session(self, _):
        await self.get_roster()
        self.send_presence()
        mechanism = self.plugin["feature_mechanisms"].mech.name
        tell("session", jid=str(self.boundjid), mechanism=mechanism, tls=self.ssl_version())

    def ssl_version(self):
        tls = self.transport.get_extra_info("ssl_object")
        return tls.version() if tls else None

    def on_message(self, message):
        if message["type"] in ("chat", "normal"):
            delayed = message["delay"]["stamp"] is not None
            tell("message", sender=str(message["from"]), body=message["body"], delayed=delayed)

    async def on_history(self, jid, order):
        found = self.plugin["xep_0313"].iterate(
            with_jid=slixmpp.JID(jid), reverse=order == "reverse", rsm={"max": 2}
        )
        said = [found["mam_result"]["forwarded"]["stanza"]["body"] async for found in found]
        tell("history", said=said)

    def on_presence(self, presence):
        tell("presence", sender=str(presence["from"]), type=presence["type"])

    def on_roster(self, iq):
        for jid, item in iq["roster"]["items"].items():
            tell("contact", jid=str(jid), subscription=item["subscription"])

    def on_acked(self, stanza):
        if stanza.name == "message":
            tell("acked", id=stanza["id"])


async def obey(agent):
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    tell("ready")
    while line := await lines.readline():
        command, *arguments = line.decode().rstrip("\n").split("\t")
        if command == "connect":
            agent.connect(arguments[0], int(arguments[1]))
        elif command == "add":
            agent.send_presence_subscription(arguments[0])
        elif command == "say":
            message = agent.make_message(arguments[0], arguments[1], mtype="chat")
            message["id"] = agent.new_id()
            tell("said", id=message["id"])
            message.send()
            # Asks for the acknowledgement at once, not after some stanzas.
            agent.plugin["xep_0198"].request_ack()
        elif command == "history":
            await agent.on_history(*arguments)
        elif command == "vanish":
            agent.transport.abort()
        elif command == "disconnect":
            await agent.disconnect()


def main():
    jid, password_file = sys.argv[1:]
    with open(password_file, encoding="utf-8") as file:
        password = file.read().strip()

    async def run():
        await obey(Agent(jid, password))

    asyncio.run(run())


if __name__ == "__main__":
    main()
