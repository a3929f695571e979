"""The router's own certificate, and files that cannot be one."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)

from heliostat_extproc.certificates import CertificateError, CertificateFiles, make_self_signed

NOW = datetime(2030, 1, 1, tzinfo=UTC)


def test_the_self_signed_certificate_holds_for_years_and_signs_no_other() -> None:
    """Clocks that lag a little accept it too, and it names its host."""
    pair = make_self_signed("router.example", NOW)
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    assert certificate.not_valid_before_utc < NOW
    assert certificate.not_valid_after_utc > NOW.replace(year=2039)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["router.example"]
    constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert not constraints.ca


def _encrypted_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("tls.crt", None, r"cannot read .*tls\.crt: No such file"),
        ("tls.key", None, r"cannot read .*tls\.key: No such file"),
        ("tls.crt", b"nonsense", r"tls\.crt holds no PEM certificate"),
        ("tls.key", b"nonsense", r"tls\.key holds no unencrypted PEM private key"),
        ("tls.key", _encrypted_key(), r"tls\.key holds no unencrypted PEM private key"),
        ("tls.key", make_self_signed("other", NOW).key, r"tls\.key is not the key of .*tls\.crt"),
    ],
)
def test_files_of_no_use_are_told_apart(
    tmp_path: Path, file: str, content: bytes | None, problem: str
) -> None:
    """The error names the file and what is wrong with it."""
    pair = make_self_signed("router.example", NOW)
    files = CertificateFiles(tmp_path / "tls.crt", tmp_path / "tls.key")
    files.certificate.write_bytes(pair.certificate)
    files.key.write_bytes(pair.key)
    assert files.read() == pair
    if content is None:
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(content)
    with pytest.raises(CertificateError, match=problem):
        files.read()
