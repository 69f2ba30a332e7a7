"""The one command: every process of the loop, and the tools of the people around it."""

import signal
import sys
import threading
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from broker.settings import BrokerSettings
from sliceloop.config import read_section
from sliceloop.logs import configure_logs

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Read chest-CT slices at the edge, learn from disagreements in the cloud. Research use only.",
)
keys_app = typer.Typer(no_args_is_help=True, help="Keys that sign releases.")
label_app = typer.Typer(no_args_is_help=True, help="The reviewer's desk: open disagreements and their labels.")
certificates_app = typer.Typer(no_args_is_help=True, help="TLS certificates for broker and clients.")
app.add_typer(keys_app, name="keys")
app.add_typer(label_app, name="label")
app.add_typer(certificates_app, name="certificates")

OUR_PACKAGES = frozenset({"broker", "cloud_worker", "edge_agent", "protocol", "sliceloop", "training"})
EXTRAS = {
    "boto3": "cloud",
    "sqlalchemy": "cloud",
    "alembic": "cloud",
    "torch": "training",
    "torchvision": "training",
    "safetensors": "training",
    "onnx": "training",
    "scipy": "training",
    "onnxruntime": "edge",
    "cv2": "edge",
    "numpy": "edge",
    "PIL": "edge",
    "pydicom": "edge",
    "iotcore": "demo",
}

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="SLICELOOP_CONFIG", help="TOML file with the settings.")
]
LogLevel = Annotated[str, typer.Option("--log-level", envvar="SLICELOOP_LOG_LEVEL")]


def main() -> None:
    """Run the command; our own errors, and a path's, become one line that says what to do, others a traceback."""
    try:
        app()
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        _die(f"{error.name} is not installed: pip install 'sliceloop[{extra}]'")
    except Exception as error:
        if type(error).__module__.split(".")[0] in OUR_PACKAGES:
            _die(str(error))
        if _is_of_a_path(error):
            _die(f"{error}; check the path, its rights and the disk's space")
        raise


@app.command()
def edge(config: ConfigOption = None, log_level: LogLevel = "info") -> None:
    """Run an edge agent: capture, crop, read, publish; follow the model-update topic."""
    from edge_agent.app import run_edge
    from edge_agent.settings import EdgeSettings

    configure_logs(log_level)
    run_edge(read_section(config, "edge", EdgeSettings), _broker(config), stop_on_signals())


@app.command()
def worker(config: ConfigOption = None, log_level: LogLevel = "info") -> None:
    """Run a cloud worker: store, read again, request retrainings, gate, release."""
    from cloud_worker.app import run_worker
    from cloud_worker.object_store import S3Settings
    from cloud_worker.settings import WorkerSettings

    configure_logs(log_level)
    settings = read_section(config, "worker", WorkerSettings)
    run_worker(settings, read_section(config, "s3", S3Settings), _broker(config), stop_on_signals())


@app.command()
def trainer(config: ConfigOption = None, log_level: LogLevel = "info") -> None:
    """Run a trainer: wait for retraining trigger messages, train, answer with a candidate."""
    from training.service import run_trainer
    from training.settings import TrainerSettings

    configure_logs(log_level)
    run_trainer(read_section(config, "trainer", TrainerSettings), _broker(config), stop_on_signals())


@app.command()
def dashboard(config: ConfigOption = None, log_level: LogLevel = "critical") -> None:
    """Show live diagnoses, edges, training and releases in the terminal."""
    from cloud_worker.dashboard.app import run_dashboard

    configure_logs(log_level)
    run_dashboard(_broker(config), stop=stop_on_signals())


@app.command()
def refused(config: ConfigOption = None) -> None:
    """List the files that this edge could not read, with the reason (on the box only: names may be patients')."""
    from edge_agent.outbox import Outbox
    from edge_agent.settings import EdgeSettings

    settings = read_section(config, "edge", EdgeSettings)
    path = settings.data_dir / "outbox.sqlite"
    with Outbox(path, max_rows=settings.max_outbox_rows, max_bytes=settings.max_outbox_bytes) as outbox:
        for key, reason in outbox.refused():
            typer.echo(f"{key}: {reason}")


@keys_app.command("new")
def keys_new(folder: Path) -> None:
    """Make a key pair: FOLDER/signing.pem stays with the worker, FOLDER/trusted/*.pub.json goes to the edges."""
    from sliceloop.keys import new_keys

    private, public = new_keys(folder)
    typer.echo(f"signing key  {private}  (keep it secret: worker.release.signing_key_file)")
    typer.echo(f"public key   {public}  (copy it to every edge: edge.trusted_keys_dir)")


@certificates_app.command("authority")
def certificates_authority(folder: Path) -> None:
    """Make the authority that signs all certificates of a deployment."""
    from broker.certificates import create_authority

    create_authority(folder)
    typer.echo(f"authority in {folder}: keep its key off the broker's and edges' machines")


@certificates_app.command("server")
def certificates_server(folder: Path, hostnames: list[str]) -> None:
    """Issue the broker's certificate for its host names and addresses."""
    from broker.certificates import issue_server

    issue_server(folder, hostnames)
    typer.echo(f"server certificate in {folder}")


@certificates_app.command("client")
def certificates_client(folder: Path, common_name: str) -> None:
    """Issue a client's certificate; its common name is the identity that the broker's access list knows."""
    from broker.certificates import issue_client

    issue_client(folder, common_name)
    typer.echo(f"certificate for {common_name} in {folder}")


@app.command()
def phantom(
    out: Path,
    site: Annotated[str, typer.Option(help="site-a or site-b")] = "site-a",
    patients: Annotated[int, typer.Option(min=1, help="Patients of each class to learn from.")] = 10,
    judges: Annotated[int, typer.Option(min=1, help="Patients of each class in val, and as many in test.")] = 4,
    slices: Annotated[int, typer.Option(min=1, help="Slices of each patient.")] = 3,
    seed: int = 0,
) -> None:
    """Make phantom slices (no patients) with a labels.csv of three splits, to try things out."""
    from sliceloop.progress import counted
    from training.data.phantom import Cohort, write_phantoms

    with counted("phantom slices") as on_slice:
        sizes = {"train": patients, "val": judges, "test": judges}
        cohorts = [Cohort(site, split, count, slices) for split, count in sizes.items()]
        labels = write_phantoms(out, cohorts, seed, on_slice)
    typer.echo(f"{labels}")


@app.command()
def train(
    data: Annotated[Path, typer.Argument(help="Folder with a labels.csv: file,label,patient_id,source,split.")],
    out: Annotated[Path, typer.Option(help="Folder for model.onnx, checkpoint.safetensors and report.json.")],
    architecture: str = "squeezenet1_1",
    input_px: Annotated[int, typer.Option(help="256, 128 or 64: the network reduces its 256x256 input to this.")] = 256,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    batch: Annotated[int, typer.Option(min=2)] = 32,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    seed: int = 0,
) -> None:
    """Train a network on a folder's train split, judged on its val split; started again after a stop, it goes on."""
    from sliceloop.training_run import train_folder
    from training.networks import INPUT_SIDES_PX
    from training.plan import TrainSettings

    if input_px not in INPUT_SIDES_PX:
        raise typer.BadParameter(f"{input_px} is none of {INPUT_SIDES_PX}", param_hint="--input-px")
    train_folder(
        data,
        out,
        architecture,
        input_px,
        TrainSettings(epochs=epochs, batch=batch, threads=threads, seed=seed),
        stop_on_signals(),
    )


@app.command()
def release(
    bundle: Annotated[Path, typer.Argument(help="Folder that `sliceloop train` wrote.")],
    why: Annotated[str, typer.Option(help="Why this release goes out without the gate; kept in the ledger.")],
    config: ConfigOption = None,
) -> None:
    """Sign a trained network and enter it as the next release, without the gate; a running worker announces it."""
    from cloud_worker.app import release_bundle
    from cloud_worker.object_store import S3Settings
    from cloud_worker.settings import WorkerSettings

    settings = read_section(config, "worker", WorkerSettings)
    manifest = release_bundle(bundle, why, settings, read_section(config, "s3", S3Settings))
    typer.echo(f"release {manifest.version} of {manifest.name}: sha256 {manifest.model_ref.sha256}")


@label_app.command("list")
def label_list(
    config: ConfigOption = None,
    limit: Annotated[int, typer.Option(min=1)] = 50,
    csv: Annotated[Path | None, typer.Option(help="Write a CSV to fill in and give to `label import`.")] = None,
) -> None:
    """List open disagreements, oldest first."""
    from sliceloop.labels import export_open, show_open

    url = _ledger_url(config)
    if csv is not None:
        typer.echo(f"{export_open(url, csv)} open disagreements in {csv}")
    else:
        show_open(url, limit)


@label_app.command("set")
def label_set(
    slice_id: Annotated[str, typer.Argument(help="The slice's id, or its beginning.")],
    label: Annotated[str, typer.Argument(help="Normal, Pneumonia or COVID-19.")],
    reviewer: Annotated[str, typer.Option(help="Who says so.")],
    why: Annotated[str, typer.Option(help="On what ground.")] = "",
    config: ConfigOption = None,
) -> None:
    """Set a slice's label; the newest counts, earlier ones are kept."""
    from sliceloop.labels import set_one

    typer.echo(f"{set_one(_ledger_url(config), slice_id, label, reviewer, why)} is {label}, says {reviewer}")


@label_app.command("import")
def label_import(
    csv: Annotated[
        Path, typer.Argument(help="Columns slice_id, label, reviewer, why; rows without label are skipped.")
    ],
    reviewer: Annotated[str, typer.Option(help="Who says so, where the row does not tell.")] = "",
    config: ConfigOption = None,
) -> None:
    """Set the labels of a CSV file: all of them, or none when a line is wrong."""
    from sliceloop.labels import import_labels

    typer.echo(f"{import_labels(_ledger_url(config), csv, reviewer)} labels set")


@app.command()
def history(config: ConfigOption = None) -> None:
    """Show why retrainings were asked for or not, what the gate said, and what was released."""
    from sliceloop.history import show_history

    show_history(_ledger_url(config))


@app.command()
def settings() -> None:
    """Print every setting with its default and meaning, as Markdown."""
    from sliceloop.settings_table import settings_table

    typer.echo(settings_table())


@app.command()
def demo(
    images: Annotated[Path | None, typer.Option(help="Stream the files of this folder instead of phantoms.")] = None,
    slices: Annotated[int, typer.Option(min=1, help="How many slices to stream.")] = 300,
    seed: int = 0,
    headless: Annotated[bool, typer.Option(help="Print lines instead of the dashboard.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write the result here.")] = None,
    svg: Annotated[Path | None, typer.Option(help="Leave a picture of the dashboard here.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the demo keeps its data.")] = Path("demo-data"),
) -> None:
    """Run the whole loop on this machine: two edges, worker, trainer, broker, S3 server, all as real processes."""
    from sliceloop.demo.run import run_demo

    raise typer.Exit(run_demo(images, slices, seed, folder, headless=headless, json=json, svg=svg))


def stop_on_signals() -> threading.Event:
    """Return the process's one stop event; SIGTERM and SIGINT set it and do nothing else."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _broker(config: Path | None) -> BrokerSettings:
    return read_section(config, "broker", BrokerSettings)


def _ledger_url(config: Path | None) -> str:
    from cloud_worker.settings import WorkerSettings

    return read_section(config, "worker", WorkerSettings).ledger_url


def _is_of_a_path(error: Exception) -> bool:
    return isinstance(error, OSError) and error.filename is not None


def _die(message: str) -> NoReturn:
    sys.stderr.write(f"sliceloop: {message}\n")
    raise SystemExit(2)
