"""`headrace bootstrap`: a history into feature state and models, before a pipeline goes live."""

from __future__ import annotations

import asyncio
import importlib.util
import tempfile
from pathlib import Path

import click

from headrace.cli.errors import UserError
from headrace.cli.progress_bar import ProgressBar
from headrace.features.backfill_processes import BackfillTask, run_backfill
from headrace.learner.announcements import read_announced
from headrace.learner.bootstrap import check_not_live, learn_history
from headrace.learner.hash_seed import pin_hash_seed
from headrace.learner.settings import LearnerSettings
from headrace.platform.artifacts import ArtifactStore
from headrace.platform.pipelines import load_pipeline
from headrace.platform.signing import Signer
from headrace.platform.topics import Topics, deployed_name

BATCH_EVENTS = 5_000
CHUNK_EVENTS = 500


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--labels", type=click.Path(dir_okay=False, path_type=Path), help="Labels, if in a file of their own.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes.")
def bootstrap(file: Path, labels: Path | None, workers: int) -> None:
    """Load a history of labelled events into the feature state and the models, before the services first start.

    FILE is Parquet or CSV with the columns event_id, event_time, the fields of the schema and, unless they are in a
    file of their own, label (0, 1 or empty) and label_time. The models learn each event with its features as of its own
    time, in the order (label time, event id); the learner then goes on from there.

    The topics must be there, and nothing of the pipeline may be live: no version may be announced, and no features
    worker may have run. A bootstrap that was interrupted goes on when it is run again.
    """
    pin_hash_seed()
    if importlib.util.find_spec("polars") is None:
        raise UserError("`headrace bootstrap` needs polars, which is not installed: pip install headrace[offline]")
    from headrace.offline.bootstrap_history import bootstrap_files, labelled_rows
    from headrace.offline.event_table import EventFile
    from headrace.offline.history_blocks import ParquetHistory
    from headrace.offline.label_table import LabelFile
    from headrace.offline.parquet_file import ParquetFile
    from headrace.offline.training_set import compute_training_set

    settings = LearnerSettings.load()
    pipeline = load_pipeline(settings.pipeline)
    topics = Topics(deployed_name(pipeline.name, settings.namespace), definition=settings.definition)
    signer = Signer.read(settings.signing_key)
    asyncio.run(_check(settings.kafka_bootstrap, topics))
    with tempfile.TemporaryDirectory(prefix="headrace-bootstrap-") as scratch:
        files = bootstrap_files(file, labels, pipeline.event, Path(scratch))
        history = ParquetHistory(settings.pipeline, files.events, files.labels)
        task = BackfillTask(
            settings.pipeline,
            topics,
            settings.kafka_bootstrap,
            settings.redis_url,
            history,
            BATCH_EVENTS,
            CHUNK_EVENTS,
        )
        with ProgressBar("feature state") as bar:
            done = asyncio.run(run_backfill(task, workers, bar.reached))
        click.echo(f"{topics.deployed}: {done.records:,} records merged into the feature state")
        to = Path(scratch) / "training.parquet"
        with ProgressBar("features") as bar:
            found = compute_training_set(
                pipeline,
                settings.pipeline,
                EventFile(ParquetFile(files.events), pipeline.event),
                LabelFile(ParquetFile(files.labels), pipeline.label),
                to,
                workers=workers,
                progress=bar.reached,
            )
        versions = asyncio.run(
            learn_history(
                labelled_rows(to, pipeline),
                bootstrap=settings.kafka_bootstrap,
                topics=topics,
                pipeline=pipeline,
                store=ArtifactStore(settings.artifacts),
                signer=signer,
            )
        )
    click.echo(f"{found.rows:,} events, {found.labelled:,} of them with a label")
    for version in versions:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(version.metrics.items()))
        click.echo(f"version {version.version} ({version.recipe}): {version.learned_count:,} events learned; {metrics}")


async def _check(bootstrap: str, topics: Topics) -> None:
    await check_not_live(bootstrap, topics, await read_announced(bootstrap, topics))
