"""Under which names the console is reached: those in its certificate, and on this machine this machine's own."""

from cryptography import x509

from orthanc_ledger.config import Console, is_loopback
from orthanc_ledger.ledger.identity import read_certificate

_HTTPS, _HTTP = 443, 80
_ANY = ("0.0.0.0", "::", "")


def hosts(console: Console, port: int) -> frozenset[str]:
    """What Host may say (RFC 9110 7.2). Raises ConfigError when the certificate cannot be read."""
    names = {_bracketed(console.host), *_certified(console)}
    if is_loopback(console.host):
        names |= {"localhost", "127.0.0.1", "[::1]"}
    usual = _HTTP if console.certificate is None else _HTTPS
    places = {f"{name.lower()}:{port}" for name in names}
    return frozenset(places | ({name.lower() for name in names} if port == usual else set()))


def url(console: Console) -> str | None:
    """Where a browser finds it; None where nobody can tell. Raises ConfigError when the certificate cannot be read."""
    own = [] if console.host in _ANY else [_bracketed(console.host)]
    names = own if is_loopback(console.host) else [*_certified(console), *own]
    if not names or not console.port:
        return None
    return f"{'http' if console.certificate is None else 'https'}://{names[0]}:{console.port}"


def _certified(console: Console) -> list[str]:
    """Names, then addresses (RFC 5280 4.2.1.6)."""
    if console.certificate is None:
        return []
    try:
        extensions = read_certificate(console.certificate).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    addresses = map(str, names.get_values_for_type(x509.IPAddress))
    return [*names.get_values_for_type(x509.DNSName), *map(_bracketed, addresses)]


def _bracketed(host: str) -> str:
    """A host as URLs have it (RFC 3986 3.2.2)."""
    return f"[{host}]" if ":" in host else host
