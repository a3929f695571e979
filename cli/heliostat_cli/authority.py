"""A certificate authority in a folder, for trying federation out before a real one is there.

A region's folder has cert-manager's layout, so what reads it cannot tell the two apart.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_AUTHORITY_DAYS = 3650
_CLOCK_SKEW = timedelta(hours=1)
_REGION = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_CERTIFICATE_FILE, _KEY_FILE, _AUTHORITY_FILE = "tls.crt", "tls.key", "ca.crt"
_AUTHORITY_KEY_FILE = "ca.key"


class AuthorityError(RuntimeError):
    """The authority cannot be read, made, or asked for this."""


@dataclass(frozen=True, slots=True)
class RegionFiles:
    """What a region was given."""

    region: str
    identity: str
    folder: Path
    """With tls.crt, tls.key and ca.crt."""
    expires_at: datetime


class Authority:
    """Signs the certificates of regions; made by `open_authority`."""

    def __init__(
        self, folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self._folder = folder
        self._certificate = certificate
        self._key = key

    @property
    def trust_domain(self) -> str:
        """The one whose regions it vouches for; AuthorityError where it names none."""
        try:
            names = self._certificate.extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            ).value.get_values_for_type(x509.UniformResourceIdentifier)
            return names[0].removeprefix("spiffe://")
        except (x509.ExtensionNotFound, IndexError) as error:
            raise AuthorityError(
                f"{self._folder / _AUTHORITY_FILE} names no trust domain"
            ) from error

    def issue(self, region: str, lifetime: timedelta, now: datetime) -> RegionFiles:
        """Give a region a new key and certificate, which end with the authority at the latest.

        Raises AuthorityError.
        """
        check_region(region)
        ends = self._certificate.not_valid_after_utc
        if now >= ends:
            raise AuthorityError(
                f"the authority in {self._folder} has ended on {ends:%Y-%m-%d}: make another one in"
                " another folder"
            )
        expires_at = min(now + lifetime, ends)
        identity = f"spiffe://{self.trust_domain}/region/{region}"
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(region, identity, key, now, expires_at)
        folder = self._folder / region
        _make_folder(folder)
        _write(folder / _AUTHORITY_FILE, _certificate_pem(self._certificate))
        _write(folder / _KEY_FILE, _key_pem(key))
        _write(folder / _CERTIFICATE_FILE, _certificate_pem(certificate))
        return RegionFiles(region, identity, folder, certificate.not_valid_after_utc)

    def _sign(
        self,
        region: str,
        identity: str,
        key: ec.EllipticCurvePrivateKey,
        now: datetime,
        expires_at: datetime,
    ) -> x509.Certificate:
        issuer = self._key.public_key()
        uses = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = _builder(f"region {region}", self._certificate.subject, key, now, expires_at)
        extensions: tuple[tuple[x509.ExtensionType, bool], ...] = (
            (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]), False),
            (x509.BasicConstraints(ca=False, path_length=None), True),
            (_key_usage(signs_certificates=False), True),
            (x509.ExtendedKeyUsage(uses), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), False),
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self._key, hashes.SHA256())


def open_authority(
    folder: Path, trust_domain: str | None, default: str, now: datetime
) -> Authority:
    """The authority in the folder, else a new one there, of this trust domain or the default.

    Raises AuthorityError, also where an authority is there and of another trust domain.
    """
    wanted = trust_domain or default
    if not _TRUST_DOMAIN.fullmatch(wanted):
        raise AuthorityError(
            f"the trust domain must be lower-case letters, digits, `.`, `_` and `-`: {wanted!r}"
        )
    files = (folder / _AUTHORITY_FILE, folder / _AUTHORITY_KEY_FILE)
    there = [path for path in files if path.exists()]
    if not there:
        return _make(folder, wanted, now)
    if len(there) == 1:
        raise AuthorityError(f"{there[0]} is there without its other half: give another folder")
    authority = _read(folder)
    if trust_domain is not None and trust_domain != authority.trust_domain:
        raise AuthorityError(
            f"the authority in {folder} is of the trust domain {authority.trust_domain}, not"
            f" {trust_domain}: give another folder"
        )
    return authority


def check_region(region: str) -> None:
    """Raise AuthorityError unless this can be a region's name."""
    if not _REGION.fullmatch(region):
        raise AuthorityError(
            f"a region's name is 1 to 63 lower-case letters, digits and `-`, not {region!r}"
        )


def _make(folder: Path, trust_domain: str, now: datetime) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"Heliostat regions of {trust_domain}"[:64])
    name = x509.UniformResourceIdentifier(f"spiffe://{trust_domain}")
    builder = _builder(subject, subject, key, now, now + timedelta(days=_AUTHORITY_DAYS))
    certificate = (
        builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _make_folder(folder)
    _write(folder / _AUTHORITY_KEY_FILE, _key_pem(key))
    _write(folder / _AUTHORITY_FILE, _certificate_pem(certificate))
    return Authority(folder, certificate, key)


def _read(folder: Path) -> Authority:
    path, key_path = folder / _AUTHORITY_FILE, folder / _AUTHORITY_KEY_FILE
    certificate = _load(path, "certificate", x509.load_pem_x509_certificate)
    key = _load(key_path, "unencrypted private key", lambda pem: load_pem_private_key(pem, None))
    if not isinstance(key, ec.EllipticCurvePrivateKey) or (
        key.public_key() != certificate.public_key()
    ):
        raise AuthorityError(f"{key_path} is not the key of {path}")
    return Authority(folder, certificate, key)


def _load(path: Path, what: str, parse: Callable[[bytes], Any]) -> Any:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise AuthorityError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise AuthorityError(f"{path} holds no {what} in PEM") from error


def _builder(
    subject: x509.Name | str,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: datetime,
    expires_at: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject[:64]) if isinstance(subject, str) else subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(expires_at)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _certificate_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise AuthorityError(f"{folder}: {error.strerror}") from error


def _write(path: Path, content: bytes) -> None:
    """Put a file there whole, for its owner alone."""
    draft = path.with_name(f".{path.name}")
    try:
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
        draft.replace(path)
    except OSError as error:
        raise AuthorityError(f"{path}: {error.strerror}") from error
