"""`heliostat certs`: certificates with which regions recognise each other, for trying out."""

import argparse
import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from heliostat_cli.authority import AuthorityError, RegionFiles, check_region, open_authority

_DEFAULT_TRUST_DOMAIN = "heliostat.example"
_DEFAULT_DAYS = 90
_SECRET = "heliostat-region"  # noqa: S105 - the name of a Secret


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.epilog = (
        "Run again, it adds regions or renews their certificates with the same authority; gateways"
        " take the new files without restart. Whoever has DIR/ca.key can pass for any region: in"
        " production let cert-manager or SPIRE issue the certificates."
    )
    parser.add_argument("regions", nargs="+", metavar="REGION", help="name of a region")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the authority (ca.crt, ca.key); each region's tls.crt, tls.key and ca.crt"
        " go to DIR/REGION",
    )
    parser.add_argument(
        "--trust-domain",
        metavar="NAME",
        help=f"of the identities spiffe://NAME/region/REGION (default: the authority's, for a new"
        f" one {_DEFAULT_TRUST_DOMAIN})",
    )
    parser.add_argument(
        "--days",
        type=_days,
        default=_DEFAULT_DAYS,
        metavar="N",
        help="how long certificates of regions hold (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Write the files; the exit status is 1 where one cannot be written."""
    now = datetime.now(UTC)
    try:
        for region in args.regions:
            check_region(region)
        authority = open_authority(args.out, args.trust_domain, _DEFAULT_TRUST_DOMAIN, now)
        for region in dict.fromkeys(args.regions):
            _tell(authority.issue(region, timedelta(days=args.days), now))
    except AuthorityError as error:
        print(f"heliostat certs: {error}", file=sys.stderr)
        return 1
    return 0


def _tell(files: RegionFiles) -> None:
    names = ("tls.crt", "tls.key", "ca.crt")
    sources = " ".join(f"--from-file={shlex.quote(str(files.folder / name))}" for name in names)
    print(f"{files.region}: {files.identity} until {files.expires_at:%Y-%m-%d %H:%M} UTC")
    print(f"  kubectl create secret generic {_SECRET} {sources}")


def _days(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 3650:
        raise argparse.ArgumentTypeError("must be 1 to 3650")
    return value
