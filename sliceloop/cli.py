"""The one command: every process of the loop, and the tools of the people around it."""

import sys
import warnings
from pathlib import Path
from typing import Annotated, Literal, NoReturn, TextIO

import typer

from broker.settings import BrokerSettings
from sliceloop.camera_commands import camera_app, capture_bench_app, intake_app
from sliceloop.config import read_section
from sliceloop.fleet_commands import fleet_app, pipeline_bench_app
from sliceloop.key_commands import keys_app
from sliceloop.ledger_commands import audit_app, dead_app
from sliceloop.logs import configure_logs
from sliceloop.release_commands import release_app
from sliceloop.rollout_commands import rollout_app
from sliceloop.stopping import stop_on_signals
from sliceloop.update_commands import update_bench_app

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Read chest-CT slices at the edge, learn from disagreements in the cloud. Research use only.",
)
label_app = typer.Typer(no_args_is_help=True, help="The reviewer's desk: open disagreements and their labels.")
certificates_app = typer.Typer(no_args_is_help=True, help="TLS certificates for broker and clients.")
data_app = typer.Typer(no_args_is_help=True, help="Data sets: look through one, decode it once.")
app.add_typer(keys_app, name="keys")
app.add_typer(label_app, name="label")
app.add_typer(certificates_app, name="certificates")
bench_app = typer.Typer(no_args_is_help=True, help="Measure this machine.")
app.add_typer(bench_app, name="bench")
calibrate_app = typer.Typer(no_args_is_help=True, help="Calibrate a webcam before a screen or light box.")
bench_app.add_typer(capture_bench_app)
bench_app.add_typer(pipeline_bench_app)
bench_app.add_typer(update_bench_app)
app.add_typer(fleet_app)
app.add_typer(calibrate_app, name="calibrate")
app.add_typer(camera_app)
app.add_typer(intake_app, name="intake")
app.add_typer(data_app, name="data")
app.add_typer(audit_app)
app.add_typer(dead_app, name="dead")
app.add_typer(release_app)
app.add_typer(rollout_app)

OUR_PACKAGES = frozenset({"broker", "cloud_worker", "edge_agent", "protocol", "sliceloop", "training"})
EXTRAS = {
    "boto3": "cloud",
    "sqlalchemy": "cloud",
    "alembic": "cloud",
    "psycopg": "postgresql",
    "torch": "training",
    "torchvision": "training",
    "safetensors": "training",
    "onnx": "edge",
    "scipy": "training",
    "matplotlib": "training",
    "optuna": "training",
    "sklearn": "training",
    "imagehash": "training",
    "timm": "training",
    "onnxruntime": "edge",
    "cv2": "edge",
    "numpy": "edge",
    "PIL": "edge",
    "pydicom": "edge",
    "zstandard": "edge",
    "iotcore": "demo",
}

ConfigOption = Annotated[
    Path | None, typer.Option("--config", "-c", envvar="SLICELOOP_CONFIG", help="TOML file with the settings.")
]
LogLevel = Annotated[str, typer.Option("--log-level", envvar="SLICELOOP_LOG_LEVEL")]
PatientRule = Annotated[
    str | None,
    typer.Option(help="For class folders: a regular expression whose one group is the patient's id in a file's path."),
]


def _list_architectures(name: str) -> str:
    if name == "help":
        from training.networks import ARCHITECTURES

        typer.echo("\n".join(f"{each:24}{known.description}" for each, known in ARCHITECTURES.items()))
        raise typer.Exit
    return name


ArchitectureName = Annotated[
    str, typer.Option(callback=_list_architectures, help="'help' lists them with what each of them is.")
]


def main() -> None:
    """Run the command; our own errors, and a path's, become one line that says what to do, others a traceback."""
    warnings.showwarning = _show_warning
    configure_logs("warning")  # to standard error, until a process says its own level: what is printed may be piped
    try:
        app()
    except ModuleNotFoundError as error:
        extra = EXTRAS.get((error.name or "").split(".")[0])
        if extra is None:
            raise
        _die(f"{error.name} is not installed: pip install 'sliceloop[{extra}]'")
    except Exception as error:
        if _is_ours(type(error)):
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
    """Run a cloud worker: store, read again, request retrainings, gate, assign releases to edges."""
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
    """List the files and pictures that this edge did not read, with the reason (on the box: names may be patients')."""
    from edge_agent.inlet import REFUSED_FOLDER
    from edge_agent.refused_pictures import kept_pictures
    from edge_agent.settings import OUTBOX_FILE, EdgeSettings
    from sliceloop.existing import existing

    settings = read_section(config, "edge", EdgeSettings)
    existing(settings.data_dir / OUTBOX_FILE, config)
    with settings.outbox() as outbox:
        files = list(outbox.refused())
    pictures = kept_pictures(settings.data_dir / REFUSED_FOLDER)
    typer.echo("\n".join(f"{name}: {reason}" for name, reason in (*files, *pictures)) or "none")


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
    data: Annotated[Path, typer.Argument(help="A labels.csv's folder, COVIDx CT, or a folder for each class.")],
    out: Annotated[Path, typer.Option(help="Folder for network, checkpoint, report and curves.")],
    architecture: ArchitectureName = "squeezenet1_1",
    input_px: Annotated[
        int, typer.Option(min=32, max=256, help="The network reduces its 256x256 input to this.")
    ] = 256,
    weights: Annotated[
        str, typer.Option(help="To start from: none, imagenet, or a .pth or .safetensors file.")
    ] = "none",
    mode: Annotated[
        Literal["finetune", "head"], typer.Option(help="head: the last layer alone, in seconds.")
    ] = "finetune",
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded slices.")] = None,
    patients: Annotated[
        int | None, typer.Option(min=3, help="Learn from so many patients only, drawn by seed.")
    ] = None,
    exclude_source: Annotated[list[str] | None, typer.Option(help="Leave a source out; may be repeated.")] = None,
    patient_rule: PatientRule = None,
    allow_leak: Annotated[bool, typer.Option(help="Go on where a patient is on two sides; marks all outputs.")] = False,
    views: Annotated[
        Path | None, typer.Option(help="Learn from simulated captured views too: a folder of `capture-views`.")
    ] = None,
    views_share: Annotated[float, typer.Option(min=0, max=1, help="Of a batch's slices, those shown twice.")] = 1.0,
    views_weight: Annotated[float, typer.Option(min=0, help="Of a slice's and its view's answers being one.")] = 4.0,
    epochs: Annotated[int, typer.Option(min=1)] = 12,
    batch: Annotated[int, typer.Option(min=2)] = 32,
    balanced: Annotated[
        Literal["none", "class", "class-source"], typer.Option(help="What is shown equally often.")
    ] = "class",
    augment: Annotated[float, typer.Option(min=0, max=4, help="Strength of augmentation; 0 for none.")] = 1.0,
    greys: Annotated[float, typer.Option(min=0, max=4, help="How many times as much greys vary.")] = 1.0,
    window: Annotated[float, typer.Option(min=0, max=1, help="Chance of another grey window.")] = 0.0,
    exchange: Annotated[
        float, typer.Option(min=0, max=1, help="Chance that a slice of lungs only is shown in another's body.")
    ] = 0.0,
    optimizer: Annotated[Literal["adamw", "sgd"], typer.Option()] = "adamw",
    learning_rate: Annotated[float | None, typer.Option(help="At its peak; default: the architecture's own.")] = None,
    backbone_rate_share: Annotated[float, typer.Option(help="Share of it for all but the last layer.")] = 1.0,
    freeze_epochs: Annotated[int, typer.Option(min=0, help="First epochs that teach the last layer alone.")] = 0,
    weight_decay: Annotated[float, typer.Option(min=0)] = 0.01,
    label_smoothing: Annotated[float, typer.Option(min=0)] = 0.0,
    ema_decay: Annotated[float, typer.Option(min=0, help="Judge and keep a moving average, of 0.99, say.")] = 0.0,
    patience: Annotated[int | None, typer.Option(min=1, help="Stop after so many epochs without a better one.")] = None,
    half: Annotated[
        bool, typer.Option("--half/--no-half", help="Store the weights as float16: half the file.")
    ] = False,
    device: Annotated[Literal["auto", "cpu", "cuda"], typer.Option()] = "auto",
    threads: Annotated[int, typer.Option(min=1)] = 1,
    seed: int = 0,
) -> None:
    """Train a network on a train split, judged on its val split; started again after a stop, it goes on."""
    from sliceloop.training_run import TrainRequest, train_folder, train_settings

    request = TrainRequest(
        data=data,
        out=out,
        architecture=architecture,
        input_px=input_px,
        weights=weights,
        mode=mode,
        cache=cache,
        patients=patients,
        exclude_sources=tuple(exclude_source or ()),
        patient_rule=patient_rule,
        allow_leak=allow_leak,
        views=views,
    )
    settings = train_settings(
        epochs=epochs,
        batch=batch,
        balanced=balanced,
        augment=augment,
        greys=greys,
        window=window,
        exchange=exchange,
        views_share=views_share,
        views_weight=views_weight,
        optimizer=optimizer,
        learning_rate=learning_rate,
        backbone_rate_share=backbone_rate_share,
        freeze_epochs=freeze_epochs,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        ema_decay=ema_decay,
        patience=patience,
        half=half,
        device=device,
        threads=threads,
        seed=seed,
    )
    train_folder(request, settings, stop_on_signals())


@app.command()
def quantize(
    bundle: Annotated[Path, typer.Argument(help="Folder that `sliceloop train` wrote.")],
    data: Annotated[Path, typer.Argument(help="Data set: calibrated on its train split, judged on its val split.")],
    out: Annotated[Path, typer.Option(help="Folder for the bundle with the int8 network.")],
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded slices.")] = None,
    patient_rule: PatientRule = None,
    allow_leak: Annotated[
        bool, typer.Option(help="Go on where a patient is on two sides, or taught the network; marks all outputs.")
    ] = False,
) -> None:
    """Make a bundle's network int8: smaller and faster; refused where balanced accuracy falls by more than a point."""
    from sliceloop.quantize_run import quantize_bundle

    quantize_bundle(bundle, data, out, cache, patient_rule, allow_leak=allow_leak)


@bench_app.command("training")
def bench_training(
    data: Annotated[Path | None, typer.Argument(help="Use this data set's train split instead of phantoms.")] = None,
    patient_rule: PatientRule = None,
    architecture: ArchitectureName = "squeezenet1_1",
    input_px: Annotated[int, typer.Option(min=32, max=256)] = 224,
    batch: Annotated[int, typer.Option(min=2)] = 32,
    threads: Annotated[int, typer.Option(min=1)] = 2,
    steps: Annotated[int, typer.Option(min=1, help="Timed steps a round.")] = 8,
    rounds: Annotated[int, typer.Option(min=1)] = 5,
    json: Annotated[Path | None, typer.Option(help="Write the result here.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw it here: a .png or .svg file.")] = None,
) -> None:
    """Compare training's images a second with the plain way (ImageFolder, DataLoader, per-image transforms)."""
    from sliceloop.bench_run import BenchRequest, bench_training
    from training.throughput import WARMUP_STEPS, Race

    plan = Race(architecture, input_px, batch, threads, steps, WARMUP_STEPS, rounds)
    bench_training(BenchRequest(data, patient_rule, plan, json, plot))


@calibrate_app.command("show")
def calibrate_show(
    out: Annotated[
        Path, typer.Argument(help="File for the page: .html (full screen), .png or .pdf (to print).")
    ] = Path("calibration.html"),
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write the calibration page: grey patches with a tag in each corner."""
    from sliceloop.calibrate_run import show_page

    show_page(out, open_browser=browser)


@calibrate_app.command("solve")
def calibrate_solve(
    image: Annotated[Path, typer.Argument(help="The webcam's photograph of the page, PNG or JPEG.")],
    out: Annotated[Path, typer.Option(help="File for the calibration.")],
) -> None:
    """Find the page in a photograph and write the calibration that it gives."""
    from sliceloop.calibrate_run import solve_photograph

    solve_photograph(image, out)


@app.command()
def explore(
    data: Annotated[Path, typer.Argument(help="A labels.csv's folder, a COVIDx CT folder, or a folder of classes.")],
    out: Annotated[Path, typer.Option(help="Folder for report.md, report.html, plots and results.json.")],
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded slices.")] = None,
    together: Annotated[
        list[str] | None, typer.Option(help="NAME=SOURCE,SOURCE: sources that are one origin; may be repeated.")
    ] = None,
    patient_rule: PatientRule = None,
    allow_leak: Annotated[bool, typer.Option(help="Go on where a patient is on two sides; marks all outputs.")] = False,
    seed: int = 0,
) -> None:
    """Show who is in a data set, how bright its classes are, and what a network can cheat with."""
    from sliceloop.explore_run import explore_folder

    explore_folder(
        data, out, cache, seed, tuple(together or ()), patient_rule, stop_on_signals(), allow_leak=allow_leak
    )


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A bundle's folder, an .onnx file in one, or a weights file.")],
    data: Annotated[Path, typer.Argument(help="Folder of the labelled slices.")],
    out: Annotated[Path, typer.Option(help="Folder for predictions.csv, evaluation.json, report.md and plots.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded slices.")] = None,
    exclude_source: Annotated[list[str] | None, typer.Option(help="Leave a source out; may be repeated.")] = None,
    architecture: Annotated[
        str | None, typer.Option(help="Of a weights file; a bundle and a checkpoint know their own.")
    ] = None,
    input_px: Annotated[
        int | None,
        typer.Option(
            min=32, max=256, help="Of a weights file: the side that it learnt at; default: a checkpoint's own, or 256."
        ),
    ] = None,
    weights_labels: Annotated[
        str | None, typer.Option(help='Of a weights file: its classes in order, as "COVID-19,Normal,Pneumonia".')
    ] = None,
    patient_rule: PatientRule = None,
    name: Annotated[str | None, typer.Option(help="How tables and plots call it; default: the folder's name.")] = None,
    allow_leak: Annotated[
        bool, typer.Option(help="Go on where patients of the training are judged; marks all outputs.")
    ] = False,
    threads: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """Judge a network on a split: report, curves, calibration, by source and by patient, all with intervals."""
    from sliceloop.judge_run import EvaluateRequest, evaluate_model

    request = EvaluateRequest(
        model=model,
        data=data,
        out=out,
        split=split,
        cache=cache,
        exclude_sources=tuple(exclude_source or ()),
        architecture=architecture,
        input_px=input_px,
        weights_labels=weights_labels,
        patient_rule=patient_rule,
        name=name,
        allow_leak=allow_leak,
        threads=threads,
    )
    evaluate_model(request, stop_on_signals())


@app.command()
def compare(
    evaluations: Annotated[list[Path], typer.Argument(help="Folders that `sliceloop evaluate` wrote.")],
    out: Annotated[Path, typer.Option(help="Folder for comparison.json, comparison.md and plots.")],
    against: Annotated[str, typer.Option(help="Test every model against the first named, or the best.")] = "first",
) -> None:
    """Compare networks judged on the same slices: one table, paired differences, McNemar, cost and latency."""
    from sliceloop.judge_run import compare_models

    compare_models(tuple(evaluations), out, against, stop_on_signals())


@data_app.command("check")
def data_check(
    data: Annotated[Path, typer.Argument(help="A labels.csv's folder, a COVIDx CT folder, or a folder of classes.")],
    patient_rule: PatientRule = None,
    json: Annotated[Path | None, typer.Option(help="Write all that was found here.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Keep the decoded slices here, for training.")] = None,
) -> None:
    """Count a data set and look for leaks, copies across splits and unreadable files; ends with 1 if there are any."""
    from sliceloop.data_run import check_data

    raise typer.Exit(check_data(data, patient_rule, json, cache, stop_on_signals()))


@data_app.command("cache")
def data_cache(
    data: Annotated[Path, typer.Argument(help="A labels.csv's folder, a COVIDx CT folder, or a folder of classes.")],
    cache: Annotated[Path, typer.Option(help="Folder for the decoded slices, 64 KiB each; several sets may share it.")],
    patient_rule: PatientRule = None,
) -> None:
    """Decode a data set once; stopped or killed, and started again, it goes on."""
    from sliceloop.data_run import cache_data

    raise typer.Exit(cache_data(data, patient_rule, cache, stop_on_signals()))


@app.command()
def curve(
    data: Annotated[Path, typer.Argument(help="A labels.csv's folder, COVIDx CT, or a folder for each class.")],
    out: Annotated[Path, typer.Option(help="Folder for curve.csv, .json, .md and .png, and the points so far.")],
    budgets: Annotated[
        str, typer.Option(help="Patients to learn from, and 'all'; too many are left out.")
    ] = "10,30,100,all",
    repeats: Annotated[int, typer.Option(min=1, help="Draws of patients for each budget.")] = 5,
    mode: Annotated[Literal["finetune", "head"], typer.Option(help="head: the last layer alone, in seconds.")] = "head",
    architecture: ArchitectureName = "squeezenet1_1",
    weights: Annotated[str, typer.Option(help="To start from: none, imagenet, or a file.")] = "none",
    input_px: Annotated[int, typer.Option(min=32, max=256)] = 128,
    split: Annotated[Literal["val", "test"], typer.Option(help="Where it is judged.")] = "val",
    exclude_source: Annotated[list[str] | None, typer.Option(help="Leave a source out; may be repeated.")] = None,
    patient_rule: PatientRule = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded slices and features.")] = None,
    allow_leak: Annotated[bool, typer.Option(help="Go on where a patient is on two sides; marks all outputs.")] = False,
    balanced: Annotated[Literal["none", "class", "class-source"], typer.Option()] = "class-source",
    epochs: Annotated[int, typer.Option(min=1, help="Of fine-tuning.")] = 12,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    seed: int = 0,
) -> None:
    """Learn from more and more patients, and judge each network: the learning curve; after a stop it goes on."""
    from sliceloop.curve_run import draw_learning_curve, parse_budgets
    from sliceloop.pooled import Request
    from training.learning_curve import CurvePlan
    from training.plan import TrainSettings

    excluded = tuple(exclude_source or ())
    settings = TrainSettings(balanced=balanced, epochs=epochs, threads=threads, seed=seed)
    request = Request(
        data, out, architecture, input_px, weights, mode, split, settings, cache, excluded, allow_leak, patient_rule
    )
    plan = CurvePlan(parse_budgets(budgets), repeats, split, seed, excluded)
    draw_learning_curve(request, plan, stop_on_signals())


@app.command()
def sources(
    data: Annotated[Path, typer.Argument(help="A labels.csv's folder, COVIDx CT, or a folder for each class.")],
    out: Annotated[Path, typer.Option(help="Folder for sources.csv, .json, .md and .png, and the results so far.")],
    mode: Annotated[Literal["finetune", "head"], typer.Option(help="head: the last layer alone, in seconds.")] = "head",
    architecture: ArchitectureName = "squeezenet1_1",
    weights: Annotated[str, typer.Option(help="To start from: none, imagenet, or a file.")] = "none",
    input_px: Annotated[int, typer.Option(min=32, max=256)] = 128,
    split: Annotated[Literal["val", "test"], typer.Option(help="Where unseen and seen are compared.")] = "val",
    exclude_source: Annotated[list[str] | None, typer.Option(help="Never use a source; may be repeated.")] = None,
    patient_rule: PatientRule = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded slices and features.")] = None,
    allow_leak: Annotated[bool, typer.Option(help="Go on where a patient is on two sides; marks all outputs.")] = False,
    balanced: Annotated[Literal["none", "class", "class-source"], typer.Option()] = "class-source",
    epochs: Annotated[int, typer.Option(min=1, help="Of fine-tuning.")] = 12,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    seed: int = 0,
) -> None:
    """Leave each source out in turn, and judge it unseen beside seen; after a stop it goes on."""
    from sliceloop.pooled import Request
    from sliceloop.sources_run import leave_sources_out
    from training.plan import TrainSettings
    from training.sources import SourcesPlan

    excluded = tuple(exclude_source or ())
    settings = TrainSettings(balanced=balanced, epochs=epochs, threads=threads, seed=seed)
    request = Request(
        data, out, architecture, input_px, weights, mode, split, settings, cache, excluded, allow_leak, patient_rule
    )
    leave_sources_out(request, SourcesPlan(split, seed, excluded), stop_on_signals())


@app.command()
def tune(
    data: Annotated[Path, typer.Argument(help="A labels.csv's folder, COVIDx CT, or a folder for each class.")],
    out: Annotated[Path, typer.Option(help="Folder for tune.csv, .json, .md and .png, and the combinations so far.")],
    method: Annotated[
        Literal["grid", "halving"], typer.Option(help="halving stops the worse half at 1, 2, 4, ... epochs.")
    ] = "grid",
    input_px: Annotated[int, typer.Option(min=32, max=256)] = 128,
    epochs: Annotated[int | None, typer.Option(min=1, help="Of each combination; default 2, halving 8.")] = None,
    batch: Annotated[int, typer.Option(min=2)] = 32,
    exclude_source: Annotated[list[str] | None, typer.Option(help="Leave a source out; may be repeated.")] = None,
    patient_rule: PatientRule = None,
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps decoded slices.")] = None,
    allow_leak: Annotated[bool, typer.Option(help="Go on where a patient is on two sides; marks all outputs.")] = False,
    balanced: Annotated[Literal["none", "class", "class-source"], typer.Option()] = "class",
    augment: Annotated[float, typer.Option(min=0, max=4, help="Strength of augmentation; 0 for none.")] = 0.0,
    threads: Annotated[int, typer.Option(min=1)] = 1,
    seed: int = 0,
) -> None:
    """Search the paper's 72 baseline CNNs, each a fresh network, best first in a table; after a stop it goes on."""
    from sliceloop.pooled import Request
    from sliceloop.tune_run import tune_folder
    from training.plan import TrainSettings

    settings = TrainSettings(
        epochs=epochs or (2 if method == "grid" else 8),
        batch=batch,
        balanced=balanced,
        augment=augment,
        threads=threads,
        seed=seed,
    )
    excluded = tuple(exclude_source or ())
    request = Request(
        data,
        out,
        "baseline_cnn",
        input_px,
        "none",
        "finetune",
        "val",
        settings,
        cache,
        excluded,
        allow_leak,
        patient_rule,
    )
    tune_folder(request, method, stop_on_signals())


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


@label_app.command("show")
def label_show(
    slice_id: Annotated[str, typer.Argument(help="The slice's id, or its beginning.")],
    image: Annotated[Path | None, typer.Option(help="Write the slice's PNG here.")] = None,
    config: ConfigOption = None,
) -> None:
    """Draw a slice in the terminal, with both readings and what was said of it."""
    from cloud_worker.object_store import ObjectStore, S3Settings
    from sliceloop.labels import show_slice

    store = ObjectStore(read_section(config, "s3", S3Settings))
    show_slice(_ledger_url(config), store, slice_id, image)


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


@app.command()
def chaos(
    seed: int = 0,
    slices: Annotated[int, typer.Option(min=2, help="How many slices to stream.")] = 500,
    faults: Annotated[int, typer.Option(min=0, help="How many faults strike meanwhile.")] = 60,
    fuzz: Annotated[int, typer.Option(min=0, help="Publish so many mutated messages instead of faults.")] = 0,
    ledger: Annotated[
        Literal["sqlite", "postgresql"], typer.Option(help="Where the workers keep their ledger.")
    ] = "sqlite",
    folder: Annotated[Path, typer.Option(help="Where runs keep their data.")] = Path("chaos-data"),
    json: Annotated[Path | None, typer.Option(help="Write the result here.")] = None,
) -> None:
    """Break the running loop by a seeded schedule of faults, and count what is lost, doubled or spoiled."""
    from sliceloop.chaos.run import Order, run_chaos

    order = Order(seed, slices, faults, ledger, folder)
    if fuzz:
        from sliceloop.chaos.fuzz_run import run_fuzz

        raise typer.Exit(run_fuzz(order, fuzz, json))
    raise typer.Exit(run_chaos(order, json))


def _broker(config: Path | None) -> BrokerSettings:
    return read_section(config, "broker", BrokerSettings)


def _ledger_url(config: Path | None) -> str:
    from cloud_worker.settings import WorkerSettings
    from sliceloop.existing import existing_ledger

    return existing_ledger(read_section(config, "worker", WorkerSettings).ledger_url, config)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Say a warning of ours in one plain line, without the place in the code; others as Python does."""
    ours = _is_ours(category)
    text = f"sliceloop: {message}\n" if ours else warnings.formatwarning(message, category, filename, lineno, line)
    (file or sys.stderr).write(text)


def _is_ours(kind: type) -> bool:
    return kind.__module__.split(".")[0] in OUR_PACKAGES


def _is_of_a_path(error: Exception) -> bool:
    return isinstance(error, OSError) and error.filename is not None


def _die(message: str) -> NoReturn:
    sys.stderr.write(f"sliceloop: {message}\n")
    raise SystemExit(2)
