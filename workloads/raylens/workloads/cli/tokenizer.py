"""The commands ``raylens tokenizer``, which learn a tokenizer and show its tokens."""

from pathlib import Path
from typing import Annotated

import typer

from raylens.workloads.cli.options import Address, NumCpus

__all__ = ["app"]

app = typer.Typer(help="Learn a tokenizer from captions, and show its tokens.", no_args_is_help=True)


@app.command()
def train(
    uri: Annotated[str, typer.Argument(metavar="URI", help="A data set, as for `raylens data index`.")],
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("tokenizer.json"),
    vocab: Annotated[
        int, typer.Option(min=514, help="Most tokens: 512 for bytes, start and end, and learned merges.")
    ] = 49_408,
    kind: Annotated[
        str, typer.Option("--format", help="tar, parquet, table or folder; by default the objects' names decide.")
    ] = "auto",
    caption_column: Annotated[
        str | None,
        typer.Option(
            help="Column of the caption; by default caption, text, txt or another of the names in docs/streaming.md."
        ),
    ] = None,
    address: Address = None,
    num_cpus: NumCpus = None,
) -> None:
    """Count the words of all captions on the cluster, and learn merges from the counts.

    A run without a tokenizer learns one from up to 100,000 captions by itself.

    Examples:

        raylens tokenizer train 's3://bucket/cc12m/{00000..01242}.tar' --out cc12m.json

        raylens train vit_b32 --set tokenizer=cc12m.json
    """
    from raylens.workloads.cli.options import check_file
    from raylens.workloads.tokenizers import train_text

    check_file(out, "--out")
    for line in train_text(uri, out, vocab, kind, caption_column, address, num_cpus):
        typer.echo(line)


@app.command()
def show(
    tokenizer: Annotated[
        Path, typer.Argument(help="tokenizer.json, bpe_simple_vocab_16e6.txt.gz, or a folder with either form.")
    ],
    texts: Annotated[list[str], typer.Argument(help="Texts to encode.")],
    context: Annotated[int, typer.Option(min=3, help="Tokens of a text at most, with start and end.")] = 77,
) -> None:
    """Print the IDs and tokens of texts, and whether a text was truncated.

    Example:

        raylens tokenizer show tokenizer.json "a photo of a dog"
    """
    from raylens.workloads.tokenizers import show_text

    for line in show_text(tokenizer, texts, context):
        typer.echo(line)
