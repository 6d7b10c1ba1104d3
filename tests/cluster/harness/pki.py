"""The certificates of a cluster: one authority, and whatever it signs. Elliptic curves: made in a moment."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LIFETIME = dt.timedelta(days=365)


@dataclass(frozen=True)
class Pair:
    """A certificate (or a public key) and its private key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """Signs certificates into a folder; made once, found again by whoever opens the folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.pair = Pair(folder / "ca.crt", folder / "ca.key")
        if not self.pair.key.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            name = _name("warpctl-test-ca", ())
            usage = _usage(signs_certificates=True)
            public = key.public_key()
            builder = _builder(name, name, public, signer=public, is_authority=True, usage=usage)
            _write(self.pair, key, builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    def server(self, name: str, addresses: Sequence[str]) -> Pair:
        """A server certificate for DNS names and IP addresses; it may also log in as a client of that name."""
        return self._issue(name, (), addresses)

    def user(self, name: str, groups: Sequence[str] = ()) -> Pair:
        """A client certificate: CN is the user, each O a group."""
        return self._issue(name, groups, ())

    def service_account_keys(self) -> Pair:
        """The key pair that signs service account tokens."""
        pair = Pair(self.folder / "service-accounts.pub", self.folder / "service-accounts.key")
        if not pair.key.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            public = key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            _write(pair, key, public)
        return pair

    def _issue(self, name: str, groups: Sequence[str], addresses: Sequence[str]) -> Pair:
        file = "-".join([name, *sorted(groups)]).replace(":", "_").replace("/", "_")
        pair = Pair(self.folder / f"{file}.crt", self.folder / f"{file}.key")
        if pair.key.exists():
            return pair
        authority = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes())
        authority_key = serialization.load_pem_private_key(self.pair.key.read_bytes(), password=None)
        assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(
            _name(name, groups),
            authority.subject,
            key.public_key(),
            signer=authority_key.public_key(),
            is_authority=False,
            usage=_usage(),
        )
        uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if addresses:
            uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
            names = x509.SubjectAlternativeName([_alternative(address) for address in addresses])
            builder = builder.add_extension(names, critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        certificate = builder.sign(authority_key, hashes.SHA256())
        _write(pair, key, certificate.public_bytes(serialization.Encoding.PEM))
        return pair


def _name(name: str, groups: Sequence[str]) -> x509.Name:
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    *,
    signer: ec.EllipticCurvePublicKey,
    is_authority: bool,
    usage: x509.KeyUsage,
) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))  # tests let clocks jump
        .not_valid_after(now + LIFETIME)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        # Python 3.13 refuses certificates without these two.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer), critical=False)
    )


def _alternative(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _write(pair: Pair, key: ec.EllipticCurvePrivateKey, certificate: bytes) -> None:
    """The key last: where it exists, the pair is whole."""
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pair.certificate.write_bytes(certificate)
    partial = pair.key.with_suffix(".tmp")
    partial.touch(mode=0o600)
    partial.write_bytes(private)
    partial.replace(pair.key)
