"""The arguments and options that several commands of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Input = Annotated[Path, typer.Argument(metavar="INPUT", help="Folder or zip of images, or one .npz/.npy array.")]
NewOut = Annotated[Path, typer.Argument(metavar="OUT", help="Run folder; made if it is not there.")]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Run folder, made by run or scan.")]


def _cluster_number(value: str | None) -> str | None:
    if value not in (None, "auto") and not (value.isdigit() and int(value) >= 2):
        raise typer.BadParameter(
            "give a whole number, at least 2, or auto; a range is looked at after the run: "
            "medstrata validate OUT --clusters 2-5"
        )
    return value


Clusters = Annotated[
    str | None,
    typer.Option(
        "--clusters",
        metavar="K",
        callback=_cluster_number,
        help="Number of clusters, at least 2, or auto: as found. [default: from the headers; else 10, or 3 subtypes]",
    ),
]
Method = Annotated[
    Literal["auto", "contrastive", "dcec", "deepmcat", "dvc", "pca"] | None,
    typer.Option(
        "--method", help="Clustering method. [default: auto, which is dcec for volumes and for fewer than 200 images]"
    ),
]
Features = Annotated[
    Path | None,
    typer.Option("--features", metavar="FILE", help="Cluster these vectors (.npy, one row per decoded image) instead."),
]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of all random numbers. [default: 0]")]
Goal = Annotated[
    Literal["categories", "subtypes"] | None,
    typer.Option("--goal", help="categories (sort a mixed archive) or subtypes (groups within one kind of image)."),
]
Select = Annotated[
    list[str] | None,
    typer.Option("--select", metavar="COLUMN=VALUE", help="Take only these images of the catalog; repeatable."),
]
AdjustFor = Annotated[
    list[str] | None,
    typer.Option("--adjust-for", metavar="COLUMN", help="Remove what differs by this column, or site; repeatable."),
]
BurnedIn = Annotated[
    bool, typer.Option("--include-burned-in", help="Take images that may show names or other text in the pixels.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Processes that read files; 0: one per processor.")]
ExecutorName = Annotated[
    Literal["processes", "ray"],
    typer.Option("--executor", help="Who reads and decodes files, assigns and explains: see docs/scaling.md."),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address", metavar="HOST:PORT", help="Of a Ray cluster. [default: RAY_ADDRESS, else this machine alone]"
    ),
]


def _share(value: str | None) -> str | None:
    number, slash, of = ("1/1" if value is None else value).partition("/")
    if not (slash and number.isdigit() and of.isdigit() and 1 <= int(number) <= int(of)):
        raise typer.BadParameter("give two whole numbers as I/N, such as 2/8, with I from 1 to N")
    return value


Shards = Annotated[
    str | None,
    typer.Option(
        "--shards",
        metavar="I/N",
        callback=_share,
        help="For a job array: do the I-th of N shares and stop.",
    ),
]
Redo = Annotated[bool, typer.Option("--redo", help="Do it again although nothing has changed.")]
