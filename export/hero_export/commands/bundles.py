"""The commands of ``hero-export`` around a bundle that exists: sign, compare, send, fetch."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from hero_export.commands.options import (
    CHECKS,
    HUB,
    OUTPUT,
    TRUST,
    AsJson,
    BundleFolder,
    DryRun,
    RequireSignature,
    show_plan,
)
from hero_export.commands.terminal import console, stages

SIGN, SHARE = "Sign a bundle", "Share a bundle"

PASSPHRASE_VARIABLE = "HERO_KEY_PASSPHRASE"

Repository = Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository on the Hugging Face hub.")]


def register(app: typer.Typer) -> None:
    """Add the commands to an application."""
    app.command(rich_help_panel=CHECKS)(diff)
    app.command(rich_help_panel=SIGN)(keygen)
    app.command(rich_help_panel=SIGN)(sign)
    app.command(rich_help_panel=SHARE)(push)
    app.command(rich_help_panel=SHARE)(pull)


def diff(
    a: Annotated[Path, typer.Argument(metavar="A", help="A bundle.")],
    b: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    require_signature: RequireSignature = None,
    as_json: AsJson = False,
) -> None:
    """Show what differs between two bundles. Exit code 0: nothing, 1: something, 2: an error."""
    with stages() as stage:
        stage("Comparing")
        from hero_export.bundles.diff import diff_bundles

        difference = diff_bundles(a, b, require_signature=require_signature or None)
    if as_json:
        typer.echo(difference.to_json())
    else:
        for table in difference.to_rich():
            console().print(table)
        typer.echo("The bundles are equal." if difference.equal else "The bundles differ.")
        if not difference.equal:
            typer.echo(
                "Each may search the other's corpora: the fingerprints are the same."
                if difference.searchable
                else "Neither may search the other's corpora: the fingerprints differ."
            )
    raise typer.Exit(0 if difference.equal else 1)


def keygen(
    out: Annotated[
        Path, typer.Option(help="File of the private key; the public one gets .pub behind it.", rich_help_panel=OUTPUT)
    ],
    passphrase: Annotated[
        bool,
        typer.Option(
            "--passphrase",
            help=f"Encrypt the private key with a passphrase, asked for or from {PASSPHRASE_VARIABLE}.",
            rich_help_panel=TRUST,
        ),
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Make a pair of keys to sign bundles with."""
    from hero_export.bundles.signing import check_key_place, make_keys, public_file

    if dry_run:
        from hero_export.dry_run import Plan, PlannedFile

        check_key_place(out)
        files = tuple(PlannedFile(path.name) for path in (out, public_file(out)))
        show_plan(Plan(str(out.parent), False, files), as_json=as_json)
        return
    check_key_place(out)
    keys = make_keys(out, _new_passphrase() if passphrase else None)
    if as_json:
        content = {"private": str(keys.private), "public": str(keys.public), "key_id": keys.key_id}
        typer.echo(json.dumps(content, indent=2))
        return
    typer.echo(
        f"Wrote {keys.private} (keep it secret) and {keys.public} (hand it out), key {keys.key_id}.\n"
        f"Sign with: hero-export sign BUNDLE --key {keys.private}"
    )


def sign(
    bundle: BundleFolder,
    key: Annotated[Path, typer.Option(help="File of the private key.", rich_help_panel=TRUST)],
    force: Annotated[
        bool, typer.Option("--force", help="Replace a signature that is there.", rich_help_panel=OUTPUT)
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Check a bundle and sign it: manifest.sig, over manifest.json, which has the sha256 of every file."""
    from hero_export.bundles.signing import is_encrypted, load_private_key, sign_bundle

    passphrase = _passphrase() if is_encrypted(key) else None
    if dry_run:
        from hero_export.bundles.signing import check_signature_place
        from hero_export.dry_run import plan_files
        from hero_sdk.bundle_files import SIGNATURE_FILE
        from hero_sdk.manifest import read_bundle

        load_private_key(key, passphrase)
        read_bundle(bundle)
        check_signature_place(bundle, force=force)
        replaces = (bundle / SIGNATURE_FILE).exists()
        show_plan(plan_files(str(bundle), {SIGNATURE_FILE: 64}, replaces=replaces), as_json=as_json)
        return
    signer = sign_bundle(bundle, key, passphrase=passphrase, force=force)
    if as_json:
        typer.echo(json.dumps({"bundle": str(bundle), "key_id": signer}, indent=2))
        return
    typer.echo(f"Signed {bundle} with the key {signer}: the manifest, and through its sha256 every file.")


def push(
    bundle: BundleFolder,
    repository: Repository,
    revision: Annotated[
        str | None, typer.Option(help="Branch to send to; made if need be.", rich_help_panel=HUB)
    ] = None,
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.", rich_help_panel=HUB)
    ] = False,
    message: Annotated[str | None, typer.Option(help="Message of the commit.", rich_help_panel=HUB)] = None,
    require_signature: RequireSignature = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Send a verified bundle to the Hugging Face hub, with a model card, in one commit. HF_TOKEN names who sends it."""
    from hero_sdk.hub import HubReference

    reference = HubReference.parse(repository, revision)
    if dry_run:
        from hero_export.bundles.hub import prepare_push
        from hero_export.bundles.model_card import CARD_FILE
        from hero_export.dry_run import plan_files

        shipment = prepare_push(bundle, reference, require_signature=require_signature or None)
        card = {CARD_FILE: len(shipment.card.encode("utf-8"))} if shipment.card is not None else {}
        show_plan(plan_files(f"hub:{reference}", shipment.files | card), as_json=as_json)
        return
    with stages() as stage:
        stage("Loading huggingface_hub")
        from hero_export.bundles.hub import push_bundle

        _silence_bars()

        pushed = push_bundle(
            bundle,
            reference,
            private=private,
            message=message,
            require_signature=require_signature or None,
            on_stage=stage,
        )
    if as_json:
        typer.echo(json.dumps({**dataclasses.asdict(pushed), "reference": str(reference)}, indent=2))
        return
    typer.echo(f"Sent {len(pushed.files)} files to {pushed.url}.")
    if pushed.deleted:
        typer.echo(f"Deleted {len(pushed.deleted)} files of the bundle that was there: {', '.join(pushed.deleted)}.")
    if not pushed.card:
        typer.echo("The model card of the repository was left as it is.")
    typer.echo(f'Load it with: hero_sdk.load("hub:{reference}")')


def pull(
    repository: Repository,
    out: Annotated[
        Path, typer.Option(help="The bundle: a new folder, or one to replace with --force.", rich_help_panel=OUTPUT)
    ],
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; the main branch by default.", rich_help_panel=HUB)
    ] = None,
    require_signature: RequireSignature = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a bundle that is there.", rich_help_panel=OUTPUT)
    ] = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Fetch a bundle from the Hugging Face hub; it appears when every file has been checked."""
    from hero_sdk.hub import HubReference

    reference = HubReference.parse(repository, revision)
    if dry_run:
        from hero_export.bundles.hub import prepare_pull
        from hero_export.dry_run import plan_files

        sizes = prepare_pull(reference, out, force=force, require_signature=require_signature or None)
        show_plan(plan_files(str(out), sizes, replaces=out.is_dir() and any(out.iterdir())), as_json=as_json)
        return
    with stages() as stage:
        stage("Loading huggingface_hub")
        from hero_export.bundles.hub import pull_bundle

        _silence_bars()

        listing, manifest = pull_bundle(
            reference, out, force=force, require_signature=require_signature or None, on_stage=stage
        )
    if as_json:
        content = {"bundle": str(out), "commit": listing.commit, "fingerprint": manifest.fingerprint}
        typer.echo(json.dumps(content, indent=2))
        return
    typer.echo(f"Wrote {out}: {len(manifest.files)} files of {reference}, commit {listing.commit[:12]}, all checked.")


def _silence_bars() -> None:
    """The library's progress bars would be written across the stages."""
    from hero_sdk.errors import require
    from hero_sdk.hub import EXTRA, PURPOSE

    require("huggingface_hub.utils", EXTRA, PURPOSE).disable_progress_bars()


def _new_passphrase() -> str:
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given is not None:
        return given
    return str(typer.prompt("Passphrase", hide_input=True, confirmation_prompt=True, err=True))


def _passphrase() -> str | None:
    """From the environment, or from whoever sits at the terminal; None where nobody does."""
    given = os.environ.get(PASSPHRASE_VARIABLE)
    if given is None and sys.stdin.isatty():
        given = str(typer.prompt("Passphrase", hide_input=True, err=True))
    return given
