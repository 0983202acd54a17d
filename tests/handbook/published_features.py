"""Compares vectors with the features that the handbook's authors have published.

`python -m tests.handbook.published_features SERVED FOLDER` does it for the vectors that a demonstration served: SERVED
is the `served.parquet` beside its report, FOLDER has `handbook_features_published.parquet`.

Counts must be equal, means and rates equal to 1e-9. The published set counts an earlier row of the same second, where
ours does not: a vector may differ only where its customer has another payment in the same second.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import click
import polars as pl

TOLERANCE = 1e-9
COUNTED = {
    "weekend": "TX_DURING_WEEKEND",
    "night": "TX_DURING_NIGHT",
    **{f"customer_count_{days}d": f"CUSTOMER_ID_NB_TX_{days}DAY_WINDOW" for days in (1, 7, 30)},
    **{f"terminal_count_{days}d": f"TERMINAL_ID_NB_TX_{days}DAY_WINDOW" for days in (1, 7, 30)},
}
"""Features that are equal, and the published column of each."""
MEASURED = {
    "amount": "TX_AMOUNT",
    **{f"customer_mean_amount_cents_{days}d": f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW" for days in (1, 7, 30)},
    **{f"terminal_label_rate_{days}d": f"TERMINAL_ID_RISK_{days}DAY_WINDOW" for days in (1, 7, 30)},
}
"""Features that are equal to 1e-9."""


@dataclass(frozen=True)
class Comparison:
    """How vectors compare with the published ones.

    Attributes:
        rows: vectors compared.
        unknown: vectors of payments that are not in the published set.
        ties: those of payments whose customer has another one in the same second: id, customer, second, and the
            features that differ.
        wrong: others that differ, likewise.
    """

    rows: int
    unknown: int
    ties: pl.DataFrame
    wrong: pl.DataFrame


def compare(vectors: pl.DataFrame, folder: Path) -> Comparison:
    """Compare vectors with the published ones.

    Args:
        vectors: event_id (the handbook's transaction id) and every feature of the fraud pipeline.
        folder: where the handbook's data is.
    """
    published = pl.read_parquet(folder / "handbook_features_published.parquet")
    tied = published.select(pl.struct("CUSTOMER_ID", "TX_TIME_SECONDS").is_duplicated()).to_series().alias("tied")
    known = published.with_columns(tied, pl.col("TRANSACTION_ID").cast(pl.String).alias("event_id"))
    both = known.join(vectors, on="event_id", how="inner", suffix="_served", maintain_order="left")
    wrong = {ours: pl.col(ours) != pl.col(theirs) for ours, theirs in COUNTED.items()}
    wrong |= {ours: ~((pl.col(ours) - pl.col(theirs)).abs() <= TOLERANCE) for ours, theirs in MEASURED.items()}
    compared = both.select(
        "event_id",
        "CUSTOMER_ID",
        "TX_TIME_SECONDS",
        "tied",
        pl.concat_list(pl.when(differs).then(pl.lit(ours)) for ours, differs in wrong.items())
        .list.drop_nulls()
        .alias("features"),
    )
    differs = pl.col("features").list.len() > 0
    return Comparison(
        len(both),
        len(vectors) - len(both),
        compared.filter(pl.col("tied")).drop("tied"),
        compared.filter(~pl.col("tied") & differs).drop("tied"),
    )


def main(arguments: list[str]) -> int:
    """Compare the vectors of the file named first with the data in the folder named second; return the exit status."""
    if len(arguments) != 2:
        click.echo("usage: python -m tests.handbook.published_features SERVED FOLDER", err=True)
        return 2
    found = compare(pl.read_parquet(arguments[0]), Path(arguments[1]))
    click.echo(f"{arguments[0]}: {found.rows:,} vectors compared with the published features")
    different = found.ties.filter(pl.col("features").list.len() > 0)
    click.echo(
        f"{len(found.ties)} of payments that share customer and second with another; {len(different)} of them differ"
    )
    for (customer, second), pair in found.ties.group_by("CUSTOMER_ID", "TX_TIME_SECONDS", maintain_order=True):
        those = ", ".join(pair["event_id"])
        in_what = ", ".join(sorted({name for names in pair["features"] for name in names})) or "nothing"
        click.echo(f"  customer {customer}, second {second}: payments {those} differ in {in_what}")
    for event_id, *_, features in found.wrong.head(20).iter_rows():
        click.echo(f"payment {event_id} differs in {', '.join(features)}", err=True)
    if not found.rows or found.unknown or len(found.wrong):
        click.echo(f"{arguments[0]}: {len(found.wrong)} differ that may not, {found.unknown} are unknown", err=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
