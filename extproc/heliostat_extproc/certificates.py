"""The certificate with which the router serves TLS: from files that may change, or its own.

Gateways that ask an endpoint picker over TLS take any certificate unless told otherwise, so without
files the router makes one for itself.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import NameOID

_SELF_SIGNED_DAYS = 3650
_CLOCK_SKEW_DAYS = 1

_log = structlog.get_logger(__name__)


class CertificateError(RuntimeError):
    """A certificate or its key cannot be used."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate chain and its private key, in PEM."""

    certificate: bytes
    key: bytes


def make_self_signed(name: str, now: datetime) -> KeyPair:
    """Make a certificate for this host name that holds for ten years."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=_CLOCK_SKEW_DAYS))
        .not_valid_after(now + timedelta(days=_SELF_SIGNED_DAYS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return KeyPair(
        certificate=certificate.public_bytes(Encoding.PEM),
        key=key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """PEM files of a certificate chain and of its private key."""

    certificate: Path
    key: Path

    def read(self) -> KeyPair:
        """Read both; raise `CertificateError` where they cannot be used together."""
        try:
            pair = KeyPair(self.certificate.read_bytes(), self.key.read_bytes())
        except OSError as error:
            raise CertificateError(f"cannot read {error.filename}: {error.strerror}") from error
        self._check(pair)
        return pair

    def version(self) -> tuple[int, ...]:
        """Tell one state of the files from another, cheaply; empty while a file is missing."""
        try:
            states = [path.stat() for path in (self.certificate, self.key)]
        except OSError:
            return ()
        return tuple(
            number
            for state in states
            for number in (state.st_mtime_ns, state.st_ino, state.st_size)
        )

    def _check(self, pair: KeyPair) -> None:
        try:
            leaf = x509.load_pem_x509_certificate(pair.certificate)
        except ValueError as error:
            raise CertificateError(f"{self.certificate} holds no PEM certificate") from error
        try:
            key = load_pem_private_key(pair.key, password=None)
        except (ValueError, TypeError) as error:
            raise CertificateError(f"{self.key} holds no unencrypted PEM private key") from error
        if key.public_key() != leaf.public_key():
            raise CertificateError(f"{self.key} is not the key of {self.certificate}")


class ReloadingFiles:
    """Certificate files, read again when they have changed."""

    def __init__(self, files: CertificateFiles) -> None:
        self._files = files
        self._version = files.version()
        self._pair = files.read()

    def current(self) -> KeyPair:
        """Give the pair in the files, or while they do not fit the last that did."""
        version = self._files.version()
        if version != self._version:
            self._version = version
            try:
                self._pair = self._files.read()
            except CertificateError as error:
                _log.warning("certificate not reloaded", problem=str(error))
            else:
                _log.info("certificate reloaded", file=str(self._files.certificate))
        return self._pair


def server_credentials(files: CertificateFiles | None, name: str) -> grpc.ServerCredentials:
    """Serve TLS with these files, else with a certificate of its own for this host name.

    Each handshake sees the files as they are. Raise `CertificateError` where they cannot be used.
    """
    if files is None:
        pair = make_self_signed(name, datetime.now(UTC))
        return grpc.ssl_server_credentials([(pair.key, pair.certificate)])
    reloading = ReloadingFiles(files)
    return grpc.dynamic_ssl_server_credentials(
        _configuration(reloading.current()), lambda: _configuration(reloading.current())
    )


def _configuration(pair: KeyPair) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)])
