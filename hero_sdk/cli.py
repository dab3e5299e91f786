"""The command ``hero``: index a folder of videos, search it with a sentence, serve a model repository."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hero_sdk.command import run_app
from hero_sdk.terminal import format_time, make_table, print_json, print_tables, printable, progress

if TYPE_CHECKING:
    from hero_sdk.corpus import AddResult
    from hero_sdk.hero import Hero, SubtitleSource
    from hero_sdk.manifest import Manifest

app = typer.Typer(
    help="Find the moment of a video that a sentence describes.",
    epilog="--debug shows the traceback of an error.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)

Bundle = Annotated[
    Path | None,
    typer.Option(envvar="HERO_BUNDLE", help="Run this bundle in the process; hub:OWNER/NAME for one on the hub."),
]
RequireSignature = Annotated[
    list[Path] | None,
    typer.Option(metavar="KEY", help="Refuse a bundle that this public key did not sign; may be given again."),
]
Variant = Annotated[
    str | None,
    typer.Option(
        envvar="HERO_VARIANT", help="The bundle's graphs for another engine or in another precision; see `hero info`."
    ),
]
Url = Annotated[str | None, typer.Option(envvar="HERO_URL", help="Use a Triton server: grpc://HOST:8001.")]
CorpusFolder = Annotated[Path, typer.Option(envvar="HERO_CORPUS", help="Folder of the corpus.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON on standard output instead of a table.")]


def main() -> None:
    """Entry point of the console script."""
    run_app(app, "hero")


@app.command()
def index(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="Folder with videos, at any depth.")],
    corpus: CorpusFolder,
    bundle: Bundle = None,
    variant: Variant = None,
    url: Url = None,
    require_signature: RequireSignature = None,
    subtitles: Annotated[
        Path | None,
        typer.Option(help="Folder with .srt or .vtt files named as the videos. Else: beside them, or in 'subtitles'."),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Encode videos again that are in the corpus.")] = False,
) -> None:
    """Add the videos of a folder to a corpus, which is made when it is not there.

    A video's id is its path below FOLDER. One that cannot be read is reported and does not stop the rest; the exit code is 1
    then. Videos that are in the corpus already are left alone, so an interrupted run can be repeated.
    """
    from hero_sdk.errors import InputError
    from hero_sdk.video_files import find_videos

    videos = find_videos(folder)
    if not videos:
        raise InputError(
            f"{folder} has no video files (nor have the folders in it). Check the path and the file suffixes."
        )
    if subtitles is not None and not subtitles.is_dir():
        raise InputError(f"{subtitles} is not a folder; expected the folder that holds the subtitle files.")
    ids = {path: _video_id(path, folder) for path in videos}
    with _hero(context, bundle, variant, url, require_signature) as hero:
        target = hero.corpus(corpus)
        known = set() if replace else set(target.video_ids())
        todo = [path for path in videos if ids[path] not in known]
        items = ((path, _subtitles_of(path, folder, subtitles), ids[path]) for path in todo)
        failed = 0
        with progress(len(todo)) as (console, advance):

            def report(result: AddResult) -> None:
                nonlocal failed
                if result.error is not None:
                    failed += 1
                    console.print(printable(f"{result.video_id}: {result.error}"), style="red")
                advance()

            target.add_many(items, replace=replace, report=report)
        counts = f"{len(todo) - failed} added, {len(videos) - len(todo)} already there, {failed} failed"
        typer.echo(f"{counts}; {corpus} has {len(target)} videos.", err=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def search(
    context: typer.Context,
    text: Annotated[str, typer.Argument(help="What happens in the moment, in a sentence.")],
    corpus: CorpusFolder,
    bundle: Bundle = None,
    variant: Variant = None,
    url: Url = None,
    require_signature: RequireSignature = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="How many moments at most.")] = 10,
    video: Annotated[list[str] | None, typer.Option(help="Search this video only; may be given again.")] = None,
    exact: Annotated[bool, typer.Option("--exact", help="Compare with every clip, without the vector index.")] = False,
    as_json: AsJson = False,
) -> None:
    """Find the moments that a sentence describes."""
    with _hero(context, bundle, variant, url, require_signature) as hero:
        moments = hero.corpus(corpus, create=False).search(text, top_k, videos=video or None, exact=exact)
    if as_json:
        print_json([dataclasses.asdict(moment) for moment in moments])
        return
    if not moments:
        typer.echo("The corpus is empty. Add videos with `hero index`.", err=True)
        return
    table = make_table("", "video", "time", "score", "subtitle")
    for rank, moment in enumerate(moments, 1):
        time = f"{format_time(moment.start)} - {format_time(moment.end)}"
        table.add_row(*map(printable, (str(rank), moment.video_id, time, f"{moment.score:.3g}", moment.subtitle)))
    print_tables(table)


@app.command()
def videos(corpus: CorpusFolder, as_json: AsJson = False) -> None:
    """List the videos of a corpus."""
    from hero_sdk.corpus.table import VideoTable

    rows = VideoTable.open(corpus).column("duration", "clips", "source", "added")
    if as_json:
        print_json([{**row, "added": row["added"].isoformat()} for row in rows])
        return
    table = make_table("video", "length", "clips", "added", "file")
    for row in rows:
        length, added = format_time(row["duration"]), f"{row['added']:%Y-%m-%d %H:%M}"
        table.add_row(*map(printable, (row["video_id"], length, str(row["clips"]), added, row["source"] or "")))
    print_tables(table)


@app.command()
def remove(
    video_ids: Annotated[list[str], typer.Argument(metavar="VIDEO...", help="Ids, as `hero videos` lists them.")],
    corpus: CorpusFolder,
) -> None:
    """Remove videos from a corpus, all or none; the video files stay."""
    from hero_sdk.corpus.table import VideoTable

    table = VideoTable.open(corpus)
    chosen = sorted(set(video_ids))
    table.delete(chosen)
    typer.echo(f"{len(chosen)} removed; {corpus} has {table.count()} videos.", err=True)


@app.command()
def info(
    source: Annotated[str, typer.Argument(metavar="BUNDLE|URL", help="A bundle, or the address of a server.")],
    require_signature: RequireSignature = None,
    as_json: AsJson = False,
) -> None:
    """Show what a bundle holds or a server serves, after checking every file or model."""
    manifest = _manifest(source, require_signature)
    if as_json:
        typer.echo(manifest.to_json(), nl=False)
        return
    facts = make_table()
    model, geometry = manifest.model, manifest.geometry
    for name, value in (
        ("task", manifest.task),
        ("fingerprint", manifest.fingerprint),
        (
            "embeddings",
            f"{model.hidden_size} wide, one per {model.clip_interval:g} s, up to {model.clip_limit} clips at once",
        ),
        (
            "frame encoder",
            f"{manifest.frame_encoder.name}, {model.feature_dim} wide, {manifest.frame_encoder.image_size} pixels",
        ),
        (
            "rows",
            f"{geometry.slots} slots, {geometry.frames} frames; {geometry.temporal_slots} clips; {geometry.query_tokens} tokens",
        ),
        *([("moments", f"{moment.min_clips} to {moment.max_clips} clips")] if (moment := manifest.moment) else []),
        ("made with", ", ".join(f"{tool} {version}" for tool, version in manifest.tools.items())),
    ):
        facts.add_row(*map(printable, (name, value)))
    graphs = make_table("graph", "precision", "largest batch", "inputs", "outputs", "fused operators")
    for name, graph in manifest.graphs.items():
        inputs, outputs = (", ".join(tensor.name for tensor in tensors) for tensors in (graph.inputs, graph.outputs))
        fused = ", ".join(f"{count} {operator}" for operator, count in graph.fused.items())
        graphs.add_row(*map(printable, (name, graph.precision, str(graph.max_batch), inputs, outputs, fused)))
    variants = make_table("variant", "graphs", "matrix products", "built by")
    for name, variant in manifest.variants.items():
        products: Counter[str] = Counter()
        for part in variant.graphs.values():
            products.update(part.products)
        shown = ", ".join(f"{count} {precision}" for precision, count in products.most_common())
        variants.add_row(*map(printable, (name, ", ".join(variant.graphs), shown, variant.builder or "")))
    print_tables(facts, graphs, *([variants] if manifest.variants else []))


@app.command()
def serve(
    repository: Annotated[Path | None, typer.Argument(help="Folder that `hero-export triton` wrote.")] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(help="Port of HTTP; 0 picks a free one.")] = 8000,
    grpc_port: Annotated[int, typer.Option(help="Port of gRPC, which `--url` takes; 0 picks a free one.")] = 8001,
    metrics_port: Annotated[int, typer.Option(help="Port of the metrics; 0 picks a free one.")] = 8002,
    ready_timeout: Annotated[float, typer.Option(help="Seconds to wait until the models are loaded.")] = 120.0,
    setup: Annotated[
        bool, typer.Option("--setup", help="Install NVIDIA's server into an environment of its own.")
    ] = False,
) -> None:
    """Run a model repository on a Triton server until Ctrl-C."""
    from hero_sdk.errors import InputError
    from hero_sdk.serve import serve as run_server
    from hero_sdk.server_environment import create_server_environment

    if not setup and repository is None:
        raise InputError("There is nothing to serve; name the folder that `hero-export triton` wrote, or use --setup.")
    if setup:
        create_server_environment()
    if repository is not None:
        code = run_server(
            repository,
            host=host,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            ready_timeout=ready_timeout,
        )
        raise typer.Exit(code)


@contextmanager
def _hero(
    context: typer.Context,
    bundle: Path | None,
    variant: str | None,
    url: str | None,
    require_signature: list[Path] | None,
) -> Iterator[Hero]:
    from hero_sdk.errors import InputError
    from hero_sdk.opening import connect, load

    typed = {name: _is_typed(context, name) for name in ("bundle", "url")}
    if any(typed.values()):  # what the environment says is the default
        bundle, url = bundle if typed["bundle"] else None, url if typed["url"] else None
    if (bundle is None) == (url is None):
        found = "Neither a bundle nor a server is named" if bundle is None else "Both a bundle and a server are named"
        raise InputError(
            f"{found}; expected one: --bundle FOLDER (or HERO_BUNDLE) to run in this process, "
            "or --url grpc://HOST:8001 (or HERO_URL) to use a server."
        )
    if bundle is None:
        _refuse_signature(require_signature)
        if _is_typed(context, "variant"):
            raise InputError(
                f"The variant {variant!r} and a server are named, and a server runs what its repository holds; expected a "
                "bundle with --bundle, or no --variant."
            )
        opened = connect(str(url))
    else:
        opened = load(bundle, variant=variant, require_signature=require_signature or None)
    with opened as hero:
        yield hero


def _refuse_signature(required: list[Path] | None) -> None:
    """A server hands out no signature, so a requirement that nobody checks must not look as if it had been met."""
    from hero_sdk.errors import InputError

    if required:
        raise InputError(
            "A signature is required and a server was named, which hands out none; expected a bundle. Check it where the "
            "server's repository is written: hero-export triton BUNDLE --require-signature KEY."
        )


def _is_typed(context: typer.Context, option: str) -> bool:
    source = context.get_parameter_source(option)
    return source is not None and source.name == "COMMANDLINE"


def _video_id(video: Path, folder: Path) -> str:
    """The path below the folder; bytes of a name that are no Unicode are written out, so that two names stay two ids."""
    return video.relative_to(folder).as_posix().encode("utf-8", "backslashreplace").decode()


def _manifest(source: str, require_signature: list[Path] | None) -> Manifest:
    from hero_sdk.hub import HUB_PREFIX, local_bundle
    from hero_sdk.manifest import read_bundle
    from hero_sdk.opening import connect

    # A folder may have any name; what is no folder and has a colon is an address.
    if ":" not in source or source.startswith(HUB_PREFIX) or Path(source).exists():
        folder = local_bundle(source, require_signature=require_signature or None)
        return read_bundle(folder, require_signature=require_signature or None)
    _refuse_signature(require_signature)
    with connect(source) as hero:
        return hero.manifest


def _subtitles_of(video: Path, folder: Path, subtitles: Path | None) -> SubtitleSource:
    """The file in the subtitle folder (in the same subfolder, or at its top), or None for the usual places."""
    from hero_sdk.video_files import find_sidecar

    if subtitles is None:
        return None
    nested = subtitles / video.relative_to(folder).parent
    return find_sidecar(video, nested) or find_sidecar(video, subtitles)
