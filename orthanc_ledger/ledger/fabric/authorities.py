"""Whose certificates may be believed where: a trial network's only on the machine it runs on."""

import ipaddress

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from orthanc_ledger.errors import ConfigError

_CRYPTOGEN_USAGES = {ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH}


def check_trial_authority(certificate: x509.Certificate, endpoint: str) -> None:
    """Refuse a CA that cryptogen made, unless the endpoint (HOST:PORT) is on this machine.

    cryptogen makes the keys of all organisations in one place, in files: whoever made the network can sign as anybody.
    It says itself that it is for tests. Its CAs are known by two things together, which CAs that issue for people and
    servers do not have: the subject's CN is `ca.` or `tlsca.` and its O, and the CA's own key is for TLS clients and
    servers (extended key usage).

    Raises ConfigError naming the CA.
    """
    if _is_cryptogens(certificate) and not _is_loopback(endpoint.rpartition(":")[0].strip("[]")):
        raise ConfigError(
            f"{endpoint}: {certificate.subject.rfc4514_string()} is cryptogen's CA, of a trial network: expected "
            "127.0.0.1, or an organisation's own CA (docs/fabric.md)"
        )


def _is_cryptogens(certificate: x509.Certificate) -> bool:
    try:
        usages = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    except x509.ExtensionNotFound:
        return False
    organisations = _names(certificate, NameOID.ORGANIZATION_NAME)
    own_names = {prefix + each for prefix in ("ca.", "tlsca.") for each in organisations}
    return usages >= _CRYPTOGEN_USAGES and not own_names.isdisjoint(_names(certificate, NameOID.COMMON_NAME))


def _names(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> set[str]:
    return {str(attribute.value) for attribute in certificate.subject.get_attributes_for_oid(oid)}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
