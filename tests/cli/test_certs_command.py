"""`heliostat certs`: what it writes makes regions recognise each other, and nobody else."""

import ssl
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from heliostat_cli.authority import AuthorityError, open_authority
from heliostat_cli.main import main


def identity(folder: Path) -> str:
    """The URI in a region's certificate."""
    certificate = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uri


def shake_hands(client: Path, server: Path) -> None:
    """Let two regions meet over mutual TLS; ssl.SSLError where one does not trust the other."""
    contexts = []
    for folder, protocol in ((client, ssl.PROTOCOL_TLS_CLIENT), (server, ssl.PROTOCOL_TLS_SERVER)):
        context = ssl.SSLContext(protocol)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        context.load_verify_locations(folder / "ca.crt")
        contexts.append(context)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        contexts[0].wrap_bio(to_client, to_server),
        contexts[1].wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    for end in ends:
        assert end.getpeercert() is not None
        assert end.cipher() is not None


def test_regions_of_one_authority_recognise_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each region serves and asks over mutual TLS, with its identity in the certificate."""
    out = tmp_path / "out"
    assert main(["certs", "--out", str(out), "us", "eu"]) == 0
    shake_hands(out / "us", out / "eu")
    shake_hands(out / "eu", out / "us")
    assert identity(out / "us") == "spiffe://heliostat.example/region/us"
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("us: spiffe://heliostat.example/region/us until ")
    sources = " ".join(f"--from-file={out}/us/{name}" for name in ("tls.crt", "tls.key", "ca.crt"))
    assert told[1] == f"  kubectl create secret generic heliostat-region {sources}"
    assert told[2].startswith("eu: ")


def test_another_authority_is_not_trusted(tmp_path: Path) -> None:
    """A region of another folder is refused, whatever its name."""
    for folder in ("one", "other"):
        assert main(["certs", "--out", str(tmp_path / folder), "us"]) == 0
    with pytest.raises(ssl.SSLError):
        shake_hands(tmp_path / "one" / "us", tmp_path / "other" / "us")


def test_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    """Every file, replaced ones too, has mode 0600, and no draft is left."""
    out = tmp_path / "out"
    for _ in range(2):
        assert main(["certs", "--out", str(out), "us"]) == 0
        files = [path for path in out.rglob("*") if path.is_file()]
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
        assert sorted(path.name for path in files) == (
            ["ca.crt", "ca.crt", "ca.key", "tls.crt", "tls.key"]
        )


def test_running_again_renews_and_adds_with_the_same_authority(tmp_path: Path) -> None:
    """A renewed region has a new key; old and new ones trust each other."""
    assert main(["certs", "--out", str(tmp_path), "--trust-domain", "corp.example", "us"]) == 0
    authority, key = ((tmp_path / "us" / name).read_bytes() for name in ("ca.crt", "tls.key"))
    (tmp_path / "us").rename(tmp_path / "old")
    assert main(["certs", "--out", str(tmp_path), "us", "asia"]) == 0
    assert (tmp_path / "us" / "ca.crt").read_bytes() == authority
    assert (tmp_path / "us" / "tls.key").read_bytes() != key
    assert identity(tmp_path / "asia") == "spiffe://corp.example/region/asia"
    shake_hands(tmp_path / "old", tmp_path / "asia")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["US"], "not 'US'"),
        (["../us"], "not '../us'"),
        (["us", "--trust-domain", "Corp"], "trust domain must be"),
        (["us", "--trust-domain", "other.example"], "of the trust domain heliostat.example, not"),
    ],
)
def test_what_cannot_be_issued_is_one_clear_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], problem: str
) -> None:
    """Status 1 and a line that says why; nothing is written."""
    assert main(["certs", "--out", str(tmp_path), "--days", "30", "eu"]) == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    capsys.readouterr()
    status = main(["certs", "--out", str(tmp_path), *arguments])
    error = capsys.readouterr().err
    assert status == 1
    assert error.startswith("heliostat certs: ")
    assert problem in error
    assert error.count("\n") == 1
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before


def test_an_authority_that_has_ended_issues_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing outlives its authority, and one that has ended says so."""
    past = datetime.now(UTC) - timedelta(days=3645)
    authority = open_authority(tmp_path, None, "heliostat.example", past)
    ends = authority.issue("us", timedelta(days=3650), past).expires_at
    assert main(["certs", "--out", str(tmp_path), "us"]) == 0
    assert f"until {ends:%Y-%m-%d %H:%M} UTC" in capsys.readouterr().out
    later = datetime.now(UTC) + timedelta(days=6)
    with pytest.raises(AuthorityError, match="has ended"):
        authority.issue("us", timedelta(days=1), later)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("ca.key", None, "ca.crt is there without its other half"),
        ("ca.crt", b"nonsense", "ca.crt holds no certificate in PEM"),
        ("ca.key", b"nonsense", "ca.key holds no unencrypted private key in PEM"),
        ("ca.key", b"other", "ca.key is not the key of"),
    ],
)
def test_a_damaged_authority_is_not_replaced(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    problem: str,
) -> None:
    """Files that do not fit together are told, and stay as they are."""
    out, other = tmp_path / "out", tmp_path / "other"
    for folder in (out, other):
        assert main(["certs", "--out", str(folder), "us"]) == 0
    if content is None:
        (out / name).unlink()
    else:
        (out / name).write_bytes((other / name).read_bytes() if content == b"other" else content)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert main(["certs", "--out", str(out), "us"]) == 1
    assert problem in capsys.readouterr().err
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
