"""Pins, chains that servers could show, and a model of who is right that knows no OpenSSL.

The model looks at objects: which key signed what, and which certificate is pinned. What a client
must answer follows from it. The bytes are made of the same objects by `cryptography`.
"""

import datetime
import functools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

HOST = "localhost"
COMPANY = "Company CA"
BY_KEY = "the hash of the key"
VALID, EXPIRED, NOT_YET = (-9, 9), (-9, -1), (1, 9)
# A CA's key may sign certificates and lists of revoked ones. A CA may also be a server's own
# certificate, so its key may sign handshakes.
SIGNS_ALL = x509.KeyUsage(True, *[False] * 4, True, True, False, False)
NOW = datetime.datetime.now(datetime.UTC)


class Key:
    """A private key. Whoever has this object can sign with it."""

    def __init__(self, kind="EC"):
        self.kind = kind
        if kind == "EC":
            self.private = ec.generate_private_key(ec.SECP256R1())
        else:
            self.private = rsa.generate_private_key(65537, 2048)

    @property
    def public(self):
        public = self.private.public_key()
        return OnlyForPSS(public) if self.kind == "RSA-PSS" else public

    @functools.cached_property
    def identifier(self):
        return x509.SubjectKeyIdentifier.from_public_key(self.private.public_key()).digest

    @functools.cached_property
    def pem(self):
        return self.private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )

    def sign(self, builder):
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if self.kind == "RSA-PSS" else None
        return builder.sign(self.private, hashes.SHA256(), rsa_padding=pss)


class OnlyForPSS:
    """An RSA key for PSS only (RFC 4055, 1.2), a kind that `cryptography` cannot write."""

    def __init__(self, key):
        self._key = key

    def public_bytes(self, *form):
        plain = self._key.public_bytes(*form)
        rsa_encryption = bytes.fromhex("300d06092a864886f70d0101010500")
        rsassa_pss = bytes.fromhex("300b06092a864886f70d01010a")
        content = plain[4:].replace(rsa_encryption, rsassa_pss)
        return plain[:2] + len(content).to_bytes(2, "big") + content


rsa.RSAPublicKey.register(OnlyForPSS)


@dataclass(frozen=True, eq=False)
class Cert:
    """A certificate. `by` is the issuer that it names, or None if it names itself.

    `own_id` and `issuer_id` are the identifiers of the keys, BY_KEY as most tools make them. With
    `names_issuer` the name and number of the issuer's certificate are in it, too. `signer` is the
    key that has signed it, if it is not the key of `by`.
    """

    subject: str
    by: "Cert | None" = None
    key: Key = field(default_factory=Key)
    ca: bool = False
    path_length: int | None = None
    days: tuple = VALID
    for_servers: bool = True
    hosts: tuple = ()
    own_id: bytes | str | None = BY_KEY
    issuer_id: bytes | str | None = BY_KEY
    names_issuer: bool = False
    critical: bool = False
    bare: bool = False
    signer: Key | None = None
    number: int = field(default_factory=x509.random_serial_number)

    @property
    def issuer(self):
        return self.by or self

    @property
    def signed_by(self):
        return self.signer or self.issuer.key

    @property
    def identifier(self):
        return self.key.identifier if self.own_id == BY_KEY else self.own_id

    @property
    def issuers_identifier(self):
        return self.issuer.identifier if self.issuer_id == BY_KEY else self.issuer_id

    @functools.cached_property
    def pem(self):
        builder = (
            x509.CertificateBuilder()
            .subject_name(name_of(self))
            .issuer_name(name_of(self.issuer))
            .public_key(self.key.public)
            .serial_number(self.number)
            .not_valid_before(NOW + datetime.timedelta(days=self.days[0]))
            .not_valid_after(NOW + datetime.timedelta(days=self.days[1]))
        )
        for extension, critical in () if self.bare else extensions_of(self):
            builder = builder.add_extension(extension, critical)
        return self.signed_by.sign(builder).public_bytes(serialization.Encoding.PEM).decode()


def name_of(cert):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, cert.subject)])


def extensions_of(cert):
    """Return [(extension, whether it is critical)]."""
    found = [(x509.BasicConstraints(cert.ca, cert.path_length), True)]
    if cert.ca:
        found.append((SIGNS_ALL, True))
    else:
        purpose = "SERVER_AUTH" if cert.for_servers else "CLIENT_AUTH"
        found.append((x509.ExtendedKeyUsage([getattr(ExtendedKeyUsageOID, purpose)]), False))
    if cert.hosts:
        names = [x509.DNSName(host) for host in cert.hosts]
        found.append((x509.SubjectAlternativeName(names), False))
    if cert.identifier:
        found.append((x509.SubjectKeyIdentifier(cert.identifier), cert.critical))
    issuers = [x509.DirectoryName(name_of(cert.issuer.issuer))] if cert.names_issuer else None
    number = cert.issuer.number if cert.names_issuer else None
    if cert.issuers_identifier or issuers:
        identifier = x509.AuthorityKeyIdentifier(cert.issuers_identifier, issuers, number)
        found.append((identifier, cert.critical))
    return found


# The model


def in_time(cert):
    return cert.days[0] < 0 < cert.days[1]


def is_pin(cert):
    """Return whether it is a server's certificate or a root, which names and signs itself."""
    return not cert.ca or (cert.issuer.subject == cert.subject and cert.signed_by is cert.key)


def names(cert, ca):
    """Return whether the CA is the issuer that the certificate names."""
    if cert.issuer.subject != ca.subject:
        return False
    if cert.names_issuer and (cert.issuer.issuer.subject, cert.issuer.number) != (
        ca.issuer.subject,
        ca.number,
    ):
        return False
    both = ca.identifier and not cert.bare and cert.issuers_identifier
    return not both or cert.issuers_identifier == ca.identifier


def ends_a_chain(cert):
    """Return whether nothing in it says that another CA signed it, so that a client stops there.

    That is so for a root. It is also so for a CA renewed under its old name, if nothing tells the
    two keys apart; such a CA is of no use before the client has it.
    """
    return names(cert, cert) and cert.signed_by.kind == cert.key.kind


def issued(cert, ca, below):
    """Return whether this CA has issued the certificate, and may, `below` other CAs."""
    allowed = ca.path_length is None or below <= ca.path_length
    return ca.ca and allowed and cert.signed_by is ca.key and names(cert, ca)


def reaches_root(cert, pins, others, below=0):
    """Whether a chain leads from the certificate to one of the pins, which are roots or itself."""
    # RFC 5280 forbids critical key identifiers, and says to refuse unknown critical extensions.
    if cert.critical or not in_time(cert):
        return False
    if cert in pins:
        return True
    if ends_a_chain(cert):
        return False
    return any(
        reaches_root(ca, pins, others - {ca}, below + (ca.subject != ca.issuer.subject))
        for ca in others
        if issued(cert, ca, below)
    )


def accepted(given, sent, public):
    """Return whether a server that sends this chain is the one that the pins are for."""
    pins = {cert for cert in given if is_pin(cert)}
    if holds_public(given, public) or not sent[0].for_servers:
        return False
    return reaches_root(sent[0], pins, pins | set(sent))


def accepted_by_name(cas, sent):
    """Return the same without a pin: one of `cas` must vouch for the chain and the host name."""
    known = set(cas) | set(sent)
    # As in Python by default, the common name counts where there is no other name.
    return HOST in (sent[0].hosts or [sent[0].subject]) and reaches_root(sent[0], set(cas), known)


def must_not_be_read(given, public):
    """Return whether the names alone show that the text holds no pin, or a public CA's."""
    cas_between = [cert for cert in given if cert.ca and cert.issuer.subject != cert.subject]
    return holds_public(given, public) or len(cas_between) == len(given)


def holds_public(given, public):
    """Return whether one of them is a root with the public CA's key, whenever it was issued."""
    return any(cert.ca and is_pin(cert) and cert.key is public.key for cert in given)


# What is pinned, and what servers send


class Chains:
    """`pins`, {name: certificates}, and `servers`, {name: the chain, leaf first}.

    The company's own CA is `root`. `public` is the only CA in the system's store. The attacker has
    certificates of `public`, everything that others show openly, and keys of his own.
    """

    def __init__(self):
        self.pins, self.servers = {}, {}
        self.root = Cert(COMPANY, ca=True)
        self.between = Cert("Company CA in between", self.root, ca=True)
        self.leaf = Cert("redis", self.between)
        self.public = Cert("Public CA", ca=True)
        self.public_between = Cert("Public CA in between", self.public, ca=True)
        self.bought = Cert(HOST, self.public_between, hosts=(HOST,))
        self.root_by_public = Cert(COMPANY, self.public, self.root.key, ca=True)
        self.public_by_root = Cert("Public CA", self.root, self.public.key, ca=True)
        self._company()
        self._cross_signed()
        self._self_signed()
        self._attacker()
        self._flawed()
        self._same_name()
        self._rollovers()

    def _company(self):
        root, between, leaf = self.root, self.between, self.leaf
        direct = Cert("direct", root)
        again = Cert(COMPANY, None, root.key, ca=True)
        renewed = Cert("redis", between)
        same_key = Cert("redis", between, leaf.key)
        self.pins |= {
            "root": [root],
            "root, leaf": [root, leaf],
            "leaf": [leaf],
            "leaf of the root": [direct],
            "leaf, between": [leaf, between],
            "between": [between],
            "root, between": [root, between],
            "leaf, between, root": [leaf, between, root],
            "leaf, its renewed": [leaf, renewed],
            "root re-issued with its key": [again],
        }
        self.servers |= {
            "leaf, between": [leaf, between],
            "leaf, between, root": [leaf, between, root],
            "leaf, between, re-issued root": [leaf, between, again],
            "leaf alone": [leaf],
            "leaf, root": [leaf, root],
            "leaf, root, between": [leaf, root, between],
            "leaf of the root": [direct],
            "leaf of the root, root": [direct, root],
            "sister": [Cert("sister", between), between],
            "sister alone": [Cert("sister", between)],
            "renewed": [renewed, between],
            "renewed with its key": [same_key, between],
            "other host": [Cert("other", between, hosts=("other.example",)), between],
        }

    def _cross_signed(self):
        root, between, leaf = self.root, self.between, self.leaf
        by_public, by_root = self.root_by_public, self.public_by_root
        self.pins |= {
            "root signed by public": [by_public],
            "root, root signed by public": [root, by_public],
            "leaf, root signed by public": [leaf, by_public],
            "public signed by root": [by_root],
            "root, public signed by root": [root, by_root],
            "public root": [self.public],
            "root, public root": [root, self.public],
            "leaf, between, public root": [leaf, between, self.public],
            "public root, issued again": [Cert("Public CA", key=self.public.key, ca=True)],
        }
        self.servers |= {
            "leaf, between, root by public": [leaf, between, by_public],
            "leaf, between, root by public, public": [leaf, between, by_public, self.public],
            "leaf, between, both roots": [leaf, between, by_public, root],
            # Here our root has signed the public CA, and so vouches for all that this CA signs.
            "bought, public by root": [self.bought, self.public_between, by_root],
            "bought, public by root, root": [self.bought, self.public_between, by_root, root],
        }

    def _self_signed(self):
        kinds = {
            "self-signed": Cert("self"),
            "self-signed, no extensions": Cert("bare", bare=True),
            "self-signed CA": Cert("selfish", ca=True),
        }
        for name, own in kinds.items():
            options: dict[str, Any] = {"ca": own.ca, "bare": own.bare}
            self.pins[name] = [own]
            self.servers[name] = [own]
            self.servers[f"{name}, other key"] = [Cert(own.subject, **options)]
            self.servers[f"{name}, renewed"] = [Cert(own.subject, None, own.key, **options)]
            self.servers[f"below {name}"] = [Cert("child", own), own]

    def _attacker(self):
        root, between, leaf, bought = self.root, self.between, self.leaf, self.bought
        sent = [bought, self.public_between]
        fake_root = Cert(COMPANY, ca=True, own_id=root.identifier, issuer_id=root.identifier)
        fake_between = Cert(between.subject, fake_root, ca=True, own_id=between.identifier)
        fake = Cert("redis", fake_between)
        forged = Cert("redis", between, signer=Key())
        # The attacker's key signs our root's name and key, which anybody can do.
        our_key_by_him = Cert(COMPANY, None, root.key, ca=True, signer=fake_root.key)
        mine = Cert("mine", self.public_between)
        self.pins["leaf of public, its whole chain"] = [mine, self.public_between]
        self.servers |= {
            "bought": sent,
            "bought, public root": [*sent, self.public],
            "bought, our root": [*sent, root],
            "bought, our leaf": [*sent, leaf],
            "bought, our leaf first": [bought, leaf, between, self.public_between],
            "bought, our root by public": [*sent, self.root_by_public],
            "bought, public root, our roots": [*sent, self.public, self.root_by_public, root],
            "mine of public": [mine, self.public_between],
            "self-signed by him, as our leaf": [Cert("redis")],
            "self-signed by him, our chain": [Cert("redis"), leaf, between, root],
            "forged": [fake, fake_between, fake_root],
            "forged, our root": [fake, fake_between, root],
            "forged, our chain": [fake, between, root],
            "signed by nobody": [forged, between],
            "signed by nobody, root": [forged, between, root],
            "our key by him": [Cert("redis", fake_root), our_key_by_him, fake_root],
            "below our leaf": [Cert("child", leaf), leaf, between],
            "below our leaf of public": [Cert("child", mine), mine, self.public_between],
            "below bought": [Cert("child", bought), *sent],
        }

    def _flawed(self):
        late = {"expired": EXPIRED, "not yet": NOT_YET}
        for flaw, days in late.items():
            leaf = Cert("redis", self.between, days=days)
            root = Cert(f"{flaw} CA", ca=True, days=days)
            own = Cert("self", days=days)
            between = Cert("between", self.root, ca=True, days=days)
            self.pins |= {f"{flaw} leaf": [leaf], f"{flaw} root": [root], f"{flaw} self": [own]}
            self.servers |= {
                f"{flaw} leaf": [leaf, self.between],
                f"below {flaw} root": [Cert("redis", root), root],
                f"below {flaw} between": [Cert("redis", between), between],
                f"{flaw} self-signed": [own],
            }
        client = Cert("client", self.between, for_servers=False)
        short = Cert("CA of leaves", ca=True, path_length=0)
        between = Cert("between", short, ca=True)
        self.pins |= {"leaf of a client": [client], "root for leaves only": [short]}
        self.servers |= {
            "leaf of a client": [client, self.between],
            "leaf of the short root": [Cert("redis", short)],
            "too long below the short root": [Cert("redis", between), between],
        }

    def _same_name(self):
        twin = Cert(COMPANY, ca=True)
        below = Cert("redis", twin)
        self.pins |= {"twin": [twin], "root, twin": [self.root, twin]}
        self.servers |= {
            "below twin": [below],
            "below twin, root": [below, self.root],
            "below twin, twin": [below, twin],
        }

    def _rollovers(self):
        """Add a CA that was renewed: the old key has signed the new one, under the same name."""
        long, same = b"\x05" * 200, b"\x07" * 20
        forms: dict[str, dict[str, Any]] = {
            "usual identifiers": {},
            "critical identifiers": {"critical": True},
            "no identifiers": {"own_id": None, "issuer_id": None},
            "no identifier of the issuer": {"issuer_id": None},
            "matching identifiers": {"own_id": same, "issuer_id": same},
            "long identifiers": {"own_id": long, "issuer_id": long},
            "long differing identifiers": {"own_id": b"\x06" * 200},
            "identifiers and number": {"names_issuer": True},
            "matching identifiers, number": {
                "own_id": same,
                "issuer_id": same,
                "names_issuer": True,
            },
            "number alone": {"issuer_id": None, "names_issuer": True},
            "number, no identifiers": {"own_id": None, "issuer_id": None, "names_issuer": True},
            "other kind of key": {"own_id": None, "issuer_id": None},
            "restricted kind of key": {"issuer_id": None},
            # Two CAs that both number from 1. The second says who signed it.
            "another's number": {
                "own_id": None,
                "issuer_id": None,
                "names_issuer": True,
                "number": 1,
            },
        }
        group = Cert("Group CA", ca=True)
        olds: dict[str, dict[str, Any]] = {
            "long differing identifiers": {"own_id": long},
            "another's number": {"by": group},
        }
        # {form: the kinds of the old key and of the new key}
        kinds = {"other kind of key": ("RSA", "EC"), "restricted kind of key": ("RSA", "RSA-PSS")}
        for form, options in forms.items():
            keys = [Key(kind) for kind in kinds.get(form, ("EC", "EC"))]
            old = Cert(COMPANY, key=keys[0], ca=True, **options | olds.get(form, {}))
            new = Cert(COMPANY, old, keys[1], ca=True, **options)
            self.pins |= {f"old, {form}": [old], f"new, {form}": [new]}
            # These stand beside a pinned server's certificate, so no chain has to end in a root.
            self.pins[f"self-signed; new, {form}"] = [*self.pins["self-signed"], new]
            leaf: dict[str, Any] = {"names_issuer": options.get("names_issuer", False)}
            self.servers |= {
                f"below old, {form}": [Cert("redis", old, **leaf)],
                f"below new, {form}": [Cert("redis", new, **leaf), new],
            }

    def unpinned(self):
        """Return {name: CAs beside those of the system} and servers, for who checks names."""
        own = Cert("direct", self.root, hosts=(HOST,))
        stranger = Cert("Stranger", ca=True)
        below = Cert(HOST, self.between, hosts=(HOST,))
        extra = {"system": [], "system, root": [self.root], "system, between": [self.between]}
        servers = {
            "public, right host": [self.bought, self.public_between],
            "public, wrong host": [
                Cert("other", self.public_between, hosts=("attacker.example",)),
                self.public_between,
            ],
            "public, wrong host, right CN": [
                Cert(HOST, self.public_between, hosts=("attacker.example",)),
                self.public_between,
            ],
            "public, right CN alone": [Cert(HOST, self.public_between), self.public_between],
            "public, wrong CN alone": [Cert("other", self.public_between), self.public_between],
            "own, right host": [own],
            "own, wrong host": [Cert("other", self.root, hosts=("other.example",))],
            "own, right CN alone": [Cert(HOST, self.root)],
            "between, right host": [below, self.between],
            "between, wrong host": [self.leaf, self.between],
            "stranger": [Cert(HOST, stranger, hosts=(HOST,)), stranger],
            "expired": [Cert(HOST, self.root, hosts=(HOST,), days=EXPIRED)],
            "self-signed": [Cert(HOST, hosts=(HOST,))],
        }
        return extra, servers


# On disk


def text_of(certs):
    return "".join(cert.pem for cert in certs)


def write(folder, chains):
    """Write chains or lists of pins to files; return {name: [chain's file, key's file]}."""
    written = {}
    for number, (name, certs) in enumerate(chains.items()):
        chain, key = Path(folder, f"{number}.pem"), Path(folder, f"{number}.key")
        chain.write_text(text_of(certs))
        with open(key, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            if certs:
                file.write(certs[0].key.pem)
        written[name] = [str(chain), str(key)]
    return written


def hashed_name(cert):
    """Return the file name, without `.0`, by which OpenSSL finds the CA in a folder (c_rehash)."""
    lower = Cert(cert.subject.lower())
    # The hash is that of the name without its outer sequence, read as a little-endian number.
    encoded = name_of(lower).public_bytes()[2:]
    digest = hashes.Hash(hashes.SHA1())
    digest.update(encoded)
    return digest.finalize()[3::-1].hex()
