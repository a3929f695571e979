"""The certificate with which this region proves to other regions, and to itself, who it is.

It comes from files that may change, or is made of a secret that the routers of one region share.
What cannot be used is told apart here, before an Envoy or a peer refuses it without a word.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from heliostat_extproc.certificates import CertificateError

_POLL_SECONDS = 2.0
_CLOCK_SKEW = timedelta(days=1)
_MADE_LIFETIME = timedelta(days=30)
_RENEWED_AFTER = timedelta(days=10)
_EXPIRES_SOON = timedelta(days=7)
_LEAST_SECRET_BYTES = 16
_P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_NOT_SUPPORTED = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises, wherever it looks closer, at certificates that it cannot make out."""
_USAGES = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)

_log = structlog.get_logger(__name__)


class CertificateProblem(StrEnum):
    """Why a region's certificate cannot be used."""

    UNREADABLE = "unreadable"
    NOT_PEM = "not-pem"
    NOT_SUPPORTED = "not-supported"
    WRONG_KEY = "wrong-key"
    NO_IDENTITY = "no-identity"
    WRONG_USAGE = "wrong-usage"
    NOT_YET_VALID = "not-yet-valid"
    EXPIRED = "expired"
    WRONG_AUTHORITY = "wrong-authority"
    SHORT_SECRET = "short-secret"  # noqa: S105 - the name of a problem


class RegionCertificateError(CertificateError):
    """A region's certificate cannot be used."""

    def __init__(self, reason: CertificateProblem, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class RegionCertificate:
    """A certificate that can be used, with its key and whom it trusts, in PEM."""

    certificate: bytes
    """The chain, without the authority at its end."""
    key: bytes = field(repr=False)
    authority: bytes
    """The certificates of those who may vouch for other regions."""
    identity: str
    """The URI in the certificate."""
    expires_at: datetime


class CertificateSource(Protocol):
    """Where a region's certificate comes from."""

    def version(self, now: datetime) -> tuple[int, ...]:
        """Tell one state of the source from another, cheaply; empty while a file is missing."""
        ...

    def read(self, now: datetime) -> RegionCertificate:
        """Give the certificate; RegionCertificateError where it cannot be used."""
        ...


@dataclass(frozen=True, slots=True)
class CertificateFolder:
    """A folder with tls.crt, tls.key and ca.crt, as cert-manager writes them."""

    folder: Path

    def version(self, now: datetime) -> tuple[int, ...]:
        """Tell one state of the files from another."""
        return _file_version(self._certificate, self._key, self._authority)

    def read(self, now: datetime) -> RegionCertificate:
        """Read the files; RegionCertificateError where they cannot be used together."""
        try:
            return self._read(now)
        except _NOT_SUPPORTED as error:
            raise RegionCertificateError(
                CertificateProblem.NOT_SUPPORTED,
                f"{self.folder} holds what cannot be read: {error}",
            ) from error

    def _read(self, now: datetime) -> RegionCertificate:
        certificate, key, authority = map(_read, (self._certificate, self._key, self._authority))
        chain = _parse(certificate, self._certificate)
        authorities = _parse(authority, self._authority)
        leaf = chain[0]
        self._check_key(key, leaf)
        identity = _read_identity(leaf, self._certificate)
        _check_usage(leaf, self._certificate)
        _check_validity(leaf, now, self._certificate)
        if not _is_vouched_for(chain, [it for it in authorities if _is_valid(it, now)]):
            raise RegionCertificateError(
                CertificateProblem.WRONG_AUTHORITY,
                f"{self._certificate} is not signed by a valid certificate of {self._authority}",
            )
        return RegionCertificate(certificate, key, authority, identity, leaf.not_valid_after_utc)

    def _check_key(self, key: bytes, leaf: x509.Certificate) -> None:
        try:
            public_key = load_pem_private_key(key, password=None).public_key()
        except (ValueError, TypeError) as error:
            raise RegionCertificateError(
                CertificateProblem.NOT_PEM, f"{self._key} holds no unencrypted PEM private key"
            ) from error
        if public_key != leaf.public_key():
            raise RegionCertificateError(
                CertificateProblem.WRONG_KEY, f"{self._key} is not the key of {self._certificate}"
            )

    @property
    def _certificate(self) -> Path:
        return self.folder / "tls.crt"

    @property
    def _key(self) -> Path:
        return self.folder / "tls.key"

    @property
    def _authority(self) -> Path:
        return self.folder / "ca.crt"


@dataclass(frozen=True, slots=True)
class SharedSecret:
    """A file with a secret, of which each router of a region makes the same authority.

    The authority's key follows from secret and region. Each router signs a key of its own with it,
    so those that share the secret trust each other and nobody else.
    """

    file: Path
    region: str

    def version(self, now: datetime) -> tuple[int, ...]:
        """Tell one state of the file from another; a new one is due every few days as well."""
        version = _file_version(self.file)
        return version and (*version, int(now.timestamp() // _RENEWED_AFTER.total_seconds()))

    def read(self, now: datetime) -> RegionCertificate:
        """Make a certificate; RegionCertificateError where the secret is missing or too short."""
        secret = _read(self.file).strip()
        if len(secret) < _LEAST_SECRET_BYTES:
            raise RegionCertificateError(
                CertificateProblem.SHORT_SECRET,
                f"{self.file} holds fewer than {_LEAST_SECRET_BYTES} bytes",
            )
        identity = f"spiffe://heliostat/region/{self.region}"
        signing_key = _derive_key(secret, self.region)
        authority = _name(f"heliostat region {self.region}")
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _begin(authority, _name(self.region), key.public_key(), now)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)]),
                critical=False,
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(_USAGES), critical=False)
            .sign(signing_key, hashes.SHA256())
        )
        authority_certificate = (
            _begin(authority, authority, signing_key.public_key(), now)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(signing_key, hashes.SHA256())
        )
        return RegionCertificate(
            certificate.public_bytes(Encoding.PEM),
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            authority_certificate.public_bytes(Encoding.PEM),
            identity,
            certificate.not_valid_after_utc,
        )


class Lifetime(StrEnum):
    """How much is left of the certificate in use."""

    LONG = "long"
    ENDING = "ending"
    OVER = "over"


class RegionCertificates:
    """The newest good certificate of a source that may change.

    `problem` says why the source as it is now cannot be used; the last good one stays. What an
    operator must know of both, `problems` says in one sentence.
    """

    def __init__(
        self,
        source: CertificateSource,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._source = source
        self._now = now
        self._version: tuple[int, ...] = ()
        self.current: RegionCertificate | None = None
        self.problem: RegionCertificateError | None = None
        self._noted = Lifetime.LONG
        self.refresh()

    @property
    def identity(self) -> str | None:
        """This region's own URI; None while there has been no certificate."""
        return None if self.current is None else self.current.identity

    @property
    def expires_at(self) -> datetime | None:
        """When the certificate in use ends."""
        return None if self.current is None else self.current.expires_at

    @property
    def seconds_left(self) -> float | None:
        """How long the certificate in use is still valid; negative once it is not."""
        end = self.expires_at
        return None if end is None else (end - self._now()).total_seconds()

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the source or with the certificate in use, and what to do."""
        if self.problem is not None:
            rest = "until then no other router is reached"
            if self.current is not None:
                state = "expired at" if self._lifetime is Lifetime.OVER else "is used until"
                rest = f"the one before {state} {_minute(self.current.expires_at)}"
            return (f"region certificate of no use: {self.problem}: mend it; {rest}",)
        if self.current is None or self._lifetime is Lifetime.LONG:
            return ()
        end = _minute(self.current.expires_at)
        if self._lifetime is Lifetime.OVER:
            return (f"region certificate expired at {end}: renew it; nobody accepts it any more",)
        return (f"region certificate expires at {end}: renew it; it is read again by itself",)

    @property
    def _lifetime(self) -> Lifetime:
        left = self.seconds_left
        if left is None or left > _EXPIRES_SOON.total_seconds():
            return Lifetime.LONG
        return Lifetime.ENDING if left > 0 else Lifetime.OVER

    def refresh(self) -> bool:
        """Read the source if it has changed, or could not be used; True with a new certificate."""
        is_new = self._read()
        self._note_lifetime()
        return is_new

    def _read(self) -> bool:
        now = self._now()
        version = self._source.version(now)
        if version == self._version and self.problem is None and self.current is not None:
            return False
        self._version = version
        try:
            certificate = self._source.read(now)
        except RegionCertificateError as error:
            self._note(error)
            return False
        if self.problem is not None:
            _log.info("region certificate of use again", identity=certificate.identity)
        self.problem = None
        if certificate == self.current:
            return False
        self.current = certificate
        _log.info(
            "region certificate taken",
            identity=certificate.identity,
            expires_at=certificate.expires_at.isoformat(),
        )
        return True

    async def follow(self, on_change: Callable[[RegionCertificate], None]) -> None:
        """Tell of each new certificate, for ever."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            if self.refresh() and self.current is not None:
                on_change(self.current)

    def _note_lifetime(self) -> None:
        """Log once that the certificate in use ends soon, and once that it has ended."""
        lifetime, before = self._lifetime, self._noted
        self._noted = lifetime
        end = self.expires_at
        if lifetime is before or lifetime is Lifetime.LONG or end is None:
            return
        if lifetime is Lifetime.OVER:
            _log.error("region certificate has expired: renew it", expires_at=end.isoformat())
        else:
            _log.warning("region certificate expires soon: renew it", expires_at=end.isoformat())

    def _note(self, error: RegionCertificateError) -> None:
        if self.problem is None or str(self.problem) != str(error):
            _log.error("region certificate of no use", reason=error.reason, problem=str(error))
        self.problem = error


def _minute(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RegionCertificateError(
            CertificateProblem.UNREADABLE, f"cannot read {path}: {error.strerror}"
        ) from error


def _file_version(*paths: Path) -> tuple[int, ...]:
    try:
        states = [path.stat() for path in paths]
    except OSError:
        return ()
    return tuple(it for state in states for it in (state.st_mtime_ns, state.st_ino, state.st_size))


def _parse(pem: bytes, path: Path) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise RegionCertificateError(
            CertificateProblem.NOT_PEM, f"{path} holds no PEM certificate"
        ) from error


def _read_identity(leaf: x509.Certificate, path: Path) -> str:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except (x509.ExtensionNotFound, ValueError):
        uris = []
    if len(uris) != 1:
        raise RegionCertificateError(
            CertificateProblem.NO_IDENTITY,
            f"{path} must name one URI, the region's identity, and names {len(uris)}",
        )
    return uris[0]


def _check_usage(leaf: x509.Certificate, path: Path) -> None:
    try:
        usage = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return
    if not all(it in usage for it in _USAGES):
        raise RegionCertificateError(
            CertificateProblem.WRONG_USAGE,
            f"{path} must be for server auth and client auth: regions call each other",
        )


def _check_validity(leaf: x509.Certificate, now: datetime, path: Path) -> None:
    if now < leaf.not_valid_before_utc:
        raise RegionCertificateError(
            CertificateProblem.NOT_YET_VALID, f"{path} is valid from {leaf.not_valid_before_utc} on"
        )
    if now >= leaf.not_valid_after_utc:
        raise RegionCertificateError(
            CertificateProblem.EXPIRED, f"{path} has expired at {leaf.not_valid_after_utc}"
        )


def _is_valid(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc


def _is_vouched_for(
    chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate]
) -> bool:
    """Whether the chain leads from its leaf, step by step, to one of the authorities."""
    for certificate, issuer in zip(chain, [*chain[1:], None], strict=True):
        if any(_has_issued(it, certificate) for it in authorities):
            return True
        if issuer is None or not _has_issued(issuer, certificate):
            return False
    return False


def _has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (*_NOT_SUPPORTED, InvalidSignature):
        return False
    return True


def _derive_key(secret: bytes, region: str) -> ec.EllipticCurvePrivateKey:
    # 16 bytes more than the order has: what is left of the division is as good as uniform.
    derived = HKDF(
        hashes.SHA256(), length=48, salt=b"heliostat region authority", info=region.encode()
    ).derive(secret)
    return ec.derive_private_key(
        int.from_bytes(derived, "big") % (_P256_ORDER - 1) + 1, ec.SECP256R1()
    )


def _begin(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _MADE_LIFETIME)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
