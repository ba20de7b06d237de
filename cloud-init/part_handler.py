"""cloud-init's part handler for the user-data of Cirrus.

cirrus-bootstrap reads the user-data by itself. cloud-init reads it too, and warns of everything that
it has no handler for. This one takes what is ours and does nothing with it, so that the warnings
which are left mean something. cloud-init loads it from /var/lib/cloud/handlers.
"""

# Text that is no MIME multipart, and our part of one.
TYPES = ["text/x-not-multipart", "application/vnd.cirrus-config", "text/x-cirrus"]


def list_types():
    return TYPES


def handle_part(data, ctype, filename, payload):
    """Called for every part of these types, and once before (`__begin__`) and after (`__end__`)."""
