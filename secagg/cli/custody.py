"""``secagg init``, ``secagg enroll``, ``secagg deal``: identities and keys of a federation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from secagg.config import FederationConfig, parse_toml, read_toml
from secagg.custody.authority import DEFAULT_AUTHORITY_DAYS, DEFAULT_HOSTS, DEFAULT_LEAF_DAYS
from secagg.custody.dealing import INITIAL_MODEL_FILE
from secagg.custody.dealing import deal as deal_keys
from secagg.custody.enrolment import accept as accept_welcome
from secagg.custody.enrolment import approve as approve_request
from secagg.custody.enrolment import enroll_local, enrolled, make_request
from secagg.custody.enrolment import revoke as revoke_client
from secagg.custody.federation import init_federation
from secagg.custody.files import write_file
from secagg.custody.trust import TrustAnchor
from secagg.model_file import load_model

_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_DAYS = click.IntRange(1, 36_525)


@click.command()
@click.argument("directory", type=_FOLDER)
@click.option("--name", help="What people call the federation; the folder's name if not given.")
@click.option("--config", "config_file", type=_FILE, help="Start from this TOML file; flags win over it.")
@click.option("--address", help="Where clients reach the server, host:port. [localhost:8440]")
@click.option("--protect", help="plain, full or selective. [full]")
@click.option("--ratio", type=float, help="Share of encrypted entries with --protect selective.")
@click.option("--significance", help="With --protect selective: magnitude, random or layers.")
@click.option("--layer", "layers", multiple=True, help="A tensor to encrypt; may be repeated.")
@click.option("--rule", help="How updates are weighed, for instance mean or ddfed. [mean]")
@click.option("--rounds", type=int, help="How many rounds to hold. [10]")
@click.option("--min-clients", type=int, help="Fewest accepted updates for an aggregate. [2]")
@click.option("--initial-model", "model", type=_FILE, help="An .npz of float32 tensors; it is copied.")
@click.option("--host", "hosts", multiple=True, help="A further name or IP address of the server.")
@click.option("--authority-days", type=_DAYS, default=DEFAULT_AUTHORITY_DAYS, show_default=True)
@click.option("--server-days", type=_DAYS, default=DEFAULT_LEAF_DAYS, show_default=True)
def init(
    directory: Path,
    config_file: Path | None,
    model: Path | None,
    hosts: tuple[str, ...],
    authority_days: int,
    server_days: int,
    **flags: Any,
) -> None:
    """Make a federation in DIRECTORY, which must not exist or be empty.

    It gets an authority (keep authority/ to yourself), the server's certificate (server/ is all that the
    server's machine needs) and federation.toml with every setting explained. Next: enroll, then deal.
    """
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    base = {} if config_file is None else read_toml(config_file)
    settings = {"name": directory.resolve().name, **base, **given}
    if model is not None:
        load_model(model)  # refused here rather than when the keys are dealt
        settings["initial_model"] = INITIAL_MODEL_FILE
    config = parse_toml(FederationConfig, settings)
    folder = init_federation(
        directory,
        config,
        hosts=(*DEFAULT_HOSTS, *hosts),
        authority_days=authority_days,
        leaf_days=server_days,
    )
    if model is not None:
        write_file(folder.root / INITIAL_MODEL_FILE, model.read_bytes(), private=False)
    else:
        click.echo(f"put the model to start from at {folder.root / config.initial_model}")
    anchor = TrustAnchor.from_pem((folder.server / "ca.pem").read_bytes())
    click.echo(f"made federation {config.name!r} in {directory}")
    click.echo(f"authority fingerprint {anchor.fingerprint}")
    click.echo(f"next: secagg enroll new {directory} NAME …, then secagg deal {directory}")


@click.group()
def enroll() -> None:
    """Enrol clients of a federation.

    On the machine that holds the federation's folder, `new` does all at once. For a client elsewhere: the
    client runs `request`, sends request.json to you, you run `approve` and send back the welcome file, the
    client runs `accept`. No private key ever travels. Run `secagg deal` after enrolling.
    """


@enroll.command(short_help="Enrol clients on this machine, all at once.")
@click.argument("federation", type=_FOLDER)
@click.argument("names", nargs=-1, required=True)
@click.option("--days", type=_DAYS, default=DEFAULT_LEAF_DAYS, show_default=True, help="Validity.")
def new(federation: Path, names: tuple[str, ...], days: int) -> None:
    """Enrol clients NAMES on this machine, into FEDERATION/clients/NAME."""
    for name in names:
        click.echo(f"enrolled {name!r} in {enroll_local(federation, name, valid_days=days)}")
    click.echo(f"next: secagg deal {federation}")


@enroll.command(short_help="Client: make keys and a request.")
@click.argument("directory", type=_FOLDER)
@click.option("--name", required=True, help="The client's name: a-z 0-9 . _ - (1 to 64).")
def request(directory: Path, name: str) -> None:
    """Make a client's private keys in DIRECTORY and the request for its certificate."""
    path = make_request(directory, name)
    click.echo(f"send {path} to whoever runs the federation; it holds no secret")
    click.echo(f"next: secagg enroll accept {directory} WELCOME")


@enroll.command(short_help="Authority: certify a request's client.")
@click.argument("federation", type=_FOLDER)
@click.argument("request", type=_FILE)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="[NAME.welcome.json]")
@click.option("--days", type=_DAYS, default=DEFAULT_LEAF_DAYS, show_default=True, help="Validity.")
def approve(federation: Path, request: Path, out: Path | None, days: int) -> None:
    """Certify the client of REQUEST, put it on the roster, write its welcome file."""
    peer, welcome = approve_request(federation, request.read_bytes(), valid_days=days)
    out = out or Path(f"{peer.name}.welcome.json")
    write_file(out, welcome, private=False)
    anchor = TrustAnchor.from_pem((federation / "server" / "ca.pem").read_bytes())
    click.echo(f"enrolled {peer.name!r}; send back {out} (no secret in it)")
    click.echo(f"tell the client over another channel: --fingerprint {anchor.fingerprint}")
    click.echo(f"next: secagg deal {federation}")


@enroll.command(short_help="Client: take over the certificate.")
@click.argument("directory", type=_FOLDER)
@click.argument("welcome", type=_FILE)
@click.option("--fingerprint", help="The authority's fingerprint, as you were told it (16 digits or more).")
def accept(directory: Path, welcome: Path, fingerprint: str | None) -> None:
    """Take over the certificate in WELCOME; DIRECTORY is then a complete identity."""
    identity = accept_welcome(directory, welcome.read_bytes(), fingerprint=fingerprint)
    click.echo(f"{identity.name!r} trusts the authority {identity.anchor.fingerprint}")
    if fingerprint is None:
        click.echo("compare that fingerprint with the one the federation's operator tells you")
    click.echo(f"next: secagg join {directory} --server HOST:PORT --trainer MODULE:CALLABLE")


@enroll.command(short_help="Take a client off the roster.")
@click.argument("federation", type=_FOLDER)
@click.argument("name")
def revoke(federation: Path, name: str) -> None:
    """Take client NAME off the roster; a running server refuses its next call."""
    peer = revoke_client(federation, name)
    click.echo(f"revoked {peer.name!r}, certificate {peer.fingerprint}")
    click.echo(f"it still knows the key it was dealt; make a new one: secagg deal --rotate {federation}")


@enroll.command(name="list", short_help="Print who is enrolled.")
@click.argument("federation", type=_FOLDER)
def list_(federation: Path) -> None:
    """Print the enrolled clients and their certificates' fingerprints."""
    for peer in enrolled(federation):
        click.echo(f"{peer.name}  {peer.fingerprint}")


@click.command()
@click.argument("federation", type=_FOLDER)
@click.option("--rotate", is_flag=True, help="Make a new key; what is sealed under the old one stays shut.")
def deal(federation: Path, rotate: bool) -> None:
    """Make the encryption key and seal it to every enrolled client.

    Run it after enrolling clients and after changing federation.toml; clients enrolled later get the same
    key. The secret key stays in authority/; server/ gets sealed copies that only the clients can open.
    """
    # The command line is where the middleware and the rules meet.
    from defenses import load_rule

    descriptor = deal_keys(federation, rules=load_rule, rotate=rotate)
    clients = len(enrolled(federation))
    click.echo(f"dealt key {descriptor.key_id.hex()} (profile {descriptor.profile}) to {clients} clients")
    if clients < descriptor.min_clients:
        click.echo(f"a round needs {descriptor.min_clients} of them: enrol more, then deal again")
    click.echo(f"next: secagg serve {federation / 'server'}")
