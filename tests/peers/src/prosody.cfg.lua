-- Only what the measures need: each module more would cost prosody time that Cirrus does not spend.
run_as_root = true
daemonize = false
pidfile = "@FOLDER@/prosody.pid"
data_path = "@FOLDER@/data"
plugin_paths = { "@FOLDER@/plugins" }
interfaces = { "127.0.0.1" }
c2s_ports = { @PORT@ }
s2s_ports = { }
http_ports = { }
https_ports = { }
c2s_require_encryption = true
ssl = { certificate = "@CERTIFICATE@", key = "@KEY@" }
authentication = "internal_hashed"
storage = "internal"
@ARCHIVE@
gc = { mode = "generational" }
network_backend = "@BACKEND@"
network_settings = { nagle = false, tcp_backlog = 1024 }
log = { error = "@FOLDER@/prosody.log" }
modules_disabled = { "s2s" }
modules_enabled = {
  "disco"; "lastactivity"; "offline"; "ping"; "roster"; "saslauth"; "smacks"; "time"; "tls";
  "version"; @MAM@
}
VirtualHost "@HOST@"
