"""Who is at the other end: the identity in its certificate, as Envoy has verified it.

Envoy sets `x-forwarded-client-cert` itself on the federation listener and takes it off everywhere
else, so what is in there is not the sender's own word.
"""

_URI_KEY = "uri="


def parse_identity(client_certificate: str) -> str | None:
    """Read the URI of the header's one element, `By=...;Hash=...;URI=...`; None without one.

    Several elements would come from several proxies, of which only the last has verified anything:
    none of them is believed.
    """
    if "," in client_certificate:
        return None
    for pair in client_certificate.split(";"):
        if pair[: len(_URI_KEY)].lower() == _URI_KEY:
            return pair[len(_URI_KEY) :].strip('"') or None
    return None
