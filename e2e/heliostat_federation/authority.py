"""The regions' certificates, as they should be and as they should not."""

import os
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from heliostat_cli.authority import Authority, open_authority

TRUST_DOMAIN = "heliostat.example"


def identity_of(region: str) -> str:
    """The URI in a region's certificate."""
    return f"spiffe://{TRUST_DOMAIN}/region/{region}"


class Certificates:
    """An authority, and the folder that each region's gateway reads.

    Folders are replaced as the kubelet replaces a mounted Secret: the files are links through a
    link that is changed in one step.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.newest = 0
        self._written = 0

    def folder(self, region: str) -> Path:
        """Where the region's gateway finds tls.crt, tls.key and ca.crt."""
        return self._folder / "regions" / region

    def new_authority(self) -> int:
        """Sign with another authority from now on; gives its number."""
        self.newest += 1
        return self.newest

    def issue(
        self,
        region: str,
        *,
        named: str | None = None,
        lifetime: timedelta = timedelta(days=30),
        at: datetime | None = None,
        signer: int | None = None,
        trusts: Iterable[int] | None = None,
    ) -> None:
        """Give a region a certificate.

        named -- the region that it names, if not the region itself
        at -- when it was issued, if not now
        signer -- the number of the authority that signs, if not the newest
        trusts -- the numbers of the authorities that the region believes, if not the signer alone
        """
        number = self.newest if signer is None else signer
        files = self._authority(number).issue(named or region, lifetime, at or datetime.now(UTC))
        believed = [number] if trusts is None else list(trusts)
        bundle = b"".join(self._believed(number) for number in believed)
        self._replace(region, files.folder, bundle)

    def _believed(self, number: int) -> bytes:
        self._authority(number)
        return (self._authority_folder(number) / "ca.crt").read_bytes()

    def _authority(self, number: int) -> Authority:
        long_ago = datetime.now(UTC) - timedelta(days=100)
        folder = self._authority_folder(number)
        return open_authority(folder, TRUST_DOMAIN, TRUST_DOMAIN, long_ago)

    def _authority_folder(self, number: int) -> Path:
        return self._folder / f"authority-{number}"

    def _replace(self, region: str, issued: Path, bundle: bytes) -> None:
        folder = self.folder(region)
        folder.mkdir(parents=True, exist_ok=True)
        self._written += 1
        data = folder / f"..{self._written}"
        shutil.copytree(issued, data)
        (data / "ca.crt").write_bytes(bundle)
        draft = folder / "..new"
        draft.symlink_to(data.name)
        os.replace(draft, folder / "..data")
        for name in ("tls.crt", "tls.key", "ca.crt"):
            if not (folder / name).is_symlink():
                (folder / name).symlink_to(f"..data/{name}")
