"""The certificate of a region: which files can be used, and what follows when they change."""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from structlog.testing import capture_logs

from heliostat_extproc.federation.region_certificate import (
    CertificateFolder,
    CertificateProblem,
    RegionCertificateError,
    RegionCertificates,
    SharedSecret,
)

NOW = datetime(2030, 1, 1, tzinfo=UTC)
IDENTITY = "spiffe://heliostat.example/region/us"
DAY = timedelta(days=1)
P256 = bytes.fromhex("06082a8648ce3d030107")
"""The curve's OID, as keys name it."""


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


class Signer:
    """An authority, or what one has signed."""

    def __init__(self, name: str, issuer: "Signer | None" = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = (issuer or self).sign(self.name, self.key.public_key())
        self.pem = self.certificate.public_bytes(Encoding.PEM)

    def sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        *extensions: x509.ExtensionType,
        start: datetime = NOW - DAY,
        end: datetime = NOW + DAY,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .issuer_name(self.name)
            .subject_name(subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
        )
        for extension in extensions or (x509.BasicConstraints(ca=True, path_length=None),):
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self.key, hashes.SHA256())


def names(*uris: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri) for uri in uris])


class Files:
    """A folder that can be used, until a test spoils it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Signer("authority")
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.write("ca.crt", self.authority.pem)
        self.write("tls.key", pem(self.key))
        self.certify()

    def write(self, name: str, content: bytes) -> None:
        """Put a file into the place of the old one."""
        draft = self.folder / f".{name}"
        draft.write_bytes(content)
        draft.replace(self.folder / name)

    def certify(
        self,
        *extensions: x509.ExtensionType,
        signer: Signer | None = None,
        rest: bytes = b"",
        start: datetime = NOW - DAY,
        end: datetime = NOW + DAY,
    ) -> None:
        """Write a certificate for the key."""
        certificate = (signer or self.authority).sign(
            x509.Name([]),
            self.key.public_key(),
            *(extensions or (names(IDENTITY),)),
            start=start,
            end=end,
        )
        self.write("tls.crt", certificate.public_bytes(Encoding.PEM) + rest)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_good_folder_gives_identity_and_expiry(files: Files) -> None:
    """The identity is the certificate's URI."""
    certificate = CertificateFolder(files.folder).read(NOW)
    assert certificate.identity == IDENTITY
    assert certificate.expires_at == NOW + DAY
    assert certificate.authority == files.authority.pem
    assert "PRIVATE" not in repr(certificate)


def test_a_chain_may_lead_to_the_authority_by_steps(files: Files) -> None:
    """An intermediate in tls.crt vouches for the certificate, and the authority for it."""
    intermediate = Signer("intermediate", issuer=files.authority)
    files.certify(signer=intermediate, rest=intermediate.pem)
    assert CertificateFolder(files.folder).read(NOW).identity == IDENTITY


def use_unknown_curve(files: Files) -> None:
    """Write a key as of a newer library's curve."""
    der = files.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    body = base64.encodebytes(der.replace(P256, P256[:-1] + b"\x06")).decode()
    text = f"-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n"
    files.write("tls.key", text.encode())


SPOILED: dict[str, tuple[CertificateProblem, Callable[[Files], None]]] = {
    "no file": (CertificateProblem.UNREADABLE, lambda it: (it.folder / "ca.crt").unlink()),
    "no key": (CertificateProblem.NOT_PEM, lambda it: it.write("tls.key", b"nonsense")),
    "no certificate": (CertificateProblem.NOT_PEM, lambda it: it.write("tls.crt", b"nonsense")),
    "no authority": (CertificateProblem.NOT_PEM, lambda it: it.write("ca.crt", b"")),
    "another's key": (
        CertificateProblem.WRONG_KEY,
        lambda it: it.write("tls.key", pem(ec.generate_private_key(ec.SECP256R1()))),
    ),
    "an unknown curve": (CertificateProblem.NOT_SUPPORTED, use_unknown_curve),
    "no names": (
        CertificateProblem.NO_IDENTITY,
        lambda it: it.certify(x509.BasicConstraints(ca=False, path_length=None)),
    ),
    "two identities": (
        CertificateProblem.NO_IDENTITY,
        lambda it: it.certify(names(IDENTITY, f"{IDENTITY}-2")),
    ),
    "servers alone": (
        CertificateProblem.WRONG_USAGE,
        lambda it: it.certify(
            names(IDENTITY), x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        ),
    ),
    "later": (
        CertificateProblem.NOT_YET_VALID,
        lambda it: it.certify(start=NOW + DAY / 2),
    ),
    "past": (
        CertificateProblem.EXPIRED,
        lambda it: it.certify(start=NOW - 2 * DAY, end=NOW),
    ),
    "another authority": (
        CertificateProblem.WRONG_AUTHORITY,
        lambda it: it.certify(signer=Signer("authority")),
    ),
    "a missing step": (
        CertificateProblem.WRONG_AUTHORITY,
        lambda it: it.certify(signer=Signer("intermediate", issuer=it.authority)),
    ),
}


@pytest.mark.parametrize("how", SPOILED)
def test_folders_of_no_use_are_told_apart(files: Files, how: str) -> None:
    """Each kind has its reason, and what was good before stays until the files are good again."""
    certificates = RegionCertificates(CertificateFolder(files.folder), lambda: NOW)
    first = certificates.current
    reason, spoil = SPOILED[how]
    spoil(files)
    with pytest.raises(RegionCertificateError) as error:
        CertificateFolder(files.folder).read(NOW)
    assert error.value.reason is reason
    assert not certificates.refresh()
    assert certificates.current is first
    assert certificates.problem is not None
    assert certificates.problem.reason is reason
    mended = Files(files.folder)
    assert certificates.refresh()
    assert certificates.problem is None
    assert certificates.current is not None
    assert certificates.current.authority == mended.authority.pem


def test_a_certificate_of_tomorrow_is_taken_tomorrow(files: Files) -> None:
    """No file changes when it becomes valid."""
    now = NOW - 2 * DAY
    certificates = RegionCertificates(CertificateFolder(files.folder), lambda: now)
    assert certificates.identity is None
    now = NOW
    assert certificates.refresh()
    assert (certificates.identity, certificates.expires_at) == (IDENTITY, NOW + DAY)


def test_unchanged_files_are_not_news(files: Files) -> None:
    """What is written again as it was is no new certificate."""
    certificates = RegionCertificates(CertificateFolder(files.folder), lambda: NOW)
    files.write("tls.key", pem(files.key))
    assert not certificates.refresh()


def test_a_certificate_that_ends_soon_is_a_problem_until_it_is_renewed(files: Files) -> None:
    """A warning comes once a week before, an error once it has expired, and what to do is said."""
    end = NOW + 10 * DAY
    authority = files.authority
    lasting = authority.sign(authority.name, authority.key.public_key(), end=NOW + 90 * DAY)
    files.write("ca.crt", lasting.public_bytes(Encoding.PEM))
    files.certify(end=end)
    now = NOW
    certificates = RegionCertificates(CertificateFolder(files.folder), lambda: now)
    told: list[list[str]] = []
    for instant in (NOW, end - 7 * DAY, end - DAY, end, end + DAY):
        now = instant
        with capture_logs() as lines:
            certificates.refresh()
            certificates.refresh()
        told.append([line["log_level"] for line in lines])
        assert len(certificates.problems) == (now != NOW)
        if now == end - DAY:
            assert "".join(certificates.problems) == (
                "region certificate expires at 2030-01-11 00:00 UTC: renew it; it is read again by"
                " itself"
            )
            assert certificates.seconds_left == DAY.total_seconds()
    assert told == [[], ["warning"], [], ["error"], []]
    assert certificates.problems == (
        "region certificate expired at 2030-01-11 00:00 UTC: renew it; nobody accepts it any more",
    )
    files.certify(end=now + 10 * DAY)
    assert certificates.refresh()
    assert certificates.problems == ()


def test_files_of_no_use_are_a_problem_until_they_are_mended(files: Files) -> None:
    """It is said which certificate is used meanwhile, and logged once that all is well again."""
    files.certify(end=NOW + 30 * DAY)
    certificates = RegionCertificates(CertificateFolder(files.folder), lambda: NOW)
    (files.folder / "tls.key").unlink()
    certificates.refresh()
    assert "".join(certificates.problems) == (
        f"region certificate of no use: cannot read {files.folder}/tls.key: No such file or"
        " directory: mend it; the one before is used until 2030-01-31 00:00 UTC"
    )
    files.write("tls.key", pem(files.key))
    with capture_logs() as lines:
        certificates.refresh()
        certificates.refresh()
    assert [line["event"] for line in lines] == ["region certificate of use again"]
    assert certificates.problems == ()


def test_a_router_without_any_certificate_has_a_problem(tmp_path: Path) -> None:
    """It says that nobody is reached until there is one."""
    certificates = RegionCertificates(CertificateFolder(tmp_path), lambda: NOW)
    (problem,) = certificates.problems
    assert problem.endswith("mend it; until then no other router is reached")
    assert certificates.seconds_left is None


def shared(tmp_path: Path, region: str = "us", word: str = "a-word-of-some-length") -> object:
    file = tmp_path / "secret"
    file.write_text(f"{word}\n")
    return SharedSecret(file, region).read(NOW)


def trusts(one: object, other: object) -> bool:
    authority = x509.load_pem_x509_certificate(one.authority)
    try:
        x509.load_pem_x509_certificate(other.certificate).verify_directly_issued_by(authority)
    except Exception:
        return False
    return True


def test_routers_that_share_a_secret_trust_each_other_and_nobody_else(tmp_path: Path) -> None:
    """Each has a key of its own; another secret or another region is a stranger."""
    one, other = shared(tmp_path), shared(tmp_path)
    assert trusts(one, other)
    assert trusts(other, one)
    assert one.key != other.key
    assert one.identity == other.identity == "spiffe://heliostat/region/us"
    assert not trusts(one, shared(tmp_path, region="eu"))
    assert not trusts(one, shared(tmp_path, word="another-word-as-long"))


def test_a_short_secret_is_refused(tmp_path: Path) -> None:
    """What can be guessed proves nothing."""
    with pytest.raises(RegionCertificateError) as error:
        shared(tmp_path, word="short")
    assert error.value.reason is CertificateProblem.SHORT_SECRET


def test_a_made_certificate_is_renewed_long_before_it_ends(tmp_path: Path) -> None:
    """Nothing has to change for that."""
    shared(tmp_path)
    now = NOW
    certificates = RegionCertificates(SharedSecret(tmp_path / "secret", "us"), lambda: now)
    first = certificates.expires_at
    now = NOW + 11 * DAY
    assert certificates.refresh()
    assert first is not None
    assert first > now
    assert certificates.expires_at == first + 11 * DAY
